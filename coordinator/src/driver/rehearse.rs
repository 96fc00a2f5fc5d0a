//! The rehearsal: links the casts of each variant, has their steps timed, and takes whoever is the fastest in the model; then tries the winners
//! depth first.

use std::collections::BTreeMap;
use std::sync::Arc;

use aotfarm_protocol::{Device, JobState, RehearseSpec, Segment, Target, WorkResult, WorkSpec};
use aotfarm_store::Pins;

use super::{Drive, Driver, compute};
use crate::items::Want;
use crate::planner::{Blueprint, Cast, LinkOutline};
use crate::rehearsal::{self, Change, Contest, Decision, WORTHWHILE};

/// Milliseconds of runs for each point.
const BUDGET_MS: u64 = 1_500;

/// Where a variant is rehearsed.
struct Stage<'a> {
    blueprint: &'a Arc<dyn Blueprint>,
    pins: &'a Pins,
    /// Of the variant.
    index: usize,
    target: Target,
    device: &'a Device,
}

/// Casts that were timed.
struct Rehearsal {
    /// What the first was linked from; the steps are the same in all.
    outline: LinkOutline,
    /// Seconds of each step: for each point, for each cast.
    seconds: Vec<Vec<Vec<f64>>>,
}

impl Driver {
    /// What the artifact of each variant is made of. A GPU's races are in graphs of launches, as its artifacts are, and its times scatter little: there the
    /// winners of the races stay.
    pub(super) async fn rehearse(
        &self,
        blueprint: &Arc<dyn Blueprint>,
        pins: &Pins,
        contests: Vec<Vec<Contest>>,
    ) -> Drive<Vec<Cast>> {
        let mut casts = Vec::with_capacity(contests.len());
        for (index, contests) in contests.into_iter().enumerate() {
            let target = blueprint.variants()[index].target;
            let open = contests.iter().any(|c| c.candidates.len() > 1);
            let cast = match &pins[&target].device {
                Some(device) if open && matches!(target, Target::Cpu(_)) => {
                    let stage = Stage { blueprint, pins, index, target, device };
                    self.rehearse_variant(&stage, contests).await?
                }
                _ => by_race(contests),
            };
            casts.push(cast);
        }
        Ok(casts)
    }

    async fn rehearse_variant(&self, stage: &Stage<'_>, contests: Vec<Contest>) -> Drive<Cast> {
        let points = stage.blueprint.profile_points();
        let Some(Rehearsal { outline, seconds }) = self.time(stage, &rehearsal::casts(&contests), &points).await? else {
            // Its own link and profile will tell what is wrong, if it is the winners' fault.
            self.core.note(self.id, "the rehearsal did not come to an end; the winners of the races stay".to_owned()).await?;
            return Ok(by_race(contests));
        };
        let decision = rehearsal::decide(&contests, &outline.steps, &points, &seconds);
        self.tell_changes(&decision.changes, decision.winners.len()).await?;
        self.depth_first(stage, decision, &outline, &points).await
    }

