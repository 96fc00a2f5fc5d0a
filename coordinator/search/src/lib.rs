//! The search for the fastest kernels of a model, as a pure crate: no IO, no clock, no compiler.
//!
//! The driver feeds a [`Search`] with built objects and outcomes, and carries out the [`Action`]s
//! that it returns. What there is to search, it asks a [`SearchSpace`]. At the end the
//! [`Finalists`] of each task are raced in the whole model ([`model_race`]), and runs of its steps
//! are tried depth first ([`segments`]).
//!
//! | part | what |
//! |---|---|
//! | `outline`, `space` | tasks and candidates, and where they come from |
//! | `strategy` | what a task begins with, how much is tried, how it is timed: a file a strategy |
//! | `shares` | heavy tasks get most of the time and units; the tasks of a core share a search |
//! | `search`, `task`, `units` | the state machine |
//! | `known` | outcomes of earlier searches, of this task and of similar ones |
//! | `finalists`, `model_race`, `segments` | the last stage, in the whole model |
//!
//! * **Known work is not done twice**: outcomes from TuningRecords count like fresh ones. Only what
//!   is missing is measured, together with the best known candidates, because times from different
//!   races do not compare well.
//! * **Small points first**: a spec's points are tuned one after the other.
//! * **Deterministic**: what is asked for depends on the search space, the settings and the
//!   outcomes alone, never on their order of arrival, so that a restarted coordinator asks for the
//!   same work items.
#![forbid(unsafe_code)]

mod action;
mod effort;
#[cfg(test)]
mod examples;
mod finalists;
mod known;
pub mod model_race;
mod outline;
mod reference;
mod search;
pub mod segments;
mod settings;
mod shares;
mod space;
mod strategy;
mod tally;
mod task;
#[cfg(feature = "testing")]
pub mod testing;
mod units;
mod view;

pub use action::{Action, Cost};
pub use finalists::{Configuration, Finalists};
pub use known::{Known, KnownOutcomes, Similar, fastest_points, relatives};
pub use model_race::{Change, Verdict};
pub use outline::{CandidateOutline, SelectionOutline, SpecOutline, TaskOutline, TaskRef, VariantOutline};
pub use search::{Overview, Search};
pub use settings::Settings;
pub use space::SearchSpace;
pub use strategy::{PROTOCOL_VERSION, default_budget_ms};
pub use tally::Tally;
