//! Selection tables with their reasons.

use aotfarm_protocol::{Accuracy, CandidateId, Measurement, Outcome, Target, params_text};

use super::{Admission, select};
use aotfarm_kernels::measure::{allowed, tolerance};
use aotfarm_kernels::task::TuningTask;
use aotfarm_kernels::testing::samples::{first_candidates, linear};
use aotfarm_kernels::{Candidate, reference};

fn measured(seconds: f64, raced: u32) -> Outcome {
    Outcome::Measured(Measurement {
        samples: vec![seconds; 100.min(raced.max(8) as usize)],
        raced,
        error: 1e-7,
        conditions: None,
        algorithm: None,
    })
}

/// No vendor's library may win.
fn ours(error: f64) -> Admission {
    Admission { error, vendor: false }
}

/// Family-independent view of a Selection: which considered candidate each row is, with its verdict.
fn check(outcomes: &[Option<Outcome>], winner: usize, rows: &[(usize, &str)]) {
    let task = linear();
    let considered = first_candidates(&task, outcomes.len());
    let given: Vec<(CandidateId, Outcome)> =
        considered.iter().zip(outcomes).filter_map(|(c, o)| o.clone().map(|o| (c.id, o))).collect();
    let selection = select(&task, &considered, &given, &[], ours(tolerance(&task)));
    let place = |family: &str, params: &str| {
        considered
            .iter()
            .position(|c| c.family == family && params_text(&c.params) == params)
            .expect("a row of a considered candidate")
    };
    assert_eq!(selection.winner.id, considered[winner].id, "the winner");
    let got: Vec<(usize, String)> = selection.rows.iter().map(|r| (place(&r.family, &r.params), r.verdict.clone())).collect();
    let want: Vec<(usize, String)> = rows.iter().map(|(place, verdict)| (*place, (*verdict).to_owned())).collect();
    assert_eq!(got, want);
}

#[test]
fn the_fastest_of_the_race_wins() {
    check(
        &[Some(measured(4.0, 0)), Some(measured(2.0, 100)), Some(measured(1.0, 100)), Some(measured(0.5, 0))],
        2,
        &[
            (2, "fastest"),
            (1, "2.00x slower"),
            (3, "dropped after screening, 0.50x slower"),
            (0, "dropped after screening, 4.00x slower"),
        ],
    );
}

#[test]
fn within_the_noise_the_simpler_wins() {
    check(
        &[Some(measured(1.3, 100)), Some(measured(1.01, 100)), Some(measured(1.0, 100)), Some(measured(1.012, 100))],
        1,
        &[(1, "tie with the fastest, simpler wins"), (2, "tie, simpler wins"), (3, "tie, simpler wins"), (0, "1.30x slower")],
    );
}

#[test]
fn failures_never_win_and_say_why() {
    let wrong = Measurement { samples: vec![0.1; 8], raced: 0, error: f64::NAN, conditions: None, algorithm: None };
    check(
        &[
            Some(measured(1.0, 100)),
            Some(Outcome::Crashed { reason: "signal 11".into() }),
            Some(Outcome::WrongResult { error: Some(0.25), reason: "the output differs".into() }),
            Some(Outcome::Measured(wrong)),
            Some(Outcome::BuildFailed { log: "x.c:1: error: no\nmore".into() }),
            Some(Outcome::TimedOut { limit_ms: 50 }),
            None,
        ],
        0,
        &[
            (0, "fastest"),
            (6, "not measured"),
            (1, "crashed: signal 11"),
            (2, "wrong result: the output differs (relative error 2.5e-1)"),
            (3, "not exact enough: relative error NaN is above 4.0e-6"),
            (4, "does not build: x.c:1: error: no"),
            (5, "took longer than 50 ms"),
        ],
    );
}

#[test]
fn without_measurements_the_first_tuned_family_wins() {
    check(&[None, None, None], 1, &[(1, "chosen without measuring"), (0, "not measured"), (2, "not measured")]);
    // One that is known to fail is passed over.
    let failed = Some(Outcome::Crashed { reason: "signal 4".into() });
    check(&[None, failed, None], 2, &[(2, "chosen without measuring"), (0, "not measured"), (1, "crashed: signal 4")]);
}

