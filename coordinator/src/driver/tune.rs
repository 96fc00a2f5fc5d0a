//! The tuning phase: carries out what the [`Tuner`] asks for, and feeds it with what came of it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use aotfarm_protocol::{
    CandidateId, Device, Digest, ErrorCode, JobEvent, JobState, MeasureProtocol, Outcome, Params, Target, TaskKey, TuneMode,
    TuningRecord, WorkItemId, WorkResult, WorkSpec,
};
use aotfarm_store::{Ended, MeasureContext, Pin, Pins};

use super::watch::Watch;
use super::{Drive, Driver, LOOK, Stop, compute};
use crate::error::Error;
use crate::items::Want;
use crate::pipeline::JobStep;
use crate::planner::{Blueprint, CandidateOutline, TaskOutline, TaskRef};
use crate::rehearsal::Contest;
use crate::tuner::{Action, Cost, Known, KnownOutcomes, PROTOCOL_VERSION, Settings, Similar, Tally, Tuner, rank};

/// Milliseconds of measuring in all, unless the user said otherwise.
const QUICK_BUDGET_MS: u64 = 20_000;
const FULL_BUDGET_MS: u64 = 300_000;
/// Likewise on a GPU, where more candidates race at more sizes.
const QUICK_BUDGET_ON_GPU_MS: u64 = 25_000;
/// How many tasks that are like one lend it their records.
const NEIGHBOURS: usize = 2;
/// Compute capabilities whose records may help others.
const GPUS: [u32; 12] = [75, 80, 86, 87, 88, 89, 90, 100, 103, 110, 120, 121];

/// What an open item is for.
enum Open {
    Unit(Digest),
    Race(TaskRef),
}

/// The search in one variant.
struct Search {
    /// Away only while it computes.
    tuner: Option<Tuner>,
    pin: Pin,
    open: HashMap<WorkItemId, Open>,
}

impl Driver {
    /// Finds the winners and who was near them: for every variant, one contest per task. Ends in state Linking.
    pub(super) async fn tune(&self, blueprint: &Arc<dyn Blueprint>, pins: &Pins) -> Drive<Vec<Vec<Contest>>> {
        let mut searches = self.searches(blueprint, pins).await?;
        let mut watch = Watch::new();
        let mut planned = false;
        loop {
            let mut listener = self.core.signals.progress.listen();
            let mut actions = Vec::new();
            for search in &mut searches {
                let mut tuner = search.tuner.take().expect("a tuner is back before the next round");
                let (tuner, wanted) = compute(move || {
                    let wanted = tuner.advance();
                    (tuner, wanted)
                })
                .await?;
                search.tuner = Some(tuner);
                actions.push(wanted);
            }
            if !planned {
                self.announce(&searches).await?;
                planned = true;
            }
            for (index, wanted) in actions.into_iter().enumerate() {
                self.carry_out(blueprint, index, &mut searches[index], wanted).await?;
            }
            if searches.iter().all(|s| tuner(s).is_done()) {
                break;
            }
            let mut news = false;
            for search in &mut searches {
                news |= self.feed(search).await?;
            }
            let to_come = searches.iter().map(|s| tuner(s).remaining_ms()).sum();
            self.tell(&mut watch, to_come).await?;
            if !news {
                self.expect(JobState::Tuning).await?;
                self.check_capability(&mut watch.missing, pins).await?;
                listener.wait(LOOK).await;
            }
        }
        self.enough(searches.iter().map(|s| tuner(s).tally()))?;
        self.step(JobStep::Tuned).await?;
        Ok(searches.iter().map(|s| tuner(s).contests()).collect())
    }

