//! Drives jobs from Queued to their end, one file a phase. All that an attempt knows is in the
//! database, or follows from the graph by pure computation, so one that died is simply started
//! again: it plans anew, asks for the same items, and finds those that are done. Asking is
//! idempotent, and there is no step that is not.
//!
//! | file | what |
//! |---|---|
//! | `follow` | another job does the same work: its answer is taken |
//! | `plan` | graph → blueprint |
//! | `capability` | which toolchain and device the job uses |
//! | `tune`, `evidence` | the search, and what is known before it |
//! | `race` | the finalists in the whole model |
//! | `link`, `build` | artifacts, and the objects that they need |
//! | `profile`, `publish` | the check, the times, the version |
//! | `attempt`, `watch` | what the phases share: how they stop, how they wait |

mod attempt;
mod build;
mod capability;
mod evidence;
mod follow;
mod link;
mod plan;
mod profile;
mod publish;
mod race;
mod tune;
mod watch;

use std::collections::HashMap;
use std::sync::Arc;

use aotfarm_protocol::{ApiError, ErrorCode, JobId};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::attempt::{Attempt, Drive, LOOK, Planned, Stop};
use self::link::Linked;
use crate::core::Core;
use crate::error::{Error, chain};
use crate::pipeline::JobStep;
use crate::planner::Blueprint;
use aotfarm_store::{Ending, JobRow};

/// How often a job is driven again after the database or the disk failed, before it is given up.
const RETRIES: u32 = 5;
/// Plans that are made at once: each may take seconds of all cores.
const PLANNERS: usize = 2;

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
    let job = plan::adopt(core, job).await?;
    let attempt = Attempt { core: Arc::clone(core), id, job };
    core.advance(id, JobStep::Resume, &Ending::default()).await?;
    if follow::follow(&attempt).await? {
        return Ok(());
    }
    attempt.step(JobStep::Start).await?;
    let blueprint = plan::plan(&attempt, planners).await?;
    // The case takes seconds, so it is made while kernels are built; without one nothing is worth building.
    let (check, (planned, linked)) =
        tokio::try_join!(profile::check_case(&attempt, &blueprint), compile(&attempt, Arc::clone(&blueprint)))?;
    attempt.step(JobStep::Linked).await?;
    let profiles = profile::profile(&attempt, &planned, &linked, check).await?;
    publish::publish(&attempt, linked, profiles, check).await
}

/// The artifacts of a blueprint.
async fn compile(attempt: &Attempt, blueprint: Arc<dyn Blueprint>) -> Drive<(Planned, Vec<Linked>)> {
    let pins = capability::pin(attempt, &blueprint).await?;
    let planned = Planned { blueprint, pins };
    let finalists = tune::tune(attempt, &planned).await?;
    let configurations = race::race(attempt, &planned, finalists).await?;
    let linked = link::link(attempt, &planned, configurations).await?;
    Ok((planned, linked))
}
