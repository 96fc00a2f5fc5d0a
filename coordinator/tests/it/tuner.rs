//! The search as a pure state machine: what it asks for, whatever the order in which answers come.

use std::collections::BTreeSet;
use std::sync::Arc;

use aotfarm_coordinator::Planner as _;
use aotfarm_coordinator::planner::Blueprint;
use aotfarm_coordinator::tuner::{Action, Cost, Known, KnownOutcomes, Settings, Tally, Tuner};
use aotfarm_protocol::*;
use bytes::Bytes;
use proptest::prelude::*;

use crate::farm::{FakePlanner, TARGET, measured};

fn blueprint(text: &str) -> Arc<dyn Blueprint> {
    blueprint_of(text, false)
}

fn blueprint_of(text: &str, allow_vendor: bool) -> Arc<dyn Blueprint> {
    let request = JobRequest {
        name: "net".to_owned(),
        graph: Digest::of(text),
        targets: vec![TARGET],
        dims: vec![],
        tune: TuneMode::Quick,
        trials: None,
        budget_s: None,
        tune_at: vec![],
        accuracy: Accuracy::Default,
        precision: Default::default(),
        threads: None,
        allow_vendor,
    };
    FakePlanner.plan(Bytes::from(text.to_owned()), &request).unwrap()
}

fn settings(mode: TuneMode) -> Settings {
    Settings { mode, trials: None, budget_ms: 10_000, threads: 2, gpu: false }
}

fn known_as(outcome: Outcome, budget_ms: u64) -> Known {
    Known { outcome, budget_ms, family: "f".to_owned(), params: Params::new() }
}

/// What one search came to.
#[derive(Debug, Default, PartialEq)]
struct Outcomes {
    /// Keys of the Measure items, each asked for once.
    races: BTreeSet<WorkItemId>,
    /// Digests of the units, each asked for once.
    units: BTreeSet<Digest>,
    winners: Vec<CandidateId>,
    tally: Tally,
}

/// Runs a search to its end; `pick` says which of the open items ends next, `refused` which units do not compile, and `stop`
/// after how many items the coordinator dies. What was measured until then goes to `known`.
fn search(
    text: &str,
    known: &mut KnownOutcomes,
    refused: &[&str],
    mut pick: impl FnMut(usize) -> usize,
    stop: usize,
) -> Outcomes {
    let plan = blueprint(text);
    let mut tuner = Tuner::new(Arc::clone(&plan), 0, settings(TuneMode::Quick), Arc::new(known.clone()));
    let (mut open, mut out) = (Vec::new(), Outcomes::default());
    let mut store = |task: TaskKey, outcomes: &[(CandidateId, Outcome)], protocol: &MeasureProtocol| {
        for (id, outcome) in outcomes {
            let entry = known_as(outcome.clone(), protocol.budget_ms);
            known.entry(task).or_default().insert(*id, entry);
        }
    };
    for _ in 0..=stop {
        for action in tuner.advance() {
            match action {
                Action::Build { unit, .. } => {
                    assert!(out.units.insert(unit), "a unit is asked for once");
                    open.push(Action::Build { unit, label: String::new() });
                }
                Action::Measure { task, spec, candidates } => {
                    let key = WorkSpec::Measure { spec: spec.clone(), device: Digest::of("device") }.id();
                    assert!(out.races.insert(key), "a race is asked for once");
                    open.push(Action::Measure { task, spec, candidates });
                }
                Action::RecordBuildFailure { key, candidates, log, protocol, .. } => {
                    let outcomes: Vec<_> = candidates.iter().map(|c| (c.id, Outcome::BuildFailed { log: log.clone() })).collect();
                    store(key, &outcomes, &protocol);
                }
                Action::Decided { .. } | Action::Note(_) => {}
            }
        }
        if open.is_empty() {
            break;
        }
        let next = pick(open.len()) % open.len();
        match open.swap_remove(next) {
            Action::Build { unit, .. } => {
                let bad = refused.iter().any(|family| plan.source(unit).contains(family));
                let end = if bad { Err("error: no".to_owned()) } else { Ok(unit) };
                tuner.built(unit, Some(end), Cost::default());
            }
            Action::Measure { task, spec, .. } => {
                let outcomes = measured(&spec);
                store(spec.task, &outcomes, &spec.protocol);
                tuner.measured(task, Some(outcomes), Cost::default());
            }
            other => unreachable!("{other:?} is not open"),
        }
    }
    out.winners = tuner.contests().iter().map(|c| c.candidates[0].id).collect();
    out.tally = tuner.tally();
    assert!(stop < usize::MAX - 1 || tuner.is_done());
    out
}

