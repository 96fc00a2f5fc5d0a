//! The measuring child's state: operands, the reference's outputs, loaded candidates, and copies of weights.

use std::collections::{BTreeSet, HashMap};
use std::ffi::c_void;
use std::path::Path;
use std::time::Duration;

use aotfarm_abi::kernel::{Call, Kernel, PACK_SUFFIX, Pack};
use aotfarm_protocol::{KernelCall, MAX_THREADS, MeasureSpec, Operand, OperandRole};
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

use super::buffer::Buffer;
use super::measuring::{REFERENCE_LIMIT, STALE};
use super::operand::{self, Random};
use super::team::Team;
use super::watch::Watch;

/// Copies of one set of weights that are made at most: below 256 KB a set stays in some cache whatever is done.
const MAX_COPIES: u64 = 256;
/// Copies of the activations. Between layers those come from the last-level cache, not from memory, so a few do.
const MAX_ACTIVATIONS: u64 = 8;
/// Bytes of packed weights that are kept; beyond, those not used for longest are packed anew when they are needed.
pub(super) const KEEP_PACKED: u64 = 1 << 30;
/// A pack function may take this long, or the protocol's limit if that is longer.
const PACK_LIMIT: Duration = Duration::from_secs(10);

/// A kernel's code in memory.
#[derive(Clone, Copy)]
pub(super) struct Code {
    kernel: Kernel,
    pack: Option<Pack>,
}

/// One set of activations.
struct Activations {
    inputs: Vec<Buffer>,
    outputs: Vec<Buffer>,
}

/// Copies of the packed weights of one candidate.
struct Packed {
    copies: Vec<Buffer>,
    used: u64,
}

/// Why a candidate did not pass.
pub(super) enum Fault {
    /// It computes something else. The error is `None` when it is not a number or not known.
    Wrong { error: Option<f64>, reason: String },
    /// This host cannot run it.
    Unsupported(String),
}

/// See the module.
pub(super) struct Bench<'a> {
    spec: &'a MeasureSpec,
    watch: Watch,
    team: Team,
    activations: Vec<Activations>,
    weights: Vec<Vec<Buffer>>,
    /// Of the inputs and weights that checks use.
    checksums: Vec<u64>,
    reference: Vec<Vec<u8>>,
    packed: HashMap<usize, Packed>,
    /// Workspace of timed runs, as large as any candidate that passed its check needs.
    shared: Buffer,
    scratch: Vec<Buffer>,
    runs: u64,
}

/// Which copy of what a run uses.
struct Run<'b> {
    call: &'b KernelCall,
    code: Code,
    activations: &'b Activations,
    weights: &'b [Buffer],
    packed: Option<&'b Buffer>,
    shared: &'b Buffer,
    scratch: &'b [Buffer],
}

impl<'a> Bench<'a> {
    /// Fills the operands.
    pub(super) fn new(spec: &'a MeasureSpec, watch: Watch) -> std::io::Result<Self> {
        let threads = spec.protocol.threads.clamp(1, MAX_THREADS) as usize;
        let empty = || Buffer::new(0);
        let mut bench = Self {
            spec,
            watch,
            team: Team::new(threads)?,
            activations: vec![Activations { inputs: Vec::new(), outputs: Vec::new() }],
            weights: vec![Vec::new()],
            checksums: Vec::new(),
            reference: Vec::new(),
            packed: HashMap::new(),
            shared: empty()?,
            scratch: (0..threads).map(|_| empty()).collect::<Result<_, _>>()?,
            runs: 0,
        };
        for (k, o) in spec.operands.iter().enumerate() {
            let mut buffer = Buffer::new(operand::bytes(o))?;
            match o.role {
                OperandRole::Output => bench.activations[0].outputs.push(buffer),
                OperandRole::Input => {
                    operand::fill(o, buffer.bytes_mut(), &mut bench.random(k));
                    bench.activations[0].inputs.push(buffer);
                }
                OperandRole::Weight => {
                    operand::fill(o, buffer.bytes_mut(), &mut bench.random(k));
                    bench.weights[0].push(buffer);
                }
            }
        }
        bench.checksums = bench.read_only(None).map(|b| checksum(b.bytes())).collect();
        Ok(bench)
    }

    fn random(&self, operand: usize) -> Random {
        Random::new(operand::seed_of(self.spec.seed, operand))
    }

    fn operands(&self, role: OperandRole) -> impl Iterator<Item = (usize, &'a Operand)> {
        self.spec.operands.iter().enumerate().filter(move |(_, o)| o.role == role)
    }

