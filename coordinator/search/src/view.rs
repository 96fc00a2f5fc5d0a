//! What a strategy sees when it chooses candidates for a task.

use std::collections::{BTreeMap, BTreeSet};

use aotfarm_protocol::{CandidateId, Params, TuneMode};

use crate::known::{Known, KnownOutcomes, Similar};
use crate::outline::{CandidateOutline, TaskRef};
use crate::space::SearchSpace;
use crate::task::TaskSearch;

/// A task and its surroundings.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub space: &'a dyn SearchSpace,
    /// The task.
    pub here: TaskRef,
    /// All tasks of the variant, by spec and point.
    pub tasks: &'a [Vec<TaskSearch>],
    pub known: &'a KnownOutcomes,
    pub similar: &'a Similar,
    pub mode: TuneMode,
    /// Most candidates per task, when the user said so.
    pub trials: Option<u32>,
}

impl<'a> View<'a> {
    pub(crate) fn task(&self) -> &'a TaskSearch {
        &self.tasks[self.here.spec][self.here.point]
    }

    /// Whether it is at the smallest of its spec's points.
    pub(crate) fn is_first(&self) -> bool {
        self.here.point == 0
    }

    /// The same computation at the next smaller point.
    pub(crate) fn smaller(&self) -> Option<&'a TaskSearch> {
        self.tasks[self.here.spec][..self.here.point].last()
    }

    /// The task that is searched in this one's stead, at the same point.
    pub(crate) fn representative(&self) -> Option<&'a TaskSearch> {
        self.task().share.representative.map(|spec| &self.tasks[spec][self.here.point])
    }

    /// What is known of the task.
    pub(crate) fn known(&self) -> Option<&'a BTreeMap<CandidateId, Known>> {
        self.known.get(&self.task().key)
    }

    /// The points that are fast in similar tasks.
    pub(crate) fn similar(&self) -> &'a [(String, Params)] {
        self.similar.get(&self.task().key).map_or(&[], Vec::as_slice)
    }

    /// The compiler's first candidates, within the bound on units.
    pub(crate) fn guesses(&self) -> Vec<CandidateOutline> {
        let effort = self.task().share.effort;
        let mut units = BTreeSet::new();
        let mut guesses = self.space.candidates(self.here, self.mode, effort.candidates);
        guesses.retain(|c| units.contains(&c.unit) || (units.len() < effort.units && units.insert(c.unit)));
        guesses
    }

    pub(crate) fn naive(&self) -> CandidateOutline {
        self.space.reference(self.here)
    }

    /// A known point of a family, if it is legal here.
    pub(crate) fn candidate(&self, known: &Known) -> Option<CandidateOutline> {
        self.space.candidate(self.here, &known.family, &known.params)
    }

    /// The candidates of another task that are right and legal here, the fastest there first. A
    /// vendor's library is no candidate here, and takes nobody's place.
    pub(crate) fn legal(self, other: &'a TaskSearch) -> impl Iterator<Item = CandidateOutline> + 'a {
        other.best().into_iter().filter_map(move |c| self.space.candidate(self.here, &c.family, &c.params))
    }
}
