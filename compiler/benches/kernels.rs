//! How fast the kernels of a model are on this machine: for each of its tasks the best points of each family, in GFLOP/s and
//! percent of the machine's measured peak; then the sum of the winners, which is about the model's latency.
//!
//!     cargo bench -p aotfarm-compiler --bench kernels -- [model=resnet18] [target=cpu-x86_64-v4] [batch=1] [threads=2]
//!         [points=24] [show=3] [filter=convolution]
//!
//! It is for people who write kernels. The farm's own measuring is more careful: see the worker.
#![expect(clippy::disallowed_methods, reason = "a benchmark runs the C compiler")]

use std::cell::UnsafeCell;
use std::collections::HashMap;
use std::ffi::c_void;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use aotfarm_abi::cc;
use aotfarm_compiler::candidate::TuningTask;
use aotfarm_compiler::candidate::measure::{operands, tolerance};
use aotfarm_compiler::candidate::{self, Candidate};
use aotfarm_compiler::{flops, ir, passes, plan};
use aotfarm_protocol::{Lattice, OperandRole, Precision, Target, TuneMode};
use libloading::Library;
use rand::{RngExt as _, SeedableRng as _};

/// What is asked for on the command line.
struct Options {
    model: String,
    target: Target,
    batch: i64,
    threads: usize,
    points: usize,
    show: usize,
    filter: String,
}

impl Options {
    fn parse() -> Self {
        let best = aotfarm_runtime::host_targets().first().copied().expect("a CPU of a level that there are kernels for");
        let mut options =
            Self { model: "resnet18".to_owned(), target: best, batch: 1, threads: 2, points: 24, show: 3, filter: String::new() };
        // Cargo adds `--bench`.
        for word in std::env::args().skip(1).filter(|w| !w.starts_with("--")) {
            let (name, value) = word.split_once('=').unwrap_or_else(|| panic!("`{word}` is not name=value"));
            let number = || value.parse::<usize>().unwrap_or_else(|_| panic!("`{value}` is not a number"));
            match name {
                "model" => value.clone_into(&mut options.model),
                "target" => options.target = value.parse().unwrap_or_else(|e| panic!("{e}")),
                "batch" => options.batch = number() as i64,
                "threads" => options.threads = number().max(1),
                "points" => options.points = number(),
                "show" => options.show = number(),
                "filter" => value.clone_into(&mut options.filter),
                _ => panic!("unknown option `{name}`"),
            }
        }
        options
    }
}

fn main() {
    let options = Options::parse();
    let graph = ir::example(&options.model).unwrap_or_else(|| panic!("no example `{}`", options.model));
    let graph = passes::run(graph, None).expect("the passes accept the examples");
    let plan = plan::lower(graph, options.target, Precision::Fp32).expect("the examples have plans");
    let point = plan.tune_points(&[options.batch]).remove(0);
    let bench =
        Bench { folder: tempfile::tempdir().expect("a temporary folder"), target: options.target, threads: options.threads };
    let peak = bench.peak();
    println!("peak {peak:.0} GFLOP/s with {} threads of {}", options.threads, options.target);
    let mut total = 0.0;
    for planned in candidate::tasks(&plan, &point).expect("the point is in range") {
        let title = candidate::title(&planned.task);
        if !title.contains(&options.filter) {
            continue;
        }
        let mut rows = bench.task(&planned.task, options.points);
        rows.sort_by(|a, b| a.1.total_cmp(&b.1));
        let best = rows.first().map_or(f64::NAN, |r| r.1);
        total += best * f64::from(planned.calls);
        println!("\n{} x {title}", planned.calls);
        for (label, seconds) in rows.iter().take(options.show) {
            print!("  {:9.4} ms  {label}", seconds * 1e3);
            if let Some(flops) = flops::of_product(&planned.task) {
                print!("  {:.0} GFLOP/s, {:.0} % of peak", flops / seconds / 1e9, flops / seconds / 1e9 / peak * 100.0);
            }
            println!();
        }
    }
    println!("\n{} batch {} on {}: {:.3} ms", options.model, options.batch, options.target, total * 1e3);
}

/// By L2 norms.
fn relative_error(got: &[f32], want: &[f32]) -> f64 {
    let difference: f64 = got.iter().zip(want).map(|(g, w)| f64::from(g - w).powi(2)).sum();
    let norm: f64 = want.iter().map(|w| f64::from(*w).powi(2)).sum();
    (difference / norm.max(1e-30)).sqrt()
}

/// `aotk_call`.
#[repr(C)]
struct Call {
    input: *const *const c_void,
    weight: *const *const c_void,
    packed: *const c_void,
    output: *const *mut c_void,
    shared: *mut c_void,
    scratch: *mut c_void,
    dim: *const i64,
    tune: *const i64,
    thread: i32,
    threads: i32,
    team: *mut c_void,
    barrier: extern "C" fn(*mut c_void, i32),
}

type Kernel = unsafe extern "C" fn(*const Call);

/// Floats that start at a multiple of 64 bytes, with 64 readable bytes after them.
struct Floats(Vec<f32>);

