//! OCI-shaped manifests: an image index per version, an image manifest per variant.
//! <https://github.com/opencontainers/image-spec>

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Digest, Profile, Target};

/// Media type of an image index.
pub const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of an image manifest.
pub const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of the config blob: the artifact's [`crate::ArtifactMetadata`].
pub const CONFIG_TYPE: &str = "application/vnd.aotfarm.model.config.v1+json";
/// Media type of the artifact layer: the shared object, uncompressed.
pub const ARTIFACT_TYPE: &str = "application/vnd.aotfarm.model.so.v1";
/// Media type of the layer that the version was checked with: a safetensors file with `in.<i>` and the `out.<i>` that they lead to.
pub const SAMPLES_TYPE: &str = "application/vnd.aotfarm.model.samples.v1+safetensors";

/// An OCI content descriptor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the bytes are.
    pub media_type: String,
    /// Their digest.
    pub digest: Digest,
    /// Their number.
    pub size: u64,
    /// Notes; the target of a variant is under `io.aotfarm.target`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// An OCI image manifest: one variant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// [`MANIFEST_TYPE`].
    pub media_type: String,
    /// The metadata.
    pub config: Descriptor,
    /// The shared object, and what it was checked with.
    pub layers: Vec<Descriptor>,
    /// Notes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// An OCI image index: one version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// [`INDEX_TYPE`].
    pub media_type: String,
    /// The variants.
    pub manifests: Vec<Descriptor>,
    /// Notes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// Annotation of a [`SAMPLES_TYPE`] layer: whether its inputs are `submitted` or `random`.
pub const SAMPLES_ANNOTATION: &str = "io.aotfarm.samples";
/// Annotation that holds the target of a variant.
pub const TARGET_ANNOTATION: &str = "io.aotfarm.target";
/// Annotation of a variant that does not compute in fp32.
pub const PRECISION_ANNOTATION: &str = "io.aotfarm.precision";
/// Annotation of a variant whose kernels were not measured on a device of its target: why not.
pub const UNTESTED_ANNOTATION: &str = "io.aotfarm.untested";

/// Annotation of a variant that needs NVIDIA's libraries on the host that runs it: their files.
pub const LIBRARIES_ANNOTATION: &str = "io.aotfarm.libraries";

/// One variant of a version, resolved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct VariantInfo {
    /// What it is made for.
    pub target: Target,
    /// Digest of its manifest.
    pub manifest: Digest,
    /// Digest of the shared object.
    pub artifact: Digest,
    /// Size of the shared object.
    pub bytes: u64,
}

/// One version of a model, resolved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct VersionInfo {
    /// The model.
    pub name: String,
    /// 1, 2, 3 … without gaps.
    pub version: u32,
    /// Digest of the index.
    pub index: Digest,
    /// The graph it was compiled from.
    pub graph: Digest,
    /// Variants.
    pub variants: Vec<VariantInfo>,
    /// Tags that point here.
    pub tags: Vec<String>,
    /// When it was published, Unix seconds.
    pub at: i64,
}

/// A model in a listing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct ModelInfo {
    /// The model.
    pub name: String,
    /// Its newest version.
    pub latest: VersionInfo,
    /// How many versions there are.
    pub versions: u32,
}

/// A version with its Profiles: one entry of the history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct HistoryEntry {
    /// The version.
    pub version: VersionInfo,
    /// Its benchmarks.
    pub profiles: Vec<Profile>,
}

/// What the coordinator asks the registry to publish.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct PublishRequest {
    /// The model.
    pub name: String,
    /// The graph it was compiled from.
    pub graph: Digest,
    /// Per variant: target, artifact and metadata; the blobs are in the store.
    pub variants: Vec<(Target, Digest, crate::ArtifactMetadata)>,
    /// Benchmarks of the variants.
    pub profiles: Vec<Profile>,
    /// What the artifacts were checked with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<Samples>,
}

/// Inputs, and the outputs that they lead to: what the artifacts of a version were checked with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Samples {
    /// A safetensors blob with `in.<i>` and `out.<i>`.
    pub case: Digest,
    /// Whether the inputs are the submitter's, not random ones.
    pub submitted: bool,
}
