//! Small models, made here so that the tests need no files.

use aotfarm_compiler::import::graph;
use aotfarm_compiler::interp::{self, Case, Tensor};
use aotfarm_compiler::ir::{
    BinaryOp, Builder, Expr, Graph, Op, PoolOp, ReduceOp, TensorData, TensorType, UnaryOp, ValueId, Window,
};
use aotfarm_protocol::DType;

/// Values between -1 and 1 that depend on the seed alone.
pub(crate) fn noise(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

struct Net {
    builder: Builder,
    seed: u64,
}

impl Net {
    fn weight(&mut self, name: &str, shape: &[i64], map: impl Fn(f32) -> f32) -> ValueId {
        self.seed += 1;
        let values: Vec<f32> = noise(self.seed, shape.iter().product::<i64>() as usize).into_iter().map(map).collect();
        let ty = TensorType::new(DType::F32, shape.iter().copied());
        self.builder.weight(name, ty, TensorData::from_f32(&values)).expect("a weight")
    }

    fn push(&mut self, op: Op, inputs: &[ValueId], source: &str) -> ValueId {
        self.builder.push(op, inputs, source).expect("a node that obeys the shape rules")
    }

    /// A 3x3 convolution, a batch norm and, if asked for, a ReLU.
    fn block(&mut self, name: &str, x: ValueId, [from, to]: [i64; 2], relu: bool) -> ValueId {
        let window = Window { kernel: [3, 3], stride: [1, 1], pad: [[1, 1]; 2], dilation: [1, 1] };
        let weight = self.weight(&format!("{name}.weight"), &[to, from, 3, 3], |v| 0.3 * v);
        let y = self.push(Op::Conv { window, groups: 1 }, &[x, weight], &format!("{name}: conv2d"));
        let norm = [("scale", 0.5, 1.0), ("shift", 0.1, 0.0), ("mean", 0.1, 0.0), ("variance", 0.5, 1.0)]
            .map(|(what, factor, base)| self.weight(&format!("{name}.{what}"), &[to], move |v| base + factor * v));
        let y =
            self.push(Op::BatchNorm { eps: 1e-5 }, &[y, norm[0], norm[1], norm[2], norm[3]], &format!("{name}_bn: batch_norm"));
        if relu { self.push(Op::Unary(UnaryOp::Relu), &[y], &format!("{name}_relu: relu")) } else { y }
    }
}

/// `x [batch 1..8, 3, 16, 16]` through a convolution, a pooling, a residual block and a classifier. Graphs of different seeds
/// differ in their weights alone.
pub(crate) fn tiny_graph(seed: u64) -> Graph {
    let mut net = Net { builder: Builder::new("tiny"), seed: seed << 32 };
    let batch = net.builder.dim("batch", 1, 8, Some(4)).expect("a range");
    let shape = [batch.clone(), 3.into(), 16.into(), 16.into()];
    let x = net.builder.input("x", TensorType::new(DType::F32, shape)).expect("an input");
    let x = net.block("stem", x, [3, 16], true);
    let window = Window { kernel: [2, 2], stride: [2, 2], pad: [[0, 0]; 2], dilation: [1, 1] };
    let x = net.push(Op::Pool { op: PoolOp::Max, window }, &[x], "pool: max_pool2d");
    let y = net.block("body", x, [16, 16], false);
    let y = net.push(Op::Binary(BinaryOp::Add), &[x, y], "sum: add");
    let y = net.push(Op::Unary(UnaryOp::Relu), &[y], "sum_relu: relu");
    let y = net.push(Op::AdaptiveAvgPool { output: [1, 1] }, &[y], "mean: adaptive_avg_pool2d");
    let y = net.push(Op::Reshape { shape: vec![batch, Expr::from(16)] }, &[y], "flat: flatten");
    let weight = net.weight("fc.weight", &[10, 16], |v| 0.3 * v);
    let bias = net.weight("fc.bias", &[10], |v| v);
    let y = net.push(Op::Linear, &[y, weight, bias], "fc: linear");
    net.builder.output(y);
    net.builder.finish().expect("a valid graph")
}

/// The `.graph` file of the tiny model.
pub(crate) fn tiny(seed: u64) -> Vec<u8> {
    graph::write(&tiny_graph(seed))
}

/// A `.graph` file with more than a megabyte of weights that do not compress.
pub(crate) fn heavy() -> Vec<u8> {
    let mut net = Net { builder: Builder::new("heavy"), seed: 5 };
    let x = net.builder.input("x", TensorType::new(DType::F32, [1, 640])).expect("an input");
    let weight = net.weight("weight", &[640, 640], |v| v);
    let y = net.push(Op::Linear, &[x, weight], "y: linear");
    net.builder.output(y);
    graph::write(&net.builder.finish().expect("a valid graph"))
}

/// A case for the tiny model: an input of this batch and what the interpreter makes of it.
pub(crate) fn case(seed: u64, batch: usize) -> Vec<u8> {
    let inputs = vec![Tensor::from_f32(&[batch, 3, 16, 16], &noise(99 + batch as u64, batch * 768))];
    let outputs = interp::run(&tiny_graph(seed), &inputs).expect("the interpreter runs it");
    Case { inputs, outputs, ..Case::default() }.write()
}

/// `x [batch 1..4, 4]`, which is added to a running total, multiplied by it and negated in place.
fn running_graph() -> Graph {
    let mut net = Net { builder: Builder::new("running"), seed: 7 };
    let batch = net.builder.dim("batch", 1, 4, None).expect("a range");
    let x = net.builder.input("x", TensorType::new(DType::F32, [batch, 4.into()])).expect("an input");
    let first = TensorData::from_f32(&[1.0, 2.0, 3.0, 4.0]);
    let total = net.builder.state("total", TensorType::new(DType::F32, [4]), first).expect("a state");
    let sum = net.push(Op::Reduce { op: ReduceOp::Sum, axes: vec![0], keepdim: false }, &[x], "sum: sum");
    let next = net.push(Op::Binary(BinaryOp::Add), &[total, sum], "next: add");
    let y = net.push(Op::Binary(BinaryOp::Mul), &[x, next], "y: mul");
    let negated = net.push(Op::Unary(UnaryOp::Neg), &[x], "negated: neg");
    net.builder.output(y);
    net.builder.next(total, next);
    net.builder.write_back(x, negated);
    net.builder.finish().expect("a valid graph")
}

/// The `.graph` file of a model with a state, which also writes into its input.
pub(crate) fn running() -> Vec<u8> {
    graph::write(&running_graph())
}

/// An input of that model and what the `calls`-th call with it gives.
pub(crate) fn running_case(calls: usize) -> Vec<u8> {
    let graph = running_graph();
    let inputs = vec![Tensor::from_f32(&[3, 4], &noise(5, 12))];
    let mut left = interp::Results { outputs: vec![], states: interp::initial(&graph), writes: vec![] };
    for _ in 0..calls {
        left = interp::run_from(&graph, &inputs, &left.states).expect("the interpreter runs it");
    }
    Case { inputs, outputs: left.outputs, writes: left.writes }.write()
}

/// A safetensors file with one tensor `in.0`.
pub(crate) fn input(dtype: DType, shape: &[usize]) -> Vec<u8> {
    let data = vec![0; shape.iter().product::<usize>() * dtype.size()];
    Case { inputs: vec![Tensor { dtype, shape: shape.to_vec(), data }], ..Case::default() }.write()
}

/// An ONNX file: `x f32[1,4]` through these `(operator, node)` pairs, one after the other.
pub(crate) fn onnx(nodes: &[(&str, &str)]) -> Vec<u8> {
    let dim = |n: u64| bytes(1, &varint(1, n));
    let tensor_type = [varint(1, 1), bytes(2, &[dim(1), dim(4)].concat())].concat();
    let port = |name: &str| [bytes(1, name.as_bytes()), bytes(2, &bytes(1, &tensor_type))].concat();
    let value = |i: usize| format!("v{i}");
    let mut graph: Vec<u8> = nodes
        .iter()
        .enumerate()
        .flat_map(|(i, (op, name))| {
            let node = [(1, value(i)), (2, value(i + 1)), (3, (*name).to_owned()), (4, (*op).to_owned())];
            bytes(1, &node.iter().flat_map(|(field, text)| bytes(*field, text.as_bytes())).collect::<Vec<_>>())
        })
        .collect();
    graph.extend(bytes(2, b"handmade"));
    graph.extend(bytes(11, &port(&value(0))));
    graph.extend(bytes(12, &port(&value(nodes.len()))));
    [varint(1, 8), bytes(7, &graph), bytes(8, &varint(2, 17))].concat()
}

/// A protobuf field that holds a number.
fn varint(field: u64, value: u64) -> Vec<u8> {
    [leb128(field << 3), leb128(value)].concat()
}

/// A protobuf field that holds bytes.
fn bytes(field: u64, content: &[u8]) -> Vec<u8> {
    [leb128(field << 3 | 2), leb128(content.len() as u64), content.to_vec()].concat()
}

fn leb128(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}
