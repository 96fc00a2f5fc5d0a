//! What standard OCI tools do to copy a model, request by request.

use aotfarm_protocol::{
    ARTIFACT_TYPE, ArtifactMetadata, CONFIG_TYPE, Digest, INDEX_TYPE, Index, LIBRARIES_ANNOTATION, MANIFEST_TYPE, Manifest,
    TARGET_ANNOTATION, VendorLibrary,
};

use crate::harness::{Setup, V3, V4, noise};

async fn fetch(base: &str, path: &str, media_type: &str) -> Vec<u8> {
    let http = reqwest::Client::builder().tls_certs_only([]).build().unwrap();
    let response = http.get(format!("{base}{path}")).send().await.unwrap();
    assert_eq!(response.status(), 200, "{path}");
    assert_eq!(response.headers()["content-type"], media_type);
    let digest: Digest = response.headers()["docker-content-digest"].to_str().unwrap().parse().unwrap();
    let head = http.head(format!("{base}{path}")).send().await.unwrap();
    assert_eq!(head.headers()["docker-content-digest"], digest.to_string());
    assert_eq!(head.headers()["content-length"], response.headers()["content-length"]);
    let bytes = response.bytes().await.unwrap();
    assert_eq!(Digest::of(&bytes), digest);
    bytes.into()
}

#[tokio::test]
async fn a_version_can_be_copied_from_tag_to_bytes() {
    let setup = Setup::new().await;
    let (a, b) = (noise(200_000), noise(1000));
    let mut request = setup.request("m", &[(V4, &a), (V3, &b)]).await;
    request.variants[0].2.libraries = VendorLibrary::ALL.to_vec();
    setup.catalog.publish(&request, 0).await.unwrap();
    setup.catalog.tag("m", "prod", 1).await.unwrap();
    let client = setup.serve().await;

    let index_bytes = fetch(client.base(), "/v2/m/manifests/prod", INDEX_TYPE).await;
    for other in ["v1", "latest", &Digest::of(&index_bytes).to_string()] {
        assert_eq!(fetch(client.base(), &format!("/v2/m/manifests/{other}"), INDEX_TYPE).await, index_bytes);
    }
    let index: Index = serde_json::from_slice(&index_bytes).unwrap();
    let targets: Vec<_> = index.manifests.iter().map(|m| m.annotations[TARGET_ANNOTATION].as_str()).collect();
    assert_eq!(targets, ["cpu-x86_64-v3", "cpu-x86_64-v4"]);

    let manifest = fetch(client.base(), &format!("/v2/m/manifests/{}", index.manifests[1].digest), MANIFEST_TYPE).await;
    assert_eq!(manifest.len() as u64, index.manifests[1].size);
    let manifest: Manifest = serde_json::from_slice(&manifest).unwrap();
    assert_eq!((manifest.config.media_type.as_str(), manifest.layers[0].media_type.as_str()), (CONFIG_TYPE, ARTIFACT_TYPE));
    let libraries = &manifest.annotations[LIBRARIES_ANNOTATION];
    assert_eq!(libraries, "libcudnn.so.9, libcublasLt.so.13 or libcublasLt.so.12");
    let layer = fetch(client.base(), &format!("/v2/m/blobs/{}", manifest.layers[0].digest), "application/octet-stream").await;
    assert_eq!(layer, a);
    let config = fetch(client.base(), &format!("/v2/m/blobs/{}", manifest.config.digest), "application/octet-stream").await;
    assert_eq!(serde_json::from_slice::<ArtifactMetadata>(&config).unwrap().target, V4);
}

#[tokio::test]
async fn unknown_things_are_refused_in_the_words_of_the_specification() {
    let setup = Setup::new().await;
    setup.catalog.publish(&setup.request("m", &[(V3, b"one")]).await, 0).await.unwrap();
    setup.catalog.publish(&setup.request("n", &[(V3, b"two")]).await, 0).await.unwrap();
    let theirs = setup.catalog.resolve(&"n".parse().unwrap()).await.unwrap();
    let client = setup.serve().await;
    let http = reqwest::Client::builder().tls_certs_only([]).build().unwrap();
    let absent = Digest::of("absent");
    for (path, status, code) in [
        ("/v2/m/manifests/v7".to_owned(), 404, "MANIFEST_UNKNOWN"),
        ("/v2/x/manifests/v1".to_owned(), 404, "MANIFEST_UNKNOWN"),
        (format!("/v2/m/manifests/{}", theirs.variants[0].manifest), 404, "MANIFEST_UNKNOWN"),
        (format!("/v2/m/blobs/{absent}"), 404, "BLOB_UNKNOWN"),
        ("/v2/m/blobs/sha256:..%2F..".to_owned(), 400, "DIGEST_INVALID"),
        ("/v2/x/tags/list".to_owned(), 404, "NAME_UNKNOWN"),
    ] {
        let response = http.get(format!("{}{path}", client.base())).send().await.unwrap();
        assert_eq!(response.status(), status, "{path}");
        let body: serde_json::Value = response.json().await.unwrap();
        assert_eq!(body["errors"][0]["code"], code, "{path}");
    }
    let json = async |path: &str| {
        let response = http.get(format!("{}{path}", client.base())).send().await.unwrap();
        response.json::<serde_json::Value>().await.unwrap()
    };
    assert_eq!(json("/v2/m/tags/list").await, serde_json::json!({ "name": "m", "tags": ["v1"] }));
    assert_eq!(json("/v2/").await, serde_json::json!({}));
}

#[tokio::test]
async fn the_documents_of_a_version_are_the_same_wherever_it_is_published() {
    let mut indexes = Vec::new();
    for order in [[0, 1], [1, 0]] {
        let setup = Setup::new().await;
        let variants: [(_, &[u8]); 2] = [(V3, b"three"), (V4, b"four")];
        let request = setup.request("m", &order.map(|i| variants[i])).await;
        indexes.push(setup.catalog.publish(&request, order[0] as i64).await.unwrap().index);
    }
    assert_eq!(indexes[0], indexes[1]);
}
