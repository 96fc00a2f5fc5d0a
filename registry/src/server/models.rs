//! Models, versions and tags.

use aotfarm_protocol::{ApiError, ErrorCode, HistoryEntry, ModelInfo, Reference, TagRequest, VersionInfo};
use axum::extract::{Path, Query, State};
use serde::Deserialize;

use super::{Failure, Json, Registry};

type Answer<T> = Result<Json<T>, Failure>;

/// Every model with its newest version, by name.
pub(super) async fn list(State(registry): State<Registry>) -> Answer<Vec<ModelInfo>> {
    Ok(Json(registry.catalog.models().await?))
}

/// The versions of a model with their profiles, oldest first.
pub(super) async fn history(State(registry): State<Registry>, Path(name): Path<String>) -> Answer<Vec<HistoryEntry>> {
    Ok(Json(registry.catalog.history(&name).await?))
}

#[derive(Deserialize)]
pub(super) struct ResolveQuery {
    #[serde(rename = "ref")]
    reference: Option<String>,
}

/// What a reference means now.
pub(super) async fn resolve(State(registry): State<Registry>, Query(query): Query<ResolveQuery>) -> Answer<VersionInfo> {
    let text = query.reference.ok_or_else(|| ApiError::new(ErrorCode::BadRequest, "the query has no `ref`"))?;
    let reference: Reference =
        text.parse().map_err(|e: aotfarm_protocol::ReferenceError| ApiError::new(ErrorCode::BadRequest, e.to_string()))?;
    Ok(Json(registry.catalog.resolve(&reference).await?))
}

/// Points a tag at a version, moving it if it exists.
pub(super) async fn tag(
    State(registry): State<Registry>,
    Path((name, tag)): Path<(String, String)>,
    Json(request): Json<TagRequest>,
) -> Answer<VersionInfo> {
    Ok(Json(registry.catalog.tag(&name, &tag, request.version).await?))
}

/// Removes a tag; answers with the version that it pointed at.
pub(super) async fn untag(State(registry): State<Registry>, Path((name, tag)): Path<(String, String)>) -> Answer<VersionInfo> {
    Ok(Json(registry.catalog.untag(&name, &tag).await?))
}
