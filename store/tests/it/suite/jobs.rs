//! Jobs and their logs.

use aotfarm_protocol::{ApiError, Digest, ErrorCode, JobEvent, JobId, JobState, Published};
use aotfarm_store::{Ending, JobRow, Pin, Pins};

use super::{Database, V3, V4, device, job_id, profile, request};

pub(crate) fn job(id: JobId, name: &str, state: JobState, submitted_at: i64) -> JobRow {
    JobRow {
        id,
        key: Digest::of(name),
        compiler: Some("0.1.0+1f3a9c02".to_owned()),
        request: request(name),
        state,
        pins: Pins::new(),
        error: None,
        published: None,
        submitted_at,
        finished_at: state.is_final().then_some(submitted_at + 10),
    }
}

pub(crate) async fn a_job_is_read_as_it_was_written(database: &impl Database) {
    let store = database.open().await;
    let mut tx = store.write().await.unwrap();
    let mut row = job(job_id(1), "net", JobState::Queued, 5);
    tx.insert_job(&row).await.unwrap();
    let pin = |device| Pin { toolchain: "gcc-1".to_owned(), linker: "gcc-2".to_owned(), device };
    row.pins = [(V3, pin(Some(device("cpu")))), (V4, pin(None))].into();
    tx.set_pins(row.id, &row.pins).await.unwrap();
    row.error = Some(ApiError::new(ErrorCode::Internal, "it broke").hint("mend it"));
    let (variants, profiles) = (vec![(V3, Digest::of("so"), 9)], vec![profile(0.1, 1)]);
    row.published =
        Some(Published { version: 3, index: Digest::of("index"), variants, existed: true, profiles, previous: vec![] });
    row.finished_at = Some(77);
    let ending = Ending { error: row.error.clone(), published: row.published.clone() };
    tx.finish_job(row.id, &ending, 77).await.unwrap();
    tx.commit().await.unwrap();
    let mut snapshot = store.read().await.unwrap();
    assert_eq!(snapshot.job(row.id).await.unwrap(), Some(row.clone()));
    assert_eq!(snapshot.newest_jobs(1).await.unwrap(), [row]);
    assert_eq!(snapshot.job(job_id(2)).await.unwrap(), None);
}

pub(crate) async fn jobs_are_listed_in_order(database: &impl Database) {
    let store = database.open().await;
    let mut tx = store.write().await.unwrap();
    for (n, state, at) in
        [(1, JobState::Queued, 30), (2, JobState::Published, 10), (3, JobState::Tuning, 20), (4, JobState::Linking, 20)]
    {
        tx.insert_job(&job(job_id(n), "net", state, at)).await.unwrap();
    }
    let ids = |rows: Vec<JobRow>| rows.iter().map(|row| row.id.0.as_u128()).collect::<Vec<_>>();
    assert_eq!(ids(tx.newest_jobs(10).await.unwrap()), [1, 4, 3, 2]);
    assert_eq!(ids(tx.newest_jobs(2).await.unwrap()), [1, 4]);
    assert_eq!(ids(tx.unfinished_jobs().await.unwrap()), [3, 4, 1]);
}

pub(crate) async fn a_state_is_left_only_by_one(database: &impl Database) {
    let store = database.open().await;
    let mut tx = store.write().await.unwrap();
    tx.insert_job(&job(job_id(1), "net", JobState::Queued, 0)).await.unwrap();
    assert!(tx.set_job_state(job_id(1), JobState::Queued, JobState::Planning).await.unwrap());
    assert!(!tx.set_job_state(job_id(1), JobState::Queued, JobState::Cancelled).await.unwrap());
    assert!(!tx.set_job_state(job_id(2), JobState::Queued, JobState::Planning).await.unwrap());
    assert_eq!(tx.job(job_id(1)).await.unwrap().unwrap().state, JobState::Planning);
}

pub(crate) async fn equal_jobs_are_found_by_their_key(database: &impl Database) {
    let store = database.open().await;
    let mut tx = store.write().await.unwrap();
    for (n, name, state) in [
        (1, "net", JobState::Published),
        (2, "net", JobState::Published),
        (3, "net", JobState::Failed),
        (4, "net", JobState::Tuning),
        (5, "other", JobState::Queued),
        (6, "net", JobState::Queued),
    ] {
        // The one that was submitted later finished later.
        tx.insert_job(&job(job_id(n), name, state, n as i64)).await.unwrap();
    }
    let key = Digest::of("net");
    assert_eq!(tx.published_job(key).await.unwrap().unwrap().id, job_id(2));
    assert_eq!(tx.published_job(Digest::of("other")).await.unwrap(), None);
    assert_eq!(tx.earlier_job(key, job_id(6)).await.unwrap(), Some(job_id(4)));
    assert_eq!(tx.earlier_job(key, job_id(4)).await.unwrap(), None);
    assert_eq!(tx.earlier_job(Digest::of("other"), job_id(6)).await.unwrap(), Some(job_id(5)));
}

pub(crate) async fn a_log_is_numbered_without_gaps(database: &impl Database) {
    let store = database.open().await;
    let note = |text: &str| JobEvent::Note { message: text.to_owned() };
    let mut tx = store.write().await.unwrap();
    for id in [1, 2].map(job_id) {
        tx.insert_job(&job(id, "net", JobState::Queued, 0)).await.unwrap();
    }
    for (seq, text) in [(1, "a"), (2, "b"), (3, "c")] {
        assert_eq!(tx.append_event(job_id(1), 10 * seq, &note(text)).await.unwrap(), seq);
    }
    assert_eq!(tx.append_event(job_id(2), 0, &JobEvent::State { state: JobState::Queued }).await.unwrap(), 1);
    tx.commit().await.unwrap();
    let mut snapshot = store.read().await.unwrap();
    let entries = snapshot.events_after(job_id(1), 1, 10).await.unwrap();
    let entries: Vec<_> = entries.into_iter().map(|entry| (entry.seq, entry.at, entry.event)).collect();
    assert_eq!(entries, [(2, 20, note("b")), (3, 30, note("c"))]);
    assert_eq!(snapshot.events_after(job_id(1), 0, 2).await.unwrap().last().unwrap().seq, 2);
    assert!(snapshot.has_event(job_id(1), &note("c")).await.unwrap());
    assert!(!snapshot.has_event(job_id(2), &note("c")).await.unwrap());
}
