//! The model race: links the configurations of each variant, has their steps timed, and takes
//! whoever is the fastest in the model; then tries the winners depth first.

use std::collections::BTreeMap;
use std::sync::Arc;

use aotfarm_protocol::{Device, JobState, ModelRaceSpec, Segment, Target, WorkResult, WorkSpec};
use aotfarm_search::{Change, Configuration, Finalists, Verdict, model_race, segments};

use super::attempt::{Attempt, Drive, Planned, compute};
use super::link::link_item;
use super::watch::wait_for;
use crate::items::Want;
use crate::planner::LinkOutline;

/// Milliseconds of runs for each point.
const BUDGET_MS: u64 = 1_500;

/// A variant and the device that it races on.
struct Entrant<'a> {
    attempt: &'a Attempt,
    planned: &'a Planned,
    /// Of the variant.
    index: usize,
    target: Target,
    device: &'a Device,
}

/// Configurations that were timed.
struct Timed {
    /// What the first was linked from; the steps are the same in all.
    outline: LinkOutline,
    /// Seconds of each step: for each point, for each configuration.
    seconds: Vec<Vec<Vec<f64>>>,
}

/// What the artifact of each variant is made of. A GPU's races are in graphs of launches, as its
/// artifacts are, and its times scatter little: there the winners of the tasks' own races stay.
pub(super) async fn race(attempt: &Attempt, planned: &Planned, finalists: Vec<Vec<Finalists>>) -> Drive<Vec<Configuration>> {
    let mut configurations = Vec::with_capacity(finalists.len());
    for (index, finalists) in finalists.into_iter().enumerate() {
        let target = planned.blueprint.variants()[index].target;
        let open = finalists.iter().any(|task| task.candidates.len() > 1);
        configurations.push(match &planned.pins[&target].device {
            Some(device) if open && matches!(target, Target::Cpu(_)) => {
                let entrant = Entrant { attempt, planned, index, target, device };
                entrant.race(&finalists).await?
            }
            _ => Configuration::of_winners(&finalists),
        });
    }
    Ok(configurations)
}

