use std::collections::HashSet;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use aotfarm_protocol::{ApiError, Digest, ErrorCode};
use aotfarm_registry::{BlobError, BlobStore};
use bytes::Bytes;

use crate::harness::{files, noise};

fn store() -> (tempfile::TempDir, BlobStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = BlobStore::open(dir.path()).unwrap();
    (dir, store)
}

#[tokio::test]
async fn blobs_are_kept_by_digest_and_put_is_idempotent() {
    let (dir, store) = store();
    let content = b"int main(void) { return 0; }".repeat(100);
    let digest = store.put(content.clone()).await.unwrap();
    assert_eq!(digest, Digest::of(&content));
    assert_eq!(store.put(content.clone()).await.unwrap(), digest);
    let hex = digest.hex();
    assert_eq!(files(dir.path()), [format!("blobs/sha256/{}/{hex}.zst", &hex[..2])]);
    assert_eq!(store.get(digest).await.unwrap(), content);
    assert_eq!(store.size(digest).await.unwrap(), content.len() as u64);
    assert!(store.contains(digest).await.unwrap());
    assert!(!store.contains(Digest::of("other")).await.unwrap());
    let [(listed, stored)] = store.list().await.unwrap()[..] else { panic!("one blob") };
    assert_eq!(listed, digest);
    assert!(stored < content.len() as u64 / 10, "{stored} bytes stored");
}

#[tokio::test]
async fn files_go_in_and_out() {
    let (dir, store) = store();
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
    let error = store.put_file(dir.path().join("absent")).await.unwrap_err().to_string();
    assert!(error.starts_with("failed to read ") && error.contains("absent"), "{error}");
}

#[tokio::test]
async fn what_is_said_to_be_a_blob_must_be_it() {
    let (dir, store) = store();
    let error = store.put_expected(Digest::of("a"), "b").await.unwrap_err();
    assert!(matches!(error, BlobError::Refused { .. }), "{error}");
    assert_eq!(files(dir.path()), [""; 0]);
}

#[tokio::test]
async fn a_damaged_blob_is_named_moved_aside_and_can_be_stored_anew() {
    let content = noise(10_000);
    type Damage = fn(&mut Vec<u8>);
    let damages: [Damage; 4] = [|b| b.truncate(5000), |b| b.truncate(3), Vec::clear, |b| b[4000] ^= 1];
    for damage in damages {
        let (dir, store) = store();
        let digest = store.put(content.clone()).await.unwrap();
        let path = store.path(digest);
        let mut bytes = std::fs::read(&path).unwrap();
        damage(&mut bytes);
        std::fs::write(&path, bytes).unwrap();

        let target = dir.path().join("model.so");
        let error = store.get_to_file(digest, &target).await.unwrap_err();
        let message = error.to_string();
        assert!(matches!(error, BlobError::Damaged { .. }), "{message}");
        assert!(message.contains(path.to_str().unwrap()) && message.ends_with(".zst.damaged"), "{message}");
        assert_eq!(ApiError::from(error).code, ErrorCode::Damaged);
        assert!(!target.exists());
        assert!(matches!(store.get(digest).await, Err(BlobError::Missing { .. })));

        assert_eq!(store.put(content.clone()).await.unwrap(), digest);
        assert_eq!(store.get(digest).await.unwrap(), content);
    }
}

#[tokio::test]
async fn blobs_past_the_limit_are_refused_in_every_direction() {
    let (dir, store) = store();
    let zeros = vec![0; 1_000_000];
    let digest = store.put(zeros.clone()).await.unwrap();
    let packed = std::fs::read(store.path(digest)).unwrap();
    assert!(packed.len() < 1000);
    let source = dir.path().join("zeros");
    std::fs::write(&source, &zeros).unwrap();
    let small = BlobStore::open(dir.path().join("small")).unwrap().with_limit(1000);
    let stream = futures_util::stream::iter([Ok::<_, std::io::Error>(Bytes::from(packed.clone()))]);
    for error in [
        small.put(zeros).await.unwrap_err(),
        small.put_file(&source).await.unwrap_err(),
        small.put_compressed(digest, stream).await.unwrap_err(),
    ] {
        assert!(matches!(error, BlobError::TooLarge { .. }), "{error}");
        assert!(error.to_string().contains("1000000 bytes uncompressed, more than the limit of 1000"), "{error}");
    }
    // A file that found its way into the folder.
    std::fs::create_dir_all(small.path(digest).parent().unwrap()).unwrap();
    std::fs::write(small.path(digest), packed).unwrap();
    assert!(matches!(small.get(digest).await, Err(BlobError::TooLarge { .. })));
}

