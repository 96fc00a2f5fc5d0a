//! The quick search on a CPU. A size is searched in two races: a survey with one guess of every
//! unit, then all run-time integers of the units that came out best. Those cost no compiling, and
//! which of them are good depends on the size.
//!
//! Sizes share units. At a later point the best of the point before race again, together with the
//! best guess of every unit for that point. A task of which nothing is known begins with the units
//! that are fast in similar tasks.

use std::collections::BTreeSet;

use aotfarm_protocol::{Digest, Rank};

use super::definition::{Opening, Strategy, Timing};
use super::field::{add, fill_up};
use super::member;
use crate::effort::Effort;
use crate::outline::CandidateOutline;
use crate::task::TaskSearch;
use crate::view::View;

/// How many of the fastest race again at the next point, or when they are known from an earlier
/// search. A guess.
const KEPT: usize = 6;
/// How many units of similar tasks a search begins with, and how many others race with them.
/// Measured: ResNet-34 after ResNet-18 takes 7 s of measuring instead of 39, and is as fast
/// (docs/performance.md).
const SIMILAR_UNITS: usize = 4;
/// See [`SIMILAR_UNITS`].
const FRESH_UNITS: usize = 2;
/// With so many candidates timed a task has been searched: what a search of today would choose to
/// consider is no reason to measure more. A guess, below the 12 candidates of the least effort.
const SEARCHED: usize = 10;
/// How many units are refined, if their best is as near to the fastest as [`REFINED_WITHIN`] says.
/// Measured: refining three made kernels for batch 8 a third faster (docs/performance.md); the
/// bounds are guesses.
const REFINED_UNITS: usize = 3;
/// See [`REFINED_UNITS`].
const REFINED_WITHIN: f64 = 1.35;
/// The most candidates that refining adds. A guess.
const REFINED: usize = 24;

/// From which share of the work on how many candidates are listed, from how many units. Guesses;
/// with them a cold submission of ResNet-18 considers some 1,100 candidates in 80 to 100 s on two
/// cores (docs/performance.md).
pub(super) const EFFORTS: &[(f64, Effort)] = &[(0.04, Effort::of(96, 10)), (0.01, Effort::of(48, 6)), (0.0, Effort::of(12, 4))];

/// Guesses. So many rotated bytes are meant to be more than the caches keep of one kernel's
/// operands.
pub(super) const TIMING: Timing = Timing {
    screen_runs: 8,
    race_runs: 60,
    race_width: 6,
    drop_factor: 2.0,
    rotate_bytes: Some(64 << 20),
    run_limit_ms: 20_000,
    memory_limit: 4 << 30,
};

/// A guess: a tenth of a second of the naive loops for each run.
pub(super) const NAIVE_REFERENCE_FLOPS: f64 = 5e8;

/// 20 s, a guess at what a user waits for.
pub(super) const BUDGET_MS: u64 = 20_000;

pub(super) const STRATEGY: Strategy = Strategy {
    budget_ms: BUDGET_MS,
    efforts: EFFORTS,
    timing: TIMING,
    measures: true,
    has_representatives: true,
    fits_race_to_budget: true,
    naive_reference_flops: NAIVE_REFERENCE_FLOPS,
    open,
    refine: Some(refine),
};

fn open(view: &View<'_>) -> Opening {
    if let Some(considered) = searched_before(view) {
        return Opening { considered, searched: true };
    }
    Opening::new(match view.representative() {
        Some(representative) => member::open(view, representative),
        None => survey(view),
    })
}

/// What a task that has been searched before considers: what is known, and families that are new.
fn searched_before(view: &View<'_>) -> Option<Vec<CandidateOutline>> {
    // Whoever names a number of candidates gets so many.
    if view.trials.is_some() {
        return None;
    }
    let known = view.known()?;
    let allowed = view.task().allowed;
    let mut timed: Vec<(Rank, _)> = known.values().filter_map(|k| Some((k.outcome.rank(allowed)?, k))).collect();
    if timed.len() < SEARCHED {
        return None;
    }
    timed.sort_by(|(a, _), (b, _)| a.compare(b));
    let naive = view.naive().family;
    let families: BTreeSet<&str> = known.values().map(|k| k.family.as_str()).chain([naive.as_str()]).collect();
    // A member leaves new families to its representative.
    let is_new = |c: &CandidateOutline| view.representative().is_none() && !families.contains(c.family.as_str());
    let mut considered = view.guesses();
    considered.retain(|c| known.contains_key(&c.id) || is_new(c));
    for (_, k) in timed.into_iter().take(KEPT) {
        if let Some(fast) = view.candidate(k) {
            add(&mut considered, fast, usize::MAX);
        }
    }
    Some(considered)
}

