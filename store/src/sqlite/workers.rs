//! Workers.

use aotfarm_protocol::{Capabilities, WorkerId};
use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;
use sqlx::types::Json;
use sqlx::{FromRow, Row};

use super::Unit;
use super::value::Word;
use crate::error::Result;
use crate::workers::{ReadWorkers, WorkerRow, WriteWorkers};

impl FromRow<'_, SqliteRow> for WorkerRow {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        let Word(id) = row.try_get("id")?;
        let Json(capabilities) = row.try_get("capabilities")?;
        Ok(Self {
            id,
            capabilities,
            seen_at: row.try_get("seen_at")?,
            draining: row.try_get("draining")?,
            gone_at: row.try_get("gone_at")?,
            done: row.try_get("done")?,
            failed: row.try_get("failed")?,
        })
    }
}

#[async_trait]
impl ReadWorkers for Unit {
    async fn worker(&mut self, id: WorkerId) -> Result<Option<WorkerRow>> {
        let query = sqlx::query_as("SELECT * FROM workers WHERE id = ?").bind(Word(id));
        Ok(query.fetch_optional(self.conn()).await?)
    }

    async fn workers(&mut self, gone_since: i64) -> Result<Vec<WorkerRow>> {
        let query = sqlx::query_as("SELECT * FROM workers WHERE gone_at IS NULL OR gone_at > ? ORDER BY registered_at, id");
        Ok(query.bind(gone_since).fetch_all(self.conn()).await?)
    }

    async fn present_workers(&mut self) -> Result<Vec<WorkerRow>> {
        self.workers(i64::MAX).await
    }
}

#[async_trait]
impl WriteWorkers for Unit {
    async fn insert_worker(&mut self, id: WorkerId, capabilities: &Capabilities, now: i64) -> Result<()> {
        sqlx::query("INSERT INTO workers (id, host, capabilities, device, registered_at, seen_at) VALUES (?, ?, ?, ?, ?, ?)")
            .bind(Word(id))
            .bind(&capabilities.host)
            .bind(Json(capabilities))
            .bind(capabilities.device.as_ref().map(|d| Word(d.fingerprint())))
            .bind(now)
            .bind(now)
            .execute(self.conn())
            .await?;
        Ok(())
    }

    async fn touch_worker(&mut self, id: WorkerId, now: i64) -> Result<()> {
        sqlx::query("UPDATE workers SET seen_at = ? WHERE id = ?").bind(now).bind(Word(id)).execute(self.conn()).await?;
        Ok(())
    }

    async fn count_item(&mut self, id: WorkerId, ok: bool, drain_after: u32) -> Result<bool> {
        let draining = sqlx::query_scalar(
            "UPDATE workers SET done = done + ?2, failed = failed + 1 - ?2, streak = (streak + 1) * (1 - ?2),
                 draining = MAX(draining, (streak + 1) * (1 - ?2) >= ?3) WHERE id = ?1 RETURNING draining",
        )
        .bind(Word(id))
        .bind(i64::from(ok))
        .bind(drain_after)
        .fetch_optional(self.conn())
        .await?;
        Ok(draining.unwrap_or(false))
    }

    async fn worker_left(&mut self, id: WorkerId, now: i64) -> Result<()> {
        sqlx::query("UPDATE workers SET gone_at = ? WHERE id = ? AND gone_at IS NULL")
            .bind(now)
            .bind(Word(id))
            .execute(self.conn())
            .await?;
        Ok(())
    }

    async fn forget_silent_workers(&mut self, limit: i64, now: i64) -> Result<()> {
        sqlx::query("UPDATE workers SET gone_at = ? WHERE gone_at IS NULL AND seen_at < ?")
            .bind(now)
            .bind(limit)
            .execute(self.conn())
            .await?;
        Ok(())
    }
}
