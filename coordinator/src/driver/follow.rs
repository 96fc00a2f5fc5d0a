//! A job whose work another job does already.

use aotfarm_protocol::{JobEvent, JobId, JobState, Published};
use aotfarm_store::JobRow;

use super::attempt::{Attempt, Drive, LOOK, Stop};
use crate::pipeline::JobStep;

/// If an equal job runs already, shows its log as one's own and takes its answer: the work is the
/// same, and so is the version. `false` when this job must do the work itself.
pub(super) async fn follow(attempt: &Attempt) -> Drive<bool> {
    loop {
        let earlier = {
            let mut snapshot = attempt.core.store.read().await?;
            snapshot.earlier_job(attempt.job.key, attempt.id).await?
        };
        let Some(earlier) = earlier else { return Ok(false) };
        attempt.note(format!("the same work is being done by job {earlier}; waiting for it")).await?;
        let ended = show_log(attempt, earlier).await?;
        match (ended.published, ended.error) {
            (Some(published), _) => {
                attempt.end(JobStep::Answer, Published { existed: true, ..published }).await?;
                return Ok(true);
            }
            (None, Some(error)) => return Err(Stop::Fail(error)),
            // It was cancelled: look for the next one to follow, or do the work.
            (None, None) => {}
        }
    }
}

/// Shows what another job logs until it has ended, but for its states and its end.
async fn show_log(attempt: &Attempt, other: JobId) -> Drive<JobRow> {
    let mut seen = 0;
    loop {
        let mut listener = attempt.core.signals.events.listen();
        let (entries, row) = {
            let mut snapshot = attempt.core.store.read().await?;
            // The row first: what was logged before the end is then among the entries.
            let row = attempt.core.job(&mut *snapshot, other).await?;
            (snapshot.events_after(other, seen, 1000).await?, row)
        };
        attempt.expect(JobState::Queued).await?;
        for entry in &entries {
            seen = entry.seq;
            let own = matches!(entry.event, JobEvent::State { .. } | JobEvent::Published { .. } | JobEvent::Failed { .. });
            if !own {
                attempt.core.emit(attempt.id, &entry.event).await?;
            }
        }
        if row.state.is_final() {
            return Ok(row);
        }
        if entries.is_empty() {
            listener.wait(LOOK).await;
        }
    }
}
