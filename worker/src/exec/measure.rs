//! Measure: every candidate checked against the reference, then raced, in child processes that may die.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use aotfarm_protocol::{DeviceKind, Digest, KernelCall, MeasureSpec, OperandRole, Outcome, WorkResult};
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{ChildStdin, ChildStdout, Command};
use tokio_util::sync::CancellationToken;

use super::{Context, ExecError, GRACE, write_job};
use crate::child::messages::{AT_CANDIDATE, AT_NOTHING, AT_REFERENCE, Event, MeasureJob, Order};
use crate::child::operand;
use crate::process::{self, Ending, Limits, Process};
use crate::race::{Race, Step};
use crate::toolchain::{Compiler, Invocation};

/// Children that may die of themselves, with no candidate to blame, before the worker gives up.
const MAX_CHILD_FAILURES: u32 = 3;
/// Candidates of one item.
const MAX_CANDIDATES: usize = 10_000;
/// Cubins that are fetched at once.
const FETCHES: usize = 16;
/// Threads of a team.
const MAX_THREADS: u32 = 1024;

pub(super) async fn measure(
    cx: &Context,
    spec: &MeasureSpec,
    dir: &Path,
    cancel: &CancellationToken,
) -> Result<WorkResult, ExecError> {
    if let Err(reason) = validate(spec) {
        return Ok(WorkResult::Rejected { reason });
    }
    let device = cx.device.as_ref().ok_or(ExecError::Lacks("device to measure on"))?;
    let gpu = device.kind == DeviceKind::Cuda;
    let linked = if gpu {
        fetch_cubins(cx, spec, dir, cancel).await?
    } else {
        let compiler = cx.toolchains.native().ok_or(ExecError::Lacks("compiler, which links kernels to run them"))?;
        let target =
            *device.targets.iter().find(|t| compiler.targets.contains(t)).ok_or(ExecError::Lacks("compiler for its device"))?;
        link_objects(cx, compiler, target, spec, dir, cancel).await?
    };
    let tools = match spec.tools.filter(|_| gpu) {
        Some(digest) => {
            let path = dir.join("tools.cubin");
            cx.cache.fetch(digest, &path, cancel).await?;
            Some(path)
        }
        None if gpu => {
            return Ok(WorkResult::Rejected { reason: "the item brings no tools to measure with on a GPU".to_owned() });
        }
        None => None,
    };
    let mut race = Race::new(spec.protocol, spec.candidates.len());
    let (reference_library, mut libraries) = match linked.get(&spec.reference.object) {
        Some(Ok(reference)) => (reference.clone(), Vec::with_capacity(spec.candidates.len())),
        Some(Err(log)) => return Ok(WorkResult::Rejected { reason: format!("the reference kernel cannot be linked: {log}") }),
        None => return Ok(WorkResult::Rejected { reason: "the reference kernel has no object".to_owned() }),
    };
    for (i, call) in spec.candidates.iter().enumerate() {
        libraries.push(match linked.get(&call.object) {
            Some(Ok(library)) => Some(library.clone()),
            Some(Err(log)) => {
                race.out(i, Outcome::BuildFailed { log: log.clone() });
                None
            }
            None => None,
        });
    }
    let job = MeasureJob {
        spec: spec.clone(),
        libraries,
        reference_library,
        tools,
        vendors: cx.vendors.clone(),
        reference_outputs: dir.join("reference.bin"),
        progress: dir.join("progress"),
    };
    let job_path = dir.join("measure.json");
    write_job(&job_path, &job)?;
    let mut host = Host {
        cx,
        spec,
        job: &job_path,
        progress: &job.progress,
        cancel,
        lasting: gpu,
        child: None,
        tried: BTreeSet::new(),
        failures: 0,
        reference: None,
    };
    let mut driver = Driver { spec, race, suspects: HashSet::new(), waiting: HashSet::new(), start: None, conditions: None };
    let result = driver.run(&mut host).await;
    host.release(result.is_ok()).await;
    match result {
        Ok(()) => {
            if let Some(conditions) = &driver.conditions {
                tracing::info!(task = %spec.title, conditions, "measured");
            }
            let outcomes = driver.race.finish(driver.conditions.as_deref());
            let outcomes = spec.candidates.iter().map(|c| c.candidate).zip(outcomes).collect();
            Ok(WorkResult::Measured { outcomes })
        }
        Err(Stop::Item(reason)) => Ok(WorkResult::Rejected { reason }),
        Err(Stop::Worker(error)) => Err(error),
    }
}

