//! The mapping of torch operators, in both the exported and the decomposed form. A row is an operator; defaults of arguments
//! that are left out are those of the operator's schema.

use aotfarm_protocol::DType;

use super::call::{Call, CallError, Result, Scalar, Val, axis};
use aotfarm_ir::{BinaryOp, Expr, Op, PoolOp, ReduceOp, UnaryOp, ValueId, Window};

type Map = fn(&mut Call) -> Result<Val>;

/// How one operator is mapped.
pub(super) struct Row {
    /// As in `aten.conv2d.default`.
    name: &'static str,
    pub(super) map: Map,
    /// Whether it writes to its first operand.
    pub(super) in_place: bool,
    /// Whether its result may share memory with its first operand.
    pub(super) view: bool,
}

const fn row(name: &'static str, map: Map) -> Row {
    Row { name, map, in_place: false, view: false }
}

const fn in_place(name: &'static str, map: Map) -> Row {
    Row { name, map, in_place: true, view: false }
}

const fn view(name: &'static str, map: Map) -> Row {
    Row { name, map, in_place: false, view: true }
}

/// The row of an operator.
pub(super) fn find(name: &str) -> Option<&'static Row> {
    ROWS.iter().find(|r| r.name == name)
}

static ROWS: &[Row] = &[
    // Sizes and assertions.
    row("aten.sym_size.int", sym_size),
    row("_operator.mul", |c| size_arithmetic(c, |a, b| Some(a * b))),
    row("_operator.add", |c| size_arithmetic(c, |a, b| Some(a + b))),
    row("_operator.sub", |c| size_arithmetic(c, |a, b| Some(a - b))),
    row("_operator.floordiv", |c| size_arithmetic(c, |a, b| b.as_const().filter(|d| *d > 0).map(|_| a.floor_div(b)))),
    row("_operator.mod", |c| size_arithmetic(c, |a, b| b.as_const().filter(|d| *d > 0).map(|_| a.modulo(b)))),
    row("aten._assert_tensor_metadata.default", |_| Ok(Val::Nothing)),
    row("aten._assert_scalar.default", |_| Ok(Val::Nothing)),
    row("aten.sym_constrain_range_for_size.default", |_| Ok(Val::Nothing)),
    // Convolution, linear, normalisation, pooling.
    row("aten.conv2d.default", conv),
    row("aten.conv2d.padding", conv_same),
    row("aten.convolution.default", conv),
    row("aten.batch_norm.default", |c| batch_norm(c, "training")),
    row("aten._native_batch_norm_legit_no_training.default", |c| batch_norm(c, "")),
    row("aten.linear.default", linear),
    row("aten.addmm.default", addmm),
    row("aten.mm.default", |c| matmul(c, "mat2")),
    row("aten.bmm.default", |c| matmul(c, "mat2")),
    row("aten.matmul.default", |c| matmul(c, "other")),
    row("aten.layer_norm.default", layer_norm),
    row("aten.native_layer_norm.default", layer_norm),
    row("aten.max_pool2d.default", max_pool),
    row("aten.max_pool2d_with_indices.default", max_pool),
    row("aten.avg_pool2d.default", avg_pool),
    row("aten.adaptive_avg_pool2d.default", adaptive_avg_pool),
    row("aten._adaptive_avg_pool2d.default", adaptive_avg_pool),
    row("aten.scaled_dot_product_attention.default", attention),
    row("aten.softmax.int", softmax),
    row("aten._softmax.default", softmax),
    // Element-wise functions of one tensor.
    row("aten.relu.default", |c| unary(c, UnaryOp::Relu)),
    in_place("aten.relu_.default", |c| unary(c, UnaryOp::Relu)),
    row("aten.relu6.default", |c| unary(c, RELU6)),
    in_place("aten.relu6_.default", |c| unary(c, RELU6)),
    row("aten.hardtanh.default", hardtanh),
    in_place("aten.hardtanh_.default", hardtanh),
    row("aten.hardswish.default", |c| unary(c, UnaryOp::Hardswish)),
    in_place("aten.hardswish_.default", |c| unary(c, UnaryOp::Hardswish)),
    row("aten.hardsigmoid.default", |c| unary(c, UnaryOp::Hardsigmoid)),
    in_place("aten.hardsigmoid_.default", |c| unary(c, UnaryOp::Hardsigmoid)),
    row("aten.silu.default", |c| unary(c, UnaryOp::Silu)),
    in_place("aten.silu_.default", |c| unary(c, UnaryOp::Silu)),
    row("aten.sigmoid.default", |c| unary(c, UnaryOp::Sigmoid)),
    in_place("aten.sigmoid_.default", |c| unary(c, UnaryOp::Sigmoid)),
    row("aten.tanh.default", |c| unary(c, UnaryOp::Tanh)),
    in_place("aten.tanh_.default", |c| unary(c, UnaryOp::Tanh)),
    row("aten.gelu.default", gelu),
    row("aten.leaky_relu.default", leaky_relu),
    in_place("aten.leaky_relu_.default", leaky_relu),
    row("aten.elu.default", elu),
    in_place("aten.elu_.default", elu),
    row("aten.erf.default", |c| unary(c, UnaryOp::Erf)),
    row("aten.exp.default", |c| unary(c, UnaryOp::Exp)),
    row("aten.log.default", |c| unary(c, UnaryOp::Log)),
    row("aten.sqrt.default", |c| unary(c, UnaryOp::Sqrt)),
    row("aten.rsqrt.default", |c| unary(c, UnaryOp::Rsqrt)),
    row("aten.reciprocal.default", |c| unary(c, UnaryOp::Reciprocal)),
    row("aten.sin.default", |c| unary(c, UnaryOp::Sin)),
    row("aten.cos.default", |c| unary(c, UnaryOp::Cos)),
    row("aten.abs.default", |c| unary(c, UnaryOp::Abs)),
    row("aten.neg.default", |c| unary(c, UnaryOp::Neg)),
    row("aten.floor.default", |c| unary(c, UnaryOp::Floor)),
    row("aten.ceil.default", |c| unary(c, UnaryOp::Ceil)),
    row("aten.round.default", |c| unary(c, UnaryOp::Round)),
    row("aten.logical_not.default", logical_not),
    row("aten.bitwise_not.default", logical_not),
    row("aten.clamp.default", clamp),
    row("aten.clamp_min.default", clamp),
    // Element-wise functions of two.
    row("aten.add.Tensor", |c| scaled(c, BinaryOp::Add)),
    row("aten.add.Scalar", |c| scaled(c, BinaryOp::Add)),
    in_place("aten.add_.Tensor", |c| scaled(c, BinaryOp::Add)),
    row("aten.sub.Tensor", |c| scaled(c, BinaryOp::Sub)),
    row("aten.sub.Scalar", |c| scaled(c, BinaryOp::Sub)),
    in_place("aten.sub_.Tensor", |c| scaled(c, BinaryOp::Sub)),
    row("aten.rsub.Scalar", rsub),
    row("aten.mul.Tensor", |c| binary(c, BinaryOp::Mul)),
    row("aten.mul.Scalar", |c| binary(c, BinaryOp::Mul)),
    in_place("aten.mul_.Tensor", |c| binary(c, BinaryOp::Mul)),
    row("aten.div.Tensor", |c| binary(c, BinaryOp::Div)),
    row("aten.div.Scalar", |c| binary(c, BinaryOp::Div)),
    in_place("aten.div_.Tensor", |c| binary(c, BinaryOp::Div)),
    row("aten.div.Tensor_mode", div_mode),
    row("aten.floor_divide.default", |c| binary(c, BinaryOp::FloorDiv)),
    row("aten.remainder.Scalar", |c| binary(c, BinaryOp::Mod)),
    row("aten.maximum.default", |c| binary(c, BinaryOp::Max)),
    row("aten.minimum.default", |c| binary(c, BinaryOp::Min)),
    row("aten.pow.Tensor_Scalar", pow),
    row("aten.pow.Tensor_Tensor", pow),
    row("aten.eq.Scalar", |c| binary(c, BinaryOp::Eq)),
    row("aten.eq.Tensor", |c| binary(c, BinaryOp::Eq)),
    row("aten.ne.Scalar", |c| binary(c, BinaryOp::Ne)),
    row("aten.ne.Tensor", |c| binary(c, BinaryOp::Ne)),
    row("aten.lt.Scalar", |c| binary(c, BinaryOp::Lt)),
    row("aten.lt.Tensor", |c| binary(c, BinaryOp::Lt)),
    row("aten.le.Scalar", |c| binary(c, BinaryOp::Le)),
    row("aten.le.Tensor", |c| binary(c, BinaryOp::Le)),
    row("aten.gt.Scalar", |c| binary(c, BinaryOp::Gt)),
    row("aten.gt.Tensor", |c| binary(c, BinaryOp::Gt)),
    row("aten.ge.Scalar", |c| binary(c, BinaryOp::Ge)),
    row("aten.ge.Tensor", |c| binary(c, BinaryOp::Ge)),
    row("aten.logical_and.default", |c| logical(c, BinaryOp::And)),
    row("aten.logical_or.default", |c| logical(c, BinaryOp::Or)),
    row("aten.bitwise_and.Tensor", |c| logical(c, BinaryOp::And)),
    row("aten.bitwise_or.Tensor", |c| logical(c, BinaryOp::Or)),
    row("aten.__and__.Tensor", |c| logical(c, BinaryOp::And)),
    row("aten.where.self", where_self),
    row("aten.masked_fill.Scalar", masked_fill),
    // Reductions.
    row("aten.mean.dim", |c| reduce(c, ReduceOp::Mean)),
    row("aten.sum.dim_IntList", |c| reduce(c, ReduceOp::Sum)),
    row("aten.amax.default", |c| reduce(c, ReduceOp::Max)),
    row("aten.amin.default", |c| reduce(c, ReduceOp::Min)),
    row("aten.any.dim", |c| reduce(c, ReduceOp::Any)),
    row("aten.all.dim", |c| reduce(c, ReduceOp::All)),
    // Shapes and views.
    view("aten.view.default", |c| reshape(c, "size")),
    view("aten._unsafe_view.default", |c| reshape(c, "size")),
    view("aten.reshape.default", |c| reshape(c, "shape")),
    view("aten.flatten.using_ints", flatten),
    view("aten.permute.default", permute),
    view("aten.transpose.int", transpose),
    view("aten.t.default", transpose_2d),
    view("aten.unsqueeze.default", unsqueeze),
    view("aten.squeeze.dim", squeeze),
    view("aten.squeeze.dims", squeeze),
    view("aten.expand.default", expand),
    view("aten.slice.Tensor", slice),
    view("aten.select.int", select),
    view("aten.chunk.default", chunk),
    view("aten.split.Tensor", split),
    view("aten.split_with_sizes.default", split),
    row("aten.cat.default", cat),
    row("aten.stack.default", stack),
    row("aten.constant_pad_nd.default", pad),
    row("aten.pad.default", pad),
    row("aten.repeat.default", repeat),
    // Copies and conversions.
    view("aten.alias.default", |c| Ok(Val::Tensor(c.tensor("self")?))),
    view("aten.detach.default", |c| Ok(Val::Tensor(c.tensor("self")?))),
    view("aten.contiguous.default", |c| Ok(Val::Tensor(c.tensor("self")?))),
    row("aten.clone.default", |c| Ok(Val::Tensor(c.tensor("self")?))),
    row("aten.lift_fresh_copy.default", |c| Ok(Val::Tensor(c.tensor("self")?))),
    view("aten.dropout.default", dropout),
    in_place("aten.dropout_.default", dropout),
    view("aten.feature_dropout.default", dropout),
    view("aten.to.dtype", to_dtype),
    view("aten.to.dtype_layout", to_dtype),
    view("aten.to.device", to_dtype),
    row("aten._to_copy.default", to_dtype),
    view("aten.type_as.default", type_as),
    // Gathers and constants.
    row("aten.embedding.default", embedding),
    row("aten.index_select.default", index_select),
    row("aten.gather.default", gather),
    row("aten.arange.default", arange),
    row("aten.arange.start", arange),
    row("aten.arange.start_step", arange),
    row("aten.full.default", full),
    row("aten.zeros.default", |c| filled(c, 0.0)),
    row("aten.ones.default", |c| filled(c, 1.0)),
    row("aten.full_like.default", full_like),
    row("aten.zeros_like.default", |c| filled_like(c, 0.0)),
    row("aten.ones_like.default", |c| filled_like(c, 1.0)),
    row("aten.scalar_tensor.default", scalar_tensor),
];

