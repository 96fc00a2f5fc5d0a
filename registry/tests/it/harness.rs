//! A registry in a temporary folder, and things to put into it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aotfarm_client::{Client, Retry};
use aotfarm_protocol::{ArtifactMetadata, CpuIsa, Device, DeviceKind, Digest, Profile, PublishRequest, Quantiles, Target};
use aotfarm_registry::Catalog;
use aotfarm_registry::server::{Registry, router};
use aotfarm_store::{BlobStore, FileBlobStore, SqliteStore};
use tokio::net::TcpListener;

pub(crate) const V3: Target = Target::Cpu(CpuIsa::X86_64V3);
pub(crate) const V4: Target = Target::Cpu(CpuIsa::X86_64V4);

/// Retries that do not make a test wait.
pub(crate) const AT_ONCE: Retry = Retry { tries: 3, first: Duration::ZERO, longest: Duration::ZERO };

pub(crate) struct Setup {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) blobs: Arc<dyn BlobStore>,
    pub(crate) catalog: Catalog,
}

impl Setup {
    pub(crate) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let blobs: Arc<dyn BlobStore> = Arc::new(FileBlobStore::open(dir.path()).unwrap());
        let catalog = catalog(dir.path(), &blobs).await;
        Self { dir, blobs, catalog }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The file of a blob.
    pub(crate) fn stored(&self, digest: Digest) -> PathBuf {
        let hex = digest.hex();
        self.dir.path().join("blobs/sha256").join(&hex[..2]).join(format!("{hex}.zst"))
    }

    /// Serves the registry; returns a client of it.
    pub(crate) async fn serve(&self) -> Client {
        self.serve_as(Registry::new(self.catalog.clone())).await
    }

    pub(crate) async fn serve_as(&self, registry: Registry) -> Client {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router(registry)).await });
        Client::new(&url).unwrap().with_retry(AT_ONCE)
    }

    /// A request to publish `artifacts`, whose blobs are stored.
    pub(crate) async fn request(&self, name: &str, artifacts: &[(Target, &[u8])]) -> PublishRequest {
        let graph = Digest::of(b"graph");
        let mut variants = Vec::new();
        for (target, content) in artifacts {
            let artifact = self.blobs.put(content.to_vec().into()).await.unwrap();
            variants.push((*target, artifact, metadata(*target, graph)));
        }
        PublishRequest { name: name.to_owned(), graph, variants, profiles: Vec::new(), samples: None }
    }
}

/// The catalog in a folder, as each process that uses it opens it.
pub(crate) async fn catalog(dir: &Path, blobs: &Arc<dyn BlobStore>) -> Catalog {
    Catalog::new(Arc::new(SqliteStore::open(dir, false).await.unwrap()), Arc::clone(blobs))
}

pub(crate) fn metadata(target: Target, graph: Digest) -> ArtifactMetadata {
    ArtifactMetadata {
        target,
        graph,
        compiler: "0.1.0".into(),
        precision: Default::default(),
        untested: None,
        libraries: vec![],
        dims: vec![],
        inputs: vec![],
        outputs: vec![],
        states: vec![],
        signature: None,
        steps: vec![],
        segments: vec![],
    }
}

pub(crate) fn profile(target: Target, seconds: f64, at: i64) -> Profile {
    let samples = vec![seconds; 20];
    Profile {
        target,
        device: Device { kind: DeviceKind::Cpu, name: "cpu".into(), cores: 2, detail: "1/2/3".into(), targets: vec![target] },
        point: BTreeMap::from([("batch".into(), 1)]),
        threads: 2,
        latency: Quantiles::of(&samples).unwrap(),
        samples,
        steps: vec![],
        tools: BTreeMap::new(),
        at,
    }
}

/// Bytes that zstd cannot shrink, so that a download takes many chunks.
pub(crate) fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 1_u64;
    (0..bytes)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect()
}

/// Every file below `dir`, relative to it, sorted; the database left out.
pub(crate) fn files(dir: &Path) -> Vec<String> {
    fn walk(root: &Path, dir: &Path, out: &mut Vec<String>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(root, &path, out);
            } else {
                out.push(path.strip_prefix(root).unwrap().display().to_string());
            }
        }
    }
    let mut out = Vec::new();
    walk(dir, dir, &mut out);
    out.retain(|f| !f.starts_with("aotfarm.db"));
    out.sort();
    out
}
