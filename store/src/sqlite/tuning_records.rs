//! TuningRecords.

use std::collections::BTreeMap;

use aotfarm_protocol::{CandidateId, Digest, TaskKey, TuningRecord, WorkItemId};
use async_trait::async_trait;
use sqlx::types::Json;

use super::Unit;
use super::value::Word;
use crate::error::Result;
use crate::records::{ReadRecords, WriteRecords};

#[async_trait]
impl ReadRecords for Unit {
    async fn newest_records(
        &mut self,
        task: TaskKey,
        device: Digest,
        protocol_version: u32,
        threads: u32,
    ) -> Result<BTreeMap<CandidateId, TuningRecord>> {
        let rows: Vec<(Json<TuningRecord>, i64)> = sqlx::query_as(
            "SELECT record, MAX(id) FROM tuning_records
             WHERE task = ? AND device = ? AND protocol_version = ? AND threads = ? GROUP BY candidate",
        )
        .bind(Word(task))
        .bind(Word(device))
        .bind(protocol_version)
        .bind(threads)
        .fetch_all(self.conn())
        .await?;
        Ok(rows.into_iter().map(|(Json(record), _)| (record.candidate, record)).collect())
    }

    async fn records_of_task(&mut self, task: TaskKey, protocol_version: u32) -> Result<Vec<TuningRecord>> {
        let rows: Vec<(Json<TuningRecord>, i64)> = sqlx::query_as(
            "SELECT record, MAX(id) FROM tuning_records WHERE task = ? AND protocol_version = ?
             GROUP BY device, candidate ORDER BY 2",
        )
        .bind(Word(task))
        .bind(protocol_version)
        .fetch_all(self.conn())
        .await?;
        Ok(rows.into_iter().map(|(Json(record), _)| record).collect())
    }
}

#[async_trait]
impl WriteRecords for Unit {
    async fn append_record(&mut self, item: WorkItemId, record: &TuningRecord) -> Result<()> {
        sqlx::query(
            "INSERT INTO tuning_records (task, device, candidate, protocol_version, threads, item, record)
             VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        )
        .bind(Word(record.task))
        .bind(Word(record.device.fingerprint()))
        .bind(Word(record.candidate))
        .bind(record.protocol.version)
        .bind(record.protocol.threads)
        .bind(Word(item))
        .bind(Json(record))
        .execute(self.conn())
        .await?;
        Ok(())
    }
}