const RELU6: UnaryOp = UnaryOp::Clamp { low: 0.0, high: 6.0 };

fn tensor(id: ValueId) -> Result<Val> {
    Ok(Val::Tensor(id))
}

fn sym_size(c: &mut Call) -> Result<Val> {
    let x = c.tensor("self")?;
    let axis = c.axis("dim", c.rank(x), None)?;
    Ok(Val::Size(c.shape(x)[axis].clone()))
}

fn size_arithmetic(c: &mut Call, f: fn(&Expr, &Expr) -> Option<Expr>) -> Result<Val> {
    // Python operators have their arguments by position; the exporter names them `a` and `b`.
    let names: Vec<String> = c.node.inputs.iter().map(|i| i.name.clone()).collect();
    let [a, b] = names.as_slice() else { return Err("a Python operator on sizes takes two arguments".into()) };
    let (a, b) = (c.opt_size(a)?, c.opt_size(b)?);
    let result = a.zip(b).and_then(|(a, b)| f(&a, &b));
    result.map(Val::Size).ok_or_else(|| "this arithmetic on sizes is not supported".into())
}

fn window(c: &mut Call, x: ValueId, kernel: [i64; 2], stride: [i64; 2], pad: [i64; 2]) -> Result<Window> {
    if c.rank(x) != 4 {
        return Err(
            format!("only two spatial dimensions with a batch are supported, and its input has rank {}", c.rank(x)).into()
        );
    }
    let dilation = c.pair("dilation", [1, 1])?;
    Ok(Window { kernel, stride, pad: [[pad[0]; 2], [pad[1]; 2]], dilation })
}

