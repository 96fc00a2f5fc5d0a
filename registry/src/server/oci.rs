//! The pull half of the OCI distribution specification, so that standard tools (oras, skopeo, crane) can copy models.
//! <https://github.com/opencontainers/distribution-spec/blob/main/spec.md>

use aotfarm_protocol::{ApiError, ErrorCode};
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio_util::io::ReaderStream;

use super::{Failure, Registry, status_of};

const DIGEST_HEADER: &str = "docker-content-digest";

/// An error in the form of the OCI specification.
pub(super) struct OciFailure {
    code: &'static str,
    error: ApiError,
}

impl OciFailure {
    fn of(not_found: &'static str) -> impl Fn(ApiError) -> Self {
        move |error| Self { code: if error.code == ErrorCode::NotFound { not_found } else { "UNSUPPORTED" }, error }
    }
}

impl IntoResponse for OciFailure {
    fn into_response(self) -> Response {
        let body = json!({ "errors": [{ "code": self.code, "message": self.error.message }] });
        (status_of(self.error.code), axum::Json(body)).into_response()
    }
}

/// Says that this is an OCI registry.
pub(super) async fn base() -> axum::Json<serde_json::Value> {
    axum::Json(json!({}))
}

/// An index or a manifest, by `v3`, tag, `latest` or digest.
pub(super) async fn manifest(
    State(registry): State<Registry>,
    Path((name, reference)): Path<(String, String)>,
) -> Result<Response, OciFailure> {
    let manifest =
        registry.catalog.manifest(&name, &reference).await.map_err(|e| OciFailure::of("MANIFEST_UNKNOWN")(e.into()))?;
    let headers = [(CONTENT_TYPE.as_str(), manifest.media_type.to_owned()), (DIGEST_HEADER, manifest.digest.to_string())];
    Ok((headers, manifest.bytes).into_response())
}

/// Whether a blob is there.
pub(super) async fn blob_head(
    State(registry): State<Registry>,
    Path((_, digest)): Path<(String, String)>,
) -> Result<Response, OciFailure> {
    blob_response(&registry, &digest, false).await
}

/// A blob, uncompressed. It is unpacked and verified to a temporary file before the first byte is sent.
pub(super) async fn blob(
    State(registry): State<Registry>,
    Path((_, digest)): Path<(String, String)>,
) -> Result<Response, OciFailure> {
    blob_response(&registry, &digest, true).await
}

async fn blob_response(registry: &Registry, digest: &str, with_body: bool) -> Result<Response, OciFailure> {
    let unknown = OciFailure::of("BLOB_UNKNOWN");
    let digest = super::blobs::parse(digest).map_err(|Failure { error, .. }| OciFailure { code: "DIGEST_INVALID", error })?;
    let blobs = registry.blobs();
    let size = blobs.size(digest).await.map_err(|e| unknown(e.into()))?;
    let body = if with_body {
        let file = blobs.unpack(digest).await.map_err(|e| unknown(e.into()))?;
        Body::from_stream(ReaderStream::new(file))
    } else {
        Body::empty()
    };
    let headers = [
        (CONTENT_TYPE.as_str(), "application/octet-stream".to_owned()),
        (CONTENT_LENGTH.as_str(), size.to_string()),
        (DIGEST_HEADER, digest.to_string()),
    ];
    Ok((headers, body).into_response())
}

/// The tags and versions of a model.
pub(super) async fn tags(State(registry): State<Registry>, Path(name): Path<String>) -> Result<Response, OciFailure> {
    let history = registry.catalog.history(&name).await.map_err(|e| OciFailure::of("NAME_UNKNOWN")(e.into()))?;
    let mut tags: Vec<String> = history.iter().map(|entry| format!("v{}", entry.version.version)).collect();
    tags.extend(history.into_iter().flat_map(|entry| entry.version.tags));
    tags.sort();
    Ok(axum::Json(json!({ "name": name, "tags": tags })).into_response())
}
