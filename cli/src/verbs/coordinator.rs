use std::net::SocketAddr;
use std::process::ExitCode;

use aotfarm_coordinator::{Config, Coordinator};
use clap::Args;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::cli::Cli;
use crate::failure::{Failure, opening};
use crate::shutdown::stop_on_signal;

/// Run the coordinator and registry as a service
#[derive(Debug, Args)]
#[command(name = "coordinator")]
pub(crate) struct Serve {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:7070", env = "AOTFARM_LISTEN", value_name = "ADDR:PORT")]
    listen: SocketAddr,
}

impl Serve {
    pub(crate) async fn run(self, cx: &Cli) -> anyhow::Result<ExitCode> {
        let data_dir = cx.data_dir()?;
        let listener = TcpListener::bind(self.listen).await.map_err(|e| {
            let failure = Failure::failed(format!("failed to listen on {}: {e}", self.listen));
            match e.kind() {
                std::io::ErrorKind::AddrInUse => {
                    failure.hint("another program has this port; choose one with --listen ADDR:PORT")
                }
                std::io::ErrorKind::PermissionDenied => {
                    failure.hint("ports below 1024 need privileges; choose one with --listen ADDR:PORT")
                }
                _ => failure,
            }
        })?;
        let address = listener.local_addr()?;
        let coordinator = Coordinator::open(Config { data_dir: data_dir.clone(), ..Config::default() })
            .await
            .map_err(|e| opening(&data_dir, e))?;
        cx.out.say(format!("coordinator on http://{address}, data in {}", data_dir.display()));
        if !address.ip().is_loopback() {
            cx.out.say("note: requests are not authenticated; expose this port to trusted networks only");
        }
        let stop = CancellationToken::new();
        stop_on_signal(stop.clone());
        coordinator.serve(listener, stop).await?;
        cx.out.say("coordinator stopped");
        Ok(ExitCode::SUCCESS)
    }
}
