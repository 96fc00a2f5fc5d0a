//! What a search asks for, whatever the order in which answers come.

use std::collections::BTreeSet;
use std::sync::Arc;

use aotfarm_protocol::*;
use aotfarm_search::testing::{Script, measured};
use aotfarm_search::{
    Action, CandidateOutline, Cost, Known, KnownOutcomes, Search, SearchSpace as _, Settings, Similar, Tally, TaskRef,
};
use proptest::prelude::*;

pub(crate) fn script(text: &str) -> Arc<Script> {
    script_of(text, false)
}

fn script_of(text: &str, allow_vendor: bool) -> Arc<Script> {
    Arc::new(Script::parse(text, &[Target::Cpu(CpuIsa::X86_64V3)], allow_vendor).unwrap())
}

fn begin(plan: &Arc<Script>, settings: Settings, known: KnownOutcomes) -> Search {
    Search::new(Arc::clone(plan) as _, 0, settings, Arc::new(known), Similar::new())
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

/// Runs a search to its end; `pick` says which of the open items ends next, `refused` which units
/// do not compile, and `stop` after how many items the coordinator dies. What was measured until
/// then goes to `known`.
fn run(text: &str, known: &mut KnownOutcomes, refused: &[&str], mut pick: impl FnMut(usize) -> usize, stop: usize) -> Outcomes {
    let plan = script(text);
    let mut search = begin(&plan, settings(TuneMode::Quick), known.clone());
    let (mut open, mut out) = (Vec::new(), Outcomes::default());
    let mut store =
        |task: TaskKey, candidates: &[CandidateOutline], outcomes: &[(CandidateId, Outcome)], protocol: &MeasureProtocol| {
            for (id, outcome) in outcomes {
                let of = candidates.iter().find(|c| c.id == *id).expect("one that was asked for");
                let (family, params) = (of.family.clone(), of.params.clone());
                let entry = Known { family, params, ..known_as(outcome.clone(), protocol.budget_ms) };
                known.entry(task).or_default().insert(*id, entry);
            }
        };
    for _ in 0..=stop {
        for action in search.advance() {
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
                    store(key, &candidates, &outcomes, &protocol);
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
                search.built(unit, Some(end), Cost::default());
            }
            Action::Measure { task, spec, candidates } => {
                let outcomes = measured(&spec);
                store(spec.task, &candidates, &outcomes, &spec.protocol);
                search.measured(task, Some(outcomes), Cost::default());
            }
            other => unreachable!("{other:?} is not open"),
        }
    }
    out.winners = search.finalists().iter().map(|f| f.candidates[0].id).collect();
    out.tally = search.tally();
    assert!(stop < usize::MAX - 1 || search.is_done());
    out
}

/// The last two specs are of one core.
const GRAPH: &str = "specs=4 points=3 candidates=11 weights=a";
const FOREVER: usize = usize::MAX - 1;

fn first(_: usize) -> usize {
    0
}

#[test]
fn later_points_race_the_best_of_the_point_before_then_the_best_units() {
    let mut known = KnownOutcomes::new();
    let out = run("specs=1 points=2 candidates=31 weights=a", &mut known, &[], first, FOREVER);
    assert_eq!((out.races.len(), out.units.len(), out.winners.len()), (3, 3, 2));
    // Of 16 fast ones, 14 slow ones and the naive one: six fast ones and the first slow one, then
    // the other fast ones.
    assert_eq!(out.tally, Tally { planned: 31 + 7 + 10, measured: 31 + 7 + 10, ..Tally::default() });
}

/// Runs a search whose items all end well; of each race the task and the labels of its candidates.
fn races(mut search: Search) -> Vec<(TaskRef, Vec<String>)> {
    let mut races = Vec::new();
    while !search.is_done() {
        for action in search.advance() {
            match action {
                Action::Build { unit, .. } => search.built(unit, Some(Ok(unit)), Cost::default()),
                Action::Measure { task, spec, .. } => {
                    races.push((task, spec.candidates.iter().map(|c| c.label.clone()).collect()));
                    search.measured(task, Some(measured(&spec)), Cost::default());
                }
                _ => {}
            }
        }
    }
    races
}

#[test]
fn a_task_begins_with_what_is_fast_in_similar_ones_and_few_others() {
    let plan = script("specs=1 points=2 candidates=31 weights=a");
    let task = |point: usize| plan.variants()[0].specs[0].tasks[point].key;
    let of = |family: &str, n: i64| (family.to_owned(), Params::from([("n".to_owned(), n)]));
    let search = |similar: Similar| Search::new(Arc::clone(&plan) as _, 0, settings(TuneMode::Quick), Arc::default(), similar);
    // One unit can be fast in many ways: it is begun once. What is not legal here is passed over.
    let similar = [(task(0), vec![of("fast@1", 30), of("fast@1", 28), of("gone@1", 1), of("slow@1", 29)])];
    let begun = races(search(similar.into()));
    assert_eq!(begun[0].1, ["fast@1 30", "slow@1 29", "fast@1 1"], "a race of two is none");
    assert_eq!(races(search(Similar::new()))[0].1.len(), 31, "nothing is similar");
    // Then the rest of the unit that is fast, with the two best.
    assert_eq!(begun[1].1.len(), 16);
}

