//! Stores of blobs.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use aotfarm_protocol::{ApiError, Digest, ErrorCode};
use aotfarm_store::{BlobError, BlobStore};
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};

use super::{Blobs, noise};

/// Puts frames as an upload does.
async fn upload(store: &Arc<dyn BlobStore>, digest: Digest, chunks: Vec<std::io::Result<Bytes>>) -> Result<(), BlobError> {
    let frames = futures_util::stream::iter(chunks).map(|chunk| chunk.map_err(Into::into)).boxed();
    store.put_compressed(digest, frames).await
}

pub(crate) async fn blobs_are_kept_by_digest_and_put_is_idempotent(place: &impl Blobs) {
    let store = place.open();
    let content = Bytes::from(b"int main(void) { return 0; }".repeat(100));
    let digest = store.put(content.clone()).await.unwrap();
    assert_eq!(digest, Digest::of(&content));
    assert_eq!(store.put(content.clone()).await.unwrap(), digest);
    store.put_expected(digest, content.clone()).await.unwrap();
    assert_eq!(place.things(), 1);
    assert_eq!(store.get(digest).await.unwrap(), content);
    let size = content.len() as u64;
    assert_eq!((store.size(digest).await.unwrap(), store.verify(digest).await.unwrap()), (size, size));
    assert!(store.contains(digest).await.unwrap());
    let [(listed, stored)] = store.list().await.unwrap()[..] else { panic!("one blob") };
    assert_eq!((listed, stored), (digest, place.stored(digest).len() as u64));
    assert!(stored < size / 10, "{stored} bytes stored");

    let absent = Digest::of("other");
    assert!(!store.contains(absent).await.unwrap());
    let error = store.get(absent).await.unwrap_err();
    assert!(error.to_string().starts_with(&format!("blob {absent} is not in the store ")), "{error}");
    assert_eq!(ApiError::from(error).code, ErrorCode::NotFound);
    assert!(matches!(store.size(absent).await, Err(BlobError::Missing { .. })));
    assert!(matches!(store.open_stored(absent).await, Err(BlobError::Missing { .. })));
}

pub(crate) async fn files_go_in_and_out(place: &impl Blobs) {
    let store = place.open();
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("weights");
    let content = noise(1_000_000);
    std::fs::write(&source, &content).unwrap();
    let (digest, size) = store.put_file(&source).await.unwrap();
    assert_eq!((digest, size), (Digest::of(&content), 1_000_000));
    assert_eq!(store.put_file(&source).await.unwrap(), (digest, size));

    let target = dir.path().join("out");
    std::fs::write(&target, "something older").unwrap();
    assert_eq!(store.get_to_file(digest, &target).await.unwrap(), 1_000_000);
    assert_eq!(std::fs::read(&target).unwrap(), content);
    let error = store.put_file(&dir.path().join("absent")).await.unwrap_err().to_string();
    assert!(error.starts_with("failed to read ") && error.contains("absent"), "{error}");
}

pub(crate) async fn what_is_said_to_be_a_blob_must_be_it(place: &impl Blobs) {
    let store = place.open();
    let error = store.put_expected(Digest::of("a"), "b".into()).await.unwrap_err();
    assert!(matches!(error, BlobError::Refused { .. }), "{error}");
    assert_eq!(ApiError::from(error).code, ErrorCode::BadRequest);
    assert_eq!(place.things(), 0);
}

pub(crate) async fn a_damaged_blob_is_noticed_by_every_reader_and_can_be_stored_anew(place: &impl Blobs) {
    let store = place.open();
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("model.so");
    let content = Bytes::from(noise(10_000));
    let digest = store.put(content.clone()).await.unwrap();
    let packed = place.stored(digest);
    let mut flipped = packed.clone();
    flipped[4000] ^= 1;
    for damaged in [&packed[..5000], &packed[..3], b"", &flipped] {
        for reader in 0..4 {
            place.store(digest, damaged);
            let error = match reader {
                0 => store.get(digest).await.unwrap_err(),
                1 => store.get_to_file(digest, &target).await.unwrap_err(),
                2 => store.unpack(digest).await.map(drop).unwrap_err(),
                _ => store.verify(digest).await.unwrap_err(),
            };
            assert!(matches!(error, BlobError::Damaged { .. }), "{error}");
            assert_eq!(ApiError::from(error).code, ErrorCode::Damaged);
            assert!(!target.exists());
            // It is out of the way, and not read twice.
            assert!(!store.contains(digest).await.unwrap());
            assert!(matches!(store.get(digest).await, Err(BlobError::Missing { .. })));
            assert_eq!(store.put(content.clone()).await.unwrap(), digest);
            assert_eq!(store.get(digest).await.unwrap(), content);
        }
    }
}

