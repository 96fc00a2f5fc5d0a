//! The workers' side: register, claim, keep alive, report, leave; and the judge of those who fall silent.

use std::time::Duration;

use aotfarm_protocol::{
    Capabilities, ClaimRequest, Device, DeviceKind, ErrorCode, Heartbeat, HeartbeatResponse, JobEvent, JobId, Lease, Outcome,
    Registered, Report, TuningRecord, WorkItemId, WorkKind, WorkResult, WorkSpec, WorkerId, WorkerState,
};
use aotfarm_store::{Item, ItemRow, Snapshot, Transaction, WorkerRow};
use uuid::Uuid;

use crate::assign::{AssignmentProblem, HostLease, assign};
use crate::core::Core;
use crate::error::Error;
use crate::item::{Change, ItemEvent};
use crate::items::result_blob;

/// The longest that a claim or a watcher may wait.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(30);
/// Most items in one claim.
const MAX_CLAIM: u32 = 64;
/// Longest line that is kept of what a worker says went wrong.
const MAX_LOG: usize = 4_000;

impl Core {
    /// Adds a worker.
    pub(crate) async fn register(&self, capabilities: &Capabilities) -> Result<Registered, Error> {
        let id = WorkerId(Uuid::now_v7());
        let mut tx = self.store.write().await?;
        tx.insert_worker(id, capabilities, self.now()).await?;
        tx.commit().await?;
        self.signals.progress.raise();
        tracing::info!(worker.id = %id, worker.host = capabilities.host, worker.slots = capabilities.slots, "a worker registered");
        Ok(Registered { worker: id, heartbeat_ms: self.config.heartbeat_ms.unsigned_abs() })
    }

    /// A worker that may ask for something; unknown and gone ones must register again.
    async fn present(&self, snapshot: &mut dyn Snapshot, id: WorkerId) -> Result<WorkerRow, Error> {
        let worker = snapshot.worker(id).await?.filter(|w| w.gone_at.is_none());
        worker.ok_or_else(|| Error::api(ErrorCode::NotFound, format!("worker {id} is not registered")))
    }

    /// Gives work to a worker, waiting for some as long as it asks.
    pub(crate) async fn claim(&self, id: WorkerId, request: &ClaimRequest) -> Result<Vec<Lease>, Error> {
        let wait = Duration::from_millis(request.wait_ms).min(MAX_WAIT);
        let deadline = tokio::time::Instant::now() + wait;
        let mut listener = self.signals.work.listen();
        self.touch(id).await?;
        loop {
            let leases = self.try_claim(id, request).await?;
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            if !leases.is_empty() || left.is_zero() {
                return Ok(leases);
            }
            // Patience for exclusive items runs out without a signal, so look again now and then.
            listener.wait(left.min(Duration::from_millis(500))).await;
        }
    }

    /// Whoever asks is alive.
    async fn touch(&self, id: WorkerId) -> Result<(), Error> {
        let mut tx = self.store.write().await?;
        self.present(&mut *tx, id).await?;
        tx.touch_worker(id, self.now()).await?;
        Ok(tx.commit().await?)
    }

    async fn try_claim(&self, id: WorkerId, request: &ClaimRequest) -> Result<Vec<Lease>, Error> {
        // Most polls find nothing: look without the write lock first.
        let idle = {
            let mut snapshot = self.store.read().await?;
            self.present(&mut *snapshot, id).await?;
            snapshot.queued_items().await?.is_empty()
        };
        if idle {
            return Ok(Vec::new());
        }
        let mut tx = self.store.write().await?;
        let now = self.now();
        let worker = self.present(&mut *tx, id).await?;
        let problem = self.problem(&mut *tx, &worker, request).await?;
        let mut leases = Vec::new();
        for assignment in assign(&problem, now) {
            let Some(row) = tx.item(assignment.item).await? else { continue };
            let event = ItemEvent::Claim { worker: id, until: assignment.expires_at };
            if let Change::To(item) = self.step(&mut *tx, row.key, &row.item, event).await? {
                tracing::debug!(item.key = %row.key, lease.generation = item.generation, worker.id = %id, "leased: {}", row.label);
                let expires_in_ms = self.config.lease_ms.unsigned_abs();
                leases.push(Lease { item: row.key, generation: item.generation, expires_in_ms, spec: row.spec });
            }
        }
        if leases.is_empty() {
            return Ok(leases);
        }
        tx.commit().await?;
        self.signals.progress.raise();
        Ok(leases)
    }

