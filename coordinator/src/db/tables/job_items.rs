//! Which job needs which work item. An item that several jobs need is one row of `work_items` and several of these.

use std::collections::BTreeMap;

use aotfarm_protocol::{Count, ItemInfo, ItemState, JobId, WorkItemId, WorkKind, WorkResult, WorkerId};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use crate::db::tables::workers::display_name;
use crate::db::{Conn, Result, from_json, from_word};

/// Notes that a job needs an item; `false` when that was noted before.
pub(crate) async fn link(conn: &mut Conn, job: JobId, item: WorkItemId, cached: bool) -> Result<bool> {
    let done = sqlx::query("INSERT INTO job_items (job, item, cached) VALUES (?, ?, ?) ON CONFLICT DO NOTHING")
        .bind(job.to_string())
        .bind(item.to_string())
        .bind(cached)
        .execute(conn)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// The unfinished jobs that need an item.
pub(crate) async fn unfinished_jobs(conn: &mut Conn, item: WorkItemId) -> Result<Vec<JobId>> {
    let rows = sqlx::query(
        "SELECT i.job FROM job_items i JOIN jobs j ON j.id = i.job WHERE i.item = ? AND j.finished_at IS NULL ORDER BY i.job",
    )
    .bind(item.to_string())
    .fetch_all(conn)
    .await?;
    rows.iter().map(|r| from_word("JobId", &r.try_get::<String, _>(0)?)).collect()
}

/// Open items of a job that no other unfinished job needs.
pub(crate) async fn only_needed_by(conn: &mut Conn, job: JobId) -> Result<Vec<WorkItemId>> {
    let rows = sqlx::query(
        "SELECT w.key FROM job_items i JOIN work_items w ON w.key = i.item
         WHERE i.job = ?1 AND w.state IN ('queued', 'leased') AND NOT EXISTS (
             SELECT 1 FROM job_items o JOIN jobs j ON j.id = o.job
             WHERE o.item = w.key AND o.job <> ?1 AND j.finished_at IS NULL)",
    )
    .bind(job.to_string())
    .fetch_all(conn)
    .await?;
    rows.iter().map(|r| from_word("WorkItemId", &r.try_get::<String, _>(0)?)).collect()
}

/// Counts by kind.
pub(crate) async fn counts(conn: &mut Conn, job: JobId) -> Result<BTreeMap<WorkKind, Count>> {
    let rows = sqlx::query(
        "SELECT w.kind, COUNT(*), SUM(w.state IN ('done', 'quarantined')), SUM(i.cached), SUM(w.state = 'leased')
         FROM job_items i JOIN work_items w ON w.key = i.item WHERE i.job = ? GROUP BY w.kind",
    )
    .bind(job.to_string())
    .fetch_all(conn)
    .await?;
    let count = |row: &SqliteRow| {
        let kind = from_word("WorkKind", &row.try_get::<String, _>(0)?)?;
        Ok((kind, Count { total: row.try_get(1)?, done: row.try_get(2)?, cached: row.try_get(3)?, running: row.try_get(4)? }))
    };
    rows.iter().map(count).collect()
}

/// How an item ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ended {
    pub(crate) key: WorkItemId,
    /// The result; `None` when it is quarantined.
    pub(crate) result: Option<WorkResult>,
    /// What went wrong in each failed attempt.
    pub(crate) log: Vec<String>,
    pub(crate) run_ms: u64,
    /// Name of the worker that had it last.
    pub(crate) worker: Option<String>,
    /// Whether it was done before the job asked.
    pub(crate) cached: bool,
}

