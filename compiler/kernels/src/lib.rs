//! Candidates: TuningTask → rendered source.
//!
//! A [`TuningTask`] says what is computed, where and at which sizes; a [`CandidateFamily`] is one
//! way to compute such things, with a space of points; a [`Candidate`] is one point of it for one
//! task, rendered. [`candidates`] gives those of a task, out of all [`FAMILIES`]. What kernels may
//! count on where they run says [`Machine`]. How to add a family says the module `families`.
//!
//! Modules, each using only those before it: `task`, `family` (the trait), `machine`; `printer`,
//! `scalar`, `render`, `headers` (text); `candidate`, `families`, `enumerate`; beside them `title`
//! (tasks in words) and `measure` (how candidates are checked).

mod candidate;
#[cfg(test)]
mod conformance;
mod enumerate;
mod families;
mod family;
mod headers;
mod machine;
pub mod measure;
mod printer;
mod render;
mod scalar;
pub mod task;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod title;

pub use candidate::Candidate;
pub use enumerate::{candidates, reference, transfer};
pub use families::{FAMILIES, baseline};
pub use family::{CandidateFamily, FamilyId, KernelSource, Needs, Unsupported};
pub use headers::tools;
pub use machine::{Cpu, Gpu, Machine};
pub use render::epilogue;
pub use task::{PlannedTask, TuningTask, tasks};
pub use title::title;