#[test]
fn what_was_searched_before_is_not_searched_wider() {
    let text = "specs=1 points=1 candidates=31 weights=a";
    let mut known = KnownOutcomes::new();
    run(text, &mut known, &[], first, FOREVER);
    let asked = |known: &KnownOutcomes, trials| {
        let settings = Settings { trials, ..settings(TuneMode::Quick) };
        let races = races(begin(&script(text), settings, known.clone()));
        races.into_iter().flat_map(|(_, labels)| labels).collect::<Vec<_>>()
    };
    let forget = |known: &mut KnownOutcomes, which: &dyn Fn(&Known) -> bool| {
        known.values_mut().next().unwrap().retain(|_, k| !which(k));
    };
    forget(&mut known, &|k| k.family == "slow@1" && k.params["n"] > 3);
    assert_eq!(asked(&known, None), [""; 0], "the other slow ones are no reason to measure");
    assert_eq!(asked(&known, Some(30)).len(), 13 + 2, "whoever asks for more gets it, with the two best");
    forget(&mut known, &|k| k.family == "slow@1");
    assert_eq!(asked(&known, None).len(), 14 + 2, "a family that is new is tried");
}

#[test]
fn of_a_core_one_is_searched_and_the_other_races_its_best() {
    let plan = script("specs=4 points=2 candidates=31 weights=a");
    let mut search = begin(&plan, settings(TuneMode::Quick), KnownOutcomes::new());
    // (spec, point, candidates, milliseconds) of the races, in the order in which they are asked
    // for.
    let mut races = Vec::new();
    loop {
        let actions = search.advance();
        if actions.is_empty() {
            break;
        }
        for action in actions {
            match action {
                Action::Build { unit, .. } => search.built(unit, Some(Ok(unit)), Cost::default()),
                Action::Measure { task, spec, candidates } => {
                    races.push((task.spec, task.point, candidates.len(), spec.protocol.budget_ms));
                    search.measured(task, Some(measured(&spec)), Cost::default());
                }
                _ => {}
            }
        }
    }
    assert!(search.is_done());
    let of = |spec: usize| races.iter().filter(|r| r.0 == spec).map(|r| (r.2, r.3)).collect::<Vec<_>>();
    let own =
        "a core of its own: its own search, and a quarter of the time of each point, half of it for the units that are refined";
    assert_eq!(of(1), [(31, 625), (7, 625), (12, 625)], "{own}");
    assert_eq!(of(2), [(31, 937), (7, 937), (12, 937)], "the representative has half of its member's time");
    assert_eq!(of(3), [(28, 625), (16, 625)], "the member races the best of its representative, at each point");
    let at = |spec: usize, point: usize| races.iter().position(|r| (r.0, r.1) == (spec, point)).unwrap();
    assert!(at(2, 0) < at(3, 0) && at(2, 1) < at(3, 1));
}

