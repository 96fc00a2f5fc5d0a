//! The measuring child: checks and times candidates as the worker orders, one order and one answer at a time.

use std::collections::HashMap;
use std::fs;
use std::io::BufRead;
use std::path::{Path, PathBuf};

use aotfarm_protocol::{MAX_THREADS, OperandRole};
use libloading::os::unix::Library;

use super::bench::{Bench, Code, Fault, KEEP_PACKED, find, load};
use super::limit::limit_memory;
use super::measuring::{Measuring, obey};
use super::messages::{Event, MeasureJob, Order};
use super::operand;
use super::talk::{read_job, say};
use super::watch::Watch;

/// Copies of activations and borders of buffers, over what the operands take.
const OPERAND_COPIES: u64 = 10;
/// For the process's own small allocations.
const HEADROOM: u64 = 64 << 20;
/// For the stack and the allocator's reserve of each thread.
const THREAD: u64 = 80 << 20;

pub(super) fn run(job: &Path) -> Result<(), String> {
    let job: MeasureJob = read_job(job)?;
    let spec = &job.spec;
    for (k, o) in spec.operands.iter().enumerate() {
        if let Err(error) = operand::validate(k, o) {
            return say(&Event::BadReference { reason: error.to_string() });
        }
    }
    let broken = |reason: String| say(&Event::Broken { reason });
    let watch = match Watch::open(&job.progress) {
        Ok(watch) => watch,
        Err(e) => return broken(format!("could not open the progress file: {e}")),
    };
    if let Err(reason) = limit_memory(allowance(&job)) {
        return broken(reason);
    }
    let mut bench = match Bench::new(spec, watch) {
        Ok(bench) => bench,
        Err(e) => return broken(format!("could not allocate the operands: {e}")),
    };
    let mut libraries = Libraries::default();
    let mut reference_seconds = None;
    let known = fs::read(&job.reference_outputs).is_ok_and(|bytes| bench.set_reference(&bytes));
    if !known {
        let made = libraries.code(&job.reference_library, &spec.reference).map_err(|reason| Fault::Wrong { error: None, reason });
        match made.and_then(|code| bench.make_reference(code)) {
            Ok(seconds) => reference_seconds = Some(seconds),
            Err(Fault::Wrong { reason, .. }) => return say(&Event::BadReference { reason }),
            Err(Fault::Unsupported(reason)) => return broken(format!("the reference kernel: {reason}")),
        }
        if let Err(e) = fs::write(&job.reference_outputs, bench.reference()) {
            return broken(format!("could not keep the reference's outputs: {e}"));
        }
    }
    say(&Event::Ready { reference_seconds })?;
    let mut cpu = Cpu { job: &job, bench, libraries };
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|e| format!("could not read from the worker: {e}"))?;
        let order: Order = serde_json::from_str(&line).map_err(|e| format!("`{line}` is no order: {e}"))?;
        say(&obey(&mut cpu, &order)?)?;
    }
    Ok(())
}

/// Bytes that operands, packed weights and their copies take, and what the protocol grants beyond.
fn allowance(job: &MeasureJob) -> u64 {
    let spec = &job.spec;
    let operands: u64 = spec.operands.iter().map(operand::bytes).sum();
    let outputs: u64 = spec.operands.iter().filter(|o| o.role == OperandRole::Output).map(operand::bytes).sum();
    let packed = spec.candidates.iter().fold(0u64, |sum, c| sum.saturating_add(c.packed_bytes)).min(2 * KEEP_PACKED);
    let threads = u64::from(spec.protocol.threads);
    let own = operands.saturating_mul(OPERAND_COPIES).saturating_add(2 * outputs).saturating_add(packed);
    own.saturating_add(spec.protocol.rotate_bytes.saturating_mul(4))
        .saturating_add(HEADROOM + threads.min(MAX_THREADS.into()) * THREAD)
        .saturating_add(spec.protocol.memory_limit)
}

/// The shared objects that were loaded, by path; never unloaded, because their code may be running.
#[derive(Default)]
struct Libraries(HashMap<PathBuf, Library>);

impl Libraries {
    fn code(&mut self, path: &Path, call: &aotfarm_protocol::KernelCall) -> Result<Code, String> {
        if !self.0.contains_key(path) {
            self.0.insert(path.to_owned(), load(path)?);
        }
        find(&self.0[path], call)
    }

    fn candidate(&mut self, job: &MeasureJob, i: usize) -> Result<Code, String> {
        let library = job.libraries.get(i).and_then(Option::as_ref).ok_or("it was not linked")?;
        self.code(library, &job.spec.candidates[i])
    }
}

/// Candidates on the CPU.
struct Cpu<'a> {
    job: &'a MeasureJob,
    bench: Bench<'a>,
    libraries: Libraries,
}

impl Measuring for Cpu<'_> {
    fn candidates(&self) -> usize {
        self.job.spec.candidates.len()
    }

    fn check(&mut self, candidate: usize) -> Event {
        let code = match self.libraries.candidate(self.job, candidate) {
            Ok(code) => code,
            Err(reason) => return Event::NoCode { candidate, reason },
        };
        match self.bench.check(candidate, code) {
            Ok((seconds, error)) => Event::Checked { candidate, seconds, error: Some(error), wrong: None, algorithm: None },
            Err(Fault::Wrong { error, reason }) => {
                Event::Checked { candidate, seconds: 0.0, error, wrong: Some(reason), algorithm: None }
            }
            Err(Fault::Unsupported(reason)) => Event::Unsupported { candidate, reason },
        }
    }

    fn round(&mut self, order: &[usize], rounds: u32) -> Event {
        let mut codes = HashMap::new();
        for &candidate in order {
            match self.libraries.candidate(self.job, candidate) {
                Ok(code) => codes.insert(candidate, code),
                Err(reason) => return Event::NoCode { candidate, reason },
            };
            // A child that replaces another has not checked all of them; their workspace must be there all the same.
            if let Err(e) = self.bench.reserve(&self.job.spec.candidates[candidate]) {
                return Event::Unsupported { candidate, reason: format!("its workspace could not be allocated: {e}") };
            }
        }
        let (mut samples, mut failed) = (Vec::with_capacity(order.len()), None);
        self.bench.round(
            order,
            rounds,
            |i| codes[&i],
            |i, seconds| match seconds {
                Ok(seconds) => samples.push((i, seconds)),
                Err(reason) => failed = Some((i, reason)),
            },
        );
        match failed {
            Some((candidate, reason)) => Event::Unsupported { candidate, reason },
            None => Event::Ran { samples, conditions: None },
        }
    }
}
