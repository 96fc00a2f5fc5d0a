//! Drives jobs from Queued to their end. All that a driver knows is in the database, or follows from the graph by pure
//! computation, so a driver that died is simply started again: it plans anew, asks for the same items, and finds those that are
//! done. Asking is idempotent, and there is no step that is not.

mod capability;
mod rehearse;
mod tune;
mod watch;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use aotfarm_protocol::{
    ApiError, ArtifactMetadata, BuildSpec, Device, DeviceKind, Digest, ErrorCode, JobEvent, JobId, JobState, LinkSpec, Profile,
    ProfileSpec, PublishRequest, Published, Target, WorkResult, WorkSpec,
};
use aotfarm_registry::CatalogError;
use aotfarm_store::{BlobError, Ending, JobRow, Pin, Pins, StoreError};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::core::Core;
use crate::error::{Error, chain};
use crate::items::Want;
use crate::pipeline::JobStep;
use crate::planner::{Blueprint, CandidateOutline, Cast, LinkOutline, PlanError, TaskRef};

/// How often a job is driven again after the database or the disk failed, before it is given up.
const RETRIES: u32 = 5;
/// Plans that are made at once: each may take seconds of all cores.
const PLANNERS: usize = 2;
/// Milliseconds of timed runs per point of a Profile.
const PROFILE_BUDGET_MS: u64 = 600;
/// The longest that a driver sleeps without looking at the database.
const LOOK: Duration = Duration::from_secs(1);

/// Why a driver stops before the end.
enum Stop {
    /// The job is no longer in the state that this driver brought it to: it was cancelled.
    Gone,
    /// The job cannot succeed.
    Fail(ApiError),
    /// The database or the disk failed; the job may succeed later.
    Broken(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        let passing = match &error {
            Error::Api(_) | Error::DataDir { .. } | Error::Listen { .. } | Error::Serve(_) => false,
            Error::Store(_) => true,
            Error::Blob(blob) => matches!(blob, BlobError::File(_)),
            Error::Catalog(catalog) => matches!(catalog, CatalogError::Database { .. }),
        };
        if passing { Self::Broken(error) } else { Self::Fail(error.into()) }
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Broken(error.into())
    }
}

impl From<PlanError> for Stop {
    fn from(error: PlanError) -> Self {
        Self::Fail(ApiError { code: ErrorCode::BadRequest, message: error.message, hint: error.hint })
    }
}

type Drive<T> = Result<T, Stop>;

/// Runs `work` off the async threads.
async fn compute<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Drive<T> {
    let stopped = |e| Stop::Fail(ApiError::new(ErrorCode::Internal, format!("the compiler failed: {e}")));
    tokio::task::spawn_blocking(work).await.map_err(stopped)
}

/// Starts a driver for every unfinished job, now and whenever one is submitted, until `stop`.
pub(crate) async fn supervise(core: Arc<Core>, stop: CancellationToken) {
    let planners = Arc::new(Semaphore::new(PLANNERS));
    let mut drivers = JoinSet::new();
    let mut jobs_of: HashMap<tokio::task::Id, JobId> = HashMap::new();
    let mut listener = core.signals.jobs.listen();
    loop {
        match unfinished(&core).await {
            Ok(open) => {
                for job in open {
                    if !jobs_of.values().any(|id| *id == job.id) {
                        let id = job.id;
                        let handle = drivers.spawn(drive_to_end(Arc::clone(&core), Arc::clone(&planners), job));
                        jobs_of.insert(handle.id(), id);
                    }
                }
            }
            Err(error) => tracing::error!(error.message = chain(&error), "cannot look for jobs; trying again"),
        }
        tokio::select! {
            () = stop.cancelled() => break,
            () = listener.wait(LOOK) => {}
            Some(ended) = drivers.join_next_with_id() => {
                let (task, panicked) = match ended {
                    Ok((task, ())) => (task, false),
                    Err(error) => (error.id(), error.is_panic()),
                };
                if let Some(job) = jobs_of.remove(&task)
                    && panicked
                {
                    let error = ApiError::new(ErrorCode::Internal, "the coordinator met a defect; its log tells more");
                    let ending = Ending { error: Some(error), published: None };
                    if let Err(error) = core.advance(job, JobStep::Fail, &ending).await {
                        tracing::error!(job.id = %job, error.message = chain(&error), "cannot mark a job as failed");
                    }
                }
            }
        }
    }
    drivers.shutdown().await;
}

