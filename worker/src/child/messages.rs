//! What the worker and its measuring child say to each other: JSON lines, and one shared word.

use std::collections::BTreeMap;
use std::path::PathBuf;

use aotfarm_protocol::{MeasureSpec, VendorLibrary};
use serde::{Deserialize, Serialize};

/// The child's job, a file.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct MeasureJob {
    /// Operands, calls and protocol.
    pub(crate) spec: MeasureSpec,
    /// For each candidate the shared object or, on a GPU, the cubin with its code; `None` if it could not be linked.
    pub(crate) libraries: Vec<Option<PathBuf>>,
    /// The one with the reference.
    pub(crate) reference_library: PathBuf,
    /// On a GPU: the cubin with the kernels that fill and compare operands.
    pub(crate) tools: Option<PathBuf>,
    /// On a GPU: the libraries to compare with, as far as the host has them.
    pub(crate) vendors: BTreeMap<VendorLibrary, PathBuf>,
    /// Where the reference's outputs are kept for a child that replaces this one; on a GPU it rather runs the reference again.
    pub(crate) reference_outputs: PathBuf,
    /// A file of 8 bytes, shared with the worker: which candidate is being run, see [`AT_NOTHING`]. It survives the child.
    pub(crate) progress: PathBuf,
}

/// In the shared word: the child is busy with its own affairs.
pub(crate) const AT_NOTHING: u64 = 0;
/// In the shared word: the reference is being run. Candidate `i` is `AT_CANDIDATE + i`.
pub(crate) const AT_REFERENCE: u64 = 1;
/// See [`AT_REFERENCE`].
pub(crate) const AT_CANDIDATE: u64 = 2;

/// Worker to child.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub(crate) enum Order {
    /// Begin a job: to a child that does several.
    Open { job: PathBuf },
    /// The job is over: give back what it holds. There is no answer.
    Close,
    /// Check a candidate.
    Check { candidate: usize },
    /// Time each once in this order; at most `rounds` rounds of the same field follow each other.
    Round { order: Vec<usize>, rounds: u32 },
}

/// Child to worker; one for each order, and one when it is ready for them.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Event {
    /// Operands are filled and the reference's outputs are known. The time is that of the reference, if it was run.
    Ready { reference_seconds: Option<f64> },
    /// The reference itself is wrong, or cannot be run: the item is at fault.
    BadReference { reason: String },
    /// The child cannot work: this host is at fault.
    Broken { reason: String },
    /// The candidate is right, or (with a reason) wrong. A vendor's library says by which algorithm.
    Checked { candidate: usize, seconds: f64, error: Option<f64>, wrong: Option<String>, algorithm: Option<i64> },
    /// The candidate cannot be run on this host.
    Unsupported { candidate: usize, reason: String },
    /// The object does not hold what it should.
    NoCode { candidate: usize, reason: String },
    /// The candidate broke the device's context, and the child with it. Known for sure, unlike what a child dies of by a signal.
    Crashed { candidate: usize, reason: String },
    /// The times of a round in seconds, and under which conditions, if that is known and was not told lately.
    Ran { samples: Vec<(usize, f64)>, conditions: Option<String> },
}