/// Ended items of a job among `keys`.
pub(crate) async fn ended(conn: &mut Conn, job: JobId, keys: &[WorkItemId]) -> Result<Vec<Ended>> {
    let keys = crate::db::to_json(&keys);
    let rows = sqlx::query(
        "SELECT w.key, w.state, w.result, w.log, w.run_ms, w.worker, p.host, i.cached
         FROM job_items i JOIN work_items w ON w.key = i.item LEFT JOIN workers p ON p.id = w.worker
         WHERE i.job = ? AND w.state IN ('done', 'quarantined') AND w.key IN (SELECT value FROM json_each(?)) ORDER BY w.seq",
    )
    .bind(job.to_string())
    .bind(keys)
    .fetch_all(conn)
    .await?;
    let ended = |row: &SqliteRow| {
        let state: ItemState = from_word("ItemState", &row.try_get::<String, _>("state")?)?;
        let result = row.try_get::<Option<String>, _>("result")?.filter(|_| state == ItemState::Done);
        Ok(Ended {
            key: from_word("WorkItemId", &row.try_get::<String, _>("key")?)?,
            result: result.map(|t| from_json("WorkResult", &t)).transpose()?,
            log: from_json("log", &row.try_get::<String, _>("log")?)?,
            run_ms: row.try_get::<Option<i64>, _>("run_ms")?.and_then(|ms| ms.try_into().ok()).unwrap_or(0),
            worker: worker_name(row)?,
            cached: row.try_get("cached")?,
        })
    };
    rows.iter().map(ended).collect()
}

fn worker_name(row: &SqliteRow) -> Result<Option<String>> {
    let id: Option<WorkerId> = row.try_get::<Option<String>, _>("worker")?.map(|w| from_word("WorkerId", &w)).transpose()?;
    let host: Option<String> = row.try_get("host")?;
    Ok(host.zip(id).map(|(host, id)| display_name(&host, id)))
}

/// What runs now for a job: worker and label, in order of arrival.
pub(crate) async fn running(conn: &mut Conn, job: JobId) -> Result<Vec<(String, String)>> {
    let rows = sqlx::query(
        "SELECT w.worker, p.host, w.label FROM job_items i JOIN work_items w ON w.key = i.item JOIN workers p ON p.id = w.worker
         WHERE i.job = ? AND w.state = 'leased' ORDER BY w.seq",
    )
    .bind(job.to_string())
    .fetch_all(conn)
    .await?;
    rows.iter().map(|row| Ok((worker_name(row)?.unwrap_or_default(), row.try_get("label")?))).collect()
}

/// Average run time of the job's finished items by kind, in milliseconds.
pub(crate) async fn average_ms(conn: &mut Conn, job: JobId) -> Result<BTreeMap<WorkKind, f64>> {
    let rows = sqlx::query(
        "SELECT w.kind, AVG(w.run_ms) FROM job_items i JOIN work_items w ON w.key = i.item
         WHERE i.job = ? AND w.state = 'done' GROUP BY w.kind",
    )
    .bind(job.to_string())
    .fetch_all(conn)
    .await?;
    rows.iter().map(|r| Ok((from_word("WorkKind", &r.try_get::<String, _>(0)?)?, r.try_get(1)?))).collect()
}

/// All items of a job, in order of arrival.
pub(crate) async fn infos(conn: &mut Conn, job: JobId) -> Result<Vec<ItemInfo>> {
    let rows = sqlx::query(
        "SELECT w.key, w.kind, w.label, w.state, w.attempts, w.worker, p.host, w.run_ms, w.completions, w.log
         FROM job_items i JOIN work_items w ON w.key = i.item LEFT JOIN workers p ON p.id = w.worker
         WHERE i.job = ? ORDER BY w.seq",
    )
    .bind(job.to_string())
    .fetch_all(conn)
    .await?;
    let info = |row: &SqliteRow| {
        Ok(ItemInfo {
            id: from_word("WorkItemId", &row.try_get::<String, _>("key")?)?,
            kind: from_word("WorkKind", &row.try_get::<String, _>("kind")?)?,
            label: row.try_get("label")?,
            state: from_word("ItemState", &row.try_get::<String, _>("state")?)?,
            attempts: row.try_get("attempts")?,
            worker: worker_name(row)?,
            run_ms: row.try_get::<Option<i64>, _>("run_ms")?.and_then(|ms| ms.try_into().ok()),
            completions: row.try_get("completions")?,
            log: from_json("log", &row.try_get::<String, _>("log")?)?,
        })
    };
    rows.iter().map(info).collect()
}
