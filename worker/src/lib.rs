//! The worker: claims work items from the coordinator, does them, and reports.
//!
//! | part | what |
//! |---|---|
//! | [`Worker`] | the whole: probe, register, claim → execute → report, leave |
//! | `toolchain` | what this host can build for: C compilers, NVRTC |
//! | `device`, `gpu` | what it can measure on |
//! | `runner`, `turns` | the main loop, and what it asks for next |
//! | `exec` | one module for each kind of work item |
//! | `race` | which candidate is run when, while they race (pure) |
//! | `sandbox`, [`child`] | child processes with limits, and what runs inside them |
//! | `cache`, [`farm`] | blobs at hand, and the coordinator as seen from here |
//!
//! Invariants: code that came from a coordinator runs in child processes only, compilers included; the worker never imports
//! the compiler room, so that any worker serves any coordinator; nothing else runs in a worker while it measures on its CPU.

mod cache;
pub mod child;
mod device;
mod exec;
pub mod farm;
mod gpu;
mod http;
mod race;
mod runner;
mod sandbox;
mod toolchain;
mod turns;
mod worker;

pub use cache::BlobError;
pub use device::{host_name, probe_cpu};
pub use gpu::{Gpu, Gpus, probe_gpus};
pub use http::HttpFarm;
pub use runner::{Activity, Exit, GaveUp};
pub use sandbox::ChildProgram;
pub use toolchain::{Compiler, NoCompiler, NoNvrtc, Nvrtc, NvrtcSearch, Search, Toolchains};
pub use worker::{Measures, Worker, WorkerConfig, WorkerError};