async fn unfinished(core: &Core) -> Result<Vec<JobRow>, Error> {
    let mut snapshot = core.store.read().await?;
    Ok(snapshot.unfinished_jobs().await?)
}

/// Drives a job, again after passing trouble, and writes down how it failed if it does.
async fn drive_to_end(core: Arc<Core>, planners: Arc<Semaphore>, job: JobRow) {
    let mut retries = 0;
    loop {
        let error = match drive(&core, &planners, job.id).await {
            Ok(()) | Err(Stop::Gone) => return,
            Err(Stop::Fail(error)) => error,
            Err(Stop::Broken(error)) if retries < RETRIES => {
                retries += 1;
                tracing::error!(job.id = %job.id, error.message = chain(&error), "driving a job failed; trying again");
                tokio::time::sleep(LOOK * (1 << retries)).await;
                continue;
            }
            Err(Stop::Broken(error)) => error.into(),
        };
        tracing::warn!(job.id = %job.id, error.code = ?error.code, "the job failed: {error}");
        let ending = Ending { error: Some(error), published: None };
        match core.advance(job.id, JobStep::Fail, &ending).await {
            Ok(_) => return,
            Err(error) => {
                tracing::error!(job.id = %job.id, error.message = chain(&error), "cannot mark a job as failed; trying again");
            }
        }
        tokio::time::sleep(LOOK * 5).await;
    }
}

/// One attempt, from what is stored about the job now.
async fn drive(core: &Arc<Core>, planners: &Semaphore, id: JobId) -> Drive<()> {
    let job = {
        let mut snapshot = core.store.read().await?;
        core.job(&mut *snapshot, id).await?
    };
    Driver { core: Arc::clone(core), id, job }.run(planners).await
}

/// One attempt at one job.
struct Driver {
    core: Arc<Core>,
    id: JobId,
    job: JobRow,
}

/// What the later phases need of a linked variant.
struct Linked {
    target: Target,
    artifact: Digest,
    metadata: ArtifactMetadata,
}

impl Driver {
    async fn run(&self, planners: &Semaphore) -> Drive<()> {
        self.core.advance(self.id, JobStep::Resume, &Ending::default()).await?;
        if self.follow().await? {
            return Ok(());
        }
        self.step(JobStep::Start).await?;
        let blueprint = self.plan(planners).await?;
        let check = self.check_case(Arc::clone(&blueprint));
        let pins = self.pin(&blueprint).await?;
        let contests = self.tune(&blueprint, &pins).await?;
        let casts = self.rehearse(&blueprint, &pins, contests).await?;
        let linked = self.link(&blueprint, &pins, casts).await?;
        self.step(JobStep::Linked).await?;
        let check =
            check.await.map_err(|e| Error::api(ErrorCode::Internal, format!("the reference interpreter failed: {e}")))??;
        let profiles = self.profile(&blueprint, &pins, &linked, check).await?;
        self.publish(linked, profiles).await
    }

    async fn step(&self, step: JobStep) -> Drive<()> {
        if self.core.advance(self.id, step, &Ending::default()).await? { Ok(()) } else { Err(Stop::Gone) }
    }

    async fn end(&self, step: JobStep, published: Published) -> Drive<()> {
        let ending = Ending { error: None, published: Some(published) };
        if self.core.advance(self.id, step, &ending).await? { Ok(()) } else { Err(Stop::Gone) }
    }

    /// If an equal job runs already, shows its log as one's own and takes its answer: the work is the same, and so is the version.
    /// `false` when this job must do the work itself.
    async fn follow(&self) -> Drive<bool> {
        loop {
            let leader = {
                let mut snapshot = self.core.store.read().await?;
                snapshot.earlier_job(self.job.key, self.id).await?
            };
            let Some(leader) = leader else { return Ok(false) };
            self.core.note(self.id, format!("the same work is being done by job {leader}; waiting for it")).await?;
            let mut seen = 0;
            let ended = loop {
                let mut listener = self.core.signals.events.listen();
                let (entries, row) = {
                    let mut snapshot = self.core.store.read().await?;
                    // Both of one moment: what was logged before the end is among the entries.
                    let row = self.core.job(&mut *snapshot, leader).await?;
                    (snapshot.events_after(leader, seen, 1000).await?, row)
                };
                self.expect(JobState::Queued).await?;
                for entry in &entries {
                    seen = entry.seq;
                    let own =
                        matches!(entry.event, JobEvent::State { .. } | JobEvent::Published { .. } | JobEvent::Failed { .. });
                    if !own {
                        self.core.emit(self.id, &entry.event).await?;
                    }
                }
                if row.state.is_final() {
                    break row;
                }
                if entries.is_empty() {
                    listener.wait(LOOK).await;
                }
            };
            match (ended.published, ended.error) {
                (Some(published), _) => {
                    self.end(JobStep::Answer, Published { existed: true, ..published }).await?;
                    return Ok(true);
                }
                (None, Some(error)) => return Err(Stop::Fail(error)),
                // It was cancelled: look for the next one to follow, or lead.
                (None, None) => {}
            }
        }
    }

