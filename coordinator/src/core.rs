//! What all parts of one coordinator share.

use std::path::PathBuf;
use std::sync::Arc;

use aotfarm_protocol::{JobEvent, JobId, WorkerState};
use aotfarm_registry::Catalog;
use aotfarm_store::{BlobStore, Store, Transaction, WorkerRow};

use crate::clock::Clock;
use crate::error::Error;
use crate::planner::Planner;
use crate::signal::Signal;

/// How a coordinator behaves.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the database and the blobs are.
    pub data_dir: PathBuf,
    /// Whether to drive jobs and judge leases. Only one coordinator per database may; without, it serves what is stored.
    pub drive: bool,
    /// How long a lease lives without a heartbeat, in milliseconds.
    pub lease_ms: i64,
    /// How often workers send heartbeats, in milliseconds.
    pub heartbeat_ms: i64,
    /// A worker that was silent for so long is stale, in milliseconds.
    pub stale_ms: i64,
    /// How long nobody is judged after a start, in milliseconds.
    pub grace_ms: i64,
    /// A worker that was silent for so long is gone, in milliseconds.
    pub gone_ms: i64,
    /// How long a job waits for a worker with a capability that none has, in milliseconds; then it fails.
    pub capability_wait_ms: i64,
    /// A worker that fails so many items in a row is drained.
    pub drain_after: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("."),
            drive: true,
            lease_ms: 12_000,
            heartbeat_ms: 2_000,
            stale_ms: 7_000,
            grace_ms: 12_000,
            gone_ms: 600_000,
            capability_wait_ms: 120_000,
            drain_after: 4,
        }
    }
}

/// Wake-ups between the parts of one coordinator.
pub(crate) struct Signals {
    /// There may be work for a waiting claim.
    pub(crate) work: Signal,
    /// An item ended, a worker came, or a job was cancelled: drivers look again.
    pub(crate) progress: Signal,
    /// A job's log grew.
    pub(crate) events: Signal,
    /// A job was submitted.
    pub(crate) jobs: Signal,
}

/// The shared state: connections, stores and the clock. Nothing here outlives a restart in memory alone.
pub(crate) struct Core {
    pub(crate) config: Config,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) blobs: Arc<dyn BlobStore>,
    pub(crate) catalog: Catalog,
    pub(crate) planner: Arc<dyn Planner>,
    pub(crate) started_at: i64,
    pub(crate) signals: Signals,
}

impl Core {
    pub(crate) fn now(&self) -> i64 {
        self.clock.now_ms()
    }

    /// How a worker is judged. One that was not heard of since this coordinator started is not ours to judge until the grace
    /// period has passed: it may not have noticed yet that there is a coordinator again.
    pub(crate) fn judge(&self, worker: &WorkerRow) -> WorkerState {
        let now = self.now();
        if worker.gone_at.is_some() {
            WorkerState::Gone
        } else if worker.seen_at < self.started_at && now < self.started_at + self.config.grace_ms {
            WorkerState::Unknown
        } else if now - worker.seen_at > self.config.stale_ms {
            WorkerState::Stale
        } else if worker.draining {
            WorkerState::Draining
        } else {
            WorkerState::Alive
        }
    }

    /// Appends an event to a job's log inside a transaction; the caller raises `signals.events` after the commit.
    pub(crate) async fn log(&self, tx: &mut dyn Transaction, job: JobId, event: &JobEvent) -> Result<(), Error> {
        tx.append_event(job, self.now(), event).await?;
        Ok(())
    }

    /// Appends an event on its own.
    pub(crate) async fn emit(&self, job: JobId, event: &JobEvent) -> Result<(), Error> {
        let mut tx = self.store.write().await?;
        self.log(&mut *tx, job, event).await?;
        tx.commit().await?;
        self.signals.events.raise();
        Ok(())
    }

    /// Appends a note, unless the log has the same one.
    pub(crate) async fn note(&self, job: JobId, message: impl Into<String>) -> Result<(), Error> {
        let event = JobEvent::Note { message: message.into() };
        let mut tx = self.store.write().await?;
        if !tx.has_event(job, &event).await? {
            self.log(&mut *tx, job, &event).await?;
        }
        tx.commit().await?;
        self.signals.events.raise();
        Ok(())
    }
}
