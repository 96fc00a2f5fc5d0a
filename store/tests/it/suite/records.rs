//! TuningRecords and similar tasks.

use aotfarm_protocol::*;

use super::{Database, V3, device};

fn task(name: &str) -> TaskKey {
    TaskKey(Digest::of(name))
}

fn item(n: u32) -> WorkItemId {
    WorkItemId(Digest::of(n.to_le_bytes()))
}

fn record(name: &str, candidate: &str, on: &str, at: i64) -> TuningRecord {
    TuningRecord {
        task: task(name),
        candidate: CandidateId(Digest::of(candidate)),
        family: "direct@1".to_owned(),
        params: [("mr".to_owned(), 6)].into(),
        target: V3,
        device: device(on),
        protocol: MeasureProtocol {
            version: 4,
            threads: 2,
            screen_runs: 1,
            race_runs: 8,
            race_width: 4,
            drop_factor: 3.0,
            rotate_bytes: 0,
            budget_ms: 100,
            run_limit_ms: 1000,
            memory_limit: 1 << 30,
        },
        outcome: Outcome::Measured(Measurement {
            samples: vec![at as f64, 0.1],
            raced: 1,
            error: 1e-7,
            conditions: None,
            algorithm: None,
        }),
        at,
    }
}

pub(crate) async fn the_newest_record_of_each_candidate_counts(database: &impl Database) {
    let store = database.open().await;
    let mut tx = store.write().await.unwrap();
    let (old, new) = (record("t", "a", "one", 1), record("t", "a", "one", 2));
    let (rival, elsewhere) = (record("t", "b", "one", 3), record("t", "a", "two", 4));
    let mut other_way = record("t", "a", "one", 5);
    other_way.protocol.threads = 1;
    let other_task = record("u", "a", "one", 6);
    for (n, record) in [&old, &rival, &new, &elsewhere, &other_way, &other_task].into_iter().enumerate() {
        tx.append_record(item(n as u32), record).await.unwrap();
    }
    tx.commit().await.unwrap();
    let mut snapshot = store.read().await.unwrap();
    let fingerprint = device("one").fingerprint();
    let newest = snapshot.newest_records(task("t"), fingerprint, 4, 2).await.unwrap();
    assert_eq!(newest, [(new.candidate, new.clone()), (rival.candidate, rival.clone())].into());
    assert_eq!(snapshot.newest_records(task("t"), fingerprint, 3, 2).await.unwrap(), [].into());
    // Whatever the threads.
    assert_eq!(snapshot.records_of_task(task("t"), 4).await.unwrap(), [rival, elsewhere, other_way]);
}

pub(crate) async fn a_record_is_added_once(database: &impl Database) {
    let store = database.open().await;
    let mut tx = store.write().await.unwrap();
    let first = record("t", "a", "one", 1);
    tx.append_record(item(1), &first).await.unwrap();
    tx.append_record(item(1), &record("t", "a", "one", 2)).await.unwrap();
    assert_eq!(tx.records_of_task(task("t"), 4).await.unwrap(), [first]);
}

pub(crate) async fn similar_tasks_are_those_with_records(database: &impl Database) {
    let store = database.open().await;
    let mut tx = store.write().await.unwrap();
    let like = |class: &str, size: i64| Likeness { class: Digest::of(class), sizes: vec![size, 3] };
    for (name, likeness) in [("known", like("conv", 1)), ("late", like("conv", 2)), ("unknown", like("conv", 3))] {
        tx.add_task(task(name), &likeness).await.unwrap();
        // Adding it again changes nothing.
        tx.add_task(task(name), &like("matmul", 9)).await.unwrap();
    }
    tx.add_task(task("product"), &like("matmul", 4)).await.unwrap();
    for (n, (name, at)) in [("known", 10), ("late", 20), ("product", 10)].into_iter().enumerate() {
        tx.append_record(item(n as u32), &record(name, "a", "one", at)).await.unwrap();
    }
    tx.commit().await.unwrap();
    let mut snapshot = store.read().await.unwrap();
    let (class, one, two) = (Digest::of("conv"), device("one").fingerprint(), device("two").fingerprint());
    assert_eq!(snapshot.known_tasks(class, one, 4, 2, 20).await.unwrap(), [(task("known"), like("conv", 1))]);
    let mut all = vec![(task("known"), like("conv", 1)), (task("late"), like("conv", 2))];
    all.sort_by_key(|(key, _)| *key);
    assert_eq!(snapshot.known_tasks(class, one, 4, 2, 21).await.unwrap(), all);
    for (device, version, threads) in [(two, 4, 2), (one, 3, 2), (one, 4, 1)] {
        assert_eq!(snapshot.known_tasks(class, device, version, threads, 99).await.unwrap(), []);
    }
}
