//! Follows a job: progress while it runs, the AUTOTUNE tables, and what it came to.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;

use aotfarm_client::Client;
use aotfarm_protocol::endpoints::client as api;
use aotfarm_protocol::{
    AutotuneTable, Count, DeviceKind, EventsQuery, JobEvent, JobId, JobState, Outcome, Profile, Published, WorkKind,
};
use indicatif::{ProgressBar, ProgressStyle};

use crate::failure::Failure;
use crate::output::{Output, bytes, milliseconds};

/// Rows of an AUTOTUNE table that are printed; the rest is counted.
const TABLE_ROWS: usize = 8;

/// How long the coordinator may wait for news before it answers that there are none, in milliseconds.
const WAIT_MS: u64 = 10_000;

/// Prints the events of a job until it ends; with `--json`, one event per line on stdout.
pub(crate) struct Watch<'a> {
    out: &'a Output,
    bar: Option<ProgressBar>,
    /// Whether to print every AUTOTUNE table.
    tables: bool,
    tally: Cell<Tally>,
}

/// What the tables add up to.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    tables: usize,
    considered: u32,
    measured: u32,
    dropped: u32,
    /// Refused by the compiler, crashed, hung, or wrong.
    failed: usize,
    measure_s: f64,
}

impl<'a> Watch<'a> {
    pub(crate) fn new(out: &'a Output, tables: bool) -> Self {
        let bar = out.live.then(|| {
            let style = ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}").expect("the template is constant");
            let bar = ProgressBar::new_spinner().with_style(style);
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Self { out, bar, tables, tally: Cell::default() }
    }

    /// Follows `job` to its end. A job that failed or was cancelled is an error.
    pub(crate) async fn follow(&self, client: &Client, job: JobId) -> anyhow::Result<Published> {
        let mut after = 0;
        loop {
            let events = client.call(api::EVENTS.request(job, &EventsQuery { after, wait_ms: WAIT_MS })).await?;
            for entry in events {
                after = entry.seq;
                if self.out.json {
                    self.out.json_line(&entry);
                }
                if let Some(end) = self.event(job, entry.event) {
                    self.end();
                    return end;
                }
            }
        }
    }

    fn event(&self, job: JobId, event: JobEvent) -> Option<anyhow::Result<Published>> {
        match event {
            JobEvent::State { state: JobState::Cancelled } => {
                return Some(Err(Failure::failed(format!("job {job} was cancelled")).into()));
            }
            JobEvent::State { state } => {
                let tally = self.tally.get();
                if state == JobState::Linking && tally.tables > 0 {
                    self.say(&tally.text());
                }
                self.status(&format!("{state}"));
            }
            JobEvent::Planned { tasks, known, candidates, units } => {
                self.say(&format!("planned {tasks} tasks ({known} known), {candidates} candidates, {units} units to build"));
            }
            JobEvent::Progress { items, running, eta_s } => self.status(&progress(&items, &running, eta_s)),
            JobEvent::Tuned { table } => {
                self.tally.set(self.tally.get().plus(&table));
                if self.tables {
                    self.say(&autotune(&table, self.out));
                }
            }
            JobEvent::Note { message } => self.say(&format!("note: {message}")),
            JobEvent::Published { published } => return Some(Ok(*published)),
            JobEvent::Failed { error } => return Some(Err(anyhow::Error::from(error).context(format!("job {job} failed")))),
        }
        None
    }

    fn status(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(text.to_owned());
        }
    }

    fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| self.out.say(text)),
            None => self.out.say(text),
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Tally {
    fn plus(self, table: &AutotuneTable) -> Self {
        let failed = |o: &Outcome| !matches!(o, Outcome::Measured(_) | Outcome::Unsupported { .. });
        Self {
            tables: self.tables + 1,
            considered: self.considered + table.considered,
            measured: self.measured + table.measured,
            dropped: self.dropped + table.dropped,
            failed: self.failed + table.rows.iter().filter(|row| failed(&row.outcome)).count(),
            measure_s: self.measure_s + table.measure_s,
        }
    }

    fn text(self) -> String {
        let Self { tables, considered, measured, dropped, failed, measure_s } = self;
        format!(
            "tuned {tables} tasks: {considered} candidates considered, {measured} measured to the end and {dropped} dropped early in {measure_s:.1} s, {failed} failed"
        )
    }
}

