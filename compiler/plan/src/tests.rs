//! Whole graphs: what the plan computes, on the oracle of the kernel tests, is what the interpreter computes.

use std::path::Path;

use aotfarm_protocol::{CpuIsa, DType, Precision, Segment, Target};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::passes;
use crate::spec::{EpilogueStep, KernelKind, Layout};
use aotfarm_ir::interp::{self, Tensor};
use aotfarm_ir::{BinaryOp, Builder, Expr, Graph, Op, PoolOp, ReduceOp, TensorData, TensorType, UnaryOp, ValueId, Window};

use super::verify::verify;
use super::{Place, Plan, PlanError, VerifyError, eval, lower};

const V3: Target = Target::Cpu(CpuIsa::X86_64V3);
const V4: Target = Target::Cpu(CpuIsa::X86_64V4);

/// A graph under construction with seeded random weights.
struct Model {
    b: Builder,
    rng: ChaCha8Rng,
    batch: Expr,
}

impl Model {
    fn new(name: &str) -> Self {
        let mut b = Builder::new(name);
        let batch = b.dim("batch", 1, 32, Some(8)).expect("a fresh dimension");
        Self { b, rng: ChaCha8Rng::seed_from_u64(7), batch }
    }

    fn input(&mut self, name: &str, rest: &[i64]) -> ValueId {
        let shape: Vec<Expr> = [self.batch.clone()].into_iter().chain(rest.iter().map(|n| Expr::from(*n))).collect();
        self.b.input(name, TensorType::new(DType::F32, shape)).expect("an input")
    }

    fn weight(&mut self, name: &str, shape: &[i64], low: f32, high: f32) -> ValueId {
        let count = shape.iter().product::<i64>() as usize;
        let values: Vec<f32> = (0..count).map(|_| self.rng.random_range(low..high)).collect();
        self.b.weight(name, TensorType::new(DType::F32, shape.iter().copied()), TensorData::from_f32(&values)).expect("a weight")
    }

    fn op(&mut self, op: Op, inputs: &[ValueId]) -> ValueId {
        let source = format!("{}_{}", op.name(), self.b.graph().nodes.len());
        self.b.push(op, inputs, &source).expect("a valid node")
    }

    fn conv_grouped(&mut self, x: ValueId, out: i64, k: i64, stride: i64, pad: i64, groups: i64) -> ValueId {
        let channels = self.b.shape(x)[1].as_const().expect("channels");
        let w = self.weight("w", &[out, channels / groups, k, k], -0.5, 0.5);
        let window = Window { kernel: [k; 2], stride: [stride; 2], pad: [[pad; 2]; 2], dilation: [1; 2] };
        self.op(Op::Conv { window, groups }, &[x, w])
    }

    fn conv(&mut self, x: ValueId, out: i64, k: i64, stride: i64, pad: i64) -> ValueId {
        self.conv_grouped(x, out, k, stride, pad, 1)
    }

    fn batch_norm(&mut self, x: ValueId) -> ValueId {
        let c = self.b.shape(x)[1].as_const().expect("channels");
        let parts = [("scale", 0.5, 1.5), ("shift", -0.5, 0.5), ("mean", -0.5, 0.5), ("variance", 0.5, 1.5)];
        let parts = parts.map(|(name, low, high)| self.weight(name, &[c], low, high));
        self.op(Op::BatchNorm { eps: 1e-5 }, &[&[x][..], &parts].concat())
    }

    fn linear(&mut self, x: ValueId, out: i64) -> ValueId {
        let k = self.b.shape(x).last().and_then(Expr::as_const).expect("features");
        let (w, bias) = (self.weight("w", &[out, k], -0.5, 0.5), self.weight("bias", &[out], -0.5, 0.5));
        self.op(Op::Linear, &[x, w, bias])
    }

    fn unary(&mut self, op: UnaryOp, x: ValueId) -> ValueId {
        self.op(Op::Unary(op), &[x])
    }

    fn binary(&mut self, op: BinaryOp, a: ValueId, b: ValueId) -> ValueId {
        self.op(Op::Binary(op), &[a, b])
    }

    fn finish(mut self, outputs: &[ValueId]) -> Graph {
        for id in outputs {
            self.b.output(*id);
        }
        self.b.finish().expect("a valid graph")
    }
}

fn inputs(graph: &Graph, batch: i64, seed: u64) -> Vec<Tensor> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let bindings = [("batch", batch), ("size", 2 * batch + 4)].into_iter().collect();
    let tensor = |id: &ValueId, rng: &mut ChaCha8Rng| {
        let ty = graph.ty(*id);
        let shape: Vec<usize> = ty.shape.iter().map(|d| d.eval(&bindings).expect("a size") as usize).collect();
        let count: usize = shape.iter().product();
        match ty.dtype {
            DType::I64 => Tensor::from_i64(&shape, &(0..count).map(|_| rng.random_range(0..10)).collect::<Vec<_>>()),
            _ => Tensor::from_f32(&shape, &(0..count).map(|_| rng.random_range(-2.0..2.0)).collect::<Vec<_>>()),
        }
    };
    graph.inputs.iter().map(|id| tensor(id, &mut rng)).collect()
}

fn floats(tensor: &Tensor) -> Vec<f64> {
    crate::oracle::Tensor::from_bytes(tensor.dtype, &tensor.data).values
}

pub(super) fn assert_close(got: &[Tensor], want: &[Tensor], context: &str) {
    assert_eq!(got.len(), want.len());
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert_eq!((got.dtype, &got.shape), (want.dtype, &want.shape));
        let (got, want) = (floats(got), floats(want));
        let square = |v: f64| if v.is_finite() { v * v } else { 0.0 };
        let mut error = 0.0;
        for (g, w) in got.iter().zip(&want) {
            assert_eq!(g.is_nan(), w.is_nan(), "output {i}: {g} against {w}\n{context}");
            assert!(w.is_finite() || w.is_nan() || g == w, "output {i}: {g} against {w}\n{context}");
            error += square(g - w);
        }
        let norm: f64 = want.iter().map(|w| square(*w)).sum();
        assert!(
            error.sqrt() <= 1e-5 * norm.sqrt().max(1e-6),
            "output {i} is off by {} of {}\n{context}",
            error.sqrt(),
            norm.sqrt()
        );
    }
}

fn plan_of(graph: &Graph, target: Target) -> Plan {
    let folded = passes::run(graph.clone(), None).expect("the passes take it");
    lower(folded, target, Precision::Fp32).expect("it lowers")
}

