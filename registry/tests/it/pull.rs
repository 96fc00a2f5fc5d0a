use aotfarm_client::Client;
use aotfarm_client::pull::{PullError, PullOptions, PullRecord, Pulled, pull};
use aotfarm_protocol::{ErrorCode, Reference};

use crate::harness::{Setup, V3, V4, files, noise};

async fn published() -> (Setup, Client) {
    let setup = Setup::new().await;
    setup.catalog.publish(&setup.request("m", &[(V3, &noise(50_000))]).await, 0).await.unwrap();
    setup.catalog.publish(&setup.request("m", &[(V3, &noise(60_000)), (V4, &noise(70_000))]).await, 0).await.unwrap();
    let client = setup.serve().await;
    (setup, client)
}

async fn pull_v3(setup: &Setup, client: &Client, reference: &str) -> Result<Pulled, PullError> {
    let reference: Reference = reference.parse().unwrap();
    pull(client, &reference, &[V3], &setup.path("clean/folder"), PullOptions::default()).await
}

#[tokio::test]
async fn a_version_is_pulled_once_and_replaced_when_it_is_damaged_or_another() {
    let (setup, client) = published().await;
    let pulled = pull_v3(&setup, &client, "m").await.unwrap();
    assert!(pulled.downloaded);
    assert_eq!((pulled.version.version, pulled.variant.target), (2, V3));
    assert_eq!(std::fs::read(&pulled.path).unwrap(), noise(60_000));
    assert_eq!(files(&setup.path("clean")), ["folder/m.json", "folder/m.so"]);
    let record: PullRecord = serde_json::from_slice(&std::fs::read(&pulled.record_path).unwrap()).unwrap();
    assert_eq!(record.reference, "m@v2/cpu-x86_64-v3");
    assert_eq!((record.artifact, record.bytes, record.metadata), (pulled.variant.artifact, 60_000, pulled.metadata.clone()));

    assert!(!pull_v3(&setup, &client, "m@v2").await.unwrap().downloaded);
    std::fs::write(&pulled.path, "damaged").unwrap();
    assert!(pull_v3(&setup, &client, "m@v2").await.unwrap().downloaded);
    assert_eq!(std::fs::read(&pulled.path).unwrap(), noise(60_000));
    let older = pull_v3(&setup, &client, "m@v1").await.unwrap();
    assert!(older.downloaded);
    assert_eq!(std::fs::read(&older.path).unwrap(), noise(50_000));

    let by_digest = format!("m@{}", pulled.version.index);
    assert_eq!(pull_v3(&setup, &client, &by_digest).await.unwrap().version.version, 2);
}

#[tokio::test]
async fn what_the_host_cannot_run_is_refused_before_anything_is_written() {
    let (setup, client) = published().await;
    let error = pull_v3(&setup, &client, "m/cpu-x86_64-v4").await.unwrap_err();
    assert!(error.to_string().contains("cpu-x86_64-v4 needs an x86-64 CPU of level v4 (AVX-512)"), "{error}");
    let PullError::Unsupported(api) = &error else { panic!("{error}") };
    assert_eq!(api.code, ErrorCode::Unsupported);
    assert!(!setup.path("clean").exists());

    let reference: Reference = "m/cpu-x86_64-v4".parse().unwrap();
    let options = PullOptions { any_host: true, ..PullOptions::default() };
    let pulled = pull(&client, &reference, &[V3], &setup.path("copy"), options).await.unwrap();
    assert_eq!(pulled.variant.target, V4);
}

#[tokio::test]
async fn a_damaged_artifact_or_an_unusable_folder_stops_the_pull() {
    let (setup, client) = published().await;
    std::fs::write(setup.path("file"), "").unwrap();
    let reference: Reference = "m".parse().unwrap();
    let error = pull(&client, &reference, &[V3], &setup.path("file/below"), PullOptions::default()).await.unwrap_err();
    assert!(error.to_string().starts_with("failed to create"), "{error}");

    let artifact = setup.catalog.resolve(&reference).await.unwrap().variants[0].artifact;
    std::fs::write(setup.stored(artifact), "rubbish that is long enough").unwrap();
    let error = pull_v3(&setup, &client, "m").await.unwrap_err();
    let PullError::Client(client_error) = &error else { panic!("{error}") };
    assert_eq!(client_error.code(), Some(ErrorCode::Damaged));
    assert_eq!(files(&setup.path("clean")), [""; 0]);
}
