//! Shape rules.

use aotfarm_protocol::DType;

use super::*;

fn ty(text: &str) -> TensorType {
    let (dtype, shape) = text.trim_end_matches(']').split_once('[').unwrap();
    let sizes = shape.split(", ").filter(|s| !s.is_empty()).map(|s| s.parse::<Expr>().unwrap());
    TensorType::new(dtype.parse::<DType>().unwrap(), sizes)
}

fn result(op: &Op, inputs: &[&str]) -> Result<String, String> {
    let inputs: Vec<TensorType> = inputs.iter().map(|t| ty(t)).collect();
    infer(op, &inputs.iter().collect::<Vec<_>>()).map(|t| t.to_string()).map_err(|e| e.to_string())
}

#[track_caller]
#[expect(clippy::needless_pass_by_value, reason = "the calls read better")]
fn gives(op: Op, inputs: &[&str], wanted: &str) {
    assert_eq!(result(&op, inputs), Ok(wanted.to_owned()), "{op:?}");
}

#[track_caller]
#[expect(clippy::needless_pass_by_value, reason = "the calls read better")]
fn fails(op: Op, inputs: &[&str], part: &str) {
    let message = result(&op, inputs).expect_err("the rule accepted it");
    assert!(message.contains(part) && message.starts_with(op.name()), "expected `{part}` in `{message}`");
}

fn window(kernel: i64, stride: i64, pad: i64) -> Window {
    Window { kernel: [kernel; 2], stride: [stride; 2], pad: [[pad; 2]; 2], dilation: [1, 1] }
}

fn exprs(sizes: &[&str]) -> Vec<Expr> {
    sizes.iter().map(|s| s.parse().unwrap()).collect()
}

#[test]
fn element_wise() {
    gives(Op::Unary(UnaryOp::Relu), &["f32[n, 2]"], "f32[n, 2]");
    gives(Op::Binary(BinaryOp::Add), &["f32[n, 1, 4]", "f32[3, 1]"], "f32[n, 3, 4]");
    gives(Op::Binary(BinaryOp::Lt), &["i64[n]", "i64[]"], "bool[n]");
    gives(Op::Where, &["bool[n, 1]", "f32[]", "f32[n, 4]"], "f32[n, 4]");
    gives(Op::Cast(DType::F16), &["i64[2]"], "f16[2]");
    fails(Op::Binary(BinaryOp::Add), &["f32[n]", "f32[m]"], "[n] and [m] do not broadcast: n against m");
    fails(Op::Binary(BinaryOp::Add), &["f32[2]", "i64[2]"], "not f32 and i64; cast first");
    fails(Op::Unary(UnaryOp::Exp), &["i64[2]"], "not defined for i64");
    fails(Op::Unary(UnaryOp::Not), &["f32[2]"], "not defined for f32");
    fails(Op::Where, &["f32[2]", "f32[2]", "f32[2]"], "must be bool");
    fails(Op::Where, &["bool[2]", "f32[2]"], "expected 3 operands, got 2");
}

#[test]
fn convolution_and_pooling() {
    let conv = |w, groups| Op::Conv { window: w, groups };
    gives(conv(window(7, 2, 3), 1), &["f32[batch, 3, 224, 224]", "f32[64, 3, 7, 7]", "f32[64]"], "f32[batch, 64, 112, 112]");
    gives(conv(window(3, 2, 1), 8), &["f32[1, 8, h, 5]", "f32[16, 1, 3, 3]"], "f32[1, 16, (h + 1)//2, 3]");
    gives(Op::Pool { op: PoolOp::Max, window: window(3, 2, 1) }, &["f32[n, 4, 7, 7]"], "f32[n, 4, 4, 4]");
    gives(Op::AdaptiveAvgPool { output: [1, 1] }, &["f32[n, 4, h, w]"], "f32[n, 4, 1, 1]");
    gives(Op::BatchNorm { eps: 0.1 }, &["f32[n, 4, 7]", "f32[4]", "f32[4]", "f32[4]", "f32[4]"], "f32[n, 4, 7]");
    fails(conv(window(3, 1, 1), 1), &["f32[1, 4, 8, 8]", "f32[16, 3, 3, 3]"], "x has 4 channels, but the weight expects 3");
    fails(conv(window(3, 1, 1), 1), &["f32[1, 3, 8, 8]", "f32[16, 3, 5, 5]"], "a window of [3, 3] for a weight of [5, 5]");
    fails(conv(window(3, 0, 1), 1), &["f32[1, 3, 8, 8]", "f32[16, 3, 3, 3]"], "stride");
    fails(conv(window(3, 1, 1), 3), &["f32[1, 3, 8, 8]", "f32[16, 1, 3, 3]"], "16 output channels do not divide into 3 groups");
    fails(conv(window(3, 1, 1), 1), &["f32[3, 8, 8]", "f32[16, 3, 3, 3]"], "[N, C, H, W]");
    fails(Op::Pool { op: PoolOp::Max, window: window(2, 2, 2) }, &["f32[n, 4, 7, 7]"], "without any element");
    fails(Op::BatchNorm { eps: 0.1 }, &["f32[n, 4]", "f32[4]", "f32[3]", "f32[4]", "f32[4]"], "shift must have the shape [4]");
}

