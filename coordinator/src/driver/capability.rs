//! Which toolchain and device a job uses, and what to say when no worker has what it needs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use aotfarm_protocol::{ApiError, Device, DeviceKind, Digest, ErrorCode, Target, Toolchain, WorkerState};
use aotfarm_store::{Pin, Pins, QueuedItem, WorkerRow};

use super::attempt::{Attempt, Drive, LOOK, Stop};
use crate::assign::suits;
use crate::planner::Blueprint;

/// How long something may be missing before the job's log says so: workers may be starting at this
/// moment.
const QUIET_MS: i64 = 3_000;

/// What a job misses and since when.
#[derive(Debug, Default)]
pub(super) struct Missing(BTreeMap<String, i64>);

impl Missing {
    /// For how long something has been missing, in milliseconds.
    fn for_ms(&self, what: &str, now: i64) -> i64 {
        self.0.get(what).map_or(0, |since| now - since)
    }
}

/// The choices of the job for each target: those stored, else those of the workers that are
/// connected now, waiting for some.
pub(super) async fn pin(attempt: &Attempt, blueprint: &Arc<dyn Blueprint>) -> Drive<Pins> {
    let targets: Vec<Target> = blueprint.variants().iter().map(|v| v.target).collect();
    let mut missing = Missing::default();
    let mut pins = attempt.job.pins.clone();
    loop {
        let mut listener = attempt.core.signals.progress.listen();
        let workers = live_workers(attempt).await?;
        let alive: Vec<_> = workers.iter().filter(|w| attempt.core.judge(w) == WorkerState::Alive).cloned().collect();
        let mut lacking = BTreeSet::new();
        for target in &targets {
            if pins.contains_key(target) {
                continue;
            }
            // Who has not been heard of since the coordinator started may have left before it, with
            // a compiler that nobody has any more.
            let heard = choose(*target, &alive).ok().filter(|pin| pin.device.is_some());
            match heard.map_or_else(|| choose(*target, &workers), Ok) {
                Ok(pin) if pin.device.is_some() => drop(pins.insert(*target, pin)),
                Ok(pin) => {
                    let what = format!("a device that runs {target}");
                    if is_foreign(*target, &workers) && missing.for_ms(&what, attempt.core.now()) >= QUIET_MS {
                        attempt.note(format!("no connected worker has {what}: its kernels are not measured")).await?;
                        pins.insert(*target, pin);
                    } else {
                        lacking.insert(what);
                    }
                }
                Err(lack) => drop(lacking.insert(lack)),
            }
        }
        if lacking.is_empty() {
            let mut tx = attempt.core.store.write().await?;
            tx.set_pins(attempt.id, &pins).await?;
            tx.commit().await?;
            return Ok(pins);
        }
        tell_missing(attempt, &mut missing, lacking).await?;
        attempt.expect(aotfarm_protocol::JobState::Planning).await?;
        listener.wait(LOOK).await;
    }
}

async fn live_workers(attempt: &Attempt) -> Drive<Vec<WorkerRow>> {
    let mut snapshot = attempt.core.store.read().await?;
    let mut present = snapshot.present_workers().await?;
    present.retain(|w| matches!(attempt.core.judge(w), WorkerState::Alive | WorkerState::Unknown));
    Ok(present)
}

/// Looks whether every queued item of the job suits some worker.
pub(super) async fn check_capability(attempt: &Attempt, missing: &mut Missing, pins: &Pins) -> Drive<()> {
    let queued: Vec<QueuedItem> = {
        let mut snapshot = attempt.core.store.read().await?;
        snapshot.queued_items().await?.into_iter().filter(|i| i.jobs.contains(&attempt.id)).collect()
    };
    let workers = live_workers(attempt).await?;
    let is_possible = |item: &QueuedItem| workers.iter().any(|w| suits(item, &w.capabilities.toolchains, w.device()));
    let lacking = queued.iter().filter(|i| !is_possible(i)).map(|i| needs(i, pins)).collect();
    tell_missing(attempt, missing, lacking).await
}

/// Notes what has been missing for a while, and fails the job when it stays so.
async fn tell_missing(attempt: &Attempt, missing: &mut Missing, lacking: BTreeSet<String>) -> Drive<()> {
    let now = attempt.core.now();
    missing.0.retain(|what, _| lacking.contains(what));
    for what in lacking {
        let since = *missing.0.entry(what.clone()).or_insert(now);
        if now - since >= attempt.core.config.capability_wait_ms {
            let message = format!("no connected worker has {what}");
            return Err(Stop::Fail(
                ApiError::new(ErrorCode::NoCapableWorker, message).hint("start a worker that has it, and submit again"),
            ));
        }
        if now - since >= QUIET_MS {
            attempt.note(format!("waiting: no connected worker has {what}")).await?;
        }
    }
    Ok(())
}

/// What an item needs, in words.
fn needs(item: &QueuedItem, pins: &Pins) -> String {
    match (&item.toolchain, item.device) {
        (Some((id, target)), _) => format!("the compiler {id} for {target}"),
        (None, Some(fingerprint)) => {
            let device = pins.values().filter_map(|p| p.device.as_ref()).find(|d| d.fingerprint() == fingerprint);
            device
                .map_or_else(|| format!("the device {fingerprint}"), |d| format!("the device {} with {} cores", d.name, d.cores))
        }
        (None, None) => "room for it".to_owned(),
    }
}

