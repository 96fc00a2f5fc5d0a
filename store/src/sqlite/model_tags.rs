//! Names for versions that can be moved.

use async_trait::async_trait;
use sqlx::sqlite::SqliteConnection;

use super::Unit;
use crate::catalog::{ReadTags, WriteTags};
use crate::error::Result;

/// The tags of a version, by name.
pub(super) async fn of_version(conn: &mut SqliteConnection, model: &str, version: u32) -> Result<Vec<String>> {
    let query = sqlx::query_scalar("SELECT tag FROM model_tags WHERE model = ? AND version = ? ORDER BY tag");
    Ok(query.bind(model).bind(version).fetch_all(conn).await?)
}

#[async_trait]
impl ReadTags for Unit {
    async fn tagged(&mut self, model: &str, tag: &str) -> Result<Option<u32>> {
        let query = sqlx::query_scalar("SELECT version FROM model_tags WHERE model = ? AND tag = ?");
        Ok(query.bind(model).bind(tag).fetch_optional(self.conn()).await?)
    }

    async fn tags(&mut self, model: &str) -> Result<Vec<(String, u32)>> {
        let query = sqlx::query_as("SELECT tag, version FROM model_tags WHERE model = ? ORDER BY tag").bind(model);
        Ok(query.fetch_all(self.conn()).await?)
    }
}

#[async_trait]
impl WriteTags for Unit {
    async fn set_tag(&mut self, model: &str, tag: &str, version: u32) -> Result<()> {
        sqlx::query(
            "INSERT INTO model_tags (model, tag, version) VALUES (?, ?, ?)
             ON CONFLICT DO UPDATE SET version = excluded.version",
        )
        .bind(model)
        .bind(tag)
        .bind(version)
        .execute(self.conn())
        .await?;
        Ok(())
    }

    async fn remove_tag(&mut self, model: &str, tag: &str) -> Result<()> {
        sqlx::query("DELETE FROM model_tags WHERE model = ? AND tag = ?").bind(model).bind(tag).execute(self.conn()).await?;
        Ok(())
    }
}
