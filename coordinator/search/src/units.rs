//! Translation units that a search asked for, and what became of them.

use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};

use aotfarm_protocol::Digest;

use crate::action::Cost;

/// What became of a unit.
#[derive(Debug, Clone)]
pub(crate) enum Unit {
    Wanted,
    Built(Digest, Cost),
    /// The compiler refused it; measured as a fact about the source.
    Failed(String, Cost),
    /// Its work item is quarantined: a fact about the farm, never stored.
    GivenUp,
}

/// What building some units took.
#[derive(Debug, Default)]
pub(crate) struct BuildCost<'a> {
    pub built: u32,
    pub seconds: f64,
    pub workers: BTreeSet<&'a str>,
}

#[derive(Debug, Default)]
pub(crate) struct Units(BTreeMap<Digest, Unit>);

impl Units {
    /// Whether this unit is wanted for the first time.
    pub(crate) fn want(&mut self, unit: Digest) -> bool {
        match self.0.entry(unit) {
            Entry::Vacant(entry) => {
                entry.insert(Unit::Wanted);
                true
            }
            Entry::Occupied(_) => false,
        }
    }

    pub(crate) fn end(&mut self, unit: Digest, end: Option<Result<Digest, String>>, cost: Cost) {
        let state = match end {
            Some(Ok(object)) => Unit::Built(object, cost),
            Some(Err(log)) => Unit::Failed(log, cost),
            None => Unit::GivenUp,
        };
        self.0.insert(unit, state);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn has_ended(&self, unit: &Digest) -> bool {
        !matches!(self.0.get(unit), None | Some(Unit::Wanted))
    }

    /// A unit that was asked for.
    pub(crate) fn get(&self, unit: &Digest) -> &Unit {
        &self.0[unit]
    }

    /// The object of a unit, if it was built.
    pub(crate) fn object(&self, unit: &Digest) -> Option<Digest> {
        match self.0.get(unit) {
            Some(Unit::Built(object, _)) => Some(*object),
            _ => None,
        }
    }

    /// What those of `units` took that were built or refused.
    pub(crate) fn cost(&self, units: &BTreeSet<Digest>) -> BuildCost<'_> {
        let mut all = BuildCost::default();
        for unit in units {
            if let Some(Unit::Built(_, cost) | Unit::Failed(_, cost)) = self.0.get(unit) {
                all.built += 1;
                all.seconds += cost.seconds;
                all.workers.extend(cost.worker.as_deref());
            }
        }
        all
    }
}
