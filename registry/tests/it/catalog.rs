use aotfarm_protocol::{ARTIFACT_TYPE, ApiError, Digest, ErrorCode, Manifest, PublishRequest, SAMPLES_TYPE, Samples};
use aotfarm_registry::CatalogError;

use crate::harness::{Setup, V3, V4, catalog, metadata, profile};

async fn check_not_found(setup: &Setup, reference: &str, expected: &str) {
    let error = setup.catalog.resolve(&reference.parse().unwrap()).await.unwrap_err();
    assert_eq!(error.to_string(), expected);
    assert_eq!(ApiError::from(error).code, ErrorCode::NotFound);
}

#[tokio::test]
async fn versions_are_numbered_and_the_same_artifacts_are_the_same_version() {
    let setup = Setup::new().await;
    let mut one = setup.request("m", &[(V3, b"one")]).await;
    one.profiles.push(profile(V3, 0.5, 100));
    let published = setup.catalog.publish(&one, 1000).await.unwrap();
    assert_eq!((published.version, published.existed), (1, false));
    assert_eq!((published.profiles.len(), published.previous.len()), (1, 0));

    let two = setup.request("m", &[(V3, b"two"), (V4, b"two for v4")]).await;
    let published = setup.catalog.publish(&two, 2000).await.unwrap();
    assert_eq!((published.version, published.existed, published.previous.len()), (2, false, 1));
    assert_eq!(published.variants.len(), 2);

    // Not only the latest: any version with exactly these artifacts, in any order.
    let again = setup.catalog.publish(&one, 3000).await.unwrap();
    assert_eq!((again.version, again.existed, again.profiles.len()), (1, true, 1));
    let mut turned = two.clone();
    turned.variants.reverse();
    assert!(setup.catalog.publish(&turned, 3000).await.unwrap().existed);
    // One variant fewer is another version; another model starts at 1.
    let part = setup.request("m", &[(V3, b"two")]).await;
    assert_eq!(setup.catalog.publish(&part, 4000).await.unwrap().version, 3);
    let other = setup.request("n", &[(V3, b"one")]).await;
    assert_eq!(setup.catalog.publish(&other, 4000).await.unwrap().version, 1);

    let history = setup.catalog.history("m").await.unwrap();
    let times: Vec<_> = history.iter().map(|e| (e.version.version, e.version.at)).collect();
    assert_eq!(times, [(1, 1000), (2, 2000), (3, 4000)]);
    let models: Vec<_> =
        setup.catalog.models().await.unwrap().into_iter().map(|m| (m.name, m.versions, m.latest.version)).collect();
    assert_eq!(models, [("m".to_owned(), 3, 3), ("n".to_owned(), 1, 1)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_publishers_at_once_leave_no_gap_and_make_no_version_twice() {
    let setup = Setup::new().await;
    let rival = catalog(setup.dir.path(), &setup.blobs).await;
    let mut tasks = Vec::new();
    for i in 0..12 {
        // Both publish each artifact.
        let request = setup.request("m", &[(V3, format!("artifact {i}").as_bytes())]).await;
        for catalog in [&setup.catalog, &rival] {
            let (catalog, request) = (catalog.clone(), request.clone());
            tasks.push(tokio::spawn(async move { catalog.publish(&request, i).await.unwrap() }));
        }
    }
    let published: Vec<_> = futures_util::future::join_all(tasks).await.into_iter().map(Result::unwrap).collect();
    for pair in published.chunks(2) {
        assert_eq!(pair[0].version, pair[1].version);
        assert_eq!(pair[0].index, pair[1].index);
        assert!(pair[0].existed != pair[1].existed, "exactly one of the two made version {}", pair[0].version);
    }
    let mut versions: Vec<_> = published.iter().map(|p| p.version).collect();
    versions.sort_unstable();
    versions.dedup();
    assert_eq!(versions, (1..=12).collect::<Vec<_>>());
}

#[tokio::test]
async fn references_resolve_and_what_is_missing_is_said_with_what_there_is() {
    let setup = Setup::new().await;
    check_not_found(&setup, "m", "there is no model `m`: the registry is empty").await;
    for content in [b"one", b"two"] {
        setup.catalog.publish(&setup.request("m", &[(V3, content)]).await, 0).await.unwrap();
    }
    check_not_found(&setup, "m@v9", "there is no m@v9: m has v1..v2 and no tags").await;
    assert_eq!(setup.catalog.tag("m", "prod", 1).await.unwrap().tags, ["prod"]);
    setup.catalog.tag("m", "canary", 2).await.unwrap();

    let index = setup.catalog.resolve(&"m".parse().unwrap()).await.unwrap().index;
    for (reference, version) in
        [("m", 2), ("m@v1", 1), ("m@prod", 1), ("m@canary/cpu-x86_64-v3", 2), (&format!("m@{index}") as &str, 2)]
    {
        assert_eq!(setup.catalog.resolve(&reference.parse().unwrap()).await.unwrap().version, version, "{reference}");
    }
    check_not_found(&setup, "n", "there is no model `n`: the registry has m").await;
    check_not_found(&setup, "m@v3/cpu-x86_64-v3", "there is no m@v3: m has v1..v2 and tags canary, prod").await;
    check_not_found(&setup, "m@test", "there is no m@test: m has v1..v2 and tags canary, prod").await;
    check_not_found(&setup, "m/cuda-sm_90", "m@v2 has no variant for cuda-sm_90: it has cpu-x86_64-v3").await;
    let digest = Digest::of("no index");
    check_not_found(&setup, &format!("m@{digest}"), &format!("there is no m@{digest}: m has v1..v2 and tags canary, prod")).await;
}

#[tokio::test]
async fn tags_move_and_go() {
    let setup = Setup::new().await;
    for content in [b"one", b"two"] {
        setup.catalog.publish(&setup.request("m", &[(V3, content)]).await, 0).await.unwrap();
    }
    setup.catalog.tag("m", "prod", 1).await.unwrap();
    assert_eq!(setup.catalog.tag("m", "prod", 2).await.unwrap().version, 2);
    assert_eq!(setup.catalog.resolve(&"m@v1".parse().unwrap()).await.unwrap().tags, [""; 0]);
    assert_eq!(setup.catalog.untag("m", "prod").await.unwrap().version, 2);
    let error = setup.catalog.untag("m", "prod").await.unwrap_err().to_string();
    assert_eq!(error, "there is no m@prod: m has v1..v2 and no tags");
    for bad in ["v3", "latest", "Prod", "", "a/b", "../x"] {
        let error = setup.catalog.tag("m", bad, 1).await.unwrap_err();
        assert!(matches!(error, CatalogError::Invalid(_)), "{bad}: {error}");
    }
    assert!(matches!(setup.catalog.tag("m", "prod", 3).await, Err(CatalogError::NotFound { .. })));
    assert!(matches!(setup.catalog.tag("x", "prod", 1).await, Err(CatalogError::NotFound { .. })));
}

#[tokio::test]
async fn profiles_are_appended_once_each() {
    let setup = Setup::new().await;
    setup.catalog.publish(&setup.request("m", &[(V3, b"one")]).await, 0).await.unwrap();
    let (a, b) = (profile(V3, 0.5, 1), profile(V3, 0.25, 2));
    setup.catalog.add_profiles("m", 1, std::slice::from_ref(&a)).await.unwrap();
    setup.catalog.add_profiles("m", 1, &[b.clone(), a.clone()]).await.unwrap();
    assert_eq!(setup.catalog.profiles("m", 1).await.unwrap(), [a, b]);
    assert!(matches!(setup.catalog.add_profiles("m", 2, &[]).await, Err(CatalogError::NotFound { .. })));
}

#[tokio::test]
async fn what_does_not_hold_together_is_not_published() {
    let setup = Setup::new().await;
    let good = setup.request("m", &[(V3, b"one")]).await;
    let with = |change: fn(&mut aotfarm_protocol::PublishRequest)| {
        let mut request = good.clone();
        change(&mut request);
        request
    };
    for (request, reason) in [
        (with(|r| r.name = "../../etc/passwd".into()), "not a model name"),
        (with(|r| r.variants.clear()), "it has no variant"),
        (with(|r| r.variants[0].0 = V4), "metadata of its variant cpu-x86_64-v4 is that of another"),
        (with(|r| r.graph = Digest::of("other")), "is that of another artifact"),
        (with(|r| r.variants.push(r.variants[0].clone())), "two variants for cpu-x86_64-v3"),
        (with(|r| r.variants[0].1 = Digest::of("never stored")), "is not in the store"),
    ] {
        let error = setup.catalog.publish(&request, 0).await.unwrap_err().to_string();
        assert!(error.contains(reason), "expected `{reason}` in `{error}`");
    }
    assert_eq!(setup.catalog.models().await.unwrap(), []);
    assert_eq!(metadata(V3, good.graph), good.variants[0].2);
}

#[tokio::test]
async fn samples_are_a_layer_and_those_that_someone_gave_make_a_version() {
    let setup = Setup::new().await;
    let case = setup.blobs.put(b"case".to_vec().into()).await.unwrap();
    let with = async |samples| PublishRequest { samples, ..setup.request("m", &[(V3, b"one")]).await };
    let publish = async |samples| setup.catalog.publish(&with(samples).await, 0).await.unwrap();
    assert_eq!(publish(None).await.version, 1);
    let random = publish(Some(Samples { case, submitted: false })).await;
    assert_eq!((random.version, random.existed), (1, true), "what the farm draws is no news");
    let given = publish(Some(Samples { case, submitted: true })).await;
    assert_eq!((given.version, given.existed), (2, false));
    assert!(publish(Some(Samples { case, submitted: true })).await.existed);
    let version = setup.catalog.resolve(&"m@v2".parse().unwrap()).await.unwrap();
    let manifest: Manifest = serde_json::from_slice(&setup.blobs.get(version.variants[0].manifest).await.unwrap()).unwrap();
    let layers: Vec<_> = manifest.layers.iter().map(|layer| (layer.media_type.as_str(), layer.size)).collect();
    assert_eq!(layers, [(ARTIFACT_TYPE, 3), (SAMPLES_TYPE, 4)]);
    let lost = with(Some(Samples { case: Digest::of("lost"), submitted: true })).await;
    assert!(matches!(setup.catalog.publish(&lost, 0).await, Err(CatalogError::Blob(_))));
}
