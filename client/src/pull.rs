//! Fetching the best variant of a model that a host can run.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use aotfarm_blob::file::{FileError, READ, blocking, hash, write_atomically};
use aotfarm_protocol::endpoints::registry;
use aotfarm_protocol::{
    ApiError, ArtifactMetadata, CpuIsa, Descriptor, Digest, ErrorCode, Index, Manifest, Reference, SAMPLES_TYPE, Selector,
    Target, VariantInfo, VersionInfo,
};
use serde::{Deserialize, Serialize};

use crate::blobs::Progress;
use crate::error::ClientError;
use crate::http::Client;

/// Why nothing was pulled.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The registry, the network or a file on this side.
    #[error("{0}")]
    Client(#[from] ClientError),
    /// The host cannot run any variant, or not the one that was asked for.
    #[error("{0}")]
    Unsupported(#[source] ApiError),
    /// What the registry says does not fit together.
    #[error("{0}")]
    Damaged(#[source] ApiError),
}

impl PullError {
    fn damaged(message: String) -> Self {
        Self::Damaged(ApiError::new(ErrorCode::Damaged, message))
    }
}

impl From<FileError> for PullError {
    fn from(error: FileError) -> Self {
        Self::Client(error.into())
    }
}

impl From<PullError> for ApiError {
    fn from(error: PullError) -> Self {
        match error {
            PullError::Client(e) => e.into(),
            PullError::Unsupported(e) | PullError::Damaged(e) => e,
        }
    }
}

/// How to pull.
#[derive(Clone, Copy, Default)]
pub struct PullOptions<'a> {
    /// Take the variant that the reference names, or else the first, even if this host cannot run it.
    pub any_host: bool,
    /// Why this host cannot run a target, as a fragment that completes "this host …"; for the explanation of a refusal.
    pub why_not: Option<fn(Target) -> Option<String>>,
    /// Told how the download goes, in compressed bytes.
    pub progress: Option<Progress<'a>>,
}

/// What lies in the folder now.
#[derive(Debug, Clone, PartialEq)]
pub struct Pulled {
    /// The shared object.
    pub path: PathBuf,
    /// Its description, a [`PullRecord`] as JSON.
    pub record_path: PathBuf,
    /// What the reference meant.
    pub version: VersionInfo,
    /// The variant that was chosen.
    pub variant: VariantInfo,
    /// What the artifact says about itself.
    pub metadata: ArtifactMetadata,
    /// Whether the artifact had to be downloaded; otherwise it was there, and intact.
    pub downloaded: bool,
    /// The layer of inputs and outputs that the artifact was checked with; `None` of a version of an earlier release.
    pub samples: Option<Descriptor>,
}

/// What `<name>.json` beside a pulled artifact says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PullRecord {
    /// The version and variant, resolved: `resnet18@v3/cpu-x86_64-v3`.
    pub reference: String,
    /// Digest of the version's index.
    pub index: Digest,
    /// Digest of the variant's manifest.
    pub manifest: Digest,
    /// Digest of the shared object.
    pub artifact: Digest,
    /// Size of the shared object.
    pub bytes: u64,
    /// What the artifact says about itself.
    pub metadata: ArtifactMetadata,
}

