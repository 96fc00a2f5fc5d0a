//! Workers.

use aotfarm_protocol::{Capabilities, Toolchain};
use aotfarm_store::WorkerRow;

use super::{Database, V3, device, worker_id};

fn capabilities() -> Capabilities {
    Capabilities {
        host: "host".to_owned(),
        version: "0.1.0".to_owned(),
        slots: 2,
        toolchains: vec![Toolchain { id: "gcc-1".to_owned(), targets: vec![V3] }],
        device: Some(device("cpu")),
        labels: vec!["lab".to_owned()],
    }
}

pub(crate) async fn a_worker_is_read_as_it_registered(database: &impl Database) {
    let store = database.open().await;
    let mut tx = store.write().await.unwrap();
    tx.insert_worker(worker_id(0x1f3a), &capabilities(), 5).await.unwrap();
    tx.touch_worker(worker_id(0x1f3a), 9).await.unwrap();
    tx.commit().await.unwrap();
    let row = store.read().await.unwrap().worker(worker_id(0x1f3a)).await.unwrap().unwrap();
    let expected = WorkerRow {
        id: worker_id(0x1f3a),
        capabilities: capabilities(),
        seen_at: 9,
        draining: false,
        gone_at: None,
        done: 0,
        failed: 0,
    };
    assert_eq!(row, expected);
    assert_eq!((row.name().as_str(), row.device()), ("host-1f3a", Some(device("cpu").fingerprint())));
    assert_eq!(store.read().await.unwrap().worker(worker_id(1)).await.unwrap(), None);
}

pub(crate) async fn who_fails_repeatedly_is_drained(database: &impl Database) {
    let store = database.open().await;
    let mut tx = store.write().await.unwrap();
    let id = worker_id(1);
    tx.insert_worker(id, &capabilities(), 0).await.unwrap();
    // A success ends the row of failures.
    for (ok, drained) in [(false, false), (false, false), (true, false), (false, false), (false, false), (false, true)] {
        assert_eq!(tx.count_item(id, ok, 3).await.unwrap(), drained);
    }
    assert!(tx.count_item(id, true, 3).await.unwrap(), "it stays drained");
    let row = tx.worker(id).await.unwrap().unwrap();
    assert_eq!((row.done, row.failed, row.draining), (2, 5, true));
    assert!(!tx.count_item(worker_id(2), false, 1).await.unwrap());
}

pub(crate) async fn who_left_or_fell_silent_is_gone(database: &impl Database) {
    let store = database.open().await;
    let mut tx = store.write().await.unwrap();
    for n in [1, 2, 3] {
        tx.insert_worker(worker_id(n), &capabilities(), n as i64).await.unwrap();
    }
    tx.worker_left(worker_id(1), 50).await.unwrap();
    tx.touch_worker(worker_id(3), 100).await.unwrap();
    tx.forget_silent_workers(60, 110).await.unwrap();
    // Who has left does not leave again.
    tx.worker_left(worker_id(1), 120).await.unwrap();
    let ids = |rows: Vec<WorkerRow>| rows.iter().map(|r| (r.id.0.as_u128(), r.gone_at)).collect::<Vec<_>>();
    assert_eq!(ids(tx.present_workers().await.unwrap()), [(3, None)]);
    assert_eq!(ids(tx.workers(60).await.unwrap()), [(2, Some(110)), (3, None)]);
    assert_eq!(ids(tx.workers(0).await.unwrap()), [(1, Some(50)), (2, Some(110)), (3, None)]);
}