/// Refuses what cannot be measured by anyone.
fn validate(spec: &MeasureSpec) -> Result<(), String> {
    for (k, o) in spec.operands.iter().enumerate() {
        operand::validate(k, o).map_err(|e| e.to_string())?;
    }
    let roles: Vec<OperandRole> = spec.operands.iter().map(|o| o.role).collect();
    if !roles.is_sorted_by_key(|r| match r {
        OperandRole::Input => 0,
        OperandRole::Weight => 1,
        OperandRole::Output => 2,
    }) || roles.last() != Some(&OperandRole::Output)
    {
        return Err("the operands are not inputs, then weights, then at least one output".to_owned());
    }
    if !(1..=MAX_THREADS).contains(&spec.protocol.threads) {
        return Err(format!("a team of {} threads is not between 1 and {MAX_THREADS}", spec.protocol.threads));
    }
    if spec.candidates.len() > MAX_CANDIDATES {
        return Err(format!("{} candidates are more than {MAX_CANDIDATES}", spec.candidates.len()));
    }
    if spec.protocol.drop_factor.is_nan() || spec.protocol.drop_factor < 1.0 {
        return Err(format!("the drop factor {} is below 1", spec.protocol.drop_factor));
    }
    Ok(())
}

/// Makes shared objects of the spec's objects: one of all if they link together, else one of each. Returns for each object
/// where its code is, or why it does not link.
async fn link_objects(
    cx: &Context,
    compiler: &Compiler,
    target: aotfarm_protocol::Target,
    spec: &MeasureSpec,
    dir: &Path,
    cancel: &CancellationToken,
) -> Result<BTreeMap<Digest, Result<PathBuf, String>>, ExecError> {
    let digests: BTreeSet<Digest> = spec.candidates.iter().chain([&spec.reference]).map(|c| c.object).collect();
    let mut objects = Vec::with_capacity(digests.len());
    for (n, digest) in digests.iter().enumerate() {
        let name = format!("o{n:04}.o");
        cx.cache.fetch(*digest, &dir.join(&name), cancel).await?;
        objects.push(OsString::from(name));
    }
    let link = async |objects: &[OsString], output: &str| {
        let flags = ["-shared", "-Wl,-z,defs", "-Wl,-z,now", "-Wl,-Bsymbolic", "-o", output].map(OsString::from);
        let args = flags.into_iter().chain(objects.iter().cloned()).chain(["-lm".into()]).collect();
        compiler.invoke(&Invocation { dir, target, args }, cancel).await
    };
    if link(&objects, "all.so").await?.is_ok() {
        return Ok(digests.into_iter().map(|d| (d, Ok(dir.join("all.so")))).collect());
    }
    let mut linked = BTreeMap::new();
    for (n, (digest, object)) in digests.into_iter().zip(&objects).enumerate() {
        let output = format!("s{n:04}.so");
        let done = link(std::slice::from_ref(object), &output).await?;
        linked.insert(digest, done.map(|()| dir.join(output)));
    }
    Ok(linked)
}

/// Brings the cubins of a GPU's candidates; there is nothing to link.
async fn fetch_cubins(
    cx: &Context,
    spec: &MeasureSpec,
    dir: &Path,
    cancel: &CancellationToken,
) -> Result<BTreeMap<Digest, Result<PathBuf, String>>, ExecError> {
    let digests: BTreeSet<Digest> = spec.candidates.iter().chain([&spec.reference]).map(|c| c.object).collect();
    let fetched = stream::iter(digests.into_iter().enumerate()).map(|(n, digest)| async move {
        let path = dir.join(format!("k{n:04}.cubin"));
        cx.cache.fetch(digest, &path, cancel).await?;
        Ok::<_, ExecError>((digest, Ok(path)))
    });
    fetched.buffer_unordered(FETCHES).try_collect().await
}

/// Why the race stopped before its end.
enum Stop {
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

/// Carries out the race's steps.
struct Driver<'a> {
    spec: &'a MeasureSpec,
    race: Race,
    /// Candidates during whose run a child died that had run others before: each gets one more chance, alone in a fresh child.
    suspects: HashSet<usize>,
    /// Those of them that have not had that chance yet.
    waiting: HashSet<usize>,
    /// When the first candidate was begun; preparing the operands and the reference does not count against the budget.
    start: Option<Instant>,
    /// The conditions that the child told last.
    conditions: Option<String>,
}

