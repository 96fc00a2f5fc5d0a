//! An artifact all of whose steps are calls of NVIDIA's libraries: `runtime/tests/vendor.c` says what it computes. It runs on libraries of the tests'
//! own (`runtime/tests/fake_vendor.c`), and on a GPU with cuDNN and cuBLASLt where there is one.

use aotfarm_protocol::{Activation, Extent, VendorCall, VendorConv, VendorLibrary, VendorMatMul};

use super::cuda::gpu_build_of;
use super::*;
use aotfarm_kernels::testing::gpu::Nvrtc;

fn dim0() -> Extent {
    Extent { factor: 1, dims: vec![0] }
}

fn conv() -> VendorCall {
    VendorCall::Conv(VendorConv {
        dtype: DType::Bf16,
        batch: dim0(),
        input: [8, 2, 2],
        output: [8, 2, 2],
        kernel: [1, 1],
        stride: [1, 1],
        pad: [0, 0],
        dilation: [1, 1],
        tf32: false,
        bias: 1,
        residual: None,
        relu: true,
    })
}

/// `[batch, k]` times a weight `[n, k]`.
fn product(dtypes: [DType; 2], n: i64, k: i64, residual: Option<usize>) -> VendorCall {
    VendorCall::MatMul(VendorMatMul {
        dtypes,
        batch: Extent::fixed(1),
        m: dim0(),
        n: Extent::fixed(n),
        k: Extent::fixed(k),
        b_is_weight: true,
        b_transposed: true,
        tf32: false,
        bias: Some(1),
        residual,
        activation: Activation::None,
    })
}

fn vendor_plan() -> Plan {
    let port = |name: &str, dtype, dims: &[&str]| Port { dtype, ..port(name, dims) };
    let buffer = |dtype, len: &str, place| Buffer { dtype, len: expr(len), place, plane: None };
    let weight = |name: &str, dtype, shape: &[i64], f: &dyn Fn(i64) -> f32| {
        let values: Vec<f32> = (0..shape.iter().product()).map(f).collect();
        let data = match dtype {
            DType::Bf16 => TensorData::new(values.iter().flat_map(|x| half::bf16::from_f32(*x).to_le_bytes()).collect()),
            DType::F16 => TensorData::new(values.iter().flat_map(|x| half::f16::from_f32(*x).to_le_bytes()).collect()),
            _ => TensorData::from_f32(&values),
        };
        PlanWeight { name: name.into(), dtype, shape: shape.to_vec(), data }
    };
    let step = |label: &str, spec, inputs: &[u32], weights: [u32; 2], output| Step {
        label: label.into(),
        spec,
        inputs: inputs.iter().map(|i| BufferId(*i)).collect(),
        weights: weights.iter().map(|i| WeightId(*i)).collect(),
        outputs: vec![BufferId(output)],
        dims: vec![expr("batch")],
        values: Vec::new(),
    };
    let image = &["batch", "2", "2", "8"];
    // What rounding to f16 must not get wrong: infinity's neighbour, ties, numbers that are not normal there.
    let halves = [1.0 / 3.0, 65519.0, 1e-7, -2.000_976_6, 2.980_232_2e-8, 6.1035e-5, -0.1, 2049.0];
    Plan {
        target: Target::Cuda { sm: 90 },
        dims: vec![DimRange { name: "batch".into(), min: 1, max: 64 }],
        inputs: vec![
            port("x", DType::Bf16, image),
            port("y", DType::F32, &["batch", "4"]),
            port("u", DType::F16, &["batch", "8"]),
        ],
        outputs: vec![port("z", DType::F32, &["batch", "4"]), port("t", DType::F16, &["batch", "8"])],
        specs: vec![spec(1, &[64, 8], 1), spec(2, &[128, 4], 1), spec(1, &[64, 8], 1)],
        buffers: vec![
            buffer(DType::Bf16, "32*batch", Place::Input(0)),
            buffer(DType::F32, "4*batch", Place::Input(1)),
            buffer(DType::F16, "8*batch", Place::Input(2)),
            buffer(DType::Bf16, "32*batch", Place::Slot(0)),
            buffer(DType::F32, "4*batch", Place::Output(0)),
            buffer(DType::F16, "8*batch", Place::Output(1)),
        ],
        slots: vec![Slot { bytes: vec![expr("64*batch")], zeroed: true }],
        weights: vec![
            weight("w", DType::Bf16, &[8, 1, 1, 8], &|i| if (i / 8 + i % 8) % 2 == 1 { 1.0 } else { -1.0 }),
            weight("b", DType::F32, &[8], &|i| (i - 4) as f32),
            weight("v", DType::Bf16, &[4, 32], &|i| ((i / 32 + i % 32) % 3) as f32),
            weight("c", DType::F32, &[4], &|i| 10.0 * i as f32),
            weight("zero", DType::F16, &[8, 8], &|_| 0.0),
            weight("d", DType::F32, &[8], &|i| halves[i as usize]),
        ],
        steps: vec![step("conv", 0, &[0], [0, 1], 3), step("product", 1, &[3, 1], [2, 3], 4), step("round", 2, &[2], [4, 5], 5)],
        ..plan()
    }
}

