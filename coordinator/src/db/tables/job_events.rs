//! The log of each job, numbered from 1 without gaps.

use aotfarm_protocol::{JobEvent, JobId, JobLogEntry};
use sqlx::Row;

use crate::db::{Conn, Result, from_json, to_json};

/// Adds an event and returns its number.
pub(crate) async fn append(conn: &mut Conn, job: JobId, at: i64, event: &JobEvent) -> Result<i64> {
    let row = sqlx::query(
        "INSERT INTO job_events (job, seq, at, event)
         SELECT ?1, COALESCE(MAX(seq), 0) + 1, ?2, ?3 FROM job_events WHERE job = ?1 RETURNING seq",
    )
    .bind(job.to_string())
    .bind(at)
    .bind(to_json(event))
    .fetch_one(conn)
    .await?;
    Ok(row.try_get(0)?)
}

/// The events after number `after`, at most `limit`.
pub(crate) async fn after(conn: &mut Conn, job: JobId, after: i64, limit: u32) -> Result<Vec<JobLogEntry>> {
    let rows = sqlx::query("SELECT seq, at, event FROM job_events WHERE job = ? AND seq > ? ORDER BY seq LIMIT ?")
        .bind(job.to_string())
        .bind(after)
        .bind(limit)
        .fetch_all(conn)
        .await?;
    let entry = |row: &sqlx::sqlite::SqliteRow| {
        let event = from_json("JobEvent", &row.try_get::<String, _>("event")?)?;
        Ok(JobLogEntry { seq: row.try_get("seq")?, at: row.try_get("at")?, event })
    };
    rows.iter().map(entry).collect()
}

/// Whether a note with this text is in the log already: a restarted coordinator does not repeat itself.
pub(crate) async fn has_note(conn: &mut Conn, job: JobId, event: &JobEvent) -> Result<bool> {
    let found = sqlx::query("SELECT 1 FROM job_events WHERE job = ? AND event = ? LIMIT 1")
        .bind(job.to_string())
        .bind(to_json(event))
        .fetch_optional(conn)
        .await?;
    Ok(found.is_some())
}
