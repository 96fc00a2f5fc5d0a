//! The child that checks and times candidates, as the worker sees it: it may die with any of them
//! and is replaced then.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aotfarm_protocol::MeasureSpec;
use tokio_util::sync::CancellationToken;

use super::error::ExecError;
use crate::child::messages::{AT_CANDIDATE, AT_NOTHING, AT_REFERENCE, Event, Order};
use crate::sandbox::{ChildError, ChildProgram, Ending, GRACE, Limits, ServingChild};

/// Children that may die of themselves, with no candidate to blame, before the worker gives up.
const MAX_CHILD_FAILURES: u32 = 3;
/// It limits its own memory, by the item, and the time of each run.
const LIMITS: Limits = Limits { time: Duration::MAX, memory: None, file: 4 << 30, output: 0 };
/// Filling operands and running the reference may take this long.
const READY_TIME: Duration = Duration::from_secs(180);
/// A child that has closed its output gets this long to end.
const DYING_TIME: Duration = Duration::from_secs(5);

/// Why the race stopped before its end.
pub(super) enum Stop {
    /// The item cannot be measured by anyone.
    Item(String),
    /// This worker cannot.
    Worker(ExecError),
}

impl<E: Into<ExecError>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Worker(error.into())
    }
}

/// What came of an order.
pub(super) enum Answer {
    Event(Event),
    /// The child died, running `at` if that is known; `fresh` if it had run no other candidate.
    Died {
        at: Option<usize>,
        ending: Ending,
        fresh: bool,
    },
}

/// The child at hand, which is replaced when it dies.
pub(super) struct MeasuringChild<'a> {
    /// How it is started.
    program: &'a ChildProgram,
    /// Where a child that outlives the item, as that of a GPU does, waits for the next one.
    idle: Option<&'a Mutex<Option<ServingChild>>>,
    /// What is measured.
    spec: &'a MeasureSpec,
    /// The job file.
    job: &'a Path,
    /// The file of the shared word, see [`AT_NOTHING`].
    progress: &'a Path,
    /// Ends the waiting for answers.
    cancel: &'a CancellationToken,
    /// The child, if there is one.
    process: Option<ServingChild>,
    /// Candidates that the child at hand has been asked to run.
    tried: BTreeSet<usize>,
    /// Children that have died of themselves.
    failures: u32,
    /// Seconds of the reference, once they are known.
    reference: Option<f64>,
}

