//! Snapshots and transactions.

use aotfarm_protocol::{JobEvent, JobId, JobState};
use aotfarm_store::Store;

use super::jobs::job;
use super::{Database, job_id};

fn note(text: &str) -> JobEvent {
    JobEvent::Note { message: text.to_owned() }
}

async fn add_job(store: &dyn Store, id: JobId) {
    let mut tx = store.write().await.unwrap();
    tx.insert_job(&job(id, "net", JobState::Queued, 0)).await.unwrap();
    tx.commit().await.unwrap();
}

pub(crate) async fn what_is_not_committed_did_not_happen(database: &impl Database) {
    let store = database.open().await;
    let mut tx = store.write().await.unwrap();
    tx.insert_job(&job(job_id(1), "net", JobState::Queued, 0)).await.unwrap();
    assert!(tx.job(job_id(1)).await.unwrap().is_some(), "a transaction sees what it wrote");
    drop(tx);
    assert_eq!(store.read().await.unwrap().job(job_id(1)).await.unwrap(), None);
    // The connection is fit for the next one.
    add_job(&*store, job_id(1)).await;
    assert!(store.read().await.unwrap().job(job_id(1)).await.unwrap().is_some());
    store.close().await;
    assert!(database.open().await.read().await.unwrap().job(job_id(1)).await.unwrap().is_some());
}

pub(crate) async fn a_snapshot_is_of_one_moment(database: &impl Database) {
    let store = database.open().await;
    add_job(&*store, job_id(1)).await;
    let mut before = store.read().await.unwrap();
    assert_eq!(before.newest_jobs(10).await.unwrap().len(), 1);
    add_job(&*store, job_id(2)).await;
    assert_eq!(before.newest_jobs(10).await.unwrap().len(), 1);
    assert_eq!(store.read().await.unwrap().newest_jobs(10).await.unwrap().len(), 2);
}

pub(crate) async fn transactions_wait_for_each_other(database: &impl Database) {
    let stores = [database.open().await, database.open().await];
    add_job(&*stores[0], job_id(1)).await;
    let mut writers = Vec::new();
    for n in 0..20 {
        let store = stores[n % 2].clone();
        writers.push(tokio::spawn(async move {
            let mut tx = store.write().await.unwrap();
            // What was read stays true: nobody adds a second event after the same last one.
            let last = tx.events_after(job_id(1), 0, 100).await.unwrap().len() as i64;
            assert_eq!(tx.append_event(job_id(1), 0, &note(&n.to_string())).await.unwrap(), last + 1);
            tx.commit().await.unwrap();
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let log = stores[0].read().await.unwrap().events_after(job_id(1), 0, 100).await.unwrap();
    assert_eq!(log.iter().map(|entry| entry.seq).collect::<Vec<_>>(), (1..=20).collect::<Vec<_>>());
}

pub(crate) async fn several_processes_open_it_at_once(database: &impl Database) {
    let stores = tokio::join!(database.open(), database.open(), database.open());
    add_job(&*stores.0, job_id(1)).await;
    for store in [stores.1, stores.2] {
        assert_eq!(store.read().await.unwrap().newest_jobs(10).await.unwrap().len(), 1);
    }
}