    fn bytes(&self, role: OperandRole) -> u64 {
        self.operands(role).map(|(_, o)| operand::bytes(o)).sum()
    }

    /// Runs the reference and keeps what it writes; returns its time.
    pub(super) fn make_reference(&mut self, code: Code) -> Result<f64, Fault> {
        let call = &self.spec.reference;
        let seconds = self.run_checked(None, call, code, REFERENCE_LIMIT)?;
        let outputs = &mut self.activations[0].outputs;
        let mut kept = Vec::with_capacity(outputs.len());
        for (buffer, (k, o)) in
            outputs.iter_mut().zip(self.spec.operands.iter().enumerate().filter(|(_, o)| o.role == OperandRole::Output))
        {
            let bytes = buffer.bytes().to_vec();
            operand::compare(o, buffer.bytes_mut(), &bytes)
                .map_err(|reason| Fault::Wrong { error: None, reason: format!("operand {k}: {reason}") })?;
            kept.push(bytes);
        }
        self.reference = kept;
        Ok(seconds)
    }

    /// The reference's outputs, one after the other.
    pub(super) fn reference(&self) -> Vec<u8> {
        self.reference.concat()
    }

    /// Takes over what [`Bench::reference`] of another child gave; `false` if it does not fit.
    pub(super) fn set_reference(&mut self, mut bytes: &[u8]) -> bool {
        let mut kept = Vec::new();
        for (_, o) in self.operands(OperandRole::Output) {
            let Some((head, tail)) = bytes.split_at_checked(operand::bytes(o) as usize) else { return false };
            kept.push(head.to_vec());
            bytes = tail;
        }
        self.reference = kept;
        bytes.is_empty()
    }

    /// Checks candidate `i`: returns the seconds of the run and the largest relative L2 error of any output.
    pub(super) fn check(&mut self, i: usize, code: Code) -> Result<(f64, f64), Fault> {
        let call = &self.spec.candidates[i];
        let limit = Duration::from_millis(self.spec.protocol.run_limit_ms);
        let seconds = self.run_checked(Some(i), call, code, limit)?;
        let mut worst = 0f64;
        let outputs = self.activations[0].outputs.iter_mut().zip(&self.reference);
        let specs = self.spec.operands.iter().filter(|o| o.role == OperandRole::Output);
        for (k, ((buffer, reference), o)) in outputs.zip(specs).enumerate() {
            let error = operand::compare(o, buffer.bytes_mut(), reference)
                .map_err(|reason| Fault::Wrong { error: None, reason: format!("output {k}: {reason}") })?;
            if error.is_nan() || error > self.spec.tolerance {
                let reason = format!("output {k}: relative L2 error {error:.3e} exceeds {:.3e}", self.spec.tolerance);
                return Err(Fault::Wrong { error: error.is_finite().then_some(error), reason });
            }
            worst = worst.max(error);
        }
        self.reserve(call).map_err(|e| Fault::Unsupported(format!("its workspace could not be allocated: {e}")))?;
        Ok((seconds, worst))
    }

    /// One run with poisoned outputs and workspace of exactly the promised size; nothing else may be written.
    fn run_checked(&mut self, i: Option<usize>, call: &KernelCall, code: Code, limit: Duration) -> Result<f64, Fault> {
        let memory =
            |what: &'static str| move |e: std::io::Error| Fault::Unsupported(format!("{what} could not be allocated: {e}"));
        let mut shared = Buffer::new(call.shared_bytes).map_err(memory("its shared workspace"))?;
        let mut scratch = Vec::new();
        for _ in 0..self.scratch.len() {
            scratch.push(Buffer::new(call.thread_bytes).map_err(memory("its thread workspace"))?);
        }
        // Workspace is undefined on entry.
        for buffer in scratch.iter_mut().chain([&mut shared]) {
            buffer.bytes_mut().chunks_exact_mut(4).for_each(|word| word.copy_from_slice(&STALE.to_ne_bytes()));
        }
        let packed = match code.pack.filter(|_| call.packed_bytes > 0) {
            Some(pack) => Some(self.pack(i, call, pack).map_err(memory("its packed weights"))?),
            None => None,
        };
        let packed_before = packed.as_ref().map(|b| checksum(b.bytes()));
        let outputs = self.spec.operands.iter().filter(|o| o.role == OperandRole::Output);
        for (k, (buffer, o)) in self.activations[0].outputs.iter_mut().zip(outputs).enumerate() {
            operand::poison(o, buffer.bytes_mut(), k as u8);
        }
        let run = Run {
            call,
            code,
            activations: &self.activations[0],
            weights: &self.weights[0],
            packed: packed.as_ref(),
            shared: &shared,
            scratch: &scratch,
        };
        let seconds = launch(&mut self.team, &self.watch, i, limit, &run);
        let fault = self.side_effects(packed.as_ref().zip(packed_before), &shared, &scratch);
        if let Some(reason) = fault {
            self.repair().map_err(memory("an operand"))?;
            return Err(Fault::Wrong { error: None, reason });
        }
        if let (Some(i), Some(packed)) = (i, packed) {
            self.packed.insert(i, Packed { copies: vec![packed], used: self.runs });
            self.evict(&BTreeSet::from([i]));
        }
        Ok(seconds)
    }

