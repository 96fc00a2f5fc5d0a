//! Making versions.

use aotfarm_protocol::{Digest, KeyHasher, Profile, PublishRequest, Published, Reference};
use sqlx::SqliteConnection;

use super::oci::{self, Variant};
use super::{Catalog, CatalogError, Result, rows};

const PUBLISH: &str = "publish a version";

impl Catalog {
    /// Makes the next version of a model, or finds the one that already has exactly these artifacts; appends the profiles in
    /// both cases. `at` is the time, in Unix seconds. The answer's `previous` holds the profiles of the version before.
    ///
    /// Any number of callers may publish at once: versions are numbered in the order of their transactions, without gaps.
    ///
    /// # Errors
    /// [`CatalogError::Invalid`] for a bad name, no variant or two for one target, or metadata of another target;
    /// [`CatalogError::Blob`] if an artifact is not in the store; [`CatalogError::Database`].
    pub async fn publish(&self, request: &PublishRequest, at: i64) -> Result<Published> {
        let variants = self.documents(request).await?;
        let index = oci::index(&variants);
        // Blobs first: a version in the database always has its documents. Blobs without a version do no harm.
        for v in &variants {
            self.blobs.put_expected(v.config.digest, v.config.bytes.clone()).await?;
            self.blobs.put_expected(v.manifest.digest, v.manifest.bytes.clone()).await?;
        }
        self.blobs.put_expected(index.digest, index.bytes).await?;

        // IMMEDIATE takes the write lock before reading, so no other publisher comes between `latest` and the insert.
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(CatalogError::database(PUBLISH))?;
        let contents = contents_key(&variants).to_string();
        let known = rows::with_contents(&mut tx, &request.name, &contents).await?;
        let version = match known {
            Some(version) => version,
            None => {
                let version = rows::latest(&mut tx, &request.name).await? + 1;
                insert_version(&mut tx, request, version, index.digest, &contents, at).await?;
                insert_variants(&mut tx, &request.name, version, &variants).await?;
                version
            }
        };
        append_profiles(&mut tx, &request.name, version, &request.profiles).await?;
        let info = rows::version(&mut tx, &request.name, version)
            .await?
            .ok_or_else(|| CatalogError::Corrupt(format!("{}@v{version} vanished while being published", request.name)))?;
        let profiles = rows::profiles(&mut tx, &request.name, version).await?;
        let previous = rows::profiles(&mut tx, &request.name, version - 1).await?;
        tx.commit().await.map_err(CatalogError::database(PUBLISH))?;
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
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(CatalogError::database(PUBLISH))?;
        self.existing(&mut tx, model, version).await?;
        append_profiles(&mut tx, model, version, profiles).await?;
        tx.commit().await.map_err(CatalogError::database(PUBLISH))
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
        let mut variants = Vec::with_capacity(request.variants.len());
        for (target, artifact, metadata) in &request.variants {
            if metadata.target != *target || metadata.graph != request.graph {
                return invalid(format!("the metadata of its variant {target} is that of another artifact"));
            }
            let bytes = self.blobs.size(*artifact).await?;
            variants.push(oci::variant(name, *target, *artifact, bytes, metadata));
        }
        variants.sort_by_key(|v| v.target.to_string());
        if let Some(pair) = variants.windows(2).find(|pair| pair[0].target == pair[1].target) {
            return invalid(format!("it has two variants for {}", pair[0].target));
        }
        Ok(variants)
    }
}

/// What makes two versions of a model the same: their targets and artifacts.
fn contents_key(variants: &[Variant]) -> Digest {
    variants
        .iter()
        .fold(KeyHasher::new("version"), |key, v| key.field(v.target.to_string()).field(v.artifact.as_bytes()))
        .finish()
}

async fn insert_version(
    db: &mut SqliteConnection,
    request: &PublishRequest,
    version: u32,
    index: Digest,
    contents: &str,
    at: i64,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO model_versions (model, version, index_digest, graph, contents, published_at) VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(&request.name)
    .bind(version)
    .bind(index.to_string())
    .bind(request.graph.to_string())
    .bind(contents)
    .bind(at)
    .execute(db)
    .await
    .map_err(CatalogError::database(PUBLISH))?;
    Ok(())
}

async fn insert_variants(db: &mut SqliteConnection, model: &str, version: u32, variants: &[Variant]) -> Result<()> {
    for v in variants {
        let bytes = i64::try_from(v.bytes)
            .map_err(|_| CatalogError::Invalid(format!("an artifact of {} bytes is too large", v.bytes)))?;
        sqlx::query("INSERT INTO model_variants (model, version, target, manifest, artifact, bytes) VALUES (?, ?, ?, ?, ?, ?)")
            .bind(model)
            .bind(version)
            .bind(v.target.to_string())
            .bind(v.manifest.digest.to_string())
            .bind(v.artifact.to_string())
            .bind(bytes)
            .execute(&mut *db)
            .await
            .map_err(CatalogError::database(PUBLISH))?;
    }
    Ok(())
}

async fn append_profiles(db: &mut SqliteConnection, model: &str, version: u32, profiles: &[Profile]) -> Result<()> {
    for profile in profiles {
        let body = serde_json::to_string(profile).map_err(|e| CatalogError::Invalid(format!("a profile of {model}: {e}")))?;
        sqlx::query("INSERT INTO model_profiles (model, version, digest, body) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING")
            .bind(model)
            .bind(version)
            .bind(Digest::of(&body).to_string())
            .bind(body)
            .execute(&mut *db)
            .await
            .map_err(CatalogError::database(PUBLISH))?;
    }
    Ok(())
}
