//! The rules of the catalog: what a reference means, what makes a version, what is said when something is not there. Rows are in
//! a [`Store`], documents in a [`BlobStore`].

mod error;
mod oci;
mod publish;

use std::sync::Arc;

use aotfarm_protocol::{
    Digest, HistoryEntry, INDEX_TYPE, MANIFEST_TYPE, ModelInfo, Profile, Reference, Selector, VariantInfo, VersionInfo,
};
use aotfarm_store::{BlobStore, Snapshot, Store};
use bytes::Bytes;

pub use self::error::CatalogError;
use self::error::During as _;

type Result<T> = std::result::Result<T, CatalogError>;

const READ: &str = "read the catalog";
const TAG: &str = "tag a version";

/// How many names an error lists.
const LISTED: usize = 12;

/// The catalog of a registry. Clones share the stores.
#[derive(Debug, Clone)]
pub struct Catalog {
    store: Arc<dyn Store>,
    blobs: Arc<dyn BlobStore>,
}

/// An OCI document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Its media type.
    pub media_type: &'static str,
    /// Its digest.
    pub digest: Digest,
    /// The document.
    pub bytes: Bytes,
}

impl Catalog {
    /// The catalog in a database, with its documents among `blobs`.
    pub fn new(store: Arc<dyn Store>, blobs: Arc<dyn BlobStore>) -> Self {
        Self { store, blobs }
    }

    /// The store that holds the artifacts and documents.
    pub fn blobs(&self) -> &Arc<dyn BlobStore> {
        &self.blobs
    }

    /// What a reference means now. With a target, the answer has only that variant.
    ///
    /// # Errors
    /// [`CatalogError::NotFound`], naming what there is instead.
    pub async fn resolve(&self, reference: &Reference) -> Result<VersionInfo> {
        let mut db = self.store.read().await.during(READ)?;
        let name = &reference.name;
        let latest = db.latest_version(name).await.during(READ)?;
        if latest == 0 {
            return Err(no_model(&mut *db, name).await);
        }
        let version = match &reference.selector {
            Selector::Latest => Some(latest),
            Selector::Version(n) => (*n <= latest).then_some(*n),
            Selector::Tag(tag) => db.tagged(name, tag).await.during(READ)?,
            Selector::Digest(digest) => db.version_with_index(name, *digest).await.during(READ)?,
        };
        let Some(version) = version else {
            let asked = Reference { target: None, ..reference.clone() }.to_string();
            return Err(no_version(&mut *db, name, &asked, latest).await);
        };
        let mut info = self.existing(&mut *db, name, version).await?;
        if let Some(target) = reference.target {
            let targets = join(info.variants.iter().map(|v| v.target.to_string()));
            info.variants.retain(|v: &VariantInfo| v.target == target);
            if info.variants.is_empty() {
                return Err(CatalogError::NotFound {
                    message: format!("{name}@v{version} has no variant for {target}: it has {targets}"),
                    hint: Some(format!("submit the model for it: aotfarm submit MODEL --name {name} --target {target}")),
                });
            }
        }
        Ok(info)
    }

    /// Every model with its newest version, by name.
    ///
    /// # Errors
    /// [`CatalogError::Database`].
    pub async fn models(&self) -> Result<Vec<ModelInfo>> {
        let mut db = self.store.read().await.during(READ)?;
        let mut models = Vec::new();
        for (name, versions) in db.models().await.during(READ)? {
            let latest = self.existing(&mut *db, &name, versions).await?;
            models.push(ModelInfo { name, latest, versions });
        }
        Ok(models)
    }

    /// The versions of a model with their profiles, oldest first.
    ///
    /// # Errors
    /// [`CatalogError::NotFound`], [`CatalogError::Database`].
    pub async fn history(&self, model: &str) -> Result<Vec<HistoryEntry>> {
        let mut db = self.store.read().await.during(READ)?;
        let latest = db.latest_version(model).await.during(READ)?;
        if latest == 0 {
            return Err(no_model(&mut *db, model).await);
        }
        let mut entries = Vec::new();
        for version in 1..=latest {
            let info = self.existing(&mut *db, model, version).await?;
            entries.push(HistoryEntry { version: info, profiles: db.profiles(model, version).await.during(READ)? });
        }
        Ok(entries)
    }

    /// The profiles of a version, in the order they came.
    ///
    /// # Errors
    /// [`CatalogError::NotFound`], [`CatalogError::Database`].
    pub async fn profiles(&self, model: &str, version: u32) -> Result<Vec<Profile>> {
        let mut db = self.store.read().await.during(READ)?;
        self.existing(&mut *db, model, version).await?;
        db.profiles(model, version).await.during(READ)
    }