    /// One search per variant, with everything that is known about its tasks.
    async fn searches(&self, blueprint: &Arc<dyn Blueprint>, pins: &Pins) -> Drive<Vec<Search>> {
        let request = &self.job.request;
        let variants = blueprint.variants();
        let mut searches = Vec::new();
        for (index, variant) in variants.iter().enumerate() {
            let pin = pins[&variant.target].clone();
            let gpu = matches!(variant.target, Target::Cuda { .. });
            let all_ms = match (request.budget_s, request.tune) {
                (Some(s), _) => u64::from(s) * 1000,
                (None, TuneMode::Full) => FULL_BUDGET_MS,
                (None, _) if gpu => QUICK_BUDGET_ON_GPU_MS,
                (None, _) => QUICK_BUDGET_MS,
            };
            let budget_ms = all_ms / variants.len() as u64;
            let (mode, threads, known) = match &pin.device {
                Some(device) => {
                    let keys: Vec<TaskKey> = variant.specs.iter().flat_map(|s| s.tasks.iter().map(|t| t.key)).collect();
                    let threads = self.threads(device);
                    (request.tune, threads, self.known(&keys, device, threads).await?)
                }
                None => (TuneMode::None, 1, self.borrowed(blueprint, index).await?),
            };
            let similar = match &pin.device {
                Some(device) if !gpu => self.similar(blueprint, index, device, threads).await?,
                _ => Similar::new(),
            };
            let settings = Settings { mode, trials: request.trials, budget_ms, threads, gpu };
            let tuner = Tuner::new(Arc::clone(blueprint), index, settings, Arc::new(known)).beginning_with(similar);
            searches.push(Search { tuner: Some(tuner), pin, open: HashMap::new() });
        }
        Ok(searches)
    }

    async fn known(&self, tasks: &[TaskKey], device: &Device, threads: u32) -> Drive<KnownOutcomes> {
        let fingerprint = device.fingerprint();
        let mut known = KnownOutcomes::new();
        let mut snapshot = self.core.store.read().await?;
        for task in tasks {
            let records = snapshot.newest_records(*task, fingerprint, PROTOCOL_VERSION, threads).await?;
            let outcomes: BTreeMap<_, _> = records.into_iter().map(|(id, record)| (id, as_known(record))).collect();
            known.insert(*task, outcomes);
        }
        Ok(known)
    }

    /// What was fast in the tasks that are like those of this variant, as far as it was known when the job was submitted: a coordinator that comes back in
    /// the middle of the search begins it in the same way.
    async fn similar(&self, blueprint: &Arc<dyn Blueprint>, variant: usize, device: &Device, threads: u32) -> Drive<Similar> {
        let own: Vec<&TaskOutline> = blueprint.variants()[variant].specs.iter().flat_map(|s| &s.tasks).collect();
        let (fingerprint, before) = (device.fingerprint(), self.job.submitted_at / 1000);
        let mut similar = Similar::new();
        {
            let mut snapshot = self.core.store.read().await?;
            for task in &own {
                let Some(likeness) = &task.likeness else { continue };
                let class = likeness.class;
                let known = snapshot.known_tasks(class, fingerprint, PROTOCOL_VERSION, threads, before).await?;
                let others = known.into_iter().filter(|(key, _)| *key != task.key);
                let mut near: Vec<_> = others.filter_map(|(key, other)| Some((likeness.distance(&other)?, key))).collect();
                near.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
                for (_, key) in near.into_iter().take(NEIGHBOURS) {
                    let mut records = snapshot.newest_records(key, fingerprint, PROTOCOL_VERSION, threads).await?;
                    records.retain(|_, record| record.at < before);
                    similar.entry(task.key).or_default().extend(fastest(records, task.allowed));
                }
            }
        }
        let mut tx = self.core.store.write().await?;
        for task in own {
            if let Some(likeness) = &task.likeness {
                tx.add_task(task.key, likeness).await?;
            }
        }
        tx.commit().await?;
        Ok(similar)
    }