impl Driver<'_> {
    async fn run(&mut self, host: &mut Host<'_>) -> Result<(), Stop> {
        host.ready().await?;
        let start = *self.start.get_or_insert_with(Instant::now);
        while let Some(step) = self.race.next(start.elapsed()) {
            match step {
                Step::Check(i) if self.race.is_out(i) => {}
                Step::Check(i) => self.check(host, i).await?,
                Step::Round { order, rounds } => self.round(host, order, rounds).await?,
            }
        }
        Ok(())
    }

    async fn check(&mut self, host: &mut Host<'_>, i: usize) -> Result<(), Stop> {
        if same_code(&self.spec.candidates[i], &self.spec.reference)
            && let Some(seconds) = host.reference
        {
            // The reference agrees with itself, and was checked for what it writes when it was run.
            self.race.checked(i, 0.0, seconds);
            return Ok(());
        }
        loop {
            match host.ask(&Order::Check { candidate: i }, &[i]).await? {
                Answer::Event(Event::Checked { candidate, seconds, error, wrong, algorithm }) if candidate == i => match wrong {
                    None => {
                        self.race.checked(i, error.unwrap_or(0.0), seconds);
                        self.race.chose(i, algorithm);
                    }
                    Some(reason) => self.race.out(i, Outcome::WrongResult { error, reason }),
                },
                Answer::Event(event) => self.refused(host, event).await?,
                Answer::Died { at, ending, fresh } => {
                    if !self.died(at.unwrap_or(i), ending, fresh) {
                        continue;
                    }
                }
            }
            return Ok(());
        }
    }

    async fn round(&mut self, host: &mut Host<'_>, mut order: Vec<usize>, rounds: u32) -> Result<(), Stop> {
        while !order.is_empty() {
            // One that is suspected goes alone into a fresh child, so that its guilt or innocence is certain.
            let alone = order.iter().position(|i| self.waiting.contains(i));
            let now = alone.map_or_else(|| order.clone(), |k| vec![order[k]]);
            match host.ask(&Order::Round { order: now.clone(), rounds }, &now).await? {
                Answer::Event(Event::Ran { samples, conditions }) => {
                    self.conditions = conditions.or(self.conditions.take());
                    for (i, seconds) in samples.into_iter().filter(|(i, _)| now.contains(i)) {
                        self.waiting.remove(&i);
                        self.race.ran(i, seconds);
                    }
                    order.retain(|i| !now.contains(i));
                }
                Answer::Event(event) => self.refused(host, event).await?,
                // Which of the order it was is known, else the death counts as the child's own.
                Answer::Died { at: Some(i), ending, fresh } => {
                    self.died(i, ending, fresh);
                }
                Answer::Died { at: None, .. } => {}
            }
            order.retain(|i| !self.race.is_out(*i));
        }
        Ok(())
    }

    /// An answer that puts a candidate out, or none at all.
    async fn refused(&mut self, host: &mut Host<'_>, event: Event) -> Result<(), Stop> {
        let known = |i: usize| i < self.spec.candidates.len();
        match event {
            Event::Unsupported { candidate, reason } if known(candidate) => {
                self.race.out(candidate, Outcome::Unsupported { reason });
            }
            Event::NoCode { candidate, reason } if known(candidate) => {
                self.race.out(candidate, Outcome::BuildFailed { log: reason });
            }
            Event::Crashed { candidate, reason } if known(candidate) => {
                self.race.out(candidate, Outcome::Crashed { reason });
                host.kill().await;
            }
            other => host.failed(format!("an answer out of turn: {other:?}")).await?,
        }
        Ok(())
    }

    /// The child died while it ran candidate `i`; returns whether that is the candidate's end. In a child that had run others
    /// before it, one of those may have damaged it, so the candidate gets another chance, alone.
    fn died(&mut self, i: usize, ending: Ending, fresh: bool) -> bool {
        if ending == Ending::Killed(libc::SIGALRM) || ending == Ending::TimedOut {
            self.race.out(i, Outcome::TimedOut { limit_ms: self.spec.protocol.run_limit_ms });
        } else if fresh || !self.suspects.insert(i) {
            self.race.out(i, Outcome::Crashed { reason: ending.to_string() });
        } else {
            self.waiting.insert(i);
        }
        self.race.is_out(i)
    }
}

/// Whether two calls run the same instructions on the same numbers.
fn same_code(a: &KernelCall, b: &KernelCall) -> bool {
    (a.object, &a.symbol, &a.dims, &a.tune) == (b.object, &b.symbol, &b.dims, &b.tune)
        && (a.packed_bytes, a.shared_bytes, a.thread_bytes, &a.vendor)
            == (b.packed_bytes, b.shared_bytes, b.thread_bytes, &b.vendor)
}

/// What came of an order.
enum Answer {
    Event(Event),
    /// The child died, running `at` if that is known; `fresh` if it had run no other candidate.
    Died {
        at: Option<usize>,
        ending: Ending,
        fresh: bool,
    },
}

pub(crate) struct Running {
    process: Process,
    orders: ChildStdin,
    events: Lines<BufReader<ChildStdout>>,
}

