//! Whole small models through every stage on a CPU, at sizes and in element types that few models have.

use aotfarm_ir::interp::{self, Case, Tensor as Array};
use aotfarm_ir::{Graph, text};
use aotfarm_plan::passes;
use aotfarm_protocol::TuneMode;

use super::*;

/// The graph as an artifact, of the `pick`-th kernel of each task, or the last; `None` when the host cannot.
fn compiled(graph: &Graph, pick: usize) -> Option<(tempfile::TempDir, Model)> {
    if let Some(why) = aotfarm_runtime::why_not(native()) {
        println!("skipped: this host {why}");
        return None;
    }
    let plan = aotfarm_plan::lower(passes::run(graph.clone(), None).unwrap(), native(), Precision::Fp32);
    let plan = plan.unwrap_or_else(|e| panic!("{}: {e}", graph.name));
    let mut choices: Vec<SpecChoice> = (0..plan.specs.len()).map(|spec| SpecChoice { spec, by_point: Vec::new() }).collect();
    let mut sources = Vec::new();
    for point in &plan.tune_points(&[]) {
        for planned in aotfarm_kernels::tasks(&plan, point).unwrap() {
            let all = aotfarm_kernels::candidates(&planned.task, TuneMode::Quick, None);
            let chosen = all.get(pick).or(all.last()).unwrap().clone();
            sources.push(chosen.source.text.clone());
            choices[planned.spec].by_point.push((point.clone(), chosen));
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let path = build(&link(&plan, &choices, &info()).unwrap(), &sources, dir.path())?;
    let model = Model::load(&path).unwrap();
    Some((dir, model))
}

/// Runs an artifact on arrays.
fn run(model: &Model, inputs: &[Array]) -> Vec<Array> {
    let tensor = |a: &Array| Tensor::new(a.dtype, a.shape.iter().map(|n| *n as i64).collect(), &a.data).unwrap();
    let inputs: Vec<Tensor> = inputs.iter().map(tensor).collect();
    let views: Vec<_> = inputs.iter().map(Tensor::view).collect();
    let outputs = Session::new(model, 2).unwrap().run(&views).unwrap();
    let array =
        |t: Tensor| Array { dtype: t.dtype(), shape: t.shape().iter().map(|n| *n as usize).collect(), data: t.bytes().to_vec() };
    outputs.into_iter().map(array).collect()
}

/// What rounding to a type explains in these models.
fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::Bf16 => 4e-3,
        DType::F16 => 5e-4,
        DType::F32 => 1e-6,
        DType::F64 => 1e-14,
        _ => 0.0,
    }
}

fn assert_close(name: &str, actual: &[Array], wanted: &[Array]) {
    assert_eq!(actual.len(), wanted.len(), "{name}");
    for (actual, wanted) in actual.iter().zip(wanted) {
        assert_eq!((actual.dtype, &actual.shape), (wanted.dtype, &wanted.shape), "{name}");
        let error = actual.relative_error(wanted);
        assert!(error <= tolerance(wanted.dtype), "{name}: relative error {error:e}");
    }
}

/// Numbers of both signs, no two neighbours alike, that every type holds exactly.
fn array(dtype: DType, shape: &[usize]) -> Array {
    let values = (0..shape.iter().product::<usize>()).map(|i| ((i * 37 + 11) % 15) as i64 - 7);
    let bytes = |n: i64| match dtype {
        DType::F16 => half::f16::from_f64(n as f64 / 8.0).to_le_bytes().to_vec(),
        DType::Bf16 => half::bf16::from_f64(n as f64 / 8.0).to_le_bytes().to_vec(),
        DType::F32 => (n as f32 / 8.0).to_le_bytes().to_vec(),
        DType::F64 => (n as f64 / 8.0).to_le_bytes().to_vec(),
        DType::Bool => vec![u8::from(n > 0)],
        DType::U8 => vec![n.unsigned_abs() as u8],
        _ => n.to_le_bytes()[..dtype.size()].to_vec(),
    };
    Array { dtype, shape: shape.to_vec(), data: values.flat_map(bytes).collect() }
}