/// The plan with every step that can be in a segment in one of one or two images, of up to four steps.
fn in_segments(plan: &Plan) -> Plan {
    let mut segments: Vec<Segment> = Vec::new();
    for (s, image_wise) in plan.image_wise().into_iter().enumerate() {
        match segments.last_mut() {
            _ if !image_wise => {}
            Some(last) if last.steps.end == s && last.steps.len() < 4 => last.steps.end = s + 1,
            _ => segments.push(Segment { steps: s..s + 1, images: 1 + (s as i64 / 4) % 2 }),
        }
    }
    plan.clone().in_segments(segments).expect("image-wise steps can be in segments")
}

/// The plan computes what the graph does, for several batches and both vector widths, and so it does in segments. A graph with states is run
/// several times, each time from what the run before left.
fn check(graph: &Graph) -> Plan {
    let plans = [V3, V4].map(|target| plan_of(graph, target));
    let plans = [&plans[0], &plans[1], &in_segments(&plans[0])].map(Plan::clone);
    for batch in [1, 3] {
        let mut states = interp::initial(graph);
        for call in 0..if states.is_empty() { 1 } else { 3 } {
            let inputs = inputs(graph, batch, 11 + call);
            let want = interp::run_from(graph, &inputs, &states).expect("the interpreter takes it");
            for plan in &plans {
                let got = eval::run_from(plan, graph, &inputs, &states);
                assert_close(&got.outputs, &want.outputs, &plan.print());
                assert_close(&got.states, &want.states, &plan.print());
                assert_close(&got.writes, &want.writes, &plan.print());
            }
            states = want.states;
        }
    }
    let [plan, ..] = plans;
    plan
}

fn kinds(plan: &Plan) -> String {
    let name = |kind: &KernelKind| match kind {
        KernelKind::Conv(_) => "conv",
        KernelKind::MatMul(_) => "matmul",
        KernelKind::Attention(_) => "attention",
        KernelKind::Pool(_) => "pool",
        KernelKind::Rows(_) => "rows",
        KernelKind::Loops(nest) if nest.reduction.is_some() => "reduce",
        KernelKind::Loops(_) => "loops",
    };
    plan.steps.iter().map(|step| name(&plan.specs[step.spec].kind)).collect::<Vec<_>>().join(" ")
}

fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/plan").join(name);
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, text).expect("the golden file is writable");
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, expected, "{} differs; BLESS=1 rewrites it", path.display());
}

fn resnet_block() -> Graph {
    let mut m = Model::new("resnet_block");
    let x = m.input("x", &[3, 18, 18]);
    let stem = m.conv(x, 16, 7, 2, 3);
    let stem = m.batch_norm(stem);
    let stem = m.unary(UnaryOp::Relu, stem);
    let window = Window { kernel: [3; 2], stride: [2; 2], pad: [[1; 2]; 2], dilation: [1; 2] };
    let pooled = m.op(Op::Pool { op: PoolOp::Max, window }, &[stem]);
    // An identity block, then one that halves the image.
    let a = m.conv(pooled, 16, 3, 1, 1);
    let a = m.batch_norm(a);
    let a = m.unary(UnaryOp::Relu, a);
    let a = m.conv(a, 16, 3, 1, 1);
    let a = m.batch_norm(a);
    let a = m.binary(BinaryOp::Add, a, pooled);
    let a = m.unary(UnaryOp::Relu, a);
    let b = m.conv(a, 24, 3, 2, 1);
    let b = m.batch_norm(b);
    let b = m.unary(UnaryOp::Relu, b);
    let b = m.conv(b, 24, 3, 1, 1);
    let b = m.batch_norm(b);
    let short = m.conv(a, 24, 1, 2, 0);
    let short = m.batch_norm(short);
    let b = m.binary(BinaryOp::Add, b, short);
    let b = m.unary(UnaryOp::Relu, b);
    let mean = m.op(Op::AdaptiveAvgPool { output: [1, 1] }, &[b]);
    let flat = m.op(Op::Reshape { shape: vec![m.batch.clone(), 24.into()] }, &[mean]);
    let y = m.linear(flat, 10);
    m.finish(&[y])
}

fn attention_block() -> Graph {
    let mut m = Model::new("attention_block");
    let (seq, heads, width) = (6, 2, 8);
    let x = m.input("x", &[seq, heads * width]);
    let mask = m.input("mask", &[1, 1, seq]);
    let split = vec![m.batch.clone(), seq.into(), heads.into(), width.into()];
    let project = |m: &mut Model| {
        let y = m.linear(x, heads * width);
        let y = m.op(Op::Reshape { shape: split.clone() }, &[y]);
        m.op(Op::Permute { axes: vec![0, 2, 1, 3] }, &[y])
    };
    let (q, k, v) = (project(&mut m), project(&mut m), project(&mut m));
    let y = m.op(Op::Attention { scale: 0.125, causal: false }, &[q, k, v, mask]);
    let y = m.op(Op::Permute { axes: vec![0, 2, 1, 3] }, &[y]);
    let y = m.op(Op::Reshape { shape: vec![m.batch.clone(), seq.into(), (heads * width).into()] }, &[y]);
    let y = m.linear(y, heads * width);
    let y = m.binary(BinaryOp::Add, y, x);
    let (scale, shift) = (m.weight("scale", &[16], 0.5, 1.5), m.weight("shift", &[16], -0.5, 0.5));
    let y = m.op(Op::LayerNorm { axes: 1, eps: 1e-12 }, &[y, scale, shift]);
    let z = m.linear(y, 32);
    let z = m.unary(UnaryOp::Gelu, z);
    let z = m.linear(z, 16);
    let y = m.binary(BinaryOp::Add, z, y);
    m.finish(&[y])
}

#[test]
fn a_residual_network_becomes_one_kernel_per_convolution() {
    let plan = check(&resnet_block());
    assert_eq!(kinds(&plan), "conv conv conv conv conv conv reduce matmul", "the stem has the pooling");
    golden("resnet_block.txt", &plan.print());
    let last = plan.steps.iter().rev().find_map(|step| match &plan.specs[step.spec].kind {
        KernelKind::Conv(conv) => Some(conv.epilogue.clone()),
        _ => None,
    });
    let expected = [EpilogueStep::Bias(1), EpilogueStep::Unary(UnaryOp::Relu)];
    assert!(last.is_some_and(|steps| steps.len() <= 3 && steps[0] == expected[0]));
}

