//! The log of each job.

use aotfarm_protocol::{JobEvent, JobId, JobLogEntry};
use async_trait::async_trait;
use sqlx::types::Json;

use super::Unit;
use super::value::Word;
use crate::error::Result;
use crate::events::{ReadEvents, WriteEvents};

#[async_trait]
impl ReadEvents for Unit {
    async fn events_after(&mut self, job: JobId, after: i64, limit: u32) -> Result<Vec<JobLogEntry>> {
        let rows: Vec<(i64, i64, Json<JobEvent>)> =
            sqlx::query_as("SELECT seq, at, event FROM job_events WHERE job = ? AND seq > ? ORDER BY seq LIMIT ?")
                .bind(Word(job))
                .bind(after)
                .bind(limit)
                .fetch_all(self.conn())
                .await?;
        Ok(rows.into_iter().map(|(seq, at, Json(event))| JobLogEntry { seq, at, event }).collect())
    }

    async fn has_event(&mut self, job: JobId, event: &JobEvent) -> Result<bool> {
        let found = sqlx::query("SELECT 1 FROM job_events WHERE job = ? AND event = ? LIMIT 1")
            .bind(Word(job))
            .bind(Json(event))
            .fetch_optional(self.conn())
            .await?;
        Ok(found.is_some())
    }
}

#[async_trait]
impl WriteEvents for Unit {
    async fn append_event(&mut self, job: JobId, at: i64, event: &JobEvent) -> Result<i64> {
        let query = sqlx::query_scalar(
            "INSERT INTO job_events (job, seq, at, event)
             SELECT ?1, COALESCE(MAX(seq), 0) + 1, ?2, ?3 FROM job_events WHERE job = ?1 RETURNING seq",
        );
        Ok(query.bind(Word(job)).bind(at).bind(Json(event)).fetch_one(self.conn()).await?)
    }
}
