//! What a search asks for, and the cost of what came back.

use aotfarm_protocol::{AutotuneTable, Digest, MeasureProtocol, MeasureSpec, TaskKey};

use crate::outline::{CandidateOutline, TaskRef};

/// What the driver must do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Have a translation unit built; answer with [`Search::built`](crate::Search::built).
    Build {
        /// Digest of its text.
        unit: Digest,
        /// For people.
        label: String,
    },
    /// Have candidates measured; answer with [`Search::measured`](crate::Search::measured).
    Measure {
        /// The task.
        task: TaskRef,
        /// The work.
        spec: Box<MeasureSpec>,
        /// The candidates, in the order of the spec.
        candidates: Vec<CandidateOutline>,
    },
    /// Store that candidates could not be built.
    RecordBuildFailure {
        /// The task.
        key: TaskKey,
        /// The candidates that share the unit.
        candidates: Vec<CandidateOutline>,
        /// The unit.
        unit: Digest,
        /// What the compiler said.
        log: String,
        /// How they would have been measured.
        protocol: MeasureProtocol,
    },
    /// A task is decided.
    Decided {
        /// Its table.
        table: Box<AutotuneTable>,
    },
    /// Something that the user should know.
    Note(String),
}

/// What a work item cost.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Cost {
    /// Seconds of work, 0 when the result was cached.
    pub seconds: f64,
    /// Who did it, when it was not cached.
    pub worker: Option<String>,
}
