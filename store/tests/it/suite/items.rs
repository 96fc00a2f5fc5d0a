//! Work items, leases, and which job needs what.

use aotfarm_protocol::*;
use aotfarm_store::{Item, MeasureContext, Transaction};

use super::jobs::job;
use super::{Database, V3, build, device, job_id, profiling, worker_id};

async fn add_job(tx: &mut dyn Transaction, n: u128) -> JobId {
    tx.insert_job(&job(job_id(n), "net", JobState::Tuning, n as i64)).await.unwrap();
    job_id(n)
}

async fn add_worker(tx: &mut dyn Transaction, n: u128, host: &str) -> WorkerId {
    let capabilities = Capabilities {
        host: host.to_owned(),
        version: String::new(),
        slots: 1,
        toolchains: vec![],
        device: None,
        labels: vec![],
    };
    tx.insert_worker(worker_id(n), &capabilities, 0).await.unwrap();
    worker_id(n)
}

/// Adds an item that `job` needs.
async fn add_item(tx: &mut dyn Transaction, job: JobId, spec: &WorkSpec, now: i64) -> WorkItemId {
    tx.insert_item(spec, "an item", None, now).await.unwrap();
    assert!(tx.link_item(job, spec.id(), false).await.unwrap());
    spec.id()
}

/// Changes an item as it stands.
async fn change(tx: &mut dyn Transaction, key: WorkItemId, now: i64, change: impl FnOnce(&mut Item)) -> Item {
    let before = tx.item(key).await.unwrap().unwrap().item;
    let mut after = before.clone();
    change(&mut after);
    assert!(tx.save_item(key, &before, &after, now).await.unwrap());
    assert_eq!(tx.item(key).await.unwrap().unwrap().item, after);
    after
}

fn lease(worker: WorkerId, expires_at: i64) -> impl FnOnce(&mut Item) {
    move |item| {
        *item = Item {
            state: ItemState::Leased,
            generation: item.generation + 1,
            attempts: item.attempts + 1,
            worker: Some(worker),
            expires_at: Some(expires_at),
            ..item.clone()
        };
    }
}

fn end(state: ItemState) -> impl FnOnce(&mut Item) {
    move |item| {
        item.state = state;
        item.expires_at = None;
        item.completions += u32::from(state == ItemState::Done);
    }
}

pub(crate) async fn an_item_is_read_as_it_was_written(database: &impl Database) {
    let store = database.open().await;
    let mut tx = store.write().await.unwrap();
    let context = MeasureContext {
        target: V3,
        candidates: vec![(CandidateId(Digest::of("c")), "direct@1".to_owned(), [("mr".to_owned(), 6)].into())],
    };
    tx.insert_item(&build(1), "build 1", None, 5).await.unwrap();
    tx.insert_item(&profiling(1), "profile 1", Some(&context), 6).await.unwrap();
    tx.commit().await.unwrap();
    let mut snapshot = store.read().await.unwrap();
    let fresh = Item { state: ItemState::Queued, generation: 0, attempts: 0, completions: 0, worker: None, expires_at: None };
    let row = snapshot.item(build(1).id()).await.unwrap().unwrap();
    assert_eq!((row.key, row.label.as_str(), row.spec), (build(1).id(), "build 1", build(1)));
    assert_eq!((row.item, row.context, row.result), (fresh, None, None));
    let row = snapshot.item(profiling(1).id()).await.unwrap().unwrap();
    assert_eq!((row.spec, row.context), (profiling(1), Some(context)));
    assert!(snapshot.item(build(2).id()).await.unwrap().is_none());
}

pub(crate) async fn a_stale_generation_never_wins(database: &impl Database) {
    let store = database.open().await;
    let mut tx = store.write().await.unwrap();
    let (slow, quick) = (add_worker(&mut *tx, 1, "a").await, add_worker(&mut *tx, 2, "b").await);
    let job = add_job(&mut *tx, 1).await;
    let key = add_item(&mut *tx, job, &build(1), 0).await;
    let first = change(&mut *tx, key, 0, lease(slow, 100)).await;
    change(&mut *tx, key, 100, |item| (item.state, item.expires_at) = (ItemState::Queued, None)).await;
    let done = |item: &Item| Item { state: ItemState::Done, completions: 1, expires_at: None, ..item.clone() };
    // While it is queued again, and while another worker has it.
    assert!(!tx.save_item(key, &first, &done(&first), 101).await.unwrap());
    let second = change(&mut *tx, key, 102, lease(quick, 200)).await;
    assert_eq!((first.generation, second.generation), (1, 2));
    assert!(!tx.save_item(key, &first, &done(&first), 103).await.unwrap());
    assert_eq!(tx.item(key).await.unwrap().unwrap().item, second);
    assert!(tx.save_item(key, &second, &done(&second), 104).await.unwrap());
    // It is done once.
    assert!(!tx.save_item(key, &second, &done(&second), 105).await.unwrap());
}

