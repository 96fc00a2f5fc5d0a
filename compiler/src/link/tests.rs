//! A model of three hand-written kernels is linked as a worker does it, loaded and run.
//!
//! x `[batch, 3]`, y `[batch, 4]` → h = x w (packed weights, a halo in front, two tuned points) → z = h + y + bias → s = i Σz.
#![expect(clippy::disallowed_methods, reason = "these tests run the C compiler and what it made")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use aotfarm_abi::kernel::AOTK_H;
use aotfarm_abi::link::{GLUE_FLAGS, LINK_FLAGS, LINK_LIBRARIES, VERSION_SCRIPT, cubins_assembly, weights_assembly};
use aotfarm_protocol::{CandidateId, DType, Digest, Dim, DimRange, Params, Port, Precision, Segment, Target};
use aotfarm_runtime::{LoadError, Model, RunErrorKind, Session, Tensor};

use aotfarm_ir::Bindings;
use aotfarm_kernels::{Candidate, Needs, TuningTask};

use super::*;
use aotfarm_ir::{Builder, Expr, Op, ReduceOp, TensorData, TensorType, UnaryOp, Window};
use aotfarm_kernels::KernelSource;
use aotfarm_plan::spec::{Index, KernelKind, KernelSpec, Layout, LoopNest, Math, Scalar, Size, TensorSpec};
use aotfarm_plan::{Buffer, BufferId, Place, PlanWeight, Slot, Step, WeightId};

mod cuda;
mod models;
mod state;
mod vendor;

const KERNELS: &str = include_str!("../../../tests/golden/link/kernels.c");

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn expr(text: &str) -> Expr {
    text.parse().unwrap()
}

fn unit(name: &str) -> String {
    format!("#define UNIT_{name}\n{AOTK_H}\n{KERNELS}")
}

/// The spec's computation does not matter to the linker.
fn spec(inputs: usize, weights: &[i64], dims: usize) -> KernelSpec {
    let tensor = |shape: Vec<Size>| TensorSpec { dtype: DType::F32, shape, layout: Layout::Plain };
    let nest =
        LoopNest { extents: vec![], reduction: None, value: Scalar::Const(0.0.into(), DType::F32), store: Index::Const(0) };
    KernelSpec {
        kind: KernelKind::Loops(nest),
        inputs: vec![tensor(vec![Size::Dim(0)]); inputs],
        weights: weights.iter().map(|n| tensor(vec![Size::Const(*n)])).collect(),
        outputs: vec![tensor(vec![Size::Dim(0)])],
        dims,
        math: Math::Exact,
    }
}

fn port(name: &str, dims: &[&str]) -> Port {
    let dim = |d: &&str| d.parse().map_or_else(|_| Dim::Expr((*d).to_owned()), Dim::Size);
    Port { name: name.into(), dtype: DType::F32, dims: dims.iter().map(dim).collect(), written: false, range: None }
}

fn plan() -> Plan {
    let buffer = |len: &str, place| Buffer { dtype: DType::F32, len: expr(len), place, plane: None };
    let weight = |name: &str, shape: &[i64], values: &[f32]| PlanWeight {
        name: name.into(),
        dtype: DType::F32,
        shape: shape.to_vec(),
        data: TensorData::from_f32(values),
    };
    let step = |label: &str, spec, inputs: &[u32], weights: &[u32], output, dims: &[&str]| Step {
        label: label.into(),
        spec,
        inputs: inputs.iter().map(|i| BufferId(*i)).collect(),
        weights: weights.iter().map(|i| WeightId(*i)).collect(),
        outputs: vec![BufferId(output)],
        dims: dims.iter().map(|d| expr(d)).collect(),
        values: Vec::new(),
    };
    let w: Vec<f32> = (0..12).map(|i| (i / 4 + i % 4) as f32).collect();
    Plan {
        precision: Precision::Fp32,
        target: native(),
        dims: vec![DimRange { name: "batch".into(), min: 1, max: 32 }],
        hints: vec![Some(8)],
        inputs: vec![port("x", &["batch", "3"]), port("y", &["batch", "4"])],
        outputs: vec![port("z", &["batch", "4"]), port("s", &["2*batch + 1"])],
        states: vec![],
        writes: vec![],
        signature: None,
        specs: vec![spec(1, &[12], 1), spec(2, &[4], 1), spec(1, &[], 2)],
        buffers: vec![
            buffer("3*batch", Place::Input(0)),
            buffer("4*batch", Place::Input(1)),
            buffer("4*batch + 4", Place::Slot(0)),
            buffer("4*batch", Place::Output(0)),
            buffer("2*batch + 1", Place::Output(1)),
        ],
        slots: vec![Slot { bytes: vec![expr("16*batch + 16")], zeroed: true }],
        weights: vec![weight("w", &[3, 4], &w), weight("bias", &[4], &[0.0, 10.0, 20.0, 30.0])],
        steps: vec![
            step("linear \"h\"", 0, &[0], &[0], 2, &["batch"]),
            step("add", 1, &[2, 1], &[1], 3, &["batch"]),
            step("spread", 2, &[3], &[], 4, &["batch", "2*batch + 1"]),
        ],
        segments: vec![],
    }
}

