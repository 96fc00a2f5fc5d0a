//! [`Farm`] over HTTP.

use std::path::Path;
use std::time::Duration;

use aotfarm_protocol::{
    Capabilities, ClaimRequest, ClaimResponse, Digest, ErrorCode, Heartbeat, HeartbeatResponse, Registered, Report, WorkItemId,
    WorkerId,
};
use aotfarm_registry::client::{Client, ClientError, Retry};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::farm::{Farm, FarmError};

/// How long a claim may take beyond the wait that it asks for.
const CLAIM_GRACE: Duration = Duration::from_secs(15);

/// A coordinator behind an address.
#[derive(Debug, Clone)]
pub struct HttpFarm {
    /// Without retries: the worker's own loops wait, and know what else to do meanwhile.
    api: Client,
    blobs: Client,
}

impl HttpFarm {
    /// A connection, not yet made, to the coordinator behind `client`.
    pub fn new(client: &Client) -> Self {
        let once = Retry { tries: 1, ..Retry::default() };
        Self { api: client.clone().with_retry(once), blobs: client.clone() }
    }
}

impl From<ClientError> for FarmError {
    fn from(error: ClientError) -> Self {
        match error {
            // A defect of the server may be gone after its restart.
            ClientError::Api(e) if e.code == ErrorCode::Internal => Self::Away(e.to_string()),
            ClientError::Api(e) => Self::Refused(e),
            other => Self::Away(other.to_string()),
        }
    }
}

impl Farm for HttpFarm {
    fn register<'a>(&'a self, capabilities: &'a Capabilities) -> BoxFuture<'a, Result<Registered, FarmError>> {
        async move { Ok(self.api.post("/v1/workers", capabilities).await?) }.boxed()
    }

    fn claim<'a>(&'a self, worker: WorkerId, request: &'a ClaimRequest) -> BoxFuture<'a, Result<ClaimResponse, FarmError>> {
        let timeout = Duration::from_millis(request.wait_ms) + CLAIM_GRACE;
        async move { Ok(self.api.post_within(&format!("/v1/workers/{worker}/claim"), request, timeout).await?) }.boxed()
    }

    fn heartbeat<'a>(&'a self, worker: WorkerId, beat: &'a Heartbeat) -> BoxFuture<'a, Result<HeartbeatResponse, FarmError>> {
        async move { Ok(self.api.post(&format!("/v1/workers/{worker}/heartbeat"), beat).await?) }.boxed()
    }

    fn report<'a>(&'a self, item: WorkItemId, report: &'a Report) -> BoxFuture<'a, Result<(), FarmError>> {
        async move { Ok(self.api.post(&format!("/v1/items/{item}/report"), report).await?) }.boxed()
    }

    fn leave(&self, worker: WorkerId) -> BoxFuture<'_, Result<(), FarmError>> {
        async move { Ok(self.api.delete(&format!("/v1/workers/{worker}")).await?) }.boxed()
    }

    fn download<'a>(&'a self, digest: Digest, to: &'a Path) -> BoxFuture<'a, Result<(), FarmError>> {
        async move { Ok(self.blobs.blob_to_file(digest, to, &|_, _| ()).await.map(drop)?) }.boxed()
    }

    fn upload<'a>(&'a self, digest: Digest, from: &'a Path) -> BoxFuture<'a, Result<(), FarmError>> {
        async move { Ok(self.blobs.put_blob_file_as(digest, from).await?) }.boxed()
    }
}
