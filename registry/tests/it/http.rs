//! The client against the server, and against servers that misbehave.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use aotfarm_client::{Client, ClientError, Retry};
use aotfarm_protocol::endpoints::{Audience, Body, Endpoint, admin, registry};
use aotfarm_protocol::{ApiError, Digest, ErrorCode, ResolveQuery, TagRequest};
use aotfarm_registry::server::Registry;
use reqwest::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::{AT_ONCE, Setup, V3, files, noise};

/// Endpoints of a server that misbehaves.
const ANSWER: Endpoint<(), u32> = Endpoint::new(Audience::Admin, "ANSWER", Method::GET, "/answer", "");
const QUESTION: Endpoint<Body<u32>, ()> = Endpoint::new(Audience::Admin, "QUESTION", Method::POST, "/question", "");

/// A server that answers each connection with what `answer` makes of its number and the request's head.
async fn fake(answer: impl Fn(u32, String) -> Vec<u8> + Send + Sync + 'static) -> (Client, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let count = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let Some(head) = read_head(&mut socket).await else { continue };
            let bytes = answer(seen.fetch_add(1, Ordering::SeqCst), head);
            // The connection is closed after whatever was sent, be it all or not.
            let _ = socket.write_all(&bytes).await;
            let _ = socket.shutdown().await;
        }
    });
    (Client::new(&url).unwrap().with_retry(AT_ONCE), count)
}

async fn read_head(socket: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}

fn response(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\n{headers}\r\n");
    [head.as_bytes(), body].concat()
}

/// Serves the compressed bytes, with ranges, but never more than `most` at a time.
fn dropping(packed: Vec<u8>, most: usize) -> impl Fn(u32, String) -> Vec<u8> {
    move |_, head| {
        let from =
            head.lines().find_map(|l| l.strip_prefix("range: bytes=")?.strip_suffix('-')?.parse::<usize>().ok()).unwrap_or(0);
        let end = packed.len().min(from + most);
        let rest = packed.len() - from;
        let range = format!("content-range: bytes {from}-{}/{}\r\n", packed.len() - 1, packed.len());
        let (status, range) = if from > 0 { ("206 Partial Content", range) } else { ("200 OK", String::new()) };
        response(status, &format!("content-length: {rest}\r\netag: \"e\"\r\n{range}"), &packed[from..end])
    }
}

#[tokio::test]
async fn blobs_travel_both_ways() {
    let setup = Setup::new().await;
    let client = setup.serve().await;
    for content in [vec![], b"small".to_vec(), noise(1_000_000), vec![0; 3_000_000]] {
        let digest = client.put_blob(content.clone()).await.unwrap();
        assert_eq!(digest, Digest::of(&content));
        assert!(client.has_blob(digest).await.unwrap());
        assert_eq!(client.blob(digest).await.unwrap(), content);
        assert_eq!(client.put_blob(content.clone()).await.unwrap(), digest);
        let path = setup.path("out");
        let received = AtomicUsize::new(0);
        let progress = |now: u64, _: u64| received.store(now as usize, Ordering::SeqCst);
        assert_eq!(client.blob_to_file(digest, &path, &progress).await.unwrap(), content.len() as u64);
        assert_eq!(std::fs::read(&path).unwrap(), content);
        assert_eq!(received.into_inner() as u64, std::fs::metadata(setup.stored(digest)).unwrap().len());
    }
    let source = setup.path("source");
    let content = [noise(700_000), vec![7; 700_000]].concat();
    std::fs::write(&source, &content).unwrap();
    for _ in 0..2 {
        let (digest, size) = client.put_blob_file(&source).await.unwrap();
        assert_eq!((digest, size), (Digest::of(&content), 1_400_000));
        assert_eq!(setup.blobs.get(digest).await.unwrap(), content);
    }
    let error = client.put_blob_file(&setup.path("absent")).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::Storage), "{error}");
    assert!(!files(setup.dir.path()).iter().any(|f| f.contains("part") || f.contains("tmp")));
}

