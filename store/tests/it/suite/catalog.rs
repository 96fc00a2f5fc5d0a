//! Versions, tags, the performance history.

use aotfarm_protocol::{Digest, Target, VariantInfo, VersionInfo};
use aotfarm_store::{NewVersion, Transaction};

use super::{Database, V3, V4, profile};

fn variant(target: Target, artifact: &str) -> VariantInfo {
    VariantInfo {
        target,
        manifest: Digest::of(format!("manifest of {artifact}")),
        artifact: Digest::of(artifact),
        bytes: artifact.len() as u64,
    }
}

fn version<'a>(model: &'a str, version: u32, contents: &str, variants: &'a [VariantInfo]) -> NewVersion<'a> {
    let (index, contents) = (Digest::of(format!("index of {contents}")), Digest::of(contents));
    NewVersion { model, version, index, graph: Digest::of("graph"), contents, at: i64::from(version) * 100, variants }
}

async fn add(tx: &mut dyn Transaction, model: &str, numbers: std::ops::RangeInclusive<u32>) {
    for n in numbers {
        let variants = [variant(V3, &format!("{model} {n}"))];
        tx.insert_version(&version(model, n, &format!("{model} {n}"), &variants)).await.unwrap();
    }
}

pub(crate) async fn a_version_is_read_as_it_was_added(database: &impl Database) {
    let store = database.open().await;
    let mut tx = store.write().await.unwrap();
    let variants = [variant(V4, "for v4"), variant(V3, "for v3")];
    let new = version("m", 1, "one", &variants);
    tx.insert_version(&new).await.unwrap();
    add(&mut *tx, "m", 2..=3).await;
    add(&mut *tx, "a", 1..=1).await;
    tx.set_tag("m", "prod", 1).await.unwrap();
    tx.set_tag("m", "canary", 1).await.unwrap();
    tx.commit().await.unwrap();
    let mut snapshot = store.read().await.unwrap();
    let expected = VersionInfo {
        name: "m".to_owned(),
        version: 1,
        index: new.index,
        graph: new.graph,
        variants: vec![variants[1].clone(), variants[0].clone()],
        tags: vec!["canary".to_owned(), "prod".to_owned()],
        at: 100,
    };
    assert_eq!(snapshot.version("m", 1).await.unwrap(), Some(expected));
    assert_eq!(snapshot.version("m", 4).await.unwrap(), None);
    assert_eq!(snapshot.models().await.unwrap(), [("a".to_owned(), 1), ("m".to_owned(), 3)]);
    assert_eq!((snapshot.latest_version("m").await.unwrap(), snapshot.latest_version("x").await.unwrap()), (3, 0));
    for (model, found) in [("m", Some(1)), ("a", None)] {
        assert_eq!(snapshot.version_with_index(model, new.index).await.unwrap(), found);
        assert_eq!(snapshot.version_with_contents(model, new.contents).await.unwrap(), found);
        assert_eq!(snapshot.has_manifest(model, variants[0].manifest).await.unwrap(), found.is_some());
    }
}

pub(crate) async fn a_version_is_never_changed(database: &impl Database) {
    let store = database.open().await;
    let mut tx = store.write().await.unwrap();
    add(&mut *tx, "m", 1..=1).await;
    tx.commit().await.unwrap();
    let variants = [variant(V3, "other")];
    for new in [version("m", 1, "other", &variants), version("m", 2, "m 1", &variants)] {
        let mut tx = store.write().await.unwrap();
        tx.insert_version(&new).await.unwrap_err();
    }
    let mut snapshot = store.read().await.unwrap();
    assert_eq!(snapshot.models().await.unwrap(), [("m".to_owned(), 1)]);
    assert_eq!(snapshot.version("m", 1).await.unwrap().unwrap().variants, [variant(V3, "m 1")]);
}

pub(crate) async fn tags_move_and_go(database: &impl Database) {
    let store = database.open().await;
    let mut tx = store.write().await.unwrap();
    add(&mut *tx, "m", 1..=2).await;
    for (tag, version) in [("prod", 1), ("old", 1), ("prod", 2)] {
        tx.set_tag("m", tag, version).await.unwrap();
    }
    assert_eq!(tx.tags("m").await.unwrap(), [("old".to_owned(), 1), ("prod".to_owned(), 2)]);
    assert_eq!(tx.tagged("m", "prod").await.unwrap(), Some(2));
    tx.remove_tag("m", "prod").await.unwrap();
    assert_eq!(tx.tagged("m", "prod").await.unwrap(), None);
    assert_eq!(tx.version("m", 2).await.unwrap().unwrap().tags, [""; 0]);
    tx.set_tag("m", "prod", 3).await.unwrap_err();
}

pub(crate) async fn profiles_are_added_once(database: &impl Database) {
    let store = database.open().await;
    let mut tx = store.write().await.unwrap();
    add(&mut *tx, "m", 1..=2).await;
    let (a, b) = (profile(0.5, 1), profile(0.25, 2));
    tx.append_profiles("m", 1, std::slice::from_ref(&a)).await.unwrap();
    tx.append_profiles("m", 1, &[b.clone(), a.clone()]).await.unwrap();
    tx.append_profiles("m", 2, std::slice::from_ref(&a)).await.unwrap();
    tx.commit().await.unwrap();
    let mut snapshot = store.read().await.unwrap();
    assert_eq!(snapshot.profiles("m", 1).await.unwrap(), [a.clone(), b]);
    assert_eq!(snapshot.profiles("m", 2).await.unwrap(), [a]);
    assert_eq!(snapshot.profiles("m", 3).await.unwrap(), []);
}
