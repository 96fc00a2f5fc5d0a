//! Farms of several processes, of which some are killed.

use aotfarm_protocol::{ItemInfo, ItemState, JobState, WorkKind};

use crate::farm::{Farm, UNTUNED, wait_for};
use crate::{has_compiler, model};

/// Whether an item is a measurement that a worker has now.
fn is_being_measured(item: &ItemInfo) -> bool {
    item.kind == WorkKind::Measure && item.state == ItemState::Leased
}

#[test]
fn nothing_is_lost_or_repeated_when_workers_and_the_coordinator_are_killed() {
    if !has_compiler() {
        return;
    }
    let mut farm = Farm::new();
    let labels = ["one", "two", "three"];
    let mut workers: Vec<_> = labels.iter().map(|label| Some(farm.worker(label))).collect();
    let graph = farm.cli.write("tiny.graph", &model::tiny(1));
    let job = farm.submit(&[&graph, "--tune-at", "1,8", "--trials", "6", "--budget", "10s", "--threads=2"]);

    // Freeze whoever holds a Measure lease. A report that was on its way arrives within the two looks; then the next is waited for.
    let all_took_part = || farm.workers().iter().filter(|w| w.done > 0).count() == 3;
    wait_for("all three to have done something", || all_took_part().then_some(()));
    let (victim, item) = wait_for("a worker that measures", || {
        assert!(!farm.job(job).state.is_final(), "the job ended before anything was killed: {:#?}", farm.job(job));
        let leased = || farm.items(job).into_iter().find(is_being_measured);
        leased()?;
        // Measuring is exclusive on a host: the one that runs something is the one that measures.
        let running = farm.workers().into_iter().find(|w| w.running > 0)?;
        let victim = labels.iter().position(|l| running.capabilities.labels == [*l])?;
        let process = workers[victim].as_ref()?;
        process.signal("STOP");
        let (before, after) = (leased(), leased());
        let still_busy = farm.workers().into_iter().any(|w| w.id == running.id && w.running > 0);
        match (before, after) {
            (Some(a), Some(b)) if a.id == b.id && still_busy => Some((victim, a.id)),
            _ => {
                process.signal("CONT");
                None
            }
        }
    });
    workers[victim].take().unwrap().kill();

    // The coordinator goes too, in the middle of the job, and comes back on the same port and folder.
    farm.kill_coordinator();
    farm.start_coordinator();
    assert!(!farm.job(job).state.is_final(), "the job ended before the coordinator was killed");

    let ended = wait_for("the job to end", || Some(farm.job(job)).filter(|j| j.state.is_final()));
    assert_eq!(ended.state, JobState::Published, "{:#?}", ended.error);
    let items = farm.items(job);
    assert!(items.len() > 10, "{items:#?}");
    for item in &items {
        assert_eq!((item.state, item.completions), (ItemState::Done, 1), "{item:#?}");
    }
    let measured = items.iter().find(|i| i.id == item).expect("the item that was interrupted");
    assert!(measured.attempts >= 2, "it was not given out again: {measured:#?}");

    assert_eq!(farm.cli.history("tiny").len(), 1);
    let artifact = farm.cli.pull("tiny@v1", "out");
    let case = farm.cli.write("case.safetensors", &model::case(1, 7));
    farm.cli.run(&["run", &artifact, "--input", &case, "--check"]).ok();
}

#[test]
fn two_clients_at_once_get_one_version() {
    if !has_compiler() {
        return;
    }
    let farm = Farm::new();
    let _worker = farm.worker("only");
    let graph = farm.cli.write("tiny.graph", &model::tiny(1));
    let submit = [&["submit", graph.as_str()], &UNTUNED[..]].concat();
    let both = [farm.cli.start(&submit), farm.cli.start(&submit)];
    for done in both.map(crate::farm::Running::end) {
        assert!(done.stdout.starts_with("tiny@v1 "), "{done:#?}");
        done.ok();
    }
    let history = farm.cli.history("tiny");
    assert_eq!(history.iter().map(|e| e.version.version).collect::<Vec<_>>(), [1]);
}

#[test]
fn a_client_survives_a_restart_of_the_coordinator() {
    if !has_compiler() {
        return;
    }
    let mut farm = Farm::new();
    let worker = farm.worker("only");
    let graph = farm.cli.write("tiny.graph", &model::tiny(1));
    let client = farm.cli.start(&[&["submit", graph.as_str()], &UNTUNED[..]].concat());
    wait_for("something to be built", || (farm.workers()[0].done > 0).then_some(()));
    farm.kill_coordinator();
    farm.start_coordinator();
    let done = client.end();
    assert!(done.stdout.starts_with("tiny@v1 "), "{done:#?}");
    done.ok();
    drop(worker);
}
