//! A worker, put together.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aotfarm_client::{Client, ClientError};
use aotfarm_protocol::{Capabilities, WorkKind, WorkResult, WorkSpec};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::cache::{BlobCache, BlobError};
use crate::device;
use crate::exec::{ExecError, Executor};
use crate::farm::Farm;
use crate::gpu::{Gpu, probe_gpus};
use crate::http::HttpFarm;
use crate::runner::{Activity, Execute, Exit, GaveUp, Runner};
use crate::sandbox::{ChildProgram, chain};
use crate::toolchain::{NoCompiler, NoNvrtc, Search, Toolchains};
use crate::turns::Turns;

/// The name of the file by whose lock a worker's folder is known to be in use.
const LOCK: &str = "lock";

/// What a worker measures on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Measures {
    /// Nothing: it only builds.
    Nothing,
    /// This host's CPU.
    Cpu,
    /// A GPU of this host.
    Gpu(Gpu),
}

impl Measures {
    /// Everything that this host has: its CPU, then every GPU. `child` is how children are started.
    pub async fn all(child: &ChildProgram) -> Vec<Self> {
        let gpus = match probe_gpus(child).await {
            Ok(found) => found.gpus,
            Err(reason) => {
                tracing::debug!(reason, "no GPU is measured on");
                Vec::new()
            }
        };
        std::iter::once(Self::Cpu).chain(gpus.into_iter().map(Self::Gpu)).collect()
    }
}

/// How a worker is set up. Workers with copies of one value are a group: none leaves for want of work while another has some.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// Build and link items at once; 0: it only measures.
    pub slots: u32,
    /// What it measures on.
    pub device: Measures,
    /// Free-form labels.
    pub labels: Vec<String>,
    /// Leave after so long without work.
    pub idle_exit: Option<Duration>,
    /// Where it keeps blobs and works, in a folder of its own that it removes at the end.
    pub work_dir: PathBuf,
    /// Bytes of blobs that it keeps.
    pub cache_bytes: u64,
    /// How long it goes on without an answer from the coordinator.
    pub give_up: Duration,
    /// How to start the measuring child.
    pub child: ChildProgram,
    /// Where to look for compilers.
    pub search: Search,
    /// When the group had work.
    pub activity: Activity,
}

impl WorkerConfig {
    /// The defaults: as many slots as cores, measuring, 4 GiB of blobs, ten minutes of patience.
    ///
    /// # Errors
    /// If the system does not tell where this program lies.
    pub fn new(work_dir: PathBuf) -> io::Result<Self> {
        Ok(Self {
            slots: std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX)),
            device: Measures::Cpu,
            labels: Vec::new(),
            idle_exit: None,
            work_dir,
            cache_bytes: 4 << 30,
            give_up: Duration::from_secs(600),
            child: ChildProgram::this_program()?,
            search: Search::from_env(),
            activity: Activity::default(),
        })
    }

    /// The set-ups of a group with one worker for each device. The cores are shared: the first alone builds.
    pub fn for_each(self, devices: Vec<Measures>) -> Vec<Self> {
        let one = |(n, device)| Self { slots: if n == 0 { self.slots } else { 0 }, device, ..self.clone() };
        devices.into_iter().enumerate().map(one).collect()
    }
}

