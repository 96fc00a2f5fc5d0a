//! How a kernel candidate is checked and timed.

use serde::{Deserialize, Serialize};

use crate::{CandidateId, DType, Digest, Launch, TaskKey, VendorCall};

/// Threads of a team, at most: what artifacts take (`RT_THREADS_MAX` of their C runtime).
pub const MAX_THREADS: u32 = 1024;

/// The measuring protocol: a value, so that a stored Measurement says how it came about.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct MeasureProtocol {
    /// Raised when the meaning of any other field, or the measuring code, changes.
    pub version: u32,
    /// Threads of the team that runs a CPU kernel.
    pub threads: u32,
    /// Runs of each candidate in the first, screening round (after the check, which is also the warm-up).
    pub screen_runs: u32,
    /// Total interleaved runs of each candidate that reaches the final race.
    pub race_runs: u32,
    /// How many candidates reach the final race.
    pub race_width: u32,
    /// A candidate slower than `drop_factor` times the best so far is dropped after its first run.
    pub drop_factor: f64,
    /// Bytes of weight and activation copies that are rotated. On a CPU so many that no run finds its operands in cache; on a GPU as many as
    /// the whole model touches in one run, so that its last-level cache holds what it would hold in the model.
    pub rotate_bytes: u64,
    /// Soft limit for the whole item, in milliseconds: when it is reached the race ends with the samples at hand.
    pub budget_ms: u64,
    /// Hard limit for one run of one candidate, in milliseconds; past it the candidate is TimedOut.
    pub run_limit_ms: u64,
    /// Address space that the measuring child may take, in bytes, beyond its operands.
    pub memory_limit: u64,
}

/// Values that fill an operand.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Values {
    /// Normal with mean 0 and the given standard deviation (floating point).
    Normal {
        /// Standard deviation.
        std: f32,
    },
    /// Uniform over `[low, high)`, rounded down for integers.
    Uniform {
        /// Inclusive lower end.
        low: f64,
        /// Exclusive upper end.
        high: f64,
    },
}

/// The places of an operand that hold values: `offset + Σ i_k * stride_k` for all `0 ≤ i_k < size_k`, in elements.
/// What lies outside every lattice (halo, padded channels) is zero and must stay so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Lattice {
    /// Elements from the start of the buffer.
    pub offset: i64,
    /// `(size, stride)` of each dimension, outermost first.
    pub dims: Vec<(i64, i64)>,
}

/// What an operand is to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum OperandRole {
    /// An activation that is read.
    Input,
    /// A weight: read raw by kernels without a pack function, else given to the pack function once.
    Weight,
    /// Written by the kernel.
    Output,
}

/// One buffer that a kernel takes, at the concrete sizes of the measurement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Operand {
    /// Input, weight or output.
    pub role: OperandRole,
    /// Element type.
    pub dtype: DType,
    /// Elements in the whole buffer, halo and padding included.
    pub len: u64,
    /// Where the values are.
    pub lattices: Vec<Lattice>,
    /// What the values are drawn from (ignored for outputs).
    pub values: Values,
}

/// How to run one compiled candidate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct KernelCall {
    /// Which candidate this is.
    pub candidate: CandidateId,
    /// `family@version` and the parameters in text, for tables and logs.
    pub label: String,
    /// The object file with the code.
    pub object: Digest,
    /// The kernel's symbol; its pack function, if any, is `<symbol>_pack`.
    pub symbol: String,
    /// Run-time sizes that the kernel reads from `aotk_call.dim`.
    pub dims: Vec<i64>,
    /// Run-time tuning integers that the kernel reads from `aotk_call.tune`.
    pub tune: Vec<i64>,
    /// Bytes of packed weights; 0 when the kernel reads raw weights.
    pub packed_bytes: u64,
    /// Bytes of workspace shared by the team; all of a CUDA kernel's workspace.
    pub shared_bytes: u64,
    /// Bytes of workspace of each thread.
    pub thread_bytes: u64,
    /// How a CUDA kernel is launched; `None` for CPU kernels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launch: Option<Launch>,
    /// What a vendor's library is to do instead of running the object's code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vendor: Option<VendorCall>,
}

/// A Measure item: check every candidate of one task against the reference, then race those that are right.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct MeasureSpec {
    /// The task.
    pub task: TaskKey,
    /// The task in words, as the AUTOTUNE table prints it.
    pub title: String,
    /// The operands: all inputs, then weights, then outputs, in the order in which the kernel takes them.
    pub operands: Vec<Operand>,
    /// The naive kernel, itself checked against the reference interpreter by the compiler's tests.
    pub reference: KernelCall,
    /// The candidates, most promising first.
    pub candidates: Vec<KernelCall>,
    /// On a GPU: the object with the kernels that fill and compare operands there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<Digest>,
    /// Largest relative L2 error of any output against the reference that is still right.
    pub tolerance: f64,
    /// Seed of the operands' values.
    pub seed: u64,
    /// How to time.
    pub protocol: MeasureProtocol,
}
