//! A value of every type: of an enum each variant, of a struct with optional fields one with all and one with none.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use aotfarm_protocol::*;
use uuid::Uuid;

use crate::cases::Cases;

/// Every value.
pub(crate) fn all() -> Cases {
    let mut cases = Cases::default();
    words(&mut cases);
    jobs(&mut cases);
    measuring(&mut cases);
    vendors(&mut cases);
    work(&mut cases);
    workers(&mut cases);
    models(&mut cases);
    queries(&mut cases);
    cases
}

/// The keys that rows are found by, each with what it is the key of.
pub(crate) fn keys() -> String {
    let mut text = String::new();
    for spec in specs() {
        let kind = serde_json::to_string(&spec.kind()).expect("a word");
        writeln!(text, "work item {kind}: {}", spec.id()).expect("a String takes all");
    }
    for device in devices() {
        writeln!(text, "device {}: {}", device.name, device.fingerprint()).expect("a String takes all");
    }
    text
}

fn digest(of: &str) -> Digest {
    Digest::of(of)
}

fn point(batch: i64) -> BTreeMap<String, i64> {
    BTreeMap::from([("batch".to_owned(), batch), ("seq".to_owned(), 128)])
}

const V3: Target = Target::Cpu(CpuIsa::X86_64V3);
const GPU: Target = Target::Cuda { sm: 90 };

fn job_id() -> JobId {
    JobId(Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001))
}

fn worker_id() -> WorkerId {
    WorkerId(Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0002))
}

fn words(cases: &mut Cases) {
    cases.add([digest("abc")]);
    cases.add([V3, Target::Cpu(CpuIsa::X86_64V4), Target::Cpu(CpuIsa::Aarch64), GPU]);
    cases.add(DType::ALL);
    cases.add([TuneMode::None, TuneMode::Quick, TuneMode::Full]);
    cases.add([Accuracy::Strict, Accuracy::Default]);
    cases.add([Precision::Fp32, Precision::Tf32, Precision::Bf16, Precision::Fp16]);
    cases.add([
        JobState::Queued,
        JobState::Planning,
        JobState::Tuning,
        JobState::Linking,
        JobState::Profiling,
        JobState::Published,
        JobState::Failed,
        JobState::Cancelled,
    ]);
    cases.add([WorkKind::Build, WorkKind::Measure, WorkKind::Link, WorkKind::ModelRace, WorkKind::Profile]);
    cases.add([ItemState::Queued, ItemState::Leased, ItemState::Done, ItemState::Quarantined, ItemState::Cancelled]);
    cases.add([WorkerState::Alive, WorkerState::Stale, WorkerState::Unknown, WorkerState::Draining, WorkerState::Gone]);
    cases.add([DeviceKind::Cpu, DeviceKind::Cuda]);
    cases.add([OperandRole::Input, OperandRole::Weight, OperandRole::Output]);
    cases.add([
        ErrorCode::BadRequest,
        ErrorCode::NotFound,
        ErrorCode::Conflict,
        ErrorCode::LeaseLost,
        ErrorCode::Damaged,
        ErrorCode::NoCapableWorker,
        ErrorCode::Storage,
        ErrorCode::Unsupported,
        ErrorCode::Internal,
    ]);
    cases.add(errors());
    cases.add([job_id()]);
    cases.add([worker_id()]);
    cases.add([WorkItemId(digest("item"))]);
    cases.add([TaskKey(digest("task"))]);
    cases.add([CandidateId(digest("candidate"))]);
}

fn errors() -> [ApiError; 2] {
    [
        ApiError::new(ErrorCode::NotFound, "there is no model `m`").hint("list them with `aotfarm ls`"),
        ApiError::new(ErrorCode::Internal, "the disk is gone"),
    ]
}

fn dim_range() -> DimRange {
    DimRange { name: "batch".into(), min: 1, max: 64 }
}

