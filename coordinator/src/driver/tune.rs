//! The tuning phase: carries out what each variant's [`Search`] asks for, and feeds it with what
//! came of it.

use std::collections::HashMap;
use std::sync::Arc;

use aotfarm_protocol::{
    ApiError, Device, Digest, ErrorCode, JobEvent, JobState, MeasureProtocol, Outcome, Target, TaskKey, TuneMode, TuningRecord,
    WorkItemId, WorkResult, WorkSpec,
};
use aotfarm_search::{
    Action, CandidateOutline, Cost, Finalists, KnownOutcomes, Overview, Search, Settings, Similar, Tally, TaskRef,
    default_budget_ms,
};

use super::attempt::{Attempt, Drive, LOOK, Planned, Stop, compute};
use super::build::build_item;
use super::capability::check_capability;
use super::evidence;
use super::watch::{Watch, tell};
use crate::error::Error;
use crate::items::Want;
use crate::pipeline::JobStep;
use crate::planner::Blueprint;
use aotfarm_store::{Ended, MeasureContext, Pin};

/// What an open item is for.
enum Open {
    Unit(Digest),
    Race(TaskRef),
}

/// The search in one variant, under way.
struct Searching {
    /// Away only while it computes.
    search: Option<Search>,
    target: Target,
    pin: Pin,
    open: HashMap<WorkItemId, Open>,
}

/// Finds the winners and who was near them: for every variant, the finalists of each task. Ends in
/// state Linking.
pub(super) async fn tune(attempt: &Attempt, planned: &Planned) -> Drive<Vec<Vec<Finalists>>> {
    let mut all = begin(attempt, planned).await?;
    let mut watch = Watch::new();
    let mut announced = false;
    loop {
        let mut listener = attempt.core.signals.progress.listen();
        let mut actions = Vec::new();
        for searching in &mut all {
            actions.push(searching.advance().await?);
        }
        if !announced {
            announce(attempt, &all).await?;
            announced = true;
        }
        for (searching, wanted) in all.iter_mut().zip(actions) {
            searching.carry_out(attempt, &planned.blueprint, wanted).await?;
        }
        if all.iter().all(|s| s.search().is_done()) {
            break;
        }
        let mut news = false;
        for searching in &mut all {
            news |= searching.feed(attempt).await?;
        }
        let to_come_ms = all.iter().map(|s| s.search().remaining_ms()).sum();
        tell(attempt, &mut watch, to_come_ms).await?;
        if !news {
            attempt.expect(JobState::Tuning).await?;
            check_capability(attempt, &mut watch.missing, &planned.pins).await?;
            listener.wait(LOOK).await;
        }
    }
    enough(all.iter().map(|s| s.search().tally()))?;
    attempt.step(JobStep::Tuned).await?;
    Ok(all.iter().map(|s| s.search().finalists()).collect())
}

/// One search per variant, with everything that is known about its tasks.
async fn begin(attempt: &Attempt, planned: &Planned) -> Drive<Vec<Searching>> {
    let Planned { blueprint, pins } = planned;
    let request = &attempt.job.request;
    let variants = blueprint.variants();
    let mut all = Vec::new();
    for (index, variant) in variants.iter().enumerate() {
        let pin = pins[&variant.target].clone();
        let gpu = matches!(variant.target, Target::Cuda { .. });
        let default_ms = default_budget_ms(request.tune, gpu);
        let budget_ms = request.budget_s.map_or(default_ms, |s| u64::from(s) * 1000) / variants.len() as u64;
        let mut settings = Settings { mode: request.tune, trials: request.trials, budget_ms, threads: 1, gpu };
        let mut similar = Similar::new();
        let known: KnownOutcomes;
        if let Some(device) = &pin.device {
            settings.threads = attempt.threads(device);
            known = evidence::known(attempt, variant, device, settings.threads).await?;
            if !gpu {
                similar = evidence::similar(attempt, variant, device, settings.threads).await?;
            }
        } else {
            settings.mode = TuneMode::None;
            known = evidence::borrowed(attempt, blueprint, index).await?;
        }
        let search = Search::new(Arc::clone(blueprint) as _, index, settings, Arc::new(known), similar);
        all.push(Searching { search: Some(search), target: variant.target, pin, open: HashMap::new() });
    }
    Ok(all)
}

async fn announce(attempt: &Attempt, all: &[Searching]) -> Drive<()> {
    let sum = all.iter().map(|s| s.search().overview()).fold(Overview::default(), Overview::plus);
    let Overview { tasks, known, candidates, units } = sum;
    attempt.step(JobStep::Planned).await?;
    attempt.core.emit(attempt.id, &JobEvent::Planned { tasks, known, candidates, units }).await?;
    Ok(())
}

/// A job tells the truth: winners that are luck are none.
fn enough(tallies: impl Iterator<Item = Tally>) -> Drive<()> {
    let t = tallies.fold(Tally::default(), Tally::plus);
    if t.tells_enough() {
        return Ok(());
    }
    let message = format!(
        "only {} of {} planned candidates were measured: {} did not compile, {} crashed, hung or computed wrong numbers, \
         {} were cut off by the budget, {} were given up with their work items",
        t.measured, t.planned, t.build_failed, t.faulty, t.unsupported, t.given_up
    );
    let hint = "`aotfarm logs JOB` shows each failure; a larger --budget helps where the budget cut off";
    Err(Stop::Fail(ApiError::new(ErrorCode::Internal, message).hint(hint)))
}

