//! The life of a work item as a pure state machine. The database layer reads a row, asks here, and writes what comes back,
//! in one transaction: so what is proved here about generations and attempts holds for the farm.

use aotfarm_protocol::{ItemState, WorkerId};
use aotfarm_store::Item;

/// An item that was given out this often and never came back is quarantined.
pub const MAX_ATTEMPTS: u32 = 3;

/// What happens to a work item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ItemEvent {
    /// A job needs it. `afresh`: the job did not need it before, so an old quarantine is forgiven.
    Want {
        /// Whether this job asks for the first time.
        afresh: bool,
    },
    /// The blob of its result is no longer in the store: it must be made again.
    Forget,
    /// No job needs it any more.
    Drop,
    /// It is given to a worker until a time.
    Claim {
        /// The worker.
        worker: WorkerId,
        /// Unix milliseconds.
        until: i64,
    },
    /// A heartbeat names it.
    Renew {
        /// The worker.
        worker: WorkerId,
        /// The generation that it believes to have.
        generation: i64,
        /// Unix milliseconds.
        until: i64,
    },
    /// A worker reports.
    Report {
        /// The worker.
        worker: WorkerId,
        /// The generation that it believes to have.
        generation: i64,
        /// Whether there is a result.
        ok: bool,
    },
    /// The clock shows `now`.
    Expire {
        /// Unix milliseconds.
        now: i64,
    },
    /// The worker leaves and hands its lease back, which is nobody's failure.
    Release {
        /// The worker.
        worker: WorkerId,
    },
}

/// What became of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The item is now this.
    To(Item),
    /// Nothing changes, and that is fine (an accepted report that is repeated, an unexpired lease …).
    Same,
    /// The caller does not have the lease.
    LeaseLost,
}

/// Applies one event.
pub fn apply(item: &Item, event: ItemEvent) -> Change {
    use ItemState as S;
    let holds = |w: WorkerId, g: i64| item.state == S::Leased && item.worker == Some(w) && item.generation == g;
    let back = |attempts: u32| {
        let state = if attempts >= MAX_ATTEMPTS { S::Quarantined } else { S::Queued };
        Change::To(Item { state, attempts, expires_at: None, ..item.clone() })
    };
    match event {
        ItemEvent::Want { afresh } => match item.state {
            S::Cancelled => Change::To(Item { state: S::Queued, attempts: 0, ..item.clone() }),
            S::Quarantined if afresh => Change::To(Item { state: S::Queued, attempts: 0, ..item.clone() }),
            S::Quarantined | S::Queued | S::Leased | S::Done => Change::Same,
        },
        ItemEvent::Forget => match item.state {
            S::Done => Change::To(Item { state: S::Queued, attempts: 0, completions: 0, ..item.clone() }),
            _ => Change::Same,
        },
        ItemEvent::Drop => match item.state {
            S::Queued | S::Leased => Change::To(Item { state: S::Cancelled, expires_at: None, ..item.clone() }),
            S::Done | S::Quarantined | S::Cancelled => Change::Same,
        },
        ItemEvent::Claim { worker, until } if item.state == S::Queued => Change::To(Item {
            state: S::Leased,
            generation: item.generation + 1,
            attempts: item.attempts + 1,
            worker: Some(worker),
            expires_at: Some(until),
            ..item.clone()
        }),
        ItemEvent::Claim { .. } => Change::LeaseLost,
        ItemEvent::Renew { worker, generation, until } if holds(worker, generation) => {
            Change::To(Item { expires_at: Some(until), ..item.clone() })
        }
        ItemEvent::Renew { .. } => Change::LeaseLost,
        ItemEvent::Report { worker, generation, ok } if holds(worker, generation) => {
            if ok {
                Change::To(Item { state: S::Done, completions: item.completions + 1, expires_at: None, ..item.clone() })
            } else {
                back(item.attempts)
            }
        }
        // The answer to an accepted report got lost and the worker sends it again.
        ItemEvent::Report { worker, generation, ok: true }
            if item.state == S::Done && item.worker == Some(worker) && item.generation == generation =>
        {
            Change::Same
        }
        ItemEvent::Report { .. } => Change::LeaseLost,
        ItemEvent::Expire { now } if item.state == S::Leased && item.expires_at.is_none_or(|at| at < now) => back(item.attempts),
        ItemEvent::Expire { .. } => Change::Same,
        ItemEvent::Release { worker } if item.state == S::Leased && item.worker == Some(worker) => {
            back(item.attempts.saturating_sub(1))
        }
        ItemEvent::Release { .. } => Change::Same,
    }
}