fn kernel_of(c: &Call, weight: ValueId) -> Result<[i64; 2]> {
    match c.ty(weight).shape.iter().map(Expr::as_const).collect::<Option<Vec<_>>>().as_deref() {
        Some([_, _, h, w]) => Ok([*h, *w]),
        _ => Err("only two spatial dimensions with constant weights are supported".into()),
    }
}

fn conv(c: &mut Call) -> Result<Val> {
    let (x, weight) = (c.tensor("input")?, c.tensor("weight")?);
    if c.flag("transposed", false)? {
        return Err("transposed convolution is not supported".into());
    }
    let (stride, pad) = (c.pair("stride", [1, 1])?, c.pair("padding", [0, 0])?);
    let kernel = kernel_of(c, weight)?;
    let window = window(c, x, kernel, stride, pad)?;
    finish_conv(c, x, weight, window)
}

/// `padding="same"` or `"valid"`; same is for stride 1, an odd total puts the extra row or column last.
fn conv_same(c: &mut Call) -> Result<Val> {
    let (x, weight) = (c.tensor("input")?, c.tensor("weight")?);
    let kernel = kernel_of(c, weight)?;
    let stride = c.pair("stride", [1, 1])?;
    let mut window = window(c, x, kernel, stride, [0, 0])?;
    if c.text("padding") == Some("same") {
        let totals = [0, 1].map(|axis| window.dilation[axis] * (kernel[axis] - 1));
        window.pad = totals.map(|total| [total / 2, total - total / 2]);
    }
    finish_conv(c, x, weight, window)
}

fn finish_conv(c: &mut Call, x: ValueId, weight: ValueId, window: Window) -> Result<Val> {
    let groups = c.int("groups", Some(1))?;
    let inputs: Vec<ValueId> = [Some(x), Some(weight), c.opt_tensor("bias")?].into_iter().flatten().collect();
    tensor(c.push(Op::Conv { window, groups }, &inputs)?)
}

