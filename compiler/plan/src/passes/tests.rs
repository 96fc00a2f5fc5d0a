use aotfarm_protocol::DType;

use aotfarm_ir::interp::{self, Tensor};
use aotfarm_ir::{BinaryOp, Builder, Def, Expr, Graph, Op, TensorData, TensorType, UnaryOp, Window};

use super::{PASSES, PassError, decompose_attention, run, spell_out};

fn ops(graph: &Graph) -> Vec<&'static str> {
    graph.nodes.iter().map(|node| node.op.name()).collect()
}

/// Every prefix of the passes keeps what the graph computes; gives the graph after all of them.
fn check(graph: &Graph, inputs: &[Tensor]) -> Graph {
    let floats =
        |outputs: Vec<Tensor>| -> Vec<f32> { outputs.into_iter().flat_map(|t| TensorData::new(t.data).to_f32()).collect() };
    let want = floats(interp::run(graph, inputs).expect("the graph runs"));
    let mut last = graph.clone();
    for pass in PASSES {
        last = run(graph.clone(), Some(pass.name)).expect("the pass takes it");
        let got = floats(interp::run(&last, inputs).expect("the rewritten graph runs"));
        for (g, w) in got.iter().zip(&want) {
            assert!((g - w).abs() <= 1e-5 * w.abs().max(1.0), "{g} against {w} after {}", pass.name);
        }
        assert_eq!(got.len(), want.len());
    }
    last
}

/// A rewritten graph, which computes what the first one does.
fn check_same(graph: &Graph, rewritten: Graph, inputs: &[Tensor]) -> Graph {
    let floats = |graph| -> Vec<f32> {
        let outputs = interp::run(graph, inputs).expect("the graph runs");
        outputs.into_iter().flat_map(|t| TensorData::new(t.data).to_f32()).collect()
    };
    let (want, got) = (floats(graph), floats(&rewritten));
    assert!(got.iter().zip(&want).all(|(g, w)| (g - w).abs() <= 1e-5 * w.abs().max(1.0)), "{got:?} against {want:?}");
    rewritten
}

fn ramp(shape: &[usize]) -> Tensor {
    let count: usize = shape.iter().product();
    Tensor::from_f32(shape, &(0..count).map(|i| (i * 7 % 11) as f32 / 5.0 - 1.0).collect::<Vec<_>>())
}

fn constant(b: &mut Builder, name: &str, shape: &[i64], f: impl Fn(usize) -> f32) -> aotfarm_ir::ValueId {
    let values: Vec<f32> = (0..shape.iter().product::<i64>() as usize).map(f).collect();
    b.weight(name, TensorType::new(DType::F32, shape.iter().copied()), TensorData::from_f32(&values)).expect("a weight")
}

fn batch_norm(b: &mut Builder, x: aotfarm_ir::ValueId, channels: i64) -> aotfarm_ir::ValueId {
    let parts = [
        constant(b, "scale", &[channels], |i| 0.5 + i as f32),
        constant(b, "shift", &[channels], |i| i as f32 - 1.0),
        constant(b, "mean", &[channels], |i| 0.25 * i as f32),
        constant(b, "variance", &[channels], |i| 1.0 + 0.5 * i as f32),
    ];
    b.push(Op::BatchNorm { eps: 1e-3 }, &[&[x][..], &parts].concat(), "bn").expect("a node")
}

#[test]
fn batch_norms_fold_into_convolutions_that_nobody_else_reads() {
    let mut b = Builder::new("bn");
    let x = b.input("x", TensorType::new(DType::F32, [1, 2, 4, 4])).expect("an input");
    let w = constant(&mut b, "w", &[3, 2, 3, 3], |i| (i % 5) as f32 - 2.0);
    let window = Window { kernel: [3; 2], stride: [1; 2], pad: [[1; 2]; 2], dilation: [1; 2] };
    let conv = Op::Conv { window, groups: 1 };
    let folded = b.push(conv.clone(), &[x, w], "conv_a").expect("a node");
    let folded = batch_norm(&mut b, folded, 3);
    let shared = b.push(conv, &[x, w], "conv_b").expect("a node");
    let normed = batch_norm(&mut b, shared, 3);
    for id in [folded, shared, normed] {
        b.output(id);
    }
    let graph = check(&b.finish().expect("a graph"), &[ramp(&[1, 2, 4, 4])]);
    let convolutions = graph.nodes.iter().filter(|node| matches!(node.op, Op::Conv { .. })).count();
    assert_eq!((convolutions, graph.nodes.len()), (2, 4), "{:?}", ops(&graph));
    assert!(graph.nodes.iter().all(|node| !matches!(node.op, Op::BatchNorm { .. })));
}

