//! Work items done for real, with the C compiler of this host and child processes that crash, hang and lie.
//!
//! This program starts itself as the measuring child, so it has a `main` of its own, which runs the
//! tests with libtest-mimic.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use aotfarm_protocol::{
    BuildSpec, CandidateId, CopyStep, DType, Digest, KernelCall, Lattice, LinkSpec, MeasureProtocol, MeasureSpec, Operand,
    OperandRole, Outcome, PackStep, ProfileSpec, Target, TaskKey, Values, WorkResult, WorkSpec,
};
use aotfarm_worker::Worker;
use futures_util::FutureExt;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use bed::{Blobs, Test};

mod bed;

const ABI: &str = aotfarm_abi::kernel::AOTK_H;
const CUDA_ABI: &str = aotfarm_abi::kernel::AOTK_CUH;
const CUDA_TOOLS: &str = include_str!("../../compiler/kernels/include/cuda/tools.cu");

const TESTS: &[Test<Bed>] = &[
    ("equal_sources_give_equal_objects", |bed| equal_sources_give_equal_objects(bed).boxed()),
    ("a_refused_source_is_a_result_with_its_log", |bed| a_refused_source_is_a_result_with_its_log(bed).boxed()),
    ("bad_candidates_cost_themselves_only", |bed| bad_candidates_cost_themselves_only(bed).boxed()),
    ("a_bad_reference_rejects_the_item", |bed| a_bad_reference_rejects_the_item(bed).boxed()),
    ("weights_are_packed_and_rotated", |bed| weights_are_packed_and_rotated(bed).boxed()),
    ("linking_is_deterministic_and_packs", |bed| linking_is_deterministic_and_packs(bed).boxed()),
    ("linking_for_a_gpu_embeds_the_cubins", |bed| linking_for_a_gpu_embeds_the_cubins(bed).boxed()),
    ("lying_link_steps_are_rejected", |bed| lying_link_steps_are_rejected(bed).boxed()),
    ("a_file_that_is_no_artifact_is_rejected", |bed| a_file_that_is_no_artifact_is_rejected(bed).boxed()),
    ("cuda_units_are_built_without_a_gpu", |bed| cuda_units_are_built_without_a_gpu(bed).boxed()),
    ("a_cancelled_item_is_no_result", |bed| a_cancelled_item_is_no_result(bed).boxed()),
];

fn main() -> ExitCode {
    bed::run(TESTS, || Bed::new().boxed())
}

/// Two workers of one farm on this host.
struct Bed {
    blobs: Arc<Blobs>,
    worker: Worker,
    other: Worker,
    toolchain: String,
    target: Target,
    _dir: TempDir,
}

impl Bed {
    /// Fails, in words, where there is no compiler for this host.
    async fn new() -> Result<Self, String> {
        let blobs = Arc::new(Blobs::default());
        let (config, dir) = bed::config();
        let worker = Worker::new(config.clone(), blobs.clone()).await.unwrap();
        let other = Worker::new(config, blobs.clone()).await.unwrap();
        if let Some(error) = worker.toolchains().no_compiler() {
            return Err(error.to_string());
        }
        let (toolchain, capabilities) = (worker.capabilities().toolchains[0].clone(), worker.capabilities());
        let mut targets = capabilities.device.iter().flat_map(|d| d.targets.iter().copied());
        let target = targets.find(|t| toolchain.targets.contains(t)).ok_or("this CPU is below every target")?;
        Ok(Self { blobs, worker, other, toolchain: toolchain.id, target, _dir: dir })
    }

    async fn run(&self, worker: &Worker, spec: &WorkSpec) -> WorkResult {
        bed::execute(worker, spec).await
    }

    fn build_spec(&self, source: &str) -> WorkSpec {
        let source = self.blobs.put(format!("{ABI}\n{source}"));
        WorkSpec::Build(BuildSpec { source, target: self.target, flags: vec![], toolchain: self.toolchain.clone() })
    }

    async fn build(&self, source: &str) -> Digest {
        match self.run(&self.worker, &self.build_spec(source)).await {
            WorkResult::Built { object } => object,
            other => panic!("{other:?}"),
        }
    }
}

