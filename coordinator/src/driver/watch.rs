//! Waiting for items, and telling the watchers of a job how far it is.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use aotfarm_protocol::{Count, JobEvent, JobState, WorkItemId, WorkKind};
use tokio::time::Instant;

use super::attempt::{Attempt, Drive, LOOK};
use super::capability::{Missing, check_capability};
use aotfarm_store::{Ended, Pins};

/// Progress is told at most this often.
const THROTTLE: Duration = Duration::from_millis(250);
/// Looking at the database this often is enough, however fast items end.
const BREATH: Duration = Duration::from_millis(25);

type Told = (BTreeMap<WorkKind, Count>, Vec<(String, String)>);

/// What was told last, and when.
pub(super) struct Watch {
    told: Option<Told>,
    at: Instant,
    pub(super) missing: Missing,
}

impl Watch {
    pub(super) fn new() -> Self {
        Self { told: None, at: Instant::now(), missing: Missing::default() }
    }
}

/// Tells the job's watchers how far it is, if that changed and was not told just now.
pub(super) async fn tell(attempt: &Attempt, watch: &mut Watch, to_come_ms: u64) -> Drive<()> {
    if watch.told.is_some() && watch.at.elapsed() < THROTTLE {
        return Ok(());
    }
    let (items, running, average) = {
        let mut snapshot = attempt.core.store.read().await?;
        (
            snapshot.item_counts(attempt.id).await?,
            snapshot.running_items(attempt.id).await?,
            snapshot.average_run_ms(attempt.id).await?,
        )
    };
    let now = (items, running);
    watch.at = Instant::now();
    if watch.told.as_ref() == Some(&now) {
        return Ok(());
    }
    let eta_s = eta(&now.0, &average, to_come_ms);
    watch.told = Some(now.clone());
    let (items, running) = now;
    attempt.core.emit(attempt.id, &JobEvent::Progress { items, running, eta_s }).await?;
    Ok(())
}

/// Waits until all of `keys` have ended, with results or quarantined. The job must stay in `state`.
/// `to_come_ms` is measuring time that is still ahead, for the estimate.
pub(super) async fn wait_for(
    attempt: &Attempt,
    state: JobState,
    keys: &[WorkItemId],
    pins: &Pins,
    to_come_ms: u64,
) -> Drive<HashMap<WorkItemId, Ended>> {
    let mut watch = Watch::new();
    loop {
        let mut listener = attempt.core.signals.progress.listen();
        attempt.expect(state).await?;
        let ended = {
            let mut snapshot = attempt.core.store.read().await?;
            snapshot.ended_items(attempt.id, keys).await?
        };
        tell(attempt, &mut watch, to_come_ms).await?;
        let ended: HashMap<WorkItemId, Ended> = ended.into_iter().map(|e| (e.key, e)).collect();
        if keys.iter().all(|key| ended.contains_key(key)) {
            return Ok(ended);
        }
        check_capability(attempt, &mut watch.missing, pins).await?;
        tokio::time::sleep(BREATH).await;
        listener.wait(LOOK).await;
    }
}

/// Seconds to go: what is left of each kind at its average so far, by as many workers as work now,
/// and the measuring that is still to be asked for. `None` while nothing has ended that could tell.
fn eta(items: &BTreeMap<WorkKind, Count>, average_ms: &BTreeMap<WorkKind, f64>, to_come_ms: u64) -> Option<f64> {
    let left = |kind: WorkKind| -> f64 {
        let (Some(count), Some(average)) = (items.get(&kind), average_ms.get(&kind)) else { return 0.0 };
        f64::from(count.total.saturating_sub(count.done)) * average / f64::from(count.running.max(1))
    };
    (!average_ms.is_empty()).then(|| (left(WorkKind::Build) + left(WorkKind::Link) + to_come_ms as f64) / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimate_divides_builds_among_those_that_build() {
        let count = Count { total: 12, done: 2, cached: 0, running: 2 };
        let items = BTreeMap::from([(WorkKind::Build, count)]);
        assert_eq!(eta(&items, &BTreeMap::new(), 500), None);
        assert_eq!(eta(&items, &BTreeMap::from([(WorkKind::Build, 400.0)]), 500), Some(2.5));
    }
}