#[test]
fn constants_are_evaluated_and_views_that_do_nothing_disappear() {
    let mut b = Builder::new("constants");
    let batch = b.dim("batch", 1, 4, None).expect("a dimension");
    let x = b.input("x", TensorType::new(DType::F32, vec![batch.clone(), 6.into()])).expect("an input");
    let table = constant(&mut b, "table", &[8, 6], |i| i as f32);
    let ids = b.push(Op::Iota { length: 1.into(), start: 3, step: 1, dtype: DType::I64 }, &[], "ids").expect("a node");
    let row = b.push(Op::Take { axis: 0 }, &[table, ids], "row").expect("a node");
    let sum = b.push(Op::Binary(BinaryOp::Add), &[x, row], "sum").expect("a node");
    let shape: Vec<Expr> = vec![batch.clone(), 2.into(), 3.into()];
    let split = b.push(Op::Reshape { shape }, &[sum], "split").expect("a node");
    let turned = b.push(Op::Permute { axes: vec![0, 2, 1] }, &[split], "turned").expect("a node");
    let back = b.push(Op::Permute { axes: vec![0, 2, 1] }, &[turned], "back").expect("a node");
    let merged = b.push(Op::Reshape { shape: vec![batch.clone(), 6.into()] }, &[back], "merged").expect("a node");
    let zero = b
        .push(Op::Full { value: 0.0.into(), shape: vec![batch.clone(), 6.into()], dtype: DType::F32 }, &[], "zero")
        .expect("a node");
    let none = b.push(Op::Unary(UnaryOp::Sin), &[zero], "none").expect("a node");
    let same = b.push(Op::Binary(BinaryOp::Add), &[none, merged], "same").expect("a node");
    b.output(same);
    let graph = check(&b.finish().expect("a graph"), &[ramp(&[3, 6])]);
    assert_eq!(graph.nodes.len(), 1, "{:?}", ops(&graph));
    assert!(matches!(graph.nodes[0].op, Op::Binary(BinaryOp::Add)));
}

#[test]
fn activations_are_recognised_in_every_spelling() {
    let mut b = Builder::new("activations");
    let x = b.input("x", TensorType::new(DType::F32, [2, 9])).expect("an input");
    let node = |b: &mut Builder, op: Op, inputs: &[aotfarm_ir::ValueId]| b.push(op, inputs, "node").expect("a node");
    let scalar = |b: &mut Builder, value: f64| node(b, Op::Full { value: value.into(), shape: vec![], dtype: DType::F32 }, &[]);
    let [add, mul, div] = [BinaryOp::Add, BinaryOp::Mul, BinaryOp::Div].map(Op::Binary);
    let [three, six, sixth, half, one, root] =
        [3.0, 6.0, 1.0 / 6.0, 0.5, 1.0, std::f64::consts::SQRT_2].map(|value| scalar(&mut b, value));
    let shifted = node(&mut b, add.clone(), &[three, x]);
    let relu6 = node(&mut b, Op::Unary(UnaryOp::Clamp { low: 0.0, high: 6.0 }), &[shifted]);
    let hardsigmoid = node(&mut b, div.clone(), &[relu6, six]);
    let hardswish_a = node(&mut b, mul.clone(), &[x, hardsigmoid]);
    let product = node(&mut b, mul.clone(), &[relu6, x]);
    let hardswish_b = node(&mut b, mul.clone(), &[product, sixth]);
    let sigmoid = node(&mut b, Op::Unary(UnaryOp::Sigmoid), &[x]);
    let silu = node(&mut b, mul.clone(), &[sigmoid, x]);
    let inner = node(&mut b, div, &[x, root]);
    let inner = node(&mut b, Op::Unary(UnaryOp::Erf), &[inner]);
    let inner = node(&mut b, add, &[one, inner]);
    let halved = node(&mut b, mul.clone(), &[x, half]);
    let gelu = node(&mut b, mul, &[inner, halved]);
    for id in [hardsigmoid, hardswish_a, hardswish_b, silu, gelu] {
        b.output(id);
    }
    let graph = check(&b.finish().expect("a graph"), &[ramp(&[2, 9])]);
    let found: Vec<String> = graph
        .outputs
        .iter()
        .map(|id| match graph.value(*id).def {
            Def::Node(n) => match &graph.nodes[n].op {
                Op::Unary(op) if graph.nodes[n].inputs == graph.inputs => op.name().to_owned(),
                op => format!("{op:?}"),
            },
            _ => String::new(),
        })
        .collect();
    assert_eq!(found, ["hardsigmoid", "hardswish", "hardswish", "silu", "gelu"]);
    assert_eq!(graph.nodes.len(), 5);
}

