//! What an artifact says about itself: the JSON that its `metadata` function returns.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::{DType, Digest, Dim, DimError, Precision, Signature, Target, VendorLibrary};

/// A symbolic dimension and the sizes that are allowed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct DimRange {
    /// The symbol's name: `batch`, `seq` …
    pub name: String,
    /// Smallest size; 0 where the dimension may be empty.
    pub min: i64,
    /// Largest size.
    pub max: i64,
}

/// An input or output of a model, or a state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Port {
    /// Its name in the exported graph.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Shape.
    pub dims: Vec<Dim>,
    /// Whether a run changes the caller's tensor: an input that the model writes to.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub written: bool,
}

impl Port {
    /// The shape at `point`, which holds the values of the symbols.
    ///
    /// # Errors
    /// As of [`Dim::at`].
    pub fn shape_at(&self, point: &BTreeMap<String, i64>) -> Result<Vec<i64>, DimError> {
        self.dims.iter().map(|dim| dim.at(point)).collect()
    }
}

/// The metadata of an artifact.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct ArtifactMetadata {
    /// What it is made for.
    pub target: Target,
    /// Digest of the graph that it was compiled from.
    pub graph: Digest,
    /// Version of the compiler.
    pub compiler: String,
    /// In what precision it computes.
    #[serde(default)]
    pub precision: Precision,
    /// Why its kernels were chosen without measuring them on a device of the target; `None` when they were measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub untested: Option<String>,
    /// NVIDIA's libraries that do some of its steps, which a host must have to run it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub libraries: Vec<VendorLibrary>,
    /// Symbolic dimensions.
    pub dims: Vec<DimRange>,
    /// Inputs in order.
    pub inputs: Vec<Port>,
    /// Outputs in order.
    pub outputs: Vec<Port>,
    /// Buffers that outlive a run: each session has its own. Their dims are constant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub states: Vec<Port>,
    /// How the exported program nests its arguments and results, where the file says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<Signature>,
    /// The plan's steps in order: label and, where one was selected, `family@version` and parameters by tuned point.
    pub steps: Vec<StepInfo>,
    /// Runs of steps that are done for a few images at a time; all others are done for the whole batch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub segments: Vec<Segment>,
}

/// A run of steps that is done for a few images from its first step to its last before it begins with the next ones, so that what a step writes is
/// still in the caches when the next reads it. An image is a unit of the first symbolic dimension.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Segment {
    /// Which steps.
    pub steps: Range<usize>,
    /// At most so many images at a time; a batch is cut into equal parts.
    pub images: i64,
}

/// One kernel call of the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct StepInfo {
    /// What it computes, as the AUTOTUNE table titles it, without the batch.
    pub label: String,
    /// The chosen candidate's label by tuned point (`batch=8`).
    pub kernels: BTreeMap<String, String>,
}
