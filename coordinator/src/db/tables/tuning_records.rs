//! TuningRecords: append-only, every sample kept, shared by all models.

use std::collections::BTreeMap;

use aotfarm_protocol::{CandidateId, Digest, TaskKey, TuningRecord, WorkItemId};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use crate::db::{Conn, Result, from_json, to_json};

/// Adds what the work item `item` found out; adding it again changes nothing.
pub(crate) async fn append(conn: &mut Conn, item: WorkItemId, record: &TuningRecord) -> Result<()> {
    sqlx::query(
        "INSERT INTO tuning_records (task, device, candidate, protocol_version, threads, item, record)
         VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
    )
    .bind(record.task.to_string())
    .bind(record.device.fingerprint().to_string())
    .bind(record.candidate.to_string())
    .bind(record.protocol.version)
    .bind(record.protocol.threads)
    .bind(item.to_string())
    .bind(to_json(record))
    .execute(conn)
    .await?;
    Ok(())
}

/// The newest record of each candidate of one task, on one device, measured in one way.
pub(crate) async fn newest(
    conn: &mut Conn,
    task: TaskKey,
    device: Digest,
    protocol_version: u32,
    threads: u32,
) -> Result<BTreeMap<CandidateId, TuningRecord>> {
    let rows = sqlx::query(
        "SELECT record, MAX(id) FROM tuning_records
         WHERE task = ? AND device = ? AND protocol_version = ? AND threads = ? GROUP BY candidate",
    )
    .bind(task.to_string())
    .bind(device.to_string())
    .bind(protocol_version)
    .bind(threads)
    .fetch_all(conn)
    .await?;
    rows.iter().map(|row| parse(row).map(|record| (record.candidate, record))).collect()
}

/// The newest record of each candidate of one task on each device.
pub(crate) async fn of_task(conn: &mut Conn, task: TaskKey, protocol_version: u32) -> Result<Vec<TuningRecord>> {
    let rows = sqlx::query(
        "SELECT record, MAX(id) FROM tuning_records WHERE task = ? AND protocol_version = ? GROUP BY device, candidate ORDER BY 2",
    )
    .bind(task.to_string())
    .bind(protocol_version)
    .fetch_all(conn)
    .await?;
    rows.iter().map(parse).collect()
}

fn parse(row: &SqliteRow) -> Result<TuningRecord> {
    from_json("TuningRecord", &row.try_get::<String, _>(0)?)
}