/// The last two specs are kin.
const GRAPH: &str = "specs=4 points=3 candidates=11 weights=a";
const FOREVER: usize = usize::MAX - 1;

fn first(_: usize) -> usize {
    0
}

#[test]
fn later_points_race_the_best_of_the_point_before() {
    let mut known = KnownOutcomes::new();
    let out = search("specs=1 points=2 candidates=31 weights=a", &mut known, &[], first, FOREVER);
    assert_eq!((out.races.len(), out.units.len(), out.winners.len()), (2, 3, 2));
    assert_eq!(out.tally, Tally { planned: 31 + 28, measured: 31 + 28, ..Tally::default() });
}

#[test]
fn of_kin_one_is_searched_and_the_other_races_its_best() {
    let plan = blueprint("specs=4 points=2 candidates=31 weights=a");
    let mut tuner = Tuner::new(Arc::clone(&plan), 0, settings(TuneMode::Quick), Arc::default());
    // (spec, point, candidates, milliseconds) of the races, in the order in which they are asked for.
    let mut races = Vec::new();
    loop {
        let actions = tuner.advance();
        if actions.is_empty() {
            break;
        }
        for action in actions {
            match action {
                Action::Build { unit, .. } => tuner.built(unit, Some(Ok(unit)), Cost::default()),
                Action::Measure { task, spec, candidates } => {
                    races.push((task.spec, task.point, candidates.len(), spec.protocol.budget_ms));
                    tuner.measured(task, Some(measured(&spec)), Cost::default());
                }
                _ => {}
            }
        }
    }
    assert!(tuner.is_done());
    let of = |spec: usize| races.iter().filter(|r| r.0 == spec).map(|r| (r.2, r.3)).collect::<Vec<_>>();
    assert_eq!(of(1), [(31, 1250), (28, 1250)], "no kin: its own search, and a quarter of the time of each point");
    assert_eq!(of(2), [(31, 1875), (28, 1875)], "the leader has half of its follower's time");
    assert_eq!(of(3), [(28, 625), (16, 625)], "the follower races the leader's best, at each point");
    let at = |spec: usize, point: usize| races.iter().position(|r| (r.0, r.1) == (spec, point)).unwrap();
    assert!(at(2, 0) < at(3, 0) && at(2, 1) < at(3, 1));
}

#[test]
fn a_vendors_library_is_no_reference_and_takes_nobodys_place() {
    let plan = blueprint("specs=1 points=2 candidates=11 weights=a flops=1e13 vendor=1");
    let settings = Settings { gpu: true, ..settings(TuneMode::Quick) };
    let mut tuner = Tuner::new(Arc::clone(&plan), 0, settings, Arc::default());
    let mut references = Vec::new();
    loop {
        let actions = tuner.advance();
        if actions.is_empty() {
            break;
        }
        for action in actions {
            match action {
                Action::Build { unit, .. } => tuner.built(unit, Some(Ok(unit)), Cost::default()),
                Action::Measure { task, spec, .. } => {
                    references.push(spec.reference.label.clone());
                    tuner.measured(task, Some(measured(&spec)), Cost::default());
                }
                _ => {}
            }
        }
    }
    // Fast kernels win, so the second size is checked against the best of the others.
    assert_eq!(references, ["naive@1 0", "slow@1 3"]);
}

#[test]
fn a_vendors_library_wins_only_in_a_job_that_allows_it_and_by_an_algorithm() {
    for allowed in [false, true] {
        let plan = blueprint_of("specs=1 points=1 candidates=5 weights=a vendor=1", allowed);
        let settings = Settings { gpu: true, ..settings(TuneMode::Quick) };
        let mut tuner = Tuner::new(Arc::clone(&plan), 0, settings, Arc::default());
        while !tuner.is_done() {
            for action in tuner.advance() {
                match action {
                    Action::Build { unit, .. } => tuner.built(unit, Some(Ok(unit)), Cost::default()),
                    Action::Measure { task, spec, .. } => tuner.measured(task, Some(measured(&spec)), Cost::default()),
                    _ => {}
                }
            }
        }
        let [contest] = &tuner.contests()[..] else { panic!("one task") };
        let winner = &contest.candidates[0];
        let expected = if allowed { ("vendor@1", Some(&3)) } else { ("fast@1", None) };
        assert_eq!((winner.family.as_str(), winner.params.get("algorithm")), expected);
    }
}