fn requests() -> [JobRequest; 2] {
    let plain = JobRequest {
        name: "m".into(),
        graph: digest("graph"),
        targets: vec![V3],
        dims: vec![],
        tune: TuneMode::Quick,
        trials: None,
        budget_s: None,
        tune_at: vec![],
        accuracy: Accuracy::Default,
        precision: Precision::Fp32,
        threads: None,
        allow_vendor: false,
        samples: None,
    };
    let full = JobRequest {
        name: "resnet18".into(),
        targets: vec![V3, GPU],
        dims: vec![dim_range()],
        tune: TuneMode::Full,
        trials: Some(64),
        budget_s: Some(300),
        tune_at: vec![1, 8, 32],
        accuracy: Accuracy::Strict,
        precision: Precision::Bf16,
        threads: Some(4),
        allow_vendor: true,
        samples: Some(digest("samples")),
        ..plain.clone()
    };
    [full, plain]
}

fn devices() -> [Device; 2] {
    [
        Device {
            kind: DeviceKind::Cpu,
            name: "AMD EPYC 9354".into(),
            cores: 32,
            detail: "AuthenticAMD 25/17/1; L1d 32K L2 1M L3 32M".into(),
            targets: vec![Target::Cpu(CpuIsa::X86_64V4), V3],
        },
        Device {
            kind: DeviceKind::Cuda,
            name: "NVIDIA H100 80GB HBM3".into(),
            cores: 132,
            detail: "sm_90; 80 GiB; driver 570.86".into(),
            targets: vec![GPU],
        },
    ]
}

fn quantiles() -> Quantiles {
    Quantiles { min: 0.00125, p10: 0.0015, p50: 0.002, p90: 0.0035 }
}

fn profile() -> Profile {
    Profile {
        target: V3,
        device: devices()[0].clone(),
        point: point(8),
        threads: 4,
        latency: quantiles(),
        samples: vec![0.002, 0.0015, 0.0021],
        steps: vec![("conv 64x3x7x7".into(), 0.001), ("linear 1000x512".into(), 2.5e-7)],
        tools: BTreeMap::from([("compiler".to_owned(), "0.1.0".to_owned()), ("worker".to_owned(), "0.1.0".to_owned())]),
        at: 1_790_000_000,
    }
}

fn published() -> Published {
    Published {
        version: 3,
        index: digest("index"),
        variants: vec![(V3, digest("artifact"), 123_456)],
        existed: false,
        profiles: vec![profile()],
        previous: vec![],
    }
}

fn count() -> Count {
    Count { total: 12, done: 7, cached: 3, running: 2 }
}

fn counts() -> BTreeMap<WorkKind, Count> {
    BTreeMap::from([(WorkKind::Build, count()), (WorkKind::ModelRace, Count::default())])
}

fn rows() -> [AutotuneRow; 2] {
    [
        AutotuneRow {
            family: "conv_direct@3".into(),
            params: "mr6_nv2".into(),
            outcome: outcomes()[0].clone(),
            seconds: Some(0.0005),
            verdict: "fastest".into(),
            baseline: false,
        },
        AutotuneRow {
            family: "cudnn@1".into(),
            params: "-".into(),
            outcome: outcomes()[5].clone(),
            seconds: None,
            verdict: "not measured".into(),
            baseline: true,
        },
    ]
}

fn table() -> AutotuneTable {
    AutotuneTable {
        title: "convolution(1x64x56x56, 64x64x3x3) f32 cpu-x86_64-v3".into(),
        rows: rows().into(),
        considered: 40,
        built: 9,
        measured: 6,
        dropped: 3,
        build_s: 2.5,
        measure_s: 1.25,
        workers: 2,
    }
}

fn events() -> [JobEvent; 7] {
    [
        JobEvent::State { state: JobState::Tuning },
        JobEvent::Planned { tasks: 20, known: 4, candidates: 300, units: 41 },
        JobEvent::Progress { items: counts(), running: vec![("host-1".into(), "build conv_direct".into())], eta_s: Some(42.5) },
        JobEvent::Tuned { table: Box::new(table()) },
        JobEvent::Note { message: "no worker builds for cpu-aarch64".into() },
        JobEvent::Published { published: Box::new(published()) },
        JobEvent::Failed { error: errors()[0].clone() },
    ]
}

