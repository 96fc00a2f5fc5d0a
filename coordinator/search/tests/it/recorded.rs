//! All that searches ask for, in order, as snapshots: what a change of the search's structure must
//! leave as it is.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::Arc;

use aotfarm_protocol::*;
use aotfarm_search::{
    Action, CandidateOutline, Cost, Known, KnownOutcomes, Overview, Search, SearchSpace as _, Settings, Similar,
};

use crate::search::script;

/// Uneven work, a shared core, more units than a search builds, and candidates that are legal at
/// small sizes only.
const CPU: &str = "specs=5 points=3 candidates=60 units=24 work=uneven flops=8e8 legal=shrinking weights=a";
/// Likewise with tools for measuring and a vendor's library.
const GPU: &str = "specs=5 points=3 candidates=30 work=uneven flops=8e11 legal=shrinking tools=gpu vendor=1 weights=a";

fn settings(mode: TuneMode, gpu: bool) -> Settings {
    Settings { mode, trials: None, budget_ms: 20_000, threads: 2, gpu }
}

/// A made-up outcome of every kind, other ones at other points.
fn outcome(spec: usize, point: usize, label: &str) -> Outcome {
    let (family, n) = label.split_once(' ').unwrap();
    let n: usize = n.parse().unwrap();
    let measured = |samples: Vec<f64>, raced, error| {
        Outcome::Measured(Measurement { samples, raced, error, conditions: None, algorithm: None })
    };
    let base = if family == "naive@1" { 1e-2 } else { 1e-4 } * f64::from(1 << point);
    let seconds = base * (1.0 + ((7 * n + 3 * point + 5 * spec) % 10) as f64 / 10.0);
    match n + 31 * point {
        k if k % 11 == 7 => Outcome::Crashed { reason: "signal 11".to_owned() },
        k if k % 13 == 5 => measured(vec![seconds; 8], 0, 0.0),
        k if k % 17 == 9 => Outcome::Unsupported { reason: "the budget ended".to_owned() },
        k if k % 19 == 4 => measured(vec![seconds / 2.0; 20], 20, 1e-3),
        k if k % 23 == 6 => measured(vec![], 0, 0.0),
        _ => measured(vec![seconds; 20], 20, 0.0),
    }
}

fn brief(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Measured(m) => format!("{:.0} us x{} raced {}", m.rank_seconds() * 1e6, m.samples.len(), m.raced),
        Outcome::BuildFailed { .. } => "build failed".to_owned(),
        Outcome::Crashed { .. } => "crashed".to_owned(),
        Outcome::TimedOut { .. } => "timed out".to_owned(),
        Outcome::WrongResult { .. } => "wrong".to_owned(),
        Outcome::Unsupported { reason } => reason.clone(),
    }
}