/// Resolves `reference`, chooses the variant that comes first in `host_targets` (what this host can run, best first), and puts it
/// into `out_dir` as `<name>.so` with `<name>.json` beside it, each replaced in one step. The folder is made if need be. An
/// artifact that is there already and intact is not downloaded again; an interrupted download is resumed.
///
/// The chain of digests from the version's index over the manifest to the artifact is checked, so with a `name@sha256:…`
/// reference the registry need not be trusted.
///
/// # Errors
/// [`PullError::Unsupported`] names each variant and what the host lacks for it.
pub async fn pull(
    client: &Client,
    reference: &Reference,
    host_targets: &[Target],
    out_dir: &Path,
    options: PullOptions<'_>,
) -> Result<Pulled, PullError> {
    let version: VersionInfo = client.call(registry::RESOLVE.request(&reference.into())).await?;
    if let Selector::Digest(asked) = reference.selector
        && version.index != asked
    {
        return Err(PullError::damaged(format!("the registry resolves {reference} to another version, {}", version.index)));
    }
    let variant = choose(reference, &version, host_targets, options)?.clone();
    let manifest = trusted_manifest(client, &version, &variant).await?;
    let metadata: ArtifactMetadata = document(client, manifest.config.digest).await?;
    if metadata.target != variant.target {
        return Err(PullError::damaged(format!("the variant {} holds an artifact for {}", variant.target, metadata.target)));
    }

    // The name is the one that was asked for, never one that the server chose: it becomes part of a path.
    let path = out_dir.join(format!("{}.so", reference.name));
    let record_path = out_dir.join(format!("{}.json", reference.name));
    let dir = out_dir.to_owned();
    blocking(move || fs::create_dir_all(&dir).map_err(FileError::io("create", &dir))).await?;
    let downloaded = !holds(&path, variant.artifact).await?;
    if downloaded {
        client.blob_to_file(variant.artifact, &path, options.progress.unwrap_or(&|_, _| ())).await?;
    }
    let resolved =
        Reference { name: reference.name.clone(), selector: Selector::Version(version.version), target: Some(variant.target) };
    let record = PullRecord {
        reference: resolved.to_string(),
        index: version.index,
        manifest: variant.manifest,
        artifact: variant.artifact,
        bytes: variant.bytes,
        metadata: metadata.clone(),
    };
    write_record(&record_path, &record).await?;
    let samples = manifest.layers.into_iter().find(|layer| layer.media_type == SAMPLES_TYPE);
    Ok(Pulled { path, record_path, version, variant, metadata, downloaded, samples })
}

/// The best variant that the host can run.
fn choose<'a>(
    reference: &Reference,
    version: &'a VersionInfo,
    host_targets: &[Target],
    options: PullOptions<'_>,
) -> Result<&'a VariantInfo, PullError> {
    let offered = || version.variants.iter().filter(|v| reference.target.is_none_or(|t| v.target == t));
    let best = host_targets.iter().find_map(|target| offered().find(|v| v.target == *target));
    if let Some(variant) = best.or_else(|| offered().next().filter(|_| options.any_host)) {
        return Ok(variant);
    }
    let name = format!("{}@v{}", reference.name, version.version);
    let targets: Vec<String> = offered().map(|v| v.target.to_string()).collect();
    if targets.is_empty() {
        return Err(PullError::damaged(format!("the registry offers no variant of {name}{}", suffix(reference.target))));
    }
    let reason = |v: &VariantInfo| {
        let host = options.why_not.and_then(|why_not| why_not(v.target));
        let host = host.map_or_else(String::new, |why| format!(", and this host {why}"));
        format!("{} needs {}{host}", v.target, needs(v.target))
    };
    let reasons: Vec<String> = offered().map(reason).collect();
    let runs = match host_targets {
        [] => "no target of aotfarm".to_owned(),
        all => all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    };
    let word = if targets.len() == 1 { "variant" } else { "variants" };
    let message = format!("{name} has the {word} {}; this host runs {runs}: {}", targets.join(", "), reasons.join("; "));
    let hint = match host_targets.first() {
        Some(best) => format!(
            "submit the model for this host (aotfarm submit MODEL --name {} --target {best}), or pull on a host that has it",
            reference.name
        ),
        None => "pull on a host that has what it needs".to_owned(),
    };
    Err(PullError::Unsupported(ApiError::new(ErrorCode::Unsupported, message).hint(hint)))
}

fn suffix(target: Option<Target>) -> String {
    target.map_or_else(String::new, |t| format!("/{t}"))
}

/// What runs code for `target`.
fn needs(target: Target) -> String {
    match target {
        Target::Cpu(CpuIsa::X86_64V4) => "an x86-64 CPU of level v4 (AVX-512)".to_owned(),
        Target::Cpu(CpuIsa::X86_64V3) => "an x86-64 CPU of level v3 (AVX2)".to_owned(),
        Target::Cpu(CpuIsa::Aarch64) => "an aarch64 CPU".to_owned(),
        Target::Cuda { sm } => format!("an NVIDIA GPU of compute capability {}.{} and its driver", sm / 10, sm % 10),
    }
}

/// The manifest of a variant, after checking that the index lists it and that it describes the artifact.
async fn trusted_manifest(client: &Client, version: &VersionInfo, variant: &VariantInfo) -> Result<Manifest, PullError> {
    let index: Index = document(client, version.index).await?;
    if !index.manifests.iter().any(|m| m.digest == variant.manifest) {
        return Err(PullError::damaged(format!("the index {} does not list the manifest {}", version.index, variant.manifest)));
    }
    let manifest: Manifest = document(client, variant.manifest).await?;
    if !manifest.layers.iter().any(|layer| layer.digest == variant.artifact && layer.size == variant.bytes) {
        return Err(PullError::damaged(format!(
            "the manifest {} does not describe the artifact {}",
            variant.manifest, variant.artifact
        )));
    }
    Ok(manifest)
}

