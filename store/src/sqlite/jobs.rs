//! Jobs.

use aotfarm_protocol::{Digest, JobId, JobState, Target};
use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;
use sqlx::types::Json;
use sqlx::{FromRow, Row};

use super::Unit;
use super::value::Word;
use crate::error::Result;
use crate::jobs::{Ending, JobRow, Pin, Pins, ReadJobs, WriteJobs};

impl FromRow<'_, SqliteRow> for JobRow {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        let Word(id) = row.try_get("id")?;
        let Word(key) = row.try_get("key")?;
        let Json(request) = row.try_get("request")?;
        let Word(state) = row.try_get("state")?;
        let Json::<Vec<(Target, Pin)>>(pins) = row.try_get("pins")?;
        let error: Option<Json<_>> = row.try_get("error")?;
        let published: Option<Json<_>> = row.try_get("published")?;
        Ok(Self {
            id,
            key,
            compiler: row.try_get("compiler")?,
            request,
            state,
            pins: pins.into_iter().collect(),
            error: error.map(|Json(error)| error),
            published: published.map(|Json(published)| published),
            submitted_at: row.try_get("submitted_at")?,
            finished_at: row.try_get("finished_at")?,
        })
    }
}

/// Pins as the column holds them: a list of pairs.
fn pairs(pins: &Pins) -> Json<Vec<(&Target, &Pin)>> {
    Json(pins.iter().collect())
}

#[async_trait]
impl ReadJobs for Unit {
    async fn job(&mut self, id: JobId) -> Result<Option<JobRow>> {
        let query = sqlx::query_as("SELECT * FROM jobs WHERE id = ?").bind(Word(id));
        Ok(query.fetch_optional(self.conn()).await?)
    }

    async fn newest_jobs(&mut self, limit: u32) -> Result<Vec<JobRow>> {
        let query = sqlx::query_as("SELECT * FROM jobs ORDER BY submitted_at DESC, id DESC LIMIT ?").bind(limit);
        Ok(query.fetch_all(self.conn()).await?)
    }

    async fn unfinished_jobs(&mut self) -> Result<Vec<JobRow>> {
        let query = sqlx::query_as("SELECT * FROM jobs WHERE finished_at IS NULL ORDER BY submitted_at, id");
        Ok(query.fetch_all(self.conn()).await?)
    }

    async fn published_job(&mut self, key: Digest) -> Result<Option<JobRow>> {
        let query = sqlx::query_as("SELECT * FROM jobs WHERE key = ? AND state = 'published' ORDER BY finished_at DESC LIMIT 1");
        Ok(query.bind(Word(key)).fetch_optional(self.conn()).await?)
    }

    async fn earlier_job(&mut self, key: Digest, than: JobId) -> Result<Option<JobId>> {
        let query =
            sqlx::query_scalar("SELECT id FROM jobs WHERE key = ? AND finished_at IS NULL AND id < ? ORDER BY id LIMIT 1")
                .bind(Word(key))
                .bind(Word(than));
        Ok(query.fetch_optional(self.conn()).await?.map(|Word(id)| id))
    }
}

#[async_trait]
impl WriteJobs for Unit {
    async fn insert_job(&mut self, job: &JobRow) -> Result<()> {
        sqlx::query(
            "INSERT INTO jobs (id, key, compiler, request, state, pins, error, published, submitted_at, finished_at)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(Word(job.id))
        .bind(Word(job.key))
        .bind(&job.compiler)
        .bind(Json(&job.request))
        .bind(Word(job.state))
        .bind(pairs(&job.pins))
        .bind(job.error.as_ref().map(Json))
        .bind(job.published.as_ref().map(Json))
        .bind(job.submitted_at)
        .bind(job.finished_at)
        .execute(self.conn())
        .await?;
        Ok(())
    }

    async fn set_job_state(&mut self, id: JobId, from: JobState, to: JobState) -> Result<bool> {
        let done = sqlx::query("UPDATE jobs SET state = ? WHERE id = ? AND state = ?")
            .bind(Word(to))
            .bind(Word(id))
            .bind(Word(from))
            .execute(self.conn())
            .await?;
        Ok(done.rows_affected() == 1)
    }

    async fn finish_job(&mut self, id: JobId, ending: &Ending, at: i64) -> Result<()> {
        sqlx::query("UPDATE jobs SET error = ?, published = ?, finished_at = ? WHERE id = ?")
            .bind(ending.error.as_ref().map(Json))
            .bind(ending.published.as_ref().map(Json))
            .bind(at)
            .bind(Word(id))
            .execute(self.conn())
            .await?;
        Ok(())
    }

    async fn set_compiler(&mut self, id: JobId, compiler: &str, key: Digest) -> Result<()> {
        sqlx::query("UPDATE jobs SET compiler = ?, key = ? WHERE id = ?")
            .bind(compiler)
            .bind(Word(key))
            .bind(Word(id))
            .execute(self.conn())
            .await?;
        Ok(())
    }

    async fn set_pins(&mut self, id: JobId, pins: &Pins) -> Result<()> {
        sqlx::query("UPDATE jobs SET pins = ? WHERE id = ?").bind(pairs(pins)).bind(Word(id)).execute(self.conn()).await?;
        Ok(())
    }
}
