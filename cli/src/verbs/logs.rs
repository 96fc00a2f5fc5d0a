use std::process::ExitCode;

use aotfarm_protocol::endpoints::client;
use aotfarm_protocol::{EventsQuery, ItemInfo, ItemState, JobEvent, JobId};
use clap::Args;

use crate::cli::Cli;
use crate::output::table;
use crate::watch::autotune;

/// Print what happened in a job: its events and AUTOTUNE tables, or its work items
#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// The job
    id: JobId,
    /// List its work items instead: state, worker, attempts, how often each was completed
    #[arg(long)]
    items: bool,
}

impl Logs {
    pub(crate) async fn run(self, cx: &Cli) -> anyhow::Result<ExitCode> {
        let farm = cx.farm().await?;
        if self.items {
            let items = farm.client.call(client::ITEMS.request(self.id)).await?;
            print_items(cx, &items);
            return Ok(ExitCode::SUCCESS);
        }
        let events = farm.client.call(client::EVENTS.request(self.id, &EventsQuery::default())).await?;
        let start = events.first().map_or(0, |e| e.at);
        for entry in events {
            if cx.out.json {
                cx.out.json_line(&entry);
                continue;
            }
            let text = match entry.event {
                JobEvent::State { state } => state.to_string(),
                JobEvent::Planned { tasks, known, candidates, units } => {
                    format!("planned {tasks} tasks ({known} known), {candidates} candidates, {units} units to build")
                }
                JobEvent::Tuned { table } => autotune(&table, &cx.out),
                JobEvent::Note { message } => format!("note: {message}"),
                JobEvent::Published { published } => format!("published v{}", published.version),
                JobEvent::Failed { error } => format!("failed: {error}"),
                JobEvent::Progress { .. } => continue,
            };
            cx.out.data(format!("{:>8.2} s  {text}", (entry.at - start) as f64 / 1e3));
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn print_items(cx: &Cli, items: &[ItemInfo]) {
    if cx.out.json {
        items.iter().for_each(|i| cx.out.json_line(i));
        return;
    }
    let rows: Vec<_> = items
        .iter()
        .map(|i| {
            vec![
                i.id.0.short(),
                format!("{:?}", i.kind).to_lowercase(),
                format!("{:?}", i.state).to_lowercase(),
                i.attempts.to_string(),
                i.completions.to_string(),
                i.worker.clone().unwrap_or_default(),
                i.run_ms.map_or(String::new(), |ms| format!("{:.2} s", ms as f64 / 1e3)),
                i.label.clone(),
            ]
        })
        .collect();
    cx.out.data(table(&["ITEM", "KIND", "STATE", "ATTEMPTS", "COMPLETED", "WORKER", "RUN", "WHAT"], &rows, &[3, 4, 6]));
    for item in items.iter().filter(|i| i.state == ItemState::Quarantined || !i.log.is_empty()) {
        item.log.iter().for_each(|line| cx.out.data(format!("{}: {line}", item.id.0.short())));
    }
}
