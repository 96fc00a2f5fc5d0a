//! What each kind of work item does. A result says something about the item; an [`ExecError`] only about this worker.

mod build;
mod link;
mod measure;
mod model_race;
mod profile;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use aotfarm_protocol::{Device, Target, VendorLibrary, WorkResult, WorkSpec};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use crate::cache::{BlobCache, BlobError};
use crate::gpu::Gpu;
use crate::nvrtc::Nvrtc;
use crate::process::{self, Finished, Limits, ProcessError};
use crate::toolchain::{Compiler, Toolchains};

/// How to start the measuring child: a program that hands the arguments after `args` to [`crate::child::main`].
#[derive(Debug, Clone)]
pub struct ChildProgram {
    /// The program.
    pub program: PathBuf,
    /// Its first arguments.
    pub args: Vec<OsString>,
    /// Variables of its environment, besides those of this process.
    pub env: Vec<(OsString, OsString)>,
}

impl ChildProgram {
    /// This very program with the hidden subcommand `__child`.
    ///
    /// # Errors
    /// If the system does not tell where the program lies.
    pub fn this_program() -> io::Result<Self> {
        // The link under /proc stays valid when the file is replaced by a newer one.
        let exe = PathBuf::from("/proc/self/exe");
        let program = if exe.exists() { exe.read_link()? } else { std::env::current_exe()? };
        Ok(Self { program, args: vec!["__child".into()], env: Vec::new() })
    }

    fn command(&self, kind: &str, job: Option<&Path>) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.args).arg(kind).args(job).envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a child job that answers with one JSON line; the job file lies in `dir`. The outer error is the worker's; the inner one
    /// says how the child died, which for code under test is the item's.
    pub(crate) async fn run<J, E>(
        &self,
        kind: &'static str,
        dir: &Path,
        job: &J,
        limits: Limits,
        cancel: &CancellationToken,
    ) -> Result<Result<E, String>, ExecError>
    where
        J: serde::Serialize,
        E: serde::de::DeserializeOwned,
    {
        let path = dir.join(format!("{kind}.json"));
        write_job(&path, job)?;
        answer_of(kind, self.command(kind, Some(&path)), limits, cancel).await
    }

    /// Runs a child that needs no job.
    pub(crate) async fn ask<E: serde::de::DeserializeOwned>(
        &self,
        kind: &'static str,
        limits: Limits,
    ) -> Result<Result<E, String>, ExecError> {
        answer_of(kind, self.command(kind, None), limits, &CancellationToken::new()).await
    }
}

/// The one JSON line that a child answers.
async fn answer_of<E: serde::de::DeserializeOwned>(
    kind: &'static str,
    command: Command,
    limits: Limits,
    cancel: &CancellationToken,
) -> Result<Result<E, String>, ExecError> {
    let done: Finished = process::run(command, limits, cancel).await?;
    match done.ending {
        // The code under test may have printed something before.
        process::Ending::Exited(0) => serde_json::from_str(done.stdout.lines().last().unwrap_or_default()).map(Ok).map_err(|e| {
            let reason = format!("its answer cannot be read ({e}): {}", crate::toolchain::shorten(&done.stdout));
            ExecError::Child { kind, reason }
        }),
        process::Ending::Exited(_) => {
            Err(ExecError::Child { kind, reason: format!("{}: {}", done.ending, crate::toolchain::shorten(&done.stderr)) })
        }
        process::Ending::TimedOut => Ok(Err(format!("it took longer than {} s", limits.time.as_secs()))),
        process::Ending::Killed(_) => Ok(Err(format!("it was ended by {}", done.ending))),
    }
}

/// Why the worker could not do an item; another worker may.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExecError {
    /// The lease was lost or the worker is leaving.
    #[error("cancelled")]
    Cancelled,
    /// It is not for this worker.
    #[error("this worker has no toolchain `{toolchain}` for {target}")]
    NoToolchain { toolchain: String, target: Target },
    /// It is not for this worker.
    #[error("this worker has no {0}")]
    Lacks(&'static str),
    /// A blob could not be had or stored.
    #[error(transparent)]
    Blob(BlobError),
    /// The disk.
    #[error("could not {doing}")]
    Disk {
        doing: String,
        #[source]
        source: io::Error,
    },
    /// A child could not be started or talked to.
    #[error(transparent)]
    Process(ProcessError),
    /// The child failed in a way that says nothing about the item.
    #[error("the {kind} child failed: {reason}")]
    Child { kind: &'static str, reason: String },
}

impl From<BlobError> for ExecError {
    fn from(error: BlobError) -> Self {
        if matches!(error, BlobError::Cancelled) { Self::Cancelled } else { Self::Blob(error) }
    }
}

impl From<ProcessError> for ExecError {
    fn from(error: ProcessError) -> Self {
        if matches!(error, ProcessError::Cancelled) { Self::Cancelled } else { Self::Process(error) }
    }
}

impl ExecError {
    fn disk(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Disk { doing, source }
    }

    /// The error and its causes in one line.
    pub(crate) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            text = format!("{text}: {error}");
            source = error.source();
        }
        text
    }
}

/// What executing needs of the worker.
pub(crate) struct Context {
    pub(crate) toolchains: Toolchains,
    pub(crate) cache: BlobCache,
    /// Where each item gets a folder of its own.
    pub(crate) dir: PathBuf,
    pub(crate) child: ChildProgram,
    pub(crate) device: Option<Device>,
    /// NVIDIA's libraries, on a GPU.
    pub(crate) vendors: BTreeMap<VendorLibrary, PathBuf>,
    /// The device, if it is a GPU.
    pub(crate) gpu: Option<Gpu>,
    /// The GPU's measuring child between two items.
    pub(crate) idle: Mutex<Option<measure::Running>>,
}

impl Context {
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

    fn nvrtc(&self, id: &str, target: Target) -> Result<&Nvrtc, ExecError> {
        let found = self.toolchains.nvrtc().filter(|n| n.id == id && n.targets.contains(&target));
        found.ok_or_else(|| ExecError::NoToolchain { toolchain: id.to_owned(), target })
    }

    fn compiler(&self, id: &str, target: Target) -> Result<&Compiler, ExecError> {
        let found = self.toolchains.by_id(id).filter(|c| c.targets.contains(&target));
        found.ok_or_else(|| ExecError::NoToolchain { toolchain: id.to_owned(), target })
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

/// Writes a child's job file.
fn write_job(path: &Path, job: &impl serde::Serialize) -> Result<(), ExecError> {
    let bytes = serde_json::to_vec(job).map_err(io::Error::other);
    bytes.and_then(|bytes| std::fs::write(path, bytes)).map_err(ExecError::disk(format!("write {}", path.display())))
}

/// How often a taken device is asked for.
const LOCK_POLL: Duration = Duration::from_millis(20);
/// Waits at most this long for a child beyond what its own limits add up to.
const GRACE: Duration = Duration::from_secs(60);
