//! What measuring came to. Failure is data.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use crate::{CandidateId, Device, Digest, MeasureProtocol, Params, Target, TaskKey};

/// The quantile of a candidate's samples by which it ranks, and likewise of a step's in a model
/// race.
///
/// Not the median: a busy host makes runs longer and never shorter, so of the few samples that a
/// race takes, one from the faster end says most about the kernel; and not the least, which is one
/// run's luck. The 20th percentile is a guess that all figures in docs/performance.md were taken
/// with.
pub const RANK_QUANTILE: f64 = 0.2;

/// The `q`-quantile (0 ≤ q ≤ 1) of samples: the nearest of them, `None` if there are none.
pub fn quantile(samples: &[f64], q: f64) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get((sorted.len().checked_sub(1)? as f64 * q).round() as usize).copied()
}

/// A timed, correct run of one candidate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Measurement {
    /// Seconds of every timed run, in the order in which they ran.
    pub samples: Vec<f64>,
    /// How many of the samples come from the final interleaved race (the last ones); 0 if it did
    /// not get there.
    pub raced: u32,
    /// Relative L2 error against the reference.
    pub error: f64,
    /// Clocks, temperature and power of the device towards the end, in words, where it tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conditions: Option<String>,
    /// Of a vendor's library: by which of its algorithms it was the fastest. cuDNN's number of it,
    /// or the place among cuBLASLt's proposals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<i64>,
}

impl Measurement {
    /// The `q`-quantile (0 ≤ q ≤ 1) of the samples that decide: those of the race if there are any,
    /// else all. Seconds.
    pub fn quantile(&self, q: f64) -> f64 {
        let from = if self.raced > 0 { self.samples.len().saturating_sub(self.raced as usize) } else { 0 };
        quantile(&self.samples[from..], q).unwrap_or(f64::INFINITY)
    }

    /// The time by which candidates are compared, at [`RANK_QUANTILE`]. Seconds.
    pub fn rank_seconds(&self) -> f64 {
        self.quantile(RANK_QUANTILE)
    }

    /// Where the candidate stands, if it has a time and its relative error is at most `allowed`:
    /// nothing else can win.
    pub fn rank(&self, allowed: f64) -> Option<Rank> {
        // Written so that NaN is refused.
        let right = self.error <= allowed && !self.samples.is_empty();
        right.then(|| Rank { raced: self.raced > 0, seconds: self.rank_seconds() })
    }

    /// The median, which tables show. Seconds.
    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }
}

/// Where a candidate stands among others of its task; the least is the best.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rank {
    /// It was in the final race. Times of different races do not compare, so those of the final
    /// race come first.
    pub raced: bool,
    /// Its seconds, by [`Measurement::rank_seconds`].
    pub seconds: f64,
}

impl Rank {
    /// The order of candidates, the best first.
    pub fn compare(&self, other: &Self) -> Ordering {
        other.raced.cmp(&self.raced).then(self.seconds.total_cmp(&other.seconds))
    }
}

/// What became of one candidate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// Right, and timed.
    Measured(Measurement),
    /// The compiler refused the source.
    BuildFailed {
        /// What the compiler printed, shortened.
        log: String,
    },
    /// The child died while running it.
    Crashed {
        /// The signal or exit status.
        reason: String,
    },
    /// One run took longer than the protocol allows.
    TimedOut {
        /// The limit, in milliseconds.
        limit_ms: u64,
    },
    /// The output differs from the reference, was not fully written, or something else was
    /// overwritten.
    WrongResult {
        /// Relative L2 error; NaN is stored as `null`.
        error: Option<f64>,
        /// What is wrong, in words.
        reason: String,
    },
    /// The device or the budget did not allow it.
    Unsupported {
        /// Why.
        reason: String,
    },
}

impl Outcome {
    /// [`Measurement::rank`], of an outcome that is one.
    pub fn rank(&self, allowed: f64) -> Option<Rank> {
        if let Self::Measured(measurement) = self { measurement.rank(allowed) } else { None }
    }
}

/// A stored outcome. Append-only, shared by all models.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct TuningRecord {
    /// The task.
    pub task: TaskKey,
    /// The candidate.
    pub candidate: CandidateId,
    /// `family@version`.
    pub family: String,
    /// The candidate's parameters.
    pub params: Params,
    /// What it was made for.
    pub target: Target,
    /// Where it was measured.
    pub device: Device,
    /// How.
    pub protocol: MeasureProtocol,
    /// What came of it.
    pub outcome: Outcome,
    /// When, Unix seconds.
    pub at: i64,
}

/// What a task is like: among tasks of one class, those of near sizes have the same fast kernels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Likeness {
    /// What must be equal: the operation, its window, types, ranks and target.
    pub class: Digest,
    /// The sizes of the operands, in an order that the class fixes; all positive.
    pub sizes: Vec<i64>,
}

impl Likeness {
    /// How far two tasks are apart: by how many doublings their sizes differ in sum. `None` for
    /// those of different classes.
    pub fn distance(&self, other: &Self) -> Option<f64> {
        let comparable = self.class == other.class && self.sizes.len() == other.sizes.len();
        let doublings = |(a, b): (&i64, &i64)| (*a.max(&1) as f64 / *b.max(&1) as f64).log2().abs();
        comparable.then(|| self.sizes.iter().zip(&other.sizes).map(doublings).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_final_race_ranks_before_the_fastest_of_others_and_what_is_wrong_not_at_all() {
        let measured = |seconds: f64, raced: u32, error: f64| {
            let samples = [5.0, seconds, seconds, 9.0, 9.0, 9.0].to_vec();
            Outcome::Measured(Measurement { samples, raced, error, conditions: None, algorithm: None })
        };
        let rank = |outcome: &Outcome| outcome.rank(1e-5);
        let (raced, screened) = (measured(2.0, 5, 1e-6), measured(1.0, 0, 1e-6));
        assert_eq!(rank(&raced), Some(Rank { raced: true, seconds: 2.0 }));
        assert_eq!(rank(&raced).unwrap().compare(&rank(&screened).unwrap()), Ordering::Less);
        for wrong in [measured(1.0, 5, 1e-4), measured(1.0, 5, f64::NAN), Outcome::TimedOut { limit_ms: 1 }] {
            assert_eq!(rank(&wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn near_tasks_differ_by_few_doublings() {
        let task = |class: &str, sizes: &[i64]| Likeness { class: Digest::of(class), sizes: sizes.to_vec() };
        let own = task("conv", &[1, 64, 56]);
        assert_eq!(own.distance(&own), Some(0.0));
        assert_eq!(own.distance(&task("conv", &[8, 64, 28])), Some(4.0));
        assert_eq!(task("conv", &[8, 64, 28]).distance(&own), Some(4.0));
        assert_eq!(own.distance(&task("matmul", &[1, 64, 56])), None);
        assert_eq!(own.distance(&task("conv", &[1, 64])), None);
    }
}