async fn equal_sources_give_equal_objects(bed: &Bed) {
    let spec = bed.build_spec("int x(int a) { static int n; return n += a; }");
    assert_eq!(bed.run(&bed.worker, &spec).await, bed.run(&bed.other, &spec).await);
}

async fn cuda_units_are_built_without_a_gpu(bed: &Bed) {
    let Some(nvrtc) = bed.worker.toolchains().nvrtc() else { return eprintln!("skipped: no NVRTC") };
    let sm = if nvrtc.targets.contains(&Target::Cuda { sm: 90 }) { 90 } else { 80 };
    let spec = |source: &str, flags: &[&str]| {
        WorkSpec::Build(BuildSpec {
            source: bed.blobs.put(source),
            target: Target::Cuda { sm },
            flags: flags.iter().map(ToString::to_string).collect(),
            toolchain: nvrtc.id.clone(),
        })
    };
    for source in [
        CUDA_TOOLS.to_owned(),
        format!("#define AOTK_SYMBOL k\n{CUDA_ABI}\n__global__ void k(aotk_call call) {{ aotk_wait(); }}"),
    ] {
        let defines = ["-DAOTK_SM=90", "-DAOTK_INPUTS=1", "-DAOTK_WEIGHTS=0", "-DAOTK_OUTPUTS=1", "-DAOTK_DIMS=0"];
        let built = bed.run(&bed.worker, &spec(&source, &defines)).await;
        assert_eq!(built, bed.run(&bed.other, &spec(&source, &defines)).await, "equal sources give equal objects");
        let WorkResult::Built { object } = built else { panic!("{built:?}") };
        assert_eq!(&bed.blobs.get(object)[..4], b"\x7FELF");
    }
    match bed.run(&bed.worker, &spec("extern \"C\" __global__ void k(float *x) { *x = y; }", &[])).await {
        WorkResult::BuildFailed { log } => assert!(log.contains("kernel.cu(1): error: identifier \"y\" is undefined"), "{log}"),
        other => panic!("{other:?}"),
    }
    let refused = bed.run(&bed.worker, &spec("", &["-I/etc"])).await;
    assert_eq!(refused, WorkResult::BuildFailed { log: "the flag `-I/etc` is not allowed".to_owned() });
    let WorkSpec::Build(mut other) = spec("", &[]) else { unreachable!() };
    other.target = Target::Cuda { sm: 61 };
    let error = bed.worker.execute(&WorkSpec::Build(other), &CancellationToken::new()).await.unwrap_err();
    assert!(error.contains("no toolchain `nvrtc-") && error.contains("cuda-sm_61"), "{error}");
}

async fn a_refused_source_is_a_result_with_its_log(bed: &Bed) {
    match bed.run(&bed.worker, &bed.build_spec("int x(int a) { return a +; }")).await {
        WorkResult::BuildFailed { log } => {
            assert!(log.contains("error: expected expression") && log.contains("kernel.c"), "{log}");
        }
        other => panic!("{other:?}"),
    }
    let WorkSpec::Build(mut spec) = bed.build_spec("") else { unreachable!() };
    spec.flags = vec!["-fplugin=evil.so".to_owned()];
    let refused = bed.run(&bed.worker, &WorkSpec::Build(spec.clone())).await;
    assert_eq!(refused, WorkResult::BuildFailed { log: "the flag `-fplugin=evil.so` is not allowed".to_owned() });
    spec.toolchain = "gcc-0".to_owned();
    let error = bed.worker.execute(&WorkSpec::Build(spec), &CancellationToken::new()).await.unwrap_err();
    assert!(error.contains("no toolchain `gcc-0`"), "{error}");
}

/// Rows of 64 floats with a zero in front of each; every element is to be `3 * x + w[0]`.
const ROWS: i64 = 500;
const ROW: i64 = 65;
const LEN: u64 = (ROWS * ROW) as u64;

