//! The candidates of a task, out of all families.

use std::collections::{HashMap, HashSet};

use aotfarm_protocol::{Params, TuneMode};

use crate::candidate::{Candidate, RenderedUnit};
use crate::families::{self, FAMILIES};
use crate::family::{CandidateFamily, FULL_TRIALS, Needs, QUICK_TRIALS, compiled};
use crate::task::TuningTask;
use crate::title::title;

/// The candidates of a task: the naive one, then the families' points in turn, so that any prefix
/// holds each family's best guesses. At most `trials` (else the mode's default) besides the naive
/// one and a vendor's library. `TuneMode::None` gives those of the quick search, because known
/// records of any of them may be used. Empty when no family supports the task.
pub fn candidates(task: &TuningTask, mode: TuneMode, trials: Option<u32>) -> Vec<Candidate> {
    let limit = trials.map_or(if mode == TuneMode::Full { FULL_TRIALS } else { QUICK_TRIALS }, |n| n as usize);
    let mut families = FAMILIES.iter().filter(|f| f.supports(task).is_ok());
    let Some(naive) = families.next() else { return Vec::new() };
    let mut result = vec![naive_point(*naive, task)];
    let baseline = families::baseline(task).filter(|_| mode != TuneMode::None);
    let limit = limit + usize::from(baseline.is_some());
    result.extend(baseline);
    let mut queues: Vec<_> = families.map(|f| (*f, f.enumerate(task).into_iter(), HashMap::new())).collect();
    let mut seen = HashSet::new();
    let key = task.key();
    while result.len() <= limit && !queues.is_empty() {
        queues.retain_mut(|(family, points, units)| {
            let Some(params) = points.next() else { return false };
            let unit: &RenderedUnit =
                units.entry(compiled(*family, &params)).or_insert_with(|| RenderedUnit::new(*family, task, &params));
            let new = Candidate::of_unit(*family, task, key, params, unit.clone());
            // Two points can come out as the same program for small sizes; the first stands for
            // both.
            if result.len() <= limit && seen.insert((new.unit, new.tune.clone())) {
                result.push(new);
            }
            true
        });
    }
    result
}

/// The naive candidate: the baseline, the fallback, and what the others are checked against.
///
/// # Panics
/// When no family supports the task: every kind has a naive family for every CPU target.
pub fn reference(task: &TuningTask) -> Candidate {
    let naive = FAMILIES.iter().find(|f| f.supports(task).is_ok());
    let naive = naive.unwrap_or_else(|| panic!("no family supports {}", title(task)));
    naive_point(*naive, task)
}

fn naive_point(naive: &dyn CandidateFamily, task: &TuningTask) -> Candidate {
    let params = naive.enumerate(task).into_iter().next();
    Candidate::new(
        naive,
        task,
        params.unwrap_or_else(|| panic!("{} supports {} but has no point for it", naive.id(), title(task))),
    )
}

/// Transfer tuning: what stands in this task for a point that was fast in a similar one. The same
/// point if it is legal, else the best guess of the same compile-time parameters. `None` when the
/// family has none, or does not implement the task.
pub fn transfer(task: &TuningTask, family: &str, params: &Params) -> Option<Candidate> {
    let family = family_of(family).filter(|f| f.supports(task).is_ok())?;
    let mut points = family.enumerate(task);
    let own = compiled(family, params);
    let at = points.iter().position(|p| p == params).or_else(|| points.iter().position(|p| compiled(family, p) == own))?;
    Some(Candidate::new(family, task, points.swap_remove(at)))
}

/// The family of an id.
fn family_of(id: &str) -> Option<&'static dyn CandidateFamily> {
    FAMILIES.iter().copied().find(|family| family.id() == id)
}

impl Candidate {
    /// The candidates of the same unit for `task`: all legal points of the family that differ from
    /// this one in run-time integers only, itself among them, those believed best first. None for a
    /// vendor's library.
    pub fn same_unit(&self, task: &TuningTask) -> Vec<Self> {
        let Some(family) = family_of(self.family) else { return Vec::new() };
        let (key, own) = (task.key(), compiled(family, &self.params));
        let mut seen = HashSet::new();
        let points = family.enumerate(task).into_iter().filter(|params| compiled(family, params) == own);
        let unit = RenderedUnit { source: self.source.clone(), digest: self.unit };
        let all = points.map(|params| Self::of_unit(family, task, key, params, unit.clone()));
        all.filter(|c| seen.insert(c.tune.clone())).collect()
    }

    /// Sizes at other run-time dims than the task's own point.
    pub fn needs_at(&self, task: &TuningTask, dims: &[i64]) -> Needs {
        family_of(self.family).map_or_else(|| self.needs.clone(), |f| f.needs(task, &self.params, dims))
    }
}
