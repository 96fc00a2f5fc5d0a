//! What a strategy is.

use aotfarm_protocol::MeasureProtocol;

use crate::effort::Effort;
use crate::outline::CandidateOutline;
use crate::view::View;

/// Version of the measuring protocol that this coordinator asks for.
pub const PROTOCOL_VERSION: u32 = 1;

/// How thoroughly candidates are timed: the fields of a [`MeasureProtocol`] that do not depend on
/// the task.
pub(crate) struct Timing {
    pub screen_runs: u32,
    pub race_runs: u32,
    pub race_width: u32,
    pub drop_factor: f64,
    /// Bytes of operands that are rotated; what a run of the whole model touches without a number.
    pub rotate_bytes: Option<u64>,
    pub run_limit_ms: u64,
    pub memory_limit: u64,
}

/// What a search considers for a task when it begins.
pub(crate) struct Opening {
    pub considered: Vec<CandidateOutline>,
    /// Whether that is what an earlier search found out.
    pub searched: bool,
}

impl Opening {
    /// What no search found out.
    pub(crate) fn new(considered: Vec<CandidateOutline>) -> Self {
        Self { considered, searched: false }
    }
}

/// How tasks are searched.
pub(crate) struct Strategy {
    /// Milliseconds of measuring for all variants of a job, unless the user said otherwise.
    pub budget_ms: u64,
    /// From which share of the work on which effort is made, the largest first.
    pub efforts: &'static [(f64, Effort)],
    pub timing: Timing,
    /// Whether anything is measured.
    pub measures: bool,
    /// Whether of the tasks of a core one is searched for all.
    pub has_representatives: bool,
    /// Whether fewer finalists race where a run takes so long that the budget ends before they have
    /// had theirs.
    pub fits_race_to_budget: bool,
    /// Above this many operations the naive kernel takes too long to be the reference at a point
    /// that is not the first.
    pub naive_reference_flops: f64,
    /// Chooses what a task begins with.
    pub open: fn(&View<'_>) -> Opening,
    /// Chooses what races once more after the first race, where there is a second.
    pub refine: Option<fn(&View<'_>) -> Vec<CandidateOutline>>,
}

impl Strategy {
    /// The effort for a task that is `share` of the work at its spec's first point.
    pub(crate) fn effort(&self, share: f64) -> Effort {
        self.efforts.iter().find(|(least, _)| share >= *least).map_or(Effort::ALL, |(_, effort)| *effort)
    }

    /// How candidates are measured in `budget_ms`; `footprint` is what one run of the whole model
    /// touches, in bytes.
    pub(crate) fn protocol(&self, threads: u32, budget_ms: u64, footprint: u64) -> MeasureProtocol {
        let timing = &self.timing;
        MeasureProtocol {
            version: PROTOCOL_VERSION,
            threads,
            screen_runs: timing.screen_runs,
            race_runs: timing.race_runs,
            race_width: timing.race_width,
            drop_factor: timing.drop_factor,
            rotate_bytes: timing.rotate_bytes.unwrap_or(footprint),
            budget_ms,
            run_limit_ms: timing.run_limit_ms,
            memory_limit: timing.memory_limit,
        }
    }
}
