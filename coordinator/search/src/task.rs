//! The search of one task.

use std::collections::BTreeMap;

use aotfarm_protocol::{CandidateId, Outcome, Rank, TaskKey};

use crate::action::Cost;
use crate::effort::Effort;
use crate::outline::{CandidateOutline, TaskOutline};
use crate::tally::Tally;

/// Milliseconds that every Measure item gets at least. A guess: some ten rounds of a kernel that
/// takes a millisecond.
pub(crate) const BUDGET_FLOOR_MS: u64 = 150;

/// A candidate that a race had no time for is tried again with this many times its time. A guess,
/// above 2: how a budget is shared among the tasks differs from model to model.
const AMPLE: f64 = 3.0;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SearchState {
    /// Not begun: the point before is not decided.
    Waiting,
    Building,
    Measuring,
    Decided,
}

/// What a task may cost, and whom it follows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Share {
    /// The spec that is searched in its stead, if it is not the first of its core.
    pub representative: Option<usize>,
    /// Whether it is a part of the model's work that shows.
    pub heavy: bool,
    /// Milliseconds of measuring.
    pub budget_ms: u64,
    /// How many candidates it begins with.
    pub effort: Effort,
    /// Whether anything is measured at all.
    pub measured: bool,
    /// Whether its best units are refined after a first race.
    pub refined: bool,
}

/// A task, what is considered for it, and what is known of that.
#[derive(Debug)]
pub(crate) struct TaskSearch {
    pub key: TaskKey,
    pub title: String,
    pub allowed: f64,
    pub footprint: u64,
    pub share: Share,
    pub state: SearchState,
    /// Whether it begins with what an earlier search found out. Its best unit was refined then, if
    /// all of it is known; which are next best is luck.
    pub searched: bool,
    /// Whether its best units are still to be refined.
    pub refines: bool,
    pub considered: Vec<CandidateOutline>,
    pub reference: Option<CandidateOutline>,
    /// Those that a Measure item is made for, in order.
    pub racing: Vec<CandidateOutline>,
    pub outcomes: BTreeMap<CandidateId, Outcome>,
    pub given_up: u32,
    pub cost: Cost,
    pub winner: Option<CandidateOutline>,
}

impl TaskSearch {
    pub(crate) fn new(outline: &TaskOutline, share: Share) -> Self {
        Self {
            key: outline.key,
            title: outline.title.clone(),
            allowed: outline.allowed,
            footprint: outline.footprint,
            share,
            state: SearchState::Waiting,
            searched: false,
            refines: share.refined,
            considered: Vec::new(),
            reference: None,
            racing: Vec::new(),
            outcomes: BTreeMap::new(),
            given_up: 0,
            cost: Cost::default(),
            winner: None,
        }
    }

    /// Milliseconds for its next race: one that is refined has two races.
    pub(crate) fn race_ms(&self) -> u64 {
        let all = self.share.budget_ms;
        if self.share.refined { (all / 2).max(BUDGET_FLOOR_MS) } else { all }
    }

    /// Whether an outcome that came about with `budget_ms` of measuring answers what this search
    /// asks. "The budget ended" is no answer to someone who brings a much larger one.
    pub(crate) fn is_answered_by(&self, outcome: &Outcome, budget_ms: u64) -> bool {
        !matches!(outcome, Outcome::Unsupported { .. }) || AMPLE * budget_ms as f64 >= self.race_ms() as f64
    }

    /// Whether there is anything to find out: a task with only its naive candidate is decided.
    pub(crate) fn is_measured(&self) -> bool {
        let naive = self.reference.as_ref().map(|r| r.id);
        let only_naive = self.considered.len() == 1 && naive == Some(self.considered[0].id);
        self.share.measured && !only_naive
    }

    /// The candidates of which nothing is known.
    pub(crate) fn unknown(&self) -> Vec<CandidateOutline> {
        self.considered.iter().filter(|c| !self.outcomes.contains_key(&c.id)).cloned().collect()
    }

    /// The candidates that have a time and are exact enough, the fastest first, with their seconds.
    pub(crate) fn timed(&self) -> Vec<(f64, &CandidateOutline)> {
        let rank = |c: &CandidateOutline| self.outcomes.get(&c.id).and_then(|outcome| outcome.rank(self.allowed));
        let mut timed: Vec<(Rank, &CandidateOutline)> = self.considered.iter().filter_map(|c| Some((rank(c)?, c))).collect();
        timed.sort_by(|(a, _), (b, _)| a.compare(b));
        timed.into_iter().map(|(rank, c)| (rank.seconds, c)).collect()
    }

    /// [`Self::timed`] without the seconds.
    pub(crate) fn best(&self) -> Vec<&CandidateOutline> {
        self.timed().into_iter().map(|(_, c)| c).collect()
    }

    /// Seconds of the fastest.
    pub(crate) fn best_seconds(&self) -> Option<f64> {
        self.timed().first().map(|(seconds, _)| *seconds)
    }

    /// Takes all but the first `champions` out of the final race: another race follows, and times
    /// of different races do not compare, so those that race again come first.
    pub(crate) fn reopen_race(&mut self, champions: usize) {
        let champions: Vec<CandidateId> = self.best().into_iter().take(champions).map(|c| c.id).collect();
        for (id, outcome) in &mut self.outcomes {
            if let Outcome::Measured(measurement) = outcome
                && !champions.contains(id)
            {
                measurement.raced = 0;
            }
        }
    }

    /// Its race ended: with outcomes, or given up.
    pub(crate) fn end_race(&mut self, end: Option<Vec<(CandidateId, Outcome)>>, cost: Cost) {
        match end {
            Some(outcomes) => self.outcomes.extend(outcomes),
            None => {
                let open = self.racing.iter().filter(|c| !self.outcomes.contains_key(&c.id));
                self.given_up += open.count() as u32;
            }
        }
        self.cost.seconds += cost.seconds;
        self.cost.worker = cost.worker.or(self.cost.worker.take());
        // All that was to be learnt is learnt: the decision follows when the search advances.
        self.racing.clear();
    }

    /// Adds how its candidates fared.
    pub(crate) fn count(&self, tally: &mut Tally) {
        tally.given_up += self.given_up;
        for candidate in &self.considered {
            tally.count(self.outcomes.get(&candidate.id));
        }
    }
}
