//! The quick search on a GPU. Sizes of a dimension share units, but not the kernels that are fast,
//! because a GPU is filled by other kernels at each size: so each is searched anew. Times scatter
//! little, so races are short.

use super::definition::{Opening, Strategy, Timing};
use super::field::add;
use super::member;
use crate::effort::Effort;
use crate::view::View;

/// How many of the fastest at the point before race at the next one. A guess.
const KEPT: usize = 3;

/// From which share of the work on how many candidates are listed. Measured: with these ResNet-18
/// tunes from cold within a minute on one GPU and 16 cores, nearly all of it compiling
/// (docs/performance.md).
pub(super) const EFFORTS: &[(f64, Effort)] = &[(0.01, Effort::of(22, usize::MAX)), (0.0, Effort::of(10, usize::MAX))];

/// Guesses. A graph of launches holds several runs, so few samples are enough.
pub(super) const TIMING: Timing = Timing {
    screen_runs: 3,
    race_runs: 20,
    race_width: 6,
    drop_factor: 1.3,
    rotate_bytes: None,
    run_limit_ms: 10_000,
    memory_limit: 64 << 30,
};

/// A guess: a second of the naive kernel for each run.
pub(super) const NAIVE_REFERENCE_FLOPS: f64 = 1e12;

/// 25 s, more than on a CPU: more candidates race at more sizes. A guess.
pub(super) const BUDGET_MS: u64 = 25_000;

pub(super) const STRATEGY: Strategy = Strategy {
    budget_ms: BUDGET_MS,
    efforts: EFFORTS,
    timing: TIMING,
    measures: true,
    has_representatives: true,
    fits_race_to_budget: false,
    naive_reference_flops: NAIVE_REFERENCE_FLOPS,
    open,
    refine: None,
};

fn open(view: &View<'_>) -> Opening {
    if let Some(representative) = view.representative() {
        return Opening::new(member::open(view, representative));
    }
    let mut guesses = view.guesses();
    if let Some(smaller) = view.smaller() {
        for fast in view.legal(smaller).take(KEPT) {
            add(&mut guesses, fast, usize::MAX);
        }
    }
    Opening::new(guesses)
}