fn listed<'a>(labels: impl IntoIterator<Item = &'a String>) -> String {
    labels.into_iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// Runs a search to its end and writes down what it asked for; items end in the order in which they
/// were asked for, one before each look. Outcomes go to `known`.
fn record(text: &str, settings: Settings, known: &mut KnownOutcomes, similar: Similar) -> String {
    let plan = script(text);
    let mut search = Search::new(Arc::clone(&plan) as _, 0, settings, Arc::new(known.clone()), similar);
    let mut log = String::new();
    let mut open = VecDeque::new();
    let label = |c: &CandidateOutline| format!("{} {}", c.family, c.params["n"]);
    let mut first = true;
    loop {
        for action in search.advance() {
            match &action {
                Action::Build { unit, label } => writeln!(log, "build {}: {label}", plan.source(*unit)).unwrap(),
                Action::Measure { task, spec, .. } => {
                    let MeasureProtocol {
                        version,
                        threads,
                        screen_runs,
                        race_runs,
                        race_width,
                        drop_factor,
                        rotate_bytes,
                        budget_ms,
                        ..
                    } = spec.protocol;
                    let protocol = format!(
                        "v{version} {threads} threads, {screen_runs} + {race_runs} runs of {race_width}, drop {drop_factor}, {rotate_bytes} B, {budget_ms} ms, {} ms, {} B",
                        spec.protocol.run_limit_ms, spec.protocol.memory_limit
                    );
                    let labels = listed(spec.candidates.iter().map(|c| &c.label));
                    let (at, tools, seed) = ((task.spec, task.point), spec.tools.is_some(), spec.seed);
                    writeln!(log, "measure {at:?} {} tools {tools} seed {seed:x}\n  by {protocol}", spec.title).unwrap();
                    writeln!(log, "  against {}: {labels}", spec.reference.label).unwrap();
                }
                Action::RecordBuildFailure { key, candidates, unit, log: said, protocol } => {
                    let labels: Vec<String> = candidates.iter().map(label).collect();
                    let unit = plan.source(*unit);
                    writeln!(log, "record {} of {}: {said}, {} ms: {}", unit, key.0.short(), protocol.budget_ms, listed(&labels))
                        .unwrap();
                }
                Action::Decided { table } => {
                    let AutotuneTable { title, considered, built, measured, dropped, build_s, measure_s, workers, rows } =
                        &**table;
                    writeln!(log, "decided {title}: {considered} considered, {built} built in {build_s} s, {measured} measured in {measure_s} s, {dropped} dropped, {workers} workers").unwrap();
                    for row in rows {
                        writeln!(log, "  {} {}: {}; {}", row.family, row.params, brief(&row.outcome), row.verdict).unwrap();
                    }
                }
                Action::Note(text) => writeln!(log, "note {text}").unwrap(),
            }
            if matches!(action, Action::Build { .. } | Action::Measure { .. }) {
                open.push_back(action);
            }
        }
        if first {
            let Overview { tasks, known, candidates, units } = search.overview();
            writeln!(log, "overview {:?}", (tasks, known, candidates, units)).unwrap();
            first = false;
        }
        let Some(next) = open.pop_front() else { break };
        match next {
            Action::Build { unit, .. } => {
                let source = plan.source(unit);
                let cost = Cost { seconds: 0.25, worker: Some(format!("worker-{}", source.len() % 3)) };
                let end = match source.as_str() {
                    s if s.contains("slow@1") && s.ends_with("unit 5") => Some(Err("error: no".to_owned())),
                    s if s.contains("fast@1 for spec 1") && s.ends_with("unit 2") => None,
                    _ => Some(Ok(unit)),
                };
                search.built(unit, end, cost);
            }
            Action::Measure { task, spec, candidates } => {
                let outcomes: Vec<_> =
                    spec.candidates.iter().map(|c| (c.candidate, outcome(task.spec, task.point, &c.label))).collect();
                let given_up = (task.spec, task.point) == (4, 1);
                for ((id, outcome), candidate) in outcomes.iter().zip(candidates).filter(|_| !given_up) {
                    let (family, params) = (candidate.family, candidate.params);
                    let entry = Known { outcome: outcome.clone(), budget_ms: spec.protocol.budget_ms, family, params };
                    known.entry(spec.task).or_default().insert(*id, entry);
                }
                let cost = Cost { seconds: 1.5, worker: Some("measurer".to_owned()) };
                search.measured(task, (!given_up).then_some(outcomes), cost);
                writeln!(log, "remaining {} ms", search.remaining_ms()).unwrap();
            }
            other => unreachable!("{other:?} is not open"),
        }
    }
    assert!(search.is_done());
    writeln!(log, "{:?}", search.tally()).unwrap();
    for finalists in search.finalists() {
        let labels: Vec<String> = finalists.candidates.iter().map(label).collect();
        writeln!(log, "finalists of {} at {:?}: {}", finalists.title, finalists.point, listed(&labels)).unwrap();
    }
    log
}

#[test]
fn quick_on_a_cpu() {
    let mut known = KnownOutcomes::new();
    insta::assert_snapshot!("quick_on_a_cpu", record(CPU, settings(TuneMode::Quick, false), &mut known, Similar::new()));
    // What was measured a second time, with some of it forgotten.
    for task in known.values_mut() {
        task.retain(|_, k| k.params["n"] % 5 != 1);
    }
    let again = record(CPU, settings(TuneMode::Quick, false), &mut known.clone(), Similar::new());
    insta::assert_snapshot!("quick_on_a_cpu_again", again);
    let trials = Settings { trials: Some(20), ..settings(TuneMode::Quick, false) };
    insta::assert_snapshot!("quick_on_a_cpu_with_trials", record(CPU, trials, &mut known, Similar::new()));
}

#[test]
fn quick_on_a_cpu_after_similar_tasks() {
    let tasks = script(CPU).variants()[0].specs.iter().flat_map(|s| s.tasks.iter().map(|t| t.key)).collect::<Vec<_>>();
    let of = |family: &str, n: i64| (family.to_owned(), Params::from([("n".to_owned(), n)]));
    let points = [
        of("fast@1", 48),
        of("slow@1", 31),
        of("naive@1", 0),
        of("slow@1", 7),
        of("fast@1", 24),
        of("fast@1", 2),
        of("gone@1", 1),
        of("fast@1", 40),
        of("fast@1", 42),
    ];
    let similar = tasks.into_iter().step_by(2).map(|key| (key, points.to_vec())).collect();
    insta::assert_snapshot!(record(CPU, settings(TuneMode::Quick, false), &mut KnownOutcomes::new(), similar));
}

#[test]
fn quick_on_a_gpu() {
    let mut known = KnownOutcomes::new();
    insta::assert_snapshot!("quick_on_a_gpu", record(GPU, settings(TuneMode::Quick, true), &mut known, Similar::new()));
    for task in known.values_mut() {
        task.retain(|_, k| k.params["n"] % 5 != 1);
    }
    insta::assert_snapshot!("quick_on_a_gpu_again", record(GPU, settings(TuneMode::Quick, true), &mut known, Similar::new()));
}

#[test]
fn full() {
    let cpu = CPU.replace("candidates=60", "candidates=20");
    insta::assert_snapshot!(
        "full_on_a_cpu",
        record(&cpu, settings(TuneMode::Full, false), &mut KnownOutcomes::new(), Similar::new())
    );
    let gpu = GPU.replace("candidates=30", "candidates=15");
    insta::assert_snapshot!(
        "full_on_a_gpu",
        record(&gpu, settings(TuneMode::Full, true), &mut KnownOutcomes::new(), Similar::new())
    );
}

#[test]
fn none() {
    let mut known = KnownOutcomes::new();
    insta::assert_snapshot!("none", record(CPU, settings(TuneMode::None, false), &mut known, Similar::new()));
    record(CPU, settings(TuneMode::Quick, false), &mut known, Similar::new());
    insta::assert_snapshot!("none_of_what_is_known", record(CPU, settings(TuneMode::None, false), &mut known, Similar::new()));
    insta::assert_snapshot!(
        "none_on_a_gpu",
        record(GPU, settings(TuneMode::None, true), &mut KnownOutcomes::new(), Similar::new())
    );
}
