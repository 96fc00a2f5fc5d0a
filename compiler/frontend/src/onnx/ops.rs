//! The mapping of the standard ONNX operators (<https://onnx.ai/onnx/operators/>). A row is an operator.

use aotfarm_protocol::DType;

use super::Known;
use super::node::{NodeCall, NodeError, Result, known, one};
use super::proto::NodeProto;
use super::tensor;
use aotfarm_ir::{BinaryOp, Expr, Op, PoolOp, ReduceOp, TensorType, UnaryOp, ValueId, Window};

type Map = fn(&mut NodeCall) -> Result<Vec<Known>>;

/// `Conv`, or `com.microsoft.Gelu` for an operator of another domain.
pub(super) fn qualified(node: &NodeProto) -> String {
    if standard(node) { node.op_type.clone() } else { format!("{}.{}", node.domain, node.op_type) }
}

fn standard(node: &NodeProto) -> bool {
    node.domain.is_empty() || node.domain == "ai.onnx"
}

/// The row of a node's operator.
pub(super) fn find(node: &NodeProto) -> Option<Map> {
    ROWS.iter().find(|(name, _)| standard(node) && *name == node.op_type).map(|(_, map)| *map)
}

static ROWS: &[(&str, Map)] = &[
    ("Conv", conv),
    ("BatchNormalization", batch_norm),
    ("Gemm", gemm),
    ("MatMul", matmul),
    ("LayerNormalization", layer_norm),
    ("MaxPool", |c| pool(c, PoolOp::Max)),
    ("AveragePool", |c| {
        let count_include_pad = c.int("count_include_pad", 0) != 0;
        pool(c, PoolOp::Avg { count_include_pad })
    }),
    ("GlobalAveragePool", global_average_pool),
    ("Softmax", softmax),
    ("Relu", |c| unary(c, UnaryOp::Relu)),
    ("LeakyRelu", |c| {
        let slope = c.float("alpha", 0.01);
        unary(c, UnaryOp::LeakyRelu { slope })
    }),
    ("Elu", |c| {
        let alpha = c.float("alpha", 1.0);
        unary(c, UnaryOp::Elu { alpha })
    }),
    ("Sigmoid", |c| unary(c, UnaryOp::Sigmoid)),
    ("HardSigmoid", hard_sigmoid),
    ("HardSwish", |c| unary(c, UnaryOp::Hardswish)),
    ("Tanh", |c| unary(c, UnaryOp::Tanh)),
    ("Gelu", |c| if c.text("approximate") == "tanh" { unary(c, UnaryOp::GeluTanh) } else { unary(c, UnaryOp::Gelu) }),
    ("Erf", |c| unary(c, UnaryOp::Erf)),
    ("Exp", |c| unary(c, UnaryOp::Exp)),
    ("Log", |c| unary(c, UnaryOp::Log)),
    ("Sqrt", |c| unary(c, UnaryOp::Sqrt)),
    ("Reciprocal", |c| unary(c, UnaryOp::Reciprocal)),
    ("Sin", |c| unary(c, UnaryOp::Sin)),
    ("Cos", |c| unary(c, UnaryOp::Cos)),
    ("Abs", |c| unary(c, UnaryOp::Abs)),
    ("Neg", |c| unary(c, UnaryOp::Neg)),
    ("Floor", |c| unary(c, UnaryOp::Floor)),
    ("Ceil", |c| unary(c, UnaryOp::Ceil)),
    ("Round", |c| unary(c, UnaryOp::Round)),
    ("Not", |c| unary(c, UnaryOp::Not)),
    ("Clip", clip),
    ("IsNaN", is_nan),
    ("Add", |c| arithmetic(c, BinaryOp::Add, |a, b| Some(a + b))),
    ("Sub", |c| arithmetic(c, BinaryOp::Sub, |a, b| Some(a - b))),
    ("Mul", |c| arithmetic(c, BinaryOp::Mul, |a, b| Some(a * b))),
    ("Div", |c| arithmetic(c, BinaryOp::Div, |a, b| b.as_const().filter(|d| *d > 0).map(|_| a.floor_div(b)))),
    ("Mod", |c| arithmetic(c, BinaryOp::Mod, |a, b| b.as_const().filter(|d| *d > 0).map(|_| a.modulo(b)))),
    ("Pow", pow),
    ("Max", |c| fold(c, BinaryOp::Max)),
    ("Min", |c| fold(c, BinaryOp::Min)),
    ("Sum", |c| fold(c, BinaryOp::Add)),
    ("And", |c| binary(c, BinaryOp::And)),
    ("Or", |c| binary(c, BinaryOp::Or)),
    ("Equal", |c| binary(c, BinaryOp::Eq)),
    ("Less", |c| binary(c, BinaryOp::Lt)),
    ("LessOrEqual", |c| binary(c, BinaryOp::Le)),
    ("Greater", |c| binary(c, BinaryOp::Gt)),
    ("GreaterOrEqual", |c| binary(c, BinaryOp::Ge)),
    ("Where", where_),
    ("ReduceMean", |c| reduce(c, ReduceOp::Mean)),
    ("ReduceSum", |c| reduce(c, ReduceOp::Sum)),
    ("ReduceMax", |c| reduce(c, ReduceOp::Max)),
    ("ReduceMin", |c| reduce(c, ReduceOp::Min)),
    ("ReduceProd", |c| reduce(c, ReduceOp::Prod)),
    ("Identity", identity),
    ("Dropout", identity),
    ("Cast", cast),
    ("Shape", shape),
    ("Size", size),
    ("Constant", constant),
    ("ConstantOfShape", constant_of_shape),
    ("Reshape", reshape),
    ("Flatten", flatten),
    ("Transpose", transpose),
    ("Unsqueeze", unsqueeze),
    ("Squeeze", squeeze),
    ("Expand", expand),
    ("Slice", slice),
    ("Split", split),
    ("Concat", concat),
    ("Pad", pad),
    ("Tile", tile),
    ("Gather", gather),
    ("GatherElements", gather_elements),
    ("Range", range),
];

