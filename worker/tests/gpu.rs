//! Measuring on a GPU, for real: kernels that are right, wrong, crash and hang. Skipped where there is no GPU or no NVRTC.
//!
//! This program starts itself as the measuring child, so it has a `main` of its own, which runs the
//! tests with libtest-mimic.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use aotfarm_protocol::{
    Activation, BuildSpec, CandidateId, DType, Digest, Extent, GridAxis, KernelCall, Lattice, Launch, MeasureProtocol,
    MeasureSpec, Operand, OperandRole, Outcome, Target, TaskKey, Values, VendorCall, VendorLibrary, VendorMatMul, WorkResult,
    WorkSpec,
};
use aotfarm_worker::{Measures, Worker, probe_gpus};
use futures_util::future::join_all;
use futures_util::{FutureExt, StreamExt, stream};
use tempfile::TempDir;

use bed::{Blobs, Test};

mod bed;

const ABI: &str = aotfarm_abi::kernel::AOTK_CUH;
const TOOLS: &str = include_str!("../../compiler/kernels/include/cuda/tools.cu");

const TESTS: &[Test<Bed>] = &[
    ("bad_candidates_cost_themselves_only", |bed| bad_candidates_cost_themselves_only(bed).boxed()),
    ("a_bad_reference_rejects_the_item", |bed| a_bad_reference_rejects_the_item(bed).boxed()),
    ("every_element_type_can_be_measured", |bed| every_element_type_can_be_measured(bed).boxed()),
    ("times_are_those_of_the_device", |bed| times_are_those_of_the_device(bed).boxed()),
    ("cublaslt_multiplies_as_the_reference_does", |bed| cublaslt_multiplies_as_the_reference_does(bed).boxed()),
    ("many_candidates_are_measured_by_one_child", |bed| many_candidates_are_measured_by_one_child(bed).boxed()),
];

fn main() -> ExitCode {
    bed::run(TESTS, || Bed::new().boxed())
}

/// A worker that builds and measures on the first GPU.
struct Bed {
    blobs: Arc<Blobs>,
    worker: Worker,
    sm: u32,
    tools: Digest,
    _dir: TempDir,
}

impl Bed {
    async fn new() -> Result<Self, String> {
        let (mut config, dir) = bed::config();
        let gpu = probe_gpus(&config.child).await?.gpus.into_iter().next().ok_or("the driver knows no GPU")?;
        println!("{} ({}), {}", gpu.device.name, gpu.uuid, gpu.device.detail);
        let Some(Target::Cuda { sm }) = gpu.device.targets.first().copied() else { panic!("{gpu:?}") };
        config.device = Measures::Gpu(gpu);
        let blobs = Arc::new(Blobs::default());
        let worker = Worker::new(config, blobs.clone()).await.unwrap();
        if let Some(missing) = worker.toolchains().no_nvrtc() {
            return Err(missing.to_string());
        }
        let mut bed = Self { blobs, worker, sm, tools: Digest::of(""), _dir: dir };
        bed.tools = bed.build(TOOLS).await;
        Ok(bed)
    }

    async fn build(&self, source: &str) -> Digest {
        let toolchain = self.worker.toolchains().nvrtc().unwrap().id.clone();
        let source = self.blobs.put(source);
        let spec = BuildSpec { source, target: Target::Cuda { sm: self.sm }, flags: vec![], toolchain };
        match bed::execute(&self.worker, &WorkSpec::Build(spec)).await {
            WorkResult::Built { object } => object,
            other => panic!("{other:?}"),
        }
    }

    async fn kernel(&self, symbol: &str, body: &str) -> KernelCall {
        let object = self.build(&unit(self.sm, symbol, body)).await;
        call(symbol, object)
    }

    async fn measure(&self, spec: MeasureSpec) -> WorkResult {
        bed::execute(&self.worker, &WorkSpec::Measure { spec: Box::new(spec), device: Digest::of("any") }).await
    }

    async fn outcomes(&self, spec: MeasureSpec) -> Vec<Outcome> {
        match self.measure(spec).await {
            WorkResult::Measured { outcomes } => outcomes.into_iter().map(|(_, outcome)| outcome).collect(),
            other => panic!("{other:?}"),
        }
    }
}

