use std::process::ExitCode;

use aotfarm_protocol::JobsQuery;
use aotfarm_protocol::endpoints::client;
use clap::Args;

use crate::cli::Cli;
use crate::output::{table, when};

/// List jobs, newest first
#[derive(Debug, Args)]
pub(crate) struct Jobs {
    /// How many
    #[arg(short = 'n', long, default_value_t = 20)]
    limit: u32,
}

impl Jobs {
    pub(crate) async fn run(self, cx: &Cli) -> anyhow::Result<ExitCode> {
        let farm = cx.farm().await?;
        let jobs = farm.client.call(client::JOBS.request(&JobsQuery { limit: Some(self.limit) })).await?;
        if cx.out.json {
            jobs.iter().for_each(|j| cx.out.json_line(j));
            return Ok(ExitCode::SUCCESS);
        }
        let rows: Vec<_> = jobs
            .iter()
            .map(|j| {
                let version = j.published.as_ref().map_or(String::new(), |p| format!("{}@v{}", j.request.name, p.version));
                let took = j.finished_at.map_or(String::new(), |end| format!("{:.1} s", (end - j.submitted_at) as f64 / 1e3));
                vec![j.id.to_string(), j.request.name.clone(), j.state.to_string(), version, when(j.submitted_at / 1000), took]
            })
            .collect();
        cx.out.data(table(&["JOB", "MODEL", "STATE", "VERSION", "SUBMITTED", "TOOK"], &rows, &[5]));
        Ok(ExitCode::SUCCESS)
    }
}