    /// Records of the target's nearest measured relative, for a device that no worker has: what was fast there is the best guess here. A CPU is
    /// related to others of its target alone: those of another lay out images otherwise.
    async fn borrowed(&self, blueprint: &Arc<dyn Blueprint>, variant: usize) -> Drive<KnownOutcomes> {
        let outline = &blueprint.variants()[variant];
        let relatives = match outline.target {
            Target::Cpu(_) => vec![outline.target],
            Target::Cuda { sm } => {
                let mut all = GPUS;
                // An older GPU's kernels are legal more often than a newer one's.
                all.sort_by_key(|other| (other.abs_diff(sm), *other));
                all.map(|sm| Target::Cuda { sm }).to_vec()
            }
        };
        let mut known = KnownOutcomes::new();
        for (spec, tasks) in outline.specs.iter().enumerate() {
            for (point, task) in tasks.tasks.iter().enumerate() {
                let here = TaskRef { variant, spec, point };
                for relative in &relatives {
                    let key = blueprint.key_for(here, *relative);
                    let records = self.core.store.read().await?.records_of_task(key, PROTOCOL_VERSION).await?;
                    // Times of different devices do not compare: those of the one that knows most.
                    let mut by_device: BTreeMap<Digest, Vec<TuningRecord>> = BTreeMap::new();
                    for record in records {
                        by_device.entry(record.device.fingerprint()).or_default().push(record);
                    }
                    let Some(records) = by_device.into_values().max_by_key(Vec::len) else { continue };
                    // Each record asks its family for all legal points.
                    let plan = Arc::clone(blueprint);
                    let legal = move |record: TuningRecord| {
                        let candidate = plan.candidate(here, &record.family, &record.params)?;
                        Some((candidate.id, as_known(record)))
                    };
                    let outcomes: BTreeMap<_, _> = compute(move || records.into_iter().filter_map(legal).collect()).await?;
                    if !outcomes.is_empty() {
                        known.insert(task.key, outcomes);
                        break;
                    }
                }
            }
        }
        Ok(known)
    }

    async fn announce(&self, searches: &[Search]) -> Drive<()> {
        let (mut tasks, mut known, mut candidates, mut units) = (0, 0, 0, 0);
        for search in searches {
            let overview = tuner(search).overview();
            tasks += overview.0;
            known += overview.1;
            candidates += overview.2;
            units += overview.3;
        }
        self.step(JobStep::Planned).await?;
        self.core.emit(self.id, &JobEvent::Planned { tasks, known, candidates, units }).await?;
        Ok(())
    }

