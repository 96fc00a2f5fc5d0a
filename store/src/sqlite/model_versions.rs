//! Versions of models.

use aotfarm_protocol::{Digest, VersionInfo};
use async_trait::async_trait;

use super::value::Word;
use super::{Unit, model_tags, model_variants};
use crate::catalog::{NewVersion, ReadVersions, WriteVersions};
use crate::error::Result;

#[async_trait]
impl ReadVersions for Unit {
    async fn version(&mut self, model: &str, version: u32) -> Result<Option<VersionInfo>> {
        let row: Option<(Word<Digest>, Word<Digest>, i64)> =
            sqlx::query_as("SELECT index_digest, graph, published_at FROM model_versions WHERE model = ? AND version = ?")
                .bind(model)
                .bind(version)
                .fetch_optional(self.conn())
                .await?;
        let Some((Word(index), Word(graph), at)) = row else { return Ok(None) };
        let variants = model_variants::of_version(self.conn(), model, version).await?;
        let tags = model_tags::of_version(self.conn(), model, version).await?;
        Ok(Some(VersionInfo { name: model.to_owned(), version, index, graph, variants, tags, at }))
    }

    async fn latest_version(&mut self, model: &str) -> Result<u32> {
        let query = sqlx::query_scalar("SELECT COALESCE(MAX(version), 0) FROM model_versions WHERE model = ?").bind(model);
        Ok(query.fetch_one(self.conn()).await?)
    }

    async fn models(&mut self) -> Result<Vec<(String, u32)>> {
        let query = sqlx::query_as("SELECT model, MAX(version) FROM model_versions GROUP BY model ORDER BY model");
        Ok(query.fetch_all(self.conn()).await?)
    }

    async fn version_with_index(&mut self, model: &str, index: Digest) -> Result<Option<u32>> {
        let query = sqlx::query_scalar("SELECT MAX(version) FROM model_versions WHERE model = ? AND index_digest = ?");
        Ok(query.bind(model).bind(Word(index)).fetch_one(self.conn()).await?)
    }

    async fn version_with_contents(&mut self, model: &str, contents: Digest) -> Result<Option<u32>> {
        let query = sqlx::query_scalar("SELECT version FROM model_versions WHERE model = ? AND contents = ?");
        Ok(query.bind(model).bind(Word(contents)).fetch_optional(self.conn()).await?)
    }

    async fn has_manifest(&mut self, model: &str, manifest: Digest) -> Result<bool> {
        model_variants::has_manifest(self.conn(), model, manifest).await
    }
}

#[async_trait]
impl WriteVersions for Unit {
    async fn insert_version(&mut self, new: &NewVersion<'_>) -> Result<()> {
        sqlx::query(
            "INSERT INTO model_versions (model, version, index_digest, graph, contents, published_at)
             VALUES (?, ?, ?, ?, ?, ?)",
        )
        .bind(new.model)
        .bind(new.version)
        .bind(Word(new.index))
        .bind(Word(new.graph))
        .bind(Word(new.contents))
        .bind(new.at)
        .execute(self.conn())
        .await?;
        for variant in new.variants {
            model_variants::insert(self.conn(), new.model, new.version, variant).await?;
        }
        Ok(())
    }
}