/// `[top, left, bottom, right]` of the `pads` attribute, or what `auto_pad` stands for.
fn window(c: &NodeCall, x: ValueId, kernel: [i64; 2]) -> Result<Window> {
    if c.rank(x) != 4 {
        return Err(format!("only two spatial dimensions are supported, and its input has rank {}", c.rank(x)).into());
    }
    let (stride, dilation) = (c.pair("strides", 1)?, c.pair("dilations", 1)?);
    let mut pad = match c.list("pads").unwrap_or_default() {
        [] => [[0; 2]; 2],
        [top, left, bottom, right] => [[*top, *bottom], [*left, *right]],
        other => return Err(format!("`pads` has {} numbers for two spatial dimensions", other.len()).into()),
    };
    match c.text("auto_pad") {
        "" | "NOTSET" | "VALID" => {}
        mode @ ("SAME_UPPER" | "SAME_LOWER") => {
            for axis in 0..2 {
                let size = c.shape(x)[axis + 2].as_const().ok_or("auto_pad needs constant spatial sizes")?;
                let outputs = (size + stride[axis] - 1).div_euclid(stride[axis]);
                let total = ((outputs - 1) * stride[axis] + dilation[axis] * (kernel[axis] - 1) + 1 - size).max(0);
                let small = total / 2;
                pad[axis] = if mode == "SAME_UPPER" { [small, total - small] } else { [total - small, small] };
            }
        }
        other => return Err(format!("auto_pad `{other}` is not supported").into()),
    }
    Ok(Window { kernel, stride, pad, dilation })
}

fn conv(c: &mut NodeCall) -> Result<Vec<Known>> {
    let (x, weight) = (c.tensor(0)?, c.tensor(1)?);
    let kernel = match c.shape(weight).iter().map(Expr::as_const).collect::<Option<Vec<_>>>().as_deref() {
        Some([_, _, h, w]) => [*h, *w],
        _ => return Err("only two spatial dimensions with constant weights are supported".into()),
    };
    let window = window(c, x, kernel)?;
    let groups = c.int("group", 1);
    let inputs: Vec<ValueId> = [Some(x), Some(weight), c.opt_tensor(2)?].into_iter().flatten().collect();
    one(c.push(Op::Conv { window, groups }, &inputs)?)
}

fn batch_norm(c: &mut NodeCall) -> Result<Vec<Known>> {
    if c.int("training_mode", 0) != 0 {
        return Err("the batch normalisation is in training mode; export the model in eval mode".into());
    }
    let inputs = c.tensors()?;
    let eps = c.float("epsilon", 1e-5);
    one(c.push(Op::BatchNorm { eps }, &inputs)?)
}

