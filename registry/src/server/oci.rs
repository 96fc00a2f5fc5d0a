//! The pull half of the OCI distribution specification, so that standard tools (oras, skopeo, crane) can copy models.
//! <https://github.com/opencontainers/distribution-spec/blob/main/spec.md>

use aotfarm_protocol::endpoints::oci::{self, OciBase, OciError, OciErrors, OciTags};
use aotfarm_protocol::{ApiError, Digest, DigestError, ErrorCode};
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use tokio_util::io::ReaderStream;

use super::error::{Failure, status_of};
use super::routes::{At, Routes};
use super::state::Registry;

const DIGEST_HEADER: &str = "docker-content-digest";

pub(super) fn routes(routes: Routes<Registry>) -> Routes<Registry> {
    routes
        .on(&oci::BASE, base)
        .raw(&oci::MANIFEST, manifest)
        .raw(&oci::BLOB_HEAD, blob_head)
        .raw(&oci::BLOB, blob)
        .raw(&oci::TAGS, tags)
}

/// An error in the form of the OCI specification.
struct OciFailure {
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
        let body = OciErrors { errors: vec![OciError { code: self.code.to_owned(), message: self.error.message }] };
        (status_of(self.error.code), axum::Json(body)).into_response()
    }
}

async fn base(_: Registry, (): ()) -> Result<OciBase, Failure> {
    Ok(OciBase {})
}

async fn manifest(State(registry): State<Registry>, At((name, reference)): At<(String, String)>) -> Result<Response, OciFailure> {
    let manifest =
        registry.catalog.manifest(&name, &reference).await.map_err(|e| OciFailure::of("MANIFEST_UNKNOWN")(e.into()))?;
    let headers = [(CONTENT_TYPE.as_str(), manifest.media_type.to_owned()), (DIGEST_HEADER, manifest.digest.to_string())];
    Ok((headers, manifest.bytes).into_response())
}

async fn blob_head(State(registry): State<Registry>, At((_, digest)): At<(String, String)>) -> Result<Response, OciFailure> {
    blob_response(&registry, &digest, false).await
}

/// It is unpacked and verified to a temporary file before the first byte is sent.
async fn blob(State(registry): State<Registry>, At((_, digest)): At<(String, String)>) -> Result<Response, OciFailure> {
    blob_response(&registry, &digest, true).await
}

async fn blob_response(registry: &Registry, digest: &str, with_body: bool) -> Result<Response, OciFailure> {
    let unknown = OciFailure::of("BLOB_UNKNOWN");
    let digest: Digest = digest.parse().map_err(|e: DigestError| OciFailure {
        code: "DIGEST_INVALID",
        error: ApiError::new(ErrorCode::BadRequest, e.to_string()),
    })?;
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

async fn tags(State(registry): State<Registry>, At(name): At<String>) -> Result<axum::Json<OciTags>, OciFailure> {
    let history = registry.catalog.history(&name).await.map_err(|e| OciFailure::of("NAME_UNKNOWN")(e.into()))?;
    let mut tags: Vec<String> = history.iter().map(|entry| format!("v{}", entry.version.version)).collect();
    tags.extend(history.into_iter().flat_map(|entry| entry.version.tags));
    tags.sort();
    Ok(axum::Json(OciTags { name, tags }))
}
