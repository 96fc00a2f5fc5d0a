//! Answers to what clients get wrong, and to folders that cannot be used.

use std::collections::BTreeSet;
use std::sync::Arc;

use aotfarm_coordinator::{Config, Coordinator, SystemClock};
use aotfarm_protocol::endpoints::table;
use aotfarm_protocol::*;

use crate::farm::{FakePlanner, Farm};

#[tokio::test]
async fn wrong_requests_get_a_code_and_a_message() {
    let dir = tempfile::tempdir().unwrap();
    let farm = Farm::new(&dir).await;
    let mut lines = Vec::new();
    let nobody = uuid::Uuid::nil();
    for (method, path, body) in [
        ("GET", "/v1/nothing".to_owned(), ""),
        ("GET", "/v1/jobs/x".to_owned(), ""),
        ("GET", format!("/v1/jobs/{nobody}"), ""),
        ("GET", format!("/v1/jobs/{nobody}/events?wait_ms=10000"), ""),
        ("GET", format!("/v1/jobs/{nobody}/items"), ""),
        ("POST", format!("/v1/jobs/{nobody}/cancel"), ""),
        ("POST", "/v1/jobs".to_owned(), "{"),
        ("POST", "/v1/jobs".to_owned(), "{\"name\": 1}"),
        ("POST", format!("/v1/workers/{nobody}/claim"), "{\"kinds\":[],\"max\":1,\"wait_ms\":60000}"),
        ("POST", format!("/v1/workers/{nobody}/heartbeat"), "{\"leases\":[]}"),
        ("POST", "/v1/items/x/report".to_owned(), "{}"),
    ] {
        let (status, bytes) = farm.raw(method, &path, body).await;
        let error: ApiError = serde_json::from_slice(&bytes).unwrap_or_else(|e| panic!("{path}: {status} {bytes:?}: {e}"));
        lines.push(format!("{method} {path} {body}\n  {} {:?}: {error}", status.as_u16(), error.code));
    }
    let mut request = farm.request("net", "specs=1").await;
    let mut refused = async |change: &dyn Fn(&mut JobRequest)| {
        let mut changed = request.clone();
        change(&mut changed);
        let error = farm.call::<JobStatus>("POST", "/v1/jobs", &changed).await.unwrap_err();
        lines.push(format!("{:?}: {error}", error.code));
    };
    refused(&|r| r.name = "../x".to_owned()).await;
    refused(&|r| r.graph = Digest::of("not uploaded")).await;
    refused(&|r| r.targets.clear()).await;
    refused(&|r| r.targets.push(r.targets[0])).await;
    refused(&|r| r.dims.push(DimRange { name: "batch".to_owned(), min: 3, max: 1 })).await;
    refused(&|r| r.threads = Some(0)).await;
    refused(&|r| r.trials = Some(0)).await;
    request.name = "other".to_owned();
    insta::assert_snapshot!(lines.join("\n"));
}

#[tokio::test]
async fn health_tells_the_version() {
    let dir = tempfile::tempdir().unwrap();
    let farm = Farm::new(&dir).await;
    farm.clock.forward(5_000);
    let health: Health = farm.get("/v1/health").await;
    assert_eq!(health, Health { version: env!("CARGO_PKG_VERSION").to_owned(), uptime_s: 5 });
}

async fn open_error(config: Config) -> String {
    let opened = Coordinator::open_with(config, Arc::new(FakePlanner("fake-1")), Arc::new(SystemClock)).await;
    opened.err().expect("the folder cannot be used").to_string()
}

#[tokio::test]
async fn unusable_folders_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let error = open_error(Config { data_dir: file.join("data"), ..Config::default() }).await;
    assert!(error.contains("cannot use the data folder") && error.contains("file/data"), "{error}");

    let damaged = dir.path().join("damaged");
    std::fs::create_dir(&damaged).unwrap();
    std::fs::write(damaged.join("aotfarm.db"), vec![b'x'; 8192]).unwrap();
    let error = open_error(Config { data_dir: damaged.clone(), ..Config::default() }).await;
    assert!(error.contains("is damaged") && error.contains("aotfarm.db"), "{error}");

    let blocked = dir.path().join("blocked");
    std::fs::create_dir_all(blocked.join("aotfarm.db")).unwrap();
    let error = open_error(Config { data_dir: blocked.clone(), ..Config::default() }).await;
    assert!(error.contains("cannot write the database"), "{error}");
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let taken = aotfarm_coordinator::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let error = aotfarm_coordinator::bind(&address).await.unwrap_err().to_string();
    assert_eq!(error, format!("cannot listen on {address}: the port is in use; choose another one with --listen"));
}

#[tokio::test]
async fn every_endpoint_of_the_table_is_routed() {
    let dir = tempfile::tempdir().unwrap();
    let farm = Farm::new(&dir).await;
    for operation in table() {
        let path = operation.path.replace("{id}", &uuid::Uuid::nil().to_string());
        let path = path.replace("{digest}", &Digest::of("absent").to_string()).replace("{key}", &Digest::of("key").to_string());
        let path = path.replace(['{', '}'], "");
        let (status, bytes) = farm.raw(operation.method.as_str(), &path, "").await;
        let body = String::from_utf8_lossy(&bytes);
        assert!(status != 405 && !body.contains("in this API"), "{}: {status} {body}", operation.name);
    }
}

#[tokio::test]
async fn the_api_describes_itself() {
    let dir = tempfile::tempdir().unwrap();
    let farm = Farm::new(&dir).await;
    let document: serde_json::Value = farm.get("/v1/openapi.json").await;
    assert_eq!(document["openapi"], "3.1.1");
    let described: BTreeSet<_> = document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(described, table().iter().map(|operation| operation.path).collect());
}