/// `alpha A' B' + beta C`.
fn gemm(c: &mut NodeCall) -> Result<Vec<Known>> {
    let (mut a, mut b, bias) = (c.tensor(0)?, c.tensor(1)?, c.opt_tensor(2)?);
    let (alpha, beta) = (c.float("alpha", 1.0), c.float("beta", 1.0));
    if c.int("transA", 0) != 0 {
        a = c.push(Op::Permute { axes: vec![1, 0] }, &[a])?;
    }
    let plain_bias = bias.is_none_or(|b| c.rank(b) == 1);
    if c.int("transB", 0) != 0 && alpha == 1.0 && beta == 1.0 && plain_bias {
        let inputs: Vec<ValueId> = [Some(a), Some(b), bias].into_iter().flatten().collect();
        return one(c.push(Op::Linear, &inputs)?);
    }
    if c.int("transB", 0) != 0 {
        b = c.push(Op::Permute { axes: vec![1, 0] }, &[b])?;
    }
    let mut y = c.push(Op::MatMul, &[a, b])?;
    y = times(c, y, alpha)?;
    if let Some(bias) = bias {
        let bias = times(c, bias, beta)?;
        y = c.binary(BinaryOp::Add, y, bias)?;
    }
    one(y)
}

fn times(c: &mut NodeCall, x: ValueId, factor: f64) -> Result<ValueId> {
    if factor == 1.0 {
        return Ok(x);
    }
    let factor = c.full(factor, c.dtype(x))?;
    c.binary(BinaryOp::Mul, x, factor)
}

/// numpy's matmul: a vector operand gets a dimension of size 1 that the result loses again.
fn matmul(c: &mut NodeCall) -> Result<Vec<Known>> {
    let (mut a, mut b) = (c.tensor(0)?, c.tensor(1)?);
    let (row, column) = (c.rank(a) == 1, c.rank(b) == 1);
    if row {
        let shape = [vec![Expr::one()], c.shape(a)].concat();
        a = c.reshape(a, shape)?;
    }
    if column {
        let shape = [c.shape(b), vec![Expr::one()]].concat();
        b = c.reshape(b, shape)?;
    }
    let y = c.push(Op::MatMul, &[a, b])?;
    let mut shape = c.shape(y);
    let rank = shape.len();
    if column {
        shape.remove(rank - 1);
    }
    if row {
        shape.remove(rank - 2);
    }
    one(c.reshape(y, shape)?)
}

fn layer_norm(c: &mut NodeCall) -> Result<Vec<Known>> {
    let (x, scale, shift) = (c.tensor(0)?, c.tensor(1)?, c.opt_tensor(2)?);
    let rank = c.rank(x);
    let axes = rank - c.axis(c.int("axis", -1), rank)?;
    let eps = c.float("epsilon", 1e-5);
    let shift = match shift {
        Some(shift) => shift,
        None => {
            let (shape, dtype) = (c.shape(scale), c.dtype(scale));
            c.push(Op::Full { value: 0.0, shape, dtype }, &[])?
        }
    };
    one(c.push(Op::LayerNorm { axes, eps }, &[x, scale, shift])?)
}

fn pool(c: &mut NodeCall, op: PoolOp) -> Result<Vec<Known>> {
    let x = c.tensor(0)?;
    let kernel = c.pair("kernel_shape", 0)?;
    let mut window = window(c, x, kernel)?;
    if c.int("ceil_mode", 0) != 0 {
        if matches!(op, PoolOp::Avg { .. }) {
            return Err("average pooling in ceil mode is not supported".into());
        }
        for axis in 0..2 {
            let size = c.shape(x)[axis + 2].as_const().ok_or("pooling in ceil mode needs constant spatial sizes")?;
            window.grow_to_ceil(axis, size);
        }
    }
    one(c.push(Op::Pool { op, window }, &[x])?)
}

fn global_average_pool(c: &mut NodeCall) -> Result<Vec<Known>> {
    let x = c.tensor(0)?;
    let axes = (2..c.rank(x)).collect();
    one(c.push(Op::Reduce { op: ReduceOp::Mean, axes, keepdim: true }, &[x])?)
}

