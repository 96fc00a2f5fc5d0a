//! Jobs from submission to their end.

use aotfarm_protocol::*;

use crate::farm::{FakeWorker, Farm};

const GRAPH: &str = "specs=2 points=2 candidates=9 weights=a";

fn count(worker: &FakeWorker, kind: WorkKind) -> usize {
    worker.counts().get(&kind).copied().unwrap_or(0)
}

fn states(log: &[JobEvent]) -> String {
    let states = log.iter().filter_map(|e| match e {
        JobEvent::State { state } => Some(state.to_string()),
        _ => None,
    });
    states.collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn a_job_is_published_with_every_item_done_once() {
    let dir = tempfile::tempdir().unwrap();
    let farm = Farm::new(&dir).await;
    let worker = farm.worker("a").await;
    let job = farm.submit("net", GRAPH).await;
    assert_eq!(job.state, JobState::Queued);
    let done = worker.work(&farm, job.id).await;
    let published = done.published.unwrap();
    assert_eq!((done.state, published.version, published.existed), (JobState::Published, 1, false));
    assert_eq!(published.profiles.len(), 1);

    let log = farm.log(job.id).await;
    assert_eq!(states(&log), "queued planning tuning linking profiling published");
    // Three families share three units per spec; one race per spec and point.
    assert_eq!(
        worker.counts(),
        [(WorkKind::Build, 6), (WorkKind::Measure, 4), (WorkKind::Link, 4), (WorkKind::ModelRace, 1), (WorkKind::Profile, 1)]
            .into()
    );
    let items = farm.items(job.id).await;
    assert_eq!(items.len(), 16);
    assert!(items.iter().all(|i| i.state == ItemState::Done && i.completions == 1 && i.attempts == 1), "{items:#?}");
    // At the larger size the best six race again; the units of the others are represented by them.
    let tables = log.iter().filter_map(|e| match e {
        JobEvent::Tuned { table } => Some((table.title.as_str(), table.considered, table.measured, table.workers)),
        _ => None,
    });
    let mut tables = tables.collect::<Vec<_>>();
    tables.sort();
    assert_eq!(tables, [("op0(n=1)", 9, 9, 1), ("op0(n=2)", 6, 6, 1), ("op1(n=1)", 9, 9, 1), ("op1(n=2)", 6, 6, 1)]);
    assert!(log.iter().any(|e| matches!(e, JobEvent::Planned { tasks: 4, known: 0, candidates: 18, units: 6 })), "{log:#?}");
    assert!(log.iter().any(|e| matches!(e, JobEvent::Progress { .. })));
}

#[tokio::test]
async fn the_submitters_samples_are_what_artifacts_are_checked_with_and_are_published() {
    let dir = tempfile::tempdir().unwrap();
    let farm = Farm::new(&dir).await;
    let submit = async |samples: Digest| {
        let request = JobRequest { samples: Some(samples), ..farm.request("net", GRAPH).await };
        farm.call::<JobStatus>("POST", "/v1/jobs", &request).await
    };
    let absent = submit(Digest::of("never uploaded")).await.unwrap_err();
    assert!(absent.code == ErrorCode::NotFound && absent.message.starts_with("samples sha256:"), "{absent}");
    // Nobody works for this farm yet, and the job fails all the same.
    let bad = farm.coordinator.blobs().put("do not fit".to_owned().into()).await.unwrap();
    let job = submit(bad).await.unwrap();
    let failed = farm.wait_for_state(job.id, JobState::Failed).await;
    assert_eq!(failed.error.unwrap().message, "the samples do not fit");

    let worker = farm.worker("a").await;
    let good = farm.coordinator.blobs().put("mine".to_owned().into()).await.unwrap();
    let job = submit(good).await.unwrap();
    let published = worker.work(&farm, job.id).await.published.unwrap();
    assert!(!published.existed);
    let version: VersionInfo = farm.get("/v1/resolve?ref=net").await;
    let manifest = farm.coordinator.blobs().get(version.variants[0].manifest).await.unwrap();
    let manifest: Manifest = serde_json::from_slice(&manifest).unwrap();
    let layer = manifest.layers.iter().find(|layer| layer.media_type == SAMPLES_TYPE).unwrap();
    assert_eq!(layer.annotations[SAMPLES_ANNOTATION], "submitted");
    assert!(farm.coordinator.blobs().get(layer.digest).await.unwrap().starts_with(b"mine of sha256:"));
}

#[tokio::test]
async fn a_task_that_is_new_begins_with_what_is_fast_in_those_like_it() {
    let dir = tempfile::tempdir().unwrap();
    let farm = Farm::new(&dir).await;
    let worker = farm.worker("a").await;
    let considered = async |text: &str, title: &str| {
        farm.clock.forward(2_000);
        let job = farm.submit("net", text).await;
        worker.work(&farm, job.id).await;
        let log = farm.log(job.id).await;
        let tables = log.iter().filter_map(|e| if let JobEvent::Tuned { table } = e { Some(table) } else { None });
        let of = tables.filter(|table| table.title == title).map(|table| table.considered).collect::<Vec<_>>();
        of[0]
    };
    assert_eq!(considered("specs=1 points=1 candidates=31 weights=a", "op0(n=1)").await, 31);
    // The last of the race is the slow family's: one of each unit, then the rest of the fast one's
    // 16.
    assert_eq!(considered("specs=2 points=1 candidates=31 weights=a", "op1(n=1)").await, 17);
}

#[tokio::test]
async fn the_same_request_is_answered_without_work() {
    let dir = tempfile::tempdir().unwrap();
    let farm = Farm::new(&dir).await;
    let worker = farm.worker("a").await;
    let first = farm.submit("net", GRAPH).await;
    let first = worker.work(&farm, first.id).await.published.unwrap();
    let again = farm.submit("net", GRAPH).await;
    assert_eq!(again.state, JobState::Published);
    let published = again.published.unwrap();
    assert_eq!((published.version, published.existed, published.index), (1, true, first.index));
    assert!(again.items.is_empty());
}

#[tokio::test]
async fn other_weights_need_neither_build_nor_measure() {
    let dir = tempfile::tempdir().unwrap();
    let farm = Farm::new(&dir).await;
    let worker = farm.worker("a").await;
    let first = farm.submit("net", GRAPH).await;
    worker.work(&farm, first.id).await;
    let before = worker.counts();
    let second = farm.submit("net", &GRAPH.replace("weights=a", "weights=b")).await;
    let done = worker.work(&farm, second.id).await;
    assert_eq!(done.published.as_ref().map(|p| (p.version, p.existed, p.previous.len())), Some((2, false, 1)));
    assert_eq!(count(&worker, WorkKind::Build), before[&WorkKind::Build]);
    assert_eq!(count(&worker, WorkKind::Measure), before[&WorkKind::Measure]);
    // The configurations have no weights of their own: what was raced in the model holds as well.
    assert_eq!(count(&worker, WorkKind::ModelRace), 1);
    assert_eq!(count(&worker, WorkKind::Link), before[&WorkKind::Link] + 1);
    // Only the objects of the winners and their rivals are asked for, and they are there.
    let builds = done.items[&WorkKind::Build];
    assert_eq!((builds.total, builds.cached), (2, 2));
}

#[tokio::test]
async fn a_lost_artifact_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let farm = Farm::new(&dir).await;
    let worker = farm.worker("a").await;
    let first = farm.submit("net", GRAPH).await;
    let first = worker.work(&farm, first.id).await.published.unwrap();
    let blobs = farm.coordinator.blobs();
    let stored = blobs.list().await.unwrap().into_iter().map(|(digest, _)| digest);
    let others = stored.filter(|digest| *digest != first.variants[0].1).collect();
    assert_eq!(blobs.sweep(others, std::time::Duration::ZERO).await.unwrap().0, 1);
    let again = farm.submit("net", GRAPH).await;
    assert_eq!(again.state, JobState::Queued);
    let again = worker.work(&farm, again.id).await.published.unwrap();
    assert_eq!((again.version, again.existed), (1, true));
    assert!(farm.coordinator.blobs().contains(first.variants[0].1).await.unwrap());
}