pub(crate) async fn a_requeued_item_waits_anew(database: &impl Database) {
    let store = database.open().await;
    let mut tx = store.write().await.unwrap();
    let worker = add_worker(&mut *tx, 1, "a").await;
    let job = add_job(&mut *tx, 1).await;
    let key = add_item(&mut *tx, job, &build(1), 5).await;
    let since = async |tx: &mut dyn Transaction| tx.queued_items().await.unwrap().first().map(|item| item.queued_at);
    assert_eq!(since(&mut *tx).await, Some(5));
    change(&mut *tx, key, 10, lease(worker, 100)).await;
    assert_eq!(since(&mut *tx).await, None);
    change(&mut *tx, key, 20, |item| item.state = ItemState::Queued).await;
    assert_eq!(since(&mut *tx).await, Some(20));
    // What is queued already does not lose its place.
    change(&mut *tx, key, 30, |item| item.attempts = 0).await;
    assert_eq!(since(&mut *tx).await, Some(20));
}

pub(crate) async fn each_job_shows_the_front_of_its_queue(database: &impl Database) {
    let store = database.open().await;
    let mut tx = store.write().await.unwrap();
    let (long, short) = (add_job(&mut *tx, 1).await, add_job(&mut *tx, 2).await);
    let finished = job_id(3);
    tx.insert_job(&job(finished, "net", JobState::Cancelled, 0)).await.unwrap();
    for n in 0..70 {
        add_item(&mut *tx, long, &build(n), n as i64).await;
    }
    add_item(&mut *tx, finished, &build(100), 0).await;
    add_item(&mut *tx, short, &profiling(1), 7).await;
    tx.link_item(short, build(0).id(), false).await.unwrap();
    let queued = tx.queued_items().await.unwrap();
    // A long queue neither hides what is behind it nor costs more than its front.
    assert_eq!(queued.len(), 65);
    assert!(queued.windows(2).all(|pair| pair[0].seq < pair[1].seq), "in order of arrival");
    assert_eq!((queued[0].id, queued[0].jobs.as_slice()), (build(0).id(), [long, short].as_slice()));
    assert_eq!((queued[0].kind, queued[0].toolchain.clone()), (WorkKind::Build, Some(("gcc-1".to_owned(), V3))));
    let last = queued.last().unwrap();
    assert_eq!((last.id, last.kind, last.queued_at), (profiling(1).id(), WorkKind::Profile, 7));
    assert_eq!((&last.toolchain, last.device), (&None, Some(device("cpu").fingerprint())));
}

pub(crate) async fn leases_are_listed_and_only_grow(database: &impl Database) {
    let store = database.open().await;
    let mut tx = store.write().await.unwrap();
    let worker = add_worker(&mut *tx, 1, "a").await;
    let (one, two) = (add_job(&mut *tx, 1).await, add_job(&mut *tx, 2).await);
    let keys = [add_item(&mut *tx, one, &build(1), 0).await, add_item(&mut *tx, one, &build(2), 0).await];
    add_item(&mut *tx, one, &build(3), 0).await;
    tx.link_item(two, keys[0], false).await.unwrap();
    change(&mut *tx, keys[0], 0, lease(worker, 100)).await;
    change(&mut *tx, keys[1], 0, lease(worker, 300)).await;
    assert_eq!(tx.leases_by_job().await.unwrap(), [(one, 2), (two, 1)].into());
    tx.extend_leases(200).await.unwrap();
    let mut leased = tx.leased_items().await.unwrap();
    leased.sort_by_key(|lease| lease.item.expires_at);
    let told: Vec<_> = leased.iter().map(|l| (l.key, l.kind, l.item.expires_at, l.item.worker)).collect();
    assert_eq!(told, [(keys[0], WorkKind::Build, Some(200), Some(worker)), (keys[1], WorkKind::Build, Some(300), Some(worker))]);
    assert_eq!(tx.item(build(3).id()).await.unwrap().unwrap().item.expires_at, None);
}