fn measure_spec(reference: KernelCall, candidates: Vec<KernelCall>) -> MeasureSpec {
    let lattice = Lattice { offset: 1, dims: vec![(ROWS, ROW), (ROW - 1, 1)] };
    let operand = |role, len, lattices| Operand { role, dtype: DType::F32, len, lattices, values: Values::Normal { std: 1.0 } };
    MeasureSpec {
        task: TaskKey(Digest::of(b"task")),
        title: "affine(500x64)".to_owned(),
        operands: vec![
            operand(OperandRole::Input, LEN, vec![lattice.clone()]),
            operand(OperandRole::Weight, 16, vec![Lattice { offset: 0, dims: vec![(16, 1)] }]),
            operand(OperandRole::Output, LEN, vec![lattice]),
        ],
        reference,
        candidates,
        tools: None,
        tolerance: 1e-5,
        seed: 42,
        protocol: MeasureProtocol {
            version: 1,
            threads: 2,
            screen_runs: 2,
            race_runs: 5,
            race_width: 3,
            drop_factor: 1e6,
            rotate_bytes: 1 << 20,
            budget_ms: 60_000,
            run_limit_ms: 4_000,
            memory_limit: 256 << 20,
        },
    }
}

fn call(symbol: &str, object: Digest) -> KernelCall {
    KernelCall {
        candidate: CandidateId(Digest::of(symbol)),
        label: symbol.to_owned(),
        object,
        symbol: symbol.to_owned(),
        dims: vec![ROWS],
        tune: vec![3],
        packed_bytes: 0,
        shared_bytes: 0,
        thread_bytes: 0,
        launch: None,
        vendor: None,
    }
}

/// A kernel that does the right thing, with statements before and after.
fn kernel(symbol: &str, before: &str, after: &str) -> String {
    format!(
        "void *malloc(unsigned long); void exit(int);
        void {symbol}(const aotk_call *c) {{
            const float *x = c->in[0], *w = c->weight[0]; float *y = c->out[0]; int64_t from, to;
            aotk_share(c, c->dim[0], &from, &to);
            {before}
            for (int64_t r = from; r < to; r++) for (int64_t k = 1; k < {ROW}; k++) y[r * {ROW} + k] = c->tune[0] * x[r * {ROW} + k] + w[0];
            {after}
        }}"
    )
}

async fn bad_candidates_cost_themselves_only(bed: &Bed) {
    let endless = "volatile int go = 1; while (go) {}";
    let cases: &[(&str, &str, &str)] = &[
        ("right", "", ""),
        ("wrong", "", "y[1] += 1;"),
        ("unwritten", "if (c->thread == 1) to--;", ""),
        ("halo", "", "y[65] = 1;"),
        ("past_end", "", &format!("y[{LEN}] = 1;")),
        ("before_start", "", "y[-1] = 1;"),
        ("far_past_end", "", &format!("y[{}] = 1;", LEN + 2048)),
        ("overwrites_input", "", "((float *)x)[1] = 9;"),
        ("overwrites_weight", "", "((float *)w)[5] = 9;"),
        ("segfault", "*(volatile int *)8 = 1;", ""),
        ("endless", endless, ""),
        ("deadlock", "if (c->thread == 0) aotk_barrier(c);", ""),
        ("hog", "for (;;) { volatile char *p = malloc(1 << 20); p[0] = 1; }", ""),
        ("leaves", "if (c->thread == 0) exit(0);", ""),
        ("crashes_later", "static int n; if (c->thread == 0 && ++n == 3) *(volatile int *)8 = 1;", ""),
        ("infinite", "", "y[2] = 1.0f / 0.0f;"),
        ("stale_workspace", "", "y[1] += ((float *)c->scratch)[0];"),
        (
            "barriers",
            "((float *)c->shared)[c->thread] = 1; aotk_barrier(c); float s = ((float *)c->shared)[!c->thread] - 1;",
            "y[from * 65 + 1] += s;",
        ),
        ("absent", "", ""),
    ];
    let mut candidates = Vec::new();
    for (symbol, before, after) in cases {
        let defined = if *symbol == "absent" { "other" } else { symbol };
        let mut call = call(symbol, bed.build(&kernel(defined, before, after)).await);
        (call.shared_bytes, call.thread_bytes) = (64, 64);
        candidates.push(call);
    }
    let reference = call("reference", bed.build(&kernel("reference", "", "")).await);
    let spec = Box::new(measure_spec(reference, candidates));
    let result = bed.run(&bed.worker, &WorkSpec::Measure { spec, device: Digest::of(b"any") }).await;
    let WorkResult::Measured { outcomes } = result else { panic!("{result:?}") };
    for ((symbol, ..), (id, outcome)) in cases.iter().zip(&outcomes) {
        assert_eq!(*id, CandidateId(Digest::of(symbol)));
        let wrong = |words: &str| matches!(outcome, Outcome::WrongResult { reason, .. } if reason.contains(words));
        let crashed = |words: &str| matches!(outcome, Outcome::Crashed { reason } if reason.contains(words));
        let expected = match *symbol {
            "right" | "barriers" => matches!(outcome, Outcome::Measured(m) if m.raced == 5 && m.error < 1e-6 && m.median() > 0.0),
            "wrong" => wrong("relative L2 error"),
            "unwritten" => wrong("64 of 32000 elements were not written"),
            "halo" => wrong("the zero padding at element 65"),
            "past_end" => wrong("output 0: written past its end"),
            "before_start" => wrong("output 0: written before its start"),
            "overwrites_input" => wrong("input 0: overwritten"),
            "overwrites_weight" => wrong("weight 0: overwritten"),
            "infinite" | "stale_workspace" => wrong("not finite"),
            "far_past_end" | "segfault" | "crashes_later" => crashed("SIGSEGV"),
            "leaves" => crashed("exit status 0"),
            "endless" | "deadlock" => *outcome == Outcome::TimedOut { limit_ms: 4_000 },
            "hog" => matches!(outcome, Outcome::Crashed { .. } | Outcome::Unsupported { .. }),
            "absent" => matches!(outcome, Outcome::BuildFailed { log } if log.contains("`absent`")),
            other => panic!("{other}"),
        };
        assert!(expected, "{symbol}: {outcome:?}");
    }
}

