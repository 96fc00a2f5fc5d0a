//! The last stage of the search: which of the candidates that are nearly the fastest alone is the fastest in the model. Pure.
//!
//! A race cannot tell everything: alone with its operands, a kernel finds other things in the caches and other traffic to memory than between its
//! neighbours, and two races that were minutes apart met different hosts. So the best few of each task are linked into whole models, the
//! *casts*, whose steps are timed in turn in one process; per task the fastest stays. The casts' weights are zeros, which take as long as any others and
//! make them the same for all weights of a model.

use std::collections::BTreeMap;

use crate::planner::{CandidateOutline, TaskRef};

/// The most casts.
const CASTS: usize = 3;
/// Who was slower alone than the winner by more than this is not tried.
const NEAR: f64 = 1.3;
/// A rival must take less than this share of the winner's time.
const CLEARLY: f64 = 0.98;

/// The candidates for one task.
#[derive(Debug, Clone, PartialEq)]
pub struct Contest {
    /// Which task.
    pub task: TaskRef,
    /// In words.
    pub title: String,
    /// Values of the symbolic dimensions.
    pub point: BTreeMap<String, i64>,
    /// The winner of the race, then its rivals: at most [`CASTS`].
    pub candidates: Vec<CandidateOutline>,
}

/// The contest of a task. `ranked` are the candidates that are right with their seconds, the fastest first. The first rival is the fastest of the others, the
/// next ones are as unlike those before as there are: what the model changes, it changes alike for all that are alike.
pub fn contest(
    task: TaskRef,
    title: &str,
    point: &BTreeMap<String, i64>,
    winner: &CandidateOutline,
    ranked: &[(f64, &CandidateOutline)],
) -> Contest {
    let own = ranked.iter().find(|(_, c)| c.id == winner.id).map_or(f64::INFINITY, |(seconds, _)| *seconds);
    let near = || ranked.iter().filter(|(s, c)| c.id != winner.id && *s <= NEAR * own).map(|(_, c)| *c);
    let mut candidates: Vec<CandidateOutline> = std::iter::once(winner).chain(near().take(1)).cloned().collect();
    while candidates.len() < CASTS {
        let unlike = |c: &CandidateOutline| candidates.iter().map(|other| distance(c, other)).min().unwrap_or(0);
        // Of equally unlike ones the fastest: `max_by_key` takes the last.
        let Some(next) = near().rev().max_by_key(|c| unlike(c)).filter(|c| unlike(c) > 0) else { break };
        candidates.push(next.clone());
    }
    Contest { task, title: title.to_owned(), point: point.clone(), candidates }
}

/// In how many parameters two candidates differ; those of two families, in all.
fn distance(a: &CandidateOutline, b: &CandidateOutline) -> usize {
    if a.family != b.family {
        return usize::MAX;
    }
    a.params.iter().filter(|(name, value)| b.params.get(*name) != Some(value)).count()
}

/// The casts: every candidate is in one, and a task that has fewer than others repeats its own.
pub fn casts(contests: &[Contest]) -> Vec<Vec<(TaskRef, CandidateOutline)>> {
    let count = contests.iter().map(|c| c.candidates.len()).max().unwrap_or(0);
    let cast = |k: usize| contests.iter().map(|c| (c.task, c.candidates[k % c.candidates.len()].clone())).collect();
    (0..count).map(cast).collect()
}

/// How a task was decided otherwise than by its race.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The task in words.
    pub title: String,
    /// Who had won the race, and its seconds in the model.
    pub from: (CandidateOutline, f64),
    /// Who takes its place, and its seconds in the model.
    pub to: (CandidateOutline, f64),
}

/// Decides by `seconds` of each step, for each of `points` and each cast; `spec_of` names the spec of each step. The winners in the order of the
/// contests, and which of them are not those of the races.
pub fn decide(
    contests: &[Contest],
    spec_of: &[usize],
    points: &[BTreeMap<String, i64>],
    seconds: &[Vec<Vec<f64>>],
) -> (Vec<(TaskRef, CandidateOutline)>, Vec<Change>) {
    let mut winners = Vec::with_capacity(contests.len());
    let mut changes = Vec::new();
    for contest in contests {
        let here = |point: &BTreeMap<String, i64>| contest.point.iter().all(|(name, value)| point.get(name) == Some(value));
        let of_cast = |cast: usize| -> f64 {
            let at = points.iter().zip(seconds).filter(|(point, _)| here(point));
            let steps = at.flat_map(|(_, casts)| casts.get(cast).into_iter().flat_map(|steps| steps.iter().zip(spec_of)));
            steps.filter(|(_, spec)| **spec == contest.task.spec).map(|(s, _)| s).sum()
        };
        let times: Vec<f64> = (0..contest.candidates.len()).map(of_cast).collect();
        let best = (0..times.len()).min_by(|a, b| times[*a].total_cmp(&times[*b])).unwrap_or(0);
        let chosen = if times[best] < CLEARLY * times[0] { best } else { 0 };
        if chosen != 0 {
            let (from, to) = ((contest.candidates[0].clone(), times[0]), (contest.candidates[chosen].clone(), times[chosen]));
            changes.push(Change { title: contest.title.clone(), from, to });
        }
        winners.push((contest.task, contest.candidates[chosen].clone()));
    }
    (winners, changes)
}