#[tokio::test]
async fn two_clients_at_once_get_one_version() {
    let dir = tempfile::tempdir().unwrap();
    let farm = Farm::new(&dir).await;
    let worker = farm.worker("a").await;
    let request = farm.request("net", GRAPH).await;
    let post = || farm.call::<JobStatus>("POST", "/v1/jobs", &request);
    let (one, two) = tokio::join!(post(), post());
    let (one, two) = (one.unwrap(), two.unwrap());
    let (one, two) = (worker.work(&farm, one.id).await, worker.work(&farm, two.id).await);
    let (one_published, two_published) = (one.published.unwrap(), two.published.unwrap());
    assert_eq!((one_published.version, two_published.version), (1, 1));
    assert!(one_published.existed != two_published.existed, "one made it, the other found it");
    assert_eq!((worker.counts()[&WorkKind::Link], worker.counts()[&WorkKind::ModelRace]), (4, 1));
    let models: Vec<ModelInfo> = farm.get("/v1/models").await;
    assert_eq!(models.iter().map(|m| m.versions).collect::<Vec<_>>(), [1]);
    // Both watchers saw the tuning.
    for job in [one.id, two.id] {
        assert!(farm.log(job).await.iter().any(|e| matches!(e, JobEvent::Tuned { .. })));
    }
}