    fn read_only<'b>(&'b self, packed: Option<&'b Buffer>) -> impl Iterator<Item = &'b Buffer> {
        self.activations[0].inputs.iter().chain(&self.weights[0]).chain(packed)
    }

    /// What a run wrote that it should not have.
    fn side_effects(&self, packed: Option<(&Buffer, u64)>, shared: &Buffer, scratch: &[Buffer]) -> Option<String> {
        let inputs = self.activations[0].inputs.len();
        let name = |k: usize| match k {
            k if k < inputs => format!("input {k}"),
            k if k < inputs + self.weights[0].len() => format!("weight {}", k - inputs),
            _ => "the packed weights".to_owned(),
        };
        let before = self.checksums.iter().copied().chain(packed.map(|(_, sum)| sum));
        for (k, (buffer, before)) in self.read_only(packed.map(|(buffer, _)| buffer)).zip(before).enumerate() {
            if let Some(place) = buffer.damage() {
                return Some(format!("{}: written {place}", name(k)));
            }
            if checksum(buffer.bytes()) != before {
                return Some(format!("{}: overwritten", name(k)));
            }
        }
        let outputs = self.activations[0].outputs.iter().enumerate().map(|(k, b)| (format!("output {k}"), b));
        let workspace =
            scratch.iter().map(|b| ("thread workspace".to_owned(), b)).chain([("shared workspace".to_owned(), shared)]);
        outputs.chain(workspace).find_map(|(name, b)| b.damage().map(|place| format!("{name}: written {place}")))
    }

    /// Makes inputs, weights and canaries what they were.
    fn repair(&mut self) -> std::io::Result<()> {
        let Self { spec, activations, weights, .. } = &mut *self;
        let (mut inputs, mut raw) = (activations[0].inputs.iter_mut(), weights[0].iter_mut());
        for (k, o) in spec.operands.iter().enumerate() {
            let buffer = match o.role {
                OperandRole::Input => inputs.next(),
                OperandRole::Weight => raw.next(),
                OperandRole::Output => None,
            };
            if let Some(buffer) = buffer {
                buffer.bytes_mut().fill(0);
                operand::fill(o, buffer.bytes_mut(), &mut Random::new(operand::seed_of(spec.seed, k)));
                buffer.restore();
            }
        }
        activations[0].outputs.iter_mut().for_each(Buffer::restore);
        Ok(())
    }

    fn pack(&self, i: Option<usize>, call: &KernelCall, pack: Pack) -> std::io::Result<Buffer> {
        let packed = Buffer::new(call.packed_bytes)?;
        let weights = pointers(&self.weights[0]);
        let limit = PACK_LIMIT.max(Duration::from_millis(self.spec.protocol.run_limit_ms));
        let _watched = self.watch.begin(i, limit);
        // SAFETY: the pack function follows the ABI as far as can be known; this process exists to find out otherwise.
        unsafe { pack(weights.as_ptr(), packed.as_ptr().cast(), call.tune.as_ptr()) };
        Ok(packed)
    }

    /// Makes the workspace of timed runs large enough.
    pub(super) fn reserve(&mut self, call: &KernelCall) -> std::io::Result<()> {
        if (self.shared.bytes().len() as u64) < call.shared_bytes {
            self.shared = Buffer::new(call.shared_bytes)?;
        }
        for scratch in &mut self.scratch {
            if (scratch.bytes().len() as u64) < call.thread_bytes {
                *scratch = Buffer::new(call.thread_bytes)?;
            }
        }
        Ok(())
    }