#[tokio::test]
async fn a_stream_that_breaks_off_or_lies_leaves_nothing() {
    let (dir, store) = store();
    let content = noise(100_000);
    let digest = store.put(content.clone()).await.unwrap();
    let path = store.path(digest);
    let packed = Bytes::from(std::fs::read(&path).unwrap());
    std::fs::remove_file(&path).unwrap();
    let chunks =
        |n: usize| -> Vec<Result<Bytes, std::io::Error>> { packed.chunks(n).map(|c| Ok(Bytes::copy_from_slice(c))).collect() };

    let mut broken = chunks(1000);
    broken.truncate(50);
    broken.push(Err(std::io::Error::new(std::io::ErrorKind::ConnectionReset, "reset by peer")));
    let error = store.put_compressed(digest, futures_util::stream::iter(broken)).await.unwrap_err();
    assert!(matches!(error, BlobError::BrokeOff { .. }), "{error}");
    let mut short = chunks(1000);
    short.pop();
    let error = store.put_compressed(digest, futures_util::stream::iter(short)).await.unwrap_err();
    assert!(matches!(error, BlobError::Refused { .. }), "{error}");
    let error = store.put_compressed(Digest::of("other"), futures_util::stream::iter(chunks(1000))).await.unwrap_err();
    assert!(matches!(error, BlobError::Refused { .. }), "{error}");
    assert_eq!(files(dir.path()), [""; 0]);

    store.put_compressed(digest, futures_util::stream::iter(chunks(7))).await.unwrap();
    assert_eq!(store.get(digest).await.unwrap(), content);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_blob_put_by_many_at_once_is_one_blob() {
    let (dir, store) = store();
    let content = Bytes::from(noise(300_000));
    let puts = (0..16).map(|i| {
        // Half of them come from another process.
        let store = if i % 2 == 0 { store.clone() } else { BlobStore::open(dir.path()).unwrap() };
        let content = content.clone();
        tokio::spawn(async move { store.put(content).await })
    });
    for put in futures_util::future::join_all(puts).await {
        assert_eq!(put.unwrap().unwrap(), Digest::of(&content));
    }
    assert_eq!(files(dir.path()).len(), 1);
    assert_eq!(store.get(Digest::of(&content)).await.unwrap(), content);
}

#[tokio::test]
async fn a_sweep_removes_what_is_neither_kept_nor_new() {
    let (dir, store) = store();
    let kept = store.put("kept").await.unwrap();
    let stale = store.put("stale").await.unwrap();
    let damaged = store.put("damaged").await.unwrap();
    std::fs::write(store.path(damaged), "rubbish").unwrap();
    store.get(damaged).await.unwrap_err();
    std::fs::write(dir.path().join("blobs/tmp/left-over"), "half").unwrap();

    assert_eq!(store.sweep(HashSet::from([kept]), Duration::from_secs(3600)).await.unwrap().0, 0);
    assert_eq!(store.sweep(HashSet::from([kept]), Duration::ZERO).await.unwrap().0, 3);
    assert!(store.contains(kept).await.unwrap() && !store.contains(stale).await.unwrap());
    assert_eq!(files(dir.path()).len(), 1);
}

#[tokio::test]
async fn asking_for_an_old_blob_keeps_it_from_the_next_sweep() {
    let (_dir, store) = store();
    let digest = store.put("asked for").await.unwrap();
    let long_ago = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    let file = std::fs::File::options().append(true).open(store.path(digest)).unwrap();
    file.set_modified(long_ago).unwrap();
    assert!(store.contains(digest).await.unwrap());
    assert_eq!(store.sweep(HashSet::new(), Duration::from_secs(60)).await.unwrap().0, 0);
    file.set_modified(long_ago).unwrap();
    assert_eq!(store.sweep(HashSet::new(), Duration::from_secs(60)).await.unwrap().0, 1);
}

#[tokio::test]
async fn a_read_only_folder_is_said_to_be_one() {
    let (dir, store) = store();
    let tmp = dir.path().join("blobs/tmp");
    std::fs::set_permissions(&tmp, std::fs::Permissions::from_mode(0o555)).unwrap();
    if std::fs::write(tmp.join("probe"), "").is_ok() {
        println!("skipped: this user (root?) may write to read-only folders");
        return;
    }
    let error = store.put("x").await.unwrap_err();
    assert!(matches!(error, BlobError::ReadOnly { .. }), "{error}");
    let api = ApiError::from(error);
    assert_eq!(api.code, ErrorCode::Storage);
    assert!(api.hint.unwrap().contains("writable for this user"));
}
