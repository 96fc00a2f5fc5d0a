use std::process::ExitCode;

use anyhow::Context as _;
use aotfarm_protocol::{HistoryEntry, LIBRARIES_ANNOTATION, Manifest, PRECISION_ANNOTATION, Reference, UNTESTED_ANNOTATION};
use clap::Args;

use crate::cli::Cli;
use crate::output::{bytes, milliseconds, when};
use crate::watch::{point, threads};

/// Show one version: variants, digests, tags, performance
#[derive(Debug, Args)]
pub(crate) struct Show {
    /// NAME[@vN|@TAG|@sha256:HEX]
    reference: Reference,
}

impl Show {
    pub(crate) async fn run(self, cx: &Cli) -> anyhow::Result<ExitCode> {
        let farm = cx.farm().await?;
        let version = farm.resolve(&self.reference).await?;
        let history = farm.history(&version.name).await?;
        let profiles = history.into_iter().find(|e| e.version.version == version.version).map(|e| e.profiles).unwrap_or_default();
        if cx.out.json {
            cx.out.json_line(&HistoryEntry { version, profiles });
            return Ok(ExitCode::SUCCESS);
        }
        cx.out.data(format!("{}@v{}", version.name, version.version));
        cx.out.data(format!("  published  {}", when(version.at)));
        cx.out.data(format!("  index      {}", version.index));
        cx.out.data(format!("  graph      {}", version.graph));
        if !version.tags.is_empty() {
            cx.out.data(format!("  tags       {}", version.tags.join(" ")));
        }
        for variant in &version.variants {
            let manifest = farm.client.blob(variant.manifest).await?;
            let manifest: Manifest = serde_json::from_slice(&manifest).context("failed to read the variant's manifest")?;
            let note = |key: &str| manifest.annotations.get(key).map(String::as_str);
            let precision = note(PRECISION_ANNOTATION).map_or(String::new(), |p| format!("  {p}"));
            cx.out.data(format!("  {}  {}{precision}", variant.target, bytes(variant.bytes)));
            if let Some(why) = note(UNTESTED_ANNOTATION) {
                cx.out.data(format!("    its kernels were not measured: {why}"));
            }
            if let Some(libraries) = note(LIBRARIES_ANNOTATION) {
                cx.out.data(format!("    needs {libraries} where it runs (it was submitted with --allow-vendor)"));
            }
            cx.out.data(format!("    artifact {}", variant.artifact));
            for p in profiles.iter().filter(|p| p.target == variant.target) {
                let q = &p.latency;
                cx.out.data(format!(
                    "    {:10}{}  p50 {}  p10 {}  p90 {}  n {}  {}",
                    point(p),
                    threads(p),
                    milliseconds(q.p50),
                    milliseconds(q.p10),
                    milliseconds(q.p90),
                    p.samples.len(),
                    p.device.name
                ));
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