#[cfg(test)]
mod tests {
    use aotfarm_protocol::WorkerId;
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn worker(n: u8) -> WorkerId {
        WorkerId(Uuid::from_u128(u128::from(n)))
    }

    fn queued() -> Item {
        Item { state: ItemState::Queued, generation: 0, attempts: 0, completions: 0, worker: None, expires_at: None }
    }

    fn to(change: Change) -> Item {
        match change {
            Change::To(item) => item,
            other => panic!("expected a change, got {other:?}"),
        }
    }

    #[test]
    fn third_loss_quarantines_and_a_new_job_forgives() {
        let mut item = queued();
        for attempt in 1..=MAX_ATTEMPTS {
            item = to(apply(&item, ItemEvent::Claim { worker: worker(1), until: 10 }));
            assert_eq!(item.attempts, attempt);
            item = to(apply(&item, ItemEvent::Expire { now: 11 }));
        }
        assert_eq!(item.state, ItemState::Quarantined);
        assert_eq!(apply(&item, ItemEvent::Want { afresh: false }), Change::Same);
        item = to(apply(&item, ItemEvent::Want { afresh: true }));
        assert_eq!((item.state, item.attempts, item.generation), (ItemState::Queued, 0, 3));
    }

    #[test]
    fn leaving_is_no_attempt() {
        let mut item = queued();
        for _ in 0..10 {
            item = to(apply(&item, ItemEvent::Claim { worker: worker(1), until: 10 }));
            item = to(apply(&item, ItemEvent::Release { worker: worker(1) }));
        }
        assert_eq!((item.state, item.attempts), (ItemState::Queued, 0));
    }

    fn event() -> impl Strategy<Value = (u8, ItemEvent)> {
        let w = 0u8..3;
        (w, 0i64..6, any::<bool>(), 0u8..7, 0i64..40).prop_map(|(w, generation, flag, kind, time)| {
            let worker = worker(w);
            let event = match kind {
                0 => ItemEvent::Want { afresh: flag },
                1 => ItemEvent::Drop,
                2 => ItemEvent::Claim { worker, until: time },
                3 => ItemEvent::Renew { worker, generation, until: time },
                4 => ItemEvent::Report { worker, generation, ok: flag },
                5 => ItemEvent::Expire { now: time },
                _ => ItemEvent::Release { worker },
            };
            (w, event)
        })
    }

    proptest! {
        /// Whatever happens in whatever order: a result is accepted at most once, only from the newest generation and from its
        /// holder; the generation never falls; an item that is wanted is always queued, leased, done or quarantined (never lost).
        #[test]
        fn never_lost_never_twice_never_stale(events in prop::collection::vec(event(), 0..60)) {
            let mut item = queued();
            let mut wanted = true;
            for (_, event) in events {
                let before = item.clone();
                let change = apply(&item, event);
                match event {
                    ItemEvent::Want { .. } => wanted = true,
                    ItemEvent::Drop => wanted = before.state == ItemState::Done || before.state == ItemState::Quarantined,
                    _ => {}
                }
                if let Change::To(after) = change {
                    prop_assert!(after.generation >= before.generation);
                    prop_assert_eq!(after.generation > before.generation, matches!(event, ItemEvent::Claim { .. }));
                    if after.completions > before.completions {
                        let ItemEvent::Report { worker, generation, ok: true } = event else {
                            return Err(TestCaseError::fail(format!("{event:?} completed an item")));
                        };
                        prop_assert_eq!((Some(worker), generation), (before.worker, before.generation));
                        prop_assert_eq!(before.state, ItemState::Leased);
                    }
                    prop_assert_eq!(after.expires_at.is_some(), after.state == ItemState::Leased);
                    item = after;
                }
                prop_assert!(item.completions <= 1);
                prop_assert!(item.attempts <= MAX_ATTEMPTS);
                prop_assert_eq!(item.state == ItemState::Done, item.completions == 1);
                prop_assert!(!wanted || item.state != ItemState::Cancelled, "lost: {:?}", item);
            }
        }
    }
}