fn softmax(c: &mut NodeCall) -> Result<Vec<Known>> {
    let x = c.tensor(0)?;
    let axis = c.axis(c.int("axis", -1), c.rank(x))?;
    one(c.push(Op::Softmax { axis }, &[x])?)
}

fn unary(c: &mut NodeCall, op: UnaryOp) -> Result<Vec<Known>> {
    let x = c.tensor(0)?;
    one(c.unary(op, x)?)
}

/// `max(0, min(1, alpha x + beta))`; torch's has alpha 1/6 and beta 1/2.
fn hard_sigmoid(c: &mut NodeCall) -> Result<Vec<Known>> {
    let (alpha, beta) = (c.float("alpha", 0.2), c.float("beta", 0.5));
    if (alpha - 1.0 / 6.0).abs() < 1e-6 && beta == 0.5 {
        return unary(c, UnaryOp::Hardsigmoid);
    }
    let x = c.tensor(0)?;
    let x = times(c, x, alpha)?;
    let beta = c.full(beta, c.dtype(x))?;
    let x = c.binary(BinaryOp::Add, x, beta)?;
    one(c.unary(UnaryOp::Clamp { low: 0.0, high: 1.0 }, x)?)
}

fn clip(c: &mut NodeCall) -> Result<Vec<Known>> {
    let low = c.number(1)?.unwrap_or(f64::NEG_INFINITY);
    let high = c.number(2)?.unwrap_or(f64::INFINITY);
    unary(c, UnaryOp::Clamp { low, high })
}

/// Only NaN differs from itself.
fn is_nan(c: &mut NodeCall) -> Result<Vec<Known>> {
    let x = c.tensor(0)?;
    one(c.binary(BinaryOp::Ne, x, x)?)
}

fn binary(c: &mut NodeCall, op: BinaryOp) -> Result<Vec<Known>> {
    let (a, b) = (c.tensor(0)?, c.tensor(1)?);
    one(c.binary(op, a, b)?)
}

/// An arithmetic operator, on known integers when both operands are.
fn arithmetic(c: &mut NodeCall, op: BinaryOp, on_sizes: fn(&Expr, &Expr) -> Option<Expr>) -> Result<Vec<Known>> {
    if let (Some(a), Some(b)) = (c.opt_sizes(0), c.opt_sizes(1)) {
        let n = a.values.len().max(b.values.len());
        let fits = |len: usize| len == n || len == 1;
        if fits(a.values.len()) && fits(b.values.len()) {
            let at = |v: &[Expr], i: usize| v[if v.len() == 1 { 0 } else { i }].clone();
            let result: Option<Vec<Expr>> = (0..n).map(|i| on_sizes(&at(&a.values, i), &at(&b.values, i))).collect();
            if let Some(values) = result {
                return known(values, a.scalar && b.scalar);
            }
        }
    }
    binary(c, op)
}

fn pow(c: &mut NodeCall) -> Result<Vec<Known>> {
    let x = c.tensor(0)?;
    match c.number(1) {
        Ok(Some(2.0)) => one(c.binary(BinaryOp::Mul, x, x)?),
        Ok(Some(0.5)) => one(c.unary(UnaryOp::Sqrt, x)?),
        _ => {
            let exponent = c.tensor(1)?;
            let exponent = if c.dtype(exponent) == c.dtype(x) { exponent } else { c.push(Op::Cast(c.dtype(x)), &[exponent])? };
            one(c.binary(BinaryOp::Pow, x, exponent)?)
        }
    }
}

fn fold(c: &mut NodeCall, op: BinaryOp) -> Result<Vec<Known>> {
    let all = c.tensors()?;
    let (&first, rest) = all.split_first().ok_or("it has no operands")?;
    let mut y = first;
    for &x in rest {
        y = c.binary(op, y, x)?;
    }
    one(y)
}

fn where_(c: &mut NodeCall) -> Result<Vec<Known>> {
    let inputs = [c.tensor(0)?, c.tensor(1)?, c.tensor(2)?];
    one(c.push(Op::Where, &inputs)?)
}

