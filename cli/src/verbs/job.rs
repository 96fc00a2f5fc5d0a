use std::process::ExitCode;

use aotfarm_protocol::JobId;
use aotfarm_protocol::endpoints::client;
use clap::Args;

use crate::cli::Cli;
use crate::output::when;
use crate::watch;

/// Show a job, or follow it to its end
#[derive(Debug, Args)]
pub(crate) struct Job {
    /// The job
    id: JobId,
    /// Follow it to its end
    #[arg(short, long)]
    follow: bool,
}

impl Job {
    pub(crate) async fn run(self, cx: &Cli) -> anyhow::Result<ExitCode> {
        let farm = cx.farm().await?;
        let job = farm.client.call(client::JOB.request(self.id)).await?;
        if self.follow && !job.state.is_final() {
            let published = watch::Watch::new(&cx.out, true).follow(&farm.client, self.id).await?;
            if !cx.out.json {
                cx.out.data(watch::outcome(&job.request.name, &published, &cx.out));
            }
            return Ok(ExitCode::SUCCESS);
        }
        if cx.out.json {
            cx.out.json_line(&job);
            return Ok(ExitCode::SUCCESS);
        }
        cx.out.data(format!("{}  {}  {}  submitted {}", job.id, job.request.name, job.state, when(job.submitted_at / 1000)));
        for (kind, c) in &job.items {
            let kind = format!("{kind:?}").to_lowercase();
            cx.out.data(format!("  {kind:8} {}/{} done, {} cached, {} running", c.done, c.total, c.cached, c.running));
        }
        if let Some(published) = &job.published {
            cx.out.data(watch::outcome(&job.request.name, published, &cx.out));
        }
        if let Some(error) = &job.error {
            cx.out.data(format!("failed: {error}"));
            error.hint.iter().for_each(|h| cx.out.data(format!("hint: {h}")));
        }
        Ok(ExitCode::SUCCESS)
    }
}
