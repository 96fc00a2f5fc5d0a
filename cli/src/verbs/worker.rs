use std::path::PathBuf;
use std::process::ExitCode;

use aotfarm_worker::{Exit, Worker, WorkerConfig};
use clap::Args;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::failure::Failure;
use crate::verbs::coordinator::stop_on_signal;

/// Run a worker: builds for any target its compilers know, measures on this host
#[derive(Debug, Args)]
#[command(name = "worker")]
pub(crate) struct Work {
    /// Build items at once [default: the cores]
    #[arg(long, value_name = "N")]
    slots: Option<u32>,
    /// Only build; do not measure on this host
    #[arg(long)]
    no_device: bool,
    /// A label, for people (may be repeated)
    #[arg(long, value_name = "TEXT")]
    label: Vec<String>,
    /// Leave when there has been nothing to do for this long, as in 60s
    #[arg(long, value_name = "TIME")]
    idle_exit: Option<humantime::Duration>,
    /// Where to keep blobs and build files [default: a temporary folder]
    #[arg(long, value_name = "DIR")]
    work_dir: Option<PathBuf>,
}

impl Work {
    pub(crate) async fn run(self, cx: &Context) -> anyhow::Result<ExitCode> {
        let Some(url) = &cx.global.coordinator else {
            return Err(Failure::input("a worker needs a coordinator")
                .hint("pass --coordinator URL or set AOTFARM_COORDINATOR")
                .into());
        };
        let defaults = WorkerConfig::new(self.work_dir.unwrap_or_else(|| std::env::temp_dir().join("aotfarm-worker")))?;
        let config = WorkerConfig {
            slots: self.slots.unwrap_or(defaults.slots),
            device: !self.no_device,
            labels: self.label,
            idle_exit: self.idle_exit.map(Into::into),
            ..defaults
        };
        let stop = CancellationToken::new();
        stop_on_signal(stop.clone());
        cx.out.say(format!("worker for {url} with {} build slots", config.slots));
        let worker = Worker::connect(config, url).await?;
        if let Some(missing) = worker.no_compiler() {
            cx.out.say(format!("note: this worker does not build: {missing}"));
        }
        let exit = worker.run(stop).await?;
        cx.out.say(match exit {
            Exit::Shutdown => "worker stopped",
            Exit::Idle => "worker left: there was no work for as long as --idle-exit says",
            Exit::Drained => "worker left: the coordinator drained it",
        });
        Ok(ExitCode::SUCCESS)
    }
}