    /// A snapshot of what a claim competes with.
    async fn problem(
        &self,
        snapshot: &mut dyn Snapshot,
        worker: &WorkerRow,
        request: &ClaimRequest,
    ) -> Result<AssignmentProblem, Error> {
        let present = snapshot.present_workers().await?;
        let here = worker.capabilities.host.as_str();
        let gpu = |w: &WorkerRow| w.capabilities.device.as_ref().is_some_and(|d| d.kind == DeviceKind::Cuda);
        let leased = snapshot.leased_items().await?;
        let host_leases = leased
            .iter()
            .filter_map(|lease| {
                let holder = present.iter().find(|w| Some(w.id) == lease.item.worker && w.capabilities.host == here)?;
                Some(HostLease { kind: lease.kind, gpu: gpu(holder), own: holder.id == worker.id })
            })
            .collect();
        let live = |w: &&WorkerRow| w.capabilities.host == here && self.judge(w) == WorkerState::Alive;
        Ok(AssignmentProblem {
            toolchains: worker.capabilities.toolchains.clone(),
            device: worker.device(),
            gpu: gpu(worker),
            draining: worker.draining,
            kinds: request.kinds.clone(),
            max: request.max.min(MAX_CLAIM),
            host_leases,
            host_devices: present.iter().filter(live).filter(|w| !gpu(w)).filter_map(WorkerRow::device).collect(),
            queued: snapshot.queued_items().await?,
            running: snapshot.leases_by_job().await?,
            lease_ms: self.config.lease_ms,
        })
    }

    /// Renews the leases that a worker names, and tells which it has lost. A lease that it does not name is not renewed: the
    /// answer that gave it may never have arrived.
    pub(crate) async fn heartbeat(&self, id: WorkerId, heartbeat: &Heartbeat) -> Result<HeartbeatResponse, Error> {
        let mut tx = self.store.write().await?;
        let now = self.now();
        let worker = self.present(&mut *tx, id).await?;
        tx.touch_worker(id, now).await?;
        let mut lost = Vec::new();
        for (key, generation) in &heartbeat.leases {
            let event = ItemEvent::Renew { worker: id, generation: *generation, until: now + self.config.lease_ms };
            let kept = match tx.item(*key).await? {
                Some(row) => matches!(self.step(&mut *tx, *key, &row.item, event).await?, Change::To(_)),
                None => false,
            };
            if !kept {
                lost.push(*key);
            }
        }
        tx.commit().await?;
        Ok(HeartbeatResponse { lost, drain: worker.draining })
    }

