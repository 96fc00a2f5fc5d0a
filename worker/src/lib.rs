//! The worker: claims work items from the coordinator, does them, and reports.
//!
//! | part | what |
//! |---|---|
//! | [`Worker`] | the whole: probe, register, claim → execute → report, leave |
//! | `toolchain`, `device` | what this host can build for and measure on |
//! | `runner`, `turns` | the main loop, and what it asks for next |
//! | `exec` | one module for each kind of work item |
//! | `race` | which candidate is run when, while they race (pure) |
//! | `process`, [`child`] | child processes with limits, and what runs inside them |
//! | `cache`, [`farm`] | blobs at hand, and the coordinator as seen from here |
//!
//! Invariants: code that came from a coordinator runs in child processes only, compilers included; the worker never imports
//! the compiler room, so that any worker serves any coordinator; nothing else runs in a worker while it measures.

mod cache;
pub mod child;
mod device;
mod dims;
mod exec;
pub mod farm;
mod http;
mod process;
mod race;
mod runner;
mod toolchain;
mod turns;
mod worker;

pub use cache::BlobError;
pub use device::{host_name, probe_cpu};
pub use exec::ChildProgram;
pub use http::HttpFarm;
pub use runner::{Exit, GaveUp};
pub use toolchain::{NoCompiler, Search, Toolchains};
pub use worker::{Worker, WorkerConfig, WorkerError};
