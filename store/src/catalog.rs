//! The catalog of models: versions with their variants, tags, and the performance history. A
//! version is never changed or removed, so versions run from 1 without gaps.

use aotfarm_protocol::{Digest, Profile, VariantInfo, VersionInfo};
use async_trait::async_trait;

use crate::error::Result;

/// A version to be added.
#[derive(Debug, Clone, Copy)]
pub struct NewVersion<'a> {
    /// The model.
    pub model: &'a str,
    /// Its number.
    pub version: u32,
    /// Digest of the OCI image index.
    pub index: Digest,
    /// Digest of the graph that it was compiled from.
    pub graph: Digest,
    /// Key of the set of (target, artifact): the same set is the same version.
    pub contents: Digest,
    /// When it is published, Unix seconds.
    pub at: i64,
    /// The artifact of each target.
    pub variants: &'a [VariantInfo],
}

/// Queries for versions and their variants.
#[async_trait]
pub trait ReadVersions {
    /// One version, with variants and tags in the order of their names.
    async fn version(&mut self, model: &str, version: u32) -> Result<Option<VersionInfo>>;

    /// The number of the newest version; 0 if there is none.
    async fn latest_version(&mut self, model: &str) -> Result<u32>;

    /// `(model, number of its newest version)` of every model, by name.
    async fn models(&mut self) -> Result<Vec<(String, u32)>>;

    /// The version whose index has the digest; the newest, should there be several.
    async fn version_with_index(&mut self, model: &str, index: Digest) -> Result<Option<u32>>;

    /// The version that has exactly the contents.
    async fn version_with_contents(&mut self, model: &str, contents: Digest) -> Result<Option<u32>>;

    /// Whether a variant of the model has the manifest.
    async fn has_manifest(&mut self, model: &str, manifest: Digest) -> Result<bool>;
}

/// Additions to the versions.
#[async_trait]
pub trait WriteVersions {
    /// Adds a version with its variants. Fails when the number, or a version with these contents,
    /// is there already.
    async fn insert_version(&mut self, version: &NewVersion<'_>) -> Result<()>;
}

/// Queries for tags.
#[async_trait]
pub trait ReadTags {
    /// The version that a tag points at.
    async fn tagged(&mut self, model: &str, tag: &str) -> Result<Option<u32>>;

    /// `(tag, version)` of a model, by tag.
    async fn tags(&mut self, model: &str) -> Result<Vec<(String, u32)>>;
}

/// Changes of tags.
#[async_trait]
pub trait WriteTags {
    /// Points a tag at a version, moving it if it exists.
    async fn set_tag(&mut self, model: &str, tag: &str, version: u32) -> Result<()>;

    /// Removes a tag.
    async fn remove_tag(&mut self, model: &str, tag: &str) -> Result<()>;
}

/// Queries for the performance history.
#[async_trait]
pub trait ReadProfiles {
    /// The Profiles of a version, in the order they came.
    async fn profiles(&mut self, model: &str, version: u32) -> Result<Vec<Profile>>;
}

/// Additions to the performance history.
#[async_trait]
pub trait WriteProfiles {
    /// Appends Profiles to a version. One that is there already is not added twice.
    async fn append_profiles(&mut self, model: &str, version: u32, profiles: &[Profile]) -> Result<()>;
}