fn jobs(cases: &mut Cases) {
    let [full, plain] = requests();
    cases.add([full.clone(), plain.clone()]);
    cases.add([dim_range()]);
    cases.add([count()]);
    cases.add([published()]);
    let status = JobStatus {
        id: job_id(),
        request: full,
        state: JobState::Published,
        items: counts(),
        error: Some(errors()[1].clone()),
        published: Some(published()),
        submitted_at: 1_790_000_000_123,
        finished_at: Some(1_790_000_060_456),
    };
    let queued = JobStatus {
        request: plain,
        state: JobState::Queued,
        items: BTreeMap::new(),
        error: None,
        published: None,
        finished_at: None,
        ..status.clone()
    };
    cases.add([status, queued]);
    cases.add(rows());
    cases.add([table()]);
    cases.add(events());
    let entry = |(seq, event)| JobLogEntry { seq, at: 1_790_000_000_123, event };
    cases.add((1..).zip(events()).map(entry).collect::<Vec<_>>());
}

fn protocol() -> MeasureProtocol {
    MeasureProtocol {
        version: 5,
        threads: 4,
        screen_runs: 3,
        race_runs: 20,
        race_width: 4,
        drop_factor: 1.5,
        rotate_bytes: 64 << 20,
        budget_ms: 3000,
        run_limit_ms: 2000,
        memory_limit: 1 << 30,
    }
}

fn values() -> [Values; 2] {
    [Values::Normal { std: 0.1 }, Values::Uniform { low: 0.0, high: 1000.5 }]
}

fn lattice() -> Lattice {
    Lattice { offset: 59, dims: vec![(3, 3364), (56, 58), (56, 1)] }
}

fn operands() -> [Operand; 3] {
    let operand = |role, dtype, values| Operand { role, dtype, len: 10092, lattices: vec![lattice()], values };
    let [normal, uniform] = values();
    [
        operand(OperandRole::Input, DType::F32, normal),
        operand(OperandRole::Weight, DType::I64, uniform),
        operand(OperandRole::Output, DType::Bf16, normal),
    ]
}

fn axis() -> GridAxis {
    GridAxis { times: 4, mul: 49, dims: vec![0, 1], div: 64 }
}

fn launch() -> Launch {
    Launch { grid: [axis(), GridAxis::fixed(2), GridAxis::fixed(1)], cluster: [2, 1, 1], threads: 256, shared_bytes: 98304 }
}

fn calls() -> [KernelCall; 2] {
    let plain = KernelCall {
        candidate: CandidateId(digest("naive")),
        label: "conv_naive@1 -".into(),
        object: digest("naive object"),
        symbol: "conv_naive_0".into(),
        dims: vec![],
        tune: vec![],
        packed_bytes: 0,
        shared_bytes: 0,
        thread_bytes: 0,
        launch: None,
        vendor: None,
    };
    let full = KernelCall {
        candidate: CandidateId(digest("candidate")),
        label: "cuda_conv_mma@2 bm128_bn64".into(),
        object: digest("cubin"),
        symbol: "conv_mma_0".into(),
        dims: vec![8],
        tune: vec![128, 64],
        packed_bytes: 4096,
        shared_bytes: 1 << 20,
        thread_bytes: 1 << 12,
        launch: Some(launch()),
        vendor: Some(vendor_calls()[0].clone()),
    };
    [full, plain]
}

fn measure_specs() -> [MeasureSpec; 2] {
    let [full, plain] = calls();
    let measured_on_cpu = MeasureSpec {
        task: TaskKey(digest("task")),
        title: "convolution(1x64x56x56, 64x64x3x3) f32 cpu-x86_64-v3".into(),
        operands: operands().into(),
        reference: plain.clone(),
        candidates: vec![plain],
        tools: None,
        tolerance: 1e-5,
        seed: 7,
        protocol: protocol(),
    };
    let on_gpu = MeasureSpec { candidates: vec![full], tools: Some(digest("tools")), ..measured_on_cpu.clone() };
    [on_gpu, measured_on_cpu]
}