impl<'a> MeasuringChild<'a> {
    /// A child that is started when it is first needed. `idle` is given for one that outlives the
    /// item; `job` and `progress` are its files.
    pub(super) fn new(
        program: &'a ChildProgram,
        idle: Option<&'a Mutex<Option<ServingChild>>>,
        spec: &'a MeasureSpec,
        [job, progress]: [&'a Path; 2],
        cancel: &'a CancellationToken,
    ) -> Self {
        let (process, tried, failures, reference) = (None, BTreeSet::new(), 0, None);
        Self { program, idle, spec, job, progress, cancel, process, tried, failures, reference }
    }

    /// Seconds of the reference, once it has been run.
    pub(super) fn reference(&self) -> Option<f64> {
        self.reference
    }

    /// Makes sure that there is a child and that it is ready.
    pub(super) async fn ready(&mut self) -> Result<(), Stop> {
        while self.process.is_none() {
            fs::write(self.progress, AT_NOTHING.to_ne_bytes()).map_err(ExecError::disk("write the progress file"))?;
            self.tried.clear();
            if let Some(idle) = self.idle {
                let waiting = idle.lock().unwrap_or_else(PoisonError::into_inner).take();
                self.process = Some(match waiting {
                    Some(child) => child,
                    None => self.program.serve("gpu", None, LIMITS).await?,
                });
                self.tell(&Order::Open { job: self.job.to_owned() }).await?;
            } else {
                self.process = Some(self.program.serve("measure", Some(self.job), LIMITS).await?);
            }
            match self.listen(READY_TIME).await? {
                Some(Event::Ready { reference_seconds }) => self.reference = self.reference.or(reference_seconds),
                Some(Event::BadReference { reason }) => {
                    return Err(Stop::Item(format!("the reference kernel of `{}`: {reason}", self.spec.title)));
                }
                Some(Event::Broken { reason }) => self.failed(reason).await?,
                Some(other) => self.failed(format!("an answer out of turn: {other:?}")).await?,
                None => {
                    let (ending, at) = self.bury().await;
                    if at == AT_REFERENCE {
                        let reason =
                            if ending == Ending::Killed(libc::SIGALRM) { "time limit".to_owned() } else { ending.to_string() };
                        return Err(Stop::Item(format!("the reference kernel of `{}` was ended by {reason}", self.spec.title)));
                    }
                    self.failed(format!("it ended while preparing: {ending}")).await?;
                }
            }
        }
        Ok(())
    }

    /// Gives an order that runs `candidates` and waits for the answer.
    pub(super) async fn ask(&mut self, order: &Order, candidates: &[usize]) -> Result<Answer, Stop> {
        self.ready().await?;
        let fresh = candidates.len() == 1 && self.tried.iter().all(|i| candidates.contains(i));
        self.tried.extend(candidates);
        self.tell(order).await?;
        // The child's own alarm ends a run that takes too long; this is for a kernel that has
        // turned the alarm off.
        let runs = candidates.len().saturating_add(2) as u32;
        let patience = Duration::from_millis(self.spec.protocol.run_limit_ms).saturating_mul(runs).saturating_add(2 * GRACE);
        if let Some(event) = self.listen(patience).await? {
            return Ok(Answer::Event(event));
        }
        let (ending, at) = self.bury().await;
        let at = at.checked_sub(AT_CANDIDATE).and_then(|i| usize::try_from(i).ok()).filter(|i| candidates.contains(i));
        if at.is_none() {
            self.failed(format!("it ended while busy with its own affairs: {ending}")).await?;
        }
        Ok(Answer::Died { at, ending, fresh })
    }

    async fn tell(&mut self, order: &Order) -> Result<(), Stop> {
        match &mut self.process {
            Some(child) => child.tell(order).await.map_err(|e| broken(e.to_string()).into()),
            None => Ok(()),
        }
    }

    /// Ends the item for the child: one that outlives it and is `well` waits for the next.
    pub(super) async fn release(&mut self, well: bool) {
        if let Some(idle) = self.idle
            && well
            && self.process.is_some()
            && self.tell(&Order::Close).await.is_ok()
        {
            *idle.lock().unwrap_or_else(PoisonError::into_inner) = self.process.take();
        }
        self.kill().await;
    }

    /// Ends the child, so that the next order goes to a fresh one.
    pub(super) async fn kill(&mut self) {
        if let Some(mut child) = self.process.take() {
            child.kill().await;
        }
    }

    /// The child's next word, or `None` if it died or kept silent for longer than `patience`.
    async fn listen(&mut self, patience: Duration) -> Result<Option<Event>, Stop> {
        let Some(child) = &mut self.process else { return Ok(None) };
        let line = tokio::select! {
            () = self.cancel.cancelled() => return Err(ExecError::Cancelled.into()),
            line = tokio::time::timeout(patience, child.line()) => line,
        };
        // A line that is no event was printed by a kernel, or the child was cut off in the middle
        // of one: it is of no use.
        Ok(line.ok().flatten().and_then(|line| serde_json::from_str(&line).ok()))
    }

    /// Ends the child: how it ended, and what it was doing.
    async fn bury(&mut self) -> (Ending, u64) {
        let Some(mut child) = self.process.take() else { return (Ending::Exited(0), AT_NOTHING) };
        // It has closed its output, so it is dying, unless it has to be helped.
        let ending = match tokio::time::timeout(DYING_TIME, child.wait()).await {
            Ok(ending) => ending,
            Err(_) => {
                child.kill().await;
                Ending::TimedOut
            }
        };
        let at = fs::read(self.progress).ok().and_then(|b| b.first_chunk().copied()).map_or(AT_NOTHING, u64::from_ne_bytes);
        (ending, at)
    }

    /// Counts a failure that is no candidate's, and gives up after a few.
    pub(super) async fn failed(&mut self, reason: String) -> Result<(), Stop> {
        self.kill().await;
        self.failures += 1;
        tracing::warn!(reason, failures = self.failures, "a measuring child failed");
        if self.failures < MAX_CHILD_FAILURES { Ok(()) } else { Err(broken(reason).into()) }
    }
}

/// A failure of the child that is no candidate's.
fn broken(reason: String) -> ExecError {
    ChildError::Failed { kind: "measure", reason }.into()
}
