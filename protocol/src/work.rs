//! What workers lease, and what they report.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{CandidateId, Device, Digest, KeyHasher, MeasureSpec, Outcome, Profile, Target, WorkItemId, WorkerId};

/// The kinds of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum WorkKind {
    /// Source to object.
    Build,
    /// Objects to outcomes, alone on the device.
    Measure,
    /// Objects, glue and weights to a shared object.
    Link,
    /// Shared objects of one model, with different kernels, to the times of their steps.
    #[serde(rename = "rehearse")]
    ModelRace,
    /// Shared object to a Profile.
    Profile,
}

impl WorkKind {
    /// Whether such an item needs its device for itself. On a CPU, that is the whole host: whatever
    /// else runs there shares caches, memory bus and clock with what is measured.
    pub const fn is_exclusive(self) -> bool {
        matches!(self, Self::Measure | Self::ModelRace | Self::Profile)
    }
}

/// Compile one translation unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct BuildSpec {
    /// The rendered, self-contained source.
    pub source: Digest,
    /// What to compile for.
    pub target: Target,
    /// Flags beyond those that the target implies.
    pub flags: Vec<String>,
    /// Identity of the compiler, as advertised in [`Toolchain::id`].
    pub toolchain: String,
}

/// Run one pack function at link time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct PackStep {
    /// The translation unit whose `<symbol>_pack` does it; compiled for the linking host with `-DAOTK_PACK_ONLY`.
    pub source: Digest,
    /// The kernel's symbol.
    pub symbol: String,
    /// The tuning integers.
    pub tune: Vec<i64>,
    /// `(offset, bytes)` in the weights blob of each raw weight that the kernel takes, in its order.
    pub inputs: Vec<(u64, u64)>,
    /// Where in the artifact's weight section the result goes.
    pub offset: u64,
    /// Its size.
    pub bytes: u64,
}

/// Copy raw bytes into the weight section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct CopyStep {
    /// Where in the weights blob.
    pub from: u64,
    /// Where in the weight section.
    pub to: u64,
    /// How many bytes.
    pub bytes: u64,
}

/// Link one artifact by the recipe of the room `abi` (`abi/src/link.rs`), which makes the same bytes from the same spec on every worker with the
/// same toolchain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct LinkSpec {
    /// What it is made for.
    pub target: Target,
    /// Identity of the compiler.
    pub toolchain: String,
    /// The generated glue with the runtime, one self-contained translation unit.
    pub glue: Digest,
    /// Kernel objects, or cubins.
    pub objects: Vec<Digest>,
    /// The raw weights, one blob.
    pub weights: Digest,
    /// Bytes of the weight section.
    pub section_bytes: u64,
    /// Weights that kernels read packed.
    pub packs: Vec<PackStep>,
    /// Weights that kernels read raw.
    pub copies: Vec<CopyStep>,
    /// Digest of the link recipe of the program that asks: one that links by another gives the item back. Absent in what
    /// was stored before recipes had digests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<Digest>,
}

/// Benchmark an artifact end to end, after checking it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct ProfileSpec {
    /// The artifact.
    pub artifact: Digest,
    /// What it was made for.
    pub target: Target,
    /// A safetensors blob with `in.<i>` and the `out.<i>` that the artifact must reproduce in the first call of a fresh session: those of the
    /// reference interpreter, or the submitter's. `write.<k>` is what it leaves in the k-th of the inputs that it writes to. Later
    /// calls of the session have the same names after their number: `1.in.<i>`, `1.out.<i>` …
    pub check: Digest,
    /// Largest relative L2 error that is still right, in units of 1e-9 (an integer so that the spec stays `Eq`).
    pub tolerance_e9: u64,
    /// Values of the symbolic dimensions at which to time, one run of the benchmark for each.
    pub points: Vec<BTreeMap<String, i64>>,
    /// Threads of the session.
    pub threads: u32,
    /// Milliseconds of timed runs for each point.
    pub budget_ms: u64,
}

impl ProfileSpec {
    /// [`tolerance_e9`](Self::tolerance_e9) as a number.
    pub fn tolerance(&self) -> f64 {
        self.tolerance_e9 as f64 * 1e-9
    }
}

/// Time artifacts of one model side by side, step by step: they have the same steps and differ in the kernels.
///
/// A kernel alone with its operands does not have what it has in the model: activations that the step before has just
/// left in the caches, weights that everything else has driven out of them, memory that the whole team has just kept
/// busy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct ModelRaceSpec {
    /// The artifacts.
    pub artifacts: Vec<Digest>,
    /// What they were made for.
    pub target: Target,
    /// Values of the symbolic dimensions at which to time.
    pub points: Vec<BTreeMap<String, i64>>,
    /// Threads of the sessions.
    pub threads: u32,
    /// Milliseconds of runs for each point.
    pub budget_ms: u64,
}

/// What a worker leases. A pure function of digests, so that its result is cached by [`WorkSpec::id`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(tag = "work", rename_all = "snake_case")]
pub enum WorkSpec {
    /// See [`BuildSpec`].
    Build(BuildSpec),
    /// See [`MeasureSpec`]; the device is part of the key.
    Measure {
        /// What and how.
        spec: Box<MeasureSpec>,
        /// Fingerprint of the device that must do it.
        device: Digest,
    },
    /// See [`LinkSpec`].
    Link(LinkSpec),
    /// See [`ModelRaceSpec`]; the device is part of the key.
    #[serde(rename = "rehearse")]
    ModelRace {
        /// What and how.
        spec: ModelRaceSpec,
        /// Fingerprint of the device that must do it.
        device: Digest,
    },
    /// See [`ProfileSpec`]; the device is part of the key.
    Profile {
        /// What and how.
        spec: ProfileSpec,
        /// Fingerprint of the device that must do it.
        device: Digest,
    },
}

