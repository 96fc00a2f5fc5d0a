//! What orders candidates.

use std::cmp::Ordering;

use aotfarm_protocol::Outcome;

/// Where a candidate stands among others of its task; the least is the best.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rank {
    /// It was in the final race. Times of different races do not compare, so those of the final
    /// race come first.
    pub raced: bool,
    /// Its seconds, by [`Measurement::rank`](aotfarm_protocol::Measurement::rank).
    pub seconds: f64,
}

impl Rank {
    pub(crate) fn cmp(&self, other: &Self) -> Ordering {
        other.raced.cmp(&self.raced).then(self.seconds.total_cmp(&other.seconds))
    }
}

/// The rank of a candidate that has a time and whose relative error is at most `allowed`; the
/// selection ranks alike.
pub fn rank(outcome: &Outcome, allowed: f64) -> Option<Rank> {
    match outcome {
        Outcome::Measured(m) if !m.samples.is_empty() && m.error <= allowed => {
            Some(Rank { raced: m.raced > 0, seconds: m.rank() })
        }
        _ => None,
    }
}