#[test]
fn attention_is_decomposed_with_causality_and_masks() {
    let mut b = Builder::new("attention");
    let batch = b.dim("batch", 1, 4, None).expect("a dimension");
    let shape = |last: i64| TensorType::new(DType::F32, vec![batch.clone(), 5.into(), last.into()]);
    let ids = [("q", 4), ("k", 4), ("v", 3), ("mask", 5)].map(|(name, last)| b.input(name, shape(last)).expect("an input"));
    let y = b.push(Op::Attention { scale: 0.5, causal: true }, &ids, "attention").expect("a node");
    b.output(y);
    let inputs = [4, 4, 3, 5].map(|last| ramp(&[2, 5, last]));
    let graph = check(&b.finish().expect("a graph"), &inputs);
    let attends = |graph: &Graph| graph.nodes.iter().any(|node| matches!(node.op, Op::Attention { .. }));
    let kept = decompose_attention(graph.clone(), |_, _| true).expect("nothing to do");
    assert!(attends(&graph) && attends(&kept), "the passes leave it to the plan");
    let graph = check_same(&graph, decompose_attention(graph.clone(), |_, _| false).expect("it decomposes"), &inputs);
    assert!(!attends(&graph));
}

#[test]
fn a_convolution_can_be_spelled_out_where_a_target_has_no_kernel_for_it() {
    let mut b = Builder::new("any_size");
    let [h, w] = ["h", "w"].map(|name| b.dim(name, 3, 9, None).expect("a dimension"));
    let x = b.input("x", TensorType::new(DType::F32, [2.into(), 4.into(), h, w])).expect("an input");
    let weight = constant(&mut b, "weight", &[6, 2, 3, 2], |i| (i % 5) as f32 - 2.0);
    let bias = constant(&mut b, "bias", &[6], |i| i as f32);
    let window = Window { kernel: [3, 2], stride: [2, 1], pad: [[1, 0], [0, 2]], dilation: [1, 2] };
    let y = b.push(Op::Conv { window, groups: 2 }, &[x, weight, bias], "conv").expect("a node");
    b.output(y);
    let inputs = [ramp(&[2, 4, 5, 7])];
    let graph = check(&b.finish().expect("a graph"), &inputs);
    let convolves = |graph: &Graph| graph.nodes.iter().any(|node| matches!(node.op, Op::Conv { .. }));
    assert!(convolves(&graph), "the passes leave it to the plan");
    let spelled =
        check_same(&graph, spell_out(graph.clone(), |_, node| matches!(node.op, Op::Conv { .. })).expect("it goes"), &inputs);
    assert!(!convolves(&spelled));
}

#[test]
fn padding_before_a_convolution_becomes_its_own() {
    let mut b = Builder::new("pad");
    let x = b.input("x", TensorType::new(DType::F32, [1, 2, 4, 4])).expect("an input");
    let pads = vec![[0, 0], [0, 0], [0, 1], [1, 2]];
    let padded = b.push(Op::Pad { pads, value: 0.0.into() }, &[x], "pad").expect("a node");
    let w = constant(&mut b, "w", &[3, 2, 3, 3], |i| (i % 5) as f32 - 2.0);
    let window = Window { kernel: [3; 2], stride: [2; 2], pad: [[0; 2]; 2], dilation: [1; 2] };
    let y = b.push(Op::Conv { window, groups: 1 }, &[padded, w], "conv").expect("a node");
    b.output(y);
    let graph = check(&b.finish().expect("a graph"), &[ramp(&[1, 2, 4, 4])]);
    assert_eq!(graph.nodes.len(), 1);
    assert!(matches!(graph.nodes[0].op, Op::Conv { window, .. } if window.pad == [[0, 1], [1, 2]]));
}

#[test]
fn an_unknown_pass_is_refused_with_the_known_ones() {
    let error = run(Graph::default(), Some("fuse_all")).expect_err("no such pass");
    assert!(matches!(error, PassError::Unknown { .. }));
    assert_eq!(
        error.to_string(),
        "there is no pass `fuse_all`; the passes are widen, canonicalise, fold_constants, recognise, fold_batch_norm, separate, spell_out, dead_code"
    );
}
