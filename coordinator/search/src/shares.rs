//! How the tasks of a variant share its budget: by their estimated work.

use std::collections::HashMap;

use crate::effort::Effort;
use crate::outline::SpecOutline;
use crate::settings::Settings;
use crate::strategy::Strategy;
use crate::task::{BUDGET_FLOOR_MS, Share, TaskSearch};

/// The share of the work at its point from which on a task has rivals in the model race. A guess:
/// the others together are a few percent of a model.
const HEAVY: f64 = 0.004;

/// The estimated work of a variant.
struct Work<'a> {
    specs: &'a [SpecOutline],
    /// Of all specs, for each point; at least 1.
    totals: Vec<f64>,
    /// Indices of specs, the heaviest first.
    order: Vec<usize>,
    /// For each spec and point the heaviest spec of the same core, if that is another one.
    representatives: Vec<Vec<Option<usize>>>,
}

impl<'a> Work<'a> {
    fn new(specs: &'a [SpecOutline]) -> Self {
        let points = specs.iter().map(|s| s.tasks.len()).max().unwrap_or(1);
        let mut work = Self { specs, totals: Vec::new(), order: (0..specs.len()).collect(), representatives: Vec::new() };
        let total = |point| (0..specs.len()).map(|spec| work.of(spec, point)).sum::<f64>().max(1.0);
        let totals = (0..points).map(total).collect();
        let mut order = work.order.clone();
        order.sort_by(|a, b| work.of(*b, 0).total_cmp(&work.of(*a, 0)).then(a.cmp(b)));
        let core = |spec: usize, point: usize| specs[spec].tasks.get(point).and_then(|task| task.core);
        let mut heaviest = HashMap::new();
        for (&spec, point) in order.iter().flat_map(|spec| (0..points).map(move |point| (spec, point))) {
            if let Some(core) = core(spec, point) {
                heaviest.entry((core, point)).or_insert(spec);
            }
        }
        let representative = |spec, point| core(spec, point).map(|core| heaviest[&(core, point)]).filter(|first| *first != spec);
        let representatives =
            (0..specs.len()).map(|spec| (0..points).map(|point| representative(spec, point)).collect()).collect();
        (work.totals, work.order, work.representatives) = (totals, order, representatives);
        work
    }

    /// Operations of a task in one run of the model.
    fn of(&self, spec: usize, point: usize) -> f64 {
        self.specs[spec].tasks.get(point).map_or(0.0, |t| f64::from(t.calls) * t.flops.max(1.0))
    }

    /// The share of its point's budget. Half of what a member would have goes to its
    /// representative, which searches for both.
    fn share(&self, spec: usize, point: usize) -> f64 {
        let given = |other: &usize| self.representatives[*other][point] == Some(spec);
        let own = if self.representatives[spec][point].is_some() { 0.5 } else { 1.0 };
        let received: f64 = self.order.iter().filter(|other| given(other)).map(|other| self.of(*other, point) / 2.0).sum();
        (own * self.of(spec, point) + received) / self.totals[point]
    }
}

/// The tasks by spec and point, and the order in which specs are searched.
pub(crate) fn share_out(specs: &[SpecOutline], settings: &Settings, strategy: &Strategy) -> (Vec<Vec<TaskSearch>>, Vec<usize>) {
    let work = Work::new(specs);
    // Each point is as important as the others, whatever it costs: they share the budget equally.
    let budget = settings.budget_ms as f64 / work.totals.len() as f64;
    let effort = |spec: usize| match settings.trials {
        Some(trials) => Effort { candidates: Some(trials.max(1)), ..Effort::ALL },
        None => strategy.effort(work.of(spec, 0) / work.totals[0]),
    };
    let share = |spec: usize, point: usize| {
        let representative = work.representatives[spec][point];
        Share {
            representative: representative.filter(|_| strategy.has_representatives),
            heavy: work.of(spec, point) >= HEAVY * work.totals[point],
            budget_ms: ((budget * work.share(spec, point)) as u64).max(BUDGET_FLOOR_MS),
            effort: effort(spec),
            measured: strategy.measures,
            refined: strategy.refine.is_some() && representative.is_none(),
        }
    };
    let tasks = specs.iter().enumerate().map(|(spec, outline)| {
        let tasks = outline.tasks.iter().enumerate();
        tasks.map(|(point, task)| TaskSearch::new(task, share(spec, point))).collect()
    });
    (tasks.collect(), work.order)
}