/// The axes are an operand since opset 13 (sum) and 18 (the others), an attribute before.
fn reduce(c: &mut NodeCall, op: ReduceOp) -> Result<Vec<Known>> {
    let x = c.tensor(0)?;
    let rank = c.rank(x);
    let list = match c.list("axes").map(<[i64]>::to_vec) {
        Some(list) => list,
        None => c.ints(1)?.unwrap_or_default(),
    };
    if list.is_empty() && c.int("noop_with_empty_axes", 0) != 0 {
        return one(x);
    }
    let mut axes = list.into_iter().map(|a| c.axis(a, rank)).collect::<Result<Vec<_>>>()?;
    axes.sort_unstable();
    axes.dedup();
    if axes.is_empty() {
        axes = (0..rank).collect();
    }
    let keepdim = c.int("keepdims", 1) != 0;
    one(c.push(Op::Reduce { op, axes, keepdim }, &[x])?)
}

fn identity(c: &mut NodeCall) -> Result<Vec<Known>> {
    if let Some(sizes) = c.opt_sizes(0) {
        return known(sizes.values, sizes.scalar);
    }
    let x = c.tensor(0)?;
    one(x)
}

fn cast(c: &mut NodeCall) -> Result<Vec<Known>> {
    let to = tensor::dtype(c.int("to", 0) as i32)?;
    if let (Some(sizes), DType::I64 | DType::I32) = (c.opt_sizes(0), to) {
        return known(sizes.values, sizes.scalar);
    }
    let x = c.tensor(0)?;
    one(if c.dtype(x) == to { x } else { c.push(Op::Cast(to), &[x])? })
}

fn shape(c: &mut NodeCall) -> Result<Vec<Known>> {
    let x = c.tensor(0)?;
    let shape = c.shape(x);
    let rank = shape.len() as i64;
    let clamp = |at: i64| (if at < 0 { at + rank } else { at }).clamp(0, rank) as usize;
    let (start, end) = (clamp(c.int("start", 0)), clamp(c.int("end", rank)));
    known(shape[start..end.max(start)].to_vec(), false)
}

fn size(c: &mut NodeCall) -> Result<Vec<Known>> {
    let x = c.tensor(0)?;
    let count = c.shape(x).iter().fold(Expr::one(), |a, b| &a * b);
    known(vec![count], true)
}

fn constant(c: &mut NodeCall) -> Result<Vec<Known>> {
    let attribute = c.node.attribute.first().ok_or("a constant without a value")?;
    match attribute.name.as_str() {
        "value" => {
            let proto = attribute.t.as_ref().ok_or("a constant without a value")?;
            if let Some(sizes) = tensor::small_integers(proto, c.import.external) {
                return known(sizes.values, sizes.scalar);
            }
            let (ty, data) = c.import.data(proto)?;
            let name = c.node.output.first().cloned().unwrap_or_default();
            one(c.import.builder.weight(&name, ty, data)?)
        }
        "value_int" => known(vec![Expr::from(attribute.i)], true),
        "value_ints" => known(attribute.ints.iter().map(|&n| Expr::from(n)).collect(), false),
        "value_float" => one(c.full(f64::from(attribute.f), DType::F32)?),
        "value_floats" => {
            let data = aotfarm_ir::TensorData::from_f32(&attribute.floats);
            let ty = TensorType { dtype: DType::F32, shape: vec![Expr::from(attribute.floats.len() as i64)] };
            let name = c.node.output.first().cloned().unwrap_or_default();
            one(c.import.builder.weight(&name, ty, data)?)
        }
        other => Err(format!("a constant given as `{other}` is not supported").into()),
    }
}

fn constant_of_shape(c: &mut NodeCall) -> Result<Vec<Known>> {
    let shape = c.sizes(0)?;
    let Some(proto) = c.attribute("value").and_then(|a| a.t.clone()) else {
        return one(c.push(Op::Full { value: 0.0, shape, dtype: DType::F32 }, &[])?);
    };
    let (ty, data) = c.import.data(&proto)?;
    let bytes = data.bytes();
    let value = match (ty.dtype, bytes.len()) {
        (DType::F32, 4) => f64::from(data.to_f32()[0]),
        (DType::I64, 8) => i64::from_le_bytes(bytes.try_into().expect("eight bytes")) as f64,
        (DType::I32, 4) => f64::from(i32::from_le_bytes(bytes.try_into().expect("four bytes"))),
        (DType::Bool, 1) => f64::from(bytes[0]),
        (dtype, _) => return Err(format!("a constant of {dtype} is not supported").into()),
    };
    one(c.push(Op::Full { value, shape, dtype: ty.dtype }, &[])?)
}

