//! [`Farm`] over HTTP.

use std::path::Path;
use std::time::Duration;

use aotfarm_client::{Client, ClientError, Retry};
use aotfarm_protocol::endpoints::worker as api;
use aotfarm_protocol::{
    Capabilities, ClaimRequest, ClaimResponse, Digest, ErrorCode, Heartbeat, HeartbeatResponse, Registered, Report, WorkItemId,
    WorkerId,
};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::farm::{Farm, FarmError};

/// How long a claim may take beyond the wait that it asks for.
const CLAIM_GRACE: Duration = Duration::from_secs(15);

/// A coordinator behind an address.
#[derive(Debug, Clone)]
pub struct HttpFarm {
    /// Without retries: the worker's own loops wait, and know what else to do meanwhile.
    once: Client,
    /// With retries, for blobs.
    client: Client,
}

impl HttpFarm {
    /// A connection, not yet made, to the coordinator behind `client`.
    pub fn new(client: &Client) -> Self {
        Self { once: client.clone().with_retry(Retry::NONE), client: client.clone() }
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
        async move { Ok(self.once.call(api::REGISTER.request(capabilities)).await?) }.boxed()
    }

    fn claim<'a>(&'a self, worker: WorkerId, request: &'a ClaimRequest) -> BoxFuture<'a, Result<ClaimResponse, FarmError>> {
        let timeout = Duration::from_millis(request.wait_ms) + CLAIM_GRACE;
        async move { Ok(self.once.call_within(api::CLAIM.request(worker, request), timeout).await?) }.boxed()
    }

    fn heartbeat<'a>(&'a self, worker: WorkerId, beat: &'a Heartbeat) -> BoxFuture<'a, Result<HeartbeatResponse, FarmError>> {
        async move { Ok(self.once.call(api::HEARTBEAT.request(worker, beat)).await?) }.boxed()
    }

    fn report<'a>(&'a self, item: WorkItemId, report: &'a Report) -> BoxFuture<'a, Result<(), FarmError>> {
        async move { Ok(self.once.call(api::REPORT.request(item, report)).await?) }.boxed()
    }

    fn leave(&self, worker: WorkerId) -> BoxFuture<'_, Result<(), FarmError>> {
        async move { Ok(self.once.call(api::LEAVE.request(worker)).await?) }.boxed()
    }

    fn download<'a>(&'a self, digest: Digest, to: &'a Path) -> BoxFuture<'a, Result<(), FarmError>> {
        async move { Ok(self.client.blob_to_file(digest, to, &|_, _| ()).await.map(drop)?) }.boxed()
    }

    fn upload<'a>(&'a self, digest: Digest, from: &'a Path) -> BoxFuture<'a, Result<(), FarmError>> {
        async move { Ok(self.client.put_blob_file_as(digest, from).await?) }.boxed()
    }
}
