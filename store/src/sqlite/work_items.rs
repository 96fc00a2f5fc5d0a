//! Work items.

use std::collections::BTreeMap;

use aotfarm_protocol::{Digest, ItemState, JobId, Target, WorkItemId, WorkResult, WorkSpec};
use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;
use sqlx::types::Json;
use sqlx::{FromRow, Row};

use super::Unit;
use super::value::Word;
use crate::error::Result;
use crate::items::{Item, ItemRow, LeasedItem, MeasureContext, QueuedItem, ReadItems, WriteItems};

/// How many queued items of one job a claim looks at; the rest is behind them in order anyway.
const WINDOW: u32 = 64;

impl FromRow<'_, SqliteRow> for Item {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        let Word(state) = row.try_get("state")?;
        let worker: Option<Word<_>> = row.try_get("worker")?;
        Ok(Self {
            state,
            generation: row.try_get("generation")?,
            attempts: row.try_get("attempts")?,
            completions: row.try_get("completions")?,
            worker: worker.map(|Word(id)| id),
            expires_at: row.try_get("expires_at")?,
        })
    }
}

impl FromRow<'_, SqliteRow> for ItemRow {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        let Word(key) = row.try_get("key")?;
        let Json(spec) = row.try_get("spec")?;
        let context: Option<Json<_>> = row.try_get("context")?;
        let result: Option<Json<_>> = row.try_get("result")?;
        Ok(Self {
            key,
            label: row.try_get("label")?,
            item: Item::from_row(row)?,
            spec,
            context: context.map(|Json(context)| context),
            result: result.map(|Json(result)| result),
        })
    }
}

impl FromRow<'_, SqliteRow> for LeasedItem {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        let Word(key) = row.try_get("key")?;
        let Word(kind) = row.try_get("kind")?;
        Ok(Self { key, kind, label: row.try_get("label")?, item: Item::from_row(row)? })
    }
}

/// A queued item with one of the jobs that wait for it.
struct Waiting {
    item: QueuedItem,
    job: JobId,
}

impl FromRow<'_, SqliteRow> for Waiting {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        let Word(id) = row.try_get("key")?;
        let Word(kind) = row.try_get("kind")?;
        let Word(job) = row.try_get("job")?;
        let toolchain: Option<String> = row.try_get("toolchain")?;
        let target: Option<Word<Target>> = row.try_get("target")?;
        let device: Option<Word<Digest>> = row.try_get("device")?;
        let item = QueuedItem {
            id,
            kind,
            toolchain: toolchain.zip(target.map(|Word(target)| target)),
            device: device.map(|Word(device)| device),
            seq: row.try_get("seq")?,
            queued_at: row.try_get("queued_at")?,
            jobs: Vec::new(),
        };
        Ok(Self { item, job })
    }
}

#[async_trait]
impl ReadItems for Unit {
    async fn item(&mut self, key: WorkItemId) -> Result<Option<ItemRow>> {
        let query = sqlx::query_as("SELECT * FROM work_items WHERE key = ?").bind(Word(key));
        Ok(query.fetch_optional(self.conn()).await?)
    }

