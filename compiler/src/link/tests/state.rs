//! Models with states and written inputs: one of hand-written kernels, of which `runtime/tests/state.c` says what it computes, and one of the compiler's
//! own.

use aotfarm_ir::BinaryOp;
use aotfarm_kernels::testing::gpu::Nvrtc;
use aotfarm_plan::PlanState;

use super::cuda::{build_fake_driver, fake_cubin, gpu_build, gpu_candidate};
use super::*;

/// What `runtime/tests/state.c` expects.
fn state_plan(target: Target) -> Plan {
    let buffer = |len: i64, place| Buffer { dtype: DType::F32, len: Expr::from(len), place, plane: None };
    let step = |label: &str, spec, inputs: &[u32], weights: &[u32], output, dims: &[i64]| Step {
        label: label.into(),
        spec,
        inputs: inputs.iter().map(|i| BufferId(*i)).collect(),
        weights: weights.iter().map(|i| WeightId(*i)).collect(),
        outputs: vec![BufferId(output)],
        dims: dims.iter().map(|n| Expr::from(*n)).collect(),
        values: Vec::new(),
    };
    let mut plan = Plan {
        target,
        dims: vec![],
        hints: vec![],
        inputs: vec![port("x", &["2", "3"]), Port { written: true, ..port("u", &["2", "4"]) }],
        outputs: vec![port("s", &["5"])],
        states: vec![PlanState { port: port("total", &["2", "4"]), initial: WeightId(2) }],
        writes: vec![1],
        buffers: vec![
            buffer(6, Place::Input(0)),
            buffer(8, Place::Input(1)),
            buffer(8, Place::State(0)),
            buffer(12, Place::Slot(0)),
            buffer(8, Place::Next(0)),
            buffer(5, Place::Output(0)),
            buffer(8, Place::Back(0)),
        ],
        slots: vec![Slot { bytes: vec![Expr::from(48)], zeroed: true }],
        steps: vec![
            step("linear", 0, &[0], &[0], 3, &[2]),
            step("add to the state", 1, &[3, 2], &[1], 4, &[2]),
            step("spread", 2, &[4], &[], 5, &[2, 5]),
            step("add to the input", 1, &[3, 1], &[1], 6, &[2]),
        ],
        ..plan()
    };
    let values: Vec<f32> = (0..8u8).map(f32::from).collect();
    let data = TensorData::from_f32(&values);
    plan.weights.push(PlanWeight { name: "total".into(), dtype: DType::F32, shape: vec![2, 4], data });
    plan
}

fn linkage_of(plan: &Plan, kernels: [Candidate; 3]) -> Linkage {
    let choice = |(spec, candidate): (usize, Candidate)| SpecChoice { spec, by_point: vec![(Bindings::new(), candidate)] };
    let choices: Vec<SpecChoice> = kernels.into_iter().enumerate().map(choice).collect();
    let needs = |_: &TuningTask, candidate: &Candidate, _: &[i64]| {
        let spread = candidate.source.symbol == "test_spread";
        Some(if spread { Needs { packed: 0, shared: 4096, thread: 1024 } } else { candidate.needs.clone() })
    };
    link_with(plan, &choices, &info(), &needs).unwrap()
}

fn cpu_kernels() -> [Candidate; 3] {
    let kernels = [("LINEAR", "test_linear", 48, &[0][..]), ("ADD", "test_add", 0, &[]), ("SPREAD", "test_spread", 0, &[])];
    kernels.map(|(unit, symbol, packed, tune)| candidate(unit, symbol, packed, tune))
}

fn gpu_kernels() -> [Candidate; 3] {
    ["LINEAR_SMALL", "ADD", "SPREAD"].map(gpu_candidate)
}

fn cpu_linkage() -> Linkage {
    linkage_of(&state_plan(native()), cpu_kernels())
}

fn gpu_linkage() -> Linkage {
    linkage_of(&state_plan(Target::Cuda { sm: 90 }), gpu_kernels())
}

/// Compiles `runtime/tests/state.c`, and runs it on the artifact, with the driver in `driver` or the host's own.
fn run_state_test(dir: &Path, artifact: &Path, driver: Option<&Path>) {
    run_test("state", dir, artifact, driver);
}