impl WorkSpec {
    /// The kind.
    pub const fn kind(&self) -> WorkKind {
        match self {
            Self::Build(_) => WorkKind::Build,
            Self::Measure { .. } => WorkKind::Measure,
            Self::Link(_) => WorkKind::Link,
            Self::ModelRace { .. } => WorkKind::ModelRace,
            Self::Profile { .. } => WorkKind::Profile,
        }
    }

    /// The key: the digest of the canonical JSON of all fields (fixed field order, so it is deterministic).
    pub fn id(&self) -> WorkItemId {
        let json = serde_json::to_vec(self).expect("a WorkSpec has only string keys");
        WorkItemId(KeyHasher::new("work").field(json).finish())
    }

    /// The toolchain that the worker must have, if any.
    pub fn toolchain(&self) -> Option<&str> {
        match self {
            Self::Build(b) => Some(&b.toolchain),
            Self::Link(l) => Some(&l.toolchain),
            Self::Measure { .. } | Self::ModelRace { .. } | Self::Profile { .. } => None,
        }
    }

    /// The device that the worker must hold, if any.
    pub fn device(&self) -> Option<Digest> {
        match self {
            Self::Measure { device, .. } | Self::ModelRace { device, .. } | Self::Profile { device, .. } => Some(*device),
            Self::Build(_) | Self::Link(_) => None,
        }
    }
}

/// A compiler that a worker has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Toolchain {
    /// Identity that goes into keys: name, full version and the digest of the driver binary: `gcc-12.2.0-1f3a9c02`.
    pub id: String,
    /// Targets that it builds for.
    pub targets: Vec<Target>,
}

/// What a worker can do; sent when it registers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Capabilities {
    /// Host name, for people.
    pub host: String,
    /// Version of the worker's program.
    pub version: String,
    /// Build items that it runs at once.
    pub slots: u32,
    /// Its compilers.
    pub toolchains: Vec<Toolchain>,
    /// The device that it measures on.
    pub device: Option<Device>,
    /// Free-form labels.
    pub labels: Vec<String>,
}

/// The right to run one work item until `expires_in_ms` have passed, at one generation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Lease {
    /// The item.
    pub item: WorkItemId,
    /// Fences late reports: each time the item is given out this grows by one.
    pub generation: i64,
    /// The time to live, renewed by heartbeats.
    pub expires_in_ms: u64,
    /// What to do.
    pub spec: WorkSpec,
}

/// What came of a work item. Everything that is a property of the item (a refused source, a wrong kernel) is a result;
/// only what is a property of the worker (disk full, a lost file) is an error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum WorkResult {
    /// An object was built.
    Built {
        /// Its digest; the blob has been uploaded.
        object: Digest,
    },
    /// The source was refused.
    BuildFailed {
        /// What the compiler printed, shortened.
        log: String,
    },
    /// Every candidate has an outcome.
    Measured {
        /// In the order of the spec.
        outcomes: Vec<(CandidateId, Outcome)>,
    },
    /// The artifact was linked.
    Linked {
        /// Its digest; the blob has been uploaded.
        artifact: Digest,
        /// Its size.
        bytes: u64,
    },
    /// The artifacts were timed.
    #[serde(rename = "rehearsed")]
    ModelRaced {
        /// Seconds of each step: for each point of the spec, for each artifact, in the order of its steps.
        seconds: Vec<Vec<Vec<f64>>>,
    },
    /// The artifact was checked and timed.
    Profiled {
        /// One for each point of the spec.
        profiles: Vec<Profile>,
        /// The largest relative L2 error of the check.
        error: f64,
    },
    /// The artifact does not reproduce the reference, crashes or cannot be linked: the job fails.
    Rejected {
        /// Why.
        reason: String,
    },
}

/// How a worker ends a lease.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Report {
    /// The worker.
    pub worker: WorkerId,
    /// The generation of its lease.
    pub generation: i64,
    /// Milliseconds of work, queue time not counted.
    pub run_ms: u64,
    /// The result, or why the worker could not do it (the item is given out again).
    pub result: Result<WorkResult, String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Item keys are digests of this JSON, and the database holds these words.
    #[test]
    fn a_model_race_keeps_its_old_name_on_the_wire() {
        let digest = Digest::of("x");
        let spec = ModelRaceSpec {
            artifacts: vec![digest],
            target: Target::Cuda { sm: 90 },
            points: vec![BTreeMap::from([("n".to_owned(), 8)])],
            threads: 2,
            budget_ms: 5,
        };
        let work = WorkSpec::ModelRace { spec, device: digest };
        let json = format!(
            r#"{{"work":"rehearse","spec":{{"artifacts":["{digest}"],"target":"cuda-sm_90","points":[{{"n":8}}],"threads":2,"budget_ms":5}},"device":"{digest}"}}"#
        );
        assert_eq!(serde_json::to_string(&work).unwrap(), json);
        assert_eq!(serde_json::to_string(&WorkKind::ModelRace).unwrap(), r#""rehearse""#);
        let result = WorkResult::ModelRaced { seconds: vec![vec![vec![0.5]]] };
        assert_eq!(serde_json::to_string(&result).unwrap(), r#"{"result":"rehearsed","seconds":[[[0.5]]]}"#);
        assert_eq!(serde_json::from_str::<WorkSpec>(&json).unwrap(), work);
    }
}