#[test]
fn on_tensor_cores_a_shortcut_is_summed_by_the_convolution_that_it_is_added_to() {
    let graph = resnet_block();
    let [exact, tf32] = [Precision::Fp32, Precision::Tf32].map(|precision| {
        let folded = passes::run(graph.clone(), None).expect("the passes take it");
        lower(folded, Target::Cuda { sm: 90 }, precision).expect("it lowers")
    });
    assert_eq!(kinds(&exact), "conv conv conv conv conv conv reduce matmul");
    assert_eq!(kinds(&tf32), "conv conv conv conv conv reduce matmul");
    let inputs = inputs(&graph, 2, 11);
    let want = floats(&interp::run(&graph, &inputs).expect("the interpreter takes it")[0]);
    let got = floats(&eval::run(&tf32, &graph, &inputs)[0]);
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    // Weights are rounded to 10 bits.
    let error = norm(&mut got.iter().zip(&want).map(|(g, w)| g - w)) / norm(&mut want.iter().copied());
    assert!(error < 1e-3, "off by {error}\n{}", tf32.print());
}

#[test]
fn attention_becomes_products_and_rows_with_copies_for_the_heads_only() {
    let plan = check(&attention_block());
    golden("attention_block.txt", &plan.print());
    assert_eq!(
        kinds(&plan),
        "matmul matmul matmul loops loops loops matmul loops rows matmul reduce loops matmul rows matmul matmul"
    );
}

/// The plan for tensor cores, whose tasks the oracle computes in full; weights are rounded to 10 bits.
fn check_on_tensor_cores(graph: &Graph) -> Plan {
    let folded = passes::run(graph.clone(), None).expect("the passes take it");
    let plan = lower(folded, Target::Cuda { sm: 90 }, Precision::Tf32).expect("it lowers");
    for batch in [1, 3] {
        let inputs = inputs(graph, batch, 11);
        let want = interp::run(graph, &inputs).expect("the interpreter takes it");
        for (got, want) in eval::run(&plan, graph, &inputs).iter().zip(&want) {
            let (got, want) = (floats(got), floats(want));
            let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
            let error = norm(&mut got.iter().zip(&want).map(|(g, w)| g - w)) / norm(&mut want.iter().copied());
            assert!(error < 2e-3, "off by {error}\n{}", plan.print());
        }
    }
    plan
}

#[test]
fn on_tensor_cores_attention_is_one_kernel_that_reads_heads_where_they_lie() {
    let plan = check_on_tensor_cores(&attention_block());
    golden("attention_block_tf32.txt", &plan.print());
    assert_eq!(kinds(&plan), "matmul matmul matmul attention matmul rows matmul matmul");
    let exact = lower(passes::run(attention_block(), None).expect("passes"), Target::Cuda { sm: 90 }, Precision::Fp32)
        .expect("it lowers");
    assert!(!kinds(&exact).contains("attention"), "there are no tensor cores for f32 in full");
}

#[test]
fn heads_are_sliced_out_of_one_product_without_a_copy() {
    let mut m = Model::new("packed");
    let (heads, width) = (3, 8);
    let size = m.b.dim("size", 4, 16, None).expect("a fresh dimension");
    let batch = m.batch.clone();
    let tokens = TensorType::new(DType::F32, vec![batch.clone(), size.clone(), 12.into()]);
    let t = m.b.input("tokens", tokens).expect("an input");
    let all = m.linear(t, 3 * heads * width);
    // As in vision transformers: [batch, size, 3, heads, width] to three of [batch, heads, size, width].
    let shape = vec![batch.clone(), size.clone(), 3.into(), heads.into(), width.into()];
    let all = m.op(Op::Reshape { shape }, &[all]);
    let all = m.op(Op::Permute { axes: vec![2, 0, 3, 1, 4] }, &[all]);
    let part = |m: &mut Model, k: i64| {
        let one = m.op(Op::Slice { axis: 0, start: k.into(), end: (k + 1).into(), step: 1 }, &[all]);
        let shape = vec![batch.clone(), heads.into(), size.clone(), width.into()];
        m.op(Op::Reshape { shape }, &[one])
    };
    let (q, k, v) = (part(&mut m, 0), part(&mut m, 1), part(&mut m, 2));
    let y = m.op(Op::Attention { scale: 0.3, causal: true }, &[q, k, v]);
    // The heads stay before the rows, and a second attention reads those, with a constant bias of its scores for each head.
    let bias = m.weight("bias", &[heads, 1, 1], -1.0, 1.0);
    let z = m.op(Op::Attention { scale: 0.3, causal: false }, &[y, k, y, bias]);
    let z = m.op(Op::Permute { axes: vec![0, 2, 1, 3] }, &[z]);
    let z = m.op(Op::Reshape { shape: vec![batch.clone(), size.clone(), (heads * width).into()] }, &[z]);
    let z = m.linear(z, 5);
    let plan = check_on_tensor_cores(&m.finish(&[z]));
    assert_eq!(kinds(&plan), "matmul attention attention matmul", "{}", plan.print());
}

/// A depthwise convolution whose channels are weighed by what two products make of their means.
fn squeeze_and_excitation(m: &mut Model) -> ValueId {
    let x = m.input("x", &[3, 9, 9]);
    let x = m.conv(x, 16, 3, 2, 1);
    let x = m.unary(UnaryOp::Hardswish, x);
    let x = m.conv_grouped(x, 16, 3, 1, 1, 16);
    let x = m.unary(UnaryOp::Relu, x);
    let s = m.op(Op::AdaptiveAvgPool { output: [1, 1] }, &[x]);
    let s = m.conv(s, 8, 1, 1, 0);
    let s = m.unary(UnaryOp::Relu, s);
    let s = m.conv(s, 16, 1, 1, 0);
    let s = m.unary(UnaryOp::Hardsigmoid, s);
    m.binary(BinaryOp::Mul, s, x)
}

#[test]
fn squeeze_and_excitation_is_two_products_between_a_mean_and_a_gate() {
    let mut m = Model::new("se");
    let y = squeeze_and_excitation(&mut m);
    let y = m.conv(y, 12, 1, 1, 0);
    let plan = check(&m.finish(&[y]));
    assert_eq!(kinds(&plan), "conv conv matmul matmul conv loops");
    let text = plan.print();
    assert!(text.contains("conv 3x3 groups 16 16x5x5 -> 16x5x5 +relu +mean"), "{text}");
    assert!(text.contains("out1: f32[d0, 16]") && text.contains("mean to out1"), "{text}");
    assert!(text.contains("conv 1x1 16x5x5 gated -> 12x5x5"), "{text}");
}

