//! Jobs: what was asked, where it stands, what came of it.

use std::collections::BTreeMap;

use aotfarm_protocol::{ApiError, Device, Digest, JobId, JobRequest, JobState, Published, Target};
use serde::{Deserialize, Serialize};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use crate::db::{Conn, Result, from_json, from_word, to_json, to_word};

/// What a job has settled on for a target, so that a restarted coordinator goes on with the same work items.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Pin {
    /// Identity of the compiler.
    pub(crate) toolchain: String,
    /// Identity of the C compiler that links artifacts: for a CPU the same one.
    pub(crate) linker: String,
    /// The device to measure and profile on; `None` for one that no worker has: kernels are chosen by records of its nearest relative.
    pub(crate) device: Option<Device>,
}

/// The choices of a job, by target.
pub(crate) type Pins = BTreeMap<Target, Pin>;

/// A row.
#[derive(Debug, Clone)]
pub(crate) struct JobRow {
    pub(crate) id: JobId,
    pub(crate) key: Digest,
    pub(crate) request: JobRequest,
    pub(crate) state: JobState,
    pub(crate) pins: Pins,
    pub(crate) error: Option<ApiError>,
    pub(crate) published: Option<Published>,
    pub(crate) submitted_at: i64,
    pub(crate) finished_at: Option<i64>,
}

fn parse(row: &SqliteRow) -> Result<JobRow> {
    let text = |column: &str| row.try_get::<String, _>(column);
    let optional = |column: &str| row.try_get::<Option<String>, _>(column);
    let pins: Vec<(Target, Pin)> = from_json("pins", &text("pins")?)?;
    Ok(JobRow {
        id: from_word("JobId", &text("id")?)?,
        key: from_word("Digest", &text("key")?)?,
        request: from_json("JobRequest", &text("request")?)?,
        state: from_word("JobState", &text("state")?)?,
        pins: pins.into_iter().collect(),
        error: optional("error")?.map(|t| from_json("ApiError", &t)).transpose()?,
        published: optional("published")?.map(|t| from_json("Published", &t)).transpose()?,
        submitted_at: row.try_get("submitted_at")?,
        finished_at: row.try_get("finished_at")?,
    })
}

/// Adds a job.
pub(crate) async fn insert(conn: &mut Conn, job: &JobRow) -> Result<()> {
    sqlx::query(
        "INSERT INTO jobs (id, key, request, state, pins, error, published, submitted_at, finished_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(job.id.to_string())
    .bind(job.key.to_string())
    .bind(to_json(&job.request))
    .bind(to_word(&job.state))
    .bind(pins_json(&job.pins))
    .bind(job.error.as_ref().map(to_json))
    .bind(job.published.as_ref().map(to_json))
    .bind(job.submitted_at)
    .bind(job.finished_at)
    .execute(conn)
    .await?;
    Ok(())
}

/// One job.
pub(crate) async fn get(conn: &mut Conn, id: JobId) -> Result<Option<JobRow>> {
    let row = sqlx::query("SELECT * FROM jobs WHERE id = ?").bind(id.to_string()).fetch_optional(conn).await?;
    row.as_ref().map(parse).transpose()
}

/// The newest jobs, newest first.
pub(crate) async fn list(conn: &mut Conn, limit: u32) -> Result<Vec<JobRow>> {
    let rows = sqlx::query("SELECT * FROM jobs ORDER BY submitted_at DESC, id DESC LIMIT ?").bind(limit).fetch_all(conn).await?;
    rows.iter().map(parse).collect()
}

/// Jobs that are not finished, oldest first.
pub(crate) async fn unfinished(conn: &mut Conn) -> Result<Vec<JobRow>> {
    let rows = sqlx::query("SELECT * FROM jobs WHERE finished_at IS NULL ORDER BY submitted_at, id").fetch_all(conn).await?;
    rows.iter().map(parse).collect()
}

/// The newest finished job of this key that was published.
pub(crate) async fn published_with_key(conn: &mut Conn, key: Digest) -> Result<Option<JobRow>> {
    let row = sqlx::query("SELECT * FROM jobs WHERE key = ? AND state = 'published' ORDER BY finished_at DESC LIMIT 1")
        .bind(key.to_string())
        .fetch_optional(conn)
        .await?;
    row.as_ref().map(parse).transpose()
}

/// The unfinished job of this key that was submitted first, other than `than` and before it.
pub(crate) async fn earlier_with_key(conn: &mut Conn, key: Digest, than: JobId) -> Result<Option<JobId>> {
    let row = sqlx::query("SELECT id FROM jobs WHERE key = ? AND finished_at IS NULL AND id < ? ORDER BY id LIMIT 1")
        .bind(key.to_string())
        .bind(than.to_string())
        .fetch_optional(conn)
        .await?;
    row.map(|r| from_word("JobId", &r.try_get::<String, _>(0)?)).transpose()
}

/// Moves a job from one state to another; `false` when it was not in `from` (it was cancelled, say).
pub(crate) async fn set_state(conn: &mut Conn, id: JobId, from: JobState, to: JobState) -> Result<bool> {
    let done = sqlx::query("UPDATE jobs SET state = ? WHERE id = ? AND state = ?")
        .bind(to_word(&to))
        .bind(id.to_string())
        .bind(to_word(&from))
        .execute(conn)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// How a job ended.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ending {
    pub(crate) error: Option<ApiError>,
    pub(crate) published: Option<Published>,
}

/// Adds to a job that has just reached a final state what came of it.
pub(crate) async fn finish(conn: &mut Conn, id: JobId, ending: &Ending, at: i64) -> Result<()> {
    sqlx::query("UPDATE jobs SET error = ?, published = ?, finished_at = ? WHERE id = ?")
        .bind(ending.error.as_ref().map(to_json))
        .bind(ending.published.as_ref().map(to_json))
        .bind(at)
        .bind(id.to_string())
        .execute(conn)
        .await?;
    Ok(())
}

/// Stores the choices of a job.
pub(crate) async fn set_pins(conn: &mut Conn, id: JobId, pins: &Pins) -> Result<()> {
    sqlx::query("UPDATE jobs SET pins = ? WHERE id = ?").bind(pins_json(pins)).bind(id.to_string()).execute(conn).await?;
    Ok(())
}

fn pins_json(pins: &Pins) -> String {
    to_json(&pins.iter().collect::<Vec<_>>())
}
