//! What a worker asks for next: builds in parallel, measuring alone, neither starved. Pure.

use std::time::Duration;

use aotfarm_protocol::WorkKind;

/// How long builds may follow each other before those that wait for the device get a turn.
const SHARED_STREAK: Duration = Duration::from_secs(6);
/// How long a claim waits while builds run: soon after, there may be room for more, or for measuring.
const BUSY_WAIT: Duration = Duration::from_millis(50);
/// How long a claim waits when nothing runs.
const IDLE_WAIT: Duration = Duration::from_secs(15);

/// Whether an item needs the device for itself.
pub(crate) const fn is_exclusive(kind: WorkKind) -> bool {
    matches!(kind, WorkKind::Measure | WorkKind::Profile)
}

/// A claim to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) kinds: Vec<WorkKind>,
    pub(crate) max: u32,
    pub(crate) wait: Duration,
}

/// What the worker can do, and how long it has been since measuring had its chance.
#[derive(Debug, Clone)]
pub(crate) struct Turns {
    shared: Vec<WorkKind>,
    exclusive: Vec<WorkKind>,
    slots: u32,
    /// When builds began to run with no chance for exclusive work since.
    streak: Option<Duration>,
    /// The streak was ended for the sake of exclusive work.
    yielding: bool,
}

impl Turns {
    /// A worker with so many slots for `shared` kinds.
    pub(crate) fn new(shared: Vec<WorkKind>, exclusive: Vec<WorkKind>, slots: u32) -> Self {
        Self { shared, exclusive, slots: slots.max(1), streak: None, yielding: false }
    }

    /// What to ask for at time `now` when so many shared items run; `None`: nothing before one of them has ended.
    pub(crate) fn ask(&mut self, running: u32, exclusive_runs: bool, now: Duration) -> Option<Ask> {
        if exclusive_runs || running >= self.slots {
            return None;
        }
        if running == 0 {
            if self.yielding {
                // Only exclusive work, and without waiting: a build that is offered instead would go before it for ever.
                return Some(Ask { kinds: self.exclusive.clone(), max: 1, wait: Duration::ZERO });
            }
            self.streak = Some(now);
            // One at first: if it has to run alone, another worker should have the next.
            let kinds = self.exclusive.iter().chain(&self.shared).copied().collect();
            return Some(Ask { kinds, max: 1, wait: IDLE_WAIT });
        }
        let streak = now.saturating_sub(*self.streak.get_or_insert(now));
        if !self.exclusive.is_empty() && streak >= SHARED_STREAK {
            self.yielding = true;
            return None;
        }
        Some(Ask { kinds: self.shared.clone(), max: self.slots - running, wait: BUSY_WAIT })
    }

    /// An answer to the last ask came.
    pub(crate) fn answered(&mut self) {
        self.yielding = false;
    }
}

#[cfg(test)]
mod tests {
    use WorkKind::{Build, Link, Measure, Profile};

    use super::*;

    #[test]
    fn measuring_waits_for_builds_and_gets_its_turn() {
        let mut turns = Turns::new(vec![Build, Link], vec![Measure, Profile], 2);
        let at = Duration::from_millis;
        let first = turns.ask(0, false, at(0)).unwrap();
        assert_eq!((first.kinds, first.max), (vec![Measure, Profile, Build, Link], 1));
        turns.answered();
        assert_eq!(turns.ask(1, false, at(100)).unwrap().kinds, [Build, Link], "beside a build only shared work");
        assert_eq!(turns.ask(2, false, at(200)), None, "no free slot");
        assert_eq!(turns.ask(0, true, at(200)), None, "measuring is exclusive");
        assert_eq!(turns.ask(1, false, at(6500)), None, "builds have had their streak: finish");
        let turn = turns.ask(0, false, at(6600)).unwrap();
        assert_eq!((turn.kinds, turn.wait), (vec![Measure, Profile], Duration::ZERO));
        turns.answered();
        assert_eq!(turns.ask(0, false, at(6700)).unwrap().kinds.len(), 4, "none was there: back to everything");
    }

    #[test]
    fn a_worker_without_device_never_stops_building() {
        let mut turns = Turns::new(vec![Build, Link], vec![], 4);
        for second in 0..100 {
            assert_eq!(turns.ask(3, false, Duration::from_secs(second)).unwrap().max, 1);
        }
    }
}