/// A depthwise convolution and what else reads its result.
fn reductions_of(channels: i64, groups: i64, reductions: &[(ReduceOp, &[usize], bool)]) -> Graph {
    let mut m = Model::new("means");
    let x = m.input("x", &[channels, 6, 7]);
    let x = m.conv_grouped(x, channels, 3, 1, 1, groups);
    let x = m.unary(UnaryOp::Silu, x);
    let mut outputs: Vec<_> = reductions
        .iter()
        .map(|(op, axes, keepdim)| m.op(Op::Reduce { op: *op, axes: axes.to_vec(), keepdim: *keepdim }, &[x]))
        .collect();
    outputs.push(m.unary(UnaryOp::Exp, x));
    m.finish(&outputs)
}

#[test]
fn a_depthwise_convolution_gives_the_mean_of_what_it_stores_and_no_other_reduction() {
    let mean = |axes: &'static [usize], keepdim| (ReduceOp::Mean, axes, keepdim);
    for keepdim in [false, true] {
        let plan = check(&reductions_of(10, 10, &[mean(&[2, 3], keepdim)]));
        assert_eq!(kinds(&plan), "loops conv loops", "{}", plan.print());
        assert!(matches!(plan.buffers[plan.steps[1].outputs[1].0 as usize].place, Place::Output(0)), "{}", plan.print());
    }
    // One of two: the kernel has one such output.
    assert_eq!(kinds(&check(&reductions_of(10, 10, &[mean(&[2, 3], true), mean(&[2, 3], false)]))), "loops conv reduce loops");
    let others = [
        (10, 10, (ReduceOp::Max, &[2, 3][..], true)),
        (10, 10, mean(&[3], false)),
        (10, 10, mean(&[1, 2], false)),
        (10, 10, mean(&[1, 2, 3], false)),
        (10, 1, mean(&[2, 3], false)),
        (16, 2, mean(&[2, 3], false)),
        // Too few channels for the kernel.
        (3, 3, mean(&[2, 3], false)),
    ];
    for (channels, groups, reduction) in others {
        let plan = check(&reductions_of(channels, groups, &[reduction]));
        assert!(kinds(&plan).contains("conv reduce"), "{}", plan.print());
    }
    let folded = passes::run(reductions_of(16, 16, &[mean(&[2, 3], true)]), None).expect("the passes take it");
    let on_gpu = lower(folded, Target::Cuda { sm: 90 }, Precision::Fp32).expect("it lowers");
    assert!(kinds(&on_gpu).contains("conv reduce"), "{}", on_gpu.print());
}

#[test]
fn a_gated_image_that_others_read_too_is_stored() {
    let mut m = Model::new("two");
    let y = squeeze_and_excitation(&mut m);
    let (z, w) = (m.conv(y, 12, 1, 1, 0), m.conv(y, 12, 3, 1, 1));
    let plan = check(&m.finish(&[z, w]));
    assert_eq!(kinds(&plan), "conv conv matmul matmul loops conv conv loops loops");
}

#[test]
fn images_of_odd_channels_grouped_convolutions_and_concatenations() {
    let mut m = Model::new("odd");
    let x = m.input("x", &[10, 7, 5]);
    let a = m.conv(x, 20, 3, 1, 1);
    let a = m.unary(UnaryOp::Sigmoid, a);
    let b = m.conv_grouped(a, 30, 3, 1, 1, 10);
    let window = Window { kernel: [2; 2], stride: [2; 2], pad: [[0; 2]; 2], dilation: [1; 2] };
    let c = m.op(Op::Pool { op: PoolOp::Avg { count_include_pad: true }, window }, &[b]);
    let d = m.op(Op::Slice { axis: 2, start: 0.into(), end: 3.into(), step: 1 }, &[a]);
    let d = m.op(Op::Slice { axis: 3, start: 1.into(), end: 5.into(), step: 2 }, &[d]);
    let y = m.op(Op::Concat { axis: 1 }, &[c, d, c]);
    let y = m.conv(y, 5, 3, 2, 1);
    // Both a convolution and a product read the same sum.
    let y2 = m.binary(BinaryOp::Add, y, y);
    let z = m.conv(y2, 4, 1, 1, 0);
    let w = m.linear(y2, 3);
    check(&m.finish(&[z, w, y2]));
}

#[test]
fn uneven_pooling_softmax_of_channels_and_gathers() {
    let mut m = Model::new("mixed");
    let x = m.input("x", &[4, 5, 7]);
    let pooled = m.op(Op::AdaptiveAvgPool { output: [3, 4] }, &[x]);
    let soft = m.op(Op::Softmax { axis: 1 }, &[pooled]);
    let ids = m.b.input("ids", TensorType::new(DType::I64, vec![m.batch.clone(), 3.into()])).expect("an input");
    let table = m.weight("table", &[10, 6], -1.0, 1.0);
    let rows = m.op(Op::Take { axis: 0 }, &[table, ids]);
    let offsets = m.op(Op::Iota { length: 3.into(), start: 1, step: 1, dtype: DType::I64 }, &[]);
    let places = m.op(Op::Take { axis: 0 }, &[table, offsets]);
    let sum = m.binary(BinaryOp::Add, rows, places);
    let padded = m.op(Op::Pad { pads: vec![[0, 0], [1, 2], [0, -1]], value: (-1.5).into() }, &[sum]);
    let most = m.op(Op::Reduce { op: ReduceOp::Max, axes: vec![1], keepdim: false }, &[padded]);
    let most = m.unary(UnaryOp::Exp, most);
    check(&m.finish(&[soft, padded, most]));
}

#[test]
fn outputs_that_are_inputs_weights_views_or_equal_are_copied() {
    let mut m = Model::new("outputs");
    let x = m.input("x", &[4, 6]);
    let w = m.weight("w", &[2, 3], -1.0, 1.0);
    let flat = m.op(Op::Reshape { shape: vec![m.batch.clone(), 24.into()] }, &[x]);
    let y = m.unary(UnaryOp::Relu, flat);
    let turned = m.op(Op::Permute { axes: vec![1, 0] }, &[y]);
    let plan = check(&m.finish(&[x, w, flat, y, y, turned]));
    let mut places: Vec<Place> = plan.buffers.iter().map(|b| b.place).filter(|p| matches!(p, Place::Output(_))).collect();
    places.dedup();
    assert_eq!(places.len(), 6);
}

/// A state of four numbers in two rows.
fn state(m: &mut Model, name: &str) -> ValueId {
    let values: Vec<f32> = (0..8).map(|i| i as f32 / 4.0).collect();
    m.b.state(name, TensorType::new(DType::F32, [2, 4]), TensorData::from_f32(&values)).expect("a state")
}

