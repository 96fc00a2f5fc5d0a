//! The last stage of the search: which of the candidates that are nearly the fastest alone is the fastest in the model. Pure.
//!
//! A race cannot tell everything: alone with its operands, a kernel finds other things in the caches and other traffic to memory than between its
//! neighbours, and two races that were minutes apart met different hosts. So the best few of each task are linked into whole models, the
//! *casts*, whose steps are timed in turn in one process; per task the fastest stays. The casts' weights are zeros, which take as long as any others and
//! make them the same for all weights of a model.
//!
//! A rehearsal also tells how long each step takes for an image of a small batch and of a large one. Where the small batch is the faster, because
//! what a step writes stays in the caches until the next reads it, runs of steps are done for a few images at a time: as
//! [`Segment`]s, which a second rehearsal has to confirm.

use std::collections::BTreeMap;

use aotfarm_protocol::Segment;

use crate::planner::{CandidateOutline, Cast, TaskRef};

/// The most casts.
const CASTS: usize = 3;
/// Who was slower alone than the winner by more than this is not tried.
const NEAR: f64 = 1.3;
/// A rival must take less than this share of the winner's time.
const CLEARLY: f64 = 0.98;
/// Segments must promise, and then save, at least this share of a run.
pub const WORTHWHILE: f64 = 0.01;
/// What a border between segments may cost, as a share of a run: what crosses it goes through memory. Each of these guesses gives segments to try: the first
/// ones follow small differences between the times, some of which are chance, the others keep to large ones.
const BORDERS: [f64; 2] = [0.005, 0.03];

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
pub fn casts(contests: &[Contest]) -> Vec<Cast> {
    let count = contests.iter().map(|c| c.candidates.len()).max().unwrap_or(0);
    let winners = |k: usize| contests.iter().map(|c| (c.task, c.candidates[k % c.candidates.len()].clone())).collect();
    (0..count).map(|k| Cast { winners: winners(k), segments: Vec::new() }).collect()
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

/// What a rehearsal came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The winners in the order of the contests.
    pub winners: Vec<(TaskRef, CandidateOutline)>,
    /// Which of them are not those of the races.
    pub changes: Vec<Change>,
    /// Seconds of each step with them, for each point.
    pub seconds: Vec<Vec<f64>>,
}

/// Decides by `seconds` of each step, for each of `points` and each cast; `spec_of` names the spec of each step.
pub fn decide(contests: &[Contest], spec_of: &[usize], points: &[BTreeMap<String, i64>], seconds: &[Vec<Vec<f64>>]) -> Decision {
    let mut winners = Vec::with_capacity(contests.len());
    let mut changes = Vec::new();
    // A step whose task was measured at other points than these is with the first cast's.
    let mut with_winners: Vec<Vec<f64>> = seconds.iter().map(|casts| casts.first().cloned().unwrap_or_default()).collect();
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
        for ((_, casts), steps) in points.iter().zip(seconds).zip(&mut with_winners).filter(|((point, _), _)| here(point)) {
            let times = casts.get(chosen).into_iter().flatten().zip(steps).zip(spec_of);
            times.filter(|(_, spec)| **spec == contest.task.spec).for_each(|((time, step), _)| *step = *time);
        }
        winners.push((contest.task, contest.candidates[chosen].clone()));
    }
    Decision { winners, changes, seconds: with_winners }
}

/// The ways to cut the model into segments that promise the shortest runs; none when they promise too little. `seconds` are those of each step at each size of the
/// batch, the smallest first; a segment has as many images as one of these sizes. `least` is the smallest batch that may be.
pub fn segmentations(sizes: &[i64], seconds: &[Vec<f64>], image_wise: &[bool], least: i64) -> Vec<Vec<Segment>> {
    let mut all = BORDERS.map(|border| segments(sizes, seconds, image_wise, least, border)).to_vec();
    all.retain(|segments| !segments.is_empty());
    all.dedup();
    all
}

/// The segments that promise the shortest runs when every border costs such a share of a run.
fn segments(sizes: &[i64], seconds: &[Vec<f64>], image_wise: &[bool], least: i64, border: f64) -> Vec<Segment> {
    let Some(largest) = sizes.len().checked_sub(1) else { return Vec::new() };
    let totals: Vec<f64> = seconds.iter().map(|steps| steps.iter().sum()).collect();
    // The share of a run that a step takes for so many images at a time, summed over the sizes: no part is larger than the batch.
    let share = |step: usize, size: usize| -> f64 {
        let at = |batch: usize| {
            let part = size.min(batch);
            seconds[part][step] / sizes[part] as f64 * sizes[batch] as f64 / totals[batch]
        };
        (0..sizes.len()).map(at).sum()
    };
    // Halves of a batch that is just too large for one part are also batches.
    let may = |step: usize, size: usize| size == largest || (image_wise[step] && (sizes[size] + 1) / 2 >= least);
    let border = border * sizes.len() as f64;
    // By size: the cost of the best way up to and with the step, and the size of the step before it.
    let mut ways: Vec<Vec<(f64, usize)>> = Vec::with_capacity(image_wise.len());
    for step in 0..image_wise.len() {
        let way = |size: usize| {
            let from = |before: usize| {
                let so_far = ways.last().map_or(0.0, |costs: &Vec<(f64, usize)>| costs[before].0);
                (so_far + if before == size || step == 0 { 0.0 } else { border }, before)
            };
            let (cost, before) = (0..sizes.len()).map(from).min_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or((0.0, largest));
            (if may(step, size) { cost + share(step, size) } else { f64::INFINITY }, before)
        };
        ways.push((0..sizes.len()).map(way).collect());
    }
    let Some(last) = ways.last() else { return Vec::new() };
    let (mut size, cost) =
        last.iter().map(|(cost, _)| *cost).enumerate().min_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or((largest, 0.0));
    if cost.is_nan() || cost > (1.0 - WORTHWHILE) * sizes.len() as f64 {
        return Vec::new();
    }
    let mut segments: Vec<Segment> = Vec::new();
    for step in (0..ways.len()).rev() {
        match segments.last_mut() {
            _ if size == largest => {}
            Some(next) if next.steps.start == step + 1 && next.images == sizes[size] => next.steps.start = step,
            _ => segments.push(Segment { steps: step..step + 1, images: sizes[size] }),
        }
        size = ways[step][size].1;
    }
    segments.reverse();
    segments
}