/// Rows of 64 floats with a zero in front of each; every element is to be `3 * x + w[0]`. One thread for each element.
const ROWS: i64 = 500;
const ROW: i64 = 65;
const LEN: u64 = (ROWS * ROW) as u64;
const THREADS: u32 = 128;

/// A unit whose kernel has `at`, the number of its element, and `x`, `w` and `y`.
fn unit(sm: u32, symbol: &str, body: &str) -> String {
    let operands =
        "const float *x = (const float *)AOTK_IN(0), *w = (const float *)AOTK_WEIGHT(0); float *y = (float *)AOTK_OUT(0);";
    unit_of(sm, symbol, [1, 1], &format!("{operands} {body}"))
}

/// A unit whose kernel has `at`, of so many inputs and weights.
fn unit_of(sm: u32, symbol: &str, [inputs, weights]: [usize; 2], body: &str) -> String {
    format!(
        "#define AOTK_SYMBOL {symbol}
        #define AOTK_SM {sm}
        #define AOTK_INPUTS {inputs}
        #define AOTK_WEIGHTS {weights}
        #define AOTK_OUTPUTS 1
        #define AOTK_DIMS 1
        {ABI}
        extern \"C\" __global__ void AOTK_SYMBOL(const __grid_constant__ aotk_call call) {{
            aotk_wait();
            const int64_t at = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
            {body}
        }}"
    )
}

const RIGHT: &str = "if (at < AOTK_DIM(0) * 64) { const int64_t e = at / 64 * 65 + at % 64 + 1; y[e] = 3 * x[e] + w[0]; }";

fn call(symbol: &str, object: Digest) -> KernelCall {
    KernelCall {
        candidate: CandidateId(Digest::of(symbol)),
        label: symbol.to_owned(),
        object,
        symbol: symbol.to_owned(),
        dims: vec![ROWS],
        tune: vec![],
        packed_bytes: 0,
        shared_bytes: 0,
        thread_bytes: 0,
        launch: Some(Launch::linear(GridAxis { times: 1, mul: 64, dims: vec![0], div: i64::from(THREADS) }, THREADS, 0)),
        vendor: None,
    }
}

fn spec(bed: &Bed, reference: &KernelCall, candidates: Vec<KernelCall>) -> MeasureSpec {
    let lattice = Lattice { offset: 1, dims: vec![(ROWS, ROW), (ROW - 1, 1)] };
    let operand = |role, len, lattices| Operand { role, dtype: DType::F32, len, lattices, values: Values::Normal { std: 1.0 } };
    MeasureSpec {
        task: TaskKey(Digest::of("task")),
        title: "affine(500x64)".to_owned(),
        operands: vec![
            operand(OperandRole::Input, LEN, vec![lattice.clone()]),
            operand(OperandRole::Weight, 16, vec![Lattice { offset: 0, dims: vec![(16, 1)] }]),
            operand(OperandRole::Output, LEN, vec![lattice]),
        ],
        reference: reference.clone(),
        candidates,
        tools: Some(bed.tools),
        tolerance: 1e-5,
        seed: 42,
        protocol: MeasureProtocol {
            version: 1,
            threads: 1,
            screen_runs: 2,
            race_runs: 5,
            race_width: 3,
            drop_factor: 1e6,
            rotate_bytes: 16 << 20,
            budget_ms: 60_000,
            run_limit_ms: 1_000,
            memory_limit: 256 << 20,
        },
    }
}