    async fn queued_items(&mut self) -> Result<Vec<QueuedItem>> {
        let rows: Vec<Waiting> = sqlx::query_as(
            "SELECT seq, key, kind, toolchain, target, device, queued_at, job FROM (
                 SELECT w.seq, w.key, w.kind, w.toolchain, w.target, w.device, w.queued_at, i.job AS job,
                     ROW_NUMBER() OVER (PARTITION BY i.job, w.kind ORDER BY w.seq) AS place
                 FROM work_items w JOIN job_items i ON i.item = w.key JOIN jobs j ON j.id = i.job
                 WHERE w.state = 'queued' AND j.finished_at IS NULL)
             WHERE place <= ? ORDER BY seq",
        )
        .bind(WINDOW)
        .fetch_all(self.conn())
        .await?;
        let mut items: BTreeMap<i64, QueuedItem> = BTreeMap::new();
        for Waiting { item, job } in rows {
            items.entry(item.seq).or_insert(item).jobs.push(job);
        }
        Ok(items.into_values().collect())
    }

    async fn leased_items(&mut self) -> Result<Vec<LeasedItem>> {
        let query = sqlx::query_as(
            "SELECT key, kind, label, state, generation, attempts, completions, worker, expires_at
             FROM work_items WHERE state = 'leased'",
        );
        Ok(query.fetch_all(self.conn()).await?)
    }

    async fn leases_by_job(&mut self) -> Result<BTreeMap<JobId, u32>> {
        let rows: Vec<(Word<JobId>, u32)> = sqlx::query_as(
            "SELECT i.job, COUNT(*) FROM work_items w JOIN job_items i ON i.item = w.key
             WHERE w.state = 'leased' GROUP BY i.job",
        )
        .fetch_all(self.conn())
        .await?;
        Ok(rows.into_iter().map(|(Word(job), leases)| (job, leases)).collect())
    }
}

#[async_trait]
impl WriteItems for Unit {
    async fn insert_item(&mut self, spec: &WorkSpec, label: &str, context: Option<&MeasureContext>, now: i64) -> Result<()> {
        let target = match spec {
            WorkSpec::Build(build) => Some(build.target),
            WorkSpec::Link(link) => Some(link.target),
            WorkSpec::Measure { .. } | WorkSpec::ModelRace { .. } | WorkSpec::Profile { .. } => None,
        };
        sqlx::query(
            "INSERT INTO work_items (key, kind, label, spec, context, toolchain, target, device, state, queued_at)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'queued', ?)",
        )
        .bind(Word(spec.id()))
        .bind(Word(spec.kind()))
        .bind(label)
        .bind(Json(spec))
        .bind(context.map(Json))
        .bind(spec.toolchain())
        .bind(target.map(Word))
        .bind(spec.device().map(Word))
        .bind(now)
        .execute(self.conn())
        .await?;
        Ok(())
    }

    async fn save_item(&mut self, key: WorkItemId, before: &Item, after: &Item, now: i64) -> Result<bool> {
        let requeued = after.state == ItemState::Queued && before.state != ItemState::Queued;
        let done = sqlx::query(
            "UPDATE work_items SET state = ?1, generation = ?2, attempts = ?3, completions = ?4, worker = ?5, expires_at = ?6,
                 queued_at = CASE WHEN ?7 THEN ?8 ELSE queued_at END
             WHERE key = ?9 AND generation = ?10 AND state = ?11",
        )
        .bind(Word(after.state))
        .bind(after.generation)
        .bind(after.attempts)
        .bind(after.completions)
        .bind(after.worker.map(Word))
        .bind(after.expires_at)
        .bind(requeued)
        .bind(now)
        .bind(Word(key))
        .bind(before.generation)
        .bind(Word(before.state))
        .execute(self.conn())
        .await?;
        Ok(done.rows_affected() == 1)
    }

    async fn set_result(&mut self, key: WorkItemId, result: &WorkResult, run_ms: u64) -> Result<()> {
        sqlx::query("UPDATE work_items SET result = ?, run_ms = ? WHERE key = ?")
            .bind(Json(result))
            .bind(i64::try_from(run_ms).unwrap_or(i64::MAX))
            .bind(Word(key))
            .execute(self.conn())
            .await?;
        Ok(())
    }

    async fn add_log(&mut self, key: WorkItemId, line: &str) -> Result<()> {
        sqlx::query("UPDATE work_items SET log = json_insert(log, '$[#]', ?) WHERE key = ?")
            .bind(line)
            .bind(Word(key))
            .execute(self.conn())
            .await?;
        Ok(())
    }

    async fn extend_leases(&mut self, until: i64) -> Result<()> {
        sqlx::query("UPDATE work_items SET expires_at = MAX(COALESCE(expires_at, 0), ?) WHERE state = 'leased'")
            .bind(until)
            .execute(self.conn())
            .await?;
        Ok(())
    }
}