/// 0 keeps a size (unless `allowzero`), one -1 takes what is left.
fn reshape(c: &mut NodeCall) -> Result<Vec<Known>> {
    if let (Some(sizes), Some([count])) = (c.opt_sizes(0), c.opt_sizes(1).map(|s| s.values).as_deref()) {
        // A small integer tensor made a vector; to rank 0 is below.
        if count.as_const().is_some_and(|n| n == -1 || n == sizes.values.len() as i64) {
            return known(sizes.values, false);
        }
    }
    if let (Some(sizes), Some([])) = (c.opt_sizes(0), c.opt_sizes(1).map(|s| s.values).as_deref()) {
        return known(sizes.values, true);
    }
    let x = c.tensor(0)?;
    let old = c.shape(x);
    let mut shape = c.sizes(1)?;
    let keep = c.int("allowzero", 0) == 0;
    for (i, size) in shape.iter_mut().enumerate() {
        if keep && size.as_const() == Some(0) {
            *size = old.get(i).cloned().ok_or("a 0 in its shape has no size to keep")?;
        }
    }
    if let Some(at) = shape.iter().position(|s| s.as_const() == Some(-1)) {
        let total = old.iter().fold(Expr::one(), |a, b| &a * b);
        let rest = shape.iter().enumerate().filter(|(i, _)| *i != at).fold(Expr::one(), |a, (_, b)| &a * b);
        shape[at] =
            total.div_exact(&rest).ok_or_else(|| format!("the -1 of its shape is {total} / {rest}, which is no whole size"))?;
    }
    one(c.reshape(x, shape)?)
}

fn flatten(c: &mut NodeCall) -> Result<Vec<Known>> {
    let x = c.tensor(0)?;
    let shape = c.shape(x);
    let rank = shape.len() as i64;
    let axis = c.int("axis", 1);
    let axis = if axis < 0 { axis + rank } else { axis };
    if !(0..=rank).contains(&axis) {
        return Err(format!("axis {axis} is outside a tensor of rank {rank}").into());
    }
    let product = |part: &[Expr]| part.iter().fold(Expr::one(), |a, b| &a * b);
    let shape = vec![product(&shape[..axis as usize]), product(&shape[axis as usize..])];
    one(c.reshape(x, shape)?)
}

fn transpose(c: &mut NodeCall) -> Result<Vec<Known>> {
    let x = c.tensor(0)?;
    let rank = c.rank(x);
    let axes = match c.list("perm").map(<[i64]>::to_vec) {
        Some(perm) => perm.into_iter().map(|a| c.axis(a, rank)).collect::<Result<_>>()?,
        None => (0..rank).rev().collect(),
    };
    one(c.push(Op::Permute { axes }, &[x])?)
}

fn unsqueeze(c: &mut NodeCall) -> Result<Vec<Known>> {
    let axes = c.ints(1)?.ok_or("its axes are missing")?;
    if let (Some(sizes), [0 | -1]) = (c.opt_sizes(0).filter(|s| s.scalar), axes.as_slice()) {
        return known(sizes.values, false);
    }
    let x = c.tensor(0)?;
    let mut shape = c.shape(x);
    let rank = shape.len() + axes.len();
    let mut axes = axes.into_iter().map(|a| c.axis(a, rank)).collect::<Result<Vec<_>>>()?;
    axes.sort_unstable();
    for axis in axes {
        if axis > shape.len() {
            return Err("its axes repeat".into());
        }
        shape.insert(axis, Expr::one());
    }
    one(c.reshape(x, shape)?)
}

fn squeeze(c: &mut NodeCall) -> Result<Vec<Known>> {
    let axes = c.ints(1)?;
    if let Some(sizes) = c.opt_sizes(0).filter(|s| s.values.len() == 1) {
        return known(sizes.values, true);
    }
    let x = c.tensor(0)?;
    let shape = c.shape(x);
    let rank = shape.len();
    let axes = match axes {
        Some(axes) => axes.into_iter().map(|a| c.axis(a, rank)).collect::<Result<Vec<_>>>()?,
        None => (0..rank).filter(|&i| shape[i].as_const() == Some(1)).collect(),
    };
    let shape = shape.into_iter().enumerate().filter(|(i, _)| !axes.contains(i)).map(|(_, s)| s).collect();
    one(c.reshape(x, shape)?)
}

