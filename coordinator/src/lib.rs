//! The coordinator: jobs, work items, leases, workers and the HTTP API; the only writer of job state.
//!
//! | part | what |
//! |---|---|
//! | [`pipeline`] | states of a Job, pure |
//! | [`item`] | states of a work item with leases and generations, pure |
//! | [`assign`] | which items a claiming worker gets, pure |
//! | [`planner`] | the compiler as the coordinator sees it |
//! | `items`, `leases`, `jobs` | one transaction each: read a row, ask the pure part, write what it says |
//! | `driver` | drives jobs through their phases; can be killed at any moment and started again |
//! | `http` | routes by audience |
//!
//! Invariants: state is in the [`Store`](aotfarm_store::Store) alone; time comes from the [`Clock`]; the pure parts call nothing else here. The search for
//! the fastest kernels is a crate of its own, `aotfarm-search`.
#![forbid(unsafe_code)]

pub mod assign;
mod clock;
mod compiler_planner;
mod coordinator;
mod core;
mod driver;
mod error;
mod http;
pub mod item;
mod items;
mod jobs;
mod leases;
pub mod pipeline;
pub mod planner;
mod signal;

pub use clock::{Clock, SystemClock};
pub use compiler_planner::CompilerPlanner;
pub use coordinator::{Coordinator, bind};
pub use core::Config;
pub use error::Error;
pub use planner::{Planner, Refusal};
