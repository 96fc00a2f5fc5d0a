//! Making versions.

use aotfarm_protocol::{Digest, KeyHasher, Profile, PublishRequest, Published, Reference, Samples, VariantInfo};
use aotfarm_store::NewVersion;

use super::error::During as _;
use super::oci::{self, Variant};
use super::{Catalog, CatalogError, READ, Result};

const PUBLISH: &str = "publish a version";

impl Catalog {
    /// Makes the next version of a model, or finds the one that already has exactly these artifacts; appends the profiles in
    /// both cases. `at` is the time, in Unix seconds. The answer's `previous` holds the profiles of the version before.
    ///
    /// Any number of callers may publish at once: versions are numbered in the order of their transactions, without gaps.
    ///
    /// # Errors
    /// [`CatalogError::Invalid`] for a bad name, no variant or two for one target, or metadata of another target;
    /// [`CatalogError::Blob`] if an artifact or the samples are not in the store; [`CatalogError::Database`].
    pub async fn publish(&self, request: &PublishRequest, at: i64) -> Result<Published> {
        let name = request.name.as_str();
        let variants = self.documents(request).await?;
        let index = oci::index(&variants);
        // Blobs first: a version in the database always has its documents. Blobs without a version do no harm.
        for v in &variants {
            self.blobs.put_expected(v.config.digest, v.config.bytes.clone().into()).await?;
            self.blobs.put_expected(v.manifest.digest, v.manifest.bytes.clone().into()).await?;
        }
        self.blobs.put_expected(index.digest, index.bytes.into()).await?;

        // Alone from before the first look, so no other publisher comes between `latest_version` and the insert.
        let mut tx = self.store.write().await.during(PUBLISH)?;
        let contents = contents_key(&variants, request.samples.as_ref());
        let known = tx.version_with_contents(name, contents).await.during(READ)?;
        let version = match known {
            Some(version) => version,
            None => {
                let version = tx.latest_version(name).await.during(READ)? + 1;
                let variants: Vec<VariantInfo> = variants.iter().map(Variant::info).collect();
                let new = NewVersion {
                    model: name,
                    version,
                    index: index.digest,
                    graph: request.graph,
                    contents,
                    at,
                    variants: &variants,
                };
                tx.insert_version(&new).await.during(PUBLISH)?;
                version
            }
        };
        tx.append_profiles(name, version, &request.profiles).await.during(PUBLISH)?;
        let info = tx
            .version(name, version)
            .await
            .during(READ)?
            .ok_or_else(|| CatalogError::Corrupt(format!("{name}@v{version} vanished while being published")))?;
        let profiles = tx.profiles(name, version).await.during(READ)?;
        let previous = tx.profiles(name, version - 1).await.during(READ)?;
        tx.commit().await.during(PUBLISH)?;
        Ok(Published {
            version,
            index: info.index,
            variants: info.variants.iter().map(|v| (v.target, v.artifact, v.bytes)).collect(),
            existed: known.is_some(),
            profiles,
            previous,
        })
    }

    /// Appends benchmarks to the history of a version. One that is there already is not added twice.
    ///
    /// # Errors
    /// [`CatalogError::NotFound`] if there is no such version; [`CatalogError::Database`].
    pub async fn add_profiles(&self, model: &str, version: u32, profiles: &[Profile]) -> Result<()> {
        let mut tx = self.store.write().await.during(PUBLISH)?;
        self.existing(&mut *tx, model, version).await?;
        tx.append_profiles(model, version, profiles).await.during(PUBLISH)?;
        tx.commit().await.during(PUBLISH)
    }

    /// Checks the request and describes its variants, in the order of their targets.
    async fn documents(&self, request: &PublishRequest) -> Result<Vec<Variant>> {
        let name = &request.name;
        let invalid = |why: String| Err(CatalogError::Invalid(format!("cannot publish `{name}`: {why}")));
        if !Reference::is_name(name) {
            return invalid("it is not a model name (a-z, 0-9, `.`, `_`, `-`; at most 128)".into());
        }
        if request.variants.is_empty() {
            return invalid("it has no variant".into());
        }
        let samples = match &request.samples {
            Some(samples) => Some(oci::samples(name, samples, self.blobs.size(samples.case).await?)),
            None => None,
        };
        let mut variants = Vec::with_capacity(request.variants.len());
        for (target, artifact, metadata) in &request.variants {
            if metadata.target != *target || metadata.graph != request.graph {
                return invalid(format!("the metadata of its variant {target} is that of another artifact"));
            }
            let bytes = self.blobs.size(*artifact).await?;
            variants.push(oci::variant(name, *target, (*artifact, bytes), metadata, samples.as_ref()));
        }
        variants.sort_by_key(|v| v.target.to_string());
        if let Some(pair) = variants.windows(2).find(|pair| pair[0].target == pair[1].target) {
            return invalid(format!("it has two variants for {}", pair[0].target));
        }
        Ok(variants)
    }
}

/// What makes two versions of a model the same: their targets and artifacts, and the samples that someone gave for them.
fn contents_key(variants: &[Variant], samples: Option<&Samples>) -> Digest {
    let key =
        variants.iter().fold(KeyHasher::new("version"), |key, v| key.field(v.target.to_string()).field(v.artifact.as_bytes()));
    match samples {
        Some(Samples { case, submitted: true }) => key.field("samples").field(case.as_bytes()),
        _ => key,
    }
    .finish()
}