pub(crate) async fn results_and_failures_are_kept(database: &impl Database) {
    let store = database.open().await;
    let mut tx = store.write().await.unwrap();
    let worker = add_worker(&mut *tx, 0xabcd, "host").await;
    let job = add_job(&mut *tx, 1).await;
    let (good, bad) = (add_item(&mut *tx, job, &build(1), 0).await, add_item(&mut *tx, job, &build(2), 0).await);
    let open = add_item(&mut *tx, job, &build(3), 0).await;
    let result = WorkResult::Built { object: Digest::of("object") };
    for key in [good, bad] {
        change(&mut *tx, key, 0, lease(worker, 100)).await;
        tx.set_result(key, &result, 1500).await.unwrap();
    }
    change(&mut *tx, good, 0, end(ItemState::Done)).await;
    // Its result is that of an earlier time, whose blob was lost.
    change(&mut *tx, bad, 0, end(ItemState::Quarantined)).await;
    for line in ["first \"quoted\"", "second"] {
        tx.add_log(bad, line).await.unwrap();
    }
    assert_eq!(tx.item(good).await.unwrap().unwrap().result, Some(result.clone()));
    let ended = tx.ended_items(job, &[open, bad, good]).await.unwrap();
    let told: Vec<_> = ended.iter().map(|e| (e.key, e.result.clone(), e.run_ms, e.worker.as_deref(), e.cached)).collect();
    let name = Some("host-abcd");
    assert_eq!(told, [(good, Some(result), 1500, name, false), (bad, None, 1500, name, false)]);
    assert_eq!(ended[1].log, ["first \"quoted\"", "second"]);
    assert_eq!(tx.ended_items(job, &[open]).await.unwrap(), []);
    let infos = tx.item_infos(job).await.unwrap();
    let told: Vec<_> = infos.iter().map(|i| (i.id, i.state, i.attempts, i.completions, i.run_ms, i.log.len())).collect();
    assert_eq!(
        told,
        [
            (good, ItemState::Done, 1, 1, Some(1500), 0),
            (bad, ItemState::Quarantined, 1, 0, Some(1500), 2),
            (open, ItemState::Queued, 0, 0, None, 0)
        ]
    );
    assert_eq!(tx.average_run_ms(job).await.unwrap(), [(WorkKind::Build, 1500.0)].into());
}

pub(crate) async fn jobs_share_items(database: &impl Database) {
    let store = database.open().await;
    let mut tx = store.write().await.unwrap();
    let (one, two) = (add_job(&mut *tx, 1).await, add_job(&mut *tx, 2).await);
    let (shared, own) = (add_item(&mut *tx, one, &build(1), 0).await, add_item(&mut *tx, one, &build(2), 0).await);
    let done = add_item(&mut *tx, one, &build(3), 0).await;
    change(&mut *tx, done, 0, end(ItemState::Done)).await;
    assert!(tx.link_item(two, shared, true).await.unwrap());
    assert!(!tx.link_item(two, shared, false).await.unwrap(), "noted before");
    assert_eq!(tx.jobs_that_need(shared).await.unwrap(), [one, two]);
    assert_eq!(tx.items_only_needed_by(one).await.unwrap(), [own]);
    tx.finish_job(two, &aotfarm_store::Ending::default(), 9).await.unwrap();
    assert_eq!(tx.jobs_that_need(shared).await.unwrap(), [one]);
    let mut only = tx.items_only_needed_by(one).await.unwrap();
    only.sort();
    let mut expected = [shared, own];
    expected.sort();
    assert_eq!(only, expected);
}

pub(crate) async fn counts_tell_how_far_a_job_is(database: &impl Database) {
    let store = database.open().await;
    let mut tx = store.write().await.unwrap();
    let worker = add_worker(&mut *tx, 0x1f3a, "host").await;
    let (one, two) = (add_job(&mut *tx, 1).await, add_job(&mut *tx, 2).await);
    for n in 0..4 {
        add_item(&mut *tx, one, &build(n), 0).await;
    }
    add_item(&mut *tx, one, &profiling(1), 0).await;
    change(&mut *tx, build(0).id(), 0, lease(worker, 9)).await;
    change(&mut *tx, build(1).id(), 0, end(ItemState::Done)).await;
    change(&mut *tx, build(2).id(), 0, end(ItemState::Quarantined)).await;
    tx.link_item(two, build(1).id(), true).await.unwrap();
    let count = |total, done, cached, running| Count { total, done, cached, running };
    assert_eq!(
        tx.item_counts(one).await.unwrap(),
        [(WorkKind::Build, count(4, 2, 0, 1)), (WorkKind::Profile, count(1, 0, 0, 0))].into()
    );
    assert_eq!(tx.item_counts(two).await.unwrap(), [(WorkKind::Build, count(1, 1, 1, 0))].into());
    assert_eq!(tx.running_items(one).await.unwrap(), [("host-1f3a".to_owned(), "an item".to_owned())]);
    assert_eq!(tx.running_items(two).await.unwrap(), []);
}
