//! The coordinator as a worker sees it: the edge at which tests put a fake.

use std::path::Path;
use std::time::Duration;

use aotfarm_protocol::{
    ApiError, Capabilities, ClaimRequest, ClaimResponse, Digest, Heartbeat, HeartbeatResponse, Registered, Report, WorkItemId,
    WorkerId,
};
use backon::ExponentialBuilder;
use futures_util::future::BoxFuture;

/// The first pause after the coordinator was away.
pub(crate) const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Pauses while the coordinator is away: each is twice as long as the one before, up to five
/// seconds. Whoever waits says when patience ends.
pub(crate) const PAUSES: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(FIRST_PAUSE)
    .with_max_delay(Duration::from_secs(5))
    .with_factor(2.0)
    .without_max_times();

/// Why the coordinator did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FarmError {
    /// It cannot be reached, or answers with something that is no answer of the API: try again later.
    #[error("the coordinator cannot be reached: {0}")]
    Away(String),
    /// It refused.
    #[error("the coordinator refused: {0}")]
    Refused(ApiError),
}

/// What a worker asks of the coordinator and its blob store.
pub trait Farm: Send + Sync + 'static {
    /// Introduces the worker.
    fn register<'a>(&'a self, capabilities: &'a Capabilities) -> BoxFuture<'a, Result<Registered, FarmError>>;
    /// Asks for work.
    fn claim<'a>(&'a self, worker: WorkerId, request: &'a ClaimRequest) -> BoxFuture<'a, Result<ClaimResponse, FarmError>>;
    /// Says that the worker lives and what it runs.
    fn heartbeat<'a>(&'a self, worker: WorkerId, beat: &'a Heartbeat) -> BoxFuture<'a, Result<HeartbeatResponse, FarmError>>;
    /// Ends a lease.
    fn report<'a>(&'a self, item: WorkItemId, report: &'a Report) -> BoxFuture<'a, Result<(), FarmError>>;
    /// Leaves: leases go back at once.
    fn leave(&self, worker: WorkerId) -> BoxFuture<'_, Result<(), FarmError>>;
    /// Writes a blob, verified, to a new file.
    fn download<'a>(&'a self, digest: Digest, to: &'a Path) -> BoxFuture<'a, Result<(), FarmError>>;
    /// Stores a file's content, whose digest is given.
    fn upload<'a>(&'a self, digest: Digest, from: &'a Path) -> BoxFuture<'a, Result<(), FarmError>>;
}
