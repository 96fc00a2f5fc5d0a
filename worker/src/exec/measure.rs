//! Measure: every candidate checked against the reference, then raced, in child processes that may
//! die (`measuring_child`).

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Instant;

use aotfarm_protocol::{DeviceKind, Digest, KernelCall, MAX_THREADS, MeasureSpec, OperandRole, Outcome, Target, WorkResult};
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio_util::sync::CancellationToken;

use super::error::ExecError;
use super::executor::Executor;
use super::measuring_child::{Answer, MeasuringChild, Stop};
use crate::child::messages::{Event, MeasureJob, Order};
use crate::child::operand;
use crate::race::{Race, Step};
use crate::sandbox::{Ending, write_job};
use crate::toolchain::cc::{Compiler, Invocation};

/// Candidates of one item.
const MAX_CANDIDATES: usize = 10_000;
/// Cubins that are fetched at once.
const FETCHES: usize = 16;

pub(super) async fn measure(
    cx: &Executor,
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
    let idle = gpu.then_some(&cx.idle);
    let mut child = MeasuringChild::new(&cx.child, idle, spec, [&job_path, &job.progress], cancel);
    let mut runner = RaceRunner { spec, race, suspects: HashSet::new(), waiting: HashSet::new(), start: None, conditions: None };
    let result = runner.run(&mut child).await;
    child.release(result.is_ok()).await;
    match result {
        Ok(()) => {
            if let Some(conditions) = &runner.conditions {
                tracing::info!(task = %spec.title, conditions, "measured");
            }
            let outcomes = runner.race.finish(runner.conditions.as_deref());
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
    cx: &Executor,
    compiler: &Compiler,
    target: Target,
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
    cx: &Executor,
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

/// Carries out the race's steps.
struct RaceRunner<'a> {
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

impl RaceRunner<'_> {
    async fn run(&mut self, child: &mut MeasuringChild<'_>) -> Result<(), Stop> {
        child.ready().await?;
        let start = *self.start.get_or_insert_with(Instant::now);
        while let Some(step) = self.race.next(start.elapsed()) {
            match step {
                Step::Check(i) if self.race.is_out(i) => {}
                Step::Check(i) => self.check(child, i).await?,
                Step::Round { order, rounds } => self.round(child, order, rounds).await?,
            }
        }
        Ok(())
    }

    async fn check(&mut self, child: &mut MeasuringChild<'_>, i: usize) -> Result<(), Stop> {
        if same_code(&self.spec.candidates[i], &self.spec.reference)
            && let Some(seconds) = child.reference()
        {
            // The reference agrees with itself, and was checked for what it writes when it was run.
            self.race.checked(i, 0.0, seconds);
            return Ok(());
        }
        loop {
            match child.ask(&Order::Check { candidate: i }, &[i]).await? {
                Answer::Event(Event::Checked { candidate, seconds, error, wrong, algorithm }) if candidate == i => match wrong {
                    None => {
                        self.race.checked(i, error.unwrap_or(0.0), seconds);
                        self.race.chose(i, algorithm);
                    }
                    Some(reason) => self.race.out(i, Outcome::WrongResult { error, reason }),
                },
                Answer::Event(event) => self.refused(child, event).await?,
                Answer::Died { at, ending, fresh } => {
                    if !self.died(at.unwrap_or(i), ending, fresh) {
                        continue;
                    }
                }
            }
            return Ok(());
        }
    }

    async fn round(&mut self, child: &mut MeasuringChild<'_>, mut order: Vec<usize>, rounds: u32) -> Result<(), Stop> {
        while !order.is_empty() {
            // One that is suspected goes alone into a fresh child, so that its guilt or innocence is certain.
            let alone = order.iter().position(|i| self.waiting.contains(i));
            let now = alone.map_or_else(|| order.clone(), |k| vec![order[k]]);
            match child.ask(&Order::Round { order: now.clone(), rounds }, &now).await? {
                Answer::Event(Event::Ran { samples, conditions }) => {
                    self.conditions = conditions.or(self.conditions.take());
                    for (i, seconds) in samples.into_iter().filter(|(i, _)| now.contains(i)) {
                        self.waiting.remove(&i);
                        self.race.ran(i, seconds);
                    }
                    order.retain(|i| !now.contains(i));
                }
                Answer::Event(event) => self.refused(child, event).await?,
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
    async fn refused(&mut self, child: &mut MeasuringChild<'_>, event: Event) -> Result<(), Stop> {
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
                child.kill().await;
            }
            other => child.failed(format!("an answer out of turn: {other:?}")).await?,
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
