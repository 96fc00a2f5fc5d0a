//! Who races in the whole model, and in which configurations.

use std::collections::BTreeMap;

use aotfarm_protocol::Segment;

use crate::outline::{CandidateOutline, TaskOutline, TaskRef};

/// The most finalists of a task, and so the most configurations. Measured: with three, two cold
/// searches differ by 2 % where it was 6 to 9 (docs/performance.md).
const CONFIGURATIONS: usize = 3;
/// Who was slower alone than the winner by more than this factor is no finalist. A guess, above
/// what two races of the same kernels were seen to differ by.
const NEAR: f64 = 1.3;

/// The candidates of a task that race in the model.
#[derive(Debug, Clone, PartialEq)]
pub struct Finalists {
    /// Which task.
    pub task: TaskRef,
    /// In words.
    pub title: String,
    /// Values of the symbolic dimensions.
    pub point: BTreeMap<String, i64>,
    /// The winner of the task's own race, then its rivals: three at most.
    pub candidates: Vec<CandidateOutline>,
}

impl Finalists {
    /// The finalists of a task. `timed` are the candidates that are right with their seconds, the
    /// fastest first. The first rival is the fastest of the others; the next ones are as unlike
    /// those before as there are, because what the model changes, it changes equally for all that
    /// are alike.
    pub(crate) fn choose(
        task: TaskRef,
        outline: &TaskOutline,
        winner: &CandidateOutline,
        timed: &[(f64, &CandidateOutline)],
    ) -> Self {
        let own = timed.iter().find(|(_, c)| c.id == winner.id).map_or(f64::INFINITY, |(seconds, _)| *seconds);
        let near = || timed.iter().filter(|(s, c)| c.id != winner.id && *s <= NEAR * own).map(|(_, c)| *c);
        let mut candidates: Vec<CandidateOutline> = std::iter::once(winner).chain(near().take(1)).cloned().collect();
        while candidates.len() < CONFIGURATIONS {
            let unlike = |c: &CandidateOutline| candidates.iter().map(|other| distance(c, other)).min().unwrap_or(0);
            // Of equally unlike ones the fastest: `max_by_key` takes the last.
            let Some(next) = near().rev().max_by_key(|c| unlike(c)).filter(|c| unlike(c) > 0) else { break };
            candidates.push(next.clone());
        }
        Self { task, title: outline.title.clone(), point: outline.point.clone(), candidates }
    }
}

/// In how many parameters two candidates differ; those of two families, in all.
fn distance(a: &CandidateOutline, b: &CandidateOutline) -> usize {
    if a.family != b.family {
        return usize::MAX;
    }
    a.params.iter().filter(|(name, value)| b.params.get(*name) != Some(value)).count()
}

/// What an artifact is made of: a candidate for every task, and which steps are done for a few
/// images at a time.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Configuration {
    /// The candidates.
    pub candidates: Vec<(TaskRef, CandidateOutline)>,
    /// In order.
    pub segments: Vec<Segment>,
}

impl Configuration {
    /// The winners of the tasks' own races.
    pub fn of_winners(finalists: &[Finalists]) -> Self {
        Self::nth(finalists, 0)
    }

    /// The configurations that race: every finalist is in one, and a task that has fewer than
    /// others repeats its own.
    pub fn of_all(finalists: &[Finalists]) -> Vec<Self> {
        let count = finalists.iter().map(|f| f.candidates.len()).max().unwrap_or(0);
        (0..count).map(|k| Self::nth(finalists, k)).collect()
    }

    fn nth(finalists: &[Finalists], k: usize) -> Self {
        let candidate = |f: &Finalists| (f.task, f.candidates[k % f.candidates.len()].clone());
        Self { candidates: finalists.iter().map(candidate).collect(), segments: Vec::new() }
    }

    /// The same candidates, with some steps in segments.
    #[must_use]
    pub fn in_segments(&self, segments: Vec<Segment>) -> Self {
        Self { candidates: self.candidates.clone(), segments }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examples::{candidate, outline, task};

    #[test]
    fn rivals_are_near_and_unlike() {
        let all = [[6, 0], [6, 0], [6, 0], [12, 0], [12, 1], [6, 1]];
        let all: Vec<_> = (0..).zip(all).map(|(n, params)| candidate(n, params)).collect();
        let of = |winner: usize, seconds: [f64; 6]| {
            let timed: Vec<_> = seconds.into_iter().zip(&all).collect();
            let finalists = Finalists::choose(task(0), &outline(0), &all[winner], &timed);
            finalists.candidates.iter().map(|c| c.params["n"]).collect::<Vec<_>>()
        };
        // The fastest, then what differs in most: 4 in both, 3 and 5 in one each.
        assert_eq!(of(0, [1.0, 1.05, 1.1, 1.2, 1.21, 1.25]), [0, 1, 4]);
        // The winner need not be the fastest: a tie goes to the simpler one.
        assert_eq!(of(1, [1.0, 1.05, 1.1, 1.2, 1.21, 1.25]), [1, 0, 4]);
        assert_eq!(of(0, [1.0, 1.05, 1.4, 1.4, 1.4, 1.4]), [0, 1], "the others are far");
        let alone = Finalists::choose(task(0), &outline(0), &all[0], &[]);
        assert_eq!(alone.candidates, [all[0].clone()], "nothing is known but the winner");
    }
}
