//! The harness of the kernel tests: compiles units with the machine's compiler, runs them as a team of threads would, and compares
//! with the oracle. Not part of the library.
#![expect(clippy::disallowed_methods, reason = "this is the one place where the compiler's tests call a C compiler")]

use std::collections::HashMap;
use std::ffi::{OsStr, c_void};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Barrier;

use aotfarm_abi::kernel::{Call, Kernel, PACK_ONLY, PACK_SUFFIX};
use aotfarm_abi::{cc, isa};
use aotfarm_protocol::{DType, Lattice, Operand, OperandRole, Target, Values};
use libloading::Library;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use self::emulated::{EMULATED, Emulator, TEAMS};
use self::gpu::{Gpu, Nvrtc};

pub mod emulated;
pub mod gpu;
pub mod samples;
use crate::candidate::Candidate;
use crate::family::CandidateFamily;
use crate::measure::{operands, tolerance};
use crate::task::TuningTask;
use aotfarm_plan::oracle::{self, Tensor};
use aotfarm_plan::spec::{Layout, TensorSpec};

/// Points that are tried of each family and task: the best guesses, and some from all over the space.
const POINTS: usize = 6;
/// The same under an emulator, which is slow; every family has tasks enough.
const EMULATED_POINTS: usize = 2;
/// Units that one compiler process gets.
const UNITS_PER_PROCESS: usize = 8;

/// The C compiler, or `None` after saying why the test is skipped.
fn compiler() -> Option<String> {
    let cc = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    match Command::new(&cc).arg("--version").output() {
        Ok(output) if output.status.success() => Some(cc),
        _ => {
            eprintln!("skipped: no C compiler ({cc})");
            None
        }
    }
}

/// Whether this machine itself runs code for the target.
fn is_native(target: Target) -> bool {
    target.architecture() == Some(std::env::consts::ARCH) && isa::missing(&target.to_string()).is_empty()
}

/// What builds a target's units and runs them.
pub struct Host {
    compiler: String,
    /// `None`: this very process.
    emulator: Option<&'static Emulator>,
}

impl Host {
    /// The one for a target, or `None` after saying why the test is skipped.
    pub fn find(target: Target) -> Option<Self> {
        if is_native(target) {
            return Some(Self { compiler: compiler()?, emulator: None });
        }
        if target == EMULATED {
            return Some(Self { compiler: emulated::CC.to_owned(), emulator: Some(Emulator::find()?) });
        }
        eprintln!("skipped: this machine does not run {target}");
        None
    }
}

/// The flags that workers compile with, and all warnings as errors.
fn flags(target: Target) -> Vec<&'static str> {
    let quiet = |flag: &&&str| **flag == "-w";
    let workers = cc::COMMON.iter().filter(|flag| !quiet(flag)).chain(cc::target_flags(&target.to_string()));
    workers.chain(&["-Wall", "-Wextra", "-Werror"]).copied().collect()
}

