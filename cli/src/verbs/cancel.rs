use std::process::ExitCode;

use aotfarm_protocol::JobId;
use aotfarm_protocol::endpoints::client;
use clap::Args;

use crate::cli::Cli;

/// Cancel a job
#[derive(Debug, Args)]
pub(crate) struct Cancel {
    /// The job
    id: JobId,
}

impl Cancel {
    pub(crate) async fn run(self, cx: &Cli) -> anyhow::Result<ExitCode> {
        let farm = cx.farm().await?;
        let job = farm.client.call(client::CANCEL.request(self.id)).await?;
        if cx.out.json {
            cx.out.json_line(&job);
        } else {
            cx.out.data(format!("{} {}", job.id, job.state));
        }
        Ok(ExitCode::SUCCESS)
    }
}