/// Likewise `runtime/tests/NAME.c`.
fn run_test(name: &str, dir: &Path, artifact: &Path, driver: Option<&Path>) {
    let include = format!("-I{}", repository().join("abi/include").display());
    let source = repository().join(format!("runtime/tests/{name}.c"));
    let flags = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O1", &include];
    cc(dir, &[flags.as_slice(), &[source.to_str().unwrap(), "-o", name, "-ldl", "-lpthread"]].concat()).unwrap();
    let mut command = Command::new(dir.join(name));
    command.arg(artifact);
    if let Some(driver) = driver {
        command.env("LD_LIBRARY_PATH", driver);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_metadata_lists_states_and_written_inputs() {
    let json = serde_json::to_value(cpu_linkage().metadata).unwrap();
    assert_eq!(json["states"], serde_json::json!([{ "name": "total", "dtype": "f32", "dims": [2, 4] }]));
    assert_eq!(json["inputs"][1], serde_json::json!({ "name": "u", "dtype": "f32", "dims": [2, 4], "written": true }));
    let plain = serde_json::to_string(&linkage().metadata).unwrap();
    assert!(!plain.contains("states") && !plain.contains("written"), "{plain}");
}

#[test]
fn plans_whose_states_do_not_fit_are_refused() {
    let check = |change: &dyn Fn(&mut Plan), expected: &str| {
        let mut plan = state_plan(native());
        change(&mut plan);
        let needs = |_: &TuningTask, c: &Candidate, _: &[i64]| Some(c.needs.clone());
        let kernel = |spec| SpecChoice { spec, by_point: vec![(Bindings::new(), candidate("ADD", "test_add", 0, &[]))] };
        let error = link_with(&plan, &[0, 1, 2].map(kernel), &info(), &needs).unwrap_err().to_string();
        assert_eq!(error, format!("defect in the plan: {expected}"));
    };
    check(&|p| p.steps[1].outputs[0] = BufferId(2), "no step writes next 0");
    check(&|p| drop(p.steps.pop()), "no step writes write 0");
    check(&|p| p.steps[0].outputs[0] = BufferId(2), "a step writes state 0");
    check(&|p| p.states[0].initial = WeightId(9), "weight 9 does not exist");
    check(&|p| p.buffers[4].len = Expr::from(4), "the buffer of `total` has 4 f32 elements, but its shape says 8");
    check(&|p| p.buffers[6].dtype = DType::F16, "the buffer of `u` has 8 f16 elements, but its shape says 8");
    check(&|p| p.buffers[2].place = Place::State(1), "a buffer lies at state 1, which does not exist");
}

#[test]
fn an_artifact_from_before_there_were_states_runs() {
    if let Some(why) = aotfarm_runtime::why_not(native()) {
        return println!("skipped: this host {why}");
    }
    let (mut old, now) = (linkage(), "AOTFARM_ABI_VERSION, sizeof(aotfarm_api),");
    assert!(old.glue.contains(now));
    old.glue = old.glue.replace(now, "AOTFARM_ABI_VERSION, offsetof(aotfarm_api, session_reset),");
    let dir = tempfile::tempdir().unwrap();
    let Some(path) = build(&old, &units(), dir.path()) else { return };
    let mut session = Session::new(&Model::load(&path).unwrap(), 1).unwrap();
    check_run(&mut session, 3);
    session.reset().unwrap();
    check_run(&mut session, 3);
}

#[test]
fn a_session_keeps_its_states() {
    if let Some(why) = aotfarm_runtime::why_not(native()) {
        return println!("skipped: this host {why}");
    }
    let dir = tempfile::tempdir().unwrap();
    let Some(path) = build(&cpu_linkage(), &units(), dir.path()) else { return };
    run_state_test(dir.path(), &path, None);
}

#[test]
fn a_session_keeps_its_states_on_a_driver_that_checks_its_calls() {
    let dir = tempfile::tempdir().unwrap();
    let Some(path) = gpu_build(&gpu_linkage(), dir.path(), &fake_cubin) else { return };
    build_fake_driver(dir.path());
    run_state_test(dir.path(), &path, Some(dir.path()));
}

#[test]
fn a_session_keeps_its_states_on_a_gpu() {
    let Some(nvrtc) = Nvrtc::find() else { return };
    let dir = tempfile::tempdir().unwrap();
    let Some(path) = gpu_build(&gpu_linkage(), dir.path(), &|text| nvrtc.compile(text, 90).unwrap()) else { return };
    if let Some(why) = aotfarm_runtime::why_not(Target::Cuda { sm: 90 }) {
        return println!("skipped: this host {why}");
    }
    run_state_test(dir.path(), &path, None);
}

/// The model of `runtime/tests/range.c`, whose `u` is of integers, as if they were indices of a table of 4 rows.
fn range_plan(target: Target) -> Plan {
    let mut plan = state_plan(target);
    plan.inputs[1] = Port { dtype: DType::I32, range: Some([-4, 3]), ..plan.inputs[1].clone() };
    for buffer in plan.buffers.iter_mut().filter(|b| matches!(b.place, Place::Input(1) | Place::Back(0))) {
        buffer.dtype = DType::I32;
    }
    plan
}

#[test]
fn an_index_out_of_range_is_an_error_that_changes_nothing() {
    let linkage = linkage_of(&range_plan(native()), cpu_kernels());
    let json = serde_json::to_value(&linkage.metadata).unwrap();
    assert_eq!(json["inputs"][1]["range"], serde_json::json!([-4, 3]));
    assert_eq!(json["inputs"][0].get("range"), None);
    if let Some(why) = aotfarm_runtime::why_not(native()) {
        return println!("skipped: this host {why}");
    }
    let dir = tempfile::tempdir().unwrap();
    let Some(path) = build(&linkage, &units(), dir.path()) else { return };
    run_test("range", dir.path(), &path, None);
}

#[test]
fn an_index_out_of_range_in_host_memory_is_an_error_of_a_gpu_too() {
    let dir = tempfile::tempdir().unwrap();
    let linkage = linkage_of(&range_plan(Target::Cuda { sm: 90 }), gpu_kernels());
    let Some(path) = gpu_build(&linkage, dir.path(), &fake_cubin) else { return };
    build_fake_driver(dir.path());
    run_test("range", dir.path(), &path, Some(dir.path()));
}

/// A decoder's step: its cache, how often it was called, a running mean; and an input that it writes to.
fn decoder() -> aotfarm_ir::Graph {
    let mut b = Builder::new("decoder");
    let batch = b.dim("batch", 1, 8, Some(2)).unwrap();
    let f32s = |shape: Vec<Expr>| TensorType::new(DType::F32, shape);
    let x = b.input("x", f32s(vec![1.into(), 4.into()])).unwrap();
    let rows = b.input("rows", f32s(vec![batch, 4.into()])).unwrap();
    let cache = b.state("cache", f32s(vec![6.into(), 4.into()]), TensorData::from_f32(&[0.0; 24])).unwrap();
    let calls = b.state("calls", TensorType::new(DType::I64, Vec::<Expr>::new()), TensorData::new(vec![0; 8])).unwrap();
    let mean = b.state("mean", f32s(vec![4.into()]), TensorData::from_f32(&[1.0, 2.0, 3.0, 4.0])).unwrap();
    let (same, left) = (b.state("same", f32s(vec![2.into()]), TensorData::from_f32(&[5.0, 6.0])).unwrap(), mean);
    let mut node = |op: Op, inputs: &[aotfarm_ir::ValueId]| b.push(op, inputs, "node").unwrap();
    let full = |value: f64, dtype| Op::Full { value: value.into(), shape: vec![], dtype };
    let [one, low, keep, take] =
        [full(1.0, DType::I64), full(-1e9, DType::F32), full(0.75, DType::F32), full(0.25, DType::F32)].map(|op| node(op, &[]));
    let binary = Op::Binary;
    let at = node(Op::Iota { length: 6.into(), start: 0, step: 1, dtype: DType::I64 }, &[]);
    let (here, later) = (node(binary(BinaryOp::Eq), &[at, calls]), node(binary(BinaryOp::Gt), &[at, calls]));
    let column = node(Op::Reshape { shape: vec![6.into(), 1.into()] }, &[here]);
    let filled = node(Op::Where, &[column, x, cache]);
    let turned = node(Op::Permute { axes: vec![1, 0] }, &[filled]);
    let scores = node(Op::MatMul, &[x, turned]);
    let scores = node(Op::Where, &[later, low, scores]);
    let weights = node(Op::Softmax { axis: 1 }, &[scores]);
    let y = node(Op::MatMul, &[weights, filled]);
    let more = node(binary(BinaryOp::Add), &[calls, one]);
    let (old, sum) = (
        node(binary(BinaryOp::Mul), &[left, keep]),
        node(Op::Reduce { op: ReduceOp::Mean, axes: vec![0], keepdim: false }, &[rows]),
    );
    let new = node(binary(BinaryOp::Mul), &[sum, take]);
    let averaged = node(binary(BinaryOp::Add), &[old, new]);
    let centred = node(binary(BinaryOp::Sub), &[rows, averaged]);
    for output in [y, centred, calls, same] {
        b.output(output);
    }
    b.next(cache, filled);
    b.next(calls, more);
    b.next(mean, averaged);
    b.write_back(rows, centred);
    b.finish().unwrap()
}

/// Calls of sessions of the compiler's own kernels are those of the interpreter, whatever the sizes and threads.
#[test]
fn a_decoder_goes_on_from_what_its_last_call_left() {
    if let Some(why) = aotfarm_runtime::why_not(native()) {
        return println!("skipped: this host {why}");
    }
    let graph = decoder();
    let plan = aotfarm_plan::lower(aotfarm_plan::passes::run(graph.clone(), None).unwrap(), native(), Precision::Fp32).unwrap();
    let mut choices: Vec<SpecChoice> = (0..plan.specs.len()).map(|spec| SpecChoice { spec, by_point: Vec::new() }).collect();
    let mut sources = Vec::new();
    for point in &plan.tune_points(&[2]) {
        for planned in aotfarm_kernels::tasks(&plan, point).unwrap() {
            let chosen = aotfarm_kernels::candidates(&planned.task, aotfarm_protocol::TuneMode::Quick, None).swap_remove(0);
            sources.push(chosen.source.text.clone());
            choices[planned.spec].by_point.push((point.clone(), chosen));
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let Some(path) = build(&link(&plan, &choices, &info()).unwrap(), &sources, dir.path()) else { return };
    let model = Model::load(&path).unwrap();
    let as_reference = |t: &Tensor| aotfarm_ir::interp::Tensor {
        dtype: t.dtype(),
        shape: t.shape().iter().map(|n| *n as usize).collect(),
        data: t.bytes().to_vec(),
    };
    for threads in [1, 3] {
        let mut sessions = [0; 2].map(|_| (Session::new(&model, threads).unwrap(), aotfarm_ir::interp::initial(&graph)));
        for call in 0..9u16 {
            // The second session is called half as often; the first is reset on the way.
            for (n, (session, states)) in sessions.iter_mut().enumerate().filter(|(n, _)| *n == 0 || call % 2 == 1) {
                if (n, call) == (0, 5) {
                    session.reset().unwrap();
                    *states = aotfarm_ir::interp::initial(&graph);
                }
                let batch = i64::from([2, 1, 7][usize::from(call) % 3]);
                let values =
                    |n: i64| (0..n).map(|i| ((i * 13 + i64::from(call) * 7) % 11) as f32 / 4.0 - 1.0).collect::<Vec<_>>();
                let mut inputs = [(vec![1, 4], values(4)), (vec![batch, 4], values(batch * 4))]
                    .map(|(shape, values)| Tensor::from_f32(shape, &values).unwrap());
                let want = aotfarm_ir::interp::run_from(&graph, &inputs.each_ref().map(as_reference), states).unwrap();
                let before = inputs[1].bytes().to_vec();
                let outputs = if call == 3 {
                    let outputs = session.run(&inputs.each_ref().map(Tensor::view)).unwrap();
                    assert_eq!(inputs[1].bytes(), before, "a shared tensor stays as it is");
                    outputs
                } else {
                    let outputs = session.run_in_place(&mut inputs).unwrap();
                    assert_eq!(inputs[1].bytes(), outputs[1].bytes(), "it gets what the output gets");
                    outputs
                };
                for (got, want) in outputs.iter().zip(&want.outputs) {
                    let error = as_reference(got).relative_error(want);
                    assert!(error < 1e-6, "{threads} threads, session {n}, call {call}: relative error {error}");
                }
                *states = want.states;
            }
        }
    }
}
