//! Opens, runs and ends a coordinator.

use std::future::IntoFuture as _;
use std::sync::Arc;
use std::time::Duration;

use aotfarm_registry::Catalog;
use aotfarm_store::{BlobStore, FileBlobStore, SqliteStore, Store};
use axum::Router;
use axum::serve::ListenerExt as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::{Clock, SystemClock};
use crate::compiler_planner::CompilerPlanner;
use crate::core::{Config, Core, Signals};
use crate::driver;
use crate::error::{Error, chain};
use crate::planner::Planner;
use crate::signal::Signal;

/// How often expired leases are looked for.
const JUDGE_EVERY: Duration = Duration::from_secs(1);
/// How long open requests may take to end at shutdown; long polls are cut off.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// Jobs, work items, leases and the registry, over one folder.
pub struct Coordinator {
    core: Arc<Core>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Coordinator {
    /// Opens a coordinator with the compiler of this build and the machine's clock.
    ///
    /// # Errors
    /// As [`Self::open_with`].
    pub async fn open(config: Config) -> Result<Self, Error> {
        Self::open_with(config, Arc::new(CompilerPlanner), Arc::new(SystemClock)).await
    }

    /// Opens a coordinator with the given compiler and clock. If it drives, unfinished jobs go on at once.
    ///
    /// # Errors
    /// When the folder cannot be written, or the database is damaged or newer than this program.
    pub async fn open_with(config: Config, planner: Arc<dyn Planner>, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let dir = &config.data_dir;
        tokio::fs::create_dir_all(dir).await.map_err(|e| Error::DataDir { path: dir.clone(), reason: e.to_string() })?;
        // Reading all of it takes a while when there is much history: only who writes it does that.
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(dir, config.drive).await?);
        let blobs: Arc<dyn BlobStore> = Arc::new(FileBlobStore::open(dir)?);
        let catalog = Catalog::new(Arc::clone(&store), Arc::clone(&blobs));
        let signals = Signals { work: Signal::new(), progress: Signal::new(), events: Signal::new(), jobs: Signal::new() };
        let started_at = clock.now_ms();
        let core = Arc::new(Core { config, clock, store, blobs, catalog, planner, started_at, signals });
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        if core.config.drive {
            core.grant_grace().await?;
            tasks.spawn(driver::supervise(Arc::clone(&core), stop.clone()));
            tasks.spawn(judge(Arc::clone(&core), stop.clone()));
        }
        tasks.close();
        Ok(Self { core, stop, tasks })
    }

    /// All routes of the API, the registry's included.
    pub fn router(&self) -> Router {
        crate::http::router(Arc::clone(&self.core))
    }

    /// The store that holds all blobs.
    pub fn blobs(&self) -> &Arc<dyn BlobStore> {
        &self.core.blobs
    }

    /// The versions of the models.
    pub fn catalog(&self) -> &Catalog {
        &self.core.catalog
    }

    /// Takes back expired leases now, instead of within a second.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn judge_now(&self) -> Result<(), Error> {
        self.core.judge_silent().await
    }

    /// Answers requests until `shutdown`, then ends in order: nothing is lost by ending at any other moment either.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn serve(self, listener: TcpListener, shutdown: CancellationToken) -> Result<(), Error> {
        let router = self.router();
        let graceful = shutdown.clone();
        // An answer goes out in two writes, head and body: held back for the client's delayed acknowledgement, every one would take 40 ms.
        let listener = listener.tap_io(|stream| {
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "answers on this connection will be slow");
            }
        });
        let serving = axum::serve(listener, router).with_graceful_shutdown(async move { graceful.cancelled().await });
        let cut_off = async {
            shutdown.cancelled().await;
            tokio::time::sleep(SHUTDOWN_GRACE).await;
        };
        let served = tokio::select! {
            served = serving.into_future() => served.map_err(Error::Serve),
            () = cut_off => Ok(()),
        };
        self.close().await;
        served
    }

    /// Ends the background work and closes the database.
    pub async fn close(self) {
        self.stop.cancel();
        self.tasks.wait().await;
        self.core.store.close().await;
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn judge(core: Arc<Core>, stop: CancellationToken) {
    loop {
        if let Err(error) = core.judge_silent().await {
            tracing::error!(error.message = chain(&error), "cannot look for expired leases; trying again");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(JUDGE_EVERY) => {}
        }
    }
}

/// Opens a port to listen on.
///
/// # Errors
/// [`Error::Listen`], with the reason in the system's words, when the address is taken or not this host's.
pub async fn bind(address: &str) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|e| {
        let reason = match e.kind() {
            std::io::ErrorKind::AddrInUse => "the port is in use; choose another one with --listen".to_owned(),
            _ => e.to_string(),
        };
        Error::Listen { address: address.to_owned(), reason }
    })
}
