//! Which job needs which work item. An item that several jobs need is one item and several of
//! these.

use std::collections::BTreeMap;

use aotfarm_protocol::{Count, ItemInfo, JobId, WorkItemId, WorkKind, WorkResult};
use async_trait::async_trait;

use crate::error::Result;

/// How an item ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Ended {
    /// Which.
    pub key: WorkItemId,
    /// The result; `None` when it is quarantined.
    pub result: Option<WorkResult>,
    /// What went wrong in each failed attempt.
    pub log: Vec<String>,
    /// How long it ran, in milliseconds.
    pub run_ms: u64,
    /// Name of the worker that had it last.
    pub worker: Option<String>,
    /// Whether it was done before the job asked.
    pub cached: bool,
}

/// Queries for the items of a job.
#[async_trait]
pub trait ReadJobItems {
    /// The unfinished jobs that need an item.
    async fn jobs_that_need(&mut self, item: WorkItemId) -> Result<Vec<JobId>>;

    /// Open items of a job that no other unfinished job needs.
    async fn items_only_needed_by(&mut self, job: JobId) -> Result<Vec<WorkItemId>>;

    /// Counts by kind.
    async fn item_counts(&mut self, job: JobId) -> Result<BTreeMap<WorkKind, Count>>;

    /// Ended items of a job among `keys`, in order of arrival.
    async fn ended_items(&mut self, job: JobId, keys: &[WorkItemId]) -> Result<Vec<Ended>>;

    /// What runs now for a job: worker and label, in order of arrival.
    async fn running_items(&mut self, job: JobId) -> Result<Vec<(String, String)>>;

    /// Average run time of the job's finished items by kind, in milliseconds.
    async fn average_run_ms(&mut self, job: JobId) -> Result<BTreeMap<WorkKind, f64>>;

    /// All items of a job, in order of arrival.
    async fn item_infos(&mut self, job: JobId) -> Result<Vec<ItemInfo>>;
}

/// Changes of what jobs need.
#[async_trait]
pub trait WriteJobItems {
    /// Notes that a job needs an item; `false` when that was noted before. `cached`: it was done
    /// before the job asked.
    async fn link_item(&mut self, job: JobId, item: WorkItemId, cached: bool) -> Result<bool>;
}
