//! What a user asks for, and how it goes.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{ApiError, Digest, DimRange, JobId, Outcome, Precision, Profile, Target, WorkKind};

/// How much to tune.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum TuneMode {
    /// Measure nothing: take known records, else each family's default.
    None,
    /// A bounded search; the default.
    #[default]
    Quick,
    /// The whole space, as far as the budget goes.
    Full,
}

/// How exact the kernels must be: the bound on the relative L2 error of each against sums in f64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Accuracy {
    /// As a plain sum in the model's type: large Winograd tiles are out.
    Strict,
    /// What rounding in the model's type explains; the default.
    #[default]
    Default,
}

/// A Job as submitted. Equal requests are the same work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct JobRequest {
    /// The model's name in the registry.
    pub name: String,
    /// The `.graph` blob, uploaded before.
    pub graph: Digest,
    /// What to compile for.
    pub targets: Vec<Target>,
    /// Overrides of the graph's dimension ranges, by symbol name.
    #[serde(default)]
    pub dims: Vec<DimRange>,
    /// How much to tune.
    pub tune: TuneMode,
    /// Most candidates that are built for one task; `None` is the mode's default.
    pub trials: Option<u32>,
    /// Seconds that measuring may take in all; `None` is the mode's default.
    pub budget_s: Option<u32>,
    /// Values of the first symbolic dimension at which tasks are tuned; empty: the ends of the range and the hint.
    #[serde(default)]
    pub tune_at: Vec<i64>,
    /// How exact the kernels must be.
    #[serde(default)]
    pub accuracy: Accuracy,
    /// Precision on GPU targets.
    #[serde(default)]
    pub precision: Precision,
    /// Threads to tune and profile with; `None`: the device's cores.
    pub threads: Option<u32>,
    /// Whether NVIDIA's libraries may do steps of the artifact, which then needs them on every host that runs it. (Left out when not, so that the
    /// keys of such requests stay.)
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_vendor: bool,
    /// The submitter's own case, a safetensors blob that was uploaded before: `in.<i>`, and `out.<i>` if he knows what they lead to. The artifacts
    /// are checked with it, and it is kept with the version. (Left out when there is none, so that the keys of such requests stay.)
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<Digest>,
}

/// Where a Job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the states are explained in DESIGN §2 by their names")]
pub enum JobState {
    Queued,
    Planning,
    Tuning,
    Linking,
    Profiling,
    Published,
    Failed,
    Cancelled,
}

impl JobState {
    /// Whether nothing follows.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Published | Self::Failed | Self::Cancelled)
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Queued => "queued",
            Self::Planning => "planning",
            Self::Tuning => "tuning",
            Self::Linking => "linking",
            Self::Profiling => "profiling",
            Self::Published => "published",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        })
    }
}

/// Counts of work items of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Count {
    /// Needed by the job.
    pub total: u32,
    /// Finished, cached ones included.
    pub done: u32,
    /// Finished before the job asked.
    pub cached: u32,
    /// Being run now.
    pub running: u32,
}

/// What was published.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Published {
    /// The version.
    pub version: u32,
    /// Digest of its index.
    pub index: Digest,
    /// `(target, artifact digest, bytes)` of each variant.
    pub variants: Vec<(Target, Digest, u64)>,
    /// Whether the registry already had exactly this.
    pub existed: bool,
    /// Benchmarks of this version.
    pub profiles: Vec<Profile>,
    /// Benchmarks of the version before, if there is one.
    pub previous: Vec<Profile>,
}

/// A Job as it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct JobStatus {
    /// Which.
    pub id: JobId,
    /// What was asked.
    pub request: JobRequest,
    /// Where it stands.
    pub state: JobState,
    /// Work items by kind.
    pub items: BTreeMap<WorkKind, Count>,
    /// Why it failed.
    pub error: Option<ApiError>,
    /// What it published.
    pub published: Option<Published>,
    /// When it was submitted, Unix milliseconds.
    pub submitted_at: i64,
    /// When it reached a final state.
    pub finished_at: Option<i64>,
}

/// A row of an AUTOTUNE table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct AutotuneRow {
    /// `family@version`.
    pub family: String,
    /// Parameters in text.
    pub params: String,
    /// What came of it, without the samples.
    pub outcome: Outcome,
    /// Median seconds, when measured.
    pub seconds: Option<f64>,
    /// Why it won or lost.
    pub verdict: String,
    /// A vendor's library, shown for comparison or, where the job allows it, as a candidate.
    #[serde(default)]
    pub baseline: bool,
}

/// The AUTOTUNE table of one task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct AutotuneTable {
    /// `convolution(1x64x56x56, 64x64x3x3) f32 cpu-x86_64-v3`.
    pub title: String,
    /// Best first.
    pub rows: Vec<AutotuneRow>,
    /// Candidates considered, units built, candidates measured to the end, dropped early, failed.
    pub considered: u32,
    /// Translation units built for it (shared units counted once).
    pub built: u32,
    /// Candidates measured to the end.
    pub measured: u32,
    /// Candidates dropped early.
    pub dropped: u32,
    /// Seconds of building.
    pub build_s: f64,
    /// Seconds of measuring.
    pub measure_s: f64,
    /// Workers that took part.
    pub workers: u32,
}

/// What a watcher of a job is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum JobEvent {
    /// The state changed.
    State {
        /// To this.
        state: JobState,
    },
    /// Planning is done.
    Planned {
        /// Distinct TuningTasks.
        tasks: u32,
        /// Of which already known from TuningRecords.
        known: u32,
        /// Candidates considered.
        candidates: u32,
        /// Translation units to build.
        units: u32,
    },
    /// Counts changed.
    Progress {
        /// Work items by kind.
        items: BTreeMap<WorkKind, Count>,
        /// What is running now: `(worker host, what)`.
        running: Vec<(String, String)>,
        /// Estimated seconds to go.
        eta_s: Option<f64>,
    },
    /// A task is decided.
    Tuned {
        /// Its table.
        table: Box<AutotuneTable>,
    },
    /// Something that the user should know: no worker for the queue, an item given out again …
    Note {
        /// In words.
        message: String,
    },
    /// The end.
    Published {
        /// What.
        published: Box<Published>,
    },
    /// The end.
    Failed {
        /// Why.
        error: ApiError,
    },
}

/// An event with its place in the job's log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct JobLogEntry {
    /// 1, 2, 3 …
    pub seq: i64,
    /// Unix milliseconds.
    pub at: i64,
    /// What.
    #[serde(flatten)]
    pub event: JobEvent,
}