async fn a_bad_reference_rejects_the_item(bed: &Bed) {
    let right = call("right", bed.build(&kernel("right", "", "")).await);
    for (symbol, before, words) in [
        ("ref_partial", "if (c->thread == 1) to--;", "64 of 32000 elements were not written"),
        ("ref_segv", "*(volatile int *)8 = 1;", "SIGSEGV"),
    ] {
        let reference = call(symbol, bed.build(&kernel(symbol, before, "")).await);
        let spec = Box::new(measure_spec(reference, vec![right.clone()]));
        match bed.run(&bed.worker, &WorkSpec::Measure { spec, device: Digest::of(b"any") }).await {
            WorkResult::Rejected { reason } => assert!(reason.contains(words) && reason.contains("affine(500x64)"), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
    let mut spec = measure_spec(right.clone(), vec![right]);
    spec.operands[0].lattices[0].dims[0].0 = 1 << 40;
    match bed.run(&bed.worker, &WorkSpec::Measure { spec: Box::new(spec), device: Digest::of(b"any") }).await {
        WorkResult::Rejected { reason } => assert!(reason.contains("operand 0: a lattice reaches element"), "{reason}"),
        other => panic!("{other:?}"),
    }
}

async fn weights_are_packed_and_rotated(bed: &Bed) {
    // The packed weights are the raw ones backwards; the kernel must get no raw ones.
    let packing = |symbol: &str, extra: &str| {
        format!(
            "void {symbol}_pack(const void *const *weight, void *packed, const int64_t *tune) {{
                const float *w = weight[0]; float *p = packed;
                for (int k = 0; k < 16; k++) p[k] = w[15 - k] * (tune[0] / 3);
                {extra}
            }}
            void {symbol}(const aotk_call *c) {{
                const float *x = c->in[0], *w = c->packed; float *y = c->out[0]; int64_t from, to;
                if (c->weight) __builtin_trap();
                aotk_share(c, c->dim[0], &from, &to);
                for (int64_t r = from; r < to; r++) for (int64_t k = 1; k < {ROW}; k++) y[r * {ROW} + k] = 3 * x[r * {ROW} + k] + w[15];
            }}"
        )
    };
    let mut candidates = vec![call("plain", bed.build(&kernel("plain", "", "")).await)];
    for (symbol, extra) in [("packs", ""), ("overruns", "p[16] = 1;"), ("hangs", "for (volatile int go = 1; go;) {}")] {
        let mut call = call(symbol, bed.build(&packing(symbol, extra)).await);
        call.packed_bytes = 64;
        candidates.push(call);
    }
    let mut spec = measure_spec(candidates[0].clone(), candidates);
    spec.protocol.race_runs = 40;
    let result = bed.run(&bed.worker, &WorkSpec::Measure { spec: Box::new(spec), device: Digest::of(b"any") }).await;
    let WorkResult::Measured { outcomes } = result else { panic!("{result:?}") };
    let outcome = |i: usize| &outcomes[i].1;
    for i in [0, 1] {
        assert!(matches!(outcome(i), Outcome::Measured(m) if m.raced >= 10 && m.error < 1e-6), "{:?}", outcome(i));
    }
    assert!(
        matches!(outcome(2), Outcome::WrongResult { reason, .. } if reason == "the packed weights: written past its end"),
        "{:?}",
        outcome(2)
    );
    assert!(matches!(outcome(3), Outcome::TimedOut { .. }), "{:?}", outcome(3));
}

const GLUE: &str = "extern const unsigned char aotfarm_weights[] __attribute__((visibility(\"hidden\")));
    int kernel(int); __attribute__((visibility(\"default\"))) int aotfarm_model(int i) { return kernel(aotfarm_weights[i]); }";
const PACK: &str = "#ifndef AOTK_PACK_ONLY
    #error only the pack function is wanted here
    #endif
    void add_pack(const void *const *weight, void *packed, const int64_t *tune) {
        const unsigned char *a = weight[0], *b = weight[1];
        for (int k = 0; k < 4; k++) ((unsigned char *)packed)[k] = a[k] + b[k] + tune[0];
    }
    void bad_pack(const void *const *weight, void *packed, const int64_t *tune) { ((char *)packed)[tune[0]] = 1; }";

async fn link_spec(bed: &Bed) -> LinkSpec {
    LinkSpec {
        target: bed.target,
        toolchain: bed.toolchain.clone(),
        glue: bed.blobs.put(GLUE),
        objects: vec![bed.build("int kernel(int a) { return 2 * a; }").await],
        weights: bed.blobs.put([1, 2, 3, 4, 10, 20, 30, 40]),
        section_bytes: 4096,
        packs: vec![PackStep {
            source: bed.blobs.put(format!("{ABI}\n{PACK}")),
            symbol: "add".to_owned(),
            tune: vec![100],
            inputs: vec![(0, 4), (4, 4)],
            offset: 64,
            bytes: 4,
        }],
        copies: vec![CopyStep { from: 2, to: 0, bytes: 3 }],
        recipe: None,
    }
}

async fn linking_is_deterministic_and_packs(bed: &Bed) {
    let spec = WorkSpec::Link(link_spec(bed).await);
    let first = bed.run(&bed.worker, &spec).await;
    assert_eq!(first, bed.run(&bed.other, &spec).await);
    let WorkResult::Linked { artifact, bytes } = first else { panic!("{first:?}") };
    let content = bed.blobs.get(artifact);
    assert_eq!(content.len() as u64, bytes);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.so"), content).unwrap();
    // SAFETY: the library was just made from the sources above, and the symbol has this type there.
    let value = unsafe {
        let library = libloading::Library::new(dir.path().join("a.so")).unwrap();
        let model = library.get::<extern "C" fn(i32) -> i32>(b"aotfarm_model").unwrap();
        assert!(library.get::<extern "C" fn(i32) -> i32>(b"kernel").is_err(), "one symbol is exported");
        [0, 1, 2, 3, 63, 64, 65, 67, 68].map(|i| model(i) / 2)
    };
    assert_eq!(value, [3, 4, 10, 0, 0, 111, 122, 144, 0]);
}

/// The objects of a GPU are files of any bytes, which the glue finds by name; the host's compiler links.
async fn linking_for_a_gpu_embeds_the_cubins(bed: &Bed) {
    let glue = "#pragma GCC visibility push(hidden)
        extern const unsigned char aotfarm_weights[], aotfarm_cubin_0000[], aotfarm_cubin_0001[];
        #pragma GCC visibility pop
        __attribute__((visibility(\"default\"))) int aotfarm_model(int i) {
            return (i < 10 ? aotfarm_weights : i < 20 ? aotfarm_cubin_0000 : aotfarm_cubin_0001)[i % 10]; }";
    let mut spec = link_spec(bed).await;
    spec.target = Target::Cuda { sm: 90 };
    spec.glue = bed.blobs.put(glue);
    spec.objects = vec![bed.blobs.put("first"), bed.blobs.put("second")];
    let spec = WorkSpec::Link(spec);
    let first = bed.run(&bed.worker, &spec).await;
    assert_eq!(first, bed.run(&bed.other, &spec).await);
    let WorkResult::Linked { artifact, .. } = first else { panic!("{first:?}") };
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.so"), bed.blobs.get(artifact)).unwrap();
    // SAFETY: as above.
    let value = unsafe {
        let library = libloading::Library::new(dir.path().join("a.so")).unwrap();
        let model = library.get::<extern "C" fn(i32) -> i32>(b"aotfarm_model").unwrap();
        [0, 1, 2, 3, 10, 14, 20, 25].map(|i| model(i))
    };
    assert_eq!(value, [3, 4, 10, 0, b'f'.into(), b't'.into(), b's'.into(), b'd'.into()]);
}

async fn lying_link_steps_are_rejected(bed: &Bed) {
    let good = link_spec(bed).await;
    let change = |f: &dyn Fn(&mut LinkSpec)| {
        let mut spec = good.clone();
        f(&mut spec);
        spec
    };
    let bad_pack = |tune: i64| {
        change(&|s| {
            s.packs[0].symbol = "bad".to_owned();
            s.packs[0].tune = vec![tune];
        })
    };
    for (spec, words) in [
        (change(&|s| s.copies[0].from = u64::MAX), "reaches past the end at 8"),
        (change(&|s| s.copies[0].to = 4094), "reaches past the end at 4096"),
        (change(&|s| s.packs[0].inputs[1].1 = 5), "`add_pack` reads weights at 4 of 5 bytes"),
        (change(&|s| s.packs[0].offset = 2), "two steps write the section at 2"),
        (change(&|s| s.section_bytes = u64::MAX), "too large"),
        (change(&|s| s.packs[0].symbol = "none".to_owned()), "no object defines `none_pack`"),
        (change(&|s| s.objects.clear()), "undefined reference to `kernel'"),
        (bad_pack(5), "`bad_pack` writes past its end"),
        (bad_pack(1 << 40), "SIGSEGV"),
    ] {
        match bed.run(&bed.worker, &WorkSpec::Link(spec)).await {
            WorkResult::Rejected { reason } => assert!(reason.contains(words), "{words}: {reason}"),
            other => panic!("{words}: {other:?}"),
        }
    }
}

async fn a_file_that_is_no_artifact_is_rejected(bed: &Bed) {
    let check = bed.blobs.put([&2u64.to_le_bytes()[..], b"{}"].concat());
    for (artifact, check) in [("not an ELF file", check), ("x", bed.blobs.put("no safetensors"))] {
        let spec = ProfileSpec {
            artifact: bed.blobs.put(artifact),
            target: bed.target,
            check,
            tolerance_e9: 1000,
            points: vec![],
            threads: 1,
            budget_ms: 10,
        };
        match bed.run(&bed.worker, &WorkSpec::Profile { spec, device: Digest::of(b"any") }).await {
            WorkResult::Rejected { reason } => assert!(!reason.is_empty()),
            other => panic!("{other:?}"),
        }
    }
}

async fn a_cancelled_item_is_no_result(bed: &Bed) {
    let endless = call("endless", bed.build(&kernel("endless", "for (volatile int go = 1; go;) {}", "")).await);
    let right = call("right", bed.build(&kernel("right", "", "")).await);
    let mut spec = measure_spec(right, vec![endless]);
    spec.protocol.run_limit_ms = 3_600_000;
    let (cancel, spec) = (CancellationToken::new(), WorkSpec::Measure { spec: Box::new(spec), device: Digest::of(b"any") });
    let stop = cancel.clone();
    let (result, ()) = tokio::join!(bed.worker.execute(&spec, &cancel), async move {
        // Whether the child runs already or not makes no difference to what must happen.
        tokio::time::sleep(Duration::from_millis(200)).await;
        stop.cancel();
    });
    assert_eq!(result, Err("cancelled".to_owned()));
}