impl Searching {
    fn search(&self) -> &Search {
        self.search.as_ref().expect("the search is not computing")
    }

    async fn advance(&mut self) -> Drive<Vec<Action>> {
        let mut search = self.search.take().expect("a search is back before the next round");
        let (search, wanted) = compute(move || {
            let wanted = search.advance();
            (search, wanted)
        })
        .await?;
        self.search = Some(search);
        Ok(wanted)
    }

    async fn carry_out(&mut self, attempt: &Attempt, blueprint: &Arc<dyn Blueprint>, actions: Vec<Action>) -> Drive<()> {
        let (target, pin) = (self.target, &self.pin);
        let mut wants = Vec::new();
        let mut opens = Vec::new();
        for action in actions {
            match action {
                Action::Build { unit, label } => {
                    wants.push(build_item(attempt, blueprint, unit, target, pin, label).await?);
                    opens.push(Open::Unit(unit));
                }
                Action::Measure { task, spec, candidates } => {
                    let candidates = candidates.into_iter().map(|c| (c.id, c.family, c.params)).collect();
                    let context = Some(MeasureContext { target, candidates });
                    let label = format!("measure {} candidates of {}", spec.candidates.len(), spec.title);
                    let device = pin.device.as_ref().expect("only what has a device is measured").fingerprint();
                    wants.push(Want { spec: WorkSpec::Measure { spec, device }, label, context });
                    opens.push(Open::Race(task));
                }
                Action::RecordBuildFailure { key, candidates, unit, log, protocol } => {
                    let item = build_item(attempt, blueprint, unit, target, pin, String::new()).await?.spec.id();
                    if let Some(device) = &pin.device {
                        let failure = BuildFailure { task: key, target, device, protocol, log };
                        failure.record(attempt, item, candidates).await?;
                    }
                }
                Action::Decided { table } => attempt.core.emit(attempt.id, &JobEvent::Tuned { table }).await?,
                Action::Note(message) => attempt.note(message).await?,
            }
        }
        if !wants.is_empty() {
            let keys = attempt.core.want(attempt.id, &wants).await?;
            self.open.extend(keys.into_iter().zip(opens));
        }
        Ok(())
    }

    /// Hands items that have ended to the search; `false` when there were none.
    async fn feed(&mut self, attempt: &Attempt) -> Drive<bool> {
        let keys: Vec<WorkItemId> = self.open.keys().copied().collect();
        let ended: Vec<Ended> = {
            let mut snapshot = attempt.core.store.read().await?;
            snapshot.ended_items(attempt.id, &keys).await?
        };
        let search = self.search.as_mut().expect("the search is not computing");
        let news = !ended.is_empty();
        for end in ended {
            let Some(open) = self.open.remove(&end.key) else { continue };
            let seconds = end.run_ms as f64 / 1000.0;
            let cost = if end.cached { Cost::default() } else { Cost { seconds, worker: end.worker } };
            match (open, end.result) {
                (Open::Unit(unit), Some(WorkResult::Built { object })) => search.built(unit, Some(Ok(object)), cost),
                (Open::Unit(unit), Some(WorkResult::BuildFailed { log })) => search.built(unit, Some(Err(log)), cost),
                (Open::Unit(unit), None) => search.built(unit, None, cost),
                (Open::Race(task), Some(WorkResult::Measured { outcomes })) => {
                    search.measured(task, Some(outcomes), cost);
                }
                (Open::Race(task), None) => search.measured(task, None, cost),
                // Reports of the wrong kind are refused when they come in.
                (_, Some(other)) => {
                    let message = format!("work item {} has a result of another kind: {other:?}", end.key);
                    return Err(Stop::from(Error::api(ErrorCode::Internal, message)));
                }
            }
        }
        Ok(news)
    }
}

/// What the compiler said of a unit, and of which task its candidates were to be measured for.
struct BuildFailure<'a> {
    task: TaskKey,
    target: Target,
    device: &'a Device,
    /// How they would have been measured.
    protocol: MeasureProtocol,
    log: String,
}

impl BuildFailure<'_> {
    /// Stores it as the outcome of each candidate.
    async fn record(&self, attempt: &Attempt, item: WorkItemId, candidates: Vec<CandidateOutline>) -> Drive<()> {
        let mut tx = attempt.core.store.write().await?;
        for candidate in candidates {
            let record = TuningRecord {
                task: self.task,
                candidate: candidate.id,
                family: candidate.family,
                params: candidate.params,
                target: self.target,
                device: self.device.clone(),
                protocol: self.protocol,
                outcome: Outcome::BuildFailed { log: self.log.clone() },
                at: attempt.core.now() / 1000,
            };
            tx.append_record(item, &record).await?;
        }
        tx.commit().await?;
        Ok(())
    }
}
