//! What TuningRecords say about the tasks of a variant before its search begins.

use std::collections::BTreeMap;
use std::sync::Arc;

use aotfarm_protocol::{CandidateId, Device, Digest, TaskKey, TuningRecord};
use aotfarm_search::{
    Known, KnownOutcomes, PROTOCOL_VERSION, Similar, TaskOutline, TaskRef, VariantOutline, fastest_points, relatives,
};

use super::attempt::{Attempt, Drive, compute};
use crate::planner::Blueprint;

/// How many tasks that are like one lend it their records. A guess.
const NEIGHBOURS: usize = 2;

fn tasks_of(variant: &VariantOutline) -> impl Iterator<Item = &TaskOutline> {
    variant.specs.iter().flat_map(|spec| &spec.tasks)
}

/// The outcomes on a device.
pub(super) async fn known(attempt: &Attempt, variant: &VariantOutline, device: &Device, threads: u32) -> Drive<KnownOutcomes> {
    let fingerprint = device.fingerprint();
    let mut known = KnownOutcomes::new();
    let mut snapshot = attempt.core.store.read().await?;
    for task in tasks_of(variant) {
        let records = snapshot.newest_records(task.key, fingerprint, PROTOCOL_VERSION, threads).await?;
        let outcomes: BTreeMap<_, _> = records.into_iter().map(|(id, record)| (id, Known::from(record))).collect();
        known.insert(task.key, outcomes);
    }
    Ok(known)
}

/// What was fast in the tasks that are like those of a variant, as far as it was known when the job
/// was submitted: a coordinator that comes back in the middle of the search begins it in the same
/// way. The variant's tasks are remembered, for those that come later.
pub(super) async fn similar(attempt: &Attempt, variant: &VariantOutline, device: &Device, threads: u32) -> Drive<Similar> {
    let (fingerprint, before) = (device.fingerprint(), attempt.job.submitted_at / 1000);
    let mut similar = Similar::new();
    {
        let mut snapshot = attempt.core.store.read().await?;
        for task in tasks_of(variant) {
            let Some(likeness) = &task.likeness else { continue };
            let class = likeness.class;
            let known = snapshot.known_tasks(class, fingerprint, PROTOCOL_VERSION, threads, before).await?;
            let others = known.into_iter().filter(|(key, _)| *key != task.key);
            let near = others.filter_map(|(key, other)| Some((likeness.distance(&other)?, key)));
            for key in nearest(near.collect()) {
                let mut records = snapshot.newest_records(key, fingerprint, PROTOCOL_VERSION, threads).await?;
                records.retain(|_, record| record.at < before);
                let points = fastest_points(records.into_values(), task.allowed);
                similar.entry(task.key).or_default().extend(points);
            }
        }
    }
    let mut tx = attempt.core.store.write().await?;
    for task in tasks_of(variant) {
        if let Some(likeness) = &task.likeness {
            tx.add_task(task.key, likeness).await?;
        }
    }
    tx.commit().await?;
    Ok(similar)
}

/// The nearest of tasks with their distances, the nearest first.
fn nearest(mut tasks: Vec<(f64, TaskKey)>) -> impl Iterator<Item = TaskKey> {
    tasks.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    tasks.into_iter().take(NEIGHBOURS).map(|(_, key)| key)
}

/// Records of the target's nearest measured relative, for a device that no worker has: what was
/// fast there is the best guess here.
pub(super) async fn borrowed(attempt: &Attempt, blueprint: &Arc<dyn Blueprint>, variant: usize) -> Drive<KnownOutcomes> {
    let outline = &blueprint.variants()[variant];
    let relatives = relatives(outline.target);
    let mut known = KnownOutcomes::new();
    for (spec, tasks) in outline.specs.iter().enumerate() {
        for (point, task) in tasks.tasks.iter().enumerate() {
            let here = TaskRef { variant, spec, point };
            for relative in &relatives {
                let records = best_known(attempt, blueprint.key_for(here, *relative)).await?;
                let outcomes = legal(blueprint, here, records).await?;
                if !outcomes.is_empty() {
                    known.insert(task.key, outcomes);
                    break;
                }
            }
        }
    }
    Ok(known)
}

/// The records of a task on one device, because times of different devices do not compare: on the
/// one that knows most.
async fn best_known(attempt: &Attempt, key: TaskKey) -> Drive<Vec<TuningRecord>> {
    let mut snapshot = attempt.core.store.read().await?;
    let mut by_device: BTreeMap<Digest, Vec<TuningRecord>> = BTreeMap::new();
    for record in snapshot.records_of_task(key, PROTOCOL_VERSION).await? {
        by_device.entry(record.device.fingerprint()).or_default().push(record);
    }
    Ok(by_device.into_values().max_by_key(Vec::len).unwrap_or_default())
}

/// Those of `records` whose points are legal here, as outcomes of the candidates here.
async fn legal(blueprint: &Arc<dyn Blueprint>, here: TaskRef, records: Vec<TuningRecord>) -> Drive<BTreeMap<CandidateId, Known>> {
    if records.is_empty() {
        return Ok(BTreeMap::new());
    }
    let plan = Arc::clone(blueprint);
    let legal = move |record: TuningRecord| {
        let candidate = plan.candidate(here, &record.family, &record.params)?;
        Some((candidate.id, Known::from(record)))
    };
    // Each record asks its family for all legal points, which takes a while.
    compute(move || records.into_iter().filter_map(legal).collect()).await
}
