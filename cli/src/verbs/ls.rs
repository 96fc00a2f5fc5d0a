use std::process::ExitCode;

use aotfarm_protocol::endpoints::registry;
use clap::Args;

use crate::cli::Cli;
use crate::output::{bytes, table, when};

/// List the models in the registry
#[derive(Debug, Args)]
pub(crate) struct Ls {}

impl Ls {
    pub(crate) async fn run(self, cx: &Cli) -> anyhow::Result<ExitCode> {
        let farm = cx.farm().await?;
        let models = farm.client.call(registry::MODELS.request()).await?;
        if cx.out.json {
            models.iter().for_each(|m| cx.out.json_line(m));
            return Ok(ExitCode::SUCCESS);
        }
        if models.is_empty() {
            cx.out.say("the registry is empty; `aotfarm submit MODEL` publishes the first version");
            return Ok(ExitCode::SUCCESS);
        }
        let rows: Vec<_> = models
            .iter()
            .map(|m| {
                let variants: Vec<_> = m.latest.variants.iter().map(|v| v.target.to_string()).collect();
                let size: u64 = m.latest.variants.iter().map(|v| v.bytes).sum();
                vec![
                    m.name.clone(),
                    format!("v{}", m.latest.version),
                    m.versions.to_string(),
                    variants.join(" "),
                    bytes(size),
                    m.latest.tags.join(" "),
                    when(m.latest.at),
                ]
            })
            .collect();
        cx.out.data(table(&["MODEL", "LATEST", "VERSIONS", "VARIANTS", "SIZE", "TAGS", "PUBLISHED"], &rows, &[2, 4]));
        Ok(ExitCode::SUCCESS)
    }
}
