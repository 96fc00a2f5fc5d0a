//! How jobs get work items, and let go of them.

use aotfarm_protocol::{Digest, ErrorCode, ItemState, JobId, WorkItemId, WorkResult, WorkSpec};
use aotfarm_store::{Item, MeasureContext, Transaction};

use crate::core::Core;
use crate::error::Error;
use crate::item::{Change, ItemEvent, apply};

/// A work item that a job needs.
#[derive(Debug, Clone)]
pub(crate) struct Want {
    pub(crate) spec: WorkSpec,
    /// What it does, in words.
    pub(crate) label: String,
    /// Of a Measure: what its TuningRecords say beyond the spec.
    pub(crate) context: Option<MeasureContext>,
}

impl Core {
    /// Makes sure that these items exist, are queued or done, and belong to the job. Asking again changes nothing.
    pub(crate) async fn want(&self, job: JobId, wants: &[Want]) -> Result<Vec<WorkItemId>, Error> {
        let keys: Vec<WorkItemId> = wants.iter().map(|w| w.spec.id()).collect();
        let lost = self.lost_results(&keys).await?;
        let mut tx = self.store.write().await?;
        let now = self.now();
        for (key, want) in keys.iter().zip(wants) {
            let row = tx.item(*key).await?;
            let Some(row) = row else {
                tx.insert_item(&want.spec, &want.label, want.context.as_ref(), now).await?;
                tx.link_item(job, *key, false).await?;
                continue;
            };
            let done = row.item.state == ItemState::Done && !lost.contains(key);
            let afresh = tx.link_item(job, *key, done).await?;
            let event = if lost.contains(key) { ItemEvent::Forget } else { ItemEvent::Want { afresh } };
            self.step(&mut *tx, *key, &row.item, event).await?;
        }
        tx.commit().await?;
        self.signals.work.raise();
        Ok(keys)
    }

    /// Those of `keys` whose stored result names a blob that is no longer in the store (it was found damaged, say).
    async fn lost_results(&self, keys: &[WorkItemId]) -> Result<Vec<WorkItemId>, Error> {
        let mut lost = Vec::new();
        for key in keys {
            let row = {
                let mut snapshot = self.store.read().await?;
                snapshot.item(*key).await?
            };
            let blob = row.filter(|r| r.item.state == ItemState::Done).and_then(|r| r.result).as_ref().and_then(result_blob);
            if let Some(blob) = blob
                && !self.blobs.contains(blob).await?
            {
                tracing::warn!(item.key = %key, blob.digest = %blob, "a cached result lost its blob; the item runs again");
                lost.push(*key);
            }
        }
        Ok(lost)
    }

    /// Applies an event of the pure state machine to a row that was read in this transaction.
    pub(crate) async fn step(
        &self,
        tx: &mut dyn Transaction,
        key: WorkItemId,
        before: &Item,
        event: ItemEvent,
    ) -> Result<Change, Error> {
        let change = apply(before, event);
        if let Change::To(after) = &change
            && !tx.save_item(key, before, after, self.now()).await?
        {
            // The write lock is held since before the row was read, so this is a defect, not a race.
            return Err(Error::api(ErrorCode::Internal, format!("work item {key} changed inside a transaction")));
        }
        Ok(change)
    }

    /// A job ended without needing its open items: those that no other job needs are dropped, and workers that run them are told
    /// at their next heartbeat.
    pub(crate) async fn drop_items(&self, tx: &mut dyn Transaction, job: JobId) -> Result<(), Error> {
        for key in tx.items_only_needed_by(job).await? {
            if let Some(row) = tx.item(key).await? {
                self.step(tx, key, &row.item, ItemEvent::Drop).await?;
            }
        }
        Ok(())
    }
}

/// The blob that a result points to.
pub(crate) fn result_blob(result: &WorkResult) -> Option<Digest> {
    match result {
        WorkResult::Built { object } => Some(*object),
        WorkResult::Linked { artifact, .. } => Some(*artifact),
        WorkResult::BuildFailed { .. }
        | WorkResult::Measured { .. }
        | WorkResult::ModelRaced { .. }
        | WorkResult::Profiled { .. }
        | WorkResult::Rejected { .. } => None,
    }
}