/// Broadcasting in both directions: the given shape may have 1 where the tensor has more.
fn expand(c: &mut NodeCall) -> Result<Vec<Known>> {
    let x = c.tensor(0)?;
    let old = c.shape(x);
    let given = c.sizes(1)?;
    let rank = old.len().max(given.len());
    let at = |list: &[Expr], i: usize| (i + list.len()).checked_sub(rank).map(|i| list[i].clone()).unwrap_or_else(Expr::one);
    let shape: Vec<Expr> =
        (0..rank).map(|i| if at(&given, i).as_const() == Some(1) { at(&old, i) } else { at(&given, i) }).collect();
    one(if shape == old { x } else { c.push(Op::Expand { shape }, &[x])? })
}

/// A position as in numpy: negative ones count from the end, and all are clamped.
fn position(at: &Expr, size: &Expr) -> Expr {
    match (at.as_const(), size.as_const()) {
        (Some(n), Some(size)) => Expr::from((if n < 0 { n.saturating_add(size) } else { n }).clamp(0, size)),
        (Some(n), None) if n >= i64::from(i32::MAX) => size.clone(),
        (Some(n), None) if n <= -i64::from(i32::MAX) => Expr::zero(),
        (Some(n), None) if n < 0 => size + &Expr::from(n),
        _ => at.clone(),
    }
}

fn slice(c: &mut NodeCall) -> Result<Vec<Known>> {
    let (starts, ends) = (c.sizes(1)?, c.sizes(2)?);
    let count = starts.len();
    let axes = c.ints(3)?.unwrap_or_else(|| (0..count as i64).collect());
    let steps = c.ints(4)?.unwrap_or_else(|| vec![1; count]);
    if ends.len() != count || axes.len() != count || steps.len() != count {
        return Err("its starts, ends, axes and steps differ in length".into());
    }
    if steps.iter().any(|&s| s < 1) {
        return Err("a slice with a step that is not positive is not supported".into());
    }
    if let (Some(sizes), [step]) = (c.opt_sizes(0).filter(|s| !s.scalar), steps.as_slice()) {
        let size = Expr::from(sizes.values.len() as i64);
        if let (Some(from), Some(to)) = (position(&starts[0], &size).as_const(), position(&ends[0], &size).as_const()) {
            let part = sizes.values.get(from as usize..to.max(from) as usize).unwrap_or_default();
            return known(part.iter().step_by(*step as usize).cloned().collect(), false);
        }
    }
    let mut x = c.tensor(0)?;
    for i in 0..count {
        let axis = c.axis(axes[i], c.rank(x))?;
        let size = c.shape(x)[axis].clone();
        let (start, end) = (position(&starts[i], &size), position(&ends[i], &size));
        let end = match (start.as_const(), end.as_const()) {
            (Some(s), Some(e)) => Expr::from(e.max(s)),
            _ => end,
        };
        if !(start.as_const() == Some(0) && end == size && steps[i] == 1) {
            x = c.push(Op::Slice { axis, start, end, step: steps[i] }, &[x])?;
        }
    }
    one(x)
}

fn split(c: &mut NodeCall) -> Result<Vec<Known>> {
    let x = c.tensor(0)?;
    let axis = c.axis(c.int("axis", 0), c.rank(x))?;
    let sizes = match c.ints(1)? {
        Some(sizes) => sizes,
        None => {
            let parts = c.node.output.len() as i64;
            let size = c.shape(x)[axis].as_const().ok_or("splitting a symbolic dimension is not supported")?;
            let part = (size + parts - 1) / parts;
            (0..parts).map(|i| part.min(size - i * part)).collect()
        }
    };
    let mut start = 0;
    let mut results = Vec::with_capacity(sizes.len());
    for size in sizes {
        let part = Op::Slice { axis, start: Expr::from(start), end: Expr::from(start + size), step: 1 };
        results.push(Known { tensor: Some(c.push(part, &[x])?), sizes: None });
        start += size;
    }
    Ok(results)
}

