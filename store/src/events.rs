//! The log of each job, numbered from 1 without gaps.

use aotfarm_protocol::{JobEvent, JobId, JobLogEntry};
use async_trait::async_trait;

use crate::error::Result;

/// Queries for events.
#[async_trait]
pub trait ReadEvents {
    /// The events of a job after number `after`, at most `limit`.
    async fn events_after(&mut self, job: JobId, after: i64, limit: u32) -> Result<Vec<JobLogEntry>>;

    /// Whether an equal event is in the log already: a restarted coordinator does not repeat
    /// itself.
    async fn has_event(&mut self, job: JobId, event: &JobEvent) -> Result<bool>;
}

/// Changes of logs.
#[async_trait]
pub trait WriteEvents {
    /// Adds an event, and returns its number. `at` is Unix milliseconds.
    async fn append_event(&mut self, job: JobId, at: i64, event: &JobEvent) -> Result<i64>;
}
