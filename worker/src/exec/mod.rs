//! What each kind of work item does. A result says something about the item; an [`ExecError`] only about this worker.

mod build;
mod error;
mod executor;
mod link;
mod measure;
mod measuring_child;
mod model_race;
mod profile;

use std::fs::{File, TryLockError};
use std::time::{Duration, Instant};

use aotfarm_protocol::{WorkResult, WorkSpec};
use tokio_util::sync::CancellationToken;

pub(crate) use self::error::ExecError;
pub(crate) use self::executor::Executor;

/// How often a taken device is asked for.
const LOCK_POLL: Duration = Duration::from_millis(20);

impl Executor {
    /// Does one item; returns also how long it worked, waiting for the device not counted.
    pub(crate) async fn execute(&self, spec: &WorkSpec, cancel: &CancellationToken) -> (Result<WorkResult, ExecError>, Duration) {
        let lock = match spec.device() {
            Some(_) => match device_lock(self.gpu.as_ref().map_or("cpu", |gpu| &gpu.uuid), cancel).await {
                Ok(lock) => Some(lock),
                Err(error) => return (Err(error), Duration::ZERO),
            },
            None => None,
        };
        let start = Instant::now();
        let result = self.dispatch(spec, cancel).await;
        drop(lock);
        (result, start.elapsed())
    }

    async fn dispatch(&self, spec: &WorkSpec, cancel: &CancellationToken) -> Result<WorkResult, ExecError> {
        let dir = tempfile::Builder::new().prefix("item-").tempdir_in(&self.dir);
        let dir = dir.map_err(ExecError::disk(format!("make a folder in {}", self.dir.display())))?;
        match spec {
            WorkSpec::Build(spec) => build::build(self, spec, dir.path(), cancel).await,
            WorkSpec::Link(spec) => link::link(self, spec, dir.path(), cancel).await,
            WorkSpec::Measure { spec, .. } => measure::measure(self, spec, dir.path(), cancel).await,
            WorkSpec::ModelRace { spec, .. } => model_race::model_race(self, spec, dir.path(), cancel).await,
            WorkSpec::Profile { spec, .. } => profile::profile(self, spec, dir.path(), cancel).await,
        }
    }
}

/// Waits until no other worker on this host measures on the same device. The lock goes with the file.
async fn device_lock(name: &str, cancel: &CancellationToken) -> Result<File, ExecError> {
    let path = std::env::temp_dir().join(format!("aotfarm-{name}.lock"));
    // Another user's file cannot be opened for writing, but locked all the same.
    let file = File::options().create(true).append(true).open(&path).or_else(|_| File::open(&path));
    let file = file.map_err(ExecError::disk(format!("open {}", path.display())))?;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(source)) => return Err(ExecError::disk(format!("lock {}", path.display()))(source)),
        }
        tokio::select! {
            () = cancel.cancelled() => return Err(ExecError::Cancelled),
            () = tokio::time::sleep(LOCK_POLL) => {}
        }
    }
}
