//! What is linked: the selected kernels, and what they need.

use aotfarm_ir::Bindings;
use aotfarm_kernels::{Candidate, Needs, TuningTask};

/// What was selected for one spec of a plan.
#[derive(Debug, Clone)]
pub struct SpecChoice {
    /// Index into [`Plan::specs`].
    pub spec: usize,
    /// The winner at each tuned point, at least one.
    pub by_point: Vec<(Bindings, Candidate)>,
}

/// Tells what a candidate needs at the given dims; `None` when its family is unknown.
pub(super) type NeedsOf<'a> = dyn Fn(&TuningTask, &Candidate, &[i64]) -> Option<Needs> + 'a;
