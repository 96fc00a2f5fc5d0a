//! The pull half of the OCI distribution specification, so that standard tools (oras, skopeo, crane) can copy models.
//! <https://github.com/opencontainers/distribution-spec/blob/main/spec.md>

use serde::{Deserialize, Serialize};

use super::endpoint::{Audience, Endpoint, Operation, endpoints};
use super::request::Path;
use super::response::{Headers, OciManifest, Octets};

endpoints! { Audience::Oci;
    /// Says that this is an OCI registry.
    pub const BASE: Endpoint<(), OciBase> = GET "/v2/";

    /// An index or a manifest, by `v3`, tag, `latest` or digest.
    pub const MANIFEST: Endpoint<Path<(String, String)>, OciManifest> = GET "/v2/{name}/manifests/{reference}";

    /// Whether a blob is there.
    pub const BLOB_HEAD: Endpoint<Path<(String, String)>, Headers> = HEAD "/v2/{name}/blobs/{digest}";

    /// A blob, uncompressed.
    pub const BLOB: Endpoint<Path<(String, String)>, Octets> = GET "/v2/{name}/blobs/{digest}";

    /// The tags and versions of a model.
    pub const TAGS: Endpoint<Path<String>, OciTags> = GET "/v2/{name}/tags/list";
}

/// An empty object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct OciBase {}

/// The tags and versions of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct OciTags {
    /// The model.
    pub name: String,
    /// In the order of their bytes.
    pub tags: Vec<String>,
}

/// The errors of an answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct OciErrors {
    /// One.
    pub errors: Vec<OciError>,
}

/// What went wrong, in the form of the specification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct OciError {
    /// One of the specification's codes.
    pub code: String,
    /// What happened.
    pub message: String,
}