#[test]
fn products() {
    gives(Op::Linear, &["f32[n, 7, 8]", "f32[5, 8]", "f32[5]"], "f32[n, 7, 5]");
    gives(Op::MatMul, &["f32[n, 1, 4, 8]", "f32[6, 8, 3]"], "f32[n, 6, 4, 3]");
    let attention = Op::Attention { scale: 1.0, causal: false };
    gives(attention.clone(), &["f32[n, 2, l, 8]", "f32[n, 2, s, 8]", "f32[n, 2, s, 5]", "bool[n, 1, 1, s]"], "f32[n, 2, l, 5]");
    fails(Op::Linear, &["f32[n, 7]", "f32[5, 8]"], "x has 7 features, but the weight expects 8");
    fails(Op::MatMul, &["f32[4, 8]", "f32[7, 3]"], "a has 8 columns, but b has 7 rows");
    fails(Op::MatMul, &["f32[8]", "f32[8, 3]"], "a must have at least 2 dimensions");
    fails(attention, &["f32[2, 4, 8]", "f32[2, 4, 8]", "f32[2, 4, 5]", "f32[3, 4, 4]"], "does not broadcast");
}

#[test]
fn normalisation_and_reduction() {
    gives(Op::Softmax { axis: 1 }, &["f32[n, 4]"], "f32[n, 4]");
    gives(Op::LayerNorm { axes: 2, eps: 0.1 }, &["f32[n, 4, 5]", "f32[4, 5]", "f32[4, 5]"], "f32[n, 4, 5]");
    let mean = |axes: &[usize], keepdim| Op::Reduce { op: ReduceOp::Mean, axes: axes.to_vec(), keepdim };
    gives(mean(&[1, 2], true), &["f32[n, 4, 5]"], "f32[n, 1, 1]");
    gives(mean(&[1, 2], false), &["f32[n, 4, 5]"], "f32[n]");
    fails(Op::Softmax { axis: 2 }, &["f32[n, 4]"], "axis 2 of a tensor with 2 dimensions");
    fails(Op::LayerNorm { axes: 1, eps: 0.1 }, &["f32[n, 4]", "f32[4]"], "come together");
    fails(mean(&[2, 1], true), &["f32[n, 4, 5]"], "not sorted");
    fails(mean(&[1, 1], true), &["f32[n, 4, 5]"], "an axis twice");
    fails(mean(&[0], true), &["i64[n]"], "not defined for i64");
}

#[test]
fn views() {
    let reshape = |s: &[&str]| Op::Reshape { shape: exprs(s) };
    gives(reshape(&["n", "64"]), &["f32[n, 16, 2, 2]"], "f32[n, 64]");
    gives(reshape(&["2*n", "3"]), &["f32[n, 6]"], "f32[2*n, 3]");
    gives(Op::Permute { axes: vec![2, 0, 1] }, &["f32[n, 4, 5]"], "f32[5, n, 4]");
    gives(Op::Expand { shape: exprs(&["2", "n", "4"]) }, &["f32[n, 1]"], "f32[2, n, 4]");
    let slice =
        |start: &str, end: &str, step| Op::Slice { axis: 1, start: start.parse().unwrap(), end: end.parse().unwrap(), step };
    gives(slice("1", "n", 2), &["f32[3, n]"], "f32[3, n//2]");
    gives(Op::Concat { axis: 1 }, &["f32[2, n]", "f32[2, 3]"], "f32[2, n + 3]");
    gives(Op::Pad { pads: vec![[1, -2], [0, 3]], value: 0.0.into() }, &["f32[n, 4]"], "f32[n - 1, 7]");
    gives(Op::Take { axis: 0 }, &["f32[1000, 64]", "i64[n, 32]"], "f32[n, 32, 64]");
    gives(Op::GatherElements { axis: 1 }, &["f32[2, 9]", "i64[2, 3]"], "f32[2, 3]");
    gives(Op::Iota { length: exprs(&["n"])[0].clone(), start: 0, step: 1, dtype: DType::I64 }, &[], "i64[n]");
    fails(reshape(&["n", "63"]), &["f32[n, 64]"], "cannot reshape 64*n elements to [n, 63] (63*n elements)");
    fails(Op::Permute { axes: vec![0, 0] }, &["f32[n, 4]"], "an axis twice");
    fails(Op::Permute { axes: vec![0] }, &["f32[n, 4]"], "not a permutation");
    fails(Op::Expand { shape: exprs(&["n", "4"]) }, &["f32[n, 3]"], "cannot expand to [n, 4]");
    fails(slice("3", "1", 1), &["f32[3, n]"], "ends before it starts");
    fails(Op::Concat { axis: 1 }, &["f32[2, n]", "f32[3, 3]"], "equal but for axis 1");
    fails(Op::Take { axis: 0 }, &["f32[4]", "f32[2]"], "indices must be i32 or i64");
    fails(Op::Full { value: 0.0.into(), shape: exprs(&["1"; 17]), dtype: DType::F32 }, &[], "17 dimensions");
}