#[test]
fn what_is_known_is_not_asked_for_again() {
    let mut known = KnownOutcomes::new();
    let cold = search(GRAPH, &mut known, &[], first, FOREVER);
    let warm = search(GRAPH, &mut known, &[], first, FOREVER);
    assert_eq!((warm.races.len(), warm.units.len()), (0, 0));
    assert_eq!((warm.winners, warm.tally), (cold.winners, cold.tally));
}

#[test]
fn a_cut_off_candidate_is_tried_again_only_with_a_larger_budget() {
    let mut known = KnownOutcomes::new();
    search("specs=1 points=1 candidates=5 weights=a", &mut known, &[], first, FOREVER);
    let cut_off = |known: &mut KnownOutcomes, budget_ms: u64| {
        let candidate = known.values_mut().next().unwrap().values_mut().next().unwrap();
        *candidate = known_as(Outcome::Unsupported { reason: "budget".to_owned() }, budget_ms);
    };
    cut_off(&mut known, 10_000);
    assert_eq!(search("specs=1 points=1 candidates=5 weights=a", &mut known, &[], first, FOREVER).races.len(), 0);
    cut_off(&mut known, 9_999);
    assert_eq!(search("specs=1 points=1 candidates=5 weights=a", &mut known, &[], first, FOREVER).races.len(), 1);
}

#[test]
fn nothing_is_measured_without_tuning() {
    let plan = blueprint(GRAPH);
    let mut tuner = Tuner::new(plan, 0, settings(TuneMode::None), Arc::default());
    assert_eq!(tuner.advance(), []);
    assert!(tuner.is_done());
    assert_eq!((tuner.contests().len(), tuner.tally()), (12, Tally::default()));
}

#[test]
fn given_up_items_leave_the_naive_kernel() {
    let plan = blueprint("specs=1 points=1 candidates=3 weights=a");
    let mut tuner = Tuner::new(Arc::clone(&plan), 0, settings(TuneMode::Quick), Arc::default());
    for action in tuner.advance() {
        let Action::Build { unit, .. } = action else { panic!("{action:?}") };
        tuner.built(unit, Some(Ok(unit)), Cost::default());
    }
    let [Action::Measure { task, .. }] = &tuner.advance()[..] else { panic!("a race") };
    tuner.measured(*task, None, Cost::default());
    let actions = tuner.advance();
    assert!(actions.iter().any(|a| matches!(a, Action::Note(text) if text.contains("naive kernel is taken"))), "{actions:?}");
    assert_eq!(tuner.contests()[0].candidates, [plan.reference(*task)]);
    assert_eq!(tuner.tally(), Tally { planned: 3, given_up: 3, ..Tally::default() });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// The order in which items end changes neither what is asked for nor what wins.
    #[test]
    fn order_of_arrival_does_not_matter(picks in prop::collection::vec(any::<u16>(), 64), refuse in any::<bool>()) {
        let refused: &[&str] = if refuse { &["slow@1"] } else { &[] };
        let expected = search(GRAPH, &mut KnownOutcomes::new(), refused, first, FOREVER);
        let mut picks = picks.into_iter().cycle();
        let got = search(GRAPH, &mut KnownOutcomes::new(), refused, |_| usize::from(picks.next().unwrap()), FOREVER);
        prop_assert_eq!(got, expected);
    }

    /// A coordinator that dies after any number of results asks, when it is back, only for races that it would have asked for
    /// anyway, and for none that is done; the winners are the same.
    #[test]
    fn a_search_resumes_where_it_was(stop in 0usize..20, refuse in any::<bool>()) {
        let refused: &[&str] = if refuse { &["slow@1"] } else { &[] };
        let whole = search(GRAPH, &mut KnownOutcomes::new(), refused, first, FOREVER);
        let mut known = KnownOutcomes::new();
        let before = search(GRAPH, &mut known, refused, first, stop);
        let after = search(GRAPH, &mut known, refused, first, FOREVER);
        prop_assert!(before.races.is_subset(&whole.races));
        prop_assert!(after.races.is_subset(&whole.races), "a race under another key");
        prop_assert_eq!(&after.winners, &whole.winners);
        prop_assert_eq!(after.tally, whole.tally);
    }
}
