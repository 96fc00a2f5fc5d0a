//! What a measuring child is asked to do, whatever it measures on.

use super::messages::{Event, Order};

/// What checks and times candidates: a team of threads, or a GPU.
pub(super) trait Measuring {
    /// How many candidates there are.
    fn candidates(&self) -> usize;
    /// Carries out [`Order::Check`].
    fn check(&mut self, candidate: usize) -> Event;
    /// Carries out [`Order::Round`].
    fn round(&mut self, order: &[usize], rounds: u32) -> Event;
}

/// Carries out an order within a job. Fails when it makes no sense.
pub(super) fn obey(measuring: &mut impl Measuring, order: &Order) -> Result<Event, String> {
    let known = |i: &usize| *i < measuring.candidates();
    match order {
        Order::Check { candidate } if known(candidate) => Ok(measuring.check(*candidate)),
        Order::Round { order, rounds } if order.iter().all(known) => Ok(measuring.round(order, *rounds)),
        other => Err(format!("an order that cannot be carried out: {other:?}")),
    }
}
