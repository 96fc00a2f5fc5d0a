//! Work items: the queue, the leases, and the cache of results.

use std::collections::BTreeMap;

use aotfarm_protocol::{CandidateId, Digest, ItemState, JobId, Params, Target, WorkItemId, WorkKind, WorkResult, WorkSpec};
use serde::{Deserialize, Serialize};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use crate::assign::QueuedItem;
use crate::db::{Conn, Result, from_json, from_word, to_json, to_word};
use crate::item::Item;

/// How many queued items of one job a claim looks at; the rest is behind them in order anyway.
const WINDOW: u32 = 64;

/// What the TuningRecords of a Measure item say beyond its spec.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct MeasureContext {
    /// What the candidates were made for.
    pub(crate) target: Target,
    /// Family and parameters of each candidate.
    pub(crate) candidates: Vec<(CandidateId, String, Params)>,
}

/// A row.
#[derive(Debug, Clone)]
pub(crate) struct ItemRow {
    pub(crate) key: WorkItemId,
    pub(crate) label: String,
    pub(crate) item: Item,
    pub(crate) spec: WorkSpec,
    pub(crate) context: Option<MeasureContext>,
    pub(crate) result: Option<WorkResult>,
}

fn parse_item(row: &SqliteRow) -> Result<Item> {
    let worker = row.try_get::<Option<String>, _>("worker")?;
    Ok(Item {
        state: from_word("ItemState", &row.try_get::<String, _>("state")?)?,
        generation: row.try_get("generation")?,
        attempts: row.try_get("attempts")?,
        completions: row.try_get("completions")?,
        worker: worker.map(|w| from_word("WorkerId", &w)).transpose()?,
        expires_at: row.try_get("expires_at")?,
    })
}

fn parse_key(row: &SqliteRow, column: &str) -> Result<WorkItemId> {
    from_word("WorkItemId", &row.try_get::<String, _>(column)?)
}

fn parse(row: &SqliteRow) -> Result<ItemRow> {
    let optional = |column: &str| row.try_get::<Option<String>, _>(column);
    Ok(ItemRow {
        key: parse_key(row, "key")?,
        label: row.try_get("label")?,
        item: parse_item(row)?,
        spec: from_json("WorkSpec", &row.try_get::<String, _>("spec")?)?,
        context: optional("context")?.map(|t| from_json("MeasureContext", &t)).transpose()?,
        result: optional("result")?.map(|t| from_json("WorkResult", &t)).transpose()?,
    })
}

/// One item.
pub(crate) async fn get(conn: &mut Conn, key: WorkItemId) -> Result<Option<ItemRow>> {
    let row = sqlx::query("SELECT * FROM work_items WHERE key = ?").bind(key.to_string()).fetch_optional(conn).await?;
    row.as_ref().map(parse).transpose()
}

/// Adds a queued item.
pub(crate) async fn insert(
    conn: &mut Conn,
    spec: &WorkSpec,
    label: &str,
    context: Option<&MeasureContext>,
    now: i64,
) -> Result<()> {
    let target = match spec {
        WorkSpec::Build(build) => Some(build.target),
        WorkSpec::Link(link) => Some(link.target),
        WorkSpec::Measure { .. } | WorkSpec::ModelRace { .. } | WorkSpec::Profile { .. } => None,
    };
    sqlx::query(
        "INSERT INTO work_items (key, kind, label, spec, context, toolchain, target, device, state, queued_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'queued', ?)",
    )
    .bind(spec.id().to_string())
    .bind(to_word(&spec.kind()))
    .bind(label)
    .bind(to_json(spec))
    .bind(context.map(to_json))
    .bind(spec.toolchain())
    .bind(target.map(|t| t.to_string()))
    .bind(spec.device().map(|d| d.to_string()))
    .bind(now)
    .execute(conn)
    .await?;
    Ok(())
}

