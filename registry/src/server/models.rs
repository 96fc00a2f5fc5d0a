//! Models, versions and tags.

use aotfarm_protocol::endpoints::registry;
use aotfarm_protocol::{HistoryEntry, ModelInfo, ResolveQuery, TagRequest, VersionInfo};

use super::error::Failure;
use super::routes::Routes;
use super::state::Registry;

pub(super) fn routes(routes: Routes<Registry>) -> Routes<Registry> {
    routes
        .on(&registry::MODELS, list)
        .on(&registry::HISTORY, history)
        .on(&registry::RESOLVE, resolve)
        .on(&registry::TAG, tag)
        .on(&registry::UNTAG, untag)
}

async fn list(registry: Registry, (): ()) -> Result<Vec<ModelInfo>, Failure> {
    Ok(registry.catalog.models().await?)
}

async fn history(registry: Registry, name: String) -> Result<Vec<HistoryEntry>, Failure> {
    Ok(registry.catalog.history(&name).await?)
}

async fn resolve(registry: Registry, query: ResolveQuery) -> Result<VersionInfo, Failure> {
    Ok(registry.catalog.resolve(&query.reference()?).await?)
}

async fn tag(registry: Registry, ((name, tag), request): ((String, String), TagRequest)) -> Result<VersionInfo, Failure> {
    Ok(registry.catalog.tag(&name, &tag, request.version).await?)
}

async fn untag(registry: Registry, (name, tag): (String, String)) -> Result<VersionInfo, Failure> {
    Ok(registry.catalog.untag(&name, &tag).await?)
}