/// A call as a selection has it: by algorithm.
fn chosen(family: &'static str, call: VendorCall, algorithm: i64) -> Candidate {
    Candidate { family, vendor: Some(call), ..candidate("ADD", "aot_vendor", 0, &[]) }.with_algorithm(&task(), algorithm)
}

fn task() -> TuningTask {
    TuningTask { spec: spec(1, &[], 1), target: Target::Cuda { sm: 90 }, point: vec![1] }
}

fn vendor_choices() -> Vec<SpecChoice> {
    let choice = |spec, candidate| SpecChoice { spec, by_point: vec![(at(1), candidate)] };
    vec![
        choice(0, chosen("cudnn@2", conv(), 6)),
        choice(1, chosen("cublaslt@1", product([DType::Bf16, DType::F32], 4, 32, Some(1)), 2)),
        choice(2, chosen("cublaslt@1", product([DType::F16; 2], 8, 8, None), 0)),
    ]
}

fn vendor_linkage() -> Linkage {
    link(&vendor_plan(), &vendor_choices(), &info()).unwrap()
}

fn vendor_artifact() -> Option<(tempfile::TempDir, PathBuf)> {
    let dir = tempfile::tempdir().unwrap();
    let path = gpu_build_of(&vendor_linkage(), &[], dir.path(), &|_| unreachable!("it has no kernels"))?;
    Some((dir, path))
}

#[test]
fn the_tables_of_calls_are_those_on_record() {
    let linkage = vendor_linkage();
    check_recorded("vendor_tables.c", linkage.glue.split_once(glue::TABLES).unwrap().1);
    assert!(linkage.units.is_empty(), "what is never run is not linked");
    assert_eq!(linkage.copies.len(), 6, "weights lie as they were measured: raw");
    assert_eq!(linkage.metadata.libraries, VendorLibrary::ALL);
    assert_eq!(linkage.metadata.steps[0].kernels["batch=1"], "cudnn@2 algorithm6");
}

#[test]
fn a_call_without_an_algorithm_is_refused() {
    let mut choices = vendor_choices();
    choices[1].by_point[0].1.params.clear();
    let error = link(&vendor_plan(), &choices, &info()).unwrap_err().to_string();
    assert_eq!(error, "defect in the plan: cublaslt@1 was chosen without one of its algorithms");
}