#[tokio::test]
async fn the_server_honours_ranges() {
    let setup = Setup::new().await;
    let client = setup.serve().await;
    let digest = client.put_blob(noise(10_000)).await.unwrap();
    let packed = std::fs::read(setup.stored(digest)).unwrap();
    let http = reqwest::Client::builder().tls_certs_only([]).build().unwrap();
    let url = format!("{}/v1/blobs/{digest}", client.base());
    let ask = async |range: &str| http.get(&url).header("range", range).send().await.unwrap();

    let part = ask("bytes=1000-2999").await;
    assert_eq!(part.status(), 206);
    assert_eq!(part.headers()["content-range"], format!("bytes 1000-2999/{}", packed.len()));
    let etag = part.headers()["etag"].clone();
    assert_eq!(part.bytes().await.unwrap(), packed[1000..3000]);
    let past = ask(&format!("bytes={}-", packed.len())).await;
    assert_eq!(past.status(), 416);
    assert_eq!(past.headers()["content-range"], format!("bytes */{}", packed.len()));
    let head = http.head(&url).send().await.unwrap();
    assert_eq!(head.headers()["etag"], etag);
    assert_eq!(head.headers()["content-length"], packed.len().to_string());
    assert_eq!(head.headers()["aotfarm-content-size"], "10000");
}

#[tokio::test]
async fn uploads_that_lie_are_refused_and_leave_nothing() {
    let setup = Setup::new().await;
    let limited = Registry { upload_limit: 100_000, ..Registry::new(setup.catalog.clone()) };
    let client = setup.serve_as(limited).await;
    let http = reqwest::Client::builder().tls_certs_only([]).build().unwrap();
    let put = async |digest: &str, body: reqwest::Body| {
        let response = http.put(format!("{}/v1/blobs/{digest}", client.base())).body(body).send().await.unwrap();
        (response.status().as_u16(), response.json::<ApiError>().await.unwrap())
    };
    let digest = Digest::of("content").to_string();
    let other = zstd::bulk::compress(b"another content", 1).unwrap();
    let (status, error) = put(&digest, other.clone().into()).await;
    assert_eq!((status, error.code), (400, ErrorCode::BadRequest));
    assert!(error.message.contains("its content has the digest"), "{}", error.message);
    assert_eq!(put(&digest, other[..other.len() - 3].to_vec().into()).await.0, 400);
    assert_eq!(put(&digest, "no zstd".into()).await.0, 400);
    assert_eq!(put("sha256:..", "x".into()).await.0, 400);

    // Too long, with its length told beforehand and not.
    let (status, error) = put(&digest, noise(100_001).into()).await;
    assert_eq!((status, error.code), (413, ErrorCode::BadRequest));
    let chunks: Vec<std::io::Result<Vec<u8>>> = (0..3).map(|_| Ok(noise(60_000))).collect();
    let valid = Digest::of(noise(1)).to_string();
    let (status, error) = put(&valid, reqwest::Body::wrap_stream(futures_util::stream::iter(chunks))).await;
    assert_eq!((status, error.code), (413, ErrorCode::BadRequest));
    assert_eq!(files(setup.dir.path()), [""; 0]);
}

#[tokio::test]
async fn models_and_tags_over_http() {
    let setup = Setup::new().await;
    setup.catalog.publish(&setup.request("m", &[(V3, b"one")]).await, 5).await.unwrap();
    let client = setup.serve().await;
    let models = client.call(registry::MODELS.request()).await.unwrap();
    assert_eq!((models.len(), models[0].name.as_str(), models[0].versions), (1, "m", 1));
    let prod = || ("m".to_owned(), "prod".to_owned());
    let tagged = client.call(registry::TAG.request(prod(), &TagRequest { version: 1 })).await.unwrap();
    assert_eq!(tagged.tags, ["prod"]);
    let resolve = |reference: &str| registry::RESOLVE.request(&ResolveQuery { reference: Some(reference.to_owned()) });
    let resolved = client.call(resolve("m@prod/cpu-x86_64-v3")).await.unwrap();
    assert_eq!(resolved, tagged);
    let history = client.call(registry::HISTORY.request("m".to_owned())).await.unwrap();
    assert_eq!(history[0].version, tagged);
    let untagged = client.call(registry::UNTAG.request(prod())).await.unwrap();
    assert_eq!(untagged.tags, ["prod"; 0]);

    let error = client.call(resolve("m@v2")).await.unwrap_err();
    assert_eq!(error.to_string(), "there is no m@v2: m has v1 and no tags");
    assert_eq!(error.code(), Some(ErrorCode::NotFound));
    let http = reqwest::Client::builder().tls_certs_only([]).build().unwrap();
    for (path, status, message) in [
        ("/v1/resolve?ref=..%2F..%2Fetc", 400, "not a target"),
        // As clients before typed endpoints sent it, without escapes.
        ("/v1/resolve?ref=m@prod/cpu-x86_64-v3", 404, "there is no m@prod"),
        ("/v1/resolve", 400, "the query has no `ref`"),
        ("/v1/models/..%2F..%2Fetc", 404, "there is no model `../../etc`"),
        ("/v1/blobs/sha256:x", 400, "is not a digest"),
        (&format!("/v1/blobs/{}", Digest::of("absent")) as &str, 404, "is not in the store"),
    ] {
        let response = http.get(format!("{}{path}", client.base())).send().await.unwrap();
        assert_eq!(response.status(), status, "{path}");
        let error: ApiError = response.json().await.unwrap();
        assert!(error.message.contains(message), "{path}: {error}");
    }
    let url = format!("{}{}", client.base(), registry::UNTAG.request(prod()).target);
    let refused = http.put(url).json("not a request").send().await.unwrap();
    assert_eq!((refused.status().as_u16(), refused.json::<ApiError>().await.unwrap().code), (422, ErrorCode::BadRequest));
    let error = client.blob(Digest::of("absent")).await.unwrap_err();
    assert!(error.to_string().contains("is not in the store"), "{error}");
}

