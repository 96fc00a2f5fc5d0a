//! The OCI documents of a version. The same variants always give the same bytes, hence the same digests.

use std::collections::BTreeMap;

use aotfarm_protocol::{
    ARTIFACT_TYPE, ArtifactMetadata, CONFIG_TYPE, Descriptor, Digest, INDEX_TYPE, Index, LIBRARIES_ANNOTATION, MANIFEST_TYPE,
    Manifest, PRECISION_ANNOTATION, Precision, SAMPLES_ANNOTATION, SAMPLES_TYPE, Samples, TARGET_ANNOTATION, Target,
    UNTESTED_ANNOTATION, VariantInfo,
};

/// Annotation that tells OCI tools what to call the file.
/// <https://github.com/opencontainers/image-spec/blob/main/annotations.md>
const TITLE_ANNOTATION: &str = "org.opencontainers.image.title";

/// A document and its digest.
pub(super) struct Document {
    pub(super) bytes: Vec<u8>,
    pub(super) digest: Digest,
}

impl Document {
    fn of(value: &impl serde::Serialize) -> Self {
        // Fields are written in the order of their declaration and maps are ordered, so the bytes are a function of the value.
        let bytes = serde_json::to_vec(value).expect("the documents have only string keys");
        Self { digest: Digest::of(&bytes), bytes }
    }

    fn descriptor(&self, media_type: &str) -> Descriptor {
        Descriptor {
            media_type: media_type.to_owned(),
            digest: self.digest,
            size: self.bytes.len() as u64,
            annotations: BTreeMap::new(),
        }
    }
}

/// The documents of one variant.
pub(super) struct Variant {
    pub(super) target: Target,
    pub(super) artifact: Digest,
    pub(super) bytes: u64,
    pub(super) config: Document,
    pub(super) manifest: Document,
}

impl Variant {
    /// What the catalog keeps of it.
    pub(super) fn info(&self) -> VariantInfo {
        VariantInfo { target: self.target, manifest: self.manifest.digest, artifact: self.artifact, bytes: self.bytes }
    }
}

/// The layer of what a version of `model` was checked with: a file of `bytes` bytes.
pub(super) fn samples(model: &str, samples: &Samples, bytes: u64) -> Descriptor {
    let origin = if samples.submitted { "submitted" } else { "random" };
    Descriptor {
        media_type: SAMPLES_TYPE.to_owned(),
        digest: samples.case,
        size: bytes,
        annotations: BTreeMap::from([
            (SAMPLES_ANNOTATION.to_owned(), origin.to_owned()),
            (TITLE_ANNOTATION.to_owned(), format!("{model}.samples.safetensors")),
        ]),
    }
}

/// Describes one variant of `model`: an artifact of `bytes` bytes, and the layer that it was checked with.
pub(super) fn variant(
    model: &str,
    target: Target,
    (artifact, bytes): (Digest, u64),
    metadata: &ArtifactMetadata,
    samples: Option<&Descriptor>,
) -> Variant {
    let config = Document::of(metadata);
    let mut annotations = target_annotation(target);
    if metadata.precision != Precision::Fp32 {
        annotations.insert(PRECISION_ANNOTATION.to_owned(), metadata.precision.to_string());
    }
    if let Some(why) = &metadata.untested {
        annotations.insert(UNTESTED_ANNOTATION.to_owned(), why.clone());
    }
    if !metadata.libraries.is_empty() {
        let files: Vec<&str> = metadata.libraries.iter().map(|library| library.needed()).collect();
        annotations.insert(LIBRARIES_ANNOTATION.to_owned(), files.join(", "));
    }
    let layer = Descriptor {
        media_type: ARTIFACT_TYPE.to_owned(),
        digest: artifact,
        size: bytes,
        annotations: BTreeMap::from([(TITLE_ANNOTATION.to_owned(), format!("{model}.so"))]),
    };
    let manifest = Document::of(&Manifest {
        schema_version: 2,
        media_type: MANIFEST_TYPE.to_owned(),
        config: config.descriptor(CONFIG_TYPE),
        layers: [layer].into_iter().chain(samples.cloned()).collect(),
        annotations,
    });
    Variant { target, artifact, bytes, config, manifest }
}

/// Describes a version by its variants, which are in the order of their targets.
pub(super) fn index(variants: &[Variant]) -> Document {
    let manifests = variants
        .iter()
        .map(|v| Descriptor { annotations: target_annotation(v.target), ..v.manifest.descriptor(MANIFEST_TYPE) })
        .collect();
    Document::of(&Index { schema_version: 2, media_type: INDEX_TYPE.to_owned(), manifests, annotations: BTreeMap::new() })
}

fn target_annotation(target: Target) -> BTreeMap<String, String> {
    BTreeMap::from([(TARGET_ANNOTATION.to_owned(), target.to_string())])
}