    /// Times each of `order` once. `code` gives the code of a candidate. `done` is called with each result.
    pub(super) fn round(
        &mut self,
        order: &[usize],
        rounds: u32,
        code: impl Fn(usize) -> Code,
        mut done: impl FnMut(usize, Result<f64, String>),
    ) {
        let field: BTreeSet<usize> = order.iter().copied().collect();
        let sets = self.prepare(&field, rounds, &code);
        for &i in order {
            let call = &self.spec.candidates[i];
            let code = code(i);
            let packed = if code.pack.is_some() && call.packed_bytes > 0 {
                if let Err(e) = self.ensure_packed(i, code, 1, &field) {
                    done(i, Err(format!("its packed weights could not be allocated: {e}")));
                    continue;
                }
                self.packed.get_mut(&i).map(|p| {
                    p.used = self.runs;
                    &*p
                })
            } else {
                None
            };
            let turn = (self.runs / field.len().max(1) as u64) as usize;
            let run = Run {
                call,
                code,
                activations: &self.activations[turn % self.activations.len()],
                weights: &self.weights[if packed.is_some() { 0 } else { turn % self.weights.len() }],
                packed: packed.map(|p| &p.copies[turn % p.copies.len().min(sets)]),
                shared: &self.shared,
                scratch: &self.scratch,
            };
            let limit = Duration::from_millis(self.spec.protocol.run_limit_ms);
            let seconds = launch(&mut self.team, &self.watch, Some(i), limit, &run);
            self.runs += 1;
            done(i, Ok(seconds));
        }
    }

    /// Makes as many copies of weights and activations as it takes for the runs of a whole turn of copies to touch
    /// `rotate_bytes`, so that every run finds its weights out of the cache. Candidates that are timed in turn push each
    /// other's weights out, so the more there are, the fewer copies each needs. Returns the number of copies.
    fn prepare(&mut self, field: &BTreeSet<usize>, rounds: u32, code: &impl Fn(usize) -> Code) -> usize {
        let rotate = self.spec.protocol.rotate_bytes;
        let packs = |i: &usize| code(*i).pack.is_some() && self.spec.candidates[*i].packed_bytes > 0;
        let (packing, raw): (Vec<usize>, Vec<usize>) = field.iter().copied().partition(packs);
        let packed_bytes: u64 = packing.iter().map(|i| self.spec.candidates[*i].packed_bytes).sum();
        let raw_bytes = if raw.is_empty() { 0 } else { self.bytes(OperandRole::Weight) };
        let copies = |bytes: u64, most: u64| rotate.div_ceil(bytes.max(1)).clamp(1, most.min(u64::from(rounds.max(1)))) as usize;
        let sets = copies(packed_bytes + raw_bytes, MAX_COPIES);
        for i in packing {
            // Without memory for more copies, the one that there is serves; the run itself reports when there is none.
            drop(self.ensure_packed(i, code(i), sets, field));
        }
        if raw_bytes > 0 {
            while self.weights.len() < sets
                && let Ok(copy) = self.weights[0].iter().map(copy_of).collect()
            {
                self.weights.push(copy);
            }
        }
        let activations = self.bytes(OperandRole::Input) + self.bytes(OperandRole::Output);
        while self.activations.len() < copies(activations, MAX_ACTIVATIONS) {
            let first = &self.activations[0];
            let copy = || {
                let copy_all = |buffers: &[Buffer]| buffers.iter().map(copy_of).collect::<std::io::Result<Vec<_>>>();
                Ok::<_, std::io::Error>(Activations { inputs: copy_all(&first.inputs)?, outputs: copy_all(&first.outputs)? })
            };
            let Ok(copy) = copy() else { break };
            self.activations.push(copy);
        }
        sets
    }

    fn ensure_packed(&mut self, i: usize, code: Code, copies: usize, field: &BTreeSet<usize>) -> std::io::Result<()> {
        let call = &self.spec.candidates[i];
        if !self.packed.contains_key(&i)
            && let Some(pack) = code.pack
        {
            self.evict(&BTreeSet::from([i]));
            let packed = self.pack(Some(i), call, pack)?;
            self.packed.insert(i, Packed { copies: vec![packed], used: self.runs });
        }
        while let Some(packed) = self.packed.get_mut(&i)
            && packed.copies.len() < copies
        {
            let copy = copy_of(&packed.copies[0])?;
            packed.copies.push(copy);
        }
        self.evict(field);
        Ok(())
    }