#[tokio::test]
async fn a_job_that_waits_for_an_equal_one_does_the_work_when_that_is_cancelled() {
    let dir = tempfile::tempdir().unwrap();
    let farm = Farm::new(&dir).await;
    let worker = farm.worker("a").await;
    let first = farm.submit("net", GRAPH).await;
    farm.wait_for_state(first.id, JobState::Tuning).await;
    let second = farm.submit("net", GRAPH).await;
    farm.wait_for("the note that it follows", async |farm: &Farm| {
        farm.log(second.id).await.iter().any(|e| matches!(e, JobEvent::Note { .. })).then_some(())
    })
    .await;
    farm.call::<JobStatus>("POST", &format!("/v1/jobs/{}/cancel", first.id), &()).await.unwrap();
    let done = worker.work(&farm, second.id).await;
    assert_eq!((done.state, done.published.unwrap().existed), (JobState::Published, false));
}

#[tokio::test]
async fn cancelling_drops_the_items_that_no_other_job_needs() {
    let dir = tempfile::tempdir().unwrap();
    let farm = Farm::new(&dir).await;
    let worker = farm.worker("a").await;
    let doomed = farm.submit("net", "specs=2 points=1 candidates=9 weights=a").await;
    farm.wait_for_state(doomed.id, JobState::Tuning).await;
    // The other model shares the first spec.
    let other = farm.submit("other", "specs=1 points=1 candidates=9 weights=b").await;
    farm.wait_for("all items", async |farm: &Farm| {
        (farm.items(other.id).await.len() == 3 && farm.items(doomed.id).await.len() == 6).then_some(())
    })
    .await;
    let leases = worker.take(&farm, &[WorkKind::Build], 6).await;
    assert_eq!(leases.len(), 6);

    let cancelled: JobStatus = farm.call("POST", &format!("/v1/jobs/{}/cancel", doomed.id), &()).await.unwrap();
    assert_eq!(cancelled.state, JobState::Cancelled);
    let lost = worker.heartbeat(&farm, &leases.iter().collect::<Vec<_>>()).await.lost;
    let needed: Vec<WorkItemId> = farm.items(other.id).await.iter().map(|i| i.id).collect();
    assert_eq!(lost.len(), 3);
    assert!(lost.iter().all(|key| !needed.contains(key)));
    for lease in &leases {
        let error = worker.finish(&farm, lease).await.err().map(|e| e.code);
        assert_eq!(error, lost.contains(&lease.item).then_some(ErrorCode::LeaseLost));
    }
    assert_eq!(worker.work(&farm, other.id).await.state, JobState::Published);
    let refused = farm.call::<JobStatus>("POST", &format!("/v1/jobs/{}/cancel", other.id), &()).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Conflict);
    assert_eq!(states(&farm.log(doomed.id).await), "queued planning tuning cancelled");
}