fn measurements() -> [Measurement; 2] {
    [
        Measurement {
            samples: vec![0.001, 0.000_95, 0.000_975],
            raced: 2,
            error: 3.5e-7,
            conditions: Some("1980 MHz, 45 °C, 310 W".into()),
            algorithm: Some(1),
        },
        Measurement { samples: vec![0.002], raced: 0, error: 0.0, conditions: None, algorithm: None },
    ]
}

fn outcomes() -> [Outcome; 6] {
    [
        Outcome::Measured(measurements()[1].clone()),
        Outcome::BuildFailed { log: "k.c:3: error: expected `;`".into() },
        Outcome::Crashed { reason: "signal 11".into() },
        Outcome::TimedOut { limit_ms: 2000 },
        Outcome::WrongResult { error: None, reason: "NaN in the output".into() },
        Outcome::Unsupported { reason: "needs cuDNN".into() },
    ]
}

fn params() -> Params {
    BTreeMap::from([("mr".to_owned(), 6), ("nv".to_owned(), 2)])
}

fn measuring(cases: &mut Cases) {
    cases.add([protocol()]);
    cases.add(values());
    cases.add([lattice()]);
    cases.add(operands());
    cases.add([axis()]);
    cases.add([launch()]);
    cases.add(calls());
    cases.add(measure_specs());
    cases.add(measurements());
    cases.add(outcomes());
    let record = |outcome| TuningRecord {
        task: TaskKey(digest("task")),
        candidate: CandidateId(digest("candidate")),
        family: "conv_direct@3".into(),
        params: params(),
        target: V3,
        device: devices()[0].clone(),
        protocol: protocol(),
        outcome,
        at: 1_790_000_000,
    };
    cases.add(outcomes().map(record));
    cases.add([Likeness { class: digest("class"), sizes: vec![1, 64, 56] }]);
    cases.add(devices());
}

fn vendor_calls() -> [VendorCall; 2] {
    [
        VendorCall::Conv(VendorConv {
            dtype: DType::F16,
            batch: Extent { factor: 2, dims: vec![0] },
            input: [64, 56, 56],
            output: [128, 28, 28],
            kernel: [3, 3],
            stride: [2, 2],
            pad: [1, 1],
            dilation: [1, 1],
            tf32: false,
            bias: 1,
            residual: Some(1),
            relu: true,
        }),
        VendorCall::MatMul(VendorMatMul {
            dtypes: [DType::F32, DType::F32],
            batch: Extent::fixed(1),
            m: Extent { factor: 128, dims: vec![0] },
            n: Extent::fixed(768),
            k: Extent::fixed(512),
            b_is_weight: true,
            b_transposed: true,
            tf32: true,
            bias: None,
            residual: None,
            activation: Activation::Gelu,
        }),
    ]
}

fn vendors(cases: &mut Cases) {
    cases.add(VendorLibrary::ALL);
    cases.add([Extent { factor: 2, dims: vec![0, 1] }]);
    cases.add([Activation::None, Activation::Relu, Activation::Gelu]);
    let [conv, product] = vendor_calls();
    if let (VendorCall::Conv(conv), VendorCall::MatMul(product)) = (&conv, &product) {
        cases.add([conv.clone()]);
        cases.add([product.clone()]);
    }
    cases.add([conv, product]);
}

fn build() -> BuildSpec {
    BuildSpec {
        source: digest("source"),
        target: V3,
        flags: vec!["-DAOTK_PACK_ONLY".into()],
        toolchain: "gcc-12.2.0-1f3a9c02".into(),
    }
}

fn pack() -> PackStep {
    PackStep {
        source: digest("source"),
        symbol: "conv_direct_0".into(),
        tune: vec![6, 2],
        inputs: vec![(0, 147_456), (147_456, 256)],
        offset: 4096,
        bytes: 147_712,
    }
}