impl Floats {
    fn new(bytes: u64) -> Self {
        Self(vec![0.0; bytes as usize / 4 + 48])
    }

    fn values(&mut self, len: usize) -> &mut [f32] {
        let start = self.0.as_ptr().align_offset(64);
        &mut self.0[start..][..len]
    }

    fn ptr(&mut self) -> *mut c_void {
        self.values(0).as_mut_ptr().cast()
    }
}

/// A barrier that spins: kernels are shorter than a sleep.
struct Team {
    arrived: AtomicUsize,
    threads: usize,
}

impl Team {
    fn wait(&self) {
        let ticket = self.arrived.fetch_add(1, Ordering::AcqRel);
        let target = (ticket / self.threads + 1) * self.threads;
        while self.arrived.load(Ordering::Acquire) < target {
            std::hint::spin_loop();
        }
    }
}

extern "C" fn barrier(team: *mut c_void, _thread: i32) {
    // SAFETY: `team` is the Team that `time` made, which outlives all calls.
    unsafe { &*team.cast::<Team>() }.wait();
}

struct Bench {
    folder: tempfile::TempDir,
    target: Target,
    threads: usize,
}

impl Bench {
    fn compile(&self, name: &str, text: &str) -> Library {
        assert!(matches!(self.target, Target::Cpu(_)), "no C compiler for a GPU");
        let at = |extension: &str| -> PathBuf { self.folder.path().join(format!("{name}.{extension}")) };
        std::fs::write(at("c"), text).expect("the folder is writable");
        let mut command = Command::new(std::env::var("CC").unwrap_or_else(|_| "cc".to_owned()));
        command.args(cc::COMMON).args(cc::target_flags(&self.target.to_string()));
        let status = command.arg("-shared").arg("-o").arg(at("so")).arg(at("c")).arg("-lm").status();
        assert!(status.expect("a C compiler").success(), "{name} does not compile");
        open(&at("so"))
    }

    /// GFLOP/s of independent multiply-adds in registers.
    fn peak(&self) -> f64 {
        let lanes = self.target.f32_lanes();
        let text = format!(
            "typedef float v __attribute__((vector_size({})));\n\
             void peak(void *const *p) {{\n\
             const float *x = p[0]; v a[12], m = x[0] - (v){{0}};\n\
             for (int i = 0; i < 12; i++) a[i] = m;\n\
             for (int r = 0; r < 1000000; r++) {{\n\
             _Pragma(\"GCC unroll 12\") for (int i = 0; i < 12; i++) a[i] = a[i] * m + m;\n\
             __asm__ volatile(\"\"); }}\n\
             for (int i = 1; i < 12; i++) a[0] += a[i];\n\
             *(v *)p[1] = a[0]; }}\n",
            lanes * 4
        );
        let library = self.compile("peak", &text);
        // SAFETY: the function above has this type.
        let kernel = unsafe { library.get::<unsafe extern "C" fn(*const *mut c_void)>(b"peak") }.expect("the symbol");
        let kernel = *kernel;
        let mut best = f64::INFINITY;
        for _ in 0..200 {
            let start = Instant::now();
            std::thread::scope(|scope| {
                for _ in 0..self.threads {
                    scope.spawn(move || {
                        let (mut x, mut y) = (Floats::new(64), Floats::new(64));
                        x.values(1)[0] = 0.5;
                        let pointers = [x.ptr(), y.ptr()];
                        // SAFETY: it reads one float and writes one vector.
                        unsafe { kernel(pointers.as_ptr()) };
                    });
                }
            });
            best = best.min(start.elapsed().as_secs_f64());
        }
        self.threads as f64 * 1e6 * 12.0 * lanes as f64 * 2.0 / best / 1e9
    }

    /// Seconds of each candidate that gives what the reference gives.
    fn task(&self, task: &TuningTask, points: usize) -> Vec<(String, f64)> {
        let candidates = candidate::candidates(task, TuneMode::Quick, Some(points as u32));
        let mut libraries: HashMap<String, Library> = HashMap::new();
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let described = operands(task);
        let mut buffers: Vec<Floats> = described.iter().map(|o| Floats::new(o.len * o.dtype.size() as u64)).collect();
        for (operand, buffer) in described.iter().zip(&mut buffers) {
            let values = buffer.values(operand.len as usize);
            for at in operand.lattices.iter().flat_map(places) {
                values[at] = if operand.role == OperandRole::Output { 0.0 } else { rng.random::<f32>() - 0.5 };
            }
        }
        let mut want: Option<Vec<Vec<f32>>> = None;
        let mut rows = Vec::new();
        for candidate in &candidates {
            let symbol = &candidate.source.symbol;
            let library = libraries.entry(symbol.clone()).or_insert_with(|| self.compile(symbol, &candidate.source.text));
            let naive = want.is_none();
            let seconds = self.time(library, task, candidate, &mut buffers, if naive { 1 } else { 60 });
            let outputs = described.iter().zip(&mut buffers).filter(|(o, _)| o.role == OperandRole::Output);
            let got: Vec<Vec<f32>> = outputs.map(|(operand, output)| output.values(operand.len as usize).to_vec()).collect();
            let want = want.get_or_insert_with(|| got.clone());
            let errors: Vec<f64> = got.iter().zip(&*want).map(|(got, want)| relative_error(got, want)).collect();
            let shown: Vec<String> = errors.iter().map(|error| format!("{error:.0e}")).collect();
            let label = format!("{} (error {})", candidate.label(), shown.join(", "));
            if errors.iter().all(|error| *error <= tolerance(task)) {
                rows.push((label, seconds));
            } else {
                println!("WRONG {label}");
            }
        }
        rows
    }