fn batch_norm(c: &mut Call, training: &str) -> Result<Val> {
    if !training.is_empty() && c.flag(training, false)? {
        return Err("the batch normalisation is in training mode; call model.eval() before exporting".into());
    }
    let x = c.tensor("input")?;
    let mean = c.opt_tensor("running_mean")?;
    let variance = c.opt_tensor("running_var")?;
    let (Some(mean), Some(variance)) = (mean, variance) else {
        return Err("a batch normalisation without running statistics is not supported".into());
    };
    let (dtype, channels) = (c.ty(mean).dtype, c.shape(mean));
    let mut affine = |name: &str, value: f64| match c.opt_tensor(name)? {
        Some(id) => Ok::<_, CallError>(id),
        None => c.push(Op::Full { value, shape: channels.clone(), dtype }, &[]),
    };
    let (scale, shift) = (affine("weight", 1.0)?, affine("bias", 0.0)?);
    let eps = c.float("eps", 1e-5)?;
    tensor(c.push(Op::BatchNorm { eps }, &[x, scale, shift, mean, variance])?)
}

fn linear(c: &mut Call) -> Result<Val> {
    let inputs: Vec<ValueId> =
        [Some(c.tensor("input")?), Some(c.tensor("weight")?), c.opt_tensor("bias")?].into_iter().flatten().collect();
    tensor(c.push(Op::Linear, &inputs)?)
}

/// `beta self + alpha mat1 mat2`. The decomposition of linear transposes the weight; canonicalisation undoes that.
fn addmm(c: &mut Call) -> Result<Val> {
    let (bias, a, b) = (c.tensor("self")?, c.tensor("mat1")?, c.tensor("mat2")?);
    let (alpha, beta) = (c.float("alpha", 1.0)?, c.float("beta", 1.0)?);
    let dtype = c.ty(a).dtype;
    let product = c.push(Op::MatMul, &[a, b])?;
    let product = times(c, product, alpha, dtype)?;
    let bias = times(c, bias, beta, dtype)?;
    tensor(c.binary(BinaryOp::Add, product, bias)?)
}

fn times(c: &mut Call, x: ValueId, factor: f64, dtype: DType) -> Result<ValueId> {
    if factor == 1.0 {
        return Ok(x);
    }
    let factor = c.full(factor, dtype)?;
    c.binary(BinaryOp::Mul, x, factor)
}

/// torch's matmul: a vector operand gets a dimension of size 1 that the result loses again.
fn matmul(c: &mut Call, other: &str) -> Result<Val> {
    let (mut a, mut b) = (c.tensor("self")?, c.tensor(other)?);
    let (row, column) = (c.rank(a) == 1, c.rank(b) == 1);
    if row {
        let shape = [vec![Expr::one()], c.shape(a)].concat();
        a = c.reshape(a, shape)?;
    }
    if column {
        let shape = [c.shape(b), vec![Expr::one()]].concat();
        b = c.reshape(b, shape)?;
    }
    let product = c.push(Op::MatMul, &[a, b])?;
    let mut shape = c.shape(product);
    let rank = shape.len();
    if column {
        shape.remove(rank - 1);
    }
    if row {
        shape.remove(rank - 2);
    }
    tensor(c.reshape(product, shape)?)
}

fn layer_norm(c: &mut Call) -> Result<Val> {
    let x = c.tensor("input")?;
    let axes = c.sizes("normalized_shape")?;
    let eps = c.float("eps", 1e-5)?;
    let (scale, shift) = (c.opt_tensor("weight")?, c.opt_tensor("bias")?);
    let mut inputs = vec![x];
    if scale.is_some() || shift.is_some() {
        let dtype = c.ty(x).dtype;
        for (given, value) in [(scale, 1.0), (shift, 0.0)] {
            inputs.push(match given {
                Some(id) => id,
                None => c.push(Op::Full { value, shape: axes.clone(), dtype }, &[])?,
            });
        }
    }
    tensor(c.push(Op::LayerNorm { axes: axes.len(), eps }, &inputs)?)
}

fn max_pool(c: &mut Call) -> Result<Val> {
    pool(c, PoolOp::Max)
}

fn avg_pool(c: &mut Call) -> Result<Val> {
    if c.has("divisor_override") {
        return Err("avg_pool2d with a divisor_override is not supported".into());
    }
    let count_include_pad = c.flag("count_include_pad", true)?;
    pool(c, PoolOp::Avg { count_include_pad })
}

fn pool(c: &mut Call, op: PoolOp) -> Result<Val> {
    let x = c.tensor("self")?;
    let kernel = c.pair("kernel_size", [1, 1])?;
    let (stride, pad) = (c.pair("stride", kernel)?, c.pair("padding", [0, 0])?);
    let mut window = window(c, x, kernel, stride, pad)?;
    if c.flag("ceil_mode", false)? {
        if matches!(op, PoolOp::Avg { .. }) {
            return Err("average pooling in ceil mode is not supported".into());
        }
        for axis in 0..2 {
            let size = c.shape(x)[axis + 2].as_const().ok_or("pooling in ceil mode needs constant spatial sizes")?;
            window.grow_to_ceil(axis, size);
        }
    }
    tensor(c.push(Op::Pool { op, window }, &[x])?)
}

fn adaptive_avg_pool(c: &mut Call) -> Result<Val> {
    let x = c.tensor("self")?;
    let output = c.pair("output_size", [1, 1])?;
    tensor(c.push(Op::AdaptiveAvgPool { output }, &[x])?)
}

fn attention(c: &mut Call) -> Result<Val> {
    let (query, key, value) = (c.tensor("query")?, c.tensor("key")?, c.tensor("value")?);
    if c.float("dropout_p", 0.0)? != 0.0 {
        return Err("attention with dropout is not supported; call model.eval() before exporting".into());
    }
    if c.flag("enable_gqa", false)? {
        return Err("attention with grouped queries is not supported".into());
    }
    let width = c.shape(query).last().and_then(Expr::as_const);
    let scale = match (c.opt_float("scale")?, width) {
        (Some(scale), _) => scale,
        (None, Some(width)) => 1.0 / (width as f64).sqrt(),
        (None, None) => return Err("attention over a symbolic width needs an explicit scale".into()),
    };
    let causal = c.flag("is_causal", false)?;
    let inputs: Vec<ValueId> = [Some(query), Some(key), Some(value), c.opt_tensor("attn_mask")?].into_iter().flatten().collect();
    tensor(c.push(Op::Attention { scale, causal }, &inputs)?)
}

