//! The Plan: the fused, laid-out, memory-planned graph, an ordered list of kernel calls.

mod affine;
mod arena;
mod attention;
mod canonical;
mod chains;
mod dims;
mod ends;
mod error;
#[cfg(test)]
mod eval;
mod forms;
mod image;
mod layouts;
mod lower;
#[cfg(test)]
mod model_tests;
mod nest;
#[cfg(any(test, feature = "testing"))]
pub mod oracle;
pub mod passes;
mod plan;
mod points;
mod prepare;
mod print;
mod segments;
pub mod spec;
#[cfg(test)]
mod tests;
mod verify;
mod weights;

pub use error::PlanError;
pub use lower::lower;
pub use plan::{Buffer, BufferId, Place, Plan, PlanState, PlanWeight, Plane, Slot, Step, WeightId};
pub use verify::VerifyError;
