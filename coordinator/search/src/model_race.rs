//! The last stage of the search: which of the finalists is the fastest in the model.
//!
//! A task's own race cannot tell everything: alone with its operands, a kernel finds other things
//! in the caches and other traffic to memory than between its neighbours, and two races that were
//! minutes apart met different hosts. So the finalists are linked into whole models, the
//! [configurations](crate::Configuration), whose steps are timed in turn in one process; per task
//! the fastest stays. The weights of these models are zeros, which take as long as any others and
//! make them the same for all weights of a model.

use std::collections::BTreeMap;

use crate::finalists::{Configuration, Finalists};
use crate::outline::{CandidateOutline, TaskRef};

/// A rival must take less than this share of the winner's time. A guess: what the times of equal
/// kernels differ by.
const CLEARLY: f64 = 0.98;

/// How a task was decided otherwise than by its own race.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The task in words.
    pub title: String,
    /// Who had won the task's own race, and its seconds in the model.
    pub from: (CandidateOutline, f64),
    /// Who takes its place, and its seconds in the model.
    pub to: (CandidateOutline, f64),
}

/// What a model race came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// The fastest, in the order of the finalists, and no segments.
    pub fastest: Configuration,
    /// Where these are not the winners of the tasks' own races.
    pub changes: Vec<Change>,
    /// Seconds of each step with them, for each point.
    pub seconds: Vec<Vec<f64>>,
}

/// The times of a model race.
struct Times<'a> {
    /// The spec of each step.
    spec_of: &'a [usize],
    points: &'a [BTreeMap<String, i64>],
    /// For each point, for each configuration, of each step.
    seconds: &'a [Vec<Vec<f64>>],
}

impl Times<'_> {
    /// Whether a task is raced at one of the points, by its index.
    fn is_at(&self, task: &Finalists, point: usize) -> bool {
        task.point.iter().all(|(name, value)| self.points[point].get(name) == Some(value))
    }

    /// Seconds of all steps of a task's spec in a configuration, over the points at which it was
    /// tuned.
    fn of(&self, task: &Finalists, configuration: usize) -> f64 {
        let at = (0..self.points.len()).filter(|point| self.is_at(task, *point));
        let steps = at.flat_map(|point| self.seconds[point].get(configuration).into_iter().flatten().zip(self.spec_of));
        steps.filter(|(_, spec)| **spec == task.task.spec).map(|(seconds, _)| seconds).sum()
    }
}

/// Decides by `seconds` of each step, for each of `points` and each configuration; `spec_of` names
/// the spec of each step.
///
/// With the finalists `[a, b]` of spec 0 and `[c]` of spec 1 there are the configurations `a c` and
/// `b c`. If the steps have specs `[0, 1]` and take `[3, 1]` and `[2, 1]` seconds, `b` and `c` are
/// the fastest.
pub fn decide(
    finalists: &[Finalists],
    spec_of: &[usize],
    points: &[BTreeMap<String, i64>],
    seconds: &[Vec<Vec<f64>>],
) -> Verdict {
    let times = Times { spec_of, points, seconds };
    let mut candidates: Vec<(TaskRef, CandidateOutline)> = Vec::with_capacity(finalists.len());
    let mut changes = Vec::new();
    // A step whose task was measured at other points than these is as in the first configuration.
    let mut with_fastest: Vec<Vec<f64>> = seconds.iter().map(|all| all.first().cloned().unwrap_or_default()).collect();
    for task in finalists {
        let of_task: Vec<f64> = (0..task.candidates.len()).map(|k| times.of(task, k)).collect();
        let best = (0..of_task.len()).min_by(|a, b| of_task[*a].total_cmp(&of_task[*b])).unwrap_or(0);
        let chosen = if of_task[best] < CLEARLY * of_task[0] { best } else { 0 };
        let timed = |k: usize| (task.candidates[k].clone(), of_task[k]);
        if chosen != 0 {
            changes.push(Change { title: task.title.clone(), from: timed(0), to: timed(chosen) });
        }
        for point in (0..points.len()).filter(|point| times.is_at(task, *point)) {
            let steps = seconds[point].get(chosen).into_iter().flatten().zip(&mut with_fastest[point]).zip(spec_of);
            steps.filter(|(_, spec)| **spec == task.task.spec).for_each(|((time, step), _)| *step = *time);
        }
        candidates.push((task.task, task.candidates[chosen].clone()));
    }
    let fastest = Configuration { candidates, segments: Vec::new() };
    Verdict { fastest, changes, seconds: with_fastest }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examples::{at, candidate, task};

    #[test]
    fn the_fastest_in_the_model_wins_and_a_tie_changes_nothing() {
        let finalists = |spec, names: &[i64], point| Finalists {
            task: task(spec),
            title: format!("task {spec}"),
            point,
            candidates: names.iter().map(|n| candidate(*n, [6, 0])).collect(),
        };
        let finalists =
            [finalists(0, &[10, 11], at(8)), finalists(1, &[20, 21, 22], at(1)), finalists(2, &[30], BTreeMap::new())];
        let names = |of: &Configuration| of.candidates.iter().map(|(_, c)| c.params["n"]).collect::<Vec<_>>();
        let raced = Configuration::of_all(&finalists);
        assert_eq!(raced.iter().map(names).collect::<Vec<_>>(), [[10, 20, 30], [11, 21, 30], [10, 22, 30]]);
        assert_eq!(Configuration::of_winners(&finalists), raced[0]);
        // Steps of specs 1, 0, 1, 2. At batch 1 the second of spec 1 is 1 % faster than the first;
        // at batch 8 that of spec 0 twice as fast.
        let spec_of = [1, 0, 1, 2];
        let seconds = [
            vec![vec![1.0, 9.0, 1.0, 0.1], vec![0.99, 99.0, 0.99, 0.1], vec![1.5, 9.0, 1.0, 0.1]],
            vec![vec![9.0, 4.0, 9.0, 0.1], vec![1.0, 2.0, 1.0, 0.1], vec![9.0, 4.0, 9.0, 0.1]],
        ];
        let Verdict { fastest, changes, seconds } = decide(&finalists, &spec_of, &[at(1), at(8)], &seconds);
        assert_eq!(names(&fastest), [11, 20, 30]);
        assert_eq!(seconds, [vec![1.0, 9.0, 1.0, 0.1], vec![9.0, 2.0, 9.0, 0.1]], "of each step with its winner");
        assert_eq!(changes.len(), 1);
        assert_eq!((changes[0].title.as_str(), changes[0].from.1, changes[0].to.1), ("task 0", 4.0, 2.0));
    }
}