impl Entrant<'_> {
    async fn race(&self, finalists: &[Finalists]) -> Drive<Configuration> {
        let points = self.planned.blueprint.profile_points();
        let Some(Timed { outline, seconds }) = self.time(&Configuration::of_all(finalists), &points).await? else {
            // Its own link and profile will tell what is wrong, if it is the winners' fault.
            self.attempt.note("the model race did not come to an end; the winners of the tasks' races stay").await?;
            return Ok(Configuration::of_winners(finalists));
        };
        let verdict = model_race::decide(finalists, &outline.steps, &points, &seconds);
        self.tell_changes(&verdict.changes, finalists.len()).await?;
        self.depth_first(verdict, &outline, &points).await
    }

    /// The winners, in segments if these promise to be faster and are.
    async fn depth_first(
        &self,
        verdict: Verdict,
        outline: &LinkOutline,
        points: &[BTreeMap<String, i64>],
    ) -> Drive<Configuration> {
        let whole = verdict.fastest;
        // A batch that may be empty is not cut.
        let Some(batch) = outline.metadata.dims.first().filter(|batch| batch.min > 0) else { return Ok(whole) };
        let size = |point: &BTreeMap<String, i64>| point.get(&batch.name).copied();
        let Some(sizes) = points.iter().map(size).collect::<Option<Vec<_>>>() else { return Ok(whole) };
        let tried = segments::segmentations(&sizes, &verdict.seconds, &outline.image_wise, batch.min);
        let Some(fewest) = tried.iter().flatten().map(|s| s.images).min() else { return Ok(whole) };
        let parted: Vec<_> = tried.into_iter().map(|segments| whole.in_segments(segments)).collect();
        let mut configurations = vec![whole];
        configurations.extend(parted);
        // Smaller batches are one part anyhow.
        let larger: Vec<_> = points.iter().filter(|point| size(point) > Some(fewest)).cloned().collect();
        let timed = self.time(&configurations, &larger).await?;
        let Some((fastest, saved)) = timed.and_then(|timed| segments::fastest(&timed.seconds)) else {
            return Ok(configurations.swap_remove(0));
        };
        let stays = saved >= segments::WORTHWHILE;
        self.tell_segments(&configurations[fastest].segments, saved, stays).await?;
        Ok(configurations.swap_remove(if stays { fastest } else { 0 }))
    }

    /// Links configurations and times their steps at `points`; `None` when that did not come to an
    /// end.
    async fn time(&self, configurations: &[Configuration], points: &[BTreeMap<String, i64>]) -> Drive<Option<Timed>> {
        let &Self { attempt, planned, index, target, device } = self;
        let name = &attempt.job.request.name;
        let mut links = Vec::new();
        let mut first = None;
        for (k, configuration) in configurations.iter().enumerate() {
            let (plan, parts) = (Arc::clone(&planned.blueprint), configuration.clone());
            let outline = compute(move || plan.link_for_race(index, &parts)).await??;
            first.get_or_insert_with(|| outline.clone());
            let label = format!("link configuration {} of {name} for {target}", k + 1);
            links.push(link_item(attempt, planned, outline, configuration, target, label).await?);
        }
        let keys = attempt.core.want(attempt.id, &links).await?;
        let ended = wait_for(attempt, JobState::Linking, &keys, &planned.pins, 0).await?;
        let artifacts = keys.iter().map(|key| match ended[key].result {
            Some(WorkResult::Linked { artifact, .. }) => Some(artifact),
            _ => None,
        });
        let (Some(outline), Some(artifacts)) = (first, artifacts.collect::<Option<Vec<_>>>()) else { return Ok(None) };
        let threads = attempt.threads(device);
        let spec = ModelRaceSpec { artifacts, target, points: points.to_vec(), threads, budget_ms: BUDGET_MS };
        let label = format!("race {} configurations of {name}", spec.artifacts.len());
        let work = WorkSpec::ModelRace { spec, device: device.fingerprint() };
        let keys = attempt.core.want(attempt.id, &[Want { spec: work, label, context: None }]).await?;
        let to_come_ms = BUDGET_MS * points.len() as u64;
        let mut ended = wait_for(attempt, JobState::Linking, &keys, &planned.pins, to_come_ms).await?;
        Ok(match ended.remove(&keys[0]).and_then(|item| item.result) {
            Some(WorkResult::ModelRaced { seconds }) => Some(Timed { outline, seconds }),
            _ => None,
        })
    }

    async fn tell_changes(&self, changes: &[Change], of: usize) -> Drive<()> {
        let summary = format!("raced in the model: {} of {of} kernels gave way to a rival", changes.len());
        self.attempt.note(summary).await?;
        for Change { title, from, to } in changes {
            let [to, from] = [to, from].map(|(candidate, seconds)| (candidate.label(), seconds * 1e3));
            let text = format!("{title}: {} takes {:.3} ms where {} takes {:.3}", to.0, to.1, from.0, from.1);
            self.attempt.note(text).await?;
        }
        Ok(())
    }

    async fn tell_segments(&self, segments: &[Segment], saved: f64, stays: bool) -> Drive<()> {
        let one = |s: &Segment| format!("steps {} to {} by {}", s.steps.start + 1, s.steps.end, s.images);
        let listed: Vec<String> = segments.iter().map(one).collect();
        let than = if saved < 0.0 { "more" } else { "less" };
        let verdict = if stays { "they stay" } else { "all steps are done for the whole batch" };
        let (listed, percent) = (listed.join(", "), saved.abs() * 100.0);
        self.attempt.note(format!("in segments ({listed}) runs take {percent:.1} % {than}: {verdict}")).await
    }
}
