//! Rows to words.

use std::str::FromStr;

use aotfarm_protocol::{Profile, VariantInfo, VersionInfo};
use sqlx::SqliteConnection;

use super::{CatalogError, Result};

const READ: &str = "read the catalog";

/// Parses what a row holds.
pub(super) fn parse<T: FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T> {
    text.parse().map_err(|e: T::Err| CatalogError::Corrupt(e.to_string()))
}

fn unsigned<T: TryFrom<i64>>(n: i64) -> Result<T> {
    n.try_into().map_err(|_| CatalogError::Corrupt(format!("{n} is out of range")))
}

/// One version, if it exists.
pub(super) async fn version(db: &mut SqliteConnection, model: &str, version: u32) -> Result<Option<VersionInfo>> {
    let row: Option<(String, String, i64)> =
        sqlx::query_as("SELECT index_digest, graph, published_at FROM model_versions WHERE model = ? AND version = ?")
            .bind(model)
            .bind(version)
            .fetch_optional(&mut *db)
            .await
            .map_err(CatalogError::database(READ))?;
    let Some((index, graph, at)) = row else { return Ok(None) };
    let variants: Vec<(String, String, String, i64)> = sqlx::query_as(
        "SELECT target, manifest, artifact, bytes FROM model_variants WHERE model = ? AND version = ? ORDER BY target",
    )
    .bind(model)
    .bind(version)
    .fetch_all(&mut *db)
    .await
    .map_err(CatalogError::database(READ))?;
    let tags: Vec<String> = sqlx::query_scalar("SELECT tag FROM model_tags WHERE model = ? AND version = ? ORDER BY tag")
        .bind(model)
        .bind(version)
        .fetch_all(db)
        .await
        .map_err(CatalogError::database(READ))?;
    let variants = variants
        .into_iter()
        .map(|(target, manifest, artifact, bytes)| {
            Ok(VariantInfo {
                target: parse(&target)?,
                manifest: parse(&manifest)?,
                artifact: parse(&artifact)?,
                bytes: unsigned(bytes)?,
            })
        })
        .collect::<Result<_>>()?;
    Ok(Some(VersionInfo { name: model.to_owned(), version, index: parse(&index)?, graph: parse(&graph)?, variants, tags, at }))
}

/// The number of the newest version; 0 if there is none.
pub(super) async fn latest(db: &mut SqliteConnection, model: &str) -> Result<u32> {
    let n: Option<i64> = sqlx::query_scalar("SELECT max(version) FROM model_versions WHERE model = ?")
        .bind(model)
        .fetch_one(db)
        .await
        .map_err(CatalogError::database(READ))?;
    unsigned(n.unwrap_or(0))
}

/// `(model, versions)` of every model, by name.
pub(super) async fn models(db: &mut SqliteConnection) -> Result<Vec<(String, u32)>> {
    let rows: Vec<(String, i64)> = sqlx::query_as("SELECT model, max(version) FROM model_versions GROUP BY model ORDER BY model")
        .fetch_all(db)
        .await
        .map_err(CatalogError::database(READ))?;
    rows.into_iter().map(|(model, n)| Ok((model, unsigned(n)?))).collect()
}

/// The Profiles of a version, in the order they came.
pub(super) async fn profiles(db: &mut SqliteConnection, model: &str, version: u32) -> Result<Vec<Profile>> {
    let rows: Vec<String> = sqlx::query_scalar("SELECT body FROM model_profiles WHERE model = ? AND version = ? ORDER BY id")
        .bind(model)
        .bind(version)
        .fetch_all(db)
        .await
        .map_err(CatalogError::database(READ))?;
    rows.iter()
        .map(|body| {
            serde_json::from_str(body).map_err(|e| CatalogError::Corrupt(format!("a profile of {model}@v{version}: {e}")))
        })
        .collect()
}

/// The version that a tag points at.
pub(super) async fn tagged(db: &mut SqliteConnection, model: &str, tag: &str) -> Result<Option<u32>> {
    let n: Option<i64> = sqlx::query_scalar("SELECT version FROM model_tags WHERE model = ? AND tag = ?")
        .bind(model)
        .bind(tag)
        .fetch_optional(db)
        .await
        .map_err(CatalogError::database(READ))?;
    n.map(unsigned).transpose()
}

/// The version whose index has the digest; the newest, should there be several.
pub(super) async fn with_index(db: &mut SqliteConnection, model: &str, index: &str) -> Result<Option<u32>> {
    let n: Option<i64> = sqlx::query_scalar("SELECT max(version) FROM model_versions WHERE model = ? AND index_digest = ?")
        .bind(model)
        .bind(index)
        .fetch_one(db)
        .await
        .map_err(CatalogError::database(READ))?;
    n.map(unsigned).transpose()
}

/// The version that has exactly the contents.
pub(super) async fn with_contents(db: &mut SqliteConnection, model: &str, contents: &str) -> Result<Option<u32>> {
    let n: Option<i64> = sqlx::query_scalar("SELECT version FROM model_versions WHERE model = ? AND contents = ?")
        .bind(model)
        .bind(contents)
        .fetch_optional(db)
        .await
        .map_err(CatalogError::database(READ))?;
    n.map(unsigned).transpose()
}

/// Whether a variant of the model has the manifest.
pub(super) async fn has_manifest(db: &mut SqliteConnection, model: &str, manifest: &str) -> Result<bool> {
    sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM model_variants WHERE model = ? AND manifest = ?)")
        .bind(model)
        .bind(manifest)
        .fetch_one(db)
        .await
        .map_err(CatalogError::database(READ))
}

/// `(tag, version)` of a model, by tag.
pub(super) async fn tags(db: &mut SqliteConnection, model: &str) -> Result<Vec<(String, u32)>> {
    let rows: Vec<(String, i64)> = sqlx::query_as("SELECT tag, version FROM model_tags WHERE model = ? ORDER BY tag")
        .bind(model)
        .fetch_all(db)
        .await
        .map_err(CatalogError::database(READ))?;
    rows.into_iter().map(|(tag, n)| Ok((tag, unsigned(n)?))).collect()
}