    /// The 20th percentile of some runs, with weights that no cache holds.
    fn time(&self, library: &Library, task: &TuningTask, candidate: &Candidate, buffers: &mut [Floats], runs: usize) -> f64 {
        let described = operands(task);
        let mut pointers = |role| -> Vec<*mut c_void> {
            described.iter().zip(&mut *buffers).filter(|(o, _)| o.role == role).map(|(_, b)| b.ptr()).collect()
        };
        let (input, weight, output) =
            (pointers(OperandRole::Input), pointers(OperandRole::Weight), pointers(OperandRole::Output));
        let symbol = &candidate.source.symbol;
        // SAFETY: rendered units define these symbols with these types.
        let kernel = *unsafe { library.get::<Kernel>(symbol.as_bytes()) }.expect("the kernel's symbol");
        let needs = &candidate.needs;
        let copies = 64_000_000u64.checked_div(needs.packed).unwrap_or(1).clamp(1, 16) as usize;
        let mut packed: Vec<_> = (0..copies).map(|_| Floats::new(needs.packed)).collect();
        if candidate.source.packs {
            type Pack = unsafe extern "C" fn(*const *const c_void, *mut c_void, *const i64);
            // SAFETY: as above.
            let pack = *unsafe { library.get::<Pack>(format!("{symbol}_pack").as_bytes()) }.expect("the pack function");
            for copy in &mut packed {
                // SAFETY: the buffers are as large as the task and the family say.
                unsafe { pack(weight.as_ptr().cast(), copy.ptr(), candidate.tune.as_ptr()) };
            }
        }
        let mut shared = Floats::new(needs.shared);
        let mut scratch: Vec<_> = (0..self.threads).map(|_| Floats::new(needs.thread)).collect();
        let team = Team { arrived: AtomicUsize::new(0), threads: self.threads };
        let (start, end) = (
            Team { arrived: AtomicUsize::new(0), threads: self.threads },
            Team { arrived: AtomicUsize::new(0), threads: self.threads },
        );
        let calls: Vec<Shared> = scratch
            .iter_mut()
            .enumerate()
            .map(|(thread, scratch)| {
                Shared(UnsafeCell::new(Call {
                    input: input.as_ptr().cast(),
                    weight: if candidate.source.packs { std::ptr::null() } else { weight.as_ptr().cast() },
                    packed: std::ptr::null(),
                    output: output.as_ptr(),
                    shared: shared.ptr(),
                    scratch: scratch.ptr(),
                    dim: task.point.as_ptr(),
                    tune: candidate.tune.as_ptr(),
                    thread: thread as i32,
                    threads: self.threads as i32,
                    team: std::ptr::from_ref(&team).cast_mut().cast(),
                    barrier,
                }))
            })
            .collect();
        let packed: Vec<usize> = packed.iter_mut().map(|p| p.ptr() as usize).collect();
        let mut samples = Vec::new();
        std::thread::scope(|scope| {
            let run = |call: &Shared, r: usize| {
                // SAFETY: each thread has its own call, and the buffers outlive the scope.
                unsafe {
                    (*call.0.get()).packed = packed[r % packed.len()] as *const c_void;
                    kernel(call.0.get());
                }
            };
            for call in &calls[1..] {
                let (start, end) = (&start, &end);
                scope.spawn(move || {
                    for r in 0..runs {
                        start.wait();
                        run(call, r);
                        end.wait();
                    }
                });
            }
            for r in 0..runs {
                start.wait();
                let from = Instant::now();
                run(&calls[0], r);
                end.wait();
                samples.push(from.elapsed().as_secs_f64());
            }
        });
        samples.sort_by(f64::total_cmp);
        samples[samples.len() / 5]
    }
}

/// A call that the thread it belongs to may change.
struct Shared(UnsafeCell<Call>);

// SAFETY: every thread touches only its own call.
unsafe impl Sync for Shared {}

fn open(path: &Path) -> Library {
    // SAFETY: the library was just made from this crate's own templates, which have no initialisers.
    unsafe { Library::new(path) }.expect("the library loads")
}

/// The places of a lattice in order.
fn places(lattice: &Lattice) -> Vec<usize> {
    let mut places = vec![lattice.offset];
    for (size, stride) in &lattice.dims {
        places = places.iter().flat_map(|at| (0..*size).map(move |i| at + i * stride)).collect();
    }
    places.into_iter().map(|at| at as usize).collect()
}