pub(crate) async fn blobs_past_the_limit_are_refused_in_every_direction(place: &impl Blobs) {
    let (store, small) = (place.open(), place.open_limited(1000));
    assert_eq!(small.limit(), 1000);
    let zeros = Bytes::from(vec![0; 1_000_000]);
    let digest = store.put(zeros.clone()).await.unwrap();
    let packed = place.stored(digest);
    assert!(packed.len() < 1000);
    // One that another process stored.
    assert!(matches!(small.get(digest).await, Err(BlobError::TooLarge { .. })));
    place.lose(digest);
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("zeros");
    std::fs::write(&source, &zeros).unwrap();
    for error in [
        small.put(zeros).await.unwrap_err(),
        small.put_file(&source).await.unwrap_err(),
        upload(&small, digest, vec![Ok(packed.into())]).await.unwrap_err(),
    ] {
        assert!(matches!(error, BlobError::TooLarge { .. }), "{error}");
        assert!(error.to_string().contains("1000000 bytes uncompressed, more than the limit of 1000"), "{error}");
    }
    assert_eq!(place.things(), 0);
}

pub(crate) async fn a_stream_that_breaks_off_or_lies_leaves_nothing(place: &impl Blobs) {
    let store = place.open();
    let content = noise(100_000);
    let digest = store.put(content.clone().into()).await.unwrap();
    let packed = Bytes::from(place.stored(digest));
    place.lose(digest);
    let chunks = |n: usize| -> Vec<std::io::Result<Bytes>> { packed.chunks(n).map(|c| Ok(Bytes::copy_from_slice(c))).collect() };

    let mut broken = chunks(1000);
    broken.truncate(50);
    broken.push(Err(std::io::Error::new(std::io::ErrorKind::ConnectionReset, "reset by peer")));
    let error = upload(&store, digest, broken).await.unwrap_err();
    assert!(matches!(error, BlobError::BrokeOff { .. }), "{error}");
    let mut short = chunks(1000);
    short.pop();
    let error = upload(&store, digest, short).await.unwrap_err();
    assert!(matches!(error, BlobError::Refused { .. }), "{error}");
    let error = upload(&store, Digest::of("other"), chunks(1000)).await.unwrap_err();
    assert!(matches!(error, BlobError::Refused { .. }), "{error}");
    assert_eq!(place.things(), 0);

    upload(&store, digest, chunks(7)).await.unwrap();
    assert_eq!(store.get(digest).await.unwrap(), content);
}

pub(crate) async fn stored_frames_are_read_in_pieces(place: &impl Blobs) {
    let store = place.open();
    let content = noise(10_000);
    let digest = store.put(content.clone().into()).await.unwrap();
    let packed = place.stored(digest);
    let mut stored = store.open_stored(digest).await.unwrap();
    assert_eq!(stored.length, packed.len() as u64);
    stored.source.seek(std::io::SeekFrom::Start(4000)).await.unwrap();
    let mut rest = Vec::new();
    stored.source.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, packed[4000..]);

    let mut plain = Vec::new();
    store.unpack(digest).await.unwrap().read_to_end(&mut plain).await.unwrap();
    assert_eq!(plain, content);
    assert_eq!(place.things(), 1);
}

pub(crate) async fn the_same_blob_put_by_many_at_once_is_one_blob(place: &impl Blobs) {
    let content = Bytes::from(noise(300_000));
    let stores = [place.open(), place.open()];
    let puts = (0..16).map(|i| {
        let (store, content) = (Arc::clone(&stores[i % 2]), content.clone());
        tokio::spawn(async move { store.put(content).await })
    });
    for put in futures_util::future::join_all(puts).await {
        assert_eq!(put.unwrap().unwrap(), Digest::of(&content));
    }
    assert_eq!(place.things(), 1);
    assert_eq!(stores[0].get(Digest::of(&content)).await.unwrap(), content);
}

pub(crate) async fn a_sweep_removes_what_is_neither_kept_nor_new(place: &impl Blobs) {
    let store = place.open();
    let kept = store.put("kept".into()).await.unwrap();
    let stale = store.put("stale".into()).await.unwrap();
    let damaged = store.put("damaged".into()).await.unwrap();
    place.store(damaged, b"rubbish");
    store.get(damaged).await.unwrap_err();
    place.leave_over();

    let keep = HashSet::from([kept]);
    assert_eq!(store.sweep(keep.clone(), Duration::from_secs(3600)).await.unwrap().0, 0);
    let (things, bytes) = store.sweep(keep, Duration::ZERO).await.unwrap();
    assert_eq!(things, 3);
    assert!(bytes > 0);
    assert!(store.contains(kept).await.unwrap() && !store.contains(stale).await.unwrap());
    assert_eq!(place.things(), 1);
}

pub(crate) async fn asking_for_an_old_blob_keeps_it_from_the_next_sweep(place: &impl Blobs) {
    let store = place.open();
    let digest = store.put("asked for".into()).await.unwrap();
    let month = Duration::from_secs(30 * 24 * 3600);
    place.age(digest, month);
    assert!(store.contains(digest).await.unwrap());
    assert_eq!(store.sweep(HashSet::new(), Duration::from_secs(60)).await.unwrap().0, 0);
    place.age(digest, month);
    assert_eq!(store.sweep(HashSet::new(), Duration::from_secs(60)).await.unwrap().0, 1);
}