fn softmax(c: &mut Call) -> Result<Val> {
    let x = c.tensor("self")?;
    let x = match c.opt_dtype("dtype")? {
        Some(dtype) => c.cast(x, dtype)?,
        None => x,
    };
    let axis = c.axis("dim", c.rank(x), None)?;
    tensor(c.push(Op::Softmax { axis }, &[x])?)
}

fn unary(c: &mut Call, op: UnaryOp) -> Result<Val> {
    let x = c.tensor("self")?;
    tensor(c.unary(op, x)?)
}

fn hardtanh(c: &mut Call) -> Result<Val> {
    let op = UnaryOp::Clamp { low: c.float("min_val", -1.0)?, high: c.float("max_val", 1.0)? };
    unary(c, op)
}

fn clamp(c: &mut Call) -> Result<Val> {
    let op = UnaryOp::Clamp { low: c.float("min", f64::NEG_INFINITY)?, high: c.float("max", f64::INFINITY)? };
    unary(c, op)
}

fn gelu(c: &mut Call) -> Result<Val> {
    match c.text("approximate").unwrap_or("none") {
        "tanh" => unary(c, UnaryOp::GeluTanh),
        _ => unary(c, UnaryOp::Gelu),
    }
}

fn leaky_relu(c: &mut Call) -> Result<Val> {
    let slope = c.float("negative_slope", 0.01)?;
    unary(c, UnaryOp::LeakyRelu { slope })
}

fn elu(c: &mut Call) -> Result<Val> {
    if c.float("scale", 1.0)? != 1.0 || c.float("input_scale", 1.0)? != 1.0 {
        return Err("elu with a scale is not supported".into());
    }
    let alpha = c.float("alpha", 1.0)?;
    unary(c, UnaryOp::Elu { alpha })
}

fn logical_not(c: &mut Call) -> Result<Val> {
    let x = c.tensor("self")?;
    if c.ty(x).dtype != DType::Bool {
        return Err("`not` of numbers is not supported".into());
    }
    tensor(c.unary(UnaryOp::Not, x)?)
}

fn binary(c: &mut Call, op: BinaryOp) -> Result<Val> {
    let a = c.tensor("self")?;
    let b = c.operand("other", c.ty(a).dtype)?;
    tensor(c.binary(op, a, b)?)
}

/// `self ± alpha other`.
fn scaled(c: &mut Call, op: BinaryOp) -> Result<Val> {
    let a = c.tensor("self")?;
    let b = c.operand("other", c.ty(a).dtype)?;
    let alpha = c.float("alpha", 1.0)?;
    let b = times(c, b, alpha, c.ty(b).dtype)?;
    tensor(c.binary(op, a, b)?)
}

fn rsub(c: &mut Call) -> Result<Val> {
    let a = c.tensor("self")?;
    let b = c.operand("other", c.ty(a).dtype)?;
    let alpha = c.float("alpha", 1.0)?;
    let a = times(c, a, alpha, c.ty(a).dtype)?;
    tensor(c.binary(BinaryOp::Sub, b, a)?)
}

fn div_mode(c: &mut Call) -> Result<Val> {
    match c.text("rounding_mode") {
        Some("floor") => binary(c, BinaryOp::FloorDiv),
        None => binary(c, BinaryOp::Div),
        Some(other) => Err(format!("division with rounding mode `{other}` is not supported").into()),
    }
}

fn pow(c: &mut Call) -> Result<Val> {
    let x = c.tensor("self")?;
    if let Ok(Some(power)) = c.opt_float("exponent") {
        match power {
            0.5 => return tensor(c.unary(UnaryOp::Sqrt, x)?),
            -0.5 => return tensor(c.unary(UnaryOp::Rsqrt, x)?),
            1.0 => return tensor(x),
            2.0 => return tensor(c.binary(BinaryOp::Mul, x, x)?),
            _ => {}
        }
    }
    let exponent = c.operand("exponent", c.ty(x).dtype)?;
    tensor(c.binary(BinaryOp::Pow, x, exponent)?)
}

fn logical(c: &mut Call, op: BinaryOp) -> Result<Val> {
    let a = c.tensor("self")?;
    let b = c.operand("other", c.ty(a).dtype)?;
    if c.ty(a).dtype != DType::Bool || c.ty(b).dtype != DType::Bool {
        return Err("bitwise operators on numbers are not supported".into());
    }
    tensor(c.push(Op::Binary(op), &[a, b])?)
}

fn where_self(c: &mut Call) -> Result<Val> {
    let (condition, a, b) = (c.tensor("condition")?, c.tensor("self")?, c.tensor("other")?);
    let dtype = c.common(a, b);
    let (a, b) = (c.cast(a, dtype)?, c.cast(b, dtype)?);
    tensor(c.push(Op::Where, &[condition, a, b])?)
}

fn masked_fill(c: &mut Call) -> Result<Val> {
    let (x, mask) = (c.tensor("self")?, c.tensor("mask")?);
    let value = c.operand("value", c.ty(x).dtype)?;
    let value = c.cast(value, c.ty(x).dtype)?;
    tensor(c.push(Op::Where, &[mask, value, x])?)
}