#[tokio::test]
async fn a_download_goes_on_where_the_connection_was_lost() {
    let setup = Setup::new().await;
    let content = noise(100_000);
    let digest = setup.blobs.put(content.clone().into()).await.unwrap();
    let packed = std::fs::read(setup.stored(digest)).unwrap();
    // More breaks than tries: each that brings something counts as a success.
    let (client, connections) = fake(dropping(packed, 9000)).await;
    assert_eq!(client.blob(digest).await.unwrap(), content);
    assert_eq!(connections.load(Ordering::SeqCst), 12);
    let path = setup.path("model.so");
    client.blob_to_file(digest, &path, &|_, _| ()).await.unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), content);
    assert_eq!(connections.load(Ordering::SeqCst), 24);
}

#[tokio::test]
async fn what_an_interrupted_process_received_is_used_by_the_next() {
    let setup = Setup::new().await;
    let content = noise(100_000);
    let digest = setup.blobs.put(content.clone().into()).await.unwrap();
    let packed = std::fs::read(setup.stored(digest)).unwrap();
    let path = setup.path("model.so");
    let (client, _) = fake(dropping(packed.clone(), 60_000)).await;
    let one_try = client.clone().with_retry(Retry::NONE);
    let error = one_try.blob_to_file(digest, &path, &|_, _| ()).await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
    assert!(!path.exists());
    let part = setup.path(&format!("model.so.{}.part", digest.short()));
    assert_eq!(std::fs::metadata(&part).unwrap().len(), 60_000);

    one_try.blob_to_file(digest, &path, &|_, _| ()).await.unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), content);
    assert!(!part.exists());

    // A part that is complete, one that is too long, and one that holds something else.
    let client = setup.serve().await;
    for kept in [packed.clone(), [packed, vec![0; 10]].concat(), vec![1; 5000]] {
        std::fs::write(&part, kept).unwrap();
        client.blob_to_file(digest, &path, &|_, _| ()).await.unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), content);
        assert!(!part.exists());
    }
}

#[tokio::test]
async fn two_downloads_to_one_file_do_not_mix() {
    let setup = Setup::new().await;
    let digest = setup.blobs.put(noise(1000).into()).await.unwrap();
    let client = setup.serve().await;
    let part = setup.path(&format!("model.so.{}.part", digest.short()));
    let holder = std::fs::File::create(part).unwrap();
    holder.lock().unwrap();
    let error = client.blob_to_file(digest, &setup.path("model.so"), &|_, _| ()).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::Conflict), "{error}");
    drop(holder);
    client.blob_to_file(digest, &setup.path("model.so"), &|_, _| ()).await.unwrap();
}