/// The first race of a size: what was fast at the smaller one and in similar tasks, and a guess of
/// each other unit.
fn survey(view: &View<'_>) -> Vec<CandidateOutline> {
    let guesses = view.guesses();
    let similar = similar_units(view);
    if view.is_first() && similar.is_empty() {
        return guesses;
    }
    let kept = view.smaller().map(|smaller| view.legal(smaller).take(KEPT).collect());
    let mut chosen = in_turn(kept.unwrap_or_default(), guess_of_each_unit(view, similar, &guesses));
    fill_up(view, &mut chosen, &guesses);
    chosen
}

/// The best guess of each unit that is fast in similar tasks.
fn similar_units(view: &View<'_>) -> Vec<CandidateOutline> {
    let naive = view.naive().family;
    let mut chosen: Vec<CandidateOutline> = Vec::new();
    for (family, params) in view.similar().iter().filter(|(family, _)| *family != naive) {
        if chosen.len() == SIMILAR_UNITS {
            break;
        }
        let transferred = view.space.transfer(view.here, family, params);
        chosen.extend(transferred.filter(|c| chosen.iter().all(|other| other.unit != c.unit)));
    }
    chosen
}

/// `similar`, then the first guess of each other unit: of a few if there are similar ones, else of
/// all. The naive kernel takes very long at large sizes: it races again only if it was among the
/// fastest.
fn guess_of_each_unit(view: &View<'_>, similar: Vec<CandidateOutline>, guesses: &[CandidateOutline]) -> Vec<CandidateOutline> {
    let naive = view.naive().family;
    let mut units: BTreeSet<Digest> = similar.iter().map(|c| c.unit).collect();
    let most = if similar.is_empty() { usize::MAX } else { units.len() + FRESH_UNITS };
    let of_family = guesses.iter().filter(|g| g.family != naive);
    let fresh = of_family.filter(|g| units.len() < most && units.insert(g.unit)).cloned();
    similar.into_iter().chain(fresh).collect()
}

/// One of the kept, one of the new and so on, each once: time may be up before all have had theirs.
fn in_turn(kept: Vec<CandidateOutline>, new: Vec<CandidateOutline>) -> Vec<CandidateOutline> {
    let mut chosen = Vec::new();
    let (mut kept, mut new) = (kept.into_iter(), new.into_iter());
    while let pair @ ((Some(_), _) | (_, Some(_))) = (kept.next(), new.next()) {
        for candidate in [pair.0, pair.1].into_iter().flatten() {
            add(&mut chosen, candidate, usize::MAX);
        }
    }
    chosen
}

/// More candidates of the units that came out best; none if there are no more.
fn refine(view: &View<'_>) -> Vec<CandidateOutline> {
    let task = view.task();
    let units = best_units(view, task);
    let is_new = |c: &CandidateOutline| task.considered.iter().all(|known| known.id != c.id);
    if task.searched && units.first().is_some_and(|unit| !unit.iter().any(is_new)) {
        return Vec::new();
    }
    let left = |trials: u32| (trials as usize + 1).saturating_sub(task.considered.len());
    let places = view.trials.map_or(REFINED, |trials| REFINED.min(left(trials)));
    let longest = units.iter().map(Vec::len).max().unwrap_or(0);
    let in_turn = (0..longest).flat_map(|k| units.iter().filter_map(move |unit| unit.get(k)));
    in_turn.filter(|c| is_new(c)).take(places).cloned().collect()
}

/// The candidates of each of the best units, the best unit first.
fn best_units(view: &View<'_>, task: &TaskSearch) -> Vec<Vec<CandidateOutline>> {
    let timed = task.timed();
    let mut digests: Vec<Digest> = Vec::new();
    let mut units = Vec::new();
    for (seconds, candidate) in &timed {
        let near = *seconds <= REFINED_WITHIN * timed[0].0;
        if near && units.len() < REFINED_UNITS && !digests.contains(&candidate.unit) {
            digests.push(candidate.unit);
            units.push(view.space.of_same_unit(view.here, candidate));
        }
    }
    units
}