async fn bad_candidates_cost_themselves_only(bed: &Bed) {
    let cases: &[(&str, String)] = &[
        ("right", RIGHT.to_owned()),
        ("wrong", format!("{RIGHT} if (at == 0) y[1] += 1;")),
        ("unwritten", "if (at < 64 * 499) { const int64_t e = at / 64 * 65 + at % 64 + 1; y[e] = 3 * x[e] + w[0]; }".to_owned()),
        ("halo", format!("{RIGHT} if (at == 0) y[65] = 1;")),
        ("past_end", format!("{RIGHT} if (at == 0) y[{LEN}] = 1;")),
        ("before_start", format!("{RIGHT} if (at == 0) y[-1] = 1;")),
        ("overwrites_input", format!("{RIGHT} if (at == 0) ((float *)x)[1] = 9;")),
        ("overwrites_weight", format!("{RIGHT} if (at == 0) ((float *)w)[5] = 9;")),
        ("illegal", format!("{RIGHT} if (at == 0) *(volatile int *)8 = 1;")),
        ("after_illegal", RIGHT.to_owned()),
        ("misaligned", format!("{RIGHT} if (at == 0) *(volatile int *)((char *)y + 6) = 1;")),
        ("traps", format!("{RIGHT} if (at == 7) asm volatile(\"trap;\");")),
        ("endless", format!("{RIGHT} for (;;) asm volatile(\"nanosleep.u32 1000;\");")),
        ("infinite", format!("{RIGHT} if (at == 0) y[2] = 1.0f / 0.0f;")),
        ("stale_workspace", format!("{RIGHT} if (at == 0) y[1] += *(float *)AOTK_WORKSPACE;")),
        ("uses_workspace", format!("((float *)AOTK_WORKSPACE)[at % 16] = 0; {RIGHT}")),
        ("past_workspace", format!("((float *)AOTK_WORKSPACE)[16] = 0; {RIGHT}")),
        ("shared", format!("extern __shared__ float s[]; s[50000 + threadIdx.x] = w[0]; __syncthreads(); {RIGHT}")),
        ("too_much_shared", RIGHT.to_owned()),
        ("clusters", RIGHT.to_owned()),
        ("huge_workspace", RIGHT.to_owned()),
        ("absent", RIGHT.to_owned()),
    ];
    let builds = cases.iter().map(|(symbol, body)| bed.kernel(if *symbol == "absent" { "other" } else { symbol }, body));
    let mut candidates = join_all(builds).await;
    for (call, (symbol, _)) in candidates.iter_mut().zip(cases) {
        (call.symbol, call.candidate, call.shared_bytes) = ((*symbol).to_owned(), CandidateId(Digest::of(symbol)), 64);
        let launch = call.launch.as_mut().unwrap();
        match *symbol {
            "shared" => launch.shared_bytes = 210_000,
            "too_much_shared" => launch.shared_bytes = 1 << 20,
            "clusters" if bed.sm >= 90 => launch.cluster = [2, 1, 1],
            "huge_workspace" => call.shared_bytes = 1 << 50,
            _ => {}
        }
    }
    let reference = bed.kernel("reference", RIGHT).await;
    let start = Instant::now();
    let outcomes = bed.outcomes(spec(bed, &reference, candidates)).await;
    println!("{} candidates of which many die: {:.1} s", cases.len(), start.elapsed().as_secs_f64());
    for ((symbol, _), outcome) in cases.iter().zip(&outcomes) {
        let wrong = |words: &str| matches!(outcome, Outcome::WrongResult { reason, .. } if reason.contains(words));
        let crashed = |words: &str| matches!(outcome, Outcome::Crashed { reason } if reason.contains(words));
        let measured = matches!(outcome, Outcome::Measured(m) if m.error < 1e-6 && m.median() > 0.0);
        let unsupported = matches!(outcome, Outcome::Unsupported { .. });
        let expected = match *symbol {
            "right" | "after_illegal" | "uses_workspace" | "clusters" => measured,
            // Only large devices have so much.
            "shared" => measured || unsupported,
            "too_much_shared" | "huge_workspace" => unsupported,
            "wrong" => wrong("relative L2 error"),
            "unwritten" => wrong("64 of 32000 elements were not written"),
            "halo" => wrong("the zero padding at element 65"),
            "past_end" => wrong("output 0: written past its end"),
            "before_start" => wrong("output 0: written before its start"),
            "overwrites_input" => wrong("input 0: overwritten"),
            "overwrites_weight" => wrong("weight 0: overwritten"),
            "past_workspace" => wrong("workspace: written past its end"),
            "infinite" | "stale_workspace" => wrong("not finite"),
            "illegal" => crashed("ILLEGAL_ADDRESS"),
            "misaligned" => crashed("MISALIGNED"),
            "traps" => crashed("LAUNCH_FAILED") || crashed("ILLEGAL_INSTRUCTION"),
            "endless" => *outcome == Outcome::TimedOut { limit_ms: 1_000 },
            "absent" => matches!(outcome, Outcome::BuildFailed { log } if log.contains("`absent`")),
            other => panic!("{other}"),
        };
        assert!(expected, "{symbol}: {outcome:?}");
    }
}

