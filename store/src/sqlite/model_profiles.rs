//! The performance history.

use aotfarm_protocol::{Digest, Profile};
use async_trait::async_trait;

use super::Unit;
use super::value::Word;
use crate::catalog::{ReadProfiles, WriteProfiles};
use crate::error::{Result, StoreError};

#[async_trait]
impl ReadProfiles for Unit {
    async fn profiles(&mut self, model: &str, version: u32) -> Result<Vec<Profile>> {
        let rows: Vec<String> = sqlx::query_scalar("SELECT body FROM model_profiles WHERE model = ? AND version = ? ORDER BY id")
            .bind(model)
            .bind(version)
            .fetch_all(self.conn())
            .await?;
        let unreadable = |source| StoreError::Value { what: format!("profile of {model}@v{version}"), source: Box::new(source) };
        rows.iter().map(|body| serde_json::from_str(body).map_err(unreadable)).collect()
    }
}

#[async_trait]
impl WriteProfiles for Unit {
    async fn append_profiles(&mut self, model: &str, version: u32, profiles: &[Profile]) -> Result<()> {
        for profile in profiles {
            let unwritable =
                |source| StoreError::Value { what: format!("profile of {model}@v{version}"), source: Box::new(source) };
            let body = serde_json::to_string(profile).map_err(unwritable)?;
            sqlx::query("INSERT INTO model_profiles (model, version, digest, body) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING")
                .bind(model)
                .bind(version)
                .bind(Word(Digest::of(&body)))
                .bind(body)
                .execute(self.conn())
                .await?;
        }
        Ok(())
    }
}
