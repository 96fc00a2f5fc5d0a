//! What earlier searches found out, as it comes from TuningRecords.

use std::collections::{BTreeMap, HashMap};

use aotfarm_protocol::{CandidateId, Outcome, Params, Target, TaskKey, TuningRecord};

/// Compute capabilities whose records may help others: those of NVIDIA from Turing on.
const GPUS: [u32; 12] = [75, 80, 86, 87, 88, 89, 90, 100, 103, 110, 120, 121];

/// A stored outcome and the budget under which it came about.
#[derive(Debug, Clone, PartialEq)]
pub struct Known {
    /// The outcome.
    pub outcome: Outcome,
    /// Milliseconds that its Measure item had.
    pub budget_ms: u64,
    /// `family@version`.
    pub family: String,
    /// The candidate's parameters.
    pub params: Params,
}

impl From<TuningRecord> for Known {
    fn from(record: TuningRecord) -> Self {
        let TuningRecord { outcome, protocol, family, params, .. } = record;
        Self { outcome, budget_ms: protocol.budget_ms, family, params }
    }
}

/// Stored outcomes by task and candidate.
pub type KnownOutcomes = HashMap<TaskKey, BTreeMap<CandidateId, Known>>;

/// For a task, the best points of families in the tasks that are most like it, as `family@version`
/// and parameters, the fastest of the nearest first.
pub type Similar = HashMap<TaskKey, Vec<(String, Params)>>;

/// The points of a task's records that got into its final race, the fastest first. `allowed` is the
/// largest relative error that is right.
pub fn fastest_points(records: impl IntoIterator<Item = TuningRecord>, allowed: f64) -> Vec<(String, Params)> {
    let raced = |record: TuningRecord| {
        let rank = record.outcome.rank(allowed).filter(|rank| rank.raced)?;
        Some((rank.seconds, record.family, record.params))
    };
    let mut raced: Vec<_> = records.into_iter().filter_map(raced).collect();
    raced.sort_by(|a, b| a.0.total_cmp(&b.0));
    raced.into_iter().map(|(_, family, params)| (family, params)).collect()
}

/// The targets whose records help one that nothing can be measured for, the nearest first. A CPU is
/// related to others of its target alone, because those of another lay out images otherwise. Of two
/// GPUs that are equally near the older one is first: its kernels are legal more often than the
/// newer one's.
pub fn relatives(target: Target) -> Vec<Target> {
    match target {
        Target::Cpu(_) => vec![target],
        Target::Cuda { sm } => {
            let mut all = GPUS;
            all.sort_by_key(|other| (other.abs_diff(sm), *other));
            all.map(|sm| Target::Cuda { sm }).to_vec()
        }
    }
}