/// Which cast but the first saves most, and what share of a run of the first, by `seconds` of each step: for each point, for each cast. The geometric mean
/// over the points.
pub fn fastest(seconds: &[Vec<Vec<f64>>]) -> Option<(usize, f64)> {
    let total = |steps: &Vec<f64>| steps.iter().sum::<f64>();
    let saved = |cast: usize| {
        let logs = seconds.iter().map(|casts| (total(&casts[cast]) / total(&casts[0])).ln());
        1.0 - (logs.sum::<f64>() / seconds.len() as f64).exp()
    };
    let casts = seconds.first().map_or(0, Vec::len);
    (1..casts).map(|cast| (cast, saved(cast))).max_by(|a, b| a.1.total_cmp(&b.1))
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
        assert_eq!(casts.iter().map(|cast| names(&cast.winners)).collect::<Vec<_>>(), [[10, 20, 30], [11, 21, 30], [10, 22, 30]]);
        // Steps of specs 1, 0, 1, 2. At batch 1 the second of spec 1 is 1 % faster than the first; at batch 8 that of spec 0 twice as fast.
        let spec_of = [1, 0, 1, 2];
        let seconds = [
            vec![vec![1.0, 9.0, 1.0, 0.1], vec![0.99, 99.0, 0.99, 0.1], vec![1.5, 9.0, 1.0, 0.1]],
            vec![vec![9.0, 4.0, 9.0, 0.1], vec![1.0, 2.0, 1.0, 0.1], vec![9.0, 4.0, 9.0, 0.1]],
        ];
        let Decision { winners, changes, seconds } = decide(&contests, &spec_of, &[at(1), at(8)], &seconds);
        assert_eq!(names(&winners), [11, 20, 30]);
        assert_eq!(seconds, [vec![1.0, 9.0, 1.0, 0.1], vec![9.0, 2.0, 9.0, 0.1]], "of each step with its winner");
        assert_eq!(changes.len(), 1);
        assert_eq!((changes[0].title.as_str(), changes[0].from.1, changes[0].to.1), ("task 0", 4.0, 2.0));
    }

    #[test]
    fn steps_are_done_for_as_few_images_as_are_fastest() {
        // Seconds of one image at batch 1, 8 and 32.
        let of_image = [[1.0, 1.2, 2.0], [1.0, 1.0, 1.5], [1.0, 1.001, 1.0], [1.0, 0.5, 0.7], [3.0, 1.0, 0.9]];
        let sizes = [1, 8, 32];
        let seconds: Vec<Vec<f64>> = (0..3).map(|k| of_image.iter().map(|step| step[k] * sizes[k] as f64).collect()).collect();
        let chosen = |image_wise: [bool; 5], least| -> Vec<_> {
            segments(&sizes, &seconds, &image_wise, least, BORDERS[0]).into_iter().map(|s| (s.steps, s.images)).collect()
        };
        // The third is as fast one by one as by eight, and a border would cost something wherever it is; the last is the fastest for the whole batch.
        assert_eq!(chosen([true; 5], 1), [(0..3, 1), (3..4, 8)]);
        assert_eq!(chosen([true, false, true, true, true], 1), [(0..1, 1), (3..4, 8)]);
        assert_eq!(chosen([true; 5], 2), [(0..4, 8)], "one image is less than the smallest batch");
        assert_eq!(chosen([false; 5], 1), []);
        let equal: Vec<Vec<f64>> = sizes.map(|n| vec![n as f64; 5]).to_vec();
        assert_eq!(segments(&sizes, &equal, &[true; 5], 1, 0.0), []);
        let hardly: Vec<Vec<f64>> = sizes.map(|n| vec![n as f64 * if n == 1 { 0.995 } else { 1.0 }; 5]).to_vec();
        assert_eq!(
            segments(&sizes, &hardly, &[true; 5], 1, 0.0),
            [],
            "half a percent is within what a rehearsal can be wrong by"
        );
        assert_eq!(segments(&[], &[], &[], 1, 0.0), []);
        // Where borders cost more, there are fewer.
        let of = |steps, images| Segment { steps, images };
        let tried = segmentations(&sizes, &seconds, &[true; 5], 1);
        assert_eq!(tried, [vec![of(0..3, 1), of(3..4, 8)], vec![of(0..5, 8)]]);
    }

    #[test]
    fn what_segments_save_is_a_share_of_whole_runs() {
        let seconds = [vec![vec![1.0, 1.0], vec![1.0, 0.6]], vec![vec![5.0, 3.0], vec![4.0, 1.0]]];
        let (cast, saved) = fastest(&seconds).unwrap();
        assert!(cast == 1 && (saved - (1.0 - (0.8f64 * 0.625).sqrt())).abs() < 1e-12);
        let with_better = seconds.map(|casts| [casts, vec![vec![0.5, 0.5]]].concat());
        assert_eq!(fastest(&with_better).unwrap().0, 2);
        assert_eq!(fastest(&[]), None);
    }
}