    async fn carry_out(
        &self,
        blueprint: &Arc<dyn Blueprint>,
        index: usize,
        search: &mut Search,
        actions: Vec<Action>,
    ) -> Drive<()> {
        let target = blueprint.variants()[index].target;
        let mut wants = Vec::new();
        let mut opens = Vec::new();
        for action in actions {
            match action {
                Action::Build { unit, label } => {
                    wants.push(self.build(blueprint, unit, target, &search.pin, label).await?);
                    opens.push(Open::Unit(unit));
                }
                Action::Measure { task, spec, candidates } => {
                    let context = MeasureContext {
                        target,
                        candidates: candidates.into_iter().map(|c| (c.id, c.family, c.params)).collect(),
                    };
                    let label = format!("measure {} candidates of {}", spec.candidates.len(), spec.title);
                    let device = search.pin.device.as_ref().expect("only what has a device is measured").fingerprint();
                    let spec = WorkSpec::Measure { spec, device };
                    wants.push(Want { spec, label, context: Some(context) });
                    opens.push(Open::Race(task));
                }
                Action::RecordBuildFailure { key, candidates, unit, log, protocol } => {
                    let item = self.build(blueprint, unit, target, &search.pin, String::new()).await?.spec.id();
                    if let Some(device) = &search.pin.device {
                        self.record_refusal(item, key, candidates, &log, protocol, target, device).await?;
                    }
                }
                Action::Decided { table } => self.core.emit(self.id, &JobEvent::Tuned { table }).await?,
                Action::Note(message) => self.core.note(self.id, message).await?,
            }
        }
        if !wants.is_empty() {
            let keys = self.core.want(self.id, &wants).await?;
            search.open.extend(keys.into_iter().zip(opens));
        }
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one TuningRecord")]
    async fn record_refusal(
        &self,
        item: WorkItemId,
        task: TaskKey,
        candidates: Vec<CandidateOutline>,
        log: &str,
        protocol: MeasureProtocol,
        target: Target,
        device: &Device,
    ) -> Drive<()> {
        let mut tx = self.core.store.write().await?;
        for candidate in candidates {
            let record = TuningRecord {
                task,
                candidate: candidate.id,
                family: candidate.family,
                params: candidate.params,
                target,
                device: device.clone(),
                protocol,
                outcome: Outcome::BuildFailed { log: log.to_owned() },
                at: self.core.now() / 1000,
            };
            tx.append_record(item, &record).await?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// Hands items that have ended to the tuner; `false` when there were none.
    async fn feed(&self, search: &mut Search) -> Drive<bool> {
        let keys: Vec<WorkItemId> = search.open.keys().copied().collect();
        let ended: Vec<Ended> = {
            let mut snapshot = self.core.store.read().await?;
            snapshot.ended_items(self.id, &keys).await?
        };
        let tuner = search.tuner.as_mut().expect("the tuner is not computing");
        let news = !ended.is_empty();
        for end in ended {
            let Some(open) = search.open.remove(&end.key) else { continue };
            let cost =
                if end.cached { Cost::default() } else { Cost { seconds: end.run_ms as f64 / 1000.0, worker: end.worker } };
            match (open, end.result) {
                (Open::Unit(unit), Some(WorkResult::Built { object })) => tuner.built(unit, Some(Ok(object)), cost),
                (Open::Unit(unit), Some(WorkResult::BuildFailed { log })) => tuner.built(unit, Some(Err(log)), cost),
                (Open::Unit(unit), None) => tuner.built(unit, None, cost),
                (Open::Race(task), Some(WorkResult::Measured { outcomes })) => tuner.measured(task, Some(outcomes), cost),
                (Open::Race(task), None) => tuner.measured(task, None, cost),
                // Reports of the wrong kind are refused when they come in.
                (_, Some(other)) => {
                    let message = format!("work item {} has a result of another kind: {other:?}", end.key);
                    return Err(Stop::from(Error::api(ErrorCode::Internal, message)));
                }
            }
        }
        Ok(news)
    }

    /// A job tells the truth: winners that are luck are none.
    fn enough(&self, tallies: impl Iterator<Item = Tally>) -> Drive<()> {
        let t = tallies.fold(Tally::default(), Tally::plus);
        if t.tells_enough() {
            return Ok(());
        }
        let message = format!(
            "only {} of {} planned candidates were measured: {} did not compile, {} crashed, hung or computed wrong numbers, \
             {} were cut off by the budget, {} were given up with their work items",
            t.measured, t.planned, t.build_failed, t.faulty, t.unsupported, t.given_up
        );
        let error = aotfarm_protocol::ApiError::new(ErrorCode::Internal, message);
        Err(Stop::Fail(error.hint("`aotfarm logs JOB` shows each failure; a larger --budget helps where the budget cut off")))
    }
}

/// The points that won or nearly did, the fastest first.
fn fastest(records: BTreeMap<CandidateId, TuningRecord>, allowed: f64) -> Vec<(String, Params)> {
    let raced = |record: TuningRecord| match rank(&record.outcome, allowed) {
        Some((false, seconds)) => Some((seconds, record.family, record.params)),
        _ => None,
    };
    let mut raced: Vec<_> = records.into_values().filter_map(raced).collect();
    raced.sort_by(|a, b| a.0.total_cmp(&b.0));
    raced.into_iter().map(|(_, family, params)| (family, params)).collect()
}

fn as_known(record: TuningRecord) -> Known {
    let TuningRecord { outcome, protocol, family, params, .. } = record;
    Known { outcome, budget_ms: protocol.budget_ms, family, params }
}

fn tuner(search: &Search) -> &Tuner {
    search.tuner.as_ref().expect("the tuner is not computing")
}
