//! The embedded farm: coordinator and workers (one for each device) inside this command, over the
//! data folder. They speak HTTP on the loopback interface, so that there is one code path.
//!
//! One process at a time drives the jobs of a data folder: the one that holds the lock on
//! `farm.lock`, which also holds the URL of its farm. A second `submit` reads the URL there and
//! uses that farm, which stays until no job is active.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use aotfarm_client::Client;
use aotfarm_coordinator::{Config, Coordinator};
use aotfarm_protocol::JobsQuery;
use aotfarm_protocol::endpoints::{admin, client};
use aotfarm_worker::{Measures, Worker, WorkerConfig};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::failure::{DATA_DIR_HINT, Failure, opening};
use crate::output::Output;
use crate::shutdown;

/// What the embedded coordinator is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Serve what is stored.
    Store,
    /// Drive jobs, with workers.
    Farm,
}

/// A running embedded farm, or a link to the one that another process runs.
pub(crate) struct Embedded {
    pub(crate) url: String,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
    /// Held while this process drives the jobs of the folder.
    lock: Option<File>,
}

impl Embedded {
    /// Starts an embedded farm over `data_dir`.
    pub(crate) async fn start(data_dir: &Path, role: Role, out: &Output) -> anyhow::Result<Self> {
        create_data_dir(data_dir)?;
        let lock = if role == Role::Farm {
            match claim(data_dir).await? {
                Claim::Mine(file) => Some(file),
                Claim::Theirs(url) => {
                    out.say(format!("using the farm that another aotfarm process runs on {}", data_dir.display()));
                    return Ok(Self { url, stop: CancellationToken::new(), tasks: Vec::new(), lock: None });
                }
            }
        } else {
            None
        };
        let config = Config { data_dir: data_dir.to_owned(), drive: role == Role::Farm, ..Config::default() };
        let coordinator = Coordinator::open(config).await.map_err(|e| opening(data_dir, e))?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("failed to open a loopback port")?;
        let url = format!("http://{}", listener.local_addr()?);
        let stop = CancellationToken::new();
        let mut tasks = Vec::new();
        let serve = coordinator.serve(listener, stop.clone());
        tasks.push(spawn("coordinator", async move { serve.await.map_err(anyhow::Error::from) }));
        if let Some(mut file) = lock.as_ref() {
            file.set_len(0)?;
            file.rewind()?;
            file.write_all(url.as_bytes())?;
            let config = WorkerConfig::new(data_dir.join("worker"))?;
            let devices = Measures::all(&config.child).await;
            for config in config.for_each(devices) {
                let worker = Worker::connect(config, &url).await?;
                // Without one nothing can be linked, whatever it is for.
                if let Some(missing) = worker.toolchains().no_compiler() {
                    return Err(Failure::failed(format!("{missing}")).into());
                }
                let stopped = stop.clone();
                tasks.push(spawn("worker", async move { Ok(worker.run(stopped).await.map(|_| ())?) }));
            }
        }
        Ok(Self { url, stop, tasks, lock })
    }

    /// Ends the farm in order: waits for jobs that other processes submitted to it, then stops.
    pub(crate) async fn finish(mut self, out: &Output) -> anyhow::Result<()> {
        if self.lock.is_some() {
            let farm = Client::new(&self.url)?;
            let mut told = false;
            loop {
                let jobs = farm.call(client::JOBS.request(&JobsQuery { limit: Some(100) })).await?;
                let active = jobs.iter().filter(|j| !j.state.is_final()).count();
                if active == 0 {
                    break;
                }
                if !told {
                    out.say(format!("waiting for {active} other job(s) that use this farm"));
                    told = true;
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
        self.stop.cancel();
        for task in self.tasks.drain(..) {
            // A task that does not end in time is ended with the process.
            let _ = tokio::time::timeout(shutdown::GRACE, task).await;
        }
        Ok(())
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn spawn(role: &'static str, task: impl Future<Output = anyhow::Result<()>> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(async move {
        if let Err(error) = task.await {
            tracing::error!(role, error = format!("{error:#}"), "the embedded {role} ended");
        }
    })
}

fn create_data_dir(dir: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir).map_err(|e| {
        Failure::storage(format!("failed to create the data folder {}: {e}", dir.display())).hint(DATA_DIR_HINT).into()
    })
}

enum Claim {
    Mine(File),
    Theirs(String),
}

/// Takes the folder's lock, or finds the farm that has it.
async fn claim(dir: &Path) -> anyhow::Result<Claim> {
    let path: PathBuf = dir.join("farm.lock");
    for _ in 0..50 {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|e| Failure::storage(format!("failed to open {}: {e}", path.display())).hint(DATA_DIR_HINT))?;
        match file.try_lock() {
            Ok(()) => return Ok(Claim::Mine(file)),
            Err(TryLockError::WouldBlock) => {
                let mut url = String::new();
                file.read_to_string(&mut url)?;
                let up = async { Client::new(&url).ok()?.call(admin::HEALTH.request()).await.ok() };
                if !url.is_empty() && tokio::time::timeout(Duration::from_secs(1), up).await.is_ok_and(|h| h.is_some()) {
                    return Ok(Claim::Theirs(url));
                }
                // It is starting or ending.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(TryLockError::Error(e)) => return Err(e).with_context(|| format!("failed to lock {}", path.display())),
        }
    }
    Err(Failure::storage(format!("another aotfarm process holds {} and does not answer", path.display()))
        .hint("end that process, or use another folder with --data-dir")
        .into())
}