/// The weakest target of this architecture; tests that run code look at whether the host has it.
fn native() -> Target {
    if cfg!(target_arch = "aarch64") { "cpu-aarch64".parse().unwrap() } else { "cpu-x86_64-v3".parse().unwrap() }
}

fn candidate(unit_name: &str, symbol: &str, packed: u64, tune: &[i64]) -> Candidate {
    let text = unit(unit_name);
    let unit = Digest::of(&text);
    let params: Params = tune.iter().enumerate().map(|(i, n)| (format!("t{i}"), *n)).collect();
    Candidate {
        launch: None,
        vendor: None,
        id: CandidateId(Digest::of(format!("{symbol}{tune:?}"))),
        family: "test@1",
        packing: params.clone(),
        params,
        source: KernelSource { text, symbol: symbol.into(), packs: packed > 0 },
        unit,
        tune: tune.to_vec(),
        needs: Needs { packed, shared: 0, thread: 0 },
    }
}

fn at(batch: i64) -> Bindings {
    [("batch", batch)].into_iter().collect()
}

/// At batch 1 the linear kernel adds 0, at 16 it adds 1000, so that a test sees which one ran.
fn choices() -> Vec<SpecChoice> {
    let linear = |marker| candidate("LINEAR", "test_linear", 48, &[marker]);
    let twice = |c: Candidate| vec![(at(1), c.clone()), (at(16), c)];
    vec![
        SpecChoice { spec: 0, by_point: vec![(at(1), linear(0)), (at(16), linear(1000))] },
        SpecChoice { spec: 1, by_point: vec![(at(8), candidate("ADD", "test_add", 0, &[]))] },
        SpecChoice { spec: 2, by_point: twice(candidate("SPREAD", "test_spread", 0, &[])) },
    ]
}

fn info() -> ArtifactInfo {
    ArtifactInfo { graph: Digest::of("graph"), compiler: "0.0.0-test".into(), untested: None }
}

fn needs(_: &TuningTask, candidate: &Candidate, dims: &[i64]) -> Option<Needs> {
    // The spread kernel keeps a sum for each of up to 1024 threads, and 1 KiB in each thread's scratch.
    let spread = candidate.source.symbol == "test_spread";
    assert_eq!(dims[0], 32, "needs are asked for at the largest size");
    Some(if spread { Needs { packed: 0, shared: 4096, thread: 1024 } } else { candidate.needs.clone() })
}

fn linkage() -> Linkage {
    link_with(&plan(), &choices(), &info(), &needs).unwrap()
}

/// Runs `cc`; `None` when there is none.
fn cc(dir: &Path, args: &[&str]) -> Option<()> {
    let output = match Command::new("cc").current_dir(dir).args(args).output() {
        Ok(output) => output,
        Err(e) => {
            println!("skipped: `cc` does not run here: {e}");
            return None;
        }
    };
    assert!(output.status.success(), "cc {args:?}:\n{}", String::from_utf8_lossy(&output.stderr));
    Some(())
}

/// Follows the recipe of `LinkSpec` for a CPU; `units` are the sources of the kernels.
fn build(linkage: &Linkage, units: &[String], dir: &Path) -> Option<PathBuf> {
    let source = |digest: Digest| units.iter().find(|text| Digest::of(text) == digest).unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(dir.join(name), bytes).unwrap();
    let march = if cfg!(target_arch = "aarch64") { "-march=armv8.2-a" } else { "-march=x86-64-v3" };
    let mut objects = Vec::new();
    for (i, unit) in linkage.units.iter().enumerate() {
        write("kernel.c", source(*unit).as_bytes());
        objects.push(format!("k{i:04}.o"));
        let flags = ["-O2", "-fopenmp-simd", "-fPIC", march, "-c", "kernel.c", "-o", objects.last().unwrap()];
        cc(dir, &[WARNINGS.as_slice(), &flags].concat())?;
    }
    for (i, pack) in linkage.packs.iter().enumerate() {
        write("pack.c", source(pack.source).as_bytes());
        cc(dir, &["-DAOTK_PACK_ONLY", "-shared", "-fPIC", "-O1", "-std=gnu11", "pack.c", "-o", &format!("pack{i}.so")])?;
    }
    assemble(linkage, dir, &objects)
}

const WARNINGS: [&str; 4] = ["-std=gnu11", "-Wall", "-Wextra", "-Werror"];

