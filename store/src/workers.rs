//! Workers: one row per registration.

use aotfarm_protocol::{Capabilities, Device, Digest, WorkerId};
use async_trait::async_trait;

use crate::error::Result;

/// A worker. Times are Unix milliseconds.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerRow {
    /// Which.
    pub id: WorkerId,
    /// What it said that it can do.
    pub capabilities: Capabilities,
    /// When it was last heard of.
    pub seen_at: i64,
    /// It gets no more work.
    pub draining: bool,
    /// When it left.
    pub gone_at: Option<i64>,
    /// Items that it finished.
    pub done: u32,
    /// Items that it failed.
    pub failed: u32,
}

impl WorkerRow {
    /// The fingerprint of its device.
    pub fn device(&self) -> Option<Digest> {
        self.capabilities.device.as_ref().map(Device::fingerprint)
    }

    /// What people call it: several workers can share a host.
    pub fn name(&self) -> String {
        display_name(&self.capabilities.host, self.id)
    }
}

/// `host-1f3a`: the host and the last digits of the worker's id.
pub(crate) fn display_name(host: &str, id: WorkerId) -> String {
    let id = id.to_string();
    format!("{host}-{}", &id[id.len() - 4..])
}

/// Queries for workers.
#[async_trait]
pub trait ReadWorkers {
    /// One worker.
    async fn worker(&mut self, id: WorkerId) -> Result<Option<WorkerRow>>;

    /// Workers that have not left, and those that left after `gone_since` (Unix milliseconds),
    /// oldest first.
    async fn workers(&mut self, gone_since: i64) -> Result<Vec<WorkerRow>>;

    /// Workers that have not left, oldest first.
    async fn present_workers(&mut self) -> Result<Vec<WorkerRow>>;
}

/// Changes of workers. Times are Unix milliseconds.
#[async_trait]
pub trait WriteWorkers {
    /// Adds a worker.
    async fn insert_worker(&mut self, id: WorkerId, capabilities: &Capabilities, now: i64) -> Result<()>;

    /// A worker was heard of.
    async fn touch_worker(&mut self, id: WorkerId, now: i64) -> Result<()>;

    /// Counts a finished or failed item; a worker whose failures reach `drain_after` in a row is
    /// drained. Returns whether it is now.
    async fn count_item(&mut self, id: WorkerId, ok: bool, drain_after: u32) -> Result<bool>;

    /// A worker has left.
    async fn worker_left(&mut self, id: WorkerId, now: i64) -> Result<()>;

    /// Workers that were silent since before `limit` are gone: their processes ended without a
    /// word.
    async fn forget_silent_workers(&mut self, limit: i64, now: i64) -> Result<()>;
}