#[test]
fn artifacts_name_libraries_and_hold_what_opens_them_only_where_they_call_them() {
    let without = super::cuda::gpu_linkage();
    assert!(!without.glue.contains("cudnnCreate") && !without.glue.contains("define RT_VENDOR"));
    let tables = without.glue.split_once(glue::TABLES).unwrap().1;
    assert!(without.metadata.libraries.is_empty() && !tables.contains("libraries"));

    // One that needs cuBLASLt alone does not ask for cuDNN.
    let mut choices = vendor_choices();
    choices[0] = SpecChoice { spec: 0, ..choices[2].clone() };
    let linkage = link(&vendor_plan(), &choices, &info()).unwrap();
    assert!(linkage.glue.starts_with("#define RT_VENDOR (RT_CUBLASLT)\n"));
    assert_eq!(linkage.metadata.libraries, [VendorLibrary::CublasLt]);
}

/// The whole session, on a driver and libraries that check and count their calls.
#[test]
fn a_session_calls_the_libraries_as_it_should() {
    let Some((dir, path)) = vendor_artifact() else { return };
    let tests = repository().join("runtime/tests");
    let library = |source: &str, name: &str, more: &[&str]| {
        let source = tests.join(source);
        let flags = ["-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", source.to_str().unwrap(), "-o", name];
        cc(dir.path(), &[&flags, more].concat()).unwrap();
    };
    library("fake_cuda.c", "libcuda.so.1", &[]);
    let refused = |env: &[(&str, &str)], expected: &str| run_vendor_test(dir.path(), &path, env, &[expected]);
    // SAFETY: NVIDIA's libraries, which may be loaded at any time.
    let absent = |name: &str| unsafe { libloading::Library::new(name) }.is_err();
    if absent("libcudnn.so.9") {
        refused(
            &[],
            "this artifact needs libcudnn.so.9 (it was submitted with --allow-vendor): libcudnn.so.9: cannot open shared object file",
        );
    } else {
        println!("skipped in part: this host has cuDNN on the loader's path");
    }
    refused(
        &[("AOTFARM_CUDNN", "/absent.so")],
        "(it was submitted with --allow-vendor): /absent.so: cannot open shared object file",
    );
    std::fs::copy(dir.path().join("libcuda.so.1"), dir.path().join("libcudnn.so.9")).unwrap();
    refused(
        &[],
        "this artifact needs libcudnn.so.9 (it was submitted with --allow-vendor), and the one that was found has no cudnnCreate",
    );
    library("fake_vendor.c", "libcudnn.so.9", &["-lm", "-ldl"]);
    if ["libcublasLt.so.13", "libcublasLt.so.12"].into_iter().all(absent) {
        refused(&[], "this artifact needs libcublasLt.so.13 or libcublasLt.so.12 (it was submitted with --allow-vendor): ");
    } else {
        println!("skipped in part: this host has cuBLASLt on the loader's path");
    }
    library("fake_vendor.c", "libcublasLt.so.13", &["-lm", "-ldl"]);
    run_vendor_test(dir.path(), &path, &[], &[]);
}