/// A graph with made-up weights.
fn graph(source: &str) -> Graph {
    let mut weights = |_: &str, ty: &TensorType| {
        let shape: Vec<usize> = ty.const_shape().unwrap().iter().map(|n| *n as usize).collect();
        Ok(TensorData::new(array(ty.dtype, &shape).data))
    };
    text::parse_with(source, &mut weights).unwrap_or_else(|e| panic!("{e}\n{source}"))
}

/// Compares the artifact with the interpreter, with inputs of each of these lists of shapes.
fn check(source: &str, runs: &[&[&[usize]]]) {
    check_picks(source, &[0], runs);
}

/// [`check`] of artifacts of several choices of kernels.
fn check_picks(source: &str, picks: &[usize], runs: &[&[&[usize]]]) {
    let graph = graph(source);
    for pick in picks {
        let Some((_dir, model)) = compiled(&graph, *pick) else { return };
        check_runs(source, &graph, &model, runs);
    }
}

fn check_runs(source: &str, graph: &Graph, model: &Model, runs: &[&[&[usize]]]) {
    for shapes in runs {
        let dtype = |n: usize| graph.ty(graph.inputs[n]).dtype;
        let inputs: Vec<Array> = shapes.iter().enumerate().map(|(n, shape)| array(dtype(n), shape)).collect();
        let wanted = interp::run(graph, &inputs).unwrap_or_else(|e| panic!("{e}\n{source}"));
        assert_close(&format!("{source}\nat {shapes:?}"), &run(model, &inputs), &wanted);
    }
}

/// Kernels of many families.
const PICKS: [usize; 5] = [0, 1, 5, 17, 60];

#[test]
fn an_empty_dimension_runs() {
    // As a cache of past keys and values at the first step.
    let cache = "graph cache
        dim batch = 1..4
        dim past = 0..16
        dim seq = 1..8
        input %past_keys : f32[batch, past, 8]
        input %keys : f32[batch, seq, 8]
        weight %w : f32[8, 8]
        %k = linear %keys, %w : f32[batch, seq, 8]
        %all = concat %past_keys, %k {axis=1} : f32[batch, past + seq, 8]
        %turned = permute %all {axes=[0, 2, 1]} : f32[batch, 8, past + seq]
        %scores = matmul %keys, %turned : f32[batch, seq, past + seq]
        %weights = softmax %scores {axis=2} : f32[batch, seq, past + seq]
        %sum = reduce_sum %past_keys {axes=[1]} : f32[batch, 8]
        output %all
        output %weights
        output %sum";
    check_picks(cache, &PICKS, &[&[&[2, 0, 8], &[2, 3, 8]], &[&[2, 5, 8], &[2, 1, 8]]]);
    // And where there is no image, row or token at all.
    let images = "graph images
        dim n = 0..8
        input %x : f32[n, 3, 8, 8]
        weight %w : f32[16, 3, 3, 3]
        weight %v : f32[16, 16, 3, 3]
        weight %f : f32[5, 16]
        %a = conv %x, %w {pad=[[1, 1], [1, 1]]} : f32[n, 16, 8, 8]
        %b = relu %a : f32[n, 16, 8, 8]
        %c = conv %b, %v {pad=[[1, 1], [1, 1]]} : f32[n, 16, 8, 8]
        %d = max_pool %c {kernel=[2, 2], stride=[2, 2]} : f32[n, 16, 4, 4]
        %e = reduce_mean %d {axes=[2, 3]} : f32[n, 16]
        %y = linear %e, %f : f32[n, 5]
        %z = layer_norm %y {axes=1, eps=1e-5} : f32[n, 5]
        output %z";
    check_picks(images, &PICKS, &[&[&[0, 3, 8, 8]], &[&[3, 3, 8, 8]]]);
}