fn reduce(c: &mut Call, op: ReduceOp) -> Result<Val> {
    let mut x = c.tensor("self")?;
    if let Some(dtype) = c.opt_dtype("dtype")? {
        x = c.cast(x, dtype)?;
    }
    let logical = matches!(op, ReduceOp::Any | ReduceOp::All);
    if logical && c.ty(x).dtype != DType::Bool {
        let zero = c.full(0.0, c.ty(x).dtype)?;
        x = c.push(Op::Binary(BinaryOp::Ne), &[x, zero])?;
    }
    let axes = c.axes("dim", c.rank(x))?;
    let keepdim = c.flag("keepdim", false)?;
    tensor(c.push(Op::Reduce { op, axes, keepdim }, &[x])?)
}

/// Resolves the one `-1` of a new shape.
fn reshape(c: &mut Call, name: &str) -> Result<Val> {
    let x = c.tensor("self")?;
    let mut shape = c.sizes(name)?;
    let minus = Expr::from(-1);
    if let Some(at) = shape.iter().position(|s| *s == minus) {
        let total = c.shape(x).iter().fold(Expr::one(), |a, b| &a * b);
        let rest = shape.iter().enumerate().filter(|(i, _)| *i != at).fold(Expr::one(), |a, (_, b)| &a * b);
        shape[at] =
            total.div_exact(&rest).ok_or_else(|| format!("the -1 of its shape is {total} / {rest}, which is no whole size"))?;
    }
    tensor(c.reshape(x, shape)?)
}

fn flatten(c: &mut Call) -> Result<Val> {
    let x = c.tensor("self")?;
    let rank = c.rank(x);
    let (start, end) = (c.axis("start_dim", rank, Some(0))?, c.axis("end_dim", rank, Some(-1))?);
    let mut shape = c.shape(x);
    if rank == 0 {
        shape = vec![Expr::one()];
    } else if start < end {
        let merged = shape.drain(start..=end).fold(Expr::one(), |a, b| &a * &b);
        shape.insert(start, merged);
    }
    tensor(c.reshape(x, shape)?)
}

fn permute(c: &mut Call) -> Result<Val> {
    let x = c.tensor("self")?;
    let rank = c.rank(x);
    let axes = c.opt_ints("dims")?.unwrap_or_default().into_iter().map(|a| axis(a, rank)).collect::<Result<_>>()?;
    tensor(c.push(Op::Permute { axes }, &[x])?)
}

fn transpose(c: &mut Call) -> Result<Val> {
    let x = c.tensor("self")?;
    let rank = c.rank(x);
    let mut axes: Vec<usize> = (0..rank).collect();
    if rank > 0 {
        axes.swap(c.axis("dim0", rank, None)?, c.axis("dim1", rank, None)?);
    }
    tensor(c.push(Op::Permute { axes }, &[x])?)
}

fn transpose_2d(c: &mut Call) -> Result<Val> {
    let x = c.tensor("self")?;
    let axes = (0..c.rank(x)).rev().collect();
    tensor(c.push(Op::Permute { axes }, &[x])?)
}

fn unsqueeze(c: &mut Call) -> Result<Val> {
    let x = c.tensor("self")?;
    let axis = c.axis("dim", c.rank(x) + 1, None)?;
    let mut shape = c.shape(x);
    shape.insert(axis, Expr::one());
    tensor(c.reshape(x, shape)?)
}

fn squeeze(c: &mut Call) -> Result<Val> {
    let x = c.tensor("self")?;
    let axes = c.axes("dim", c.rank(x))?;
    let shape = c
        .shape(x)
        .into_iter()
        .enumerate()
        .filter(|(i, s)| !(axes.contains(i) && s.as_const() == Some(1)))
        .map(|(_, s)| s)
        .collect();
    tensor(c.reshape(x, shape)?)
}

fn expand(c: &mut Call) -> Result<Val> {
    let x = c.tensor("self")?;
    let old = c.shape(x);
    let mut shape = c.sizes("size")?;
    let new = shape.len().checked_sub(old.len()).ok_or("it has fewer dimensions than its input")?;
    for (i, size) in shape.iter_mut().enumerate() {
        if size.as_const() == Some(-1) {
            *size = i.checked_sub(new).map(|i| old[i].clone()).ok_or("a new dimension cannot have size -1")?;
        }
    }
    if shape == old { tensor(x) } else { tensor(c.push(Op::Expand { shape }, &[x])?) }
}

/// Clamps a position as Python does: negative ones count from the end.
fn position(at: Option<Expr>, size: &Expr, default: &Expr) -> Expr {
    match at {
        None => default.clone(),
        Some(at) => match (at.as_const(), size.as_const()) {
            (Some(n), Some(size)) => Expr::from(if n < 0 { n.saturating_add(size).max(0) } else { n.min(size) }),
            // torch writes the largest integer for "to the end".
            (Some(n), None) if n >= i64::from(i32::MAX) => size.clone(),
            (Some(n), None) if n <= -i64::from(i32::MAX) => Expr::zero(),
            (Some(n), None) if n < 0 => size + &Expr::from(n),
            _ => at,
        },
    }
}

fn slice(c: &mut Call) -> Result<Val> {
    let x = c.tensor("self")?;
    let axis = c.axis("dim", c.rank(x), Some(0))?;
    let size = c.shape(x)[axis].clone();
    let start = position(c.opt_size("start")?, &size, &Expr::zero());
    let end = position(c.opt_size("end")?, &size, &size);
    let step = c.int("step", Some(1))?;
    if start.as_const() == Some(0) && end == size && step == 1 {
        return tensor(x);
    }
    let end = match (start.as_const(), end.as_const()) {
        (Some(s), Some(e)) => Expr::from(e.max(s)),
        _ => end,
    };
    tensor(c.push(Op::Slice { axis, start, end, step }, &[x])?)
}