#[cfg(test)]
mod tests {
    use aotfarm_protocol::{CandidateId, Digest};

    use super::*;

    fn candidate(n: i64, [mr, split]: [i64; 2]) -> CandidateOutline {
        CandidateOutline {
            id: CandidateId(Digest::of(n.to_le_bytes())),
            family: "fast@1".to_owned(),
            params: [("n", n), ("mr", mr), ("split", split)].map(|(name, value)| (name.to_owned(), value)).into(),
            unit: Digest::of(n.to_le_bytes()),
        }
    }

    fn task(spec: usize) -> TaskRef {
        TaskRef { variant: 0, spec, point: 0 }
    }

    fn at(batch: i64) -> BTreeMap<String, i64> {
        BTreeMap::from([("batch".to_owned(), batch)])
    }

    #[test]
    fn rivals_are_near_and_unlike() {
        let all = [[6, 0], [6, 0], [6, 0], [12, 0], [12, 1], [6, 1]];
        let all: Vec<_> = (0..).zip(all).map(|(n, params)| candidate(n, params)).collect();
        let of = |winner: usize, seconds: [f64; 6]| {
            let ranked: Vec<_> = seconds.into_iter().zip(&all).collect();
            let contest = contest(task(0), "t", &at(1), &all[winner], &ranked);
            contest.candidates.iter().map(|c| c.params["n"]).collect::<Vec<_>>()
        };
        // The fastest, then what differs in most: 4 in both, 3 and 5 in one each.
        assert_eq!(of(0, [1.0, 1.05, 1.1, 1.2, 1.21, 1.25]), [0, 1, 4]);
        // The winner need not be the fastest: a tie goes to the simpler one.
        assert_eq!(of(1, [1.0, 1.05, 1.1, 1.2, 1.21, 1.25]), [1, 0, 4]);
        assert_eq!(of(0, [1.0, 1.05, 1.4, 1.4, 1.4, 1.4]), [0, 1], "the others are far");
        assert_eq!(contest(task(0), "t", &at(1), &all[0], &[]).candidates, [all[0].clone()], "nothing is known but the winner");
    }

    #[test]
    fn the_fastest_in_the_model_wins_and_a_tie_changes_nothing() {
        let contest = |spec, names: &[i64], point| Contest {
            task: task(spec),
            title: format!("task {spec}"),
            point,
            candidates: names.iter().map(|n| candidate(*n, [6, 0])).collect(),
        };
        let contests = [contest(0, &[10, 11], at(8)), contest(1, &[20, 21, 22], at(1)), contest(2, &[30], BTreeMap::new())];
        let casts = casts(&contests);
        let names = |cast: &[(TaskRef, CandidateOutline)]| cast.iter().map(|(_, c)| c.params["n"]).collect::<Vec<_>>();
        assert_eq!(casts.iter().map(|cast| names(cast)).collect::<Vec<_>>(), [[10, 20, 30], [11, 21, 30], [10, 22, 30]]);
        // Steps of specs 1, 0, 1, 2. At batch 1 the second of spec 1 is 1 % faster than the first; at batch 8 that of spec 0 twice as fast.
        let spec_of = [1, 0, 1, 2];
        let seconds = [
            vec![vec![1.0, 9.0, 1.0, 0.1], vec![0.99, 99.0, 0.99, 0.1], vec![1.5, 9.0, 1.0, 0.1]],
            vec![vec![9.0, 4.0, 9.0, 0.1], vec![1.0, 2.0, 1.0, 0.1], vec![9.0, 4.0, 9.0, 0.1]],
        ];
        let (winners, changes) = decide(&contests, &spec_of, &[at(1), at(8)], &seconds);
        assert_eq!(names(&winners), [11, 20, 30]);
        assert_eq!(changes.len(), 1);
        assert_eq!((changes[0].title.as_str(), changes[0].from.1, changes[0].to.1), ("task 0", 4.0, 2.0));
    }
}
