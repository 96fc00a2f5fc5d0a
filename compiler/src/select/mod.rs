//! Outcomes → Selection: per task, the winner and the reason each other candidate lost.

use std::collections::HashMap;

use aotfarm_protocol::{AutotuneRow, CandidateId, Measurement, Outcome, Rank, params_text};

use aotfarm_kernels::TuningTask;
use aotfarm_kernels::{Candidate, reference};

#[cfg(test)]
mod tests;

/// What came of tuning one task.
#[derive(Debug, Clone)]
pub struct Selection {
    /// What the artifact uses.
    pub winner: Candidate,
    /// Every candidate, best first, with its verdict.
    pub rows: Vec<AutotuneRow>,
    /// Candidates that were measured to the end.
    pub measured: u32,
    /// Candidates that were dropped while screening.
    pub dropped: u32,
    /// Candidates whose outcome is a failure.
    pub failed: u32,
}

/// A Measurement whose result was compared with the reference and found right: the only thing that can win.
struct Verified<'a> {
    /// Position among the considered: earlier is simpler.
    place: usize,
    measurement: &'a Measurement,
    rank: Rank,
}

impl<'a> Verified<'a> {
    fn new(place: usize, measurement: &'a Measurement, allowed: f64) -> Option<Self> {
        Some(Self { place, measurement, rank: measurement.rank(allowed)? })
    }

    /// Relative error (95 %) of a ratio of 20th percentiles of `n` interleaved runs each: 4 % for 10, 2 % for 50, 1.5 % for 100.
    fn noise(&self) -> f64 {
        let n = if self.rank.raced { self.measurement.raced as usize } else { self.measurement.samples.len() };
        0.15 / (n.max(1) as f64).sqrt()
    }
}

/// How much slower than the fastest a candidate may be that shares its packed weights with the winner at another size.
const SHARING: f64 = 0.05;

/// What may win.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Admission {
    /// The largest relative error, see [`allowed`].
    pub error: f64,
    /// Whether a vendor's library may do the task in the artifact.
    pub vendor: bool,
}

/// Picks the winner among `considered` (simplest first). Those without an outcome count as not measured. Candidates that reached the final
/// race rank by it, before all that did not; within the noise of the fastest, the earliest wins. If nothing was measured, the first
/// that is not of the naive family wins, provided that nothing speaks against it; in the end the naive one, which is always right.
///
/// `at_other_points` are the winners at other sizes of the same computation: a candidate that reads
/// the same packed weights as one of them wins already within
/// [`SHARING`] of the fastest, because the artifact then holds the weights once. A vendor's library is no more than a comparison unless `admission`
/// allows it; then it wins where none of ours is as fast.
pub fn select(
    task: &TuningTask,
    considered: &[Candidate],
    outcomes: &[(CandidateId, Outcome)],
    at_other_points: &[Candidate],
    admission: Admission,
) -> Selection {
    let by_id: HashMap<CandidateId, &Outcome> = outcomes.iter().map(|(id, outcome)| (*id, outcome)).collect();
    let mut verified: Vec<Verified<'_>> = Vec::new();
    for (place, candidate) in considered.iter().enumerate() {
        if let Some(Outcome::Measured(measurement)) = by_id.get(&candidate.id)
            && (candidate.vendor.is_none() || admission.vendor && measurement.algorithm.is_some())
        {
            verified.extend(Verified::new(place, measurement, admission.error));
        }
    }
    verified.sort_by(|a, b| a.rank.compare(&b.rank).then(a.place.cmp(&b.place)));

    let best = verified.first().map(|v| (v.place, v.rank, v.noise()));
    let within =
        |v: &Verified<'_>, rank: Rank, part: f64| v.rank.raced == rank.raced && v.rank.seconds <= rank.seconds * (1.0 + part);
    let tied = |v: &Verified<'_>| best.is_some_and(|(_, rank, noise)| within(v, rank, noise.max(v.noise())));
    let shares = |v: &Verified<'_>| {
        let near = best.is_some_and(|(_, rank, noise)| within(v, rank, SHARING.max(noise)));
        near && at_other_points.iter().any(|other| considered[v.place].shares_weights_with(other))
    };
    // A library is a burden to the hosts: it must be faster than all of ours beyond the noise.
    let ours = |v: &&Verified<'_>| considered[v.place].vendor.is_none();
    let fastest_is_ours = verified.first().is_some_and(|v| ours(&v));
    let near = || verified.iter().filter(ours).filter(|v| fastest_is_ours && shares(v));
    let sharing = near().min_by(|a, b| a.rank.seconds.total_cmp(&b.rank.seconds)).map(|v| v.place);
    let tied_of_ours = || verified.iter().filter(ours).filter(|v| tied(v)).map(|v| v.place).min();
    let winner_place = sharing.or_else(tied_of_ours).or_else(|| best.map(|(place, ..)| place));
    let chosen = |place: usize| match &by_id[&considered[place].id] {
        Outcome::Measured(Measurement { algorithm: Some(algorithm), .. }) => considered[place].with_algorithm(task, *algorithm),
        _ => considered[place].clone(),
    };
    let winner = winner_place.map_or_else(|| untimed(task, considered, &by_id), chosen);

    let mut rows: Vec<(usize, AutotuneRow)> = Vec::with_capacity(considered.len());
    for v in &verified {
        let slower = best.map_or(1.0, |(_, rank, _)| v.rank.seconds / rank.seconds);
        let verdict = match best {
            Some((fastest, ..)) if Some(v.place) == winner_place && v.place == fastest => "fastest".to_owned(),
            _ if Some(v.place) == winner_place && sharing.is_some() => {
                "near the fastest, shares its weights with another size".to_owned()
            }
            _ if Some(v.place) == winner_place => "tie with the fastest, simpler wins".to_owned(),
            _ if tied(v) => "tie, simpler wins".to_owned(),
            Some((_, Rank { raced: true, .. }, _)) if !v.rank.raced => format!("dropped after screening, {slower:.2}x slower"),
            _ => format!("{slower:.2}x slower"),
        };
        let verdict = if ours(&v) { verdict } else { format!("vendor library: {verdict}") };
        rows.push((v.place, row(&considered[v.place], by_id[&considered[v.place].id], verdict)));
    }
    // The winner leads, also where a tie put a hair faster one before it.
    if let Some(at) = rows.iter().position(|(place, _)| Some(*place) == winner_place) {
        rows[..=at].rotate_right(1);
    }
    let (mut failed, mut unmeasured) = (Vec::new(), Vec::new());
    for (place, candidate) in considered.iter().enumerate() {
        if rows.iter().any(|(p, _)| *p == place) {
            continue;
        }
        let untouched = Outcome::Unsupported { reason: "not measured".to_owned() };
        match by_id.get(&candidate.id) {
            Some(Outcome::Measured(m)) if candidate.vendor.is_some() && !m.samples.is_empty() => {
                let slower = best.map_or(1.0, |(_, rank, _)| m.rank_seconds() / rank.seconds);
                let verdict = format!("vendor library, for comparison only: {slower:.2}x");
                let row = row(candidate, by_id[&candidate.id], verdict);
                let at = rows.iter().skip(1).position(|(_, other)| other.seconds > row.seconds);
                rows.insert(at.map_or(rows.len(), |at| at + 1), (place, row));
            }
            Some(outcome) => failed.push(row(candidate, outcome, failure(outcome, admission.error))),
            None if candidate.id == winner.id => {
                unmeasured.insert(0, row(candidate, &untouched, "chosen without measuring".to_owned()));
            }
            None => unmeasured.push(row(candidate, &untouched, "not measured".to_owned())),
        }
    }
    let raced_any = best.is_some_and(|(_, rank, _)| rank.raced);
    let measured = verified.iter().filter(|v| !raced_any || v.rank.raced).count();
    Selection {
        winner,
        measured: measured as u32,
        dropped: (verified.len() - measured) as u32,
        failed: failed.len() as u32,
        rows: rows.into_iter().map(|(_, row)| row).chain(unmeasured).chain(failed).collect(),
    }
}

