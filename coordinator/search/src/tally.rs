//! How many candidates of a search came out how.

use aotfarm_protocol::Outcome;

/// How the candidates that were to be measured fared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Candidates that were to be measured.
    pub planned: u32,
    /// Of which have a time.
    pub measured: u32,
    /// Did not compile.
    pub build_failed: u32,
    /// Crashed, ran into a limit, or computed wrong numbers.
    pub faulty: u32,
    /// The device or the budget did not allow it.
    pub unsupported: u32,
    /// Their work item was given up.
    pub given_up: u32,
}

impl Tally {
    /// Whether at least half of those that there was time for were measured. The budget cuts off
    /// the guesses that are believed worst, in a large model many of them.
    #[must_use]
    pub fn tells_enough(&self) -> bool {
        let tried = self.planned.saturating_sub(self.unsupported);
        self.planned == 0 || (self.measured > 0 && 2 * self.measured >= tried)
    }

    /// The sum of two.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            planned: self.planned + other.planned,
            measured: self.measured + other.measured,
            build_failed: self.build_failed + other.build_failed,
            faulty: self.faulty + other.faulty,
            unsupported: self.unsupported + other.unsupported,
            given_up: self.given_up + other.given_up,
        }
    }

    /// Counts a planned candidate with its outcome, if it has one.
    pub(crate) fn count(&mut self, outcome: Option<&Outcome>) {
        self.planned += 1;
        match outcome {
            Some(Outcome::Measured(m)) if m.samples.is_empty() => self.unsupported += 1,
            Some(Outcome::Measured(_)) => self.measured += 1,
            Some(Outcome::BuildFailed { .. }) => self.build_failed += 1,
            Some(Outcome::Crashed { .. } | Outcome::TimedOut { .. } | Outcome::WrongResult { .. }) => self.faulty += 1,
            Some(Outcome::Unsupported { .. }) => self.unsupported += 1,
            None => {}
        }
    }
}