#[tokio::test]
async fn a_rejected_artifact_fails_the_job_with_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let farm = Farm::new(&dir).await;
    let worker = farm.worker("a").await;
    let job = farm.submit("net", GRAPH).await;
    let done = farm
        .wait_for("the end", async |farm: &Farm| {
            for lease in worker.claim(farm, &crate::farm::ALL, 4).await {
                match lease.spec.kind() {
                    WorkKind::Profile => {
                        let reason = "relative error 0.5".to_owned();
                        worker.report(farm, &lease, Ok(WorkResult::Rejected { reason })).await.unwrap();
                    }
                    _ => worker.finish(farm, &lease).await.unwrap(),
                }
            }
            Some(farm.status(job.id).await).filter(|s| s.state.is_final())
        })
        .await;
    assert_eq!(done.state, JobState::Failed);
    let error = done.error.unwrap();
    assert!(error.message.contains("relative error 0.5"), "{error}");
    assert!(farm.get::<Vec<ModelInfo>>("/v1/models").await.is_empty());
}

#[tokio::test]
async fn candidates_that_do_not_compile_cost_only_themselves() {
    let dir = tempfile::tempdir().unwrap();
    let farm = Farm::new(&dir).await;
    let worker = farm.worker("a").await;
    let job = farm.submit("net", "specs=1 points=1 candidates=9 weights=a").await;
    let slow = Digest::of("source of slow@1 for spec 0");
    let done = farm
        .wait_for("the end", async |farm: &Farm| {
            for lease in worker.claim(farm, &crate::farm::ALL, 4).await {
                match &lease.spec {
                    WorkSpec::Build(build) if build.source == slow => {
                        let log = "error: no".to_owned();
                        worker.report(farm, &lease, Ok(WorkResult::BuildFailed { log })).await.unwrap();
                    }
                    _ => worker.finish(farm, &lease).await.unwrap(),
                }
            }
            Some(farm.status(job.id).await).filter(|s| s.state.is_final())
        })
        .await;
    assert_eq!(done.state, JobState::Published, "{:?}", done.error);
    let measured = farm.log(job.id).await.into_iter().find_map(|e| match e {
        JobEvent::Tuned { table } => Some((table.considered, table.measured)),
        _ => None,
    });
    // Of nine, three are of the family that does not compile.
    assert_eq!(measured, Some((9, 6)));
}

#[tokio::test]
async fn a_job_with_less_than_half_measured_fails() {
    let dir = tempfile::tempdir().unwrap();
    let farm = Farm::new(&dir).await;
    let worker = farm.worker("a").await;
    let job = farm.submit("net", "specs=1 points=1 candidates=9 weights=a").await;
    let done = farm
        .wait_for("the end", async |farm: &Farm| {
            for lease in worker.claim(farm, &crate::farm::ALL, 4).await {
                let WorkSpec::Measure { spec, .. } = &lease.spec else {
                    worker.finish(farm, &lease).await.unwrap();
                    continue;
                };
                let crashed = |c: &KernelCall| (c.candidate, Outcome::Crashed { reason: "signal 11".to_owned() });
                let outcomes = spec.candidates.iter().map(crashed).collect();
                worker.report(farm, &lease, Ok(WorkResult::Measured { outcomes })).await.unwrap();
            }
            Some(farm.status(job.id).await).filter(|s| s.state.is_final())
        })
        .await;
    let error = done.error.unwrap();
    assert!(error.message.contains("only 0 of 9") && error.message.contains("9 crashed"), "{error}");
}