#[tokio::test]
async fn damage_on_the_server_is_found_by_the_client_and_mended_by_the_next_upload() {
    let setup = Setup::new().await;
    let client = setup.serve().await;
    let content = noise(50_000);
    let digest = client.put_blob(content.clone()).await.unwrap();
    let stored = setup.stored(digest);
    let mut bytes = std::fs::read(&stored).unwrap();
    bytes[30_000] ^= 1;
    std::fs::write(&stored, bytes).unwrap();

    let path = setup.path("model.so");
    let error = client.blob_to_file(digest, &path, &|_, _| ()).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::Damaged), "{error}");
    assert!(error.to_string().contains(stored.to_str().unwrap()), "{error}");
    assert!(!path.exists());
    client.put_blob(content.clone()).await.unwrap();
    assert_eq!(client.blob(digest).await.unwrap(), content);
}

#[tokio::test]
async fn damage_on_the_way_is_an_error_when_it_repeats() {
    let setup = Setup::new().await;
    let digest = Digest::of(b"wanted");
    let wrong = zstd::bulk::compress(b"something else", 1).unwrap();
    let (client, _) = fake(move |_, head| match head.starts_with("POST") {
        true => response("200 OK", "content-length: 4\r\n", b"null"),
        false => response("200 OK", &format!("content-length: {}\r\n", wrong.len()), &wrong),
    })
    .await;
    let path = setup.path("x");
    for error in [client.blob(digest).await.unwrap_err(), client.blob_to_file(digest, &path, &|_, _| ()).await.unwrap_err()] {
        assert_eq!(error.code(), Some(ErrorCode::Damaged));
        assert!(error.to_string().contains("arrives damaged from http://127.0.0.1"), "{error}");
    }
    assert_eq!(files(setup.dir.path()), [""; 0]);
}

#[tokio::test]
async fn a_bomb_from_the_server_is_not_inflated() {
    let setup = Setup::new().await;
    let client = setup.serve().await;
    let digest = client.put_blob(vec![0; 10_000_000]).await.unwrap();
    let careful = client.with_limit(1_000_000);
    let path = setup.path("x");
    for error in [careful.blob(digest).await.unwrap_err(), careful.blob_to_file(digest, &path, &|_, _| ()).await.unwrap_err()] {
        assert!(error.to_string().contains("10000000 bytes uncompressed, more than the limit of 1000000"), "{error}");
    }
    assert!(!path.exists());
}

#[tokio::test]
async fn passing_failures_are_tried_again_and_the_servers_word_is_not() {
    let (client, count) = fake(|n, _| match n {
        0 => Vec::new(),
        1 => response("502 Bad Gateway", "content-length: 3\r\n", b"no!"),
        _ => response("200 OK", "content-length: 2\r\n", b"42"),
    })
    .await;
    assert_eq!(client.call(ANSWER.request()).await.unwrap(), 42);
    assert_eq!(count.load(Ordering::SeqCst), 3);

    let body = serde_json::to_vec(&ApiError::new(ErrorCode::Storage, "the disk is full").hint("free space")).unwrap();
    let (client, count) =
        fake(move |_, _| response("507 Insufficient Storage", &format!("content-length: {}\r\n", body.len()), &body)).await;
    let error = client.call(QUESTION.request(&1)).await.unwrap_err();
    assert_eq!((error.to_string().as_str(), error.hint().as_deref()), ("the disk is full", Some("free space")));
    assert_eq!(count.load(Ordering::SeqCst), 1);

    let (client, _) = fake(|_, _| response("200 OK", "content-length: 6\r\n", b"<html>")).await;
    let error = client.call(ANSWER.request()).await.unwrap_err();
    assert!(matches!(error, ClientError::Foreign { .. }), "{error}");
}

#[tokio::test]
async fn nobody_there_is_said_with_address_tries_and_cause() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let client = Client::new(&url).unwrap().with_retry(AT_ONCE);
    let error = client.call(admin::HEALTH.request()).await.unwrap_err();
    assert_eq!(error.to_string(), format!("cannot reach {url}/v1/health after 3 tries: connection refused"));
    assert!(error.hint().unwrap().contains("aotfarm coordinator"));
    assert!(error.api().is_none());
}

#[tokio::test]
async fn a_long_poll_may_be_given_its_own_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    // Accepts, but never answers.
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((socket, _)) = listener.accept().await {
            kept.push(socket);
        }
    });
    let client = Client::new(&url).unwrap().with_retry(Retry::NONE);
    let error = client.call_within(ANSWER.request(), std::time::Duration::from_millis(50)).await.unwrap_err();
    assert_eq!(error.to_string(), format!("cannot reach {url}/answer after 1 try: no answer in time"));
}
