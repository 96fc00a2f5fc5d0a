//! The compiler: Graph → Plan → Candidate → Selection → LinkSpec. Pure: no IO, no clock, no async.
//!
//! A facade over the crates along the flow: [`ir`] ← [`import`], [`plan`] ← [`candidate`]; what chooses among measured candidates and
//! what makes an artifact of them is here.
pub use aotfarm_frontend as import;
pub use aotfarm_ir::{self as ir, interp};
pub use aotfarm_kernels as candidate;
pub use aotfarm_plan::{self as plan, passes};

pub mod link;
pub mod select;
