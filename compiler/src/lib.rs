//! The compiler: Graph → Plan → Candidate → Selection → LinkSpec. Pure: no IO, no clock, no async.
pub mod candidate;
pub mod import;
pub mod interp;
pub mod ir;
pub mod link;
pub mod passes;
pub mod plan;
pub mod select;
pub mod task;