#[test]
fn states_advance_and_inputs_are_written() {
    let mut m = Model::new("states");
    let (x, image) = (m.input("x", &[2, 4]), m.input("image", &[3, 5, 5]));
    let (total, filter) = (state(&mut m, "total"), state(&mut m, "filter"));
    let sum = m.op(Op::Reduce { op: ReduceOp::Sum, axes: vec![0], keepdim: false }, &[x]);
    let next = m.binary(BinaryOp::Add, total, sum);
    let y = m.binary(BinaryOp::Mul, x, next);
    // A convolution that reads what a run before has left, and writes into the image that it reads.
    let shape = vec![1.into(), 1.into(), 2.into(), 4.into()];
    let field = m.op(Op::Reshape { shape }, &[filter]);
    let field = m.conv(field, 3, 3, 1, 1);
    let mean = m.op(Op::Reduce { op: ReduceOp::Mean, axes: vec![0, 1], keepdim: false }, &[field]);
    let convolved = m.conv(image, 3, 3, 1, 1);
    let brighter = m.binary(BinaryOp::Add, image, convolved);
    m.b.next(total, next);
    m.b.next(filter, mean);
    m.b.write_back(image, brighter);
    let graph = m.finish(&[y]);
    let plan = check(&graph);
    // What outlives a run is as exact as the model says, whatever activations are stored in.
    let folded = passes::run(graph, None).expect("the passes take it");
    let narrow = lower(folded, Target::Cuda { sm: 90 }, Precision::Bf16).expect("it lowers");
    for buffer in &narrow.buffers {
        let dtype = if let Place::Slot(_) = buffer.place { DType::Bf16 } else { DType::F32 };
        assert_eq!(buffer.dtype, dtype, "{}", buffer.place);
    }
    assert_eq!((plan.states.len(), &plan.writes), (2, &vec![1]));
    assert_eq!(plan.inputs.iter().map(|port| port.written).collect::<Vec<_>>(), [false, true]);
    assert_eq!(plan.inputs.len() + plan.outputs.len(), 3, "states are no ports of the caller's");
    assert_eq!(plan.weights[plan.states[0].initial.0 as usize].shape, [2, 4]);
    let text = plan.print();
    assert!(text.contains("state 0: total f32[2, 4]") && text.contains("write 0: into input 1"), "{text}");
    assert!(text.contains("of state 1\n") && text.contains("of next 1\n") && text.contains("of write 0\n"), "{text}");
    // Whoever touches what outlives a run sees the whole batch.
    let makes_state = |place: Place| matches!(place, Place::Next(_));
    for (step, image_wise) in plan.steps.iter().zip(plan.image_wise()) {
        let states = step.outputs.iter().any(|b| makes_state(plan.buffers[b.0 as usize].place));
        assert!(!(states && image_wise), "{}", step.label);
    }
    let unwritten = {
        let mut plan = plan.clone();
        plan.steps.retain(|step| step.outputs.iter().all(|b| !makes_state(plan.buffers[b.0 as usize].place)));
        verify(&plan, &plan.graph_dims()).expect_err("nothing writes the states")
    };
    assert!(matches!(unwritten, VerifyError::NoResult(Place::Next(0)) | VerifyError::Unwritten { .. }), "{unwritten}");
}

#[test]
fn what_states_become_may_be_anything() {
    let mut m = Model::new("ends");
    let x = m.b.input("x", TensorType::new(DType::F32, [2, 4])).expect("an input");
    let y = m.b.input("y", TensorType::new(DType::F32, [4, 2])).expect("an input");
    let w = m.weight("w", &[2, 4], -1.0, 1.0);
    let [same, input, constant, output, left, right, view, twice] =
        ["same", "input", "constant", "output", "left", "right", "view", "twice"].map(|name| state(&mut m, name));
    let sum = [input, constant, output, left, view].iter().fold(twice, |sum, id| m.binary(BinaryOp::Add, sum, *id));
    let difference = m.binary(BinaryOp::Sub, left, right);
    let turned = m.op(Op::Reshape { shape: vec![4.into(), 2.into()] }, &[sum]);
    let back = m.op(Op::Reshape { shape: vec![2.into(), 4.into()] }, &[y]);
    for (state, next) in
        [(input, x), (constant, w), (output, sum), (left, right), (right, left), (view, back), (twice, difference)]
    {
        m.b.next(state, next);
    }
    m.b.write_back(x, same);
    m.b.write_back(y, turned);
    check(&m.finish(&[sum, same, difference, left, turned]));
}

#[test]
fn sizes_other_than_the_batch_may_be_symbolic() {
    let mut m = Model::new("symbolic");
    let size = m.b.dim("size", 4, 16, None).expect("a fresh dimension");
    let batch = m.batch.clone();
    let image = TensorType::new(DType::F32, vec![batch.clone(), 8.into(), size.clone(), size.clone()]);
    let x = m.b.input("image", image).expect("an input");
    let y = m.conv(x, 8, 3, 2, 1);
    let y = m.unary(UnaryOp::Silu, y);
    let window = Window { kernel: [2; 2], stride: [2; 2], pad: [[0; 2]; 2], dilation: [1; 2] };
    let y = m.op(Op::Pool { op: PoolOp::Max, window }, &[y]);
    let y = m.op(Op::AdaptiveAvgPool { output: [1, 1] }, &[y]);
    let tokens = TensorType::new(DType::F32, vec![batch.clone(), size.clone(), 12.into()]);
    let t = m.b.input("tokens", tokens).expect("an input");
    let heads = m.op(Op::Reshape { shape: vec![batch.clone(), size.clone(), 3.into(), 4.into()] }, &[t]);
    let heads = m.op(Op::Permute { axes: vec![0, 2, 1, 3] }, &[heads]);
    let z = m.op(Op::Attention { scale: 0.5, causal: true }, &[heads, heads, heads]);
    let z = m.op(Op::Permute { axes: vec![0, 2, 1, 3] }, &[z]);
    let z = m.op(Op::Reshape { shape: vec![batch, size, 12.into()] }, &[z]);
    let z = m.linear(z, 5);
    let plan = check(&m.finish(&[y, z]));
    assert_eq!(kinds(&plan), "conv pool reduce loops loops loops matmul loops rows matmul loops matmul");
}

#[test]
fn an_all_true_mask_vanishes() {
    let mut m = Model::new("mask");
    let x = m.input("x", &[4, 8]);
    let shape = vec![m.batch.clone(), 4.into(), 4.into()];
    let ones = m.op(Op::Full { value: 1.0.into(), shape: shape.clone(), dtype: DType::Bool }, &[]);
    let y = m.op(Op::Attention { scale: 1.0, causal: false }, &[x, x, x, ones]);
    assert_eq!(kinds(&check(&m.finish(&[y]))), "matmul rows matmul");
}

