//! What a measuring child is asked to do, and how it checks, whatever it measures on.

use std::time::Duration;

use super::messages::{Event, Order};

/// The reference may take this long.
pub(super) const REFERENCE_LIMIT: Duration = Duration::from_secs(120);
/// What the bytes around a buffer hold. No float of any width that a kernel writes by accident
/// looks like it.
pub(super) const CANARY: u8 = 0xC5;
/// What each word of a workspace holds on entry: a NaN in every format, so that one who relies on
/// zeros is found out. It is not the NaN that unwritten outputs hold.
pub(super) const STALE: u32 = 0x7FFF_FFFF;

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
