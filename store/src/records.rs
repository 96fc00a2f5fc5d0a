//! What is known of tuning: TuningRecords, append-only, every sample kept, shared by all models;
//! and what tasks are like, so that those similar to a new one are found.

use std::collections::BTreeMap;

use aotfarm_protocol::{CandidateId, Digest, Likeness, TaskKey, TuningRecord, WorkItemId};
use async_trait::async_trait;

use crate::error::Result;

/// Queries for TuningRecords.
#[async_trait]
pub trait ReadRecords {
    /// The newest record of each candidate of one task, on one device (its fingerprint), measured
    /// in one way.
    async fn newest_records(
        &mut self,
        task: TaskKey,
        device: Digest,
        protocol_version: u32,
        threads: u32,
    ) -> Result<BTreeMap<CandidateId, TuningRecord>>;

    /// The newest record of each candidate of one task on each device, oldest first.
    async fn records_of_task(&mut self, task: TaskKey, protocol_version: u32) -> Result<Vec<TuningRecord>>;
}

/// Additions to the TuningRecords.
#[async_trait]
pub trait WriteRecords {
    /// Adds what the work item `item` found out; adding it again changes nothing.
    async fn append_record(&mut self, item: WorkItemId, record: &TuningRecord) -> Result<()>;
}

/// Queries for similar tasks.
#[async_trait]
pub trait ReadTasks {
    /// The tasks of a similarity class of which a device has records, measured in one way and
    /// before a time (Unix seconds), in a fixed order.
    async fn known_tasks(
        &mut self,
        class: Digest,
        device: Digest,
        protocol_version: u32,
        threads: u32,
        before: i64,
    ) -> Result<Vec<(TaskKey, Likeness)>>;
}

/// Additions to what tasks are like.
#[async_trait]
pub trait WriteTasks {
    /// Keeps what a task is like; adding it again changes nothing.
    async fn add_task(&mut self, task: TaskKey, likeness: &Likeness) -> Result<()>;
}