#[test]
fn decomposed_activations_ride_on_the_product() {
    let mut m = Model::new("decomposed");
    let x = m.input("x", &[8]);
    let h = m.linear(x, 8);
    let scalar = |m: &mut Model, value: f64| m.op(Op::Full { value: value.into(), shape: vec![], dtype: DType::F32 }, &[]);
    let (root, one, half) = (scalar(&mut m, std::f64::consts::SQRT_2), scalar(&mut m, 1.0), scalar(&mut m, 0.5));
    let inner = m.binary(BinaryOp::Div, h, root);
    let inner = m.unary(UnaryOp::Erf, inner);
    let inner = m.binary(BinaryOp::Add, inner, one);
    let gelu = m.binary(BinaryOp::Mul, h, inner);
    let gelu = m.binary(BinaryOp::Mul, gelu, half);
    let h = m.linear(gelu, 8);
    let gate = m.unary(UnaryOp::Sigmoid, h);
    let silu = m.binary(BinaryOp::Mul, h, gate);
    assert_eq!(kinds(&check(&m.finish(&[silu]))), "matmul matmul");
}

#[test]
fn halos_are_shared_by_residuals_and_slots_by_geometry() {
    let plan = plan_of(&resnet_block(), V3);
    for step in &plan.steps {
        let spec = &plan.specs[step.spec];
        if let KernelKind::Conv(conv) = &spec.kind {
            for fused in &conv.epilogue {
                if let EpilogueStep::Residual(_, k) = fused {
                    assert_eq!(spec.inputs[*k].layout, spec.outputs[0].layout, "{}", step.label);
                }
            }
        }
        for tensor in spec.inputs.iter().chain(&spec.outputs) {
            assert!(!matches!(tensor.layout, Layout::Image { block, .. } if block != 8));
        }
    }
}

#[test]
fn the_verifier_finds_broken_plans() {
    let graph = resnet_block();
    let plan = plan_of(&graph, V3);
    assert_eq!(verify(&plan, &graph.dims), Ok(()));
    let broken = |change: &dyn Fn(&mut Plan)| {
        let mut plan = plan.clone();
        change(&mut plan);
        verify(&plan, &graph.dims).expect_err("the change breaks it")
    };
    // What the stem gives and what is made of it are alive together.
    let shared = broken(&|plan| {
        let slot = plan.buffers[plan.steps[0].outputs[0].0 as usize].place;
        let made = plan.steps[1].outputs[0].0 as usize;
        plan.buffers[made].place = slot;
    });
    assert!(matches!(shared, VerifyError::Shared { slot: 0, .. }), "{shared}");
    let unwritten = broken(&|plan| plan.steps.swap(0, 1));
    assert!(matches!(unwritten, VerifyError::Unwritten { .. }), "{unwritten}");
    let overwritten = broken(&|plan| plan.steps[2].outputs = plan.steps[1].outputs.clone());
    assert!(matches!(overwritten, VerifyError::Overwritten { .. }), "{overwritten}");
    let operands = broken(&|plan| _ = plan.steps[0].weights.pop());
    assert!(matches!(operands, VerifyError::Operands { what: "weights", got: 1, expected: 2, .. }), "{operands}");
    let length = broken(&|plan| plan.steps[0].dims[0] = &plan.steps[0].dims[0] + 1);
    assert!(matches!(length, VerifyError::Length { operand: 0, .. }), "{length}");
    let small = broken(&|plan| plan.slots[0].bytes = vec![Expr::from(64)]);
    assert!(matches!(small, VerifyError::Place { .. }), "{small}");
    let missing = broken(&|plan| _ = plan.steps.pop());
    assert_eq!(missing, VerifyError::NoResult(Place::Output(0)));
}

#[test]
fn steps_that_mix_images_are_done_for_the_whole_batch() {
    let plan = plan_of(&resnet_block(), V3);
    assert!(plan.image_wise().into_iter().all(|image_wise| image_wise), "{}", plan.print());
    assert!(plan_of(&attention_block(), V3).image_wise().into_iter().all(|image_wise| image_wise));

    let mut m = Model::new("mixed");
    let x = m.input("x", &[3, 4]);
    let total = m.op(Op::Reduce { op: ReduceOp::Sum, axes: vec![0], keepdim: true }, &[x]);
    let centred = m.binary(BinaryOp::Sub, x, total);
    let turned = m.op(Op::Permute { axes: vec![1, 0, 2] }, &[centred]);
    let all = m.op(Op::Softmax { axis: 1 }, &[turned]);
    let back = m.op(Op::Permute { axes: vec![1, 0, 2] }, &[all]);
    let last = m.unary(UnaryOp::Tanh, x);
    let plan = check(&m.finish(&[back, last]));
    let alone: Vec<&str> =
        plan.steps.iter().zip(plan.image_wise()).filter(|(_, image_wise)| *image_wise).map(|(s, _)| s.label.as_str()).collect();
    assert_eq!(alone.len(), 1, "only the last is computed for each image from it alone: {alone:?}\n{}", plan.print());

    let refused = |segments: Vec<(std::ops::Range<usize>, i64)>| {
        let segments = segments.into_iter().map(|(steps, images)| Segment { steps, images }).collect();
        plan.clone().in_segments(segments).expect_err("such segments cannot be").to_string()
    };
    assert!(refused(vec![(0..2, 1)]).contains("needs all of the batch"));
    let last = plan.steps.len() - 1;
    assert!(refused(vec![(last..last + 1, 0)]).contains("the smallest batch is 1"));
    assert!(refused(vec![(last..last + 2, 1)]).contains("there are no such steps"));
}

#[test]
fn what_lies_between_segments_keeps_its_slot() {
    let mut m = Model::new("chain");
    let mut x = m.input("x", &[8, 6, 6]);
    for _ in 0..6 {
        x = m.conv(x, 8, 3, 1, 1);
    }
    let graph = m.finish(&[x]);
    let plan = plan_of(&graph, V3);
    let segments: Vec<Segment> = [(0..4, 1), (4..8, 2)].map(|(steps, images)| Segment { steps, images }).to_vec();
    // In a chain inputs and outputs take turns in two slots: the next part of an early step would overwrite what the last one wrote.
    let mut careless = plan.clone();
    careless.segments.clone_from(&segments);
    assert!(matches!(verify(&careless, &graph.dims), Err(VerifyError::Shared { .. })));

    let cut = plan.in_segments(segments).expect("all steps are image-wise");
    let (parted, written) = (cut.parted(), cut.steps.iter().map(|step| step.outputs[0].0 as usize));
    let parted: Vec<bool> = written.map(|b| parted[b].is_some()).collect();
    assert_eq!(
        parted,
        [false, false, false, true, false, false, false, true],
        "the other segment reads one, the caller the last"
    );
}