fn copy() -> CopyStep {
    CopyStep { from: 147_712, to: 0, bytes: 4000 }
}

fn link() -> LinkSpec {
    LinkSpec {
        target: V3,
        toolchain: "gcc-12.2.0-1f3a9c02".into(),
        glue: digest("glue"),
        objects: vec![digest("object 0"), digest("object 1")],
        weights: digest("weights"),
        section_bytes: 151_808,
        packs: vec![pack()],
        copies: vec![copy()],
        recipe: None,
    }
}

fn profile_spec() -> ProfileSpec {
    ProfileSpec {
        artifact: digest("artifact"),
        target: V3,
        check: digest("check"),
        tolerance_e9: 10_000,
        points: vec![point(1), point(8)],
        threads: 4,
        budget_ms: 2000,
    }
}

fn model_race_spec() -> ModelRaceSpec {
    ModelRaceSpec {
        artifacts: vec![digest("artifact"), digest("other artifact")],
        target: V3,
        points: vec![point(8)],
        threads: 4,
        budget_ms: 1500,
    }
}

fn specs() -> [WorkSpec; 6] {
    let [cpu, gpu] = devices().map(|device| device.fingerprint());
    let [on_gpu, on_cpu] = measure_specs();
    [
        WorkSpec::Build(build()),
        WorkSpec::Measure { spec: Box::new(on_cpu), device: cpu },
        WorkSpec::Measure { spec: Box::new(on_gpu), device: gpu },
        WorkSpec::Link(link()),
        WorkSpec::ModelRace { spec: model_race_spec(), device: cpu },
        WorkSpec::Profile { spec: profile_spec(), device: cpu },
    ]
}

fn results() -> [WorkResult; 7] {
    [
        WorkResult::Built { object: digest("object") },
        WorkResult::BuildFailed { log: "k.c:3: error: expected `;`".into() },
        WorkResult::Measured { outcomes: vec![(CandidateId(digest("candidate")), outcomes()[0].clone())] },
        WorkResult::Linked { artifact: digest("artifact"), bytes: 123_456 },
        WorkResult::ModelRaced { seconds: vec![vec![vec![0.001, 0.0002], vec![0.0011, 0.0001]]] },
        WorkResult::Profiled { profiles: vec![profile()], error: 2.5e-7 },
        WorkResult::Rejected { reason: "relative L2 error 0.5".into() },
    ]
}

fn lease() -> Lease {
    let spec = WorkSpec::Build(build());
    Lease { item: spec.id(), generation: 2, expires_in_ms: 30_000, spec }
}

fn work(cases: &mut Cases) {
    cases.add([build()]);
    cases.add([pack()]);
    cases.add([copy()]);
    cases.add([LinkSpec { recipe: Some(digest("recipe")), ..link() }, link()]);
    cases.add([profile_spec()]);
    cases.add([model_race_spec()]);
    cases.add(specs());
    cases.add(results());
    cases.add([lease()]);
    let report = |result| Report { worker: worker_id(), generation: 2, run_ms: 1234, result };
    cases.add([report(Ok(results()[0].clone())), report(Err("no space is left".into()))]);
}

fn toolchain() -> Toolchain {
    Toolchain { id: "gcc-12.2.0-1f3a9c02".into(), targets: vec![V3] }
}

fn capabilities() -> [Capabilities; 2] {
    let full = Capabilities {
        host: "host-1".into(),
        version: "0.1.0".into(),
        slots: 8,
        toolchains: vec![toolchain()],
        device: Some(devices()[0].clone()),
        labels: vec!["rack=7".into()],
    };
    let bare = Capabilities { slots: 0, toolchains: vec![], device: None, labels: vec![], ..full.clone() };
    [full, bare]
}