/// One position of an axis, which is then dropped.
fn select(c: &mut Call) -> Result<Val> {
    let x = c.tensor("self")?;
    let axis = c.axis("dim", c.rank(x), None)?;
    let mut shape = c.shape(x);
    let index = c.opt_size("index")?.ok_or("select needs an index")?;
    let start = if index.as_const().is_some_and(|n| n < 0) { &shape[axis] + &index } else { index };
    let part = c.push(Op::Slice { axis, start: start.clone(), end: &start + &Expr::one(), step: 1 }, &[x])?;
    shape.remove(axis);
    tensor(c.reshape(part, shape)?)
}

fn parts(c: &mut Call, x: ValueId, axis: usize, sizes: &[i64]) -> Result<Val> {
    let mut start = 0;
    let mut list = Vec::with_capacity(sizes.len());
    for size in sizes {
        list.push(c.push(Op::Slice { axis, start: Expr::from(start), end: Expr::from(start + size), step: 1 }, &[x])?);
        start += size;
    }
    Ok(Val::Tensors(list))
}

/// Most parts that a tensor is split into; each is a node.
const MAX_PARTS: i64 = 1 << 16;

fn equal_parts(size: i64, part: i64) -> Result<Vec<i64>> {
    if part < 1 || size / part > MAX_PARTS {
        return Err(format!("a size of {size} cannot be split into parts of {part}").into());
    }
    Ok((0..size).step_by(part as usize).map(|at| part.min(size - at)).collect())
}

fn split(c: &mut Call) -> Result<Val> {
    let x = c.tensor("self")?;
    let axis = c.axis("dim", c.rank(x), Some(0))?;
    let sizes = match c.opt_ints("split_sizes")? {
        Some(sizes) => sizes,
        None => {
            let size = c.shape(x)[axis].as_const().ok_or("splitting a symbolic dimension is not supported")?;
            equal_parts(size, c.int("split_size", None)?)?
        }
    };
    parts(c, x, axis, &sizes)
}

fn chunk(c: &mut Call) -> Result<Val> {
    let x = c.tensor("self")?;
    let axis = c.axis("dim", c.rank(x), Some(0))?;
    let size = c.shape(x)[axis].as_const().ok_or("splitting a symbolic dimension is not supported")?;
    let chunks = c.int("chunks", None)?;
    if chunks < 1 {
        return Err("chunk needs a positive number of chunks".into());
    }
    let sizes = equal_parts(size, (size + chunks - 1) / chunks)?;
    parts(c, x, axis, &sizes)
}

fn cat(c: &mut Call) -> Result<Val> {
    let mut list = c.tensors("tensors")?;
    // torch skips empty vectors, whatever the rank of the others.
    list.retain(|&t| c.ty(t).shape.as_slice() != [Expr::zero()]);
    let first = *list.first().ok_or("cat of no tensors")?;
    let axis = c.axis("dim", c.rank(first), Some(0))?;
    let dtype = list[1..].iter().fold(c.ty(first).dtype, |d, &t| super::call::promote(d, c.ty(t).dtype));
    let list = list.into_iter().map(|t| c.cast(t, dtype)).collect::<Result<Vec<_>>>()?;
    tensor(c.push(Op::Concat { axis }, &list)?)
}

fn stack(c: &mut Call) -> Result<Val> {
    let list = c.tensors("tensors")?;
    let first = *list.first().ok_or("stack of no tensors")?;
    let axis = c.axis("dim", c.rank(first) + 1, Some(0))?;
    let mut parts = Vec::with_capacity(list.len());
    for id in list {
        let mut shape = c.shape(id);
        shape.insert(axis, Expr::one());
        parts.push(c.reshape(id, shape)?);
    }
    tensor(c.push(Op::Concat { axis }, &parts)?)
}

/// torch lists padding from the last axis to the first.
fn pad(c: &mut Call) -> Result<Val> {
    if c.text("mode").is_some_and(|m| m != "constant") {
        return Err("only constant padding is supported".into());
    }
    let x = c.tensor("self")?;
    let list = c.opt_ints("pad")?.unwrap_or_default();
    let rank = c.rank(x);
    if list.len() % 2 != 0 || list.len() / 2 > rank {
        return Err(format!("its padding has {} numbers for rank {rank}", list.len()).into());
    }
    let mut pads = vec![[0, 0]; rank];
    for (i, pair) in list.chunks(2).enumerate() {
        pads[rank - 1 - i] = [pair[0], pair[1]];
    }
    let value = c.float("value", 0.0)?;
    tensor(c.push(Op::Pad { pads, value }, &[x])?)
}

/// Repeats as a reshape, an expansion and a reshape.
fn repeat(c: &mut Call) -> Result<Val> {
    let x = c.tensor("self")?;
    let repeats = c.sizes("repeats")?;
    let mut old = c.shape(x);
    let new = repeats.len().checked_sub(old.len()).ok_or("it has fewer repeats than its input has dimensions")?;
    old.splice(0..0, vec![Expr::one(); new]);
    let (mut split, mut wide, mut merged) = (Vec::new(), Vec::new(), Vec::new());
    for (size, times) in old.iter().zip(&repeats) {
        split.extend([Expr::one(), size.clone()]);
        wide.extend([times.clone(), size.clone()]);
        merged.push(size * times);
    }
    let x = c.reshape(x, split)?;
    let x = c.push(Op::Expand { shape: wide }, &[x])?;
    tensor(c.reshape(x, merged)?)
}