#[test]
fn convolutions_of_images_of_any_size_run() {
    let sized = "graph sized
        dim n = 1..4
        dim h = 4..32
        dim w = 4..32
        input %x : f32[n, 3, h, 2*w]
        weight %first : f32[8, 3, 3, 3]
        weight %second : f32[4, 8, 3, 3]
        %a = conv %x, %first {pad=[[1, 1], [1, 1]]} : f32[n, 8, h, 2*w]
        %b = relu %a : f32[n, 8, h, 2*w]
        %c = conv %b, %second {stride=[2, 2], pad=[[1, 1], [1, 1]]} : f32[n, 4, (h - 1)//2 + 1, w]
        %y = max_pool %c {kernel=[2, 2]} : f32[n, 4, (h - 1)//2, w - 1]
        output %y";
    check(sized, &[&[&[1, 3, 9, 14]], &[&[2, 3, 5, 22]]]);
}

#[test]
fn rows_of_attention_that_see_nothing_give_zeros() {
    for (dtype, causal) in [("bool", ""), ("f32", ""), ("bool", ", causal"), ("f32", ", causal")] {
        let masked = format!(
            "graph masked
            dim n = 1..4
            input %q : f32[n, 2, 5, 4]
            input %k : f32[n, 2, 3, 4]
            input %v : f32[n, 2, 3, 4]
            input %m : {dtype}[n, 1, 5, 3]
            %y = attention %q, %k, %v, %m {{scale=0.5{causal}}} : f32[n, 2, 5, 4]
            output %y"
        );
        let graph = graph(&masked);
        let Some((_dir, model)) = compiled(&graph, 0) else { return };
        let mut inputs: Vec<Array> =
            [[2, 2, 5, 4], [2, 2, 3, 4], [2, 2, 3, 4]].iter().map(|shape| array(DType::F32, shape)).collect();
        // Row 1 of image 0 sees nothing; row 0 of image 1 only what lies ahead of it.
        let seen = |at: usize| !matches!(at, 3..6 | 15);
        let data = match dtype {
            "bool" => (0..30).map(|at| u8::from(seen(at))).collect(),
            _ => (0..30).flat_map(|at| if seen(at) { 0.25f32 } else { f32::NEG_INFINITY }.to_le_bytes()).collect(),
        };
        let dtype = if dtype == "bool" { DType::Bool } else { DType::F32 };
        inputs.push(Array { dtype, shape: vec![2, 1, 5, 3], data });
        let outputs = run(&model, &inputs);
        assert_close(&masked, &outputs, &interp::run(&graph, &inputs).unwrap());
        let values = outputs[0].to_f64();
        let blind = |image: usize, row: usize| values[(image * 2 * 5 + row) * 4..][..4].iter().all(|v| *v == 0.0);
        assert_eq!([blind(0, 1), blind(1, 0), blind(0, 2)], [true, causal == ", causal", false], "{masked}");
    }
}

#[test]
fn a_layer_norm_takes_any_operands() {
    let norm = "graph norm
        input %x : f32[3, 8]
        input %s : f32[8]
        weight %w : f32[8]
        %zero = full {value=0.0} : f32[8]
        %one = full {value=1.0} : f32[8]
        %a = layer_norm %x, %w, %zero {axes=1, eps=1e-5} : f32[3, 8]
        %b = layer_norm %x, %one, %w {axes=1, eps=1e-5} : f32[3, 8]
        %c = layer_norm %x, %s, %w {axes=1, eps=1e-5} : f32[3, 8]
        output %a
        output %b
        output %c";
    check(norm, &[&[&[3, 8], &[8]]]);
    let bias = "graph bias
        input %x : f32[2, 8]
        input %i : f32[2, 3, 5, 5]
        input %b : f32[4]
        weight %w : f32[4, 8]
        weight %f : f32[4, 3, 3, 3]
        %a = linear %x, %w, %b : f32[2, 4]
        %c = conv %i, %f, %b : f32[2, 4, 3, 3]
        output %a
        output %c";
    check(bias, &[&[&[2, 8], &[2, 3, 5, 5], &[4]]]);
}

/// One of each kind that the f32 kernels compute.
const KINDS: &str = "graph kinds
    dim n = 0..4
    input %x : T[n, 6, 9, 9]
    input %t : T[n, 2, 5, 8]
    weight %w1 : T[8, 6, 3, 3]
    weight %b1 : T[8]
    weight %w2 : T[8, 2, 3, 3]
    weight %f : T[8, 8]
    weight %g : T[8]
    weight %v : T[8]
    %variance = mul %v, %v : T[8]
    %a = conv %x, %w1, %b1 {stride=[2, 2], pad=[[1, 1], [1, 1]]} : T[n, 8, 5, 5]
    %b = batch_norm %a, %g, %b1, %v, %variance {eps=0.5} : T[n, 8, 5, 5]
    %c = relu %b : T[n, 8, 5, 5]
    %d = conv %c, %w2 {pad=[[0, 2], [1, 1]], dilation=[2, 1], groups=4} : T[n, 8, 3, 5]
    %e = max_pool %d {kernel=[2, 3], stride=[1, 2], pad=[[1, 0], [1, 1]]} : T[n, 8, 3, 3]
    %h = avg_pool %d {kernel=[2, 3], stride=[1, 2], pad=[[1, 0], [1, 1]]} : T[n, 8, 3, 3]
    %i = avg_pool %d {kernel=[2, 3], stride=[1, 2], pad=[[1, 0], [1, 1]], count_include_pad} : T[n, 8, 3, 3]
    %j = adaptive_avg_pool %d {output=[2, 3]} : T[n, 8, 2, 3]
    %k = linear %t, %f, %g : T[n, 2, 5, 8]
    %l = layer_norm %k, %g, %b1 {axes=1, eps=1e-5} : T[n, 2, 5, 8]
    %m = attention %l, %t, %k {scale=0.25, causal} : T[n, 2, 5, 8]
    %p = permute %m {axes=[0, 1, 3, 2]} : T[n, 2, 8, 5]
    %q = matmul %m, %p : T[n, 2, 5, 5]
    %r = softmax %q {axis=2} : T[n, 2, 5, 5]
    output %e
    output %h
    output %i
    output %j
    output %r";

#[test]
fn every_kind_computes_in_every_floating_point_type() {
    for dtype in [DType::F32, DType::F64, DType::F16, DType::Bf16] {
        let source = KINDS.replace(" T[", &format!(" {dtype}["));
        check(&source, &[&[&[2, 6, 9, 9], &[2, 2, 5, 8]], &[&[0, 6, 9, 9], &[0, 2, 5, 8]]]);
    }
}

#[test]
fn integers_are_multiplied_and_pooled_exactly() {
    for dtype in [DType::I8, DType::I16, DType::I32, DType::I64, DType::U8] {
        let source = "graph integers
            input %a : T[2, 3, 4]
            input %b : T[4, 5]
            input %x : T[1, 2, 5, 5]
            %y = matmul %a, %b : T[2, 3, 5]
            %z = max_pool %x {kernel=[3, 3], stride=[2, 2], pad=[[1, 1], [1, 1]]} : T[1, 2, 3, 3]
            output %y
            output %z";
        check(&source.replace(" T[", &format!(" {dtype}[")), &[&[&[2, 3, 4], &[4, 5], &[1, 2, 5, 5]]]);
    }
}

/// Models with outputs that torch or onnxruntime computed.
#[test]
fn recorded_cases_run_as_recorded() {
    let folder = repository().join("../shared/cases");
    let cases = [
        "conv-dynamic-hw",
        "conv-dynamic-hw-two-layers",
        "derived-dim-multiple",
        "dim-min-2-select",
        "layernorm-without-bias-pt2",
        "onnx-dim-named-batch-twice",
        "onnx-past-length-zero",
        "onnx-slice-dynamic-axis-head",
        "onnx-unnamed-dims",
        "sdpa-fully-masked-row",
    ];
    for name in cases {
        let folder = folder.join(name);
        let Some(file) = ["model.pt2", "model.onnx"].map(|file| folder.join(file)).into_iter().find(|file| file.exists()) else {
            println!("skipped: there is no case {name} at {}", folder.display());
            continue;
        };
        let bytes = std::sync::Arc::new(std::fs::read(&file).unwrap());
        let graph = aotfarm_frontend::load(bytes, &file.to_string_lossy()).unwrap_or_else(|e| panic!("{name}: {e}"));
        let past: Vec<_> = graph.dims.iter().filter(|dim| dim.sym.as_str() == "past").collect();
        let ranges: Vec<_> = past.iter().map(|dim| DimRange { name: dim.sym.to_string(), min: 0, max: 64 }).collect();
        let graph = crate::with_ranges(graph, &ranges).unwrap();
        let case = Case::read(&std::fs::read(folder.join("case.safetensors")).unwrap()).unwrap();
        let interpreted = interp::run(&graph, &case.inputs).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_close(&format!("{name}, interpreted"), &interpreted, &case.outputs);
        let Some((_dir, model)) = compiled(&graph, 0) else { return };
        assert_close(name, &run(&model, &case.inputs), &case.outputs);
    }
}

#[test]
fn an_index_outside_its_table_is_an_error() {
    let source = "graph rows
        dim batch = 1..4
        input %ids : i64[batch, 4]
        input %kinds : i8[]
        weight %table : f32[4, 2]
        weight %names : f32[9, 2]
        state %calls : i64[]
        %one = full {value=1} : i64[]
        %more = add %calls, %one : i64[]
        %y = take %table, %ids {axis=0} : f32[batch, 4, 2]
        %kind = cast %kinds : i64[]
        %z = take %names, %kind {axis=0} : f32[2]
        output %y
        output %z
        output %calls
        next %calls = %more";
    let graph = graph(source);
    let Some((_dir, model)) = compiled(&graph, 0) else { return };
    let mut session = Session::new(&model, 2).unwrap();
    let mut run = |ids: &[i64], kind: i8| {
        let ids = Tensor::new(DType::I64, vec![2, 4], ids.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<_>>()).unwrap();
        let kind = Tensor::new(DType::I8, vec![], kind.to_le_bytes()).unwrap();
        session.run(&[ids.view(), kind.view()])
    };
    let interpreted = |ids: &[i64], kind: i8| {
        let kind = Array { dtype: DType::I8, shape: vec![], data: kind.to_le_bytes().to_vec() };
        interp::run(&graph, &[Array::from_i64(&[2, 4], ids), kind])
    };
    let ends = [0, 1, 2, 3, -1, -2, -3, -4];
    let wanted = interpreted(&ends, -9).unwrap();
    let first = run(&ends, -9).unwrap();
    assert_eq!((first[0].bytes(), first[1].bytes()), (&wanted[0].data[..], &wanted[1].data[..]));
    for (at, bad) in [(0, 4), (3, 99999), (5, -5), (7, i64::MIN)] {
        let mut ids = ends;
        ids[at] = bad;
        let error = run(&ids, 0).unwrap_err();
        assert_eq!(error.kind, RunErrorKind::Argument);
        let place = format!("element [{}, {}] is {bad}", at / 4, at % 4);
        assert_eq!(error.message, format!("input `ids`: {place}, outside -4..3, the table that it picks from"));
        let error = interpreted(&ids, 0).unwrap_err().to_string();
        assert_eq!(error, format!("node `y`: the index {bad} is outside an axis of size 4"));
    }
    let error = run(&ends, 9).unwrap_err();
    assert_eq!(error.message, "input `kinds`: element [] is 9, outside -9..8, the table that it picks from");
    // What failed has not counted.
    let calls = |outputs: &[Tensor]| i64::from_le_bytes(outputs[2].bytes().try_into().unwrap());
    assert_eq!(calls(&run(&ends, 8).unwrap()), calls(&first) + 1);
}