/// The choice when no candidate was measured.
fn untimed(task: &TuningTask, considered: &[Candidate], outcomes: &HashMap<CandidateId, &Outcome>) -> Candidate {
    let naive = reference(task);
    let default = considered.iter().find(|c| c.family != naive.family && c.vendor.is_none() && !outcomes.contains_key(&c.id));
    default.cloned().unwrap_or(naive)
}

/// Why a candidate with this outcome cannot win.
fn failure(outcome: &Outcome, allowed: f64) -> String {
    match outcome {
        Outcome::Measured(m) if m.samples.is_empty() => "not timed: the budget was spent".to_owned(),
        Outcome::Measured(m) => format!("not exact enough: relative error {:.1e} is above {allowed:.1e}", m.error),
        Outcome::BuildFailed { log } => format!("does not build: {}", log.lines().next().unwrap_or("no message").trim()),
        Outcome::Crashed { reason } => format!("crashed: {reason}"),
        Outcome::TimedOut { limit_ms } => format!("took longer than {limit_ms} ms"),
        Outcome::WrongResult { error: Some(error), reason } => format!("wrong result: {reason} (relative error {error:.1e})"),
        Outcome::WrongResult { error: None, reason } => format!("wrong result: {reason}"),
        Outcome::Unsupported { reason } => reason.clone(),
    }
}

fn row(candidate: &Candidate, outcome: &Outcome, verdict: String) -> AutotuneRow {
    let (outcome, seconds) = match outcome {
        Outcome::Measured(m) => {
            let seconds = (!m.samples.is_empty()).then(|| m.median());
            let (raced, error, conditions) = (m.raced, m.error, m.conditions.clone());
            let algorithm = m.algorithm;
            (Outcome::Measured(Measurement { samples: Vec::new(), raced, error, conditions, algorithm }), seconds)
        }
        other => (other.clone(), None),
    };
    AutotuneRow {
        family: candidate.family.to_owned(),
        params: params_text(&candidate.params),
        outcome,
        seconds,
        verdict,
        baseline: candidate.vendor.is_some(),
    }
}
