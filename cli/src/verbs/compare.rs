use std::process::ExitCode;

use aotfarm_protocol::{HistoryEntry, Reference};
use aotfarm_registry::compare::{self, Verdict};
use clap::Args;

use crate::cli::{Cli, Farm};
use crate::failure::Failure;
use crate::output::{milliseconds, table};
use crate::watch::sizes;

/// Compare two versions, end to end and per layer, with the statistical verdict
#[derive(Debug, Args)]
pub(crate) struct Compare {
    /// The version to compare against
    before: Reference,
    /// The version that is compared
    after: Reference,
    /// Print every layer, not only those that differ
    #[arg(long)]
    all: bool,
}

impl Compare {
    pub(crate) async fn run(self, cx: &Cli) -> anyhow::Result<ExitCode> {
        let farm = cx.farm().await?;
        let before = entry(&farm, &self.before).await?;
        let after = entry(&farm, &self.after).await?;
        let comparison = compare::compare(&before.profiles, &after.profiles);
        if comparison.is_empty() {
            return Err(Failure::failed(format!(
                "{} and {} have no profile of the same target, device, sizes and threads",
                self.before, self.after
            ))
            .hint(format!("`aotfarm history {}` lists what was profiled", before.version.name))
            .into());
        }
        if cx.out.json {
            comparison.iter().for_each(|c| cx.out.json_line(c));
            return Ok(ExitCode::SUCCESS);
        }
        for c in &comparison {
            cx.out.data(format!("{}  {} threads  {}  {}", sizes(&c.point), c.threads, c.target, c.device));
            let d = &c.difference;
            let interval = d.interval.map_or(String::new(), |(low, high)| format!(" [{low:.3}, {high:.3}]"));
            let end_to_end =
                [milliseconds(c.old.p50), milliseconds(c.new.p50), format!("{:.3}{interval}", d.ratio), d.verdict.to_string()];
            let mut rows = vec![[vec!["end to end".to_owned()], end_to_end.to_vec()].concat()];
            let differs = |s: &&compare::StepComparison| self.all || s.verdict.is_none_or(|v| v != Verdict::NoDifference);
            for s in c.steps.iter().filter(differs) {
                let time = |t: Option<f64>| t.map_or("-".to_owned(), milliseconds);
                let ratio = s.ratio.map_or("-".to_owned(), |r| format!("{r:.3}"));
                let verdict = s.verdict.map_or("in one only".to_owned(), |v| v.to_string());
                rows.push(vec![s.label.clone(), time(s.old), time(s.new), ratio, verdict]);
            }
            let header = ["", &self.before.to_string(), &self.after.to_string(), "AFTER/BEFORE [95 %]", "VERDICT"];
            cx.out.data(table(&header, &rows, &[1, 2, 3]));
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn entry(farm: &Farm, reference: &Reference) -> anyhow::Result<HistoryEntry> {
    let version = farm.resolve(reference).await?;
    let history = farm.history(&version.name).await?;
    let profiles = history.into_iter().find(|e| e.version.version == version.version).map(|e| e.profiles).unwrap_or_default();
    let profiles = profiles.into_iter().filter(|p| reference.target.is_none_or(|t| t == p.target)).collect();
    Ok(HistoryEntry { version, profiles })
}