fn compile<S: AsRef<OsStr>>(cc: &str, args: impl IntoIterator<Item = S>) {
    let output = Command::new(cc).args(args).output().expect("the compiler starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Compiles all distinct units into shared objects; the result maps symbols to the library that holds them.
pub struct Built {
    by_symbol: HashMap<String, usize>,
    files: Vec<PathBuf>,
    /// The same, loaded; none if they are for an emulator.
    libraries: Vec<Library>,
    _folder: tempfile::TempDir,
}

impl Built {
    /// Compiles. Units that pack are also checked in their pack-only form, for no particular machine.
    pub fn new(host: &Host, target: Target, candidates: &[&Candidate]) -> Self {
        let compiler = host.compiler.as_str();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut by_symbol = HashMap::new();
        let mut files = Vec::new();
        for candidate in candidates {
            let source = &candidate.source;
            if by_symbol.contains_key(&source.symbol) {
                continue;
            }
            let file = folder.path().join(format!("{}.c", files.len()));
            std::fs::write(&file, &source.text).expect("the folder is writable");
            if source.packs {
                let plain = ["-std=gnu11", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", PACK_ONLY];
                compile(compiler, plain.iter().map(AsRef::as_ref).chain([file.as_os_str()]));
            }
            by_symbol.insert(source.symbol.clone(), files.len() / UNITS_PER_PROCESS);
            files.push(file);
        }
        let groups: Vec<_> = files.chunks(UNITS_PER_PROCESS).enumerate().collect();
        let library = |k: usize| folder.path().join(format!("lib{k}.so"));
        // Two compilers at once: enough to hide one's waiting, few enough for a busy machine.
        for pair in groups.chunks(2) {
            std::thread::scope(|scope| {
                for (k, group) in pair {
                    let out = library(*k);
                    scope.spawn(move || {
                        let flags = flags(target);
                        let args = flags.iter().map(AsRef::as_ref).chain(["-shared".as_ref(), "-o".as_ref(), out.as_os_str()]);
                        compile(compiler, args.chain(group.iter().map(|f| f.as_os_str())).chain(["-lm".as_ref()]));
                    });
                }
            });
        }
        let files: Vec<PathBuf> = (0..groups.len()).map(library).collect();
        let loaded = files.iter().filter(|_| host.emulator.is_none());
        Self { by_symbol, libraries: loaded.map(|file| open(file)).collect(), files, _folder: folder }
    }

    /// The shared object that has a unit's symbol.
    pub fn library(&self, symbol: &str) -> &Path {
        &self.files[self.by_symbol[symbol]]
    }

    fn get<T>(&self, file_of: &str, symbol: &str) -> libloading::Symbol<'_, T> {
        let library = &self.libraries[self.by_symbol[file_of]];
        // SAFETY: the callers name functions of the kernel ABI with their types.
        unsafe { library.get(symbol.as_bytes()) }.unwrap_or_else(|e| panic!("symbol {symbol}: {e}"))
    }
}

fn open(path: &Path) -> Library {
    // SAFETY: the library was just made from this crate's own templates, which have no initialisers.
    unsafe { Library::new(path) }.expect("the library loads")
}

unsafe extern "C" fn barrier(team: *mut c_void, _thread: i32) {
    // SAFETY: `team` is the Barrier that `run` made, which outlives all calls.
    unsafe { &*team.cast::<Barrier>() }.wait();
}

/// Bytes between two fences. Everything starts as 0xff, which is NaN in every floating-point type.
struct Fenced {
    words: Vec<[u64; 8]>,
    len: usize,
    /// Bytes that it starts after a multiple of 64.
    past: usize,
}

impl Fenced {
    const FENCE: usize = 64;

    fn new(len: usize) -> Self {
        Self::past(len, 0)
    }

    fn past(len: usize, past: usize) -> Self {
        // One line before, at least one after; a line more to align in, and one to start after.
        Self { words: vec![[u64::MAX; 8]; len.div_ceil(64) + 5], len, past }
    }

    fn start(&self) -> usize {
        let base = self.words.as_ptr() as usize;
        Self::FENCE + base.next_multiple_of(64) - base + self.past
    }

    fn all(&self) -> &[u8] {
        bytemuck::cast_slice(&self.words)
    }

    fn bytes(&self) -> &[u8] {
        &self.all()[self.start()..][..self.len]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        let (start, len) = (self.start(), self.len);
        &mut bytemuck::cast_slice_mut(&mut self.words)[start..][..len]
    }

    fn ptr(&mut self) -> *mut c_void {
        self.bytes_mut().as_mut_ptr().cast()
    }

    fn fences_intact(&self) -> bool {
        let (start, end) = (self.start(), self.start() + self.len);
        self.all()[..start].iter().chain(&self.all()[end..]).all(|b| *b == 0xff)
    }
}

/// What an operand holds before the kernel runs: an output is zero where nothing may be written, NaN where everything must be.
pub fn prepared(operand: &Operand, raw: &[u8]) -> Vec<u8> {
    let mut bytes = raw.to_vec();
    if operand.role == OperandRole::Output {
        let size = operand.dtype.size();
        for at in operand.lattices.iter().flat_map(offsets) {
            bytes[at * size..(at + 1) * size].fill(0xff);
        }
    }
    bytes
}

/// Runs a candidate on raw operands as `threads` threads and returns its outputs.
///
/// # Panics
/// When it writes outside an output, or changes an input.
pub fn run(built: &Built, task: &TuningTask, candidate: &Candidate, raw: &[Vec<u8>], threads: usize) -> Vec<Vec<u8>> {
    let name = candidate.label();
    let needs = candidate.needs_at(task, &task.point);
    let operands = operands(task);
    let mut buffers: Vec<Fenced> = Vec::new();
    // Activations begin where any image of a batch could: images at a vector, other tensors at an element.
    let (inputs, outputs) = (task.spec.inputs.iter(), task.spec.outputs.iter());
    let past = |tensor: &TensorSpec| match tensor.layout {
        Layout::Image { block, .. } => block as usize * tensor.dtype.size() % 64,
        Layout::Plain => tensor.dtype.size(),
    };
    let weights = task.spec.weights.iter().map(|_| 0);
    let starts = inputs.map(past).chain(weights).chain(outputs.map(past));
    for ((operand, bytes), past) in operands.iter().zip(raw).zip(starts) {
        let mut buffer = Fenced::past(bytes.len(), past);
        buffer.bytes_mut().copy_from_slice(&prepared(operand, bytes));
        buffers.push(buffer);
    }
    let mut pointers = |role| -> Vec<*mut c_void> {
        operands.iter().zip(&mut buffers).filter(|(o, _)| o.role == role).map(|(_, b)| b.ptr()).collect()
    };
    let (input, mut weight, output) =
        (pointers(OperandRole::Input), pointers(OperandRole::Weight), pointers(OperandRole::Output));

    let symbol = &candidate.source.symbol;
    let mut packed = Fenced::new(needs.packed as usize);
    if candidate.source.packs {
        type Pack = unsafe extern "C" fn(*const *const c_void, *mut c_void, *const i64);
        let pack = built.get::<Pack>(symbol, &format!("{symbol}{PACK_SUFFIX}"));
        // SAFETY: all buffers are as large as the task and the family say.
        unsafe { pack(weight.as_ptr().cast(), packed.ptr(), candidate.tune.as_ptr()) };
        assert!(packed.fences_intact(), "{name} packs outside its buffer");
        weight.clear();
    }
    let mut shared = Fenced::new(needs.shared as usize);
    let mut scratch: Vec<_> = (0..threads).map(|_| Fenced::new(needs.thread as usize)).collect();
    let team = Barrier::new(threads);
    let kernel = *built.get::<Kernel>(symbol, symbol);
    let calls: Vec<Call> = scratch
        .iter_mut()
        .enumerate()
        .map(|(thread, scratch)| Call {
            inputs: input.as_ptr().cast(),
            weights: if candidate.source.packs { std::ptr::null() } else { weight.as_ptr().cast() },
            packed: if candidate.source.packs { packed.ptr() } else { std::ptr::null() },
            outputs: output.as_ptr(),
            shared: shared.ptr(),
            scratch: scratch.ptr(),
            dim: task.point.as_ptr(),
            tune: candidate.tune.as_ptr(),
            thread: thread as i32,
            threads: threads as i32,
            team: std::ptr::from_ref(&team).cast_mut().cast(),
            barrier,
        })
        .collect();
    std::thread::scope(|scope| {
        for call in &calls {
            let call = std::ptr::from_ref(call) as usize;
            // SAFETY: the ABI's contract is met by the lines above; the calls outlive the scope.
            scope.spawn(move || unsafe { kernel(call as *const Call) });
        }
    });
    assert!(shared.fences_intact(), "{name} writes outside the team's workspace");
    assert!(scratch.iter().all(Fenced::fences_intact), "{name} writes outside a thread's workspace");
    let mut outputs = Vec::new();
    for (k, ((operand, buffer), before)) in operands.iter().zip(&buffers).zip(raw).enumerate() {
        assert!(buffer.fences_intact(), "{name} writes outside operand {k}");
        if operand.role == OperandRole::Output {
            outputs.push(buffer.bytes().to_vec());
        } else {
            assert!(buffer.bytes() == before, "{name} changes operand {k}");
        }
    }
    outputs
}

/// The places of a lattice in order.
pub fn offsets(lattice: &Lattice) -> Vec<usize> {
    let mut places = vec![lattice.offset];
    for (size, stride) in &lattice.dims {
        places = places.iter().flat_map(|at| (0..*size).map(move |i| at + i * stride)).collect();
    }
    places.into_iter().map(|at| at as usize).collect()
}

/// Random raw operands of a task; outputs are zero.
pub fn random(task: &TuningTask, seed: u64) -> Vec<Vec<u8>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut fill = |operand: &aotfarm_protocol::Operand| {
        let mut data = Tensor { dtype: operand.dtype, values: vec![0.0; operand.len as usize] };
        if operand.role != OperandRole::Output {
            for at in operand.lattices.iter().flat_map(offsets) {
                data.values[at] = match operand.values {
                    // A sum of twelve uniform numbers is normal enough here.
                    Values::Normal { std } => f64::from(std) * ((0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0),
                    Values::Uniform { low, high } if operand.dtype.is_float() => low + (high - low) * rng.random::<f64>(),
                    Values::Uniform { low, high } => (low + (high - low) * rng.random::<f64>()).floor(),
                };
            }
        }
        data.to_bytes()
    };
    operands(task).iter().map(&mut fill).collect()
}

/// Relative L2 error over the places of `lattices`; infinite if special values do not match, or anything else was written.
pub fn error(dtype: DType, got: &[u8], want: &Tensor, lattices: &[Lattice]) -> f64 {
    let got = Tensor::from_bytes(dtype, got);
    let mut inside = vec![false; want.values.len()];
    let (mut difference, mut norm) = (0.0, 0.0);
    for at in lattices.iter().flat_map(offsets) {
        inside[at] = true;
        let (g, w) = (got.values[at], want.values[at]);
        if g == w || (g.is_nan() && w.is_nan()) {
            norm += if w.is_finite() { w * w } else { 0.0 };
            continue;
        }
        difference += (g - w) * (g - w);
        norm += w * w;
    }
    let untouched = got.values.iter().zip(&inside).all(|(g, inside)| *inside || *g == 0.0);
    if !untouched || difference.is_nan() {
        return f64::INFINITY;
    }
    if difference == 0.0 { 0.0 } else { (difference / norm).sqrt() }
}

/// The place that differs most, for messages.
fn worst(dtype: DType, got: &[u8], want: &Tensor) -> String {
    let got = Tensor::from_bytes(dtype, got);
    let differs = |g: f64, w: f64| if g == w || (g.is_nan() && w.is_nan()) { 0.0 } else { (g - w).abs().min(f64::MAX) };
    let pairs = got.values.iter().zip(&want.values).enumerate();
    let worst = pairs.max_by(|(_, (g, w)), (_, (h, x))| differs(**g, **w).total_cmp(&differs(**h, **x)));
    worst.map_or_else(String::new, |(at, (g, w))| format!("at {at}: {g} instead of {w}"))
}

/// Checks a family on tasks that it supports, with their operands: a sample of its points, alone and as a team of three, against
/// the oracle.
pub fn check_on(family: &dyn CandidateFamily, cases: &[(TuningTask, Vec<Vec<u8>>)]) {
    check_points(family, cases, POINTS);
}

/// [`check_on`] of so many points of each task.
pub fn check_points(family: &dyn CandidateFamily, cases: &[(TuningTask, Vec<Vec<u8>>)], points: usize) {
    let (gpu, cases): (Vec<_>, Vec<_>) = cases.iter().partition(|(task, _)| matches!(task.target, Target::Cuda { .. }));
    check_on_gpu(family, &gpu, points);
    let mut targets: Vec<Target> = cases.iter().map(|(task, _)| task.target).collect();
    targets.sort_unstable();
    targets.dedup();
    for target in targets {
        let Some(host) = Host::find(target) else { continue };
        let points = if host.emulator.is_some() { points.min(EMULATED_POINTS) } else { points };
        let cases: Vec<_> = cases.iter().filter(|(task, _)| task.target == target).collect();
        let sampled: Vec<Vec<Candidate>> = cases.iter().map(|(task, _)| sample(family, task, points)).collect();
        let all: Vec<&Candidate> = sampled.iter().flatten().collect();
        let built = Built::new(&host, target, &all);
        if let Some(emulator) = host.emulator {
            check_emulated(emulator, &built, &cases, &sampled);
            continue;
        }
        for ((task, raw), candidates) in cases.iter().zip(&sampled) {
            let want = oracle::evaluate(&task.spec, task.target, &task.point, raw);
            for candidate in candidates {
                for threads in TEAMS {
                    let got = run(&built, task, candidate, raw, threads);
                    assert_right(task, candidate, &format!("with {threads} threads"), &got, &want);
                }
            }
        }
    }
}

/// All candidates in one run of the emulator, which takes a while to start.
fn check_emulated(emulator: &Emulator, built: &Built, cases: &[&&(TuningTask, Vec<Vec<u8>>)], sampled: &[Vec<Candidate>]) {
    let runs = cases.iter().zip(sampled).flat_map(|((task, raw), all)| all.iter().map(move |c| (task, c, raw.as_slice())));
    let outputs = emulator.run(built, &runs.collect::<Vec<_>>());
    let mut outputs = outputs.unwrap_or_else(|e| panic!("{e}")).into_iter();
    for ((task, raw), candidates) in cases.iter().zip(sampled) {
        let want = oracle::evaluate(&task.spec, task.target, &task.point, raw);
        for (candidate, got) in candidates.iter().zip(outputs.by_ref()) {
            for (threads, got) in TEAMS.iter().zip(&got) {
                assert_right(task, candidate, &format!("emulated, with {threads} threads"), got, &want);
            }
        }
    }
}

/// [`check_points`] for GPUs: what NVRTC compiles, and what is right where there is a GPU.
fn check_on_gpu(family: &dyn CandidateFamily, cases: &[&(TuningTask, Vec<Vec<u8>>)], points: usize) {
    if cases.is_empty() {
        return;
    }
    let Some(nvrtc) = Nvrtc::find() else { return };
    for (task, raw) in cases {
        let Target::Cuda { sm } = task.target else { continue };
        let candidates = sample(family, task, points);
        let cubins = gpu::cubins(nvrtc, sm, &candidates.iter().collect::<Vec<_>>());
        let Some(gpu) = Gpu::find(task.target) else { continue };
        let want = oracle::evaluate(&task.spec, task.target, &task.point, raw);
        for (candidate, cubin) in candidates.iter().zip(&cubins) {
            let got = gpu.run(cubin, task, candidate, raw);
            assert_right(task, candidate, "on a GPU", &got, &want);
        }
    }
}

fn assert_right(task: &TuningTask, candidate: &Candidate, how: &str, got: &[Vec<u8>], want: &[Tensor]) {
    let outputs: Vec<_> = operands(task).into_iter().filter(|o| o.role == OperandRole::Output).collect();
    assert_eq!((got.len(), want.len()), (outputs.len(), outputs.len()));
    let limit = tolerance(task);
    for (k, ((output, got), want)) in outputs.iter().zip(got).zip(want).enumerate() {
        let error = error(output.dtype, got, want, &output.lattices);
        assert!(
            error <= limit,
            "{} for {} {how}: output {k} has error {error:e} > {limit:e}, most {}\nspec: {:?}\npoint: {:?}",
            candidate.label(),
            super::title(task),
            worst(output.dtype, got, want),
            task.spec,
            task.point,
        );
    }
}

/// Some points of a family for a task: half of them the first ones, the others spread over the space.
fn sample(family: &dyn CandidateFamily, task: &TuningTask, wanted: usize) -> Vec<Candidate> {
    family.supports(task).unwrap_or_else(|e| panic!("{} refuses {:?}: {e}", family.id(), task.spec));
    let points = family.enumerate(task);
    assert!(!points.is_empty(), "{} has no point for {:?}", family.id(), task.spec);
    let (n, half) = (points.len(), wanted.div_ceil(2));
    let mut picked: Vec<usize> =
        (0..n.min(half)).chain((half..wanted).map(|k| (n - 1) * (k + 1 - half) / (wanted - half))).collect();
    picked.sort_unstable();
    picked.dedup();
    picked.into_iter().map(|k| Candidate::new(family, task, points[k].clone())).collect()
}