async fn a_bad_reference_rejects_the_item(bed: &Bed) {
    let right = bed.kernel("right", RIGHT).await;
    for (symbol, body, words) in [
        ("ref_partial", "if (at < 64) y[at + 1] = 0;", "31936 of 32000 elements were not written"),
        ("ref_crash", "*(volatile int *)8 = 1;", "ILLEGAL_ADDRESS"),
    ] {
        let reference = bed.kernel(symbol, body).await;
        match bed.measure(spec(bed, &reference, vec![right.clone()])).await {
            WorkResult::Rejected { reason } => assert!(reason.contains(words) && reason.contains("affine(500x64)"), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
    let no_tools = MeasureSpec { tools: None, ..spec(bed, &right, vec![right.clone()]) };
    match bed.measure(no_tools).await {
        WorkResult::Rejected { reason } => assert!(reason.contains("no tools"), "{reason}"),
        other => panic!("{other:?}"),
    }
    let outcomes = bed.outcomes(spec(bed, &right, vec![right.clone()])).await;
    assert!(matches!(&outcomes[0], Outcome::Measured(m) if m.raced == 5), "{outcomes:?}");
}

async fn every_element_type_can_be_measured(bed: &Bed) {
    for dtype in DType::ALL {
        let size = dtype.size();
        let body = |extra: &str| {
            format!(
                "if (at < 32000) {{ const int64_t e = at / 64 * 65 + at % 64 + 1; for (int k = 0; k < {size}; k++) ((char *)y)[e * {size} + k] = ((const char *)x)[e * {size} + k]; {extra} }}"
            )
        };
        let reference = bed.kernel("copy", &body("")).await;
        let other = bed.kernel("other", &body(&format!("if (at == 99) ((char *)y)[e * {size}] ^= 1;"))).await;
        let mut spec = spec(bed, &reference, vec![reference.clone(), other]);
        spec.tolerance = 0.0;
        for operand in [0, 2] {
            spec.operands[operand].dtype = dtype;
            if !dtype.is_float() {
                spec.operands[operand].values =
                    Values::Uniform { low: 0.0, high: if dtype == DType::Bool { 2.0 } else { 100.0 } };
            }
        }
        let outcomes = bed.outcomes(spec).await;
        assert!(matches!(&outcomes[0], Outcome::Measured(m) if m.error == 0.0), "{dtype}: {:?}", outcomes[0]);
        assert!(matches!(&outcomes[1], Outcome::WrongResult { error: Some(e), .. } if *e > 0.0), "{dtype}: {:?}", outcomes[1]);
    }
}

/// A copy of 256 MiB cannot be faster than any device's memory, nor slower than the slowest's.
async fn times_are_those_of_the_device(bed: &Bed) {
    const FLOATS: i64 = 32 << 20;
    let copy =
        "for (int64_t e = at; e < AOTK_DIM(0); e += (int64_t)gridDim.x * blockDim.x) ((float4 *)y)[e] = ((const float4 *)x)[e];";
    let mut call = bed.kernel("copy", copy).await;
    call.dims = vec![FLOATS / 4];
    call.launch = Some(Launch::linear(GridAxis::fixed(132 * 8), 512, 0));
    let mut small = call.clone();
    (small.candidate, small.dims) = (CandidateId(Digest::of("small")), vec![64]);
    let mut spec = spec(bed, &call, vec![call.clone()]);
    let all = vec![Lattice { offset: 0, dims: vec![(FLOATS, 1)] }];
    for operand in [0, 2] {
        (spec.operands[operand].len, spec.operands[operand].lattices) = (FLOATS as u64, all.clone());
    }
    let start = Instant::now();
    let outcomes = bed.outcomes(spec.clone()).await;
    let Outcome::Measured(m) = &outcomes[0] else { panic!("{outcomes:?}") };
    let rate = 8.0 * FLOATS as f64 / m.median();
    println!(
        "copy of 128 MiB: {:.1} us, {:.2} TB/s, in all {:.2} s; {:?}",
        m.median() * 1e6,
        rate / 1e12,
        start.elapsed().as_secs_f64(),
        m.conditions
    );
    println!("  samples in us: {:.1?}", m.samples.iter().map(|s| s * 1e6).collect::<Vec<_>>());
    assert!((1e10..2e13).contains(&rate), "{rate}");
    // A kernel that does nearly nothing, among others of its kind.
    for operand in [0, 2] {
        (spec.operands[operand].len, spec.operands[operand].lattices) = (256, vec![Lattice { offset: 0, dims: vec![(256, 1)] }]);
    }
    small.launch = Some(Launch::linear(GridAxis::fixed(132), 128, 0));
    (spec.reference, spec.candidates) = (small.clone(), vec![small]);
    let outcomes = bed.outcomes(spec).await;
    let Outcome::Measured(m) = &outcomes[0] else { panic!("{outcomes:?}") };
    println!(
        "a kernel that does nearly nothing: {:.2} us; samples {:.2?}",
        m.median() * 1e6,
        m.samples.iter().map(|s| s * 1e6).collect::<Vec<_>>()
    );
}

/// One product for cuBLASLt: its types, whether it may use tf32, matrices, whether b is a weight and `[n, k]`, and what follows.
struct Product {
    types: [DType; 2],
    tf32: bool,
    batch: i64,
    linear: bool,
    residual: bool,
    activation: Activation,
}

/// Products of 37 rows with odd sizes of every kind that the compiler asks for, against a kernel that sums in double.
async fn cublaslt_multiplies_as_the_reference_does(bed: &Bed) {
    let plain =
        Product { types: [DType::F32; 2], tf32: false, batch: 1, linear: true, residual: false, activation: Activation::None };
    let of = |types: [DType; 2]| Product { types, ..plain };
    let products = [
        of([DType::F32; 2]),
        Product { tf32: true, activation: Activation::Relu, ..plain },
        Product { residual: true, activation: Activation::Relu, ..of([DType::F32; 2]) },
        Product { activation: Activation::Gelu, ..of([DType::Bf16; 2]) },
        Product { residual: true, ..of([DType::F16; 2]) },
        of([DType::Bf16, DType::F32]),
        Product { batch: 3, linear: false, ..plain },
        Product { batch: 3, linear: false, ..of([DType::Bf16; 2]) },
    ];
    for (number, product) in products.iter().enumerate() {
        let outcomes = bed.outcomes(product.spec(bed, number).await).await;
        match &outcomes[0] {
            Outcome::Measured(m) => {
                println!("cuBLASLt {number}: {:.2} us, error {:.1e}", m.median() * 1e6, m.error);
                assert!(m.raced > 0 && (1e-7..1e-3).contains(&m.median()), "{m:?}");
            }
            Outcome::Unsupported { reason } if reason.contains(&format!("has no {}", VendorLibrary::CublasLt.name())) => {
                println!("skipped: {reason}");
                return;
            }
            other => panic!("product {number}: {other:?}"),
        }
    }
}

impl Product {
    const M: i64 = 37;
    const N: i64 = 48;
    const K: i64 = 72;

    async fn spec(&self, bed: &Bed, number: usize) -> MeasureSpec {
        let Self { types: [factors, result], tf32, batch, linear, residual, activation } = *self;
        let (m, n, k) = (Self::M, Self::N, Self::K);
        let c = |dtype| match dtype {
            DType::Bf16 => "aotk_bf16",
            DType::F16 => "aotk_f16",
            _ => "float",
        };
        let b = if linear { "AOTK_WEIGHT(0)" } else { "AOTK_IN(1)" };
        let at_b = if linear { format!("b[col * {k} + t]") } else { format!("b[(at / {}) * {} + t * {n} + col]", m * n, k * n) };
        let (f, r) = (c(factors), c(result));
        let bias = if linear { "x += ((const float *)AOTK_WEIGHT(1))[col];" } else { "" };
        let add = if residual { format!("x += aotk_float(((const {r} *)AOTK_IN(1))[at]);") } else { String::new() };
        let last = match activation {
            Activation::None => "",
            Activation::Relu => "x = x > 0 ? x : 0;",
            Activation::Gelu => "x = 0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));",
        };
        let body = format!(
            "const {f} *a = (const {f} *)AOTK_IN(0), *b = (const {f} *){b};
             if (at < AOTK_DIM(0) * {n} * {batch}) {{
                 const int64_t col = at % {n}, row = at / {n};
                 double x = 0;
                 for (int t = 0; t < {k}; t++) x += (double)aotk_float(a[row * {k} + t]) * (double)aotk_float({at_b});
                 {bias} {add} {last}
                 aotk_store((({r} *)AOTK_OUT(0)) + at, (float)x);
             }}"
        );
        let (inputs, weights) = (if residual || !linear { 2 } else { 1 }, if linear { 2 } else { 0 });
        let symbol = format!("product_{number}");
        let reference = KernelCall {
            dims: vec![m],
            launch: Some(Launch::linear(
                GridAxis { times: 1, mul: n * batch, dims: vec![0], div: i64::from(THREADS) },
                THREADS,
                0,
            )),
            ..call(&symbol, bed.build(&unit_of(bed.sm, &symbol, [inputs, weights], &body)).await)
        };
        let vendor = VendorMatMul {
            dtypes: self.types,
            batch: Extent::fixed(batch),
            m: Extent { factor: 1, dims: vec![0] },
            n: Extent::fixed(n),
            k: Extent::fixed(k),
            b_is_weight: linear,
            b_transposed: linear,
            tf32,
            bias: linear.then_some(1),
            residual: residual.then_some(1),
            activation,
        };
        let candidate = KernelCall {
            candidate: CandidateId(Digest::of("vendor")),
            launch: None,
            vendor: Some(VendorCall::MatMul(vendor)),
            ..reference.clone()
        };
        let operand = |role, dtype, len: i64| Operand {
            role,
            dtype,
            len: len as u64,
            lattices: vec![Lattice { offset: 0, dims: vec![(len, 1)] }],
            values: Values::Normal { std: if role == OperandRole::Weight { 0.12 } else { 1.0 } },
        };
        let mut operands = vec![operand(OperandRole::Input, factors, batch * m * k)];
        if linear {
            operands.extend(residual.then(|| operand(OperandRole::Input, result, m * n)));
            operands.push(operand(OperandRole::Weight, factors, n * k));
            operands.push(operand(OperandRole::Weight, DType::F32, n));
        } else {
            operands.push(operand(OperandRole::Input, factors, batch * k * n));
        }
        operands.push(operand(OperandRole::Output, result, batch * m * n));
        let tolerance = match (factors, result) {
            (DType::F32, _) if tf32 => 2e-3,
            (_, DType::Bf16) => 8e-3,
            (_, DType::F16) => 1e-3,
            _ => 3e-6,
        };
        MeasureSpec { operands, tolerance, ..spec(bed, &reference, vec![candidate]) }
    }
}

async fn many_candidates_are_measured_by_one_child(bed: &Bed) {
    let start = Instant::now();
    let build = |n: u32| async move { bed.kernel(&format!("candidate_{n}"), &format!("{RIGHT} if (at < 0) y[0] = {n};")).await };
    let builds = stream::iter(0..256).map(build);
    let candidates: Vec<KernelCall> = builds.buffered(std::thread::available_parallelism().unwrap().get()).collect().await;
    println!("256 units built in {:.2} s", start.elapsed().as_secs_f64());
    let reference = bed.kernel("reference", RIGHT).await;
    let mut spec = spec(bed, &reference, candidates);
    spec.protocol.drop_factor = 2.0;
    for turn in ["first", "second"] {
        let start = Instant::now();
        let outcomes = bed.outcomes(spec.clone()).await;
        println!("256 candidates measured in {:.2} s ({turn} time)", start.elapsed().as_secs_f64());
        assert!(outcomes.iter().all(|o| matches!(o, Outcome::Measured(_))), "{outcomes:?}");
    }
}