#[tokio::test]
async fn a_bad_graph_fails_its_job() {
    let dir = tempfile::tempdir().unwrap();
    let farm = Farm::new(&dir).await;
    let job = farm.submit("net", "nonsense").await;
    let failed = farm.wait_for_state(job.id, JobState::Failed).await;
    assert_eq!(failed.error.unwrap(), ApiError::new(ErrorCode::BadRequest, "no specs"));
}

#[tokio::test]
async fn a_missing_capability_is_named_and_in_the_end_fatal() {
    let dir = tempfile::tempdir().unwrap();
    let farm = Farm::new(&dir).await;
    let job = farm.submit("net", GRAPH).await;
    farm.wait_for_state(job.id, JobState::Planning).await;
    let noted = farm
        .wait_for("the note", async |farm: &Farm| {
            farm.clock.forward(1_000);
            farm.log(job.id).await.into_iter().find_map(|e| match e {
                JobEvent::Note { message } => Some(message),
                _ => None,
            })
        })
        .await;
    assert_eq!(noted, "waiting: no connected worker has a compiler for cpu-x86_64-v3");
    farm.clock.forward(200_000);
    let failed = farm.wait_for_state(job.id, JobState::Failed).await;
    assert_eq!(failed.error.unwrap().code, ErrorCode::NoCapableWorker);
}

#[tokio::test]
async fn who_is_the_fastest_in_the_model_wins() {
    let dir = tempfile::tempdir().unwrap();
    let farm = Farm::new(&dir).await;
    let worker = farm.worker("a").await;
    let job = farm.submit("net", GRAPH).await.id;
    let done = worker.work(&farm, job).await;
    assert_eq!(done.state, JobState::Published, "{:?}", done.error);
    let notes = farm.log(job).await.into_iter().filter_map(|e| match e {
        JobEvent::Note { message } => Some(message),
        _ => None,
    });
    let notes: Vec<String> = notes.collect();
    // The races were won by the first; each configuration is a tenth faster in the model than the
    // one before. Only n=1 is timed.
    assert!(notes.iter().any(|n| n == "raced in the model: 2 of 4 kernels gave way to a rival"), "{notes:#?}");
    let change = "op0(n=1): fast@1 n4 takes 0.800 ms where fast@1 n1 takes 1.000";
    assert!(notes.iter().any(|n| n == change), "{notes:#?}");
    let items = farm.items(job).await;
    assert_eq!(items.iter().filter(|i| i.kind == WorkKind::Link).count(), 4, "three configurations and the artifact");
}

#[tokio::test]
async fn steps_are_done_for_a_few_images_at_a_time_where_that_was_faster() {
    let dir = tempfile::tempdir().unwrap();
    let farm = Farm::new(&dir).await;
    let worker = farm.worker("a").await;
    for word in ["faster", "slower"] {
        let job = farm.submit(word, &format!("{GRAPH} segments={word}")).await.id;
        let done = worker.work(&farm, job).await;
        assert_eq!(done.state, JobState::Published, "{:?}", done.error);
        let races = farm.items(job).await.iter().filter(|i| i.kind == WorkKind::ModelRace).count();
        assert_eq!(races, 2, "the segments were timed beside whole batches");
        let notes = farm.log(job).await.into_iter().filter_map(|e| match e {
            JobEvent::Note { message } if message.starts_with("in segments") => Some(message),
            _ => None,
        });
        // The second of the configurations takes a tenth less in this farm, whatever it is.
        let expected = [
            "in segments (steps 1 to 2 by 1) runs take 37.0 % less: they stay",
            "in segments (steps 1 to 2 by 1) runs take 8.0 % more: all steps are done for the whole batch",
        ];
        assert_eq!(notes.collect::<Vec<_>>(), [expected[usize::from(word == "slower")]]);
        let (_, artifact, _) = done.published.unwrap().variants[0];
        let artifact = String::from_utf8(farm.coordinator.blobs().get(artifact).await.unwrap().to_vec()).unwrap();
        assert_eq!(artifact.contains("0..2 by 1"), word == "faster", "{artifact}");
    }
}