#[test]
fn a_vendors_library_is_no_reference_and_takes_nobodys_place() {
    let plan = script("specs=1 points=2 candidates=11 weights=a flops=1e13 vendor=1");
    let settings = Settings { gpu: true, ..settings(TuneMode::Quick) };
    let mut search = begin(&plan, settings, KnownOutcomes::new());
    let mut references = Vec::new();
    loop {
        let actions = search.advance();
        if actions.is_empty() {
            break;
        }
        for action in actions {
            match action {
                Action::Build { unit, .. } => search.built(unit, Some(Ok(unit)), Cost::default()),
                Action::Measure { task, spec, .. } => {
                    references.push(spec.reference.label.clone());
                    search.measured(task, Some(measured(&spec)), Cost::default());
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
        let plan = script_of("specs=1 points=1 candidates=5 weights=a vendor=1", allowed);
        let settings = Settings { gpu: true, ..settings(TuneMode::Quick) };
        let mut search = begin(&plan, settings, KnownOutcomes::new());
        while !search.is_done() {
            for action in search.advance() {
                match action {
                    Action::Build { unit, .. } => search.built(unit, Some(Ok(unit)), Cost::default()),
                    Action::Measure { task, spec, .. } => search.measured(task, Some(measured(&spec)), Cost::default()),
                    _ => {}
                }
            }
        }
        let [finalists] = &search.finalists()[..] else { panic!("one task") };
        let winner = &finalists.candidates[0];
        let expected = if allowed { ("vendor@1", Some(&3)) } else { ("fast@1", None) };
        assert_eq!((winner.family.as_str(), winner.params.get("algorithm")), expected);
    }
}

#[test]
fn what_is_known_is_not_asked_for_again() {
    let mut known = KnownOutcomes::new();
    let cold = run(GRAPH, &mut known, &[], first, FOREVER);
    let warm = run(GRAPH, &mut known, &[], first, FOREVER);
    assert_eq!((warm.races.len(), warm.units.len()), (0, 0));
    assert_eq!((warm.winners, warm.tally), (cold.winners, cold.tally));
}

#[test]
fn a_cut_off_candidate_is_tried_again_only_with_a_much_larger_budget() {
    let mut known = KnownOutcomes::new();
    run("specs=1 points=1 candidates=5 weights=a", &mut known, &[], first, FOREVER);
    let cut_off = |known: &mut KnownOutcomes, budget_ms: u64| {
        let candidate = known.values_mut().next().unwrap().values_mut().next().unwrap();
        *candidate = known_as(Outcome::Unsupported { reason: "budget".to_owned() }, budget_ms);
    };
    // Half of the time is for the first race; three times what there was is worth another try.
    cut_off(&mut known, 1_667);
    assert_eq!(run("specs=1 points=1 candidates=5 weights=a", &mut known, &[], first, FOREVER).races.len(), 0);
    cut_off(&mut known, 1_666);
    assert_eq!(run("specs=1 points=1 candidates=5 weights=a", &mut known, &[], first, FOREVER).races.len(), 1);
}

#[test]
fn nothing_is_measured_without_tuning() {
    let plan = script(GRAPH);
    let mut search = begin(&plan, settings(TuneMode::None), KnownOutcomes::new());
    assert_eq!(search.advance(), []);
    assert!(search.is_done());
    assert_eq!((search.finalists().len(), search.tally()), (12, Tally::default()));
}

#[test]
fn given_up_items_leave_the_naive_kernel() {
    let plan = script("specs=1 points=1 candidates=3 weights=a");
    let mut search = begin(&plan, settings(TuneMode::Quick), KnownOutcomes::new());
    for action in search.advance() {
        let Action::Build { unit, .. } = action else { panic!("{action:?}") };
        search.built(unit, Some(Ok(unit)), Cost::default());
    }
    let [Action::Measure { task, .. }] = &search.advance()[..] else { panic!("a race") };
    search.measured(*task, None, Cost::default());
    let actions = search.advance();
    assert!(actions.iter().any(|a| matches!(a, Action::Note(text) if text.contains("naive kernel is taken"))), "{actions:?}");
    assert_eq!(search.finalists()[0].candidates, [plan.reference(*task)]);
    assert_eq!(search.tally(), Tally { planned: 3, given_up: 3, ..Tally::default() });
}

#[test]
fn what_the_budget_cuts_off_is_no_failure_but_something_must_be_measured() {
    let tally = Tally { planned: 749, measured: 361, unsupported: 388, ..Tally::default() };
    assert!(tally.tells_enough() && Tally::default().tells_enough());
    assert!(!Tally { planned: 10, unsupported: 10, ..Tally::default() }.tells_enough());
    assert!(Tally { planned: 10, measured: 5, faulty: 5, ..Tally::default() }.tells_enough());
    assert!(!Tally { planned: 10, measured: 4, faulty: 3, given_up: 3, ..Tally::default() }.tells_enough());
    assert!(!Tally { planned: 20, measured: 4, unsupported: 10, build_failed: 6, ..Tally::default() }.tells_enough());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// The order in which items end changes neither what is asked for nor what wins.
    #[test]
    fn order_of_arrival_does_not_matter(picks in prop::collection::vec(any::<u16>(), 64), refuse in any::<bool>()) {
        let refused: &[&str] = if refuse { &["slow@1"] } else { &[] };
        let expected = run(GRAPH, &mut KnownOutcomes::new(), refused, first, FOREVER);
        let mut picks = picks.into_iter().cycle();
        let got = run(GRAPH, &mut KnownOutcomes::new(), refused, |_| usize::from(picks.next().unwrap()), FOREVER);
        prop_assert_eq!(got, expected);
    }

    /// A coordinator that dies after any number of results asks, when it is back, only for races
    /// that it would have asked for anyway, and for none that is done; the winners are the same.
    #[test]
    fn a_search_resumes_where_it_was(stop in 0usize..20, refuse in any::<bool>()) {
        let refused: &[&str] = if refuse { &["slow@1"] } else { &[] };
        let whole = run(GRAPH, &mut KnownOutcomes::new(), refused, first, FOREVER);
        let mut known = KnownOutcomes::new();
        let before = run(GRAPH, &mut known, refused, first, stop);
        let after = run(GRAPH, &mut known, refused, first, FOREVER);
        prop_assert!(before.races.is_subset(&whole.races));
        prop_assert!(after.races.is_subset(&whole.races), "a race under another key");
        prop_assert_eq!(&after.winners, &whole.winners);
        prop_assert_eq!(after.tally, whole.tally);
    }
}
