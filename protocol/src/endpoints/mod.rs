//! The HTTP API as values: method, path, types and audience of every operation, each in one place.
//!
//! | audience | endpoints | who registers the routes |
//! |---|---|---|
//! | people and their tools | [`client`] | `coordinator/src/http/client.rs` |
//! | workers | [`worker`] | `coordinator/src/http/worker.rs` |
//! | whoever stores or fetches models | [`registry`] | `registry/src/server` |
//! | standard OCI tools | [`oci`] | `registry/src/server/oci.rs` |
//! | operators | [`admin`] | `coordinator/src/http/admin.rs` |
//!
//! A client calls `client::JOB.request(id)` and sends what it gets; a server registers `client::JOB` with a function from
//! a `JobId` to a `JobStatus`. An answer that is not a success has an [`ApiError`](crate::ApiError) as its body, except to
//! OCI tools. `docs/openapi.json` is made from [`table`].

pub mod admin;
pub mod client;
#[cfg(feature = "openapi")]
pub(crate) mod describe;
mod endpoint;
pub mod oci;
pub mod registry;
mod request;
mod response;
mod schema;
pub mod worker;

pub use self::endpoint::{Audience, Call, Endpoint, Operation};
pub use self::request::{Body, Path, PathParameters, Query, Request, Segment, ZstdFrames};
pub use self::response::{Created, Headers, OciManifest, Octets, Response};
pub use self::schema::Schema;

/// Every operation of the API, by audience.
pub fn table() -> Vec<Operation> {
    [client::table(), worker::table(), registry::table(), oci::table(), admin::table()].concat()
}