fn dropout(c: &mut Call) -> Result<Val> {
    if c.flag("train", false)? && c.float("p", 0.5)? != 0.0 {
        return Err("dropout is in training mode; call model.eval() before exporting".into());
    }
    let x = c.opt_tensor("input")?;
    tensor(match x {
        Some(x) => x,
        None => c.tensor("self")?,
    })
}

fn to_dtype(c: &mut Call) -> Result<Val> {
    let x = c.tensor("self")?;
    let dtype = c.opt_dtype("dtype")?.unwrap_or(c.ty(x).dtype);
    tensor(c.cast(x, dtype)?)
}

fn type_as(c: &mut Call) -> Result<Val> {
    let (x, other) = (c.tensor("self")?, c.tensor("other")?);
    tensor(c.cast(x, c.ty(other).dtype)?)
}

fn embedding(c: &mut Call) -> Result<Val> {
    let (weight, indices) = (c.tensor("weight")?, c.tensor("indices")?);
    tensor(c.push(Op::Take { axis: 0 }, &[weight, indices])?)
}

fn index_select(c: &mut Call) -> Result<Val> {
    let (x, index) = (c.tensor("self")?, c.tensor("index")?);
    let axis = c.axis("dim", c.rank(x), None)?;
    tensor(c.push(Op::Take { axis }, &[x, index])?)
}

fn gather(c: &mut Call) -> Result<Val> {
    let (x, index) = (c.tensor("self")?, c.tensor("index")?);
    let axis = c.axis("dim", c.rank(x), None)?;
    tensor(c.push(Op::GatherElements { axis }, &[x, index])?)
}

fn arange(c: &mut Call) -> Result<Val> {
    let fractional = |s: &Scalar| matches!(s, Scalar::Float(_));
    let end = c.scalar("end")?;
    let start = if c.has("start") { c.scalar("start")? } else { Scalar::Int(Expr::zero()) };
    if fractional(&end) || fractional(&start) {
        return Err("arange over fractions is not supported".into());
    }
    let end = c.opt_size("end")?.ok_or("arange needs an end")?;
    let start = match c.opt_size("start")? {
        Some(start) => start.as_const().ok_or("arange from a symbolic start is not supported")?,
        None => 0,
    };
    let step = c.int("step", Some(1))?;
    if step == 0 {
        return Err("arange with step 0".into());
    }
    let span = &end - &Expr::from(start);
    let length = match (span.as_const(), step) {
        (Some(n), _) => Expr::from((n + step - step.signum()).div_euclid(step).max(0)),
        (None, 1) => span,
        (None, _) if step > 1 => (&span + &Expr::from(step - 1)).floor_div(&Expr::from(step)),
        _ => return Err("arange with a negative step over a symbolic range is not supported".into()),
    };
    let dtype = c.opt_dtype("dtype")?.unwrap_or(DType::I64);
    tensor(c.push(Op::Iota { length, start, step, dtype }, &[])?)
}

fn filled_with(c: &mut Call, value: &Scalar, shape: Vec<Expr>, dtype: Option<DType>) -> Result<Val> {
    let natural = match value {
        Scalar::Float(_) => DType::F32,
        Scalar::Int(_) => DType::I64,
        Scalar::Bool(_) => DType::Bool,
    };
    let dtype = dtype.unwrap_or(natural);
    let constant = match value {
        Scalar::Float(f) => Some(*f),
        Scalar::Bool(b) => Some(f64::from(u8::from(*b))),
        Scalar::Int(e) => e.as_const().map(|n| n as f64),
    };
    if let Some(value) = constant {
        return tensor(c.push(Op::Full { value, shape, dtype }, &[])?);
    }
    let scalar = c.number(value, dtype)?;
    tensor(c.push(Op::Expand { shape }, &[scalar])?)
}

fn full(c: &mut Call) -> Result<Val> {
    let (value, shape, dtype) = (c.scalar("fill_value")?, c.sizes("size")?, c.opt_dtype("dtype")?);
    filled_with(c, &value, shape, dtype)
}

fn filled(c: &mut Call, value: f64) -> Result<Val> {
    let (shape, dtype) = (c.sizes("size")?, c.opt_dtype("dtype")?);
    filled_with(c, &Scalar::Float(value), shape, dtype)
}

fn full_like(c: &mut Call) -> Result<Val> {
    let (x, value, dtype) = (c.tensor("self")?, c.scalar("fill_value")?, c.opt_dtype("dtype")?);
    let (shape, dtype) = (c.shape(x), dtype.unwrap_or(c.ty(x).dtype));
    filled_with(c, &value, shape, Some(dtype))
}

fn filled_like(c: &mut Call, value: f64) -> Result<Val> {
    let (x, dtype) = (c.tensor("self")?, c.opt_dtype("dtype")?);
    let (shape, dtype) = (c.shape(x), dtype.unwrap_or(c.ty(x).dtype));
    filled_with(c, &Scalar::Float(value), shape, Some(dtype))
}

fn scalar_tensor(c: &mut Call) -> Result<Val> {
    let (value, dtype) = (c.scalar("s")?, c.opt_dtype("dtype")?);
    filled_with(c, &value, Vec::new(), Some(dtype.unwrap_or(DType::F32)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_distinct() {
        let mut names: Vec<_> = ROWS.iter().map(|r| r.name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|w| w[0] != w[1]), "an operator is listed twice");
    }
}