#[test]
fn points_are_spread_over_the_range_unless_given() {
    let plan = plan_of(&resnet_block(), V3);
    let sizes = |points: Vec<aotfarm_ir::Bindings>| points.iter().filter_map(|p| p.get("batch")).collect::<Vec<_>>();
    assert_eq!(sizes(plan.tune_points(&[])), [1, 8, 32]);
    let hinted = |range: [i64; 2], hint: Option<i64>| {
        let mut plan = plan.clone();
        (plan.dims[0].min, plan.dims[0].max, plan.hints[0]) = (range[0], range[1], hint);
        sizes(plan.tune_points(&[]))
    };
    assert_eq!(hinted([1, 32], Some(2)), [1, 8, 32], "2 is no wish but what torch needs");
    assert_eq!(hinted([1, 32], None), [1, 8, 32]);
    assert_eq!(hinted([1, 32], Some(4)), [1, 4, 32]);
    assert_eq!(hinted([1, 1024], Some(7)), [1, 7, 32, 128, 1024]);
    assert_eq!(hinted([0, 16], None), [1, 16], "an empty tensor takes no time");
    assert_eq!(hinted([5, 5], None), [5]);
    assert_eq!(sizes(plan.tune_points(&[4, 100, 4])), [4, 32]);
}

#[test]
fn windows_that_change_with_the_image_are_refused_with_a_remedy() {
    let mut m = Model::new("adaptive");
    let side = m.b.dim("side", 16, 64, Some(32)).expect("a fresh dimension");
    let shape = vec![m.batch.clone(), 3.into(), side.clone(), side];
    let x = m.b.input("x", TensorType::new(DType::F32, shape)).expect("an input");
    let y = m.op(Op::AdaptiveAvgPool { output: [7, 7] }, &[x]);
    let graph = passes::run(m.finish(&[y]), None).expect("passes");
    let error = lower(graph, V3, Precision::Fp32).expect_err("windows of no size").to_string();
    let remedy = "its windows change with the size of the image; export the model with a fixed height and width";
    assert_eq!(error, format!("cannot lower `adaptive_avg_pool` of node `adaptive_avg_pool_0`: {remedy}"));
}

#[test]
fn what_no_kernel_computes_is_named_with_its_node() {
    let mut m = Model::new("bad");
    let (x, w) = (m.input("x", &[4, 8, 8]), m.input("w", &[4, 3, 3]));
    let w = m.op(Op::Slice { axis: 0, start: 0.into(), end: 1.into(), step: 1 }, &[w]);
    let window = Window { kernel: [3; 2], stride: [1; 2], pad: [[0; 2]; 2], dilation: [1; 2] };
    let y = m.op(Op::Conv { window, groups: 1 }, &[x, w]);
    let graph = m.finish(&[y]);
    let error = lower(passes::run(graph.clone(), None).expect("passes"), V3, Precision::Fp32).expect_err("a computed weight");
    assert_eq!(error.to_string(), "cannot lower `conv` of node `conv_1`: its weight `slice_0` must be a constant");
    let error = lower(graph, V3, Precision::Bf16).expect_err("no bf16 kernels");
    assert!(matches!(error, PlanError::Precision { .. }));
    let mut graph = passes::run(resnet_block(), None).expect("passes");
    graph.dims[0].min = 0;
    assert!(lower(graph.clone(), V3, Precision::Fp32).is_ok());
    let error = lower(graph, Target::Cuda { sm: 90 }, Precision::Fp32).expect_err("nothing to launch").to_string();
    assert!(error.starts_with("dimension `batch` may be 0, which artifacts for cuda-sm_90 do not run"), "{error}");
}

/// One random step on a value of rank 3.
#[derive(Debug, Clone)]
enum Piece {
    Unary(usize),
    Binary(usize, usize),
    Permute(usize),
    Merge,
    Slice(usize),
    Pad(usize),
    Concat(usize, usize),
    Reduce(usize),
    Softmax,
    Linear,
    Product(usize),
}

fn piece() -> impl Strategy<Value = Piece> {
    prop_oneof![
        (0..4usize).prop_map(Piece::Unary),
        (0..3usize, 0..8usize).prop_map(|(op, other)| Piece::Binary(op, other)),
        (0..5usize).prop_map(Piece::Permute),
        Just(Piece::Merge),
        (0..2usize).prop_map(Piece::Slice),
        (0..2usize).prop_map(Piece::Pad),
        (0..3usize, 0..8usize).prop_map(|(axis, other)| Piece::Concat(axis, other)),
        (0..3usize).prop_map(Piece::Reduce),
        Just(Piece::Softmax),
        Just(Piece::Linear),
        (0..8usize).prop_map(Piece::Product),
    ]
}

/// Applies the pieces, each to the latest value; what does not fit its shape is left out.
fn random_graph(pieces: &[Piece], extra_output: usize) -> Graph {
    let mut m = Model::new("random");
    let mut values = vec![m.input("x", &[3, 4]), m.input("y", &[1, 4])];
    for piece in pieces {
        let x = values[values.len() - 1];
        let other = |k: usize| values[k % values.len()];
        let shape = m.b.shape(x).to_vec();
        let attempt = |m: &mut Model, op: Op, inputs: &[ValueId]| m.b.push(op, inputs, "piece").ok();
        let next = match piece {
            Piece::Unary(k) => {
                let op = [UnaryOp::Tanh, UnaryOp::Neg, UnaryOp::Sigmoid, UnaryOp::Abs][*k];
                attempt(&mut m, Op::Unary(op), &[x])
            }
            Piece::Binary(op, k) => {
                let op = [BinaryOp::Add, BinaryOp::Mul, BinaryOp::Max][*op];
                attempt(&mut m, Op::Binary(op), &[x, other(*k)])
            }
            Piece::Permute(k) => {
                let axes = [[0, 2, 1], [1, 0, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]][*k].to_vec();
                attempt(&mut m, Op::Permute { axes }, &[x])
            }
            Piece::Merge => {
                let merged = vec![shape[0].clone(), Expr::one(), &shape[1] * &shape[2]];
                attempt(&mut m, Op::Reshape { shape: merged }, &[x])
            }
            Piece::Slice(axis) => {
                let end = shape[axis + 1].clone();
                attempt(&mut m, Op::Slice { axis: axis + 1, start: 1.into(), end, step: 2 }, &[x])
            }
            Piece::Pad(axis) => {
                let mut pads = vec![[0, 0]; 3];
                pads[axis + 1] = [1, 1];
                attempt(&mut m, Op::Pad { pads, value: 0.5.into() }, &[x])
            }
            Piece::Concat(axis, k) => attempt(&mut m, Op::Concat { axis: *axis }, &[x, other(*k)]),
            Piece::Reduce(axis) => attempt(&mut m, Op::Reduce { op: ReduceOp::Sum, axes: vec![*axis], keepdim: true }, &[x]),
            Piece::Softmax => attempt(&mut m, Op::Softmax { axis: 1 }, &[x]),
            Piece::Linear => match shape[2].as_const() {
                Some(k) if k > 0 => {
                    let w = m.weight("w", &[4, k], -0.5, 0.5);
                    attempt(&mut m, Op::Linear, &[x, w])
                }
                _ => None,
            },
            Piece::Product(k) => {
                let turned = attempt(&mut m, Op::Permute { axes: vec![0, 2, 1] }, &[other(*k)]);
                turned.and_then(|turned| attempt(&mut m, Op::MatMul, &[x, turned]))
            }
        };
        if let Some(next) = next.filter(|id| is_small(&m, *id)) {
            values.push(next);
        }
    }
    let outputs = [values[values.len() - 1], values[extra_output % values.len()]];
    m.finish(&outputs)
}