/// The rest of the recipe, which is the same for all targets; `objects` are those of the kernels, `pack0.so` … are there.
fn assemble(linkage: &Linkage, dir: &Path, objects: &[String]) -> Option<PathBuf> {
    let write = |name: &str, bytes: &[u8]| std::fs::write(dir.join(name), bytes).unwrap();
    let mut section = vec![0; linkage.section_bytes as usize];
    for copy in &linkage.copies {
        let (from, to, n) = (copy.from as usize, copy.to as usize, copy.bytes as usize);
        section[to..to + n].copy_from_slice(&linkage.weights[from..from + n]);
    }
    for (i, pack) in linkage.packs.iter().enumerate() {
        let inputs: Vec<*const u8> = pack.inputs.iter().map(|(from, _)| linkage.weights[*from as usize..].as_ptr()).collect();
        let target = &mut section[pack.offset as usize..][..pack.bytes as usize];
        // SAFETY: a library of one pack function, which is called as the kernel ABI says.
        unsafe {
            let library = libloading::Library::new(dir.join(format!("pack{i}.so"))).unwrap();
            type Pack = unsafe extern "C" fn(*const *const u8, *mut u8, *const i64);
            let function: libloading::Symbol<'_, Pack> = library.get(format!("{}_pack", pack.symbol)).unwrap();
            function(inputs.as_ptr(), target.as_mut_ptr(), pack.tune.as_ptr());
        }
    }
    write("weights.bin", &section);
    write("weights.S", weights_assembly(section.len() as u64).as_bytes());
    write("artifact.map", VERSION_SCRIPT.as_bytes());
    write("glue.c", linkage.glue.as_bytes());
    let flags = GLUE_FLAGS.iter().find(|(arch, _)| *arch == std::env::consts::ARCH)?.1;
    cc(dir, &[&WARNINGS, flags, &["-c", "glue.c", "-o", "glue.o"]].concat())?;
    cc(dir, &["-c", "weights.S", "-o", "weights.o"])?;
    let objects: Vec<&str> = ["glue.o"].into_iter().chain(objects.iter().map(String::as_str)).chain(["weights.o"]).collect();
    cc(dir, &[LINK_FLAGS, &objects, LINK_LIBRARIES, &["-o", "artifact.so"]].concat())?;
    Some(dir.join("artifact.so"))
}

fn units() -> Vec<String> {
    ["LINEAR", "ADD", "SPREAD"].map(unit).to_vec()
}

/// Builds the test's artifact and loads it; `None` when the host cannot.
fn artifact() -> Option<(tempfile::TempDir, Model)> {
    if let Some(why) = aotfarm_runtime::why_not(native()) {
        println!("skipped: this host {why}");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = build(&linkage(), &units(), dir.path())?;
    let model = Model::load(&path).unwrap();
    Some((dir, model))
}

fn inputs(batch: i64) -> [Tensor; 2] {
    let tensor = |columns: i64, f: fn(i64) -> f32| {
        let values: Vec<f32> = (0..batch * columns).map(f).collect();
        Tensor::from_f32(vec![batch, columns], &values).unwrap()
    };
    [tensor(3, |i| (i % 5) as f32), tensor(4, |i| i as f32 / 4.0)]
}

fn check_run(session: &mut Session, batch: i64) {
    let [x, y] = inputs(batch);
    let outputs = session.run(&[x.view(), y.view()]).unwrap();
    let (x, y) = (x.as_f32().unwrap(), y.as_f32().unwrap());
    // The nearer by ratio; 4 is as near to 1 as to 16, and the first wins.
    let marker = if batch <= 4 { 0.0 } else { 1000.0 };
    let z: Vec<f32> = (0..batch as usize * 4)
        .map(|i| {
            let (b, j) = (i / 4, i % 4);
            (0..3).map(|k| x[b * 3 + k] * (k + j) as f32).sum::<f32>() + marker + y[i] + 10.0 * j as f32
        })
        .collect();
    assert_eq!(outputs[0].shape(), [batch, 4]);
    assert_eq!(outputs[0].as_f32().unwrap(), z, "batch {batch}");
    assert_eq!(outputs[1].shape(), [2 * batch + 1]);
    let total: f64 = z.iter().map(|v| f64::from(*v)).sum();
    for (i, s) in outputs[1].as_f32().unwrap().iter().enumerate() {
        let expected = i as f64 * total;
        assert!((f64::from(*s) - expected).abs() <= 1e-5 * expected.abs(), "s[{i}] is {s}, not {expected}");
    }
}

#[test]
fn the_tables_are_those_on_record() {
    if !cfg!(target_arch = "x86_64") {
        println!("skipped: the record is for x86_64");
        return;
    }
    check_recorded("tables.c", linkage().glue.split_once(glue::TABLES).unwrap().1);
}

fn check_recorded(name: &str, tables: &str) {
    let file = repository().join("tests/golden/link").join(name);
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&file, tables).unwrap();
    }
    let recorded = std::fs::read_to_string(&file).unwrap();
    assert!(tables == recorded, "the tables changed; BLESS=1 records them:\n{tables}");
}

