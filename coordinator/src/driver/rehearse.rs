//! The rehearsal: links the casts of each variant, has their steps timed, and takes whoever is the fastest in the model.

use std::sync::Arc;

use aotfarm_protocol::{JobState, RehearseSpec, Target, WorkResult, WorkSpec};

use super::{Drive, Driver, compute, ids};
use crate::db::tables::jobs::Pins;
use crate::items::Want;
use crate::planner::{Blueprint, CandidateOutline, TaskRef};
use crate::rehearsal::{self, Change, Contest};

/// Milliseconds of runs for each point.
const BUDGET_MS: u64 = 1_500;

impl Driver {
    /// The winners of each variant's contests. A GPU's races are in graphs of launches, as its artifacts are, and its times scatter little: there the winners of
    /// the races stay.
    pub(super) async fn rehearse(
        &self,
        blueprint: &Arc<dyn Blueprint>,
        pins: &Pins,
        contests: Vec<Vec<Contest>>,
    ) -> Drive<Vec<Vec<(TaskRef, CandidateOutline)>>> {
        let mut choices = Vec::with_capacity(contests.len());
        for (index, contests) in contests.into_iter().enumerate() {
            let target = blueprint.variants()[index].target;
            let open = contests.iter().any(|c| c.candidates.len() > 1);
            if open && matches!(target, Target::Cpu(_)) && pins[&target].device.is_some() {
                choices.push(self.rehearse_variant(blueprint, pins, index, contests).await?);
            } else {
                choices.push(by_race(contests));
            }
        }
        Ok(choices)
    }

    async fn rehearse_variant(
        &self,
        blueprint: &Arc<dyn Blueprint>,
        pins: &Pins,
        index: usize,
        contests: Vec<Contest>,
    ) -> Drive<Vec<(TaskRef, CandidateOutline)>> {
        let target = blueprint.variants()[index].target;
        let pin = &pins[&target];
        let device = pin.device.as_ref().expect("a variant without a device is not rehearsed");
        let mut links = Vec::new();
        let mut steps = Vec::new();
        for (k, cast) in rehearsal::casts(&contests).into_iter().enumerate() {
            let (plan, ids) = (Arc::clone(blueprint), ids(&cast));
            let outline = compute(move || plan.link_for_rehearsal(index, &ids)).await??;
            steps.clone_from(&outline.steps);
            let label = format!("link cast {} of {} for {target}", k + 1, self.job.request.name);
            links.push(self.link_item(blueprint, outline, &cast, target, pin, label).await?);
        }
        let keys = self.core.want(self.id, &links).await?;
        let ended = self.wait_for(JobState::Linking, &keys, pins, 0).await?;
        let artifacts = keys.iter().map(|key| match ended[key].result {
            Some(WorkResult::Linked { artifact, .. }) => Some(artifact),
            _ => None,
        });
        let points = blueprint.profile_points();
        let seconds = match artifacts.collect::<Option<Vec<_>>>() {
            Some(artifacts) => {
                let spec = RehearseSpec {
                    artifacts,
                    target,
                    points: points.clone(),
                    threads: self.threads(device),
                    budget_ms: BUDGET_MS,
                };
                let label = format!("rehearse {} casts of {}", spec.artifacts.len(), self.job.request.name);
                let work = WorkSpec::Rehearse { spec, device: device.fingerprint() };
                let keys = self.core.want(self.id, &[Want { spec: work, label, context: None }]).await?;
                let mut ended = self.wait_for(JobState::Linking, &keys, pins, BUDGET_MS * points.len() as u64).await?;
                match ended.remove(&keys[0]).and_then(|item| item.result) {
                    Some(WorkResult::Rehearsed { seconds }) => Some(seconds),
                    _ => None,
                }
            }
            None => None,
        };
        let Some(seconds) = seconds else {
            // Its own link and profile will tell what is wrong, if it is the winners' fault.
            self.core.note(self.id, "the rehearsal did not come to an end; the winners of the races stay".to_owned()).await?;
            return Ok(by_race(contests));
        };
        let (winners, changes) = rehearsal::decide(&contests, &steps, &points, &seconds);
        self.tell_changes(&changes, winners.len()).await?;
        Ok(winners)
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
fn by_race(contests: Vec<Contest>) -> Vec<(TaskRef, CandidateOutline)> {
    contests.into_iter().map(|mut contest| (contest.task, contest.candidates.swap_remove(0))).collect()
}
