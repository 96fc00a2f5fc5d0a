//! The full search: every candidate at every point, timed more often, for those who have minutes.

use super::definition::{Opening, Strategy, Timing};
use super::{quick_on_cpu, quick_on_gpu};
use crate::effort::Effort;
use crate::view::View;

/// Five minutes, a guess at what a user waits for who wants the best.
const BUDGET_MS: u64 = 300_000;

/// Runs and the factor are guesses: more of each than in the quick search.
pub(super) const ON_CPU: Strategy = Strategy {
    timing: Timing { race_runs: 200, drop_factor: 3.0, ..quick_on_cpu::TIMING },
    fits_race_to_budget: true,
    naive_reference_flops: quick_on_cpu::NAIVE_REFERENCE_FLOPS,
    ..ON_GPU
};

/// Likewise.
pub(super) const ON_GPU: Strategy = Strategy {
    budget_ms: BUDGET_MS,
    efforts: &[(0.0, Effort::ALL)],
    timing: Timing { race_runs: 50, drop_factor: 2.0, ..quick_on_gpu::TIMING },
    measures: true,
    has_representatives: false,
    fits_race_to_budget: false,
    naive_reference_flops: quick_on_gpu::NAIVE_REFERENCE_FLOPS,
    open,
    refine: None,
};

fn open(view: &View<'_>) -> Opening {
    Opening::new(view.guesses())
}