    async fn plan(&self, planners: &Semaphore) -> Drive<Arc<dyn Blueprint>> {
        let _permit = planners.acquire().await;
        let graph = self.core.blobs.get(self.job.request.graph).await.map_err(Error::from)?;
        let (planner, request) = (Arc::clone(&self.core.planner), self.job.request.clone());
        Ok(compute(move || planner.plan(graph, &request)).await??)
    }

    /// Starts making the case that every artifact must reproduce: it takes seconds, so it runs while kernels are built.
    fn check_case(&self, blueprint: Arc<dyn Blueprint>) -> JoinHandle<Drive<Digest>> {
        let blobs = self.core.blobs.clone();
        tokio::spawn(async move {
            let case = compute(move || blueprint.check_case()).await??;
            Ok(blobs.put(case.into()).await.map_err(Error::from)?)
        })
    }

    /// A Build item, its source put into the store.
    async fn build(&self, blueprint: &Arc<dyn Blueprint>, unit: Digest, target: Target, pin: &Pin, label: String) -> Drive<Want> {
        if !self.core.blobs.contains(unit).await.map_err(Error::from)? {
            self.core.blobs.put_expected(unit, blueprint.source(unit).into()).await.map_err(Error::from)?;
        }
        let spec = BuildSpec { source: unit, target, flags: Vec::new(), toolchain: pin.toolchain.clone() };
        Ok(Want { spec: WorkSpec::Build(spec), label, context: None })
    }

    async fn link(&self, blueprint: &Arc<dyn Blueprint>, pins: &Pins, casts: Vec<Cast>) -> Drive<Vec<Linked>> {
        let mut wants = Vec::new();
        let mut parts = Vec::new();
        for (index, cast) in casts.into_iter().enumerate() {
            let target = blueprint.variants()[index].target;
            let pin = &pins[&target];
            let winners = cast.winners.clone();
            let plan = Arc::clone(blueprint);
            let untested = pin.device.is_none().then(|| format!("no device that runs {target} was there to measure on"));
            let outline = compute(move || plan.link(index, &cast, untested)).await??;
            parts.push((target, outline.metadata.clone()));
            let label = format!("link {} for {target}", self.job.request.name);
            wants.push(self.link_item(blueprint, outline, &winners, target, pin, label).await?);
        }
        let keys = self.core.want(self.id, &wants).await?;
        let ended = self.wait_for(JobState::Linking, &keys, pins, 0).await?;
        let mut linked = Vec::new();
        for (key, (target, metadata)) in keys.iter().zip(parts) {
            match &ended[key].result {
                Some(WorkResult::Linked { artifact, .. }) => linked.push(Linked { target, artifact: *artifact, metadata }),
                other => return Err(Stop::Fail(unusable("the artifact", target, other.as_ref(), &ended[key].log))),
            }
        }
        Ok(linked)
    }

    /// A Link item, its objects built and its other parts put into the store.
    async fn link_item(
        &self,
        blueprint: &Arc<dyn Blueprint>,
        outline: LinkOutline,
        choices: &[(TaskRef, CandidateOutline)],
        target: Target,
        pin: &Pin,
        label: String,
    ) -> Drive<Want> {
        let objects = self.objects(blueprint, &outline, choices, target, pin).await?;
        let glue = self.core.blobs.put(outline.glue.into()).await.map_err(Error::from)?;
        let weights = self.core.blobs.put(outline.weights.into()).await.map_err(Error::from)?;
        let spec = LinkSpec {
            target,
            toolchain: pin.linker.clone(),
            glue,
            objects,
            weights,
            section_bytes: outline.section_bytes,
            packs: outline.packs,
            copies: outline.copies,
        };
        Ok(Want { spec: WorkSpec::Link(spec), label, context: None })
    }

