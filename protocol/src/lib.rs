//! The words of `aotfarm` as types, and the only types that cross HTTP.
//!
//! | word | type |
//! |---|---|
//! | Target, Device | [`Target`], [`Device`] |
//! | TuningTask | compiler-side; here as its key ([`TaskKey`]) and title |
//! | Candidate | [`CandidateId`], [`Params`] |
//! | Outcome, Measurement | [`Outcome`], [`Measurement`] |
//! | TuningRecord | [`TuningRecord`] |
//! | Job | [`JobId`], [`JobState`], [`JobRequest`], [`JobStatus`] |
//! | WorkItem, Lease | [`WorkItemId`], [`WorkSpec`], [`WorkResult`], [`Lease`] |
//! | Artifact, Variant, Version | [`Manifest`], [`Index`], [`VersionInfo`] |
//! | Profile | [`Profile`] |
//!
//! The HTTP API that they cross is in [`endpoints`].
//!
//! This crate is a leaf: it does no IO, reads no clock and imports no other room.
#![forbid(unsafe_code)]

mod device;
mod digest;
mod dim;
mod dtype;
pub mod endpoints;
mod error;
mod id;
mod job;
mod launch;
mod manifest;
mod measure;
mod metadata;
#[cfg(feature = "openapi")]
pub mod openapi;
mod outcome;
mod params;
mod precision;
mod profile;
mod reference;
mod signature;
mod target;
mod vendor;
mod work;

pub use device::{Device, DeviceKind};
pub use digest::{Digest, DigestError, KEY_VERSION, KeyHasher};
pub use dim::{Dim, DimError, point_text};
pub use dtype::DType;
pub use endpoints::admin::Health;
pub use endpoints::client::{EventsQuery, ItemInfo, ItemState, JobsQuery, WorkerInfo, WorkerState};
pub use endpoints::registry::{ResolveQuery, TagRequest};
pub use endpoints::worker::{ClaimRequest, ClaimResponse, Heartbeat, HeartbeatResponse, Registered};
pub use error::{ApiError, ErrorCode};
pub use id::{CandidateId, JobId, TaskKey, WorkItemId, WorkerId};
pub use job::*;
pub use launch::{GridAxis, Launch};
pub use manifest::*;
pub use measure::*;
pub use metadata::*;
pub use outcome::*;
pub use params::{Params, params_text};
pub use precision::Precision;
pub use profile::{Profile, Quantiles};
pub use reference::{Reference, ReferenceError, Selector};
pub use signature::{NamedArgument, Nested, Signature};
pub use target::{CpuIsa, Target, TargetError};
pub use vendor::*;
pub use work::*;