impl Running {
    async fn start(mut command: Command) -> Result<Self, ExecError> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let limits = Limits { time: Duration::MAX, memory: None, file: 4 << 30, output: 0 };
        let mut process = process::start(command, limits).await?;
        let (Some(orders), Some(events)) = (process.child.stdin.take(), process.child.stdout.take()) else {
            return Err(ExecError::Child { kind: "measure", reason: "its pipes are missing".to_owned() });
        };
        Ok(Self { process, orders, events: BufReader::new(events).lines() })
    }
}

/// The child at hand, which is replaced when it dies.
struct Host<'a> {
    cx: &'a Context,
    spec: &'a MeasureSpec,
    job: &'a Path,
    progress: &'a Path,
    cancel: &'a CancellationToken,
    /// Whether the child outlives the item, as that of a GPU does.
    lasting: bool,
    child: Option<Running>,
    /// Candidates that the child at hand has been asked to run.
    tried: BTreeSet<usize>,
    failures: u32,
    /// Seconds of the reference.
    reference: Option<f64>,
}

impl Host<'_> {
    /// Makes sure that there is a child and that it is ready.
    async fn ready(&mut self) -> Result<(), Stop> {
        while self.child.is_none() {
            fs::write(self.progress, AT_NOTHING.to_ne_bytes()).map_err(ExecError::disk("write the progress file"))?;
            self.tried.clear();
            if self.lasting {
                let idle = self.cx.idle.lock().unwrap_or_else(PoisonError::into_inner).take();
                self.child = Some(match idle {
                    Some(child) => child,
                    None => Running::start(self.cx.child.command("gpu", None)).await?,
                });
                self.tell(&Order::Open { job: self.job.to_owned() }).await?;
            } else {
                self.child = Some(Running::start(self.cx.child.command("measure", Some(self.job))).await?);
            }
            match self.listen(Duration::from_secs(180)).await? {
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
    async fn ask(&mut self, order: &Order, candidates: &[usize]) -> Result<Answer, Stop> {
        self.ready().await?;
        let fresh = candidates.len() == 1 && self.tried.iter().all(|i| candidates.contains(i));
        self.tried.extend(candidates);
        self.tell(order).await?;
        // The child's own alarm ends a run that takes too long; this is for a kernel that has turned the alarm off.
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

    /// Gives the child a line. One that is dead already is noticed when its answer is awaited.
    async fn tell(&mut self, order: &Order) -> Result<(), Stop> {
        let mut line = serde_json::to_vec(order).map_err(|e| ExecError::Child { kind: "measure", reason: e.to_string() })?;
        line.push(b'\n');
        if let Some(child) = &mut self.child {
            drop(child.orders.write_all(&line).await);
        }
        Ok(())
    }

    /// Ends the item for the child: one that outlives it and is `well` waits for the next.
    async fn release(&mut self, well: bool) {
        if self.lasting && well && self.child.is_some() && self.tell(&Order::Close).await.is_ok() {
            *self.cx.idle.lock().unwrap_or_else(PoisonError::into_inner) = self.child.take();
        }
        self.kill().await;
    }

    async fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.process.kill().await;
        }
    }

    /// The child's next word, or `None` if it died or kept silent for longer than `patience`.
    async fn listen(&mut self, patience: Duration) -> Result<Option<Event>, Stop> {
        let Some(child) = &mut self.child else { return Ok(None) };
        let line = tokio::select! {
            () = self.cancel.cancelled() => return Err(ExecError::Cancelled.into()),
            line = tokio::time::timeout(patience, child.events.next_line()) => line,
        };
        // A line that is no event was printed by a kernel, or the child was cut off in the middle of one: it is of no use.
        Ok(line.ok().and_then(Result::ok).flatten().and_then(|line| serde_json::from_str(&line).ok()))
    }

    /// Ends the child: how it ended, and what it was doing.
    async fn bury(&mut self) -> (Ending, u64) {
        let Some(mut child) = self.child.take() else { return (Ending::Exited(0), AT_NOTHING) };
        // It has closed its output, so it is dying, unless it has to be helped.
        let ending = match tokio::time::timeout(Duration::from_secs(5), child.process.wait()).await {
            Ok(ending) => ending,
            Err(_) => {
                child.process.kill().await;
                Ending::TimedOut
            }
        };
        let at = fs::read(self.progress).ok().and_then(|b| b.first_chunk().copied()).map_or(AT_NOTHING, u64::from_ne_bytes);
        (ending, at)
    }

    /// Counts a failure that is no candidate's, and gives up after a few.
    async fn failed(&mut self, reason: String) -> Result<(), Stop> {
        self.kill().await;
        self.failures += 1;
        tracing::warn!(reason, failures = self.failures, "a measuring child failed");
        if self.failures < MAX_CHILD_FAILURES { Ok(()) } else { Err(ExecError::Child { kind: "measure", reason }.into()) }
    }
}