    /// Takes a result or a failure, if the worker still has the lease.
    pub(crate) async fn report(&self, key: WorkItemId, report: &Report) -> Result<(), Error> {
        // Before the transaction, as it may be slow: a result without its blob is no result.
        if let Ok(result) = &report.result
            && let Some(blob) = result_blob(result)
            && !self.blobs.contains(blob).await?
        {
            return Err(Error::api(ErrorCode::BadRequest, format!("blob {blob} of the result was not uploaded")));
        }
        let mut tx = self.store.write().await?;
        let now = self.now();
        let row = tx.item(key).await?;
        let row = row.ok_or_else(|| Error::api(ErrorCode::NotFound, format!("there is no work item {key}")))?;
        if let Ok(result) = &report.result {
            check_result(&row.spec, result)
                .map_err(|why| Error::api(ErrorCode::BadRequest, format!("work item {key}: {why}")))?;
        }
        let event = ItemEvent::Report { worker: report.worker, generation: report.generation, ok: report.result.is_ok() };
        let after = match self.step(&mut *tx, key, &row.item, event).await? {
            Change::To(after) => after,
            Change::Same => return Ok(()),
            Change::LeaseLost => {
                return Err(Error::api(
                    ErrorCode::LeaseLost,
                    format!("worker {} no longer has work item {key} at generation {}", report.worker, report.generation),
                ));
            }
        };
        let worker = tx.worker(report.worker).await?;
        let drained = tx.count_item(report.worker, report.result.is_ok(), self.config.drain_after).await?;
        tx.touch_worker(report.worker, now).await?;
        let mut noted = false;
        match &report.result {
            Ok(result) => {
                tx.set_result(key, result, report.run_ms).await?;
                if let (WorkResult::Measured { outcomes }, Some(device)) =
                    (result, worker.as_ref().and_then(|w| w.capabilities.device.clone()))
                {
                    record(&mut *tx, &row, outcomes, &device, now).await?;
                }
            }
            Err(why) => {
                let name = worker.as_ref().map_or_else(|| report.worker.to_string(), WorkerRow::name);
                let line = format!("{name}: {}", shorten(why, MAX_LOG));
                noted = self.failed_attempt(&mut *tx, &row.label, key, &after, &line).await?;
                if drained && !worker.as_ref().is_some_and(|w| w.draining) {
                    tracing::warn!(worker.id = %report.worker, "worker {name} failed repeatedly and is drained");
                    noted |=
                        self.note_jobs(&mut *tx, key, &format!("worker {name} failed repeatedly and gets no more work")).await?;
                }
            }
        }
        tx.commit().await?;
        self.raise_after(noted);
        Ok(())
    }

    /// A worker leaves: its leases go back at once, and that is no failed attempt.
    pub(crate) async fn leave(&self, id: WorkerId) -> Result<(), Error> {
        let mut tx = self.store.write().await?;
        tx.worker_left(id, self.now()).await?;
        for lease in tx.leased_items().await?.into_iter().filter(|l| l.item.worker == Some(id)) {
            self.step(&mut *tx, lease.key, &lease.item, ItemEvent::Release { worker: id }).await?;
        }
        tx.commit().await?;
        self.raise_after(false);
        Ok(())
    }

    /// Takes back the leases that have expired, and forgets workers that have been silent for long. Called every second.
    pub(crate) async fn judge_silent(&self) -> Result<(), Error> {
        let now = self.now();
        let due = {
            let mut snapshot = self.store.read().await?;
            let leased = snapshot.leased_items().await?;
            let silent = snapshot.present_workers().await?.iter().any(|w| w.seen_at < now - self.config.gone_ms);
            silent || leased.iter().any(|l| l.item.expires_at.is_none_or(|at| at < now))
        };
        if !due {
            return Ok(());
        }
        let mut tx = self.store.write().await?;
        let mut noted = false;
        for lease in tx.leased_items().await? {
            if let Change::To(after) = self.step(&mut *tx, lease.key, &lease.item, ItemEvent::Expire { now }).await? {
                let worker = match lease.item.worker {
                    Some(id) => tx.worker(id).await?.map_or_else(|| id.to_string(), |w| w.name()),
                    None => "a worker".to_owned(),
                };
                let line = format!("{worker}: was not heard of until the lease ended");
                noted |= self.failed_attempt(&mut *tx, &lease.label, lease.key, &after, &line).await?;
            }
        }
        tx.forget_silent_workers(now - self.config.gone_ms, now).await?;
        tx.commit().await?;
        self.raise_after(noted);
        Ok(())
    }

