//! Workers: one row per registration.

use aotfarm_protocol::{Capabilities, Digest, WorkerId};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use crate::db::{Conn, Result, from_json, from_word, to_json};

/// A row.
#[derive(Debug, Clone)]
pub(crate) struct WorkerRow {
    pub(crate) id: WorkerId,
    pub(crate) capabilities: Capabilities,
    pub(crate) seen_at: i64,
    pub(crate) draining: bool,
    pub(crate) gone_at: Option<i64>,
    pub(crate) done: u32,
    pub(crate) failed: u32,
}

impl WorkerRow {
    /// The fingerprint of its device.
    pub(crate) fn device(&self) -> Option<Digest> {
        self.capabilities.device.as_ref().map(aotfarm_protocol::Device::fingerprint)
    }

    /// What people call it: several workers can share a host.
    pub(crate) fn name(&self) -> String {
        display_name(&self.capabilities.host, self.id)
    }
}

/// `host-1f3a`: the host and the last digits of the worker's id.
pub(crate) fn display_name(host: &str, id: WorkerId) -> String {
    let id = id.to_string();
    format!("{host}-{}", &id[id.len() - 4..])
}

fn parse(row: &SqliteRow) -> Result<WorkerRow> {
    Ok(WorkerRow {
        id: from_word("WorkerId", &row.try_get::<String, _>("id")?)?,
        capabilities: from_json("Capabilities", &row.try_get::<String, _>("capabilities")?)?,
        seen_at: row.try_get("seen_at")?,
        draining: row.try_get("draining")?,
        gone_at: row.try_get("gone_at")?,
        done: row.try_get("done")?,
        failed: row.try_get("failed")?,
    })
}

/// Adds a worker.
pub(crate) async fn insert(conn: &mut Conn, id: WorkerId, capabilities: &Capabilities, now: i64) -> Result<()> {
    sqlx::query("INSERT INTO workers (id, host, capabilities, device, registered_at, seen_at) VALUES (?, ?, ?, ?, ?, ?)")
        .bind(id.to_string())
        .bind(&capabilities.host)
        .bind(to_json(capabilities))
        .bind(capabilities.device.as_ref().map(|d| d.fingerprint().to_string()))
        .bind(now)
        .bind(now)
        .execute(conn)
        .await?;
    Ok(())
}

/// One worker.
pub(crate) async fn get(conn: &mut Conn, id: WorkerId) -> Result<Option<WorkerRow>> {
    let row = sqlx::query("SELECT * FROM workers WHERE id = ?").bind(id.to_string()).fetch_optional(conn).await?;
    row.as_ref().map(parse).transpose()
}

/// Workers that have not left, and those that left after `gone_since`, oldest first.
pub(crate) async fn list(conn: &mut Conn, gone_since: i64) -> Result<Vec<WorkerRow>> {
    let rows = sqlx::query("SELECT * FROM workers WHERE gone_at IS NULL OR gone_at > ? ORDER BY registered_at, id")
        .bind(gone_since)
        .fetch_all(conn)
        .await?;
    rows.iter().map(parse).collect()
}

/// Workers that have not left.
pub(crate) async fn present(conn: &mut Conn) -> Result<Vec<WorkerRow>> {
    list(conn, i64::MAX).await
}

/// A worker was heard of.
pub(crate) async fn touch(conn: &mut Conn, id: WorkerId, now: i64) -> Result<()> {
    sqlx::query("UPDATE workers SET seen_at = ? WHERE id = ?").bind(now).bind(id.to_string()).execute(conn).await?;
    Ok(())
}

/// Counts a finished or failed item; a worker whose failures reach `drain_after` in a row is drained. Returns whether it is now.
pub(crate) async fn count(conn: &mut Conn, id: WorkerId, ok: bool, drain_after: u32) -> Result<bool> {
    let row = sqlx::query(
        "UPDATE workers SET done = done + ?2, failed = failed + 1 - ?2, streak = (streak + 1) * (1 - ?2),
             draining = MAX(draining, (streak + 1) * (1 - ?2) >= ?3) WHERE id = ?1 RETURNING draining",
    )
    .bind(id.to_string())
    .bind(i64::from(ok))
    .bind(drain_after)
    .fetch_optional(conn)
    .await?;
    row.map_or(Ok(false), |r| Ok(r.try_get(0)?))
}

/// A worker has left.
pub(crate) async fn leave(conn: &mut Conn, id: WorkerId, now: i64) -> Result<()> {
    sqlx::query("UPDATE workers SET gone_at = ? WHERE id = ? AND gone_at IS NULL")
        .bind(now)
        .bind(id.to_string())
        .execute(conn)
        .await?;
    Ok(())
}

/// Workers that were silent since before `limit` are gone: their processes ended without a word.
pub(crate) async fn forget_silent(conn: &mut Conn, limit: i64, now: i64) -> Result<()> {
    sqlx::query("UPDATE workers SET gone_at = ? WHERE gone_at IS NULL AND seen_at < ?")
        .bind(now)
        .bind(limit)
        .execute(conn)
        .await?;
    Ok(())
}
