//! A coordinator dies at any moment, and the next one goes on.

use std::sync::Arc;

use aotfarm_protocol::*;

use crate::farm::{ALL, Farm};

const GRAPH: &str = "specs=2 points=2 candidates=9 weights=a";

/// Restarts the coordinator after every single accepted result: the job still ends in one version, with every item done once.
#[tokio::test]
async fn a_job_survives_a_restart_after_every_result() {
    let dir = tempfile::tempdir().unwrap();
    let mut farm = Farm::new(&dir).await;
    let clock = Arc::clone(&farm.clock);
    let worker = farm.worker("a").await;
    let job = farm.submit("net", GRAPH).await.id;
    let mut restarts = 0;
    loop {
        let lease = farm
            .wait_for("a lease or the end", async |farm: &Farm| {
                let lease = worker.claim(farm, &ALL, 1).await.pop();
                if lease.is_some() || farm.status(job).await.state.is_final() { Some(lease) } else { None }
            })
            .await;
        let Some(lease) = lease else { break };
        // The lease was given by one coordinator and is reported to the next.
        drop(farm);
        clock.forward(1_000);
        farm = Farm::open(dir.path(), Arc::clone(&clock)).await;
        restarts += 1;
        worker.finish(&farm, &lease).await.unwrap();
    }
    let done = farm.status(job).await;
    assert_eq!(done.state, JobState::Published, "{:?}", done.error);
    assert_eq!(done.published.unwrap().version, 1);
    let items = farm.items(job).await;
    assert_eq!(restarts, items.len());
    assert!(items.iter().all(|i| i.state == ItemState::Done && i.completions == 1 && i.attempts == 1), "{items:#?}");
    assert_eq!(
        worker.counts(),
        [(WorkKind::Build, 6), (WorkKind::Measure, 4), (WorkKind::Link, 4), (WorkKind::ModelRace, 1), (WorkKind::Profile, 1)]
            .into()
    );
}

#[tokio::test]
async fn nobody_is_judged_right_after_a_start() {
    let dir = tempfile::tempdir().unwrap();
    let farm = Farm::new(&dir).await;
    let clock = Arc::clone(&farm.clock);
    let worker = farm.worker("a").await;
    let job = farm.submit("net", GRAPH).await.id;
    let lease = worker.take(&farm, &ALL, 1).await.remove(0);
    farm.coordinator.close().await;
    // The lease ran out while nobody could renew it.
    clock.forward(60_000);
    let farm = Farm::open(dir.path(), Arc::clone(&clock)).await;
    farm.coordinator.judge_now().await.unwrap();
    assert_eq!(farm.get::<Vec<WorkerInfo>>("/v1/workers").await[0].state, WorkerState::Unknown);
    assert!(worker.heartbeat(&farm, &[&lease]).await.lost.is_empty());
    assert_eq!(farm.get::<Vec<WorkerInfo>>("/v1/workers").await[0].state, WorkerState::Alive);
    worker.finish(&farm, &lease).await.unwrap();
    assert_eq!(worker.work(&farm, job).await.state, JobState::Published);
}

/// A coordinator of another compiler does not go on with the plan of the one before: it says so, and asks only for what the new plan
/// needs besides.
#[tokio::test]
async fn another_compiler_plans_a_job_anew_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let farm = Farm::new(&dir).await;
    let clock = Arc::clone(&farm.clock);
    let worker = farm.worker("a").await;
    let job = farm.submit("net", GRAPH).await.id;
    let lease = worker.take(&farm, &ALL, 1).await.remove(0);
    farm.coordinator.close().await;
    let farm = Farm::open_with_compiler(dir.path(), Arc::clone(&clock), "fake-2").await;
    worker.finish(&farm, &lease).await.unwrap();
    assert_eq!(worker.work(&farm, job).await.state, JobState::Published);
    let said = |event: &JobEvent| matches!(event, JobEvent::Note { message } if message == "planned anew by compiler fake-2: fake-1 began it");
    assert_eq!(farm.log(job).await.iter().filter(|event| said(event)).count(), 1);
    // The same request now is the same work for this compiler, and was done.
    let again = farm.submit("net", GRAPH).await;
    assert_eq!(again.state, JobState::Published);
    assert!(farm.items(job).await.iter().all(|item| item.completions == 1));
}
