use std::process::ExitCode;

use aotfarm_protocol::{Reference, Selector};
use clap::Args;

use crate::cli::Cli;
use crate::failure::Failure;
use crate::output::{milliseconds, table, when};
use crate::watch::point;

/// How fast each version of a model is, on each device
#[derive(Debug, Args)]
pub(crate) struct History {
    /// The model's name
    name: Reference,
}

impl History {
    pub(crate) async fn run(self, cx: &Cli) -> anyhow::Result<ExitCode> {
        if self.name.selector != Selector::Latest {
            return Err(Failure::input(format!("history is of a model, not of one version: `{}`", self.name))
                .hint(format!("try `aotfarm history {0}` or `aotfarm show {1}`", self.name.name, self.name))
                .into());
        }
        let farm = cx.farm().await?;
        let history = farm.history(&self.name.name).await?;
        if cx.out.json {
            history.iter().for_each(|e| cx.out.json_line(e));
            return Ok(ExitCode::SUCCESS);
        }
        let mut rows = Vec::new();
        for entry in &history {
            let profiles = entry.profiles.iter().filter(|p| self.name.target.is_none_or(|t| t == p.target));
            for p in profiles {
                rows.push(vec![
                    format!("v{}", entry.version.version),
                    p.target.to_string(),
                    point(p),
                    p.threads.to_string(),
                    milliseconds(p.latency.p10),
                    milliseconds(p.latency.p50),
                    milliseconds(p.latency.p90),
                    p.samples.len().to_string(),
                    p.device.name.clone(),
                    p.tools.iter().map(|(k, v)| format!("{k} {v}")).collect::<Vec<_>>().join(", "),
                    when(p.at),
                ]);
            }
        }
        let header = ["VERSION", "TARGET", "POINT", "THREADS", "P10", "P50", "P90", "N", "DEVICE", "TOOLS", "WHEN"];
        cx.out.data(table(&header, &rows, &[3, 4, 5, 6, 7]));
        Ok(ExitCode::SUCCESS)
    }
}