/// Why a worker could not begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// Its folder cannot be used.
    #[error("could not use the worker's folder {}", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The address of the coordinator is unusable.
    #[error(transparent)]
    Address(#[from] ClientError),
    /// The cache cannot be used.
    #[error(transparent)]
    Cache(#[from] BlobError),
    /// Without a compiler and without a device there is nothing that it can do.
    #[error("this worker can do nothing: it is not to measure, and there is {0}, and {1}")]
    Useless(NoCompiler, NoNvrtc),
    /// The coordinator stayed away.
    #[error(transparent)]
    GaveUp(#[from] GaveUp),
}

/// A worker that is ready to register.
pub struct Worker {
    runner: Runner<Executor>,
    _folder: Folder,
}

impl Worker {
    /// A worker for the coordinator at `url`: probes compilers and device, but does not connect yet.
    ///
    /// # Errors
    /// [`WorkerError`], all but `GaveUp`.
    pub async fn connect(config: WorkerConfig, url: &str) -> Result<Self, WorkerError> {
        let client = Client::new(url)?;
        Self::new(config, Arc::new(HttpFarm::new(&client))).await
    }

    /// A worker for any [`Farm`].
    ///
    /// # Errors
    /// [`WorkerError`], all but `Address` and `GaveUp`.
    pub async fn new(config: WorkerConfig, farm: Arc<dyn Farm>) -> Result<Self, WorkerError> {
        let folder = Folder::new(&config.work_dir)?;
        let builds = config.slots > 0;
        // Candidates for a CPU are linked where they are measured.
        let toolchains = if builds || config.device == Measures::Cpu {
            Toolchains::detect(&config.search, &config.child).await
        } else {
            Toolchains::default()
        };
        if let Some(missing) = toolchains.no_compiler() {
            tracing::warn!(%missing, "this worker cannot build for CPUs");
        }
        let (device, gpu) = match config.device {
            Measures::Nothing => (None, None),
            Measures::Cpu => (Some(device::probe_cpu()), None),
            Measures::Gpu(gpu) => (Some(gpu.device.clone()), Some(gpu)),
        };
        let capabilities = Capabilities {
            host: device::host_name(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            slots: config.slots,
            toolchains: if builds { toolchains.advertised() } else { Vec::new() },
            device: device.clone(),
            labels: config.labels,
        };
        if let (None, Some(compiler), Some(nvrtc)) = (&device, toolchains.no_compiler(), toolchains.no_nvrtc()) {
            return Err(WorkerError::Useless(compiler.clone(), nvrtc.clone()));
        }
        let shared = match (capabilities.toolchains.is_empty(), toolchains.native()) {
            (true, _) => vec![],
            (false, None) => vec![WorkKind::Build],
            (false, Some(_)) => vec![WorkKind::Build, WorkKind::Link],
        };
        let exclusive = match (&device, &gpu, toolchains.native()) {
            (None, ..) => vec![],
            (Some(_), None, None) => vec![WorkKind::ModelRace, WorkKind::Profile],
            (Some(_), ..) => vec![WorkKind::Measure, WorkKind::ModelRace, WorkKind::Profile],
        };
        let turns = if gpu.is_some() { Turns::beside } else { Turns::new };
        let cache = BlobCache::new(folder.path().join("blobs"), config.cache_bytes, farm.clone())?;
        let dir = folder.path().join("items");
        fs::create_dir(&dir).map_err(|source| WorkerError::Folder { path: dir.clone(), source })?;
        let vendors = gpu.as_ref().map(|_| config.search.nvrtc.vendors()).unwrap_or_default();
        let mut child = config.child;
        if let Some(gpu) = &gpu {
            // Of all GPUs its children see only this one.
            child.env.push(("CUDA_VISIBLE_DEVICES".into(), gpu.visible_as.clone().into()));
            // An artifact that calls a library, when it is profiled, finds the one that was measured.
            child.env.extend(vendors.iter().map(|(library, path)| (library.variable().into(), path.clone().into())));
        }
        let executor = Executor { toolchains, cache, dir, child, device, vendors, gpu, idle: Mutex::default() };
        let runner = Runner {
            farm,
            executor: Arc::new(executor),
            turns: turns(shared, exclusive, capabilities.slots),
            capabilities,
            activity: config.activity,
            idle_exit: config.idle_exit,
            give_up: config.give_up,
        };
        Ok(Self { runner, _folder: folder })
    }

    /// What it will tell the coordinator.
    pub fn capabilities(&self) -> &Capabilities {
        &self.runner.capabilities
    }

    /// Its compilers, and why there are not more.
    pub fn toolchains(&self) -> &Toolchains {
        &self.runner.executor.toolchains
    }

    /// Registers and works until `shutdown`, or until one of the other reasons to leave. On shutdown running items are
    /// cancelled and go back at once.
    ///
    /// # Errors
    /// [`WorkerError::GaveUp`] when the coordinator stayed away.
    pub async fn run(self, shutdown: CancellationToken) -> Result<Exit, WorkerError> {
        Ok(self.runner.run(&shutdown).await?)
    }

    /// Does one item without a coordinator's lease, for tests and tools; blobs come from and go to the farm.
    ///
    /// # Errors
    /// In words, when this worker could not do it.
    pub async fn execute(&self, spec: &WorkSpec, cancel: &CancellationToken) -> Result<WorkResult, String> {
        self.runner.executor.execute(spec, cancel).await.0.map_err(|e| chain(&e))
    }
}

impl Execute for Executor {
    fn execute<'a>(
        &'a self,
        spec: &'a WorkSpec,
        cancel: &'a CancellationToken,
    ) -> BoxFuture<'a, (Result<WorkResult, ExecError>, Duration)> {
        self.execute(spec, cancel).boxed()
    }
}

/// A folder of this process alone, inside one that all workers of the host may share.
struct Folder {
    dir: TempDir,
    _lock: File,
}

impl Folder {
    fn new(parent: &Path) -> Result<Self, WorkerError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| WorkerError::Folder { path, source }
        };
        fs::create_dir_all(parent).map_err(at(parent))?;
        // One worker at a time tidies up and makes its folder, so that none takes another's for abandoned.
        let gate = File::options().create(true).append(true).open(parent.join(LOCK)).map_err(at(parent))?;
        gate.lock().map_err(at(parent))?;
        remove_abandoned(parent);
        let dir = tempfile::Builder::new().prefix("worker-").tempdir_in(parent).map_err(at(parent))?;
        let lock = File::create(dir.path().join(LOCK)).map_err(at(dir.path()))?;
        lock.lock().map_err(at(dir.path()))?;
        Ok(Self { dir, _lock: lock })
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// Removes the folders of workers that were killed.
fn remove_abandoned(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with("worker-")
            && File::open(path.join(LOCK)).is_ok_and(|lock| lock.try_lock().is_ok())
            && let Err(error) = fs::remove_dir_all(&path)
        {
            tracing::debug!(%error, path = %path.display(), "an abandoned folder could not be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_dead_workers_are_removed_and_those_of_live_ones_kept() {
        let parent = tempfile::tempdir().unwrap();
        let alive = Folder::new(parent.path()).unwrap();
        let dead = parent.path().join("worker-dead");
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join(LOCK), "").unwrap();
        let second = Folder::new(parent.path()).unwrap();
        assert!(!dead.exists() && alive.path().exists() && second.path().exists());
    }
}