fn queries(cases: &mut Cases) {
    cases.add([endpoints::client::JobsQuery { limit: Some(20) }, endpoints::client::JobsQuery::default()]);
    cases.add([endpoints::client::EventsQuery { after: 7, wait_ms: 10_000 }]);
    let reference = Some("resnet18@v3/cpu-x86_64-v3".to_owned());
    cases.add([endpoints::registry::ResolveQuery { reference }, endpoints::registry::ResolveQuery { reference: None }]);
    cases.add([endpoints::oci::OciBase {}]);
    cases.add([endpoints::oci::OciTags { name: "resnet18".to_owned(), tags: vec!["prod".to_owned(), "v1".to_owned()] }]);
    let error = endpoints::oci::OciError { code: "NAME_UNKNOWN".to_owned(), message: "there is no such model".to_owned() };
    cases.add([error.clone()]);
    cases.add([endpoints::oci::OciErrors { errors: vec![error] }]);
}

fn workers(cases: &mut Cases) {
    cases.add([toolchain()]);
    cases.add(capabilities());
    cases.add([Registered { worker: worker_id(), heartbeat_ms: 5000 }]);
    cases.add([ClaimRequest { kinds: vec![WorkKind::Build, WorkKind::Measure], max: 4, wait_ms: 10_000 }]);
    cases.add([ClaimResponse { leases: vec![lease()] }]);
    cases.add([Heartbeat { leases: vec![(lease().item, 2)] }]);
    cases.add([HeartbeatResponse { lost: vec![lease().item], drain: true }]);
    cases.add([WorkerInfo {
        id: worker_id(),
        capabilities: capabilities()[0].clone(),
        state: WorkerState::Alive,
        silent_ms: 1200,
        running: 1,
        done: 20,
        failed: 2,
    }]);
    let item = ItemInfo {
        id: lease().item,
        kind: WorkKind::Build,
        label: "build conv_direct".into(),
        state: ItemState::Done,
        attempts: 2,
        worker: Some("host-1".into()),
        run_ms: Some(1234),
        completions: 1,
        log: vec!["attempt 1: no space is left".into()],
    };
    let queued = ItemInfo {
        state: ItemState::Queued,
        attempts: 0,
        worker: None,
        run_ms: None,
        completions: 0,
        log: vec![],
        ..item.clone()
    };
    cases.add([item, queued]);
    cases.add([TagRequest { version: 3 }]);
    cases.add([Health { version: "0.1.0".into(), uptime_s: 3600 }]);
}

fn ports() -> [Port; 2] {
    let port = |name: &str, dtype, dims| Port { name: name.into(), dtype, dims, written: false, range: None };
    [
        port("x", DType::F32, vec![Dim::Expr("batch".into()), Dim::Size(3), Dim::Expr("2*batch+1".into())]),
        Port { written: true, range: Some([-4, 3]), ..port("y", DType::I64, vec![]) },
    ]
}

fn step() -> StepInfo {
    StepInfo { label: "conv 64x3x7x7".into(), kernels: BTreeMap::from([("batch=8".into(), "conv_direct@3 mr6_nv2".into())]) }
}

/// Every kind of value of a signature.
fn nested(signature: &Signature) -> Vec<Nested> {
    let argument = &signature.arguments[0].value;
    let Nested::Tuple(leaves) = argument else { unreachable!("it is made so") };
    let list = Nested::List(vec![Nested::None]);
    let other = Nested::Other { kind: "cache.Static".into(), context: "[1]".into(), items: vec![list.clone()] };
    [leaves.as_slice(), &[argument.clone(), signature.result.clone(), list, other]].concat()
}

fn signature() -> Signature {
    let leaves = vec![
        Nested::Tensor(0),
        Nested::None,
        Nested::Bool(true),
        Nested::Int(-3),
        Nested::Float(0.5),
        Nested::Text("mean".into()),
        Nested::Size("2*batch".into()),
    ];
    let cache = Nested::Other { kind: "cache.Static".into(), context: "[1]".into(), items: vec![Nested::List(vec![])] };
    Signature {
        arguments: vec![NamedArgument { name: "x".into(), value: Nested::Tuple(leaves) }],
        result: Nested::Dict(vec![("y".into(), Nested::Tensor(0)), ("cache".into(), cache)]),
    }
}