    /// The winners, in segments if these promise to be faster and are.
    async fn depth_first(
        &self,
        stage: &Stage<'_>,
        decision: Decision,
        outline: &LinkOutline,
        points: &[BTreeMap<String, i64>],
    ) -> Drive<Cast> {
        let whole = Cast { winners: decision.winners, segments: Vec::new() };
        let Some(batch) = outline.metadata.dims.first() else { return Ok(whole) };
        let size = |point: &BTreeMap<String, i64>| point.get(&batch.name).copied();
        let Some(sizes) = points.iter().map(size).collect::<Option<Vec<_>>>() else { return Ok(whole) };
        let tried = rehearsal::segmentations(&sizes, &decision.seconds, &outline.image_wise, batch.min);
        let Some(fewest) = tried.iter().flatten().map(|s| s.images).min() else { return Ok(whole) };
        let parted = tried.into_iter().map(|segments| Cast { segments, ..whole.clone() });
        let mut casts: Vec<Cast> = std::iter::once(whole.clone()).chain(parted).collect();
        // Smaller batches are one part anyhow.
        let larger: Vec<_> = points.iter().filter(|point| size(point) > Some(fewest)).cloned().collect();
        let timed = self.time(stage, &casts, &larger).await?;
        let Some((fastest, saved)) = timed.and_then(|timed| rehearsal::fastest(&timed.seconds)) else {
            return Ok(casts.swap_remove(0));
        };
        let segment = |s: &Segment| format!("steps {} to {} by {}", s.steps.start + 1, s.steps.end, s.images);
        let listed: Vec<String> = casts[fastest].segments.iter().map(segment).collect();
        let than = if saved < 0.0 { "more" } else { "less" };
        let (chosen, verdict) =
            if saved >= WORTHWHILE { (fastest, "they stay") } else { (0, "all steps are done for the whole batch") };
        let text = format!("in segments ({}) runs take {:.1} % {than}: {verdict}", listed.join(", "), saved.abs() * 100.0);
        self.core.note(self.id, text).await?;
        Ok(casts.swap_remove(chosen))
    }

    /// Links casts and times their steps at `points`; `None` when that did not come to an end.
    async fn time(&self, stage: &Stage<'_>, casts: &[Cast], points: &[BTreeMap<String, i64>]) -> Drive<Option<Rehearsal>> {
        let &Stage { blueprint, pins, index, target, device } = stage;
        let mut links = Vec::new();
        let mut first = None;
        for (k, cast) in casts.iter().enumerate() {
            let (plan, parts) = (Arc::clone(blueprint), cast.clone());
            let outline = compute(move || plan.link_for_rehearsal(index, &parts)).await??;
            first.get_or_insert_with(|| outline.clone());
            let label = format!("link cast {} of {} for {target}", k + 1, self.job.request.name);
            links.push(self.link_item(blueprint, outline, &cast.winners, target, &pins[&target], label).await?);
        }
        let keys = self.core.want(self.id, &links).await?;
        let ended = self.wait_for(JobState::Linking, &keys, pins, 0).await?;
        let artifacts = keys.iter().map(|key| match ended[key].result {
            Some(WorkResult::Linked { artifact, .. }) => Some(artifact),
            _ => None,
        });
        let (Some(outline), Some(artifacts)) = (first, artifacts.collect::<Option<Vec<_>>>()) else { return Ok(None) };
        let spec =
            RehearseSpec { artifacts, target, points: points.to_vec(), threads: self.threads(device), budget_ms: BUDGET_MS };
        let label = format!("rehearse {} casts of {}", spec.artifacts.len(), self.job.request.name);
        let work = WorkSpec::Rehearse { spec, device: device.fingerprint() };
        let keys = self.core.want(self.id, &[Want { spec: work, label, context: None }]).await?;
        let mut ended = self.wait_for(JobState::Linking, &keys, pins, BUDGET_MS * points.len() as u64).await?;
        Ok(match ended.remove(&keys[0]).and_then(|item| item.result) {
            Some(WorkResult::Rehearsed { seconds }) => Some(Rehearsal { outline, seconds }),
            _ => None,
        })
    }

    async fn tell_changes(&self, changes: &[Change], of: usize) -> Drive<()> {
        let summary = format!("rehearsed in the model: {} of {of} kernels gave way to a rival", changes.len());
        self.core.note(self.id, summary).await?;
        for Change { title, from, to } in changes {
            let [to, from] = [to, from].map(|(candidate, seconds)| (candidate.label(), seconds * 1e3));
            let text = format!("{title}: {} takes {:.3} ms where {} takes {:.3}", to.0, to.1, from.0, from.1);
            self.core.note(self.id, text).await?;
        }
        Ok(())
    }
}

/// The winners of the races.
fn by_race(contests: Vec<Contest>) -> Cast {
    let winners = contests.into_iter().map(|mut contest| (contest.task, contest.candidates.swap_remove(0))).collect();
    Cast { winners, segments: Vec::new() }
}