    /// The objects of an artifact, in the order of its units. Nearly all were built while tuning.
    async fn objects(
        &self,
        blueprint: &Arc<dyn Blueprint>,
        outline: &LinkOutline,
        choices: &[(TaskRef, CandidateOutline)],
        target: Target,
        pin: &Pin,
    ) -> Drive<Vec<Digest>> {
        let mut wants = Vec::new();
        for unit in &outline.units {
            let family = choices.iter().find(|(_, c)| c.unit == *unit).map_or("kernel", |(_, c)| c.family.as_str());
            wants.push(self.build(blueprint, *unit, target, pin, format!("{family} for the artifact")).await?);
        }
        let keys = self.core.want(self.id, &wants).await?;
        let pins = Pins::from([(target, pin.clone())]);
        let ended = self.wait_for(JobState::Linking, &keys, &pins, 0).await?;
        let object = |key| match &ended[key].result {
            Some(WorkResult::Built { object }) => Ok(*object),
            other => Err(Stop::Fail(unusable("a kernel of the artifact", target, other.as_ref(), &ended[key].log))),
        };
        keys.iter().map(object).collect()
    }

    async fn profile(
        &self,
        blueprint: &Arc<dyn Blueprint>,
        pins: &Pins,
        linked: &[Linked],
        check: Digest,
    ) -> Drive<Vec<Profile>> {
        let points = blueprint.profile_points();
        let measurable: Vec<(&Linked, &Device)> =
            linked.iter().filter_map(|variant| Some((variant, pins[&variant.target].device.as_ref()?))).collect();
        let wants: Vec<Want> = measurable
            .iter()
            .map(|(variant, device)| {
                let spec = ProfileSpec {
                    artifact: variant.artifact,
                    target: variant.target,
                    check,
                    tolerance_e9: (self.job.request.precision.tolerance() * 1e9).round() as u64,
                    points: points.clone(),
                    threads: self.threads(device),
                    budget_ms: PROFILE_BUDGET_MS,
                };
                let label = format!("check and profile {} for {}", self.job.request.name, variant.target);
                Want { spec: WorkSpec::Profile { spec, device: device.fingerprint() }, label, context: None }
            })
            .collect();
        let keys = self.core.want(self.id, &wants).await?;
        let ended = self.wait_for(JobState::Profiling, &keys, pins, PROFILE_BUDGET_MS * points.len() as u64).await?;
        let mut profiles = Vec::new();
        for (key, (variant, _)) in keys.iter().zip(&measurable) {
            match &ended[key].result {
                Some(WorkResult::Profiled { profiles: found, .. }) => profiles.extend(found.iter().cloned()),
                other => return Err(Stop::Fail(unusable("the artifact", variant.target, other.as_ref(), &ended[key].log))),
            }
        }
        Ok(profiles)
    }

    async fn publish(&self, linked: Vec<Linked>, profiles: Vec<Profile>) -> Drive<()> {
        let request = PublishRequest {
            name: self.job.request.name.clone(),
            graph: self.job.request.graph,
            variants: linked.into_iter().map(|v| (v.target, v.artifact, v.metadata)).collect(),
            profiles,
        };
        self.expect(JobState::Profiling).await?;
        let published = self.core.catalog.publish(&request, self.core.now() / 1000).await.map_err(Error::from)?;
        self.end(JobStep::Publish, published).await
    }

    fn threads(&self, device: &Device) -> u32 {
        match device.kind {
            DeviceKind::Cpu => self.job.request.threads.unwrap_or(device.cores).max(1),
            DeviceKind::Cuda => 1,
        }
    }

    /// Stops the driver when the job is no longer in `state`.
    async fn expect(&self, state: JobState) -> Drive<()> {
        let mut snapshot = self.core.store.read().await?;
        let row = self.core.job(&mut *snapshot, self.id).await?;
        if row.state == state { Ok(()) } else { Err(Stop::Gone) }
    }
}

/// The error of a job one of whose last items did not come out.
fn unusable(what: &str, target: Target, result: Option<&WorkResult>, log: &[String]) -> ApiError {
    let reason = match result {
        Some(WorkResult::Rejected { reason }) => reason.clone(),
        Some(WorkResult::BuildFailed { log }) => format!("it does not compile: {log}"),
        Some(other) => format!("the worker answered something else: {other:?}"),
        None => format!("it failed on every attempt: {}", log.last().map_or("no worker said why", String::as_str)),
    };
    ApiError::new(ErrorCode::Internal, format!("{what} for {target} is not usable: {reason}"))
        .hint("`aotfarm logs JOB` shows what the workers said")
}