async fn document<T: serde::de::DeserializeOwned>(client: &Client, digest: Digest) -> Result<T, PullError> {
    let bytes = client.blob(digest).await?;
    serde_json::from_slice(&bytes)
        .map_err(|e| PullError::damaged(format!("blob {digest} is not the document that it should be: {e}")))
}

/// Whether the file at `path` has the digest.
async fn holds(path: &Path, digest: Digest) -> Result<bool, PullError> {
    let path = path.to_owned();
    let found = blocking(move || match File::open(&path) {
        Ok(file) => hash(file).map(|(found, _)| found == digest).map_err(FileError::io(READ, &path)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(FileError::io(READ, &path)(e)),
    });
    Ok(found.await?)
}

async fn write_record(path: &Path, record: &PullRecord) -> Result<(), PullError> {
    let mut json = serde_json::to_vec_pretty(record).expect("a PullRecord has only string keys");
    json.push(b'\n');
    let path = path.to_owned();
    let written = blocking(move || {
        write_atomically(&path, |out| std::io::Write::write_all(out, &json).map_err(FileError::io("write", &path)))
    });
    Ok(written.await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const V3: Target = Target::Cpu(CpuIsa::X86_64V3);
    const V4: Target = Target::Cpu(CpuIsa::X86_64V4);
    const ARM: Target = Target::Cpu(CpuIsa::Aarch64);
    const GPU: Target = Target::Cuda { sm: 90 };

    fn check(reference: &str, variants: &[Target], host: &[Target], any_host: bool) -> Result<Target, String> {
        let digest = Digest::of("x");
        let variants =
            variants.iter().map(|t| VariantInfo { target: *t, manifest: digest, artifact: digest, bytes: 1 }).collect();
        let version =
            VersionInfo { name: "m".into(), version: 3, index: digest, graph: digest, variants, tags: Vec::new(), at: 0 };
        let why_not: fn(Target) -> Option<String> = |target| match target {
            Target::Cuda { .. } => Some("has no NVIDIA GPU".to_owned()),
            Target::Cpu(_) => Some("lacks avx512cd".to_owned()),
        };
        let options = PullOptions { any_host, why_not: Some(why_not), ..PullOptions::default() };
        choose(&reference.parse().unwrap(), &version, host, options).map(|v| v.target).map_err(|e| e.to_string())
    }

    #[test]
    fn the_hosts_best_target_wins() {
        assert_eq!(check("m", &[V3, V4], &[V4, V3], false), Ok(V4));
        assert_eq!(check("m", &[V4, V3], &[V3], false), Ok(V3));
        assert_eq!(check("m", &[V3, GPU], &[GPU, V4, V3], false), Ok(GPU));
        assert_eq!(check("m/cpu-x86_64-v3", &[V3, V4], &[V4, V3], false), Ok(V3));
        assert_eq!(check("m", &[ARM], &[V3], true), Ok(ARM));
    }

    #[test]
    fn refusals_say_what_is_missing() {
        assert_eq!(
            check("m", &[V4], &[V3], false).unwrap_err(),
            "m@v3 has the variant cpu-x86_64-v4; this host runs cpu-x86_64-v3: cpu-x86_64-v4 needs an x86-64 CPU of level v4 (AVX-512), \
             and this host lacks avx512cd"
        );
        assert_eq!(
            check("m", &[V4, GPU], &[V3], false).unwrap_err(),
            "m@v3 has the variants cpu-x86_64-v4, cuda-sm_90; this host runs cpu-x86_64-v3: cpu-x86_64-v4 needs an x86-64 CPU of level v4 \
             (AVX-512), and this host lacks avx512cd; \
             cuda-sm_90 needs an NVIDIA GPU of compute capability 9.0 and its driver, and this host has no NVIDIA GPU"
        );
        assert!(check("m", &[V3], &[], false).unwrap_err().contains("this host runs no target of aotfarm"));
        assert!(check("m/cpu-aarch64", &[V3, ARM], &[V3], false).unwrap_err().contains("cpu-aarch64 needs an aarch64 CPU"));
        assert!(check("m/cpu-aarch64", &[V3], &[V3], true).unwrap_err().contains("no variant of m@v3/cpu-aarch64"));
    }
}
