//! Leases: exclusiveness, expiry, fencing, quarantine, draining.

use aotfarm_protocol::*;

use crate::farm::{ALL, Farm};

const GRAPH: &str = "specs=1 points=1 candidates=3 weights=a";

#[tokio::test]
async fn an_expired_lease_goes_to_another_and_the_late_report_is_fenced_off() {
    let dir = tempfile::tempdir().unwrap();
    let farm = Farm::new(&dir).await;
    let (slow, quick) = (farm.worker("a").await, farm.worker("b").await);
    let job = farm.submit("net", GRAPH).await;
    let lease = slow.take(&farm, &ALL, 1).await.remove(0);
    assert_eq!(lease.generation, 1);

    // A heartbeat keeps it; silence loses it.
    farm.clock.forward(10_000);
    assert!(slow.heartbeat(&farm, &[&lease]).await.lost.is_empty());
    farm.clock.forward(10_000);
    farm.coordinator.judge_now().await.unwrap();
    assert_eq!(slow.heartbeat(&farm, &[&lease]).await.lost, []);
    farm.clock.forward(20_000);
    farm.coordinator.judge_now().await.unwrap();
    assert_eq!(slow.heartbeat(&farm, &[&lease]).await.lost, [lease.item]);

    let done = quick.work(&farm, job.id).await;
    assert_eq!(done.state, JobState::Published);
    assert_eq!(slow.finish(&farm, &lease).await.unwrap_err().code, ErrorCode::LeaseLost);
    let item = farm.items(job.id).await.into_iter().find(|i| i.id == lease.item).unwrap();
    assert_eq!((item.attempts, item.completions, item.log.len()), (2, 1, 1));
}

#[tokio::test]
async fn an_accepted_report_may_be_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let farm = Farm::new(&dir).await;
    let worker = farm.worker("a").await;
    let job = farm.submit("net", GRAPH).await;
    let lease = worker.take(&farm, &ALL, 1).await.remove(0);
    worker.finish(&farm, &lease).await.unwrap();
    worker.finish(&farm, &lease).await.unwrap();
    let item = farm.items(job.id).await.into_iter().find(|i| i.id == lease.item).unwrap();
    assert_eq!(item.completions, 1);
}

#[tokio::test]
async fn a_worker_that_leaves_gives_back_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let farm = Farm::new(&dir).await;
    let (one, two) = (farm.worker("a").await, farm.worker("b").await);
    farm.submit("net", GRAPH).await;
    let lease = one.take(&farm, &ALL, 1).await.remove(0);
    farm.call::<()>("DELETE", &format!("/v1/workers/{}", one.id), &()).await.unwrap();
    let again = two.take(&farm, &ALL, 8).await.into_iter().find(|l| l.item == lease.item).unwrap();
    assert_eq!(again.generation, 2);
    let request = ClaimRequest { kinds: ALL.to_vec(), max: 1, wait_ms: 0 };
    let gone = farm.call::<ClaimResponse>("POST", &format!("/v1/workers/{}/claim", one.id), &request).await;
    assert_eq!(gone.unwrap_err().code, ErrorCode::NotFound);
}

#[tokio::test]
async fn three_failures_quarantine_an_item_and_a_failing_worker_is_drained() {
    let dir = tempfile::tempdir().unwrap();
    let farm = Farm::new(&dir).await;
    let worker = farm.worker("a").await;
    let job = farm.submit("net", GRAPH).await;
    let mut failures = 0;
    // Everything but builds fails: the measurement is given up, and with nothing measured the job fails.
    let done = farm
        .wait_for("the end", async |farm: &Farm| {
            for lease in worker.claim(farm, &ALL, 4).await {
                if lease.spec.kind() == WorkKind::Build {
                    worker.finish(farm, &lease).await.unwrap();
                } else {
                    worker.report(farm, &lease, Err("disk full".to_owned())).await.unwrap();
                    failures += 1;
                }
            }
            Some(farm.status(job.id).await).filter(|s| s.state.is_final())
        })
        .await;
    assert_eq!(failures, 3);
    assert!(done.error.unwrap().message.contains("3 were given up"), "the fate of the candidates is told");
    let measure = farm.items(job.id).await.into_iter().find(|i| i.kind == WorkKind::Measure).unwrap();
    assert_eq!((measure.state, measure.log.len()), (ItemState::Quarantined, 3));
    assert!(measure.log[0].ends_with("disk full"), "{:?}", measure.log);

    // One more failure in a row drains the worker; a new submission forgives the item, but this worker gets nothing.
    let again = farm.submit("net", GRAPH).await;
    let lease = worker.take(&farm, &[WorkKind::Measure], 1).await.remove(0);
    worker.report(&farm, &lease, Err("disk full".to_owned())).await.unwrap();
    assert!(worker.heartbeat(&farm, &[]).await.drain);
    assert!(worker.claim(&farm, &ALL, 1).await.is_empty());
    let healthy = farm.worker("b").await;
    assert_eq!(healthy.work(&farm, again.id).await.state, JobState::Published);
    let workers: Vec<WorkerInfo> = farm.get("/v1/workers").await;
    assert_eq!(
        workers.iter().map(|w| (w.state, w.failed)).collect::<Vec<_>>(),
        [(WorkerState::Draining, 4), (WorkerState::Alive, 0)]
    );
}

#[tokio::test]
async fn measuring_has_its_host_for_itself() {
    let dir = tempfile::tempdir().unwrap();
    let farm = Farm::new(&dir).await;
    let (one, two, elsewhere) = (farm.worker("a").await, farm.worker("a").await, farm.worker("b").await);
    farm.submit("net", GRAPH).await;
    for lease in one.take(&farm, &[WorkKind::Build], 8).await {
        one.finish(&farm, &lease).await.unwrap();
    }
    let measure = one.take(&farm, &ALL, 4).await;
    assert_eq!(measure.iter().map(|l| l.spec.kind()).collect::<Vec<_>>(), [WorkKind::Measure]);
    farm.submit("other", "specs=2 points=1 candidates=3 weights=b").await;
    // There are builds now, but not for this host.
    let builds = elsewhere.take(&farm, &[WorkKind::Build], 1).await;
    assert!(two.claim(&farm, &ALL, 4).await.is_empty());
    one.finish(&farm, &measure[0]).await.unwrap();
    assert!(!two.take(&farm, &ALL, 4).await.is_empty());
    elsewhere.finish(&farm, &builds[0]).await.unwrap();
}

#[tokio::test]
async fn results_that_cannot_be_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let farm = Farm::new(&dir).await;
    let worker = farm.worker("a").await;
    farm.submit("net", GRAPH).await;
    let lease = worker.take(&farm, &[WorkKind::Build], 1).await.remove(0);
    let code = async |result| worker.report(&farm, &lease, Ok(result)).await.unwrap_err().code;
    assert_eq!(code(WorkResult::Measured { outcomes: vec![] }).await, ErrorCode::BadRequest);
    assert_eq!(code(WorkResult::Built { object: Digest::of("not uploaded") }).await, ErrorCode::BadRequest);
    worker.finish(&farm, &lease).await.unwrap();
}
