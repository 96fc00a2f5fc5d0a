//! The artifact of one target in one version.

use aotfarm_protocol::{Digest, VariantInfo};
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{FromRow, Row};

use super::value::Word;
use crate::error::{Result, StoreError};

/// A [`VariantInfo`], which is not a type of this crate.
struct Variant(VariantInfo);

impl FromRow<'_, SqliteRow> for Variant {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        let Word(target) = row.try_get("target")?;
        let Word(manifest) = row.try_get("manifest")?;
        let Word(artifact) = row.try_get("artifact")?;
        let bytes: i64 = row.try_get("bytes")?;
        let bytes =
            bytes.try_into().map_err(|error| sqlx::Error::ColumnDecode { index: "bytes".to_owned(), source: Box::new(error) })?;
        Ok(Self(VariantInfo { target, manifest, artifact, bytes }))
    }
}

/// The variants of a version, in the order of their targets.
pub(super) async fn of_version(conn: &mut SqliteConnection, model: &str, version: u32) -> Result<Vec<VariantInfo>> {
    let rows: Vec<Variant> = sqlx::query_as(
        "SELECT target, manifest, artifact, bytes FROM model_variants WHERE model = ? AND version = ? ORDER BY target",
    )
    .bind(model)
    .bind(version)
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|Variant(info)| info).collect())
}

/// Whether a variant of the model has the manifest.
pub(super) async fn has_manifest(conn: &mut SqliteConnection, model: &str, manifest: Digest) -> Result<bool> {
    let query = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM model_variants WHERE model = ? AND manifest = ?)");
    Ok(query.bind(model).bind(Word(manifest)).fetch_one(conn).await?)
}

/// Adds a variant to a version.
pub(super) async fn insert(conn: &mut SqliteConnection, model: &str, version: u32, variant: &VariantInfo) -> Result<()> {
    let bytes = i64::try_from(variant.bytes)
        .map_err(|error| StoreError::Value { what: "size of an artifact".to_owned(), source: Box::new(error) })?;
    sqlx::query("INSERT INTO model_variants (model, version, target, manifest, artifact, bytes) VALUES (?, ?, ?, ?, ?, ?)")
        .bind(model)
        .bind(version)
        .bind(Word(variant.target))
        .bind(Word(variant.manifest))
        .bind(Word(variant.artifact))
        .bind(bytes)
        .execute(conn)
        .await?;
    Ok(())
}