    /// After a start: what was leased stays leased for the grace period, as its worker may be at work without us.
    pub(crate) async fn grant_grace(&self) -> Result<(), Error> {
        let mut tx = self.store.write().await?;
        tx.extend_leases(self.now() + self.config.grace_ms).await?;
        tx.commit().await?;
        Ok(())
    }

    fn raise_after(&self, noted: bool) {
        self.signals.work.raise();
        self.signals.progress.raise();
        if noted {
            self.signals.events.raise();
        }
    }

    /// Logs a failed attempt and tells the jobs; returns whether a job's log grew.
    async fn failed_attempt(
        &self,
        tx: &mut dyn Transaction,
        label: &str,
        key: WorkItemId,
        after: &Item,
        line: &str,
    ) -> Result<bool, Error> {
        tx.add_log(key, line).await?;
        let fate = match after.state {
            aotfarm_protocol::ItemState::Quarantined => "it is given up",
            _ => "it is given out again",
        };
        tracing::warn!(item.key = %key, item.attempts = after.attempts, "{label}: {line}; {fate}");
        self.note_jobs(tx, key, &format!("{label}: attempt {} failed, {fate} ({line})", after.attempts)).await
    }

    async fn note_jobs(&self, tx: &mut dyn Transaction, key: WorkItemId, message: &str) -> Result<bool, Error> {
        let jobs: Vec<JobId> = tx.jobs_that_need(key).await?;
        for job in &jobs {
            self.log(tx, *job, &JobEvent::Note { message: message.to_owned() }).await?;
        }
        Ok(!jobs.is_empty())
    }
}

/// Stores the outcomes of a Measure item as TuningRecords.
async fn record(
    tx: &mut dyn Transaction,
    row: &ItemRow,
    outcomes: &[(aotfarm_protocol::CandidateId, Outcome)],
    device: &Device,
    now: i64,
) -> Result<(), Error> {
    let (WorkSpec::Measure { spec, .. }, Some(context)) = (&row.spec, &row.context) else { return Ok(()) };
    for (candidate, outcome) in outcomes {
        let Some((_, family, params)) = context.candidates.iter().find(|(id, ..)| id == candidate) else { continue };
        let record = TuningRecord {
            task: spec.task,
            candidate: *candidate,
            family: family.clone(),
            params: params.clone(),
            target: context.target,
            device: device.clone(),
            protocol: spec.protocol,
            outcome: outcome.clone(),
            at: now / 1000,
        };
        tx.append_record(row.key, &record).await?;
    }
    Ok(())
}

/// Whether a result can be that of the item.
fn check_result(spec: &WorkSpec, result: &WorkResult) -> Result<(), String> {
    let fits = match (spec, result) {
        (WorkSpec::Build(_), WorkResult::Built { .. } | WorkResult::BuildFailed { .. })
        | (WorkSpec::Link(_), WorkResult::Linked { .. } | WorkResult::Rejected { .. })
        | (WorkSpec::ModelRace { .. } | WorkSpec::Profile { .. }, WorkResult::Rejected { .. }) => true,
        (WorkSpec::ModelRace { spec, .. }, WorkResult::ModelRaced { seconds }) => {
            seconds.len() == spec.points.len() && seconds.iter().all(|point| point.len() == spec.artifacts.len())
        }
        (WorkSpec::Profile { spec, .. }, WorkResult::Profiled { profiles, .. }) => profiles.len() == spec.points.len(),
        (WorkSpec::Measure { spec, .. }, WorkResult::Measured { outcomes }) => {
            outcomes.iter().map(|(id, _)| id).eq(spec.candidates.iter().map(|c| &c.candidate))
        }
        _ => false,
    };
    let kind: WorkKind = spec.kind();
    fits.then_some(()).ok_or_else(|| format!("the result is not one of a {kind:?} item, or does not cover all of it"))
}

/// At most `limit` bytes of a text, cut at a character.
fn shorten(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}