#[test]
fn equal_weights_are_stored_once_and_variants_apart() {
    let Linkage { weights, section_bytes, packs, copies, units: linked, .. } = linkage();
    assert_eq!(linked, units().iter().map(Digest::of).collect::<Vec<_>>());
    assert_eq!(weights.len(), 64 + 16, "the blob has each weight once");
    // Two packings, since their tuning integers differ, and one copy.
    assert_eq!(packs.iter().map(|p| p.tune[0]).collect::<Vec<_>>(), [0, 1000]);
    assert_eq!(copies, [CopyStep { from: 64, to: 256, bytes: 16 }]);
    assert_eq!(packs.iter().map(|p| p.offset).collect::<Vec<_>>(), [0, 128]);
    assert_eq!(section_bytes, 256 + 64 + 64, "64 bytes past the end are readable");

    // With one kernel for both points there is one packing.
    let mut same = choices();
    same[0].by_point[1].1 = same[0].by_point[0].1.clone();
    assert_eq!(link_with(&plan(), &same, &info(), &needs).unwrap().packs.len(), 1);
}

#[test]
fn the_metadata_names_what_was_selected() {
    let metadata = linkage().metadata;
    let json = serde_json::to_value(&metadata).unwrap();
    assert_eq!(json["steps"][0]["label"], "linear \"h\"");
    assert_eq!(json["steps"][0]["kernels"]["batch=16"], choices()[0].by_point[1].1.label());
    assert_eq!(json["outputs"][1]["dims"][0], "2*batch + 1");
    assert_eq!(metadata.graph, info().graph);
}

#[test]
fn plans_that_cannot_be_linked_are_refused() {
    let check = |change: &dyn Fn(&mut Plan, &mut Vec<SpecChoice>), expected: &str| {
        let (mut plan, mut choices) = (plan(), choices());
        change(&mut plan, &mut choices);
        let needs = |_: &TuningTask, c: &Candidate, _: &[i64]| (c.family == "test@1").then(|| c.needs.clone());
        let error = link_with(&plan, &choices, &info(), &needs).unwrap_err().to_string();
        assert_eq!(error, expected);
    };
    check(&|_, c| drop(c.remove(1)), "no kernel is selected for step `add`");
    check(&|_, c| c[1].by_point.clear(), "no kernel is selected for step `add`");
    check(&|_, c| c[0].by_point[1].1.family = "lost@7", "the family `lost@7` of a selected kernel is unknown to this compiler");
    check(&|_, c| c[1].by_point[0].1.source.symbol = "test_linear".into(), "two different kernels have the symbol `test_linear`");
    check(
        &|p, _| p.dims[0].max = i64::MAX,
        "dimension 0 of input `x` is `batch`, which has no bound within 64 bits: bound the symbolic dimensions, e.g. with --dim batch=1..64",
    );
    check(
        &|p, _| {
            for (port, buffer) in [(0, 0), (1, 1)] {
                p.inputs[port].dims[0] = Dim::Size(5);
                p.buffers[buffer].len = expr(["15", "20"][buffer]);
            }
        },
        "the size of `batch` does not follow from any input: it must be a dimension of one, or a multiple plus a constant",
    );
    check(
        &|p, _| p.target = "cuda-sm_90".parse().unwrap(),
        "defect in the plan: the kernel `test_linear` is for a GPU and has no launch",
    );
    check(
        &|p, _| p.steps[0].dims[0] = expr("seq"),
        "defect in the plan: dim 0 of step `linear \"h\"` uses the unknown symbol `seq`",
    );
    check(
        &|p, _| p.buffers[3].len = expr("5*batch"),
        "defect in the plan: the buffer of `z` has 5*batch f32 elements, but its shape says 4*batch",
    );
    check(&|p, _| p.steps[1].outputs[0] = BufferId(2), "defect in the plan: no step writes output 0");
    check(&|p, _| p.steps[1].inputs[0] = BufferId(9), "defect in the plan: step `add` uses buffer 9, which does not exist");
    check(&|p, _| p.steps[1].weights.clear(), "defect in the plan: step `add` has 0 weights, but its spec 1");
    check(&|p, _| p.steps[1].weights[0] = WeightId(5), "defect in the plan: weight 5 does not exist");
    check(&|p, _| p.weights[1].shape[0] = 5, "defect in the plan: weight `bias` has 16 bytes, but is f32 of shape [5]");
    check(
        &|_, c| c[0].by_point[0].1.needs.packed = 1 << 40,
        "the weights take 1099511627840 bytes as the selected kernels lay them out, but an artifact holds at most 2080374784",
    );
}

#[test]
fn an_affine_dimension_tells_its_symbol() {
    let mut plan = plan();
    // x is [2*batch + 1, 3] and y [5, 4]: batch follows from x.
    plan.inputs = vec![port("x", &["2*batch + 1", "3"]), port("y", &["5", "4"])];
    plan.buffers[0].len = expr("6*batch + 3");
    plan.buffers[1].len = expr("20");
    let glue = link_with(&plan, &choices(), &info(), &needs).unwrap().glue;
    assert!(glue.contains("glue_symbols[] = {\n    {0, 0, 2, 1},\n}"), "{}", glue.split_once(glue::TABLES).unwrap().1);
}