fn concat(c: &mut NodeCall) -> Result<Vec<Known>> {
    let parts: Option<Vec<_>> = (0..c.node.input.len()).map(|i| c.opt_sizes(i).filter(|s| !s.scalar)).collect();
    if let Some(parts) = parts {
        return known(parts.into_iter().flat_map(|s| s.values).collect(), false);
    }
    let all = c.tensors()?;
    let first = *all.first().ok_or("it has no operands")?;
    let axis = c.axis(c.int("axis", 0), c.rank(first))?;
    one(c.push(Op::Concat { axis }, &all)?)
}

fn pad(c: &mut NodeCall) -> Result<Vec<Known>> {
    if !matches!(c.text("mode"), "" | "constant") {
        return Err("only constant padding is supported".into());
    }
    let x = c.tensor(0)?;
    let rank = c.rank(x);
    let list = c.ints(1)?.ok_or("its padding is missing")?;
    let value = c.number(2)?.unwrap_or(0.0);
    let axes = c.ints(3)?.unwrap_or_else(|| (0..rank as i64).collect());
    if list.len() != 2 * axes.len() {
        return Err(format!("its padding has {} numbers for {} axes", list.len(), axes.len()).into());
    }
    let mut pads = vec![[0, 0]; rank];
    for (i, &axis) in axes.iter().enumerate() {
        pads[c.axis(axis, rank)?] = [list[i], list[axes.len() + i]];
    }
    one(c.push(Op::Pad { pads, value }, &[x])?)
}

/// Tiles as a reshape, an expansion and a reshape.
fn tile(c: &mut NodeCall) -> Result<Vec<Known>> {
    let x = c.tensor(0)?;
    let repeats = c.sizes(1)?;
    let old = c.shape(x);
    if repeats.len() != old.len() {
        return Err("it has another number of repeats than its input has dimensions".into());
    }
    let (mut split, mut wide, mut merged) = (Vec::new(), Vec::new(), Vec::new());
    for (size, times) in old.iter().zip(&repeats) {
        split.extend([Expr::one(), size.clone()]);
        wide.extend([times.clone(), size.clone()]);
        merged.push(size * times);
    }
    let x = c.reshape(x, split)?;
    let x = c.push(Op::Expand { shape: wide }, &[x])?;
    one(c.reshape(x, merged)?)
}

fn gather(c: &mut NodeCall) -> Result<Vec<Known>> {
    if let (Some(data), Some(indices)) = (c.opt_sizes(0).filter(|s| !s.scalar), c.opt_sizes(1)) {
        let n = data.values.len() as i64;
        let pick =
            |i: &Expr| data.values.get(usize::try_from(i.as_const().map(|i| if i < 0 { i + n } else { i })?).ok()?).cloned();
        if let Some(values) = indices.values.iter().map(pick).collect::<Option<Vec<_>>>() {
            return known(values, indices.scalar);
        }
    }
    let (x, indices) = (c.tensor(0)?, c.tensor(1)?);
    let axis = c.axis(c.int("axis", 0), c.rank(x))?;
    one(c.push(Op::Take { axis }, &[x, indices])?)
}

fn gather_elements(c: &mut NodeCall) -> Result<Vec<Known>> {
    let (x, indices) = (c.tensor(0)?, c.tensor(1)?);
    let axis = c.axis(c.int("axis", 0), c.rank(x))?;
    one(c.push(Op::GatherElements { axis }, &[x, indices])?)
}

fn range(c: &mut NodeCall) -> Result<Vec<Known>> {
    let single = |c: &mut NodeCall, i| -> Result<Expr> {
        c.sizes(i)?.into_iter().next().ok_or_else(|| NodeError::from("a range needs three numbers"))
    };
    let (start, end, step) = (single(c, 0)?, single(c, 1)?, single(c, 2)?);
    let (Some(start), Some(step @ 1..)) = (start.as_const(), step.as_const()) else {
        return Err("a range needs a constant start and a constant positive step".into());
    };
    let span = &end - &Expr::from(start);
    let length = if step == 1 { span } else { (&span + &Expr::from(step - 1)).floor_div(&Expr::from(step)) };
    let length = length.as_const().map_or(length, |n| Expr::from(n.max(0)));
    one(c.push(Op::Iota { length, start, step, dtype: DType::I64 }, &[])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_distinct() {
        let mut names: Vec<_> = ROWS.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|w| w[0] != w[1]), "an operator is listed twice");
    }
}
