//! Blobs, and versions of models.

use serde::{Deserialize, Serialize};

use super::endpoint::{Audience, Endpoint, Operation, endpoints};
use super::request::{Body, Path, Query, ZstdFrames};
use super::response::{Created, Headers};
use crate::{ApiError, Digest, ErrorCode, HistoryEntry, ModelInfo, Reference, ReferenceError, VersionInfo};

endpoints! { Audience::Registry;
    /// Whether a blob is there, and how large it is.
    ///
    /// `content-length` is the size of its frames, `aotfarm-content-size` that of the content.
    pub const BLOB_HEAD: Endpoint<Path<Digest>, Headers> = HEAD "/v1/blobs/{digest}";

    /// A blob as zstd frames, or the range of them that the header `range` asks for.
    ///
    /// `etag` identifies the frames: the same content can be compressed to other bytes.
    pub const BLOB: Endpoint<Path<Digest>, ZstdFrames> = GET "/v1/blobs/{digest}";

    /// Stores a blob, if the body is zstd frames of its content.
    pub const BLOB_PUT: Endpoint<(Path<Digest>, ZstdFrames), Created> = PUT "/v1/blobs/{digest}";

    /// Reads a blob through on the server and says whether it is intact.
    ///
    /// The error is `damaged` when it is not; the blob is gone then, and can be stored anew.
    pub const BLOB_VERIFY: Endpoint<Path<Digest>, ()> = POST "/v1/blobs/{digest}/verify";

    /// Every model with its newest version, by name.
    pub const MODELS: Endpoint<(), Vec<ModelInfo>> = GET "/v1/models";

    /// The versions of a model with their profiles, oldest first.
    pub const HISTORY: Endpoint<Path<String>, Vec<HistoryEntry>> = GET "/v1/models/{name}";

    /// What a reference means now.
    pub const RESOLVE: Endpoint<Query<ResolveQuery>, VersionInfo> = GET "/v1/resolve";

    /// Points a tag at a version, moving it if it exists.
    pub const TAG: Endpoint<(Path<(String, String)>, Body<TagRequest>), VersionInfo> = PUT "/v1/models/{name}/tags/{tag}";

    /// Removes a tag; answers with the version that it pointed at.
    pub const UNTAG: Endpoint<Path<(String, String)>, VersionInfo> = DELETE "/v1/models/{name}/tags/{tag}";
}

/// Which reference is resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct ResolveQuery {
    /// `NAME[@vN|@TAG|@sha256:HEX][/TARGET]`; without it the request is refused.
    #[serde(rename = "ref")]
    pub reference: Option<String>,
}

impl From<&Reference> for ResolveQuery {
    fn from(reference: &Reference) -> Self {
        Self { reference: Some(reference.to_string()) }
    }
}

impl ResolveQuery {
    /// The reference.
    ///
    /// # Errors
    /// [`ErrorCode::BadRequest`] if there is none, or it is none.
    pub fn reference(&self) -> Result<Reference, ApiError> {
        let bad = |message| ApiError::new(ErrorCode::BadRequest, message);
        let text = self.reference.as_ref().ok_or_else(|| bad("the query has no `ref`".to_owned()))?;
        text.parse().map_err(|e: ReferenceError| bad(e.to_string()))
    }
}

/// Points a tag at a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct TagRequest {
    /// The version.
    pub version: u32,
}