/// Whether a target that no connected worker runs is one that none is expected to run: a GPU, which
/// farms often lack, or a CPU that is unlike those that they have. Otherwise the worker that
/// measures is yet to come: those that build only are there, or it starts anew.
fn is_foreign(target: Target, workers: &[WorkerRow]) -> bool {
    let Some(architecture) = target.architecture() else { return true };
    let measures = |w: &WorkerRow| w.capabilities.device.as_ref().is_some_and(|d| d.kind == DeviceKind::Cpu);
    // Workers name the compiler of their own CPU first.
    let is_alike = |w: &WorkerRow| {
        w.capabilities.toolchains.first().is_some_and(|own| own.targets.iter().any(|t| t.architecture() == Some(architecture)))
    };
    workers.iter().any(measures) || !workers.iter().any(is_alike)
}

/// The compilers with the most build slots and the device that most workers hold; among equals the
/// one with the larger name or fingerprint, so that the choice does not depend on who registered
/// first.
fn choose(target: Target, workers: &[WorkerRow]) -> Result<Pin, String> {
    let mut devices: BTreeMap<Digest, (u32, &Device)> = BTreeMap::new();
    for device in workers.iter().filter_map(|w| w.capabilities.device.as_ref()).filter(|d| d.runs(target)) {
        devices.entry(device.fingerprint()).or_insert((0, device)).0 += 1;
    }
    let device = devices.into_iter().max_by_key(|(id, (n, d))| (*n, d.cores, *id)).map(|(_, (_, device))| device.clone());
    let builds = |t: &&Toolchain| t.targets.contains(&target);
    let toolchain = most_slots(workers, |all| all.iter().filter(builds).collect());
    let toolchain = toolchain.ok_or_else(|| format!("a compiler for {target}"))?;
    let linker = match target {
        Target::Cpu(_) => toolchain.clone(),
        Target::Cuda { .. } => {
            // Of each worker that of its own CPU, which it names first: a cross compiler does not
            // link for the host.
            let native = |t: &&Toolchain| t.targets.iter().any(|t| matches!(t, Target::Cpu(_)));
            let links = most_slots(workers, |all| all.iter().find(native).into_iter().collect());
            links.ok_or_else(|| format!("a C compiler, which links the artifacts for {target}"))?
        }
    };
    Ok(Pin { toolchain, linker, device })
}

/// The compiler with the most build slots, of those that `of` takes from each worker's.
fn most_slots(workers: &[WorkerRow], of: impl Fn(&[Toolchain]) -> Vec<&Toolchain>) -> Option<String> {
    let mut slots: BTreeMap<&str, u32> = BTreeMap::new();
    for worker in workers {
        for toolchain in of(&worker.capabilities.toolchains) {
            *slots.entry(&toolchain.id).or_default() += worker.capabilities.slots.max(1);
        }
    }
    slots.into_iter().max_by_key(|(id, slots)| (*slots, *id)).map(|(id, _)| id.to_owned())
}

#[cfg(test)]
mod tests {
    use aotfarm_protocol::{Capabilities, CpuIsa, WorkerId};

    use super::*;

    fn toolchain(id: &str, target: Target) -> Toolchain {
        Toolchain { id: id.to_owned(), targets: vec![target] }
    }

    fn worker(toolchains: Vec<Toolchain>, device: Option<Device>) -> WorkerRow {
        WorkerRow {
            id: WorkerId(uuid::Uuid::nil()),
            capabilities: Capabilities {
                host: "host".to_owned(),
                version: String::new(),
                slots: 2,
                toolchains,
                device,
                labels: Vec::new(),
            },
            seen_at: 0,
            draining: false,
            gone_at: None,
            done: 0,
            failed: 0,
        }
    }

    #[test]
    fn only_what_some_worker_could_be_expected_to_measure_is_waited_for() {
        let [v3, v4, arm] = Target::CPUS;
        let builds = || vec![toolchain("gcc-13", v3), toolchain("gcc-14", arm)];
        let builder = worker(builds(), None);
        let device = |kind, target| {
            let (name, detail) = ("device".to_owned(), String::new());
            Device { kind, name, detail, cores: 2, targets: vec![target] }
        };
        let measurer = worker(builds(), Some(device(DeviceKind::Cpu, v3)));
        let with_gpu = worker(builds(), Some(device(DeviceKind::Cuda, Target::Cuda { sm: 90 })));
        let foreign = |workers: &[&WorkerRow], target| is_foreign(target, &workers.iter().copied().cloned().collect::<Vec<_>>());
        for workers in [&[&builder][..], &[&builder, &with_gpu]] {
            assert_eq!([v3, v4, arm].map(|target| foreign(workers, target)), [false, false, true]);
        }
        assert!(foreign(&[&builder, &measurer], v4) && foreign(&[&measurer], arm));
        assert!(foreign(&[&builder], Target::Cuda { sm: 80 }));
    }

    #[test]
    fn artifacts_for_gpus_are_linked_by_the_compiler_of_the_hosts_own_cpu() {
        let gpu = Target::Cuda { sm: 90 };
        // The cross compiler would win by its name.
        let native = toolchain("gcc-13", Target::Cpu(CpuIsa::X86_64V3));
        let cross = toolchain("gcc-14", Target::Cpu(CpuIsa::Aarch64));
        let pin = choose(gpu, &[worker(vec![native, cross, toolchain("nvrtc-13", gpu)], None)]).unwrap();
        assert_eq!((pin.toolchain.as_str(), pin.linker.as_str(), pin.device), ("nvrtc-13", "gcc-13", None));
        let lack = choose(gpu, &[worker(vec![toolchain("nvrtc-13", gpu)], None)]).unwrap_err();
        assert_eq!(lack, "a C compiler, which links the artifacts for cuda-sm_90");
    }
}
