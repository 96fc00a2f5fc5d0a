//! Which job needs which work item.

use std::collections::BTreeMap;

use aotfarm_protocol::{Count, ItemInfo, ItemState, JobId, WorkItemId, WorkKind, WorkResult, WorkerId};
use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;
use sqlx::types::Json;
use sqlx::{FromRow, Row};

use super::Unit;
use super::value::{Word, plain};
use crate::error::Result;
use crate::job_items::{Ended, ReadJobItems, WriteJobItems};
use crate::workers::display_name;

/// The name of the worker in the columns `worker` and `host`.
fn worker_name(row: &SqliteRow) -> sqlx::Result<Option<String>> {
    let id: Option<Word<WorkerId>> = row.try_get("worker")?;
    let host: Option<String> = row.try_get("host")?;
    Ok(host.zip(id).map(|(host, Word(id))| display_name(&host, id)))
}

fn run_ms(row: &SqliteRow) -> sqlx::Result<Option<u64>> {
    let ms: Option<i64> = row.try_get("run_ms")?;
    Ok(ms.and_then(|ms| ms.try_into().ok()))
}

impl FromRow<'_, SqliteRow> for Ended {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        let Word(key) = row.try_get("key")?;
        let Word(state) = row.try_get::<Word<ItemState>, _>("state")?;
        let result: Option<Json<WorkResult>> = row.try_get("result")?;
        let Json(log) = row.try_get("log")?;
        Ok(Self {
            key,
            // What it was before the item was made again is not how it ended.
            result: result.filter(|_| state == ItemState::Done).map(|Json(result)| result),
            log,
            run_ms: run_ms(row)?.unwrap_or(0),
            worker: worker_name(row)?,
            cached: row.try_get("cached")?,
        })
    }
}

/// A worker's name and what it is doing.
struct Running(String, String);

impl FromRow<'_, SqliteRow> for Running {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        Ok(Self(worker_name(row)?.unwrap_or_default(), row.try_get("label")?))
    }
}

/// An [`ItemInfo`], which is not a type of this crate.
struct Info(ItemInfo);

impl FromRow<'_, SqliteRow> for Info {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        let Word(id) = row.try_get("key")?;
        let Word(kind) = row.try_get("kind")?;
        let Word(state) = row.try_get("state")?;
        let Json(log) = row.try_get("log")?;
        Ok(Self(ItemInfo {
            id,
            kind,
            label: row.try_get("label")?,
            state,
            attempts: row.try_get("attempts")?,
            worker: worker_name(row)?,
            run_ms: run_ms(row)?,
            completions: row.try_get("completions")?,
            log,
        }))
    }
}

#[async_trait]
impl ReadJobItems for Unit {
    async fn jobs_that_need(&mut self, item: WorkItemId) -> Result<Vec<JobId>> {
        let query = sqlx::query_scalar(
            "SELECT i.job FROM job_items i JOIN jobs j ON j.id = i.job
             WHERE i.item = ? AND j.finished_at IS NULL ORDER BY i.job",
        );
        Ok(plain(query.bind(Word(item)).fetch_all(self.conn()).await?))
    }

    async fn items_only_needed_by(&mut self, job: JobId) -> Result<Vec<WorkItemId>> {
        let query = sqlx::query_scalar(
            "SELECT w.key FROM job_items i JOIN work_items w ON w.key = i.item
             WHERE i.job = ?1 AND w.state IN ('queued', 'leased') AND NOT EXISTS (
                 SELECT 1 FROM job_items o JOIN jobs j ON j.id = o.job
                 WHERE o.item = w.key AND o.job <> ?1 AND j.finished_at IS NULL)",
        );
        Ok(plain(query.bind(Word(job)).fetch_all(self.conn()).await?))
    }

    async fn item_counts(&mut self, job: JobId) -> Result<BTreeMap<WorkKind, Count>> {
        let rows: Vec<(Word<WorkKind>, u32, u32, u32, u32)> = sqlx::query_as(
            "SELECT w.kind, COUNT(*), SUM(w.state IN ('done', 'quarantined')), SUM(i.cached), SUM(w.state = 'leased')
             FROM job_items i JOIN work_items w ON w.key = i.item WHERE i.job = ? GROUP BY w.kind",
        )
        .bind(Word(job))
        .fetch_all(self.conn())
        .await?;
        let count = |(Word(kind), total, done, cached, running)| (kind, Count { total, done, cached, running });
        Ok(rows.into_iter().map(count).collect())
    }

    async fn ended_items(&mut self, job: JobId, keys: &[WorkItemId]) -> Result<Vec<Ended>> {
        let query = sqlx::query_as(
            "SELECT w.key, w.state, w.result, w.log, w.run_ms, w.worker, p.host, i.cached
             FROM job_items i JOIN work_items w ON w.key = i.item LEFT JOIN workers p ON p.id = w.worker
             WHERE i.job = ? AND w.state IN ('done', 'quarantined') AND w.key IN (SELECT value FROM json_each(?))
             ORDER BY w.seq",
        );
        Ok(query.bind(Word(job)).bind(Json(keys)).fetch_all(self.conn()).await?)
    }

    async fn running_items(&mut self, job: JobId) -> Result<Vec<(String, String)>> {
        let rows: Vec<Running> = sqlx::query_as(
            "SELECT w.worker, p.host, w.label
             FROM job_items i JOIN work_items w ON w.key = i.item JOIN workers p ON p.id = w.worker
             WHERE i.job = ? AND w.state = 'leased' ORDER BY w.seq",
        )
        .bind(Word(job))
        .fetch_all(self.conn())
        .await?;
        Ok(rows.into_iter().map(|Running(worker, label)| (worker, label)).collect())
    }

    async fn average_run_ms(&mut self, job: JobId) -> Result<BTreeMap<WorkKind, f64>> {
        let rows: Vec<(Word<WorkKind>, f64)> = sqlx::query_as(
            "SELECT w.kind, AVG(w.run_ms) FROM job_items i JOIN work_items w ON w.key = i.item
             WHERE i.job = ? AND w.state = 'done' GROUP BY w.kind",
        )
        .bind(Word(job))
        .fetch_all(self.conn())
        .await?;
        Ok(rows.into_iter().map(|(Word(kind), ms)| (kind, ms)).collect())
    }

    async fn item_infos(&mut self, job: JobId) -> Result<Vec<ItemInfo>> {
        let rows: Vec<Info> = sqlx::query_as(
            "SELECT w.key, w.kind, w.label, w.state, w.attempts, w.worker, p.host, w.run_ms, w.completions, w.log
             FROM job_items i JOIN work_items w ON w.key = i.item LEFT JOIN workers p ON p.id = w.worker
             WHERE i.job = ? ORDER BY w.seq",
        )
        .bind(Word(job))
        .fetch_all(self.conn())
        .await?;
        Ok(rows.into_iter().map(|Info(info)| info).collect())
    }
}

#[async_trait]
impl WriteJobItems for Unit {
    async fn link_item(&mut self, job: JobId, item: WorkItemId, cached: bool) -> Result<bool> {
        let done = sqlx::query("INSERT INTO job_items (job, item, cached) VALUES (?, ?, ?) ON CONFLICT DO NOTHING")
            .bind(Word(job))
            .bind(Word(item))
            .bind(cached)
            .execute(self.conn())
            .await?;
        Ok(done.rows_affected() == 1)
    }
}