#[test]
fn artifacts_run_at_every_size_and_number_of_threads() {
    let Some((_dir, model)) = artifact() else { return };
    assert_eq!(*model.metadata(), linkage().metadata);
    // 8 threads are more than the cores of a small machine.
    for threads in [1, 2, 3, 4, 8] {
        let mut session = Session::new(&model, threads).unwrap();
        // Up and down: the arena grows, and must keep its halo clean.
        for batch in [1, 32, 3, 4, 5, 16, 1, 31, 2] {
            check_run(&mut session, batch);
        }
        let [x, y] = inputs(6);
        let (outputs, seconds) = session.run_timed(&[x.view(), y.view()]).unwrap();
        assert_eq!((outputs.len(), seconds.len()), (2, 3));
        assert!(seconds.iter().all(|s| (0.0..10.0).contains(s)), "{seconds:?}");
        let samples = aotfarm_runtime::bench(&mut session, &[x.view(), y.view()], 1, Duration::ZERO).unwrap();
        assert_eq!(samples.len(), 3);
    }
}

/// Three convolutions and a mean: `[batch, 3, 5, 6]` to `[batch, 4]`.
fn network() -> Plan {
    let mut b = Builder::new("network");
    let batch = b.dim("batch", 1, 32, None).unwrap();
    let shape = vec![batch, Expr::from(3), Expr::from(5), Expr::from(6)];
    let mut x = b.input("x", TensorType { dtype: DType::F32, shape }).unwrap();
    for (k, [out, channels]) in [[8, 3], [8, 8], [4, 8]].into_iter().enumerate() {
        let values: Vec<f32> = (0..out * channels * 9).map(|i| (i * 29 % 31) as f32 / 31.0 - 0.5).collect();
        let shape = [out, channels, 3, 3].map(Expr::from).to_vec();
        let w = b.weight(&format!("w{k}"), TensorType { dtype: DType::F32, shape }, TensorData::from_f32(&values)).unwrap();
        let window = Window { kernel: [3; 2], stride: [1; 2], pad: [[1; 2]; 2], dilation: [1; 2] };
        x = b.push(Op::Conv { window, groups: 1 }, &[x, w], "conv").unwrap();
        x = b.push(Op::Unary(UnaryOp::Relu), &[x], "relu").unwrap();
    }
    let y = b.push(Op::Reduce { op: ReduceOp::Mean, axes: vec![2, 3], keepdim: false }, &[x], "mean").unwrap();
    b.output(y);
    let graph = aotfarm_plan::passes::run(b.finish().unwrap(), None).unwrap();
    aotfarm_plan::lower(graph, native(), Precision::Fp32).unwrap()
}

