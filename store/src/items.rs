//! Work items: the queue, the leases, and the cache of results.

use std::collections::BTreeMap;

use aotfarm_protocol::{
    CandidateId, Digest, ItemState, JobId, Params, Target, WorkItemId, WorkKind, WorkResult, WorkSpec, WorkerId,
};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::error::Result;

/// What decides the fate of a work item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Where it stands.
    pub state: ItemState,
    /// Grows each time the item is given out; a report that carries another one is fenced off.
    pub generation: i64,
    /// How often it was given out since it was last queued afresh.
    pub attempts: u32,
    /// How often a result was accepted.
    pub completions: u32,
    /// Who has or had it.
    pub worker: Option<WorkerId>,
    /// When the lease ends, Unix milliseconds; only while leased.
    pub expires_at: Option<i64>,
}

/// What the TuningRecords of a Measure item say beyond its spec.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MeasureContext {
    /// What the candidates were made for.
    pub target: Target,
    /// Family and parameters of each candidate.
    pub candidates: Vec<(CandidateId, String, Params)>,
}

/// A work item.
#[derive(Debug, Clone)]
pub struct ItemRow {
    /// Digest of all that can change its result.
    pub key: WorkItemId,
    /// What it does, in words.
    pub label: String,
    /// Its fate.
    pub item: Item,
    /// What to do.
    pub spec: WorkSpec,
    /// Of a Measure: what its TuningRecords say beyond the spec.
    pub context: Option<MeasureContext>,
    /// The result that was accepted last.
    pub result: Option<WorkResult>,
}

/// A queued item.
#[derive(Debug, Clone, PartialEq)]
pub struct QueuedItem {
    /// Which.
    pub id: WorkItemId,
    /// Its kind.
    pub kind: WorkKind,
    /// The toolchain that it needs, if any, and what it must build for.
    pub toolchain: Option<(String, Target)>,
    /// The device that it needs, if any.
    pub device: Option<Digest>,
    /// Order of arrival.
    pub seq: i64,
    /// Since when it is queued, Unix milliseconds.
    pub queued_at: i64,
    /// The jobs that wait for it; at least one.
    pub jobs: Vec<JobId>,
}

/// A lease that is out.
#[derive(Debug, Clone)]
pub struct LeasedItem {
    /// Which item.
    pub key: WorkItemId,
    /// Its kind.
    pub kind: WorkKind,
    /// What it does, in words.
    pub label: String,
    /// Its fate.
    pub item: Item,
}

/// Queries for work items.
#[async_trait]
pub trait ReadItems {
    /// One item.
    async fn item(&mut self, key: WorkItemId) -> Result<Option<ItemRow>>;

    /// The front of the queue of every unfinished job, in order of arrival.
    async fn queued_items(&mut self) -> Result<Vec<QueuedItem>>;

    /// All leases that are out.
    async fn leased_items(&mut self) -> Result<Vec<LeasedItem>>;

    /// The number of leases of each job.
    async fn leases_by_job(&mut self) -> Result<BTreeMap<JobId, u32>>;
}

/// Changes of work items.
#[async_trait]
pub trait WriteItems {
    /// Adds a queued item. `now` is Unix milliseconds.
    async fn insert_item(&mut self, spec: &WorkSpec, label: &str, context: Option<&MeasureContext>, now: i64) -> Result<()>;

    /// Replaces `before` by `after`. The generation and the state are part of the condition:
    /// `false` means that the row is no longer what was read, and nothing was written. `now` is
    /// Unix milliseconds.
    async fn save_item(&mut self, key: WorkItemId, before: &Item, after: &Item, now: i64) -> Result<bool>;

    /// Stores the result of an item that [`Self::save_item`] has just made done, and how long it
    /// ran.
    async fn set_result(&mut self, key: WorkItemId, result: &WorkResult, run_ms: u64) -> Result<()>;

    /// Notes what went wrong in an attempt.
    async fn add_log(&mut self, key: WorkItemId, line: &str) -> Result<()>;

    /// Gives every lease that is out at least until `until`, Unix milliseconds.
    async fn extend_leases(&mut self, until: i64) -> Result<()>;
}