/// `build 40/64  measure 12/22  on w1: conv…  about 12 s to go`
fn progress(items: &BTreeMap<WorkKind, Count>, running: &[(String, String)], eta_s: Option<f64>) -> String {
    let word = |kind| match kind {
        WorkKind::Build => "build",
        WorkKind::Measure => "measure",
        WorkKind::Link => "link",
        WorkKind::ModelRace => "race",
        WorkKind::Profile => "profile",
    };
    let mut text: Vec<String> = items.iter().map(|(kind, c)| format!("{} {}/{}", word(*kind), c.done, c.total)).collect();
    if let Some(eta) = eta_s {
        text.push(format!("about {eta:.0} s to go"));
    }
    if let Some((host, what)) = running.last() {
        text.push(format!("{host}: {what}"));
    }
    text.join("  ")
}

/// The table that PyTorch users know.
pub(crate) fn autotune(table: &AutotuneTable, out: &Output) -> String {
    let best = table.rows.iter().find_map(|r| r.seconds);
    let name = |row: &aotfarm_protocol::AutotuneRow| row.family.split('@').next().unwrap_or_default().to_owned();
    let (first, rest) = table.rows.split_at(table.rows.len().min(TABLE_ROWS));
    let shown: Vec<_> = first.iter().chain(rest.iter().filter(|r| r.baseline)).collect();
    let families = shown.iter().map(|r| name(r).len()).max().unwrap_or(0);
    let params = shown.iter().map(|r| r.params.len()).max().unwrap_or(0);
    let mut lines = vec![out.bold(format!("AUTOTUNE {}", table.title))];
    for row in &shown {
        let figure = match (row.seconds, best) {
            (Some(s), Some(best)) => format!("{:>11} {:>6.1}%", milliseconds(s), 100.0 * best / s),
            _ => format!("{:>11}       -", outcome_word(&row.outcome)),
        };
        let verdict =
            if row.seconds.is_some() && row.verdict == "fastest" { String::new() } else { out.dim(format!("  {}", row.verdict)) };
        lines.push(format!("  {:families$}  {:params$}  {figure}{verdict}", name(row), row.params));
    }
    if table.rows.len() > shown.len() {
        lines.push(out.dim(format!("  … and {} more", table.rows.len() - shown.len())));
    }
    lines.push(format!(
        "built {} units on {} worker{} in {:.1} s, measured {} of {} candidates in {:.1} s, {} dropped early",
        table.built,
        table.workers,
        if table.workers == 1 { "" } else { "s" },
        table.build_s,
        table.measured,
        table.considered,
        table.measure_s,
        table.dropped
    ));
    lines.join("\n")
}

fn outcome_word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Measured(_) => "measured",
        Outcome::BuildFailed { .. } => "no build",
        Outcome::Crashed { .. } => "crashed",
        Outcome::TimedOut { .. } => "timed out",
        Outcome::WrongResult { .. } => "wrong",
        Outcome::Unsupported { .. } => "skipped",
    }
}

/// What a job came to: version, digest, size, and latency against the version before.
pub(crate) fn outcome(name: &str, published: &Published, out: &Output) -> String {
    let Published { version, index, variants, existed, profiles, previous } = published;
    let note = if *existed { " (already published; nothing was rebuilt)" } else { "" };
    let mut lines = vec![format!("{} {index}{note}", out.bold(format!("{name}@v{version}")))];
    for (target, digest, size) in variants {
        lines.push(format!("  {target}  {}  {}", bytes(*size), digest.short()));
        for profile in profiles.iter().filter(|p| p.target == *target) {
            lines.push(format!("    {}", latency(profile, previous)));
        }
    }
    lines.join("\n")
}

fn latency(profile: &Profile, previous: &[Profile]) -> String {
    let fingerprint = profile.device.fingerprint();
    let same = |p: &&Profile| {
        p.point == profile.point
            && p.threads == profile.threads
            && p.target == profile.target
            && p.device.fingerprint() == fingerprint
    };
    let change = previous.iter().find(same).map_or(String::new(), |before| {
        format!("  {:.2}x the version before ({})", profile.latency.p50 / before.latency.p50, milliseconds(before.latency.p50))
    });
    format!(
        "{}{}  {} (p10 {}, p90 {}){change}",
        point(profile),
        threads(profile),
        milliseconds(profile.latency.p50),
        milliseconds(profile.latency.p10),
        milliseconds(profile.latency.p90)
    )
}

/// `  2 threads`; nothing for a GPU, where it has no meaning.
pub(crate) fn threads(profile: &Profile) -> String {
    match profile.device.kind {
        DeviceKind::Cpu => format!("  {} threads", profile.threads),
        DeviceKind::Cuda => String::new(),
    }
}

/// [`sizes`] of a profile.
pub(crate) fn point(profile: &Profile) -> String {
    sizes(&profile.point)
}

/// `batch=8`, or `static` for a model without symbolic dimensions.
pub(crate) fn sizes(point: &BTreeMap<String, i64>) -> String {
    if point.is_empty() {
        return "static".to_owned();
    }
    point.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" ")
}