/// Replaces `before` by `after`. The generation and the state are part of the condition: `false` means that the row is no
/// longer what was read, and nothing was written.
pub(crate) async fn save(conn: &mut Conn, key: WorkItemId, before: &Item, after: &Item, now: i64) -> Result<bool> {
    let requeued = after.state == ItemState::Queued && before.state != ItemState::Queued;
    let done = sqlx::query(
        "UPDATE work_items SET state = ?1, generation = ?2, attempts = ?3, completions = ?4, worker = ?5, expires_at = ?6,
             queued_at = CASE WHEN ?7 THEN ?8 ELSE queued_at END
         WHERE key = ?9 AND generation = ?10 AND state = ?11",
    )
    .bind(to_word(&after.state))
    .bind(after.generation)
    .bind(after.attempts)
    .bind(after.completions)
    .bind(after.worker.map(|w| w.to_string()))
    .bind(after.expires_at)
    .bind(requeued)
    .bind(now)
    .bind(key.to_string())
    .bind(before.generation)
    .bind(to_word(&before.state))
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Stores the result of an item that [`save`] has just made done.
pub(crate) async fn set_result(conn: &mut Conn, key: WorkItemId, result: &WorkResult, run_ms: u64) -> Result<()> {
    sqlx::query("UPDATE work_items SET result = ?, run_ms = ? WHERE key = ?")
        .bind(to_json(result))
        .bind(i64::try_from(run_ms).unwrap_or(i64::MAX))
        .bind(key.to_string())
        .execute(conn)
        .await?;
    Ok(())
}

/// Notes what went wrong in an attempt.
pub(crate) async fn add_log(conn: &mut Conn, key: WorkItemId, line: &str) -> Result<()> {
    sqlx::query("UPDATE work_items SET log = json_insert(log, '$[#]', ?) WHERE key = ?")
        .bind(line)
        .bind(key.to_string())
        .execute(conn)
        .await?;
    Ok(())
}

/// The front of the queue of every unfinished job, in order of arrival.
pub(crate) async fn queued(conn: &mut Conn) -> Result<Vec<QueuedItem>> {
    let rows = sqlx::query(
        "SELECT seq, key, kind, toolchain, target, device, queued_at, job FROM (
             SELECT w.seq, w.key, w.kind, w.toolchain, w.target, w.device, w.queued_at, i.job AS job,
                 ROW_NUMBER() OVER (PARTITION BY i.job, w.kind ORDER BY w.seq) AS place
             FROM work_items w JOIN job_items i ON i.item = w.key JOIN jobs j ON j.id = i.job
             WHERE w.state = 'queued' AND j.finished_at IS NULL)
         WHERE place <= ? ORDER BY seq",
    )
    .bind(WINDOW)
    .fetch_all(conn)
    .await?;
    let mut items: BTreeMap<i64, QueuedItem> = BTreeMap::new();
    for row in &rows {
        let job: JobId = from_word("JobId", &row.try_get::<String, _>("job")?)?;
        let seq = row.try_get("seq")?;
        if let Some(item) = items.get_mut(&seq) {
            item.jobs.push(job);
            continue;
        }
        let optional = |column: &str| row.try_get::<Option<String>, _>(column);
        let target: Option<Target> = optional("target")?.map(|t| from_word("Target", &t)).transpose()?;
        let device: Option<Digest> = optional("device")?.map(|d| from_word("Digest", &d)).transpose()?;
        let item = QueuedItem {
            id: parse_key(row, "key")?,
            kind: from_word("WorkKind", &row.try_get::<String, _>("kind")?)?,
            toolchain: optional("toolchain")?.zip(target),
            device,
            seq,
            queued_at: row.try_get("queued_at")?,
            jobs: vec![job],
        };
        items.insert(seq, item);
    }
    Ok(items.into_values().collect())
}

/// A lease that is out.
#[derive(Debug, Clone)]
pub(crate) struct LeasedItem {
    pub(crate) key: WorkItemId,
    pub(crate) kind: WorkKind,
    pub(crate) label: String,
    pub(crate) item: Item,
}

/// All leases that are out.
pub(crate) async fn leased(conn: &mut Conn) -> Result<Vec<LeasedItem>> {
    let rows = sqlx::query(
        "SELECT key, kind, label, state, generation, attempts, completions, worker, expires_at FROM work_items WHERE state = 'leased'",
    )
    .fetch_all(conn)
    .await?;
    let leased = |row: &SqliteRow| {
        Ok(LeasedItem {
            key: parse_key(row, "key")?,
            kind: from_word("WorkKind", &row.try_get::<String, _>("kind")?)?,
            label: row.try_get("label")?,
            item: parse_item(row)?,
        })
    };
    rows.iter().map(leased).collect()
}

/// Gives every lease that is out at least until `until`.
pub(crate) async fn extend_leases(conn: &mut Conn, until: i64) -> Result<()> {
    sqlx::query("UPDATE work_items SET expires_at = MAX(COALESCE(expires_at, 0), ?) WHERE state = 'leased'")
        .bind(until)
        .execute(conn)
        .await?;
    Ok(())
}

/// The number of leases of each job.
pub(crate) async fn leases_by_job(conn: &mut Conn) -> Result<BTreeMap<JobId, u32>> {
    let rows = sqlx::query(
        "SELECT i.job, COUNT(*) FROM work_items w JOIN job_items i ON i.item = w.key WHERE w.state = 'leased' GROUP BY i.job",
    )
    .fetch_all(conn)
    .await?;
    rows.iter().map(|r| Ok((from_word("JobId", &r.try_get::<String, _>(0)?)?, r.try_get(1)?))).collect()
}