fn metadata() -> [ArtifactMetadata; 2] {
    let plain = ArtifactMetadata {
        target: V3,
        graph: digest("graph"),
        compiler: "0.1.0".into(),
        precision: Precision::Fp32,
        untested: None,
        libraries: vec![],
        dims: vec![],
        inputs: vec![],
        outputs: vec![],
        states: vec![],
        signature: None,
        steps: vec![],
        segments: vec![],
    };
    let full = ArtifactMetadata {
        target: GPU,
        precision: Precision::Fp16,
        untested: Some("no device that runs cuda-sm_90".into()),
        libraries: VendorLibrary::ALL.into(),
        dims: vec![dim_range()],
        inputs: ports().into(),
        outputs: vec![ports()[0].clone()],
        states: vec![ports()[0].clone()],
        signature: Some(signature()),
        steps: vec![step()],
        segments: vec![Segment { steps: 0..3, images: 4 }],
        ..plain.clone()
    };
    [full, plain]
}

fn descriptors() -> [Descriptor; 2] {
    let annotations = BTreeMap::from([
        (TARGET_ANNOTATION.to_owned(), V3.to_string()),
        (PRECISION_ANNOTATION.to_owned(), "bf16".to_owned()),
        (UNTESTED_ANNOTATION.to_owned(), "no device".to_owned()),
        (LIBRARIES_ANNOTATION.to_owned(), "libcudnn.so.9".to_owned()),
    ]);
    let descriptor = |media_type: &str, of, annotations| Descriptor {
        media_type: media_type.into(),
        digest: digest(of),
        size: 1234,
        annotations,
    };
    [descriptor(MANIFEST_TYPE, "manifest", annotations), descriptor(ARTIFACT_TYPE, "artifact", BTreeMap::new())]
}

fn version() -> VersionInfo {
    VersionInfo {
        name: "resnet18".into(),
        version: 3,
        index: digest("index"),
        graph: digest("graph"),
        variants: vec![variant()],
        tags: vec!["prod".into()],
        at: 1_790_000_000,
    }
}

fn variant() -> VariantInfo {
    VariantInfo { target: V3, manifest: digest("manifest"), artifact: digest("artifact"), bytes: 123_456 }
}

fn models(cases: &mut Cases) {
    cases.add([quantiles()]);
    cases.add([profile()]);
    cases.add([Dim::Size(224), Dim::Expr("2*batch+1".into())]);
    cases.add(ports());
    cases.add([step()]);
    let signature = signature();
    cases.add(signature.arguments.clone());
    cases.add(nested(&signature));
    cases.add([signature]);
    cases.add([Segment { steps: 0..3, images: 4 }]);
    cases.add(metadata());
    cases.add(descriptors());
    let note = BTreeMap::from([("org.opencontainers.image.created".to_owned(), "2026-09-21T00:00:00Z".to_owned())]);
    let [variant_descriptor, layer] = descriptors();
    cases.add([note.clone(), BTreeMap::new()].map(|annotations| Manifest {
        schema_version: 2,
        media_type: MANIFEST_TYPE.into(),
        config: Descriptor { media_type: CONFIG_TYPE.into(), ..layer.clone() },
        layers: vec![layer.clone()],
        annotations,
    }));
    cases.add([note, BTreeMap::new()].map(|annotations| Index {
        schema_version: 2,
        media_type: INDEX_TYPE.into(),
        manifests: vec![variant_descriptor.clone()],
        annotations,
    }));
    cases.add([variant()]);
    cases.add([version()]);
    cases.add([ModelInfo { name: "resnet18".into(), latest: version(), versions: 3 }]);
    cases.add([HistoryEntry { version: version(), profiles: vec![profile()] }]);
    cases.add([PublishRequest {
        name: "resnet18".into(),
        graph: digest("graph"),
        variants: vec![(V3, digest("artifact"), metadata()[1].clone())],
        profiles: vec![profile()],
        samples: Some(samples()),
    }]);
    cases.add([samples()]);
}

fn samples() -> Samples {
    Samples { case: digest("samples"), submitted: true }
}