/// Compiles `runtime/tests/vendor.c`, and runs it on the artifact, with the libraries in `dir` where there are some.
fn run_vendor_test(dir: &Path, artifact: &Path, env: &[(&str, &str)], arguments: &[&str]) {
    let include = format!("-I{}", repository().join("abi/include").display());
    let source = repository().join("runtime/tests/vendor.c");
    let flags = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O1", &include];
    cc(dir, &[flags.as_slice(), &[source.to_str().unwrap(), "-o", "vendor", "-ldl"]].concat()).unwrap();
    let mut command = Command::new(dir.join("vendor"));
    command.arg(artifact).args(arguments);
    if dir.join("libcuda.so.1").exists() {
        // On the fakes, whatever libraries this host was told of.
        command.env("LD_LIBRARY_PATH", dir).env_remove("AOTFARM_CUDNN").env_remove("AOTFARM_CUBLASLT");
    }
    command.envs(env.iter().copied());
    let output = command.output().unwrap();
    println!("{}", String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
}

/// Needs `AOTFARM_CUDNN` and `AOTFARM_CUBLASLT`, or the libraries on the loader's path.
#[test]
fn a_gpu_runs_the_calls() {
    let Some((dir, path)) = vendor_artifact() else { return };
    if let Some(why) = aotfarm_runtime::why_not(Target::Cuda { sm: 90 }) {
        println!("skipped: this host {why}");
        return;
    }
    let model = Model::load(&path).unwrap();
    if let Err(error) = Session::new(&model, 0) {
        assert!(error.message.contains("this artifact needs lib"), "{error}");
        println!("skipped: {error}");
        return;
    }
    run_vendor_test(dir.path(), &path, &[], &[]);
}

/// A model with convolutions, linear layers and a product of activations, and an input of each.
fn network() -> (aotfarm_ir::Graph, Vec<Vec<i64>>) {
    use aotfarm_ir::{BinaryOp, Builder, Op, TensorType, UnaryOp, Window};
    let mut b = Builder::new("test");
    let batch = b.dim("batch", 1, 40, Some(4)).unwrap();
    let ty = |shape: &[i64]| TensorType { dtype: DType::F32, shape: shape.iter().map(|n| Expr::from(*n)).collect() };
    let shapes = vec![vec![0, 8, 9, 11], vec![0, 24], vec![0, 5, 16], vec![0, 16, 24]];
    let mut inputs = shapes.iter().enumerate().map(|(k, shape)| {
        let mut ty = ty(shape);
        ty.shape[0] = batch.clone();
        b.input(&format!("x{k}"), ty).unwrap()
    });
    let [image, rows, left, right] = std::array::from_fn(|_| inputs.next().unwrap());
    drop(inputs);
    let weight = |b: &mut Builder, name: &str, shape: &[i64]| {
        b.weight(name, ty(shape), TensorData::from_f32(&values(shape.iter().product()))).unwrap()
    };
    let window = |stride| Window { kernel: [3, 3], stride: [stride, stride], pad: [[1, 1], [1, 1]], dilation: [1, 1] };
    let conv = |b: &mut Builder, x, [to, from]: [i64; 2], stride, name: &str| {
        let (w, bias) = (weight(b, &format!("w{name}"), &[to, from, 3, 3]), weight(b, &format!("b{name}"), &[to]));
        b.push(Op::Conv { window: window(stride), groups: 1 }, &[x, w, bias], name).unwrap()
    };
    let first = conv(&mut b, image, [16, 8], 2, "conv1");
    let first = b.push(Op::Unary(UnaryOp::Relu), &[first], "relu1").unwrap();
    let second = conv(&mut b, first, [16, 16], 1, "conv2");
    let sum = b.push(Op::Binary(BinaryOp::Add), &[second, first], "add").unwrap();
    let sum = b.push(Op::Unary(UnaryOp::Relu), &[sum], "relu2").unwrap();
    let last = conv(&mut b, sum, [8, 16], 1, "conv3");
    let linear = |b: &mut Builder, x, [to, from]: [i64; 2], name: &str| {
        let (w, bias) = (weight(b, &format!("w{name}"), &[to, from]), weight(b, &format!("b{name}"), &[to]));
        b.push(Op::Linear, &[x, w, bias], name).unwrap()
    };
    let hidden = linear(&mut b, rows, [40, 24], "linear1");
    let hidden = b.push(Op::Unary(UnaryOp::Relu), &[hidden], "relu3").unwrap();
    let wide = linear(&mut b, hidden, [40, 40], "linear2");
    let wide = b.push(Op::Binary(BinaryOp::Add), &[wide, hidden], "add2").unwrap();
    let gelu = b.push(Op::Unary(UnaryOp::GeluTanh), &[wide], "gelu").unwrap();
    let classes = linear(&mut b, gelu, [16, 40], "linear3");
    let product = b.push(Op::MatMul, &[left, right], "matmul").unwrap();
    for output in [last, classes, product] {
        b.output(output);
    }
    (b.finish().unwrap(), shapes)
}

/// Deterministic, varied, and small enough that sums do not cancel much.
fn values(n: i64) -> Vec<f32> {
    (0..n).map(|i| ((i * 37 + 11) % 101) as f32 / 101.0 - 0.4).collect()
}

/// In every precision, with whatever a library can do done by it, at tuned sizes and others. Needs NVRTC, and on a GPU what the test above needs.
#[test]
fn a_gpu_runs_a_network_with_calls_as_the_interpreter_says() {
    let Some(nvrtc) = Nvrtc::find() else { return };
    let (graph, shapes) = network();
    let target = Target::Cuda { sm: 90 };
    for precision in [Precision::Fp32, Precision::Tf32, Precision::Bf16, Precision::Fp16] {
        let plan = aotfarm_plan::lower(aotfarm_plan::passes::run(graph.clone(), None).unwrap(), target, precision).unwrap();
        let mut choices: Vec<SpecChoice> = (0..plan.specs.len()).map(|spec| SpecChoice { spec, by_point: Vec::new() }).collect();
        let mut sources = Vec::new();
        for point in plan.tune_points(&[1, 16]) {
            for planned in aotfarm_kernels::tasks(&plan, &point).unwrap() {
                let candidate = match aotfarm_kernels::baseline(&planned.task) {
                    Some(library) => {
                        let algorithm = i64::from(library.family.starts_with("cudnn"));
                        library.with_algorithm(&planned.task, algorithm)
                    }
                    None => aotfarm_kernels::reference(&planned.task),
                };
                sources.push(candidate.source.text.clone());
                choices[planned.spec].by_point.push((point.clone(), candidate));
            }
        }
        let linkage = link(&plan, &choices, &info()).unwrap();
        assert_eq!(linkage.metadata.libraries, VendorLibrary::ALL);
        let dir = tempfile::tempdir().unwrap();
        let cubin = |text: &str| nvrtc.compile(text, 90).unwrap();
        let Some(path) = gpu_build_of(&linkage, &sources, dir.path(), &cubin) else { return };
        if let Some(why) = aotfarm_runtime::why_not(target) {
            println!("skipped: this host {why}");
            continue;
        }
        let model = Model::load(&path).unwrap();
        let mut session = match Session::new(&model, 0) {
            Ok(session) => session,
            Err(error) => {
                assert!(error.message.contains("this artifact needs lib"), "{error}");
                println!("skipped: {error}");
                return;
            }
        };
        let calls = linkage.metadata.steps.iter().filter(|s| s.kernels.values().any(|k| k.contains("algorithm"))).count();
        println!("{precision}: {calls} of {} steps are calls", linkage.metadata.steps.len());
        for batch in [1, 40, 3, 3, 40, 16, 1] {
            let tensors: Vec<Tensor> = shapes
                .iter()
                .map(|shape| {
                    let shape = [&[batch], &shape[1..]].concat();
                    Tensor::from_f32(shape.clone(), &values(shape.iter().product())).unwrap()
                })
                .collect();
            let of = |t: &Tensor| aotfarm_ir::interp::Tensor {
                dtype: DType::F32,
                shape: t.shape().iter().map(|n| *n as usize).collect(),
                data: t.bytes().to_vec(),
            };
            let expected = aotfarm_ir::interp::run(&graph, &tensors.iter().map(of).collect::<Vec<_>>()).unwrap();
            let views: Vec<_> = tensors.iter().map(Tensor::view).collect();
            for (k, output) in session.run(&views).unwrap().iter().enumerate() {
                let (actual, expected) = (output.as_f32().unwrap(), TensorData::new(expected[k].data.clone()).to_f32());
                let squares = |f: &dyn Fn(usize) -> f32| (0..actual.len()).map(|i| f64::from(f(i)).powi(2)).sum::<f64>();
                let error = (squares(&|i| actual[i] - expected[i]) / squares(&|i| expected[i])).sqrt();
                assert!(error < precision.tolerance(), "{precision}, batch {batch}, output {k}: relative error {error}");
            }
        }
    }
}
