//! What a worker asks for next: builds in parallel, measuring alone on its device, neither starved. Pure.
//!
//! Whoever measures on a CPU does nothing else meanwhile. A GPU does not mind what the CPU does, so a worker with one builds while it
//! measures.

use std::time::Duration;

use aotfarm_protocol::WorkKind;

/// How long builds may follow each other before those that wait for the device get a turn.
const SHARED_STREAK: Duration = Duration::from_secs(6);
/// How long a claim waits while builds run: soon after, there may be room for more, or for measuring.
const BUSY_WAIT: Duration = Duration::from_millis(50);
/// How long a claim waits when nothing runs.
const IDLE_WAIT: Duration = Duration::from_secs(15);

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
    /// Whether the device leaves the CPU to others.
    beside: bool,
    /// When builds began to run with no chance for exclusive work since.
    streak: Option<Duration>,
    /// The streak was ended for the sake of exclusive work; beside a GPU: exclusive work has been asked for just now.
    yielding: bool,
}

impl Turns {
    /// A worker with so many slots for `shared` kinds, whose exclusive kinds need its CPU.
    pub(crate) fn new(shared: Vec<WorkKind>, exclusive: Vec<WorkKind>, slots: u32) -> Self {
        Self { shared, exclusive, slots: slots.max(1), beside: false, streak: None, yielding: false }
    }

    /// A worker that measures on a GPU while it builds.
    pub(crate) fn beside(shared: Vec<WorkKind>, exclusive: Vec<WorkKind>, slots: u32) -> Self {
        Self { beside: true, ..Self::new(shared, exclusive, slots) }
    }

    /// What to ask for at time `now` when so many shared items run; `None`: nothing before one of them has ended.
    pub(crate) fn ask(&mut self, running: u32, exclusive_runs: bool, now: Duration) -> Option<Ask> {
        if self.beside {
            return self.ask_beside(running, exclusive_runs);
        }
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

    fn ask_beside(&mut self, running: u32, exclusive_runs: bool) -> Option<Ask> {
        let builds = running < self.slots && !self.shared.is_empty();
        let measures = !exclusive_runs && !self.exclusive.is_empty();
        let idle = running == 0 && !exclusive_runs;
        match (builds, measures) {
            (false, false) => None,
            (true, true) if idle => {
                let kinds = self.exclusive.iter().chain(&self.shared).copied().collect();
                Some(Ask { kinds, max: 1, wait: IDLE_WAIT })
            }
            // In turn: who asks for both at once is given whichever the coordinator prefers.
            (true, true) if !self.yielding => {
                self.yielding = true;
                Some(Ask { kinds: self.exclusive.clone(), max: 1, wait: Duration::ZERO })
            }
            (false, true) => {
                let wait = if idle { IDLE_WAIT } else { BUSY_WAIT };
                Some(Ask { kinds: self.exclusive.clone(), max: 1, wait })
            }
            (true, _) => {
                self.yielding = false;
                Some(Ask { kinds: self.shared.clone(), max: self.slots - running, wait: BUSY_WAIT })
            }
        }
    }

    /// An answer to the last ask came.
    pub(crate) fn answered(&mut self) {
        if !self.beside {
            self.yielding = false;
        }
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
    fn a_gpu_is_measured_on_while_builds_run() {
        let mut turns = Turns::beside(vec![Build, Link], vec![Measure, Profile], 2);
        let mut ask = |running, exclusive_runs| {
            let asked = turns.ask(running, exclusive_runs, Duration::ZERO);
            turns.answered();
            asked.map(|ask| (ask.kinds, ask.max, ask.wait))
        };
        assert_eq!(ask(0, false), Some((vec![Measure, Profile, Build, Link], 1, IDLE_WAIT)));
        assert_eq!(ask(0, true), Some((vec![Build, Link], 2, BUSY_WAIT)), "builds run beside it");
        assert_eq!(ask(1, true), Some((vec![Build, Link], 1, BUSY_WAIT)));
        assert_eq!(ask(2, true), None, "no free slot, and the device is taken");
        assert_eq!(ask(2, false), Some((vec![Measure, Profile], 1, BUSY_WAIT)), "the device is free");
        assert_eq!(ask(1, false), Some((vec![Measure, Profile], 1, Duration::ZERO)));
        assert_eq!(ask(1, false), Some((vec![Build, Link], 1, BUSY_WAIT)), "both in turn");
        let mut measures = Turns::beside(vec![], vec![Measure, Profile], 1);
        assert_eq!(measures.ask(0, false, Duration::ZERO).unwrap().wait, IDLE_WAIT);
        assert_eq!(measures.ask(0, true, Duration::ZERO), None);
    }

    #[test]
    fn a_worker_without_device_never_stops_building() {
        let mut turns = Turns::new(vec![Build, Link], vec![], 4);
        for second in 0..100 {
            assert_eq!(turns.ask(3, false, Duration::from_secs(second)).unwrap().max, 1);
        }
    }
}
