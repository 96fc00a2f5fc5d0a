//! The compiler: Graph → Plan → Candidate → Selection → LinkSpec. Pure: no IO, no clock, no async.
//!
//! A facade over the crates along the flow: [`ir`] ← [`import`], [`plan`] ← [`candidate`]. What
//! chooses among measured candidates and what makes an artifact of them is here, and what a job needs
//! besides: ranges of dimensions, estimates of work, the case that artifacts must reproduce.
pub use aotfarm_frontend as import;
pub use aotfarm_ir::{self as ir, interp};
pub use aotfarm_kernels as candidate;
pub use aotfarm_plan::{self as plan, passes};

/// The version of the compiler: the program's, and a digest of every source, template and header that can change what a request
/// compiles to (see `build.rs`), the search's among them, which chooses among the kernels. It is
/// part of a job's key, and artifacts name it.
pub const VERSION: &str = env!("AOTFARM_COMPILER_VERSION");

mod check;
pub mod flops;
pub mod link;
mod ranges;
pub mod select;
mod trace;

pub use check::{CheckError, check_case, check_samples};
pub use ranges::{RangeError, with_ranges};
pub use trace::{Held, Trace, TraceError};