    /// Forgets the packed weights that were not used for longest, until what is kept is within bounds.
    fn evict(&mut self, keep: &BTreeSet<usize>) {
        let bytes = |p: &Packed| p.copies.iter().map(|c| c.bytes().len() as u64).sum::<u64>();
        let mut total: u64 = self.packed.values().map(bytes).sum();
        while total > KEEP_PACKED + self.spec.protocol.rotate_bytes {
            let oldest =
                self.packed.iter().filter(|(i, _)| !keep.contains(i)).min_by_key(|(i, p)| (p.used, **i)).map(|(i, _)| *i);
            let Some(oldest) = oldest.or_else(|| {
                // All are in the field: whoever is next pays for packing anew.
                self.packed.iter().filter(|_| keep.len() > 1).min_by_key(|(i, p)| (p.used, **i)).map(|(i, _)| *i)
            }) else {
                return;
            };
            total -= self.packed.remove(&oldest).map_or(0, |p| bytes(&p));
        }
    }
}

/// A copy of a buffer's content with borders of its own.
fn copy_of(from: &Buffer) -> std::io::Result<Buffer> {
    let mut copy = Buffer::new(from.bytes().len() as u64)?;
    copy.bytes_mut().copy_from_slice(from.bytes());
    Ok(copy)
}

fn pointers(buffers: &[Buffer]) -> Vec<*const c_void> {
    buffers.iter().map(|b| b.as_ptr().cast_const().cast()).collect()
}

/// Runs a kernel with the whole team; returns seconds.
fn launch(team: &mut Team, watch: &Watch, i: Option<usize>, limit: Duration, run: &Run<'_>) -> f64 {
    let inputs = pointers(&run.activations.inputs);
    let outputs: Vec<*mut c_void> = run.activations.outputs.iter().map(|b| b.as_ptr().cast()).collect();
    let weights = pointers(run.weights);
    let calls: Vec<Call> = (0..run.scratch.len())
        .map(|thread| Call {
            inputs: inputs.as_ptr(),
            weights: if run.packed.is_some() { std::ptr::null() } else { weights.as_ptr() },
            packed: run.packed.map_or(std::ptr::null(), |p| p.as_ptr().cast_const().cast()),
            outputs: outputs.as_ptr(),
            shared: run.shared.as_ptr().cast(),
            scratch: run.scratch[thread].as_ptr().cast(),
            dim: run.call.dims.as_ptr(),
            tune: run.call.tune.as_ptr(),
            thread: thread as i32,
            threads: run.scratch.len() as i32,
            team: team.handle(),
            barrier: Team::barrier(),
        })
        .collect();
    let _watched = watch.begin(i, limit);
    // SAFETY: every pointer is valid for what the spec says; whether the kernel keeps to that is what is being found out,
    // in a process made for it.
    unsafe { team.run(run.code.kernel, &calls) }.as_secs_f64()
}

/// A checksum that any change of a single word changes: sums of every eighth word, side by side because each step waits for the one before.
fn checksum(bytes: &[u8]) -> u64 {
    let mix = |sum: u64, word: u64| (sum ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
    let (lines, rest) = bytes.as_chunks::<64>();
    let mut sums = [1u64; 8];
    for line in lines {
        for (sum, word) in sums.iter_mut().zip(line.as_chunks::<8>().0) {
            *sum = mix(*sum, u64::from_ne_bytes(*word));
        }
    }
    let sum = sums.into_iter().fold(1, mix);
    rest.iter().fold(sum, |sum, byte| mix(sum, u64::from(*byte)))
}

/// Loads a shared object for good: its code must outlive every run.
pub(super) fn load(path: &Path) -> Result<Library, String> {
    // SAFETY: loading runs the object's initialisers, which this confined process exists for.
    unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) }.map_err(|e| format!("could not be loaded: {e}"))
}

/// Finds the kernel and its pack function.
pub(super) fn find(library: &Library, call: &KernelCall) -> Result<Code, String> {
    let name = std::ffi::CString::new(call.symbol.as_str()).map_err(|_| "its symbol holds a zero byte".to_owned())?;
    let pack =
        std::ffi::CString::new(format!("{}{PACK_SUFFIX}", call.symbol)).map_err(|_| "its symbol holds a zero byte".to_owned())?;
    // SAFETY: the object promises the types of the kernel ABI under these names.
    let (kernel, pack) =
        unsafe { (library.get::<Kernel>(name.to_bytes_with_nul()), library.get::<Pack>(pack.to_bytes_with_nul())) };
    let kernel = *kernel.map_err(|_| format!("the object defines no symbol `{}`", call.symbol))?;
    let pack = pack.ok().map(|p| *p);
    if call.packed_bytes > 0 && pack.is_none() {
        return Err(format!(
            "the object defines no symbol `{}{PACK_SUFFIX}`, though the kernel takes packed weights",
            call.symbol
        ));
    }
    Ok(Code { kernel, pack })
}