#[test]
fn a_batch_in_parts_gives_what_it_gives_whole() {
    if let Some(why) = aotfarm_runtime::why_not(native()) {
        println!("skipped: this host {why}");
        return;
    }
    let whole = network();
    let n = whole.steps.len();
    let mut choices: Vec<SpecChoice> = Vec::new();
    for point in [1, 8].map(at) {
        for task in aotfarm_kernels::tasks(&whole, &point).unwrap() {
            let kernel = (point.clone(), aotfarm_kernels::reference(&task.task));
            match choices.iter_mut().find(|choice| choice.spec == task.spec) {
                Some(choice) => choice.by_point.push(kernel),
                None => choices.push(SpecChoice { spec: task.spec, by_point: vec![kernel] }),
            }
        }
    }
    let texts: Vec<String> = choices.iter().flat_map(|c| &c.by_point).map(|(_, c)| c.source.text.clone()).collect();
    let sessions = |segments: &[(std::ops::Range<usize>, i64)]| {
        let segments = segments.iter().map(|(steps, images)| Segment { steps: steps.clone(), images: *images }).collect();
        let linkage = link(&whole.clone().in_segments(segments).unwrap(), &choices, &info()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let model = Model::load(&build(&linkage, &texts, dir.path())?).unwrap();
        Some([1, 2, 3].map(|threads| Session::new(&model, threads).unwrap()))
    };
    let all = [vec![], vec![(0..n, 1)], vec![(0..n, 3)], vec![(0..2, 1), (3..n, 2)], vec![(1..n - 1, 4)]];
    let Some(mut all) = all.iter().map(|segments| sessions(segments)).collect::<Option<Vec<_>>>() else { return };
    for batch in [1, 2, 7, 9, 4, 5, 32, 3] {
        let values: Vec<f32> = (0..batch * 90).map(|i| ((i * 37) % 101) as f32 / 50.0 - 1.0).collect();
        let x = Tensor::from_f32(vec![batch, 3, 5, 6], &values).unwrap();
        let results = all.iter_mut().flatten().map(|session| {
            let (outputs, seconds) = session.run_timed(&[x.view()]).unwrap();
            assert!(seconds.len() == n && seconds.iter().all(|s| *s > 0.0), "{seconds:?}");
            outputs.iter().map(|y| y.as_f32().unwrap().to_vec()).collect::<Vec<_>>()
        });
        let results: Vec<_> = results.collect();
        assert_eq!(results[0][0].len() as i64, 4 * batch);
        assert!(results[0][0].iter().any(|y| *y != 0.0));
        assert!(results.iter().all(|y| *y == results[0]), "batch {batch}");
        // What steps tell part by part is what they tell of the whole.
        let told = all.iter_mut().flatten().map(|session| {
            let mut told = vec![Vec::new(); n];
            let outputs =
                session.run_watched(&[x.view()], &mut |result| told[result.step].extend_from_slice(result.bytes)).unwrap();
            assert_eq!(told[n - 1], outputs[0].bytes());
            told
        });
        let told: Vec<_> = told.collect();
        assert!(told.iter().all(|results| *results == told[0]), "batch {batch}");
    }
}

#[test]
fn sessions_run_in_parallel() {
    let Some((_dir, model)) = artifact() else { return };
    std::thread::scope(|scope| {
        for first in 0..4 {
            let model = model.clone();
            scope.spawn(move || {
                let mut session = Session::new(&model, 2).unwrap();
                for i in 0..200 {
                    check_run(&mut session, 1 + (first + i) % 32);
                }
            });
        }
    });
}

#[test]
fn wrong_inputs_are_refused_with_names_and_numbers() {
    let Some((_dir, model)) = artifact() else { return };
    let mut session = Session::new(&model, 2).unwrap();
    let [x, y] = inputs(33);
    let error = session.run(&[x.view(), y.view()]).unwrap_err();
    assert_eq!(error.kind, RunErrorKind::Argument);
    assert_eq!(error.message, "input `x`: dimension 0 (batch) is 33, outside 1..32 of this artifact");
    let wrong = Tensor::zeros(DType::I64, vec![1, 3]).unwrap();
    let error = session.run(&[wrong.view(), y.view()]).unwrap_err();
    assert_eq!(error.message, "input `x`: the element type is i64, but must be f32");
    check_run(&mut session, 2);
    assert_eq!(Session::new(&model, 100_000).unwrap_err().message, "options.threads is 100000, but at most 1024 are possible");
}

#[test]
fn the_c_abi_keeps_its_promises() {
    let Some((dir, model)) = artifact() else { return };
    let include = format!("-I{}", repository().join("abi/include").display());
    let source = repository().join("runtime/tests/abi.c");
    let flags = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O1", &include];
    cc(dir.path(), &[flags.as_slice(), &[source.to_str().unwrap(), "-o", "abi", "-ldl", "-lpthread"]].concat()).unwrap();
    let output = Command::new(dir.path().join("abi")).arg(model.path()).output().unwrap();
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_example_in_the_documentation_runs() {
    let Some((dir, model)) = artifact() else { return };
    let include = format!("-I{}", repository().join("abi/include").display());
    let source = repository().join("docs/examples/run.c");
    cc(dir.path(), &["-Wall", "-Wextra", "-Werror", &include, source.to_str().unwrap(), "-o", "run", "-ldl"]).unwrap();
    let run = |size: &str| Command::new(dir.path().join("run")).arg(model.path()).arg(size).output().unwrap();
    let output = run("2");
    let z = "z [2, 4] 4 17 30 43 4";
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{}, 3 steps\n{z}\ns [5] 0 188 376 564 752\n", native()));
    let output = run("40");
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "error: input `x`: dimension 0 (batch) is 40, outside 1..32 of this artifact\n"
    );
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn building_twice_gives_the_same_bytes_that_need_only_the_c_library() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let Some(a) = build(&linkage(), &units(), first.path()) else { return };
    let Some(b) = build(&linkage(), &units(), second.path()) else { return };
    check_reproducible(&a, &b);
}

/// That the files are the same, export one symbol and need the C library at most.
fn check_reproducible(a: &Path, b: &Path) {
    assert!(std::fs::read(a).unwrap() == std::fs::read(b).unwrap(), "two builds differ");
    let readelf = |flag: &str| {
        let output = Command::new("readelf").args([flag, "-W"]).arg(a).output();
        output.map(|output| String::from_utf8(output.stdout).unwrap())
    };
    let Ok(dynamic) = readelf("-d") else {
        println!("skipped: there is no `readelf` here");
        return;
    };
    for line in dynamic.lines().filter(|line| line.contains("(NEEDED)")) {
        let known = [
            "[libc.so.6]",
            "[libm.so.6]",
            "[libpthread.so.0]",
            "[libdl.so.2]",
            "[ld-linux-x86-64.so.2]",
            "[ld-linux-aarch64.so.1]",
        ];
        assert!(known.iter().any(|name| line.ends_with(name)), "{line}");
    }
    assert!(!dynamic.contains("TEXTREL"), "{dynamic}");
    let symbols = readelf("--dyn-syms").unwrap();
    let exported: Vec<_> = symbols.lines().filter(|l| l.contains("GLOBAL") && !l.contains(" UND ")).collect();
    assert!(exported.len() == 1 && exported[0].ends_with("aotfarm_model"), "{exported:?}");
}

#[test]
fn files_that_are_no_artifacts_are_refused_by_name() {
    let Some((dir, model)) = artifact() else { return };
    let whole = std::fs::read(model.path()).unwrap();
    let check = |bytes: &[u8], reason: &str| {
        let path = dir.path().join("bad.so");
        std::fs::write(&path, bytes).unwrap();
        match Model::load(&path) {
            Err(e) => {
                let text = e.to_string();
                assert!(text.contains("bad.so") && text.contains(reason), "{text}");
            }
            Ok(_) => panic!("loaded what should say: {reason}"),
        }
    };
    check(b"", "is not an artifact: it is no shared object");
    check(
        b"PK\x03\x04 this is a zip file, or its first bytes, and no shared object at all ...",
        "it is no shared object (64-bit little-endian ELF)",
    );
    check(&whole[..whole.len() / 2], "is not an artifact: it is");
    let mut foreign = whole.clone();
    let machine: u16 = if cfg!(target_arch = "aarch64") { 62 } else { 183 };
    foreign[18..20].copy_from_slice(&machine.to_le_bytes());
    check(
        &foreign,
        if cfg!(target_arch = "aarch64") {
            "is made for x86_64, and this host is aarch64"
        } else {
            "is made for aarch64, and this host is x86_64"
        },
    );
    // Another library.
    std::fs::write(dir.path().join("other.c"), "int other(void) { return 1; }").unwrap();
    cc(dir.path(), &["-shared", "-fPIC", "other.c", "-o", "other.so"]).unwrap();
    check(&std::fs::read(dir.path().join("other.so")).unwrap(), "does not export `aotfarm_model`");
    // One that speaks another version.
    std::fs::write(dir.path().join("old.c"), "const void *aotfarm_model(unsigned v) { return v == 99 ? \"\" : (void *)0; }")
        .unwrap();
    cc(dir.path(), &["-shared", "-fPIC", "old.c", "-o", "old.so"]).unwrap();
    check(&std::fs::read(dir.path().join("old.so")).unwrap(), "does not speak version 1 of the artifact ABI");
    assert!(matches!(Model::load(&dir.path().join("absent.so")), Err(LoadError::Read { .. })));
    assert!(Model::load(dir.path()).unwrap_err().to_string().contains("it is not a file"));
}

#[test]
fn damaged_artifacts_do_not_crash_the_check() {
    let Some((dir, model)) = artifact() else { return };
    let whole = std::fs::read(model.path()).unwrap();
    // Every length short of the last segment's end must be refused before the loader maps it.
    let path = dir.path().join("cut.so");
    for len in (0..whole.len()).step_by(509) {
        std::fs::write(&path, &whole[..len]).unwrap();
        let last_segment_ends = aotfarm_runtime::Model::load(&path).is_ok();
        assert!(!last_segment_ends || len * 10 > whole.len() * 5, "a file of {len} of {} bytes was loaded", whole.len());
    }
}

/// That each step holds the values of the graph that its plan says.
fn check_steps(graph: &aotfarm_ir::Graph, linkage: &Linkage, session: &mut Session, x: &Tensor) {
    use aotfarm_ir::interp;
    let shape = x.shape().iter().map(|n| *n as usize).collect();
    let input = interp::Tensor { dtype: DType::F32, shape, data: x.bytes().to_vec() };
    let trace = crate::Trace::new(graph.clone(), &linkage.metadata, &[input]).unwrap();
    let mut seen = Vec::new();
    session
        .run_watched(&[x.view()], &mut |result| {
            // Not of a rearranged input.
            let Some(held) = trace.held(result.step, result.output) else { return };
            let interp::Tensor { dtype, shape, data } = &held.reference;
            let elements = trace.elements((result.step, result.output), result.dims, result.bytes, *dtype).unwrap();
            let tensor = |bytes: &[u8]| Tensor::new(*dtype, shape.iter().map(|n| *n as i64).collect(), bytes).unwrap();
            let difference = aotfarm_runtime::compare(tensor(&elements).view(), tensor(data).view(), 1e-6).unwrap();
            assert!(difference.is_right(), "{}: {difference}", held.name);
            seen.push(held.name.clone());
        })
        .unwrap();
    assert_eq!(seen, ["relu1", "sigmoid", "depthwise", "mean", "excite.product", "project", "project"]);
    // The artifact of another graph is none of this one's.
    let mut metadata = linkage.metadata.clone();
    metadata.steps[0].label += "?";
    let error = crate::Trace::new(graph.clone(), &metadata, &[]).err().unwrap().to_string();
    assert!(error.contains("of compiler 0.0.0-test, has `"), "{error}");
}

/// A graph of real operators through every stage, with several kernels for each task.
#[test]
fn a_compiled_graph_runs_as_the_interpreter_says() {
    use aotfarm_ir::{BinaryOp, Builder, Op, TensorType, UnaryOp, Window};
    if let Some(why) = aotfarm_runtime::why_not(native()) {
        println!("skipped: this host {why}");
        return;
    }
    let mut b = Builder::new("test");
    let batch = b.dim("batch", 1, 9, Some(4)).unwrap();
    let ty = |shape: &[i64]| TensorType { dtype: DType::F32, shape: shape.iter().map(|n| Expr::from(*n)).collect() };
    let mut images = ty(&[0, 5, 9, 11]);
    images.shape[0] = batch;
    let x = b.input("x", images).unwrap();
    // Deterministic, varied, and small enough that sums do not cancel much.
    let values = |n: i64| (0..n).map(|i| ((i * 37 + 11) % 101) as f32 / 101.0 - 0.4).collect::<Vec<_>>();
    let weight = |b: &mut Builder, name: &str, shape: &[i64]| {
        b.weight(name, ty(shape), TensorData::from_f32(&values(shape.iter().product()))).unwrap()
    };
    let window = Window { kernel: [3, 3], stride: [1, 1], pad: [[1, 1], [1, 1]], dilation: [1, 1] };
    let (w1, b1) = (weight(&mut b, "w1", &[16, 5, 3, 3]), weight(&mut b, "b1", &[16]));
    let (w2, b2) = (weight(&mut b, "w2", &[16, 16, 3, 3]), weight(&mut b, "b2", &[16]));
    let first = b.push(Op::Conv { window, groups: 1 }, &[x, w1, b1], "conv1").unwrap();
    let first = b.push(Op::Unary(UnaryOp::Relu), &[first], "relu1").unwrap();
    let second = b.push(Op::Conv { window, groups: 1 }, &[first, w2, b2], "conv2").unwrap();
    let sum = b.push(Op::Binary(BinaryOp::Add), &[second, first], "add").unwrap();
    let image = b.push(Op::Unary(UnaryOp::Sigmoid), &[sum], "sigmoid").unwrap();
    // A squeeze-and-excitation block: a kernel with two outputs, and one with a gate.
    let point = Window { kernel: [1, 1], pad: [[0, 0], [0, 0]], ..window };
    let (w3, w4, w5) =
        (weight(&mut b, "w3", &[16, 1, 3, 3]), weight(&mut b, "w4", &[16, 16, 1, 1]), weight(&mut b, "w5", &[9, 16, 1, 1]));
    let image = b.push(Op::Conv { window, groups: 16 }, &[image, w3], "depthwise").unwrap();
    let mean = b.push(Op::AdaptiveAvgPool { output: [1, 1] }, &[image], "mean").unwrap();
    let gate = b.push(Op::Conv { window: point, groups: 1 }, &[mean, w4], "excite").unwrap();
    let gated = b.push(Op::Binary(BinaryOp::Mul), &[image, gate], "gate").unwrap();
    let last = b.push(Op::Conv { window: point, groups: 1 }, &[gated, w5], "project").unwrap();
    b.output(last);
    let graph = b.finish().unwrap();
    let plan = aotfarm_plan::lower(aotfarm_plan::passes::run(graph.clone(), None).unwrap(), native(), Precision::Fp32).unwrap();
    assert!(plan.steps.iter().any(|step| step.outputs.len() == 2), "{}", plan.print());
    let points = plan.tune_points(&[1, 6]);

    for pick in [0, 1, 40] {
        let mut choices: Vec<SpecChoice> = (0..plan.specs.len()).map(|spec| SpecChoice { spec, by_point: Vec::new() }).collect();
        let mut sources = Vec::new();
        for point in &points {
            for planned in aotfarm_kernels::tasks(&plan, point).unwrap() {
                let all = aotfarm_kernels::candidates(&planned.task, aotfarm_protocol::TuneMode::Quick, None);
                let chosen = all.get(pick).or(all.last()).unwrap();
                sources.push(chosen.source.text.clone());
                choices[planned.spec].by_point.push((point.clone(), chosen.clone()));
            }
        }
        let linkage = link(&plan, &choices, &info()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let Some(path) = build(&linkage, &sources, dir.path()) else { return };
        let model = Model::load(&path).unwrap();
        for threads in [1, 3] {
            let mut session = Session::new(&model, threads).unwrap();
            for batch in [1, 9, 2, 5] {
                let shape = vec![batch, 5, 9, 11];
                let x = Tensor::from_f32(shape.clone(), &values(shape.iter().product())).unwrap();
                let input = aotfarm_ir::interp::Tensor {
                    dtype: DType::F32,
                    shape: shape.iter().map(|n| *n as usize).collect(),
                    data: x.bytes().to_vec(),
                };
                let expected = aotfarm_ir::interp::run(&graph, &[input]).unwrap();
                let expected = TensorData::new(expected[0].data.clone()).to_f32();
                let outputs = session.run(&[x.view()]).unwrap();
                let actual = outputs[0].as_f32().unwrap();
                assert_eq!(actual.len(), expected.len());
                let squares = |f: &dyn Fn(usize) -> f32| (0..actual.len()).map(|i| f64::from(f(i)).powi(2)).sum::<f64>();
                let error = (squares(&|i| actual[i] - expected[i]) / squares(&|i| expected[i])).sqrt();
                assert!(error < 1e-6, "pick {pick}, {threads} threads, batch {batch}: relative error {error}");
                check_steps(&graph, &linkage, &mut session, &x);
            }
        }
    }
}
