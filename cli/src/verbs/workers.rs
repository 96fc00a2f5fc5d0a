use std::process::ExitCode;

use aotfarm_protocol::endpoints::client;
use clap::Args;

use crate::cli::Cli;
use crate::output::table;

/// List the workers of the farm
#[derive(Debug, Args)]
pub(crate) struct Workers {}

impl Workers {
    pub(crate) async fn run(self, cx: &Cli) -> anyhow::Result<ExitCode> {
        let farm = cx.farm().await?;
        let workers = farm.client.call(client::WORKERS.request()).await?;
        if cx.out.json {
            workers.iter().for_each(|w| cx.out.json_line(w));
            return Ok(ExitCode::SUCCESS);
        }
        let rows: Vec<_> = workers
            .iter()
            .map(|w| {
                let c = &w.capabilities;
                let builds: Vec<_> = c.toolchains.iter().map(|t| t.id.as_str()).collect();
                vec![
                    w.id.to_string(),
                    c.host.clone(),
                    format!("{:?}", w.state).to_lowercase(),
                    c.slots.to_string(),
                    w.running.to_string(),
                    w.done.to_string(),
                    w.failed.to_string(),
                    format!("{:.1} s", w.silent_ms as f64 / 1e3),
                    builds.join(" "),
                    c.device.as_ref().map_or(String::new(), |d| format!("{} ({} cores)", d.name, d.cores)),
                ]
            })
            .collect();
        let header = ["WORKER", "HOST", "STATE", "SLOTS", "RUNNING", "DONE", "FAILED", "HEARD", "BUILDS WITH", "MEASURES ON"];
        cx.out.data(table(&header, &rows, &[3, 4, 5, 6, 7]));
        Ok(ExitCode::SUCCESS)
    }
}