/// The oracle is slow, and kernels are never called for empty tensors.
fn is_small(m: &Model, id: ValueId) -> bool {
    [1, 3].iter().all(|batch| {
        let bindings = [("batch", *batch)].into_iter().collect();
        m.b.ty(id).elements().eval(&bindings).is_ok_and(|n| n > 0 && n < 2000)
    })
}

/// One random step on an image.
#[derive(Debug, Clone)]
enum ImagePiece {
    Conv { out: i64, kernel: i64, stride: i64, pad: i64, groups: i64 },
    Depthwise { kernel: i64, stride: i64 },
    Pool { max: bool, pad: i64 },
    Norm,
    Unary(usize),
    Residual(usize),
    Gate,
    Concat(usize),
    Crop,
}

fn image_piece() -> impl Strategy<Value = ImagePiece> {
    let conv = (1..3i64, 0..2i64, 1..3i64, 0..3i64, 0..2i64).prop_map(|(eights, odd, stride, k, wide)| {
        let kernel = [1, 3, 5][k as usize];
        let groups = if wide == 1 && odd == 0 { 2 } else { 1 };
        ImagePiece::Conv { out: 8 * eights - 2 * odd, kernel, stride, pad: kernel / 2, groups }
    });
    prop_oneof![
        4 => conv,
        1 => (0..2i64, 1..3i64).prop_map(|(k, stride)| ImagePiece::Depthwise { kernel: 3 + 2 * k, stride }),
        1 => (any::<bool>(), 0..2i64).prop_map(|(max, pad)| ImagePiece::Pool { max, pad }),
        1 => Just(ImagePiece::Norm),
        2 => (0..4usize).prop_map(ImagePiece::Unary),
        3 => (0..8usize).prop_map(ImagePiece::Residual),
        1 => Just(ImagePiece::Gate),
        1 => (0..8usize).prop_map(ImagePiece::Concat),
        1 => Just(ImagePiece::Crop),
    ]
}

fn random_network(channels: i64, pieces: &[ImagePiece], extra_output: usize) -> Graph {
    let mut m = Model::new("network");
    let mut values = vec![m.input("x", &[channels, 7, 6])];
    for piece in pieces {
        let x = values[values.len() - 1];
        let c = m.b.shape(x)[1].as_const().expect("channels");
        let alike = |m: &Model, k: usize| {
            let same: Vec<ValueId> = values.iter().copied().filter(|v| m.b.shape(*v) == m.b.shape(x)).collect();
            same[k % same.len()]
        };
        let fits = |m: &Model, k: i64| m.b.shape(x)[2..].iter().all(|n| n.as_const().is_some_and(|n| n >= k));
        let next = match *piece {
            ImagePiece::Conv { out, kernel, stride, pad, groups } if c % groups == 0 && out % groups == 0 => {
                m.conv_grouped(x, out, kernel, stride, pad, groups)
            }
            ImagePiece::Depthwise { kernel, stride } => m.conv_grouped(x, c, kernel, stride, kernel / 2, c),
            ImagePiece::Pool { max, pad } if fits(&m, 3) => {
                let op = if max { PoolOp::Max } else { PoolOp::Avg { count_include_pad: pad == 1 } };
                let window = Window { kernel: [3; 2], stride: [2; 2], pad: [[pad; 2]; 2], dilation: [1; 2] };
                m.op(Op::Pool { op, window }, &[x])
            }
            ImagePiece::Norm => m.batch_norm(x),
            ImagePiece::Unary(k) => {
                m.unary([UnaryOp::Relu, UnaryOp::Sigmoid, UnaryOp::Hardswish, UnaryOp::Clamp { low: 0.0, high: 6.0 }][k], x)
            }
            ImagePiece::Residual(k) => {
                let other = alike(&m, k);
                m.binary(BinaryOp::Add, x, other)
            }
            ImagePiece::Gate => {
                let s = m.op(Op::AdaptiveAvgPool { output: [1, 1] }, &[x]);
                let s = m.conv(s, c, 1, 1, 0);
                let s = m.unary(UnaryOp::Hardsigmoid, s);
                m.binary(BinaryOp::Mul, x, s)
            }
            ImagePiece::Concat(k) => {
                let other = alike(&m, k);
                m.op(Op::Concat { axis: 1 }, &[x, other])
            }
            ImagePiece::Crop if fits(&m, 3) => {
                let pads = vec![[0, 0], [0, 0], [-1, 0], [1, -2]];
                m.op(Op::Pad { pads, value: 0.0.into() }, &[x])
            }
            _ => continue,
        };
        if is_small(&m, next) {
            values.push(next);
        }
    }
    let last = values[values.len() - 1];
    let flat: Expr = m.b.shape(last)[1..].iter().product();
    let flat = m.op(Op::Reshape { shape: vec![m.batch.clone(), flat] }, &[last]);
    let y = m.linear(flat, 3);
    let extra = values[extra_output % values.len()];
    m.finish(&[y, extra])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn plans_of_random_graphs_compute_what_the_graphs_do(
        pieces in proptest::collection::vec(piece(), 1..14),
        extra_output in 0..14usize,
    ) {
        check(&random_graph(&pieces, extra_output));
    }

    #[test]
    fn plans_of_random_networks_compute_what_the_graphs_do(
        channels in prop_oneof![Just(3i64), Just(8), Just(12), Just(16)],
        pieces in proptest::collection::vec(image_piece(), 1..10),
        extra_output in 0..10usize,
    ) {
        check(&random_network(channels, &pieces, extra_output));
    }
}