#[test]
fn when_all_fail_the_naive_one_is_left() {
    let failed = || Some(Outcome::TimedOut { limit_ms: 1 });
    let task = linear();
    let considered = first_candidates(&task, 3);
    let outcomes: Vec<_> = considered.iter().map(|c| (c.id, failed().expect("an outcome"))).collect();
    let selection = select(&task, &considered, &outcomes, &[], ours(tolerance(&task)));
    assert_eq!(selection.winner.id, reference(&task).id);
    assert_eq!((selection.measured, selection.dropped, selection.failed), (0, 0, 3));
}

#[test]
fn rows_carry_no_samples() {
    let task = linear();
    let considered = first_candidates(&task, 2);
    let selection = select(&task, &considered, &[(considered[1].id, measured(0.25, 10))], &[], ours(tolerance(&task)));
    let Outcome::Measured(m) = &selection.rows[0].outcome else { panic!("measured") };
    assert!(m.samples.is_empty());
    assert_eq!((selection.rows[0].seconds, selection.measured), (Some(0.25), 1));
}

#[test]
fn what_is_right_but_not_exact_enough_does_not_win() {
    let task = linear();
    let considered = first_candidates(&task, 3);
    let with_error =
        |error| Outcome::Measured(Measurement { samples: vec![0.1; 10], raced: 10, error, conditions: None, algorithm: None });
    let outcomes = [(considered[1].id, with_error(1e-6)), (considered[2].id, measured(0.5, 10))];
    let winner = |accuracy| select(&task, &considered, &outcomes, &[], ours(allowed(&task, accuracy))).winner.id;
    assert_eq!(winner(Accuracy::Default), considered[1].id);
    assert_eq!(winner(Accuracy::Strict), considered[2].id);
}

/// A linear layer on a GPU: the naive kernel, then cuBLASLt, then others.
fn with_vendor(seconds: f64, algorithm: Option<i64>) -> (TuningTask, Vec<Candidate>, Vec<(CandidateId, Outcome)>) {
    let task = TuningTask { target: Target::Cuda { sm: 90 }, ..linear() };
    let considered = first_candidates(&task, 3);
    assert!(considered[1].vendor.is_some());
    let Outcome::Measured(of_vendor) = measured(seconds, 100) else { panic!("measured") };
    let of_vendor = Outcome::Measured(Measurement { algorithm, ..of_vendor });
    let outcomes = [measured(4.0, 100), of_vendor, measured(2.0, 100)];
    let outcomes = considered.iter().map(|c| c.id).zip(outcomes).collect();
    (task, considered, outcomes)
}

#[test]
fn a_vendors_library_is_a_comparison_unless_it_is_allowed() {
    let (task, considered, outcomes) = with_vendor(1.0, Some(3));
    let admission = |vendor| Admission { error: tolerance(&task), vendor };
    let selection = select(&task, &considered, &outcomes, &[], admission(false));
    assert_eq!(selection.winner.id, considered[2].id);
    let rows: Vec<_> = selection.rows.iter().map(|r| (r.baseline, r.verdict.as_str())).collect();
    let compared = (true, "vendor library, for comparison only: 0.50x");
    assert_eq!(rows, [(false, "fastest"), compared, (false, "2.00x slower")]);

    let selection = select(&task, &considered, &outcomes, &[], admission(true));
    assert_eq!((selection.winner.family, selection.winner.algorithm()), ("cublaslt@1", Some(3)));
    assert_eq!(selection.winner.vendor, considered[1].vendor);
    assert_ne!(selection.winner.id, considered[1].id, "the algorithm is part of what is linked");
    let rows: Vec<_> = selection.rows.iter().map(|r| (r.baseline, r.verdict.as_str())).collect();
    assert_eq!(rows, [(true, "vendor library: fastest"), (false, "2.00x slower"), (false, "4.00x slower")]);
}

#[test]
fn a_vendors_library_does_not_win_by_the_noise_nor_without_an_algorithm() {
    for (seconds, algorithm) in [(1.99, Some(0)), (1.0, None)] {
        let (task, considered, outcomes) = with_vendor(seconds, algorithm);
        let admission = Admission { error: tolerance(&task), vendor: true };
        let selection = select(&task, &considered, &outcomes, &[], admission);
        assert_eq!(selection.winner.id, considered[2].id, "{seconds} {algorithm:?}");
    }
    // Ours at another size reads the same raw weights, which is no reason to take ours here.
    let (task, considered, outcomes) = with_vendor(1.96 / 1.02, Some(0));
    let admission = Admission { error: tolerance(&task), vendor: true };
    let selection = select(&task, &considered, &outcomes, &considered[2..], admission);
    assert!(selection.winner.vendor.is_some());
}