    /// Points a tag at a version, moving it if it exists.
    ///
    /// # Errors
    /// [`CatalogError::Invalid`] if `tag` cannot be one; [`CatalogError::NotFound`] if there is no such version.
    pub async fn tag(&self, model: &str, tag: &str, version: u32) -> Result<VersionInfo> {
        if !Reference::is_tag(tag) || tag == "latest" {
            let why = if tag == "latest" {
                "it always means the newest version"
            } else {
                "expected a-z, 0-9, `.`, `_`, `-`, and not a version like v3"
            };
            return Err(CatalogError::Invalid(format!("`{tag}` cannot be a tag: {why}")));
        }
        let mut db = self.store.write().await.during(TAG)?;
        self.existing(&mut *db, model, version).await?;
        db.set_tag(model, tag, version).await.during(TAG)?;
        let info = self.existing(&mut *db, model, version).await?;
        db.commit().await.during(TAG)?;
        Ok(info)
    }

    /// Removes a tag; returns the version that it pointed at.
    ///
    /// # Errors
    /// [`CatalogError::NotFound`] if there is no such tag.
    pub async fn untag(&self, model: &str, tag: &str) -> Result<VersionInfo> {
        let mut db = self.store.write().await.during(TAG)?;
        let Some(version) = db.tagged(model, tag).await.during(READ)? else {
            let latest = db.latest_version(model).await.during(READ)?;
            return Err(match latest {
                0 => no_model(&mut *db, model).await,
                _ => no_version(&mut *db, model, &format!("{model}@{tag}"), latest).await,
            });
        };
        db.remove_tag(model, tag).await.during(TAG)?;
        let info = self.existing(&mut *db, model, version).await?;
        db.commit().await.during(TAG)?;
        Ok(info)
    }

    /// The OCI document that `reference` (`v3`, a tag, `latest`, or the digest of an index or of a variant's manifest) names.
    ///
    /// # Errors
    /// [`CatalogError::NotFound`]; [`CatalogError::Invalid`] if it is no reference; [`CatalogError::Blob`].
    pub async fn manifest(&self, model: &str, reference: &str) -> Result<Manifest> {
        if let Ok(digest) = reference.parse::<Digest>() {
            let mut db = self.store.read().await.during(READ)?;
            if db.has_manifest(model, digest).await.during(READ)? {
                drop(db);
                return Ok(Manifest { media_type: MANIFEST_TYPE, digest, bytes: self.blobs.get(digest).await? });
            }
        }
        let text = if reference == "latest" { model.to_owned() } else { format!("{model}@{reference}") };
        let reference: Reference =
            text.parse().map_err(|e: aotfarm_protocol::ReferenceError| CatalogError::Invalid(e.to_string()))?;
        let digest = self.resolve(&reference).await?.index;
        Ok(Manifest { media_type: INDEX_TYPE, digest, bytes: self.blobs.get(digest).await? })
    }

    /// A version that must exist.
    async fn existing(&self, db: &mut dyn Snapshot, model: &str, version: u32) -> Result<VersionInfo> {
        if let Some(info) = db.version(model, version).await.during(READ)? {
            return Ok(info);
        }
        let latest = db.latest_version(model).await.during(READ)?;
        Err(match latest {
            0 => no_model(db, model).await,
            _ => no_version(db, model, &format!("{model}@v{version}"), latest).await,
        })
    }
}

async fn no_model(db: &mut dyn Snapshot, model: &str) -> CatalogError {
    match db.models().await.during(READ) {
        Err(e) => e,
        Ok(all) if all.is_empty() => CatalogError::NotFound {
            message: format!("there is no model `{model}`: the registry is empty"),
            hint: Some("publish one with aotfarm submit".into()),
        },
        Ok(all) => CatalogError::NotFound {
            message: format!("there is no model `{model}`: the registry has {}", join(all.into_iter().map(|(name, _)| name))),
            hint: None,
        },
    }
}

async fn no_version(db: &mut dyn Snapshot, model: &str, asked: &str, latest: u32) -> CatalogError {
    let tags = match db.tags(model).await.during(READ) {
        Ok(tags) => tags,
        Err(e) => return e,
    };
    let versions = if latest == 1 { "v1".to_owned() } else { format!("v1..v{latest}") };
    let tags = match tags.len() {
        0 => "no tags".to_owned(),
        1 => format!("tag {}", tags[0].0),
        _ => format!("tags {}", join(tags.into_iter().map(|(tag, _)| tag))),
    };
    CatalogError::NotFound { message: format!("there is no {asked}: {model} has {versions} and {tags}"), hint: None }
}

fn join(names: impl ExactSizeIterator<Item = String>) -> String {
    let rest = names.len().saturating_sub(LISTED);
    let mut text = names.take(LISTED).collect::<Vec<_>>().join(", ");
    if rest > 0 {
        text += &format!(" and {rest} more");
    }
    text
}
