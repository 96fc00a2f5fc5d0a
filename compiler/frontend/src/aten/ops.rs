//! The mapping of torch operators, in both the exported and the decomposed form. A row is an operator; defaults of arguments
//! that are left out are those of the operator's schema.

use aotfarm_ir::{BinaryOp, Domain, Expr, Number, PoolOp, ReduceOp, UnaryOp, ValueId, Window};
use aotfarm_protocol::DType;

use super::call::{Call, Operand, Scalar};
use super::program::Argument;
use super::scope::Val;
use crate::semantics::conv::{self, Same};
use crate::semantics::pointwise::{self, RELU6};
use crate::semantics::view::Repeats;
use crate::semantics::{self, Emit, Result, gather, norm, pool, product, reduce, source, view};
use crate::storage;

type Map = fn(&mut Call) -> Result<Val>;

/// How one operator is mapped.
pub(super) struct Row {
    /// As in `aten.conv2d.default`.
    name: &'static str,
    pub(super) map: Map,
    pub(super) shares: Shares,
}

/// Whether the results of an operator share memory with its first operand.
#[derive(Clone, Copy)]
pub(super) enum Shares {
    Never,
    Always,
    /// It depends on the arguments, and on the shape of the result.
    If(Condition),
}

type Condition = fn(&Call, ValueId) -> Result<bool>;

/// What an operator writes to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Writes {
    Nothing,
    /// Its first operand takes over the result.
    First,
}

const fn row(name: &'static str, map: Map) -> Row {
    Row { name, map, shares: Shares::Never }
}

const fn shares(name: &'static str, map: Map) -> Row {
    Row { name, map, shares: Shares::Always }
}

const fn shares_if(condition: Condition, name: &'static str, map: Map) -> Row {
    Row { name, map, shares: Shares::If(condition) }
}

/// The row of an operator, and what it writes to: `aten.add_.Tensor` writes what `aten.add.Tensor` computes.
pub(super) fn find(name: &str) -> Option<(&'static Row, Writes)> {
    let exact = |name: &str| ROWS.iter().find(|row| row.name == name);
    if let Some(row) = exact(name) {
        return Some((row, Writes::Nothing));
    }
    let (operator, overload) = name.rsplit_once('.')?;
    // `__iand__` is `__and__` in place.
    let functional = match operator.strip_prefix("aten.__i") {
        Some(logic) => format!("aten.__{logic}.{overload}"),
        None => format!("{}.{overload}", operator.strip_suffix('_')?),
    };
    exact(&functional).map(|row| (row, Writes::First))
}

static ROWS: &[Row] = &[
    // Sizes and assertions.
    row("aten.sym_size.int", sym_size),
    row("aten.sym_numel.default", sym_numel),
    row("_operator.mul", |c| size_arithmetic(c, |a, b| Some(a * b))),
    row("_operator.add", |c| size_arithmetic(c, |a, b| Some(a + b))),
    row("_operator.sub", |c| size_arithmetic(c, |a, b| Some(a - b))),
    row("_operator.floordiv", |c| size_arithmetic(c, |a, b| b.as_const().filter(|d| *d > 0).map(|_| a.floor_div(b)))),
    row("_operator.mod", |c| size_arithmetic(c, |a, b| b.as_const().filter(|d| *d > 0).map(|_| a.modulo(b)))),
    row("aten._assert_tensor_metadata.default", |_| Ok(Val::Nothing)),
    row("aten._assert_scalar.default", |_| Ok(Val::Nothing)),
    row("aten.sym_constrain_range_for_size.default", |_| Ok(Val::Nothing)),
    // Convolution, linear, normalisation, pooling.
    row("aten.conv2d.default", convolution),
    row("aten.conv2d.padding", convolution_same),
    row("aten.convolution.default", convolution),
    row("aten.batch_norm.default", |c| batch_norm(c, "training")),
    row("aten._native_batch_norm_legit_no_training.default", |c| batch_norm(c, "")),
    row("aten.linear.default", linear),
    row("aten.addmm.default", |c| addmm(c, ["mat1", "mat2"])),
    row("aten.baddbmm.default", |c| addmm(c, ["batch1", "batch2"])),
    row("aten.mm.default", |c| matmul(c, "mat2")),
    row("aten.bmm.default", |c| matmul(c, "mat2")),
    row("aten.matmul.default", |c| matmul(c, "other")),
    row("aten.layer_norm.default", layer_norm),
    row("aten.native_layer_norm.default", layer_norm),
    row("aten.max_pool2d.default", max_pool),
    row("aten.max_pool2d_with_indices.default", max_pool_with_indices),
    row("aten.avg_pool2d.default", avg_pool),
    row("aten.adaptive_avg_pool2d.default", adaptive_avg_pool),
    row("aten._adaptive_avg_pool2d.default", adaptive_avg_pool),
    row("aten.scaled_dot_product_attention.default", attention),
    row("aten.softmax.int", softmax),
    row("aten._softmax.default", softmax),
    // Element-wise functions of one tensor.
    row("aten.relu.default", |c| unary(c, UnaryOp::Relu)),
    row("aten.relu6.default", |c| unary(c, RELU6)),
    row("aten.hardtanh.default", hardtanh),
    row("aten.hardswish.default", |c| unary(c, UnaryOp::Hardswish)),
    row("aten.hardsigmoid.default", |c| unary(c, UnaryOp::Hardsigmoid)),
    row("aten.silu.default", |c| unary(c, UnaryOp::Silu)),
    row("aten.sigmoid.default", |c| unary(c, UnaryOp::Sigmoid)),
    row("aten.tanh.default", |c| unary(c, UnaryOp::Tanh)),
    row("aten.gelu.default", gelu),
    row("aten.leaky_relu.default", leaky_relu),
    row("aten.elu.default", elu),
    row("aten.erf.default", |c| unary(c, UnaryOp::Erf)),
    row("aten.exp.default", |c| unary(c, UnaryOp::Exp)),
    row("aten.log.default", |c| unary(c, UnaryOp::Log)),
    row("aten.log1p.default", |c| unary(c, UnaryOp::Log1p)),
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
    row("aten.bitwise_not.default", bitwise_not),
    row("aten.clamp.default", clamp),
    row("aten.clamp.Tensor", clamp),
    row("aten.clamp_min.default", clamp),
    row("aten.clamp_min.Tensor", clamp),
    row("aten.clamp_max.default", clamp),
    row("aten.clamp_max.Tensor", clamp),
    // Element-wise functions of two.
    row("aten.add.Tensor", |c| scaled(c, BinaryOp::Add)),
    row("aten.add.Scalar", |c| scaled(c, BinaryOp::Add)),
    row("aten.sub.Tensor", |c| scaled(c, BinaryOp::Sub)),
    row("aten.sub.Scalar", |c| scaled(c, BinaryOp::Sub)),
    row("aten.rsub.Scalar", rsub),
    row("aten.rsub.Tensor", rsub),
    row("aten.mul.Tensor", |c| binary(c, BinaryOp::Mul)),
    row("aten.mul.Scalar", |c| binary(c, BinaryOp::Mul)),
    row("aten.div.Tensor", |c| binary(c, BinaryOp::Div)),
    row("aten.div.Scalar", |c| binary(c, BinaryOp::Div)),
    row("aten.div.Tensor_mode", div_mode),
    row("aten.div.Scalar_mode", div_mode),
    row("aten.floor_divide.default", |c| binary(c, BinaryOp::FloorDiv)),
    row("aten.remainder.Scalar", |c| binary(c, BinaryOp::Mod)),
    row("aten.remainder.Tensor", |c| binary(c, BinaryOp::Mod)),
    row("aten.remainder.Scalar_Tensor", |c| binary(c, BinaryOp::Mod)),
    row("aten.fmod.Scalar", |c| binary(c, BinaryOp::Fmod)),
    row("aten.fmod.Tensor", |c| binary(c, BinaryOp::Fmod)),
    row("aten.maximum.default", |c| binary(c, BinaryOp::Max)),
    row("aten.minimum.default", |c| binary(c, BinaryOp::Min)),
    row("aten.pow.Tensor_Scalar", pow),
    row("aten.pow.Tensor_Tensor", pow),
    row("aten.pow.Scalar", pow),
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
    row("aten.logical_xor.default", |c| logical(c, BinaryOp::Ne)),
    row("aten.bitwise_and.Tensor", |c| bitwise(c, BinaryOp::And)),
    row("aten.bitwise_and.Scalar", |c| bitwise(c, BinaryOp::And)),
    row("aten.bitwise_or.Tensor", |c| bitwise(c, BinaryOp::Or)),
    row("aten.bitwise_or.Scalar", |c| bitwise(c, BinaryOp::Or)),
    row("aten.bitwise_xor.Tensor", bitwise_xor),
    row("aten.bitwise_xor.Scalar", bitwise_xor),
    row("aten.__and__.Tensor", |c| bitwise(c, BinaryOp::And)),
    row("aten.__and__.Scalar", |c| bitwise(c, BinaryOp::And)),
    row("aten.__or__.Tensor", |c| bitwise(c, BinaryOp::Or)),
    row("aten.__or__.Scalar", |c| bitwise(c, BinaryOp::Or)),
    row("aten.__xor__.Tensor", bitwise_xor),
    row("aten.__xor__.Scalar", bitwise_xor),
    row("aten.where.self", where_),
    row("aten.where.ScalarOther", where_),
    row("aten.where.ScalarSelf", where_),
    row("aten.where.Scalar", where_),
    row("aten.masked_fill.Scalar", masked_fill),
    row("aten.masked_fill.Tensor", masked_fill),
    // Reductions.
    row("aten.mean.default", |c| reduction(c, ReduceOp::Mean)),
    row("aten.mean.dim", |c| reduction(c, ReduceOp::Mean)),
    row("aten.sum.default", |c| reduction(c, ReduceOp::Sum)),
    row("aten.sum.dim_IntList", |c| reduction(c, ReduceOp::Sum)),
    row("aten.prod.default", |c| reduction(c, ReduceOp::Prod)),
    row("aten.prod.dim_int", |c| reduction(c, ReduceOp::Prod)),
    row("aten.amax.default", |c| reduction(c, ReduceOp::Max)),
    row("aten.amin.default", |c| reduction(c, ReduceOp::Min)),
    row("aten.any.default", |c| reduction(c, ReduceOp::Any)),
    row("aten.any.dim", |c| reduction(c, ReduceOp::Any)),
    row("aten.any.dims", |c| reduction(c, ReduceOp::Any)),
    row("aten.all.default", |c| reduction(c, ReduceOp::All)),
    row("aten.all.dim", |c| reduction(c, ReduceOp::All)),
    row("aten.all.dims", |c| reduction(c, ReduceOp::All)),
    // Shapes and views.
    shares("aten.view.default", |c| reshape(c, "size")),
    shares("aten._unsafe_view.default", |c| reshape(c, "size")),
    shares_if(is_viewable, "aten.reshape.default", |c| reshape(c, "shape")),
    shares_if(is_viewable, "aten.flatten.using_ints", flatten),
    shares("aten.permute.default", permute),
    shares("aten.transpose.int", transpose),
    shares("aten.t.default", transpose_2d),
    shares("aten.unsqueeze.default", unsqueeze),
    shares("aten.squeeze.default", squeeze),
    shares("aten.squeeze.dim", squeeze),
    shares("aten.squeeze.dims", squeeze),
    shares("aten.expand.default", expand),
    shares("aten.broadcast_to.default", expand),
    shares("aten.slice.Tensor", slice),
    shares("aten.narrow.default", narrow),
    shares("aten.select.int", select),
    shares("aten.unbind.int", unbind),
    shares("aten.diagonal.default", diagonal),
    shares("aten.chunk.default", chunk),
    shares("aten.split.Tensor", split),
    shares("aten.split_with_sizes.default", split),
    row("aten.slice_scatter.default", |c| scatter(c, slice)),
    row("aten.select_scatter.default", |c| scatter(c, select)),
    row("aten.diagonal_scatter.default", |c| scatter(c, diagonal)),
    row("aten.cat.default", cat),
    row("aten.stack.default", stack),
    row("aten.constant_pad_nd.default", pad),
    row("aten.pad.default", pad),
    row("aten.repeat.default", repeat),
    // Copies and conversions.
    shares("aten.alias.default", same),
    shares("aten.detach.default", same),
    shares_if(|c, _| c.is_laid_out("self"), "aten.contiguous.default", same),
    row("aten.clone.default", same),
    row("aten.lift_fresh_copy.default", same),
    row("aten.copy.default", copy),
    shares("aten.dropout.default", dropout),
    shares("aten.feature_dropout.default", dropout),
    shares_if(is_converted_in_place, "aten.to.dtype", to_dtype),
    shares_if(is_converted_in_place, "aten.to.dtype_layout", to_dtype),
    shares_if(is_converted_in_place, "aten.to.device", to_dtype),
    row("aten._to_copy.default", to_dtype),
    shares_if(is_converted_in_place, "aten.type_as.default", type_as),
    // Gathers and constants.
    row("aten.embedding.default", embedding),
    row("aten.index_select.default", index_select),
    row("aten.gather.default", gather_elements),
    row("aten.index_copy.default", index_copy),
    row("aten.index_put.default", index_put),
    row("aten.arange.default", arange),
    row("aten.arange.start", arange),
    row("aten.arange.start_step", arange),
    row("aten.full.default", full),
    row("aten.zeros.default", |c| filled(c, 0.0)),
    row("aten.ones.default", |c| filled(c, 1.0)),
    row("aten.full_like.default", full_like),
    row("aten.fill.Scalar", fill),
    row("aten.fill.Tensor", fill),
    row("aten.zero.default", |c| filled_like(c, 0.0)),
    row("aten.zeros_like.default", |c| filled_like(c, 0.0)),
    row("aten.ones_like.default", |c| filled_like(c, 1.0)),
    row("aten.scalar_tensor.default", scalar_tensor),
];

fn tensor(id: ValueId) -> Result<Val> {
    Ok(Val::Tensor(id))
}

/// The operand itself.
fn same(c: &mut Call) -> Result<Val> {
    tensor(c.tensor("self")?)
}

/// Whether torch makes the result a view of the operand, as the elements lie so that no copy is needed.
fn is_viewable(c: &Call, result: ValueId) -> Result<bool> {
    Ok(storage::is_viewable(&c.shape(c.tensor("self")?), &c.strides("self")?, &c.shape(result)))
}

/// Whether a conversion has nothing to do, and so gives its operand.
fn is_converted_in_place(c: &Call, result: ValueId) -> Result<bool> {
    let untouched = c.tensor("self")? == result && !c.flag("copy", false)?;
    Ok(untouched && (!c.has("memory_format") || c.is_laid_out("self")?))
}

fn sym_size(c: &mut Call) -> Result<Val> {
    let x = c.tensor("self")?;
    let axis = c.axis("dim", c.rank(x), None)?;
    Ok(Val::Size(c.shape(x)[axis].clone()))
}

fn sym_numel(c: &mut Call) -> Result<Val> {
    let x = c.tensor("self")?;
    Ok(Val::Size(semantics::product(&c.shape(x))))
}

fn size_arithmetic(c: &mut Call, f: fn(&Expr, &Expr) -> Option<Expr>) -> Result<Val> {
    // Python operators have their arguments by position; the exporter names them `a` and `b`.
    let names: Vec<String> = c.node.inputs.iter().map(|i| i.name.clone()).collect();
    let [a, b] = names.as_slice() else { return Err("a Python operator on sizes takes two arguments".into()) };
    let (a, b) = (c.opt_size(a)?, c.opt_size(b)?);
    let result = a.zip(b).and_then(|(a, b)| f(&a, &b));
    result.map(Val::Size).ok_or_else(|| "this arithmetic on sizes is not supported".into())
}

/// What an operator over a batch of images makes of `x`, which may also be one image `[C, H, W]`.
fn over_batch(c: &mut Call, x: ValueId, of: impl FnOnce(&mut Emit<'_>, ValueId) -> Result<ValueId>) -> Result<ValueId> {
    let e = &mut c.emit();
    if e.rank(x) != 3 {
        return of(e, x);
    }
    let batch = view::unsqueeze(e, x, vec![0])?;
    let result = of(e, batch)?;
    view::without(e, result, &[0])
}

/// A window with equal padding on both sides.
fn window(c: &mut Call, kernel: [i64; 2], stride: [i64; 2]) -> Result<Window> {
    let (pad, dilation) = (c.pair("padding", [0, 0])?, c.pair("dilation", [1, 1])?);
    Ok(Window { kernel, stride, pad: pad.map(|pad| [pad; 2]), dilation })
}

fn convolution(c: &mut Call) -> Result<Val> {
    if c.flag("transposed", false)? {
        return Err("transposed convolution is not supported".into());
    }
    let weight = c.tensor("weight")?;
    let (kernel, stride) = (conv::kernel_of(&c.emit(), weight)?, c.pair("stride", [1, 1])?);
    let window = window(c, kernel, stride)?;
    finish_convolution(c, weight, window)
}

/// `padding="same"` or `"valid"`; same is for stride 1.
fn convolution_same(c: &mut Call) -> Result<Val> {
    let weight = c.tensor("weight")?;
    let kernel = conv::kernel_of(&c.emit(), weight)?;
    let (stride, dilation) = (c.pair("stride", [1, 1])?, c.pair("dilation", [1, 1])?);
    let mut window = Window { kernel, stride, pad: [[0; 2]; 2], dilation };
    if c.text("padding") == Some("same") {
        window.pad = [0, 1].map(|axis| Same::Upper.split(dilation[axis] * (kernel[axis] - 1)));
    }
    finish_convolution(c, weight, window)
}

fn finish_convolution(c: &mut Call, weight: ValueId, window: Window) -> Result<Val> {
    let (x, bias, groups) = (c.tensor("input")?, c.opt_tensor("bias")?, c.int("groups", Some(1))?);
    tensor(over_batch(c, x, |e, x| conv::conv(e, x, weight, bias, window, groups))?)
}

fn batch_norm(c: &mut Call, training: &str) -> Result<Val> {
    if !training.is_empty() && c.flag(training, false)? {
        return Err("the batch normalisation is in training mode; call model.eval() before exporting".into());
    }
    let x = c.tensor("input")?;
    let (Some(mean), Some(variance)) = (c.opt_tensor("running_mean")?, c.opt_tensor("running_var")?) else {
        return Err("a batch normalisation without running statistics is not supported".into());
    };
    let affine = [c.opt_tensor("weight")?, c.opt_tensor("bias")?];
    let eps = c.float("eps", 1e-5)?;
    tensor(norm::batch_norm(&mut c.emit(), x, affine, [mean, variance], eps)?)
}

fn linear(c: &mut Call) -> Result<Val> {
    let (x, weight, bias) = (c.tensor("input")?, c.tensor("weight")?, c.opt_tensor("bias")?);
    tensor(product::linear(&mut c.emit(), x, weight, bias)?)
}

/// `beta self + alpha a b`; where beta is 0, not even what is not a number passes from self. The decomposition of linear transposes
/// the weight; canonicalisation undoes that.
fn addmm(c: &mut Call, [a, b]: [&str; 2]) -> Result<Val> {
    let (bias, a, b) = (c.tensor("self")?, c.tensor(a)?, c.tensor(b)?);
    let (alpha, beta) = (c.number("alpha", Number::ONE)?, c.number("beta", Number::ONE)?);
    let mut e = c.emit();
    let result = product::matmul(&mut e, a, b)?;
    let result = pointwise::times(&mut e, result, alpha)?;
    if beta == Number::ZERO {
        return tensor(result);
    }
    let bias = pointwise::times(&mut e, bias, beta)?;
    tensor(c.binary(BinaryOp::Add, &Operand::Tensor(result), &Operand::Tensor(bias))?)
}

fn matmul(c: &mut Call, other: &str) -> Result<Val> {
    let (a, b) = (c.tensor("self")?, c.tensor(other)?);
    tensor(product::matmul(&mut c.emit(), a, b)?)
}

fn layer_norm(c: &mut Call) -> Result<Val> {
    let (x, shape, eps) = (c.tensor("input")?, c.sizes("normalized_shape")?, c.float("eps", 1e-5)?);
    let affine = [c.opt_tensor("weight")?, c.opt_tensor("bias")?];
    let dtype = c.ty(x).dtype;
    tensor(norm::layer_norm(&mut c.emit(), x, &shape, affine, dtype, eps)?)
}

fn max_pool(c: &mut Call) -> Result<Val> {
    pooling(c, PoolOp::Max)
}

/// The places count within each channel. A file names results that nothing reads `…_unused_…`.
fn max_pool_with_indices(c: &mut Call) -> Result<Val> {
    let largest = max_pool(c)?;
    let is_read = c.node.outputs.get(1).and_then(Argument::result).is_some_and(|name| !name.contains("_unused_"));
    let (true, Val::Tensor(largest)) = (is_read, &largest) else { return Ok(largest) };
    let (x, window, ceil_mode) = pooled(c)?;
    let places = over_batch(c, x, |e, x| {
        let places = pool::places_of_largest(e, x, window, ceil_mode)?;
        let size = semantics::product(&e.shape(x)[2..]);
        let size = source::number(e, &size, DType::I64)?;
        e.binary(BinaryOp::Mod, places, size)
    })?;
    Ok(Val::Tensors(vec![*largest, places]))
}

fn avg_pool(c: &mut Call) -> Result<Val> {
    if let Some(divisor) = c.opt_float("divisor_override")? {
        let (x, window, ceil_mode) = pooled(c)?;
        return tensor(over_batch(c, x, |e, x| pool::sum_over(e, x, window, ceil_mode, divisor))?);
    }
    let count_include_pad = c.flag("count_include_pad", true)?;
    pooling(c, PoolOp::Avg { count_include_pad })
}

/// What pooling takes: images, the window, whether in ceil mode.
fn pooled(c: &mut Call) -> Result<(ValueId, Window, bool)> {
    let (x, kernel) = (c.tensor("self")?, c.pair("kernel_size", [1, 1])?);
    let stride = c.pair("stride", kernel)?;
    Ok((x, window(c, kernel, stride)?, c.flag("ceil_mode", false)?))
}

fn pooling(c: &mut Call, op: PoolOp) -> Result<Val> {
    let (x, window, ceil_mode) = pooled(c)?;
    tensor(over_batch(c, x, |e, x| pool::pool(e, op, x, window, ceil_mode))?)
}

fn adaptive_avg_pool(c: &mut Call) -> Result<Val> {
    let (x, output) = (c.tensor("self")?, c.pair("output_size", [1, 1])?);
    tensor(over_batch(c, x, |e, x| pool::adaptive_average(e, x, output))?)
}

fn attention(c: &mut Call) -> Result<Val> {
    let mut operands = [c.tensor("query")?, c.tensor("key")?, c.tensor("value")?];
    if c.float("dropout_p", 0.0)? != 0.0 {
        return Err("attention with dropout is not supported; call model.eval() before exporting".into());
    }
    if c.flag("enable_gqa", false)? {
        operands = product::heads_for_each_query(&mut c.emit(), operands)?;
    }
    let (mask, scale, causal) = (c.opt_tensor("attn_mask")?, c.opt_float("scale")?, c.flag("is_causal", false)?);
    tensor(product::attention(&mut c.emit(), operands, mask, scale, causal)?)
}

fn softmax(c: &mut Call) -> Result<Val> {
    let x = c.tensor("self")?;
    let x = match c.opt_dtype("dtype")? {
        Some(dtype) => c.cast(x, dtype)?,
        None => x,
    };
    let axis = c.axis("dim", c.rank(x), None)?;
    tensor(norm::softmax(&mut c.emit(), x, axis)?)
}

/// Functions to the real numbers make floating-point numbers of integers.
fn unary(c: &mut Call, op: UnaryOp) -> Result<Val> {
    let mut x = c.tensor("self")?;
    if matches!(op.domain(), Domain::Float | Domain::PartOfFloat) && !c.ty(x).dtype.is_float() {
        x = c.cast(x, DType::F32)?;
    }
    tensor(c.unary(op, x)?)
}

fn hardtanh(c: &mut Call) -> Result<Val> {
    let (x, low, high) = (c.tensor("self")?, c.number("min_val", (-1.0).into())?, c.number("max_val", Number::ONE)?);
    tensor(pointwise::clamp(&mut c.emit(), x, Some(low), Some(high))?)
}

/// Its ends widen what is clamped: integers between fractions are floating-point numbers.
fn clamp(c: &mut Call) -> Result<Val> {
    let x = Operand::Tensor(c.tensor("self")?);
    let ends = [c.opt_operand("min")?, c.opt_operand("max")?];
    let dtype = c.common([&x].into_iter().chain(ends.iter().flatten()));
    let mut y = c.typed(&x, dtype)?;
    let known = |end: &Option<Operand>| match end {
        None => Some(None),
        Some(Operand::Number(scalar)) => scalar.number().map(Some),
        Some(Operand::Tensor(_)) => None,
    };
    if let [Some(low), Some(high)] = [known(&ends[0]), known(&ends[1])] {
        return tensor(pointwise::clamp(&mut c.emit(), y, low, high)?);
    }
    for (op, end) in [BinaryOp::Max, BinaryOp::Min].into_iter().zip(&ends) {
        if let Some(end) = end {
            y = c.binary(op, &Operand::Tensor(y), end)?;
        }
    }
    tensor(y)
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

/// Whether it is zero.
fn logical_not(c: &mut Call) -> Result<Val> {
    let x = c.operand("self")?;
    let x = c.truth(&x)?;
    tensor(c.unary(UnaryOp::Not, x)?)
}

/// The complement of an integer is what is left of -1.
fn bitwise_not(c: &mut Call) -> Result<Val> {
    let x = c.tensor("self")?;
    match c.ty(x).dtype {
        DType::Bool => tensor(c.unary(UnaryOp::Not, x)?),
        dtype if dtype.is_float() => Err("it takes integers".into()),
        dtype => {
            let ones = c.emit().full(-1.0, dtype)?;
            tensor(c.emit().binary(BinaryOp::Sub, ones, x)?)
        }
    }
}

fn binary(c: &mut Call, op: BinaryOp) -> Result<Val> {
    let (a, b) = (c.operand("self")?, c.operand("other")?);
    tensor(c.binary(op, &a, &b)?)
}

/// `self ± alpha other`, where alpha is a number of the type that both have together.
fn scaled(c: &mut Call, op: BinaryOp) -> Result<Val> {
    let (a, b) = (c.operand("self")?, c.operand("other")?);
    let b = times_alpha(c, [&a, &b], &b)?;
    tensor(c.binary(op, &a, &b)?)
}

/// `other - alpha self`.
fn rsub(c: &mut Call) -> Result<Val> {
    let (a, b) = (c.operand("self")?, c.operand("other")?);
    let a = times_alpha(c, [&a, &b], &a)?;
    tensor(c.binary(BinaryOp::Sub, &b, &a)?)
}

fn times_alpha(c: &mut Call, operands: [&Operand; 2], x: &Operand) -> Result<Operand> {
    let alpha = c.number("alpha", Number::ONE)?;
    if alpha == Number::ONE {
        return Ok(x.clone());
    }
    let dtype = c.common(operands);
    let x = Operand::Tensor(c.typed(x, dtype)?);
    let alpha = Operand::Tensor(c.emit().full(alpha, dtype)?);
    Ok(Operand::Tensor(c.binary(BinaryOp::Mul, &x, &alpha)?))
}

fn div_mode(c: &mut Call) -> Result<Val> {
    match c.text("rounding_mode") {
        Some("floor") => binary(c, BinaryOp::FloorDiv),
        None => binary(c, BinaryOp::Div),
        Some("trunc") => {
            let (a, b) = (c.operand("self")?, c.operand("other")?);
            let dtype = c.common([&a, &b]);
            let (a, b) = c.typed_pair(&a, &b, dtype)?;
            let quotient = c.emit().binary(BinaryOp::Div, a, b)?;
            tensor(if dtype.is_float() { pointwise::truncated(&mut c.emit(), quotient)? } else { quotient })
        }
        Some(other) => Err(format!("division with rounding mode `{other}` is not supported").into()),
    }
}

fn pow(c: &mut Call) -> Result<Val> {
    let (x, exponent) = (c.operand("self")?, c.operand("exponent")?);
    let dtype = c.common([&x, &exponent]);
    if let Operand::Number(power) = &exponent
        && let Some(power) = power.number()
    {
        let x = c.typed(&x, dtype)?;
        match power.as_f64() {
            Some(-0.5) => return tensor(c.unary(UnaryOp::Rsqrt, x)?),
            Some(1.0) => return tensor(x),
            _ => {}
        }
        if let Some(simple) = pointwise::simple_power(&mut c.emit(), x, power)? {
            return tensor(simple);
        }
        return tensor(c.binary(BinaryOp::Pow, &Operand::Tensor(x), &exponent)?);
    }
    tensor(c.binary(BinaryOp::Pow, &x, &exponent)?)
}

fn logical(c: &mut Call, op: BinaryOp) -> Result<Val> {
    let (a, b) = (c.operand("self")?, c.operand("other")?);
    let (a, b) = (c.truth(&a)?, c.truth(&b)?);
    tensor(c.emit().binary(op, a, b)?)
}

fn bitwise(c: &mut Call, op: BinaryOp) -> Result<Val> {
    let (a, b) = (c.operand("self")?, c.operand("other")?);
    tensor(c.binary(op, &a, &b)?)
}

/// Bits that one operand has and the other has not: those of either without those of both.
fn bitwise_xor(c: &mut Call) -> Result<Val> {
    let (a, b) = (c.operand("self")?, c.operand("other")?);
    let dtype = c.common([&a, &b]);
    let (a, b) = c.typed_pair(&a, &b, dtype)?;
    let mut e = c.emit();
    if dtype == DType::Bool {
        return tensor(e.binary(BinaryOp::Ne, a, b)?);
    }
    let (either, both) = (e.binary(BinaryOp::Or, a, b)?, e.binary(BinaryOp::And, a, b)?);
    tensor(e.binary(BinaryOp::Sub, either, both)?)
}

fn where_(c: &mut Call) -> Result<Val> {
    let (condition, a, b) = (c.tensor("condition")?, c.operand("self")?, c.operand("other")?);
    let dtype = c.common([&a, &b]);
    let (a, b) = c.typed_pair(&a, &b, dtype)?;
    tensor(pointwise::select(&mut c.emit(), condition, a, b)?)
}

fn masked_fill(c: &mut Call) -> Result<Val> {
    let (x, mask, value) = (c.tensor("self")?, c.tensor("mask")?, c.operand("value")?);
    let value = c.typed(&value, c.ty(x).dtype)?;
    tensor(pointwise::select(&mut c.emit(), mask, value, x)?)
}

/// Sums and products of integers and truth values are of i64, whatever theirs is.
fn reduction(c: &mut Call, op: ReduceOp) -> Result<Val> {
    let mut x = c.tensor("self")?;
    let (given, own) = (c.opt_dtype("dtype")?, c.ty(x).dtype);
    let op = match op {
        ReduceOp::Max if own == DType::Bool => ReduceOp::Any,
        ReduceOp::Min if own == DType::Bool => ReduceOp::All,
        op => op,
    };
    let wide = (matches!(op, ReduceOp::Sum | ReduceOp::Prod) && !own.is_float()).then_some(DType::I64);
    if let Some(dtype) = given.or(wide) {
        x = c.cast(x, dtype)?;
    }
    let (mut axes, keepdim) = (c.axes("dim", c.rank(x))?, c.flag("keepdim", false)?);
    // For other reductions no axes are all of them.
    if matches!(op, ReduceOp::Any | ReduceOp::All) && c.opt_ints("dim")?.is_some_and(|dim| dim.is_empty()) {
        axes.clear();
    }
    let y = reduce::reduce(&mut c.emit(), op, x, axes, keepdim)?;
    // Any and all of bytes are bytes.
    tensor(if own == DType::U8 && matches!(op, ReduceOp::Any | ReduceOp::All) { c.cast(y, own)? } else { y })
}

fn reshape(c: &mut Call, name: &str) -> Result<Val> {
    let (x, shape) = (c.tensor("self")?, c.sizes(name)?);
    tensor(view::reshape(&mut c.emit(), x, shape)?)
}

fn flatten(c: &mut Call) -> Result<Val> {
    let x = c.tensor("self")?;
    let rank = c.rank(x);
    let (start, end) = (c.axis("start_dim", rank, Some(0))?, c.axis("end_dim", rank, Some(-1))?);
    tensor(view::flatten(&mut c.emit(), x, start, end)?)
}

fn permute(c: &mut Call) -> Result<Val> {
    let x = c.tensor("self")?;
    let rank = c.rank(x);
    let dims = c.opt_ints("dims")?.unwrap_or_default();
    let axes = dims.into_iter().map(|a| semantics::axis(a, rank)).collect::<Result<_>>()?;
    tensor(view::permute(&mut c.emit(), x, axes)?)
}

fn transpose(c: &mut Call) -> Result<Val> {
    let x = c.tensor("self")?;
    let rank = c.rank(x);
    let mut axes: Vec<usize> = (0..rank).collect();
    if rank > 0 {
        axes.swap(c.axis("dim0", rank, None)?, c.axis("dim1", rank, None)?);
    }
    tensor(view::permute(&mut c.emit(), x, axes)?)
}

fn transpose_2d(c: &mut Call) -> Result<Val> {
    let x = c.tensor("self")?;
    tensor(view::reversed(&mut c.emit(), x)?)
}

fn unsqueeze(c: &mut Call) -> Result<Val> {
    let x = c.tensor("self")?;
    let axis = c.axis("dim", c.rank(x) + 1, None)?;
    tensor(view::unsqueeze(&mut c.emit(), x, vec![axis])?)
}

/// Axes of another size than 1 stay. Without a list all axes are meant, by an empty one none.
fn squeeze(c: &mut Call) -> Result<Val> {
    let x = c.tensor("self")?;
    let axes = if c.opt_ints("dim")?.is_some_and(|dim| dim.is_empty()) { Vec::new() } else { c.axes("dim", c.rank(x))? };
    let axes = view::of_size_one(&c.emit(), x, axes);
    tensor(view::without(&mut c.emit(), x, &axes)?)
}

/// -1 keeps a size.
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
    tensor(view::expand(&mut c.emit(), x, shape)?)
}

fn slice(c: &mut Call) -> Result<Val> {
    let x = c.tensor("self")?;
    let axis = c.axis("dim", c.rank(x), Some(0))?;
    let size = c.shape(x)[axis].clone();
    let at = |given: Option<Expr>, default: Expr| given.map_or(default, |at| view::position(&at, &size));
    let (start, end) = (at(c.opt_size("start")?, Expr::zero()), at(c.opt_size("end")?, size.clone()));
    let step = c.int("step", Some(1))?;
    tensor(view::slice(&mut c.emit(), x, axis, start, end, step)?)
}

fn narrow(c: &mut Call) -> Result<Val> {
    let x = c.tensor("self")?;
    let axis = c.axis("dim", c.rank(x), None)?;
    let size = c.shape(x)[axis].clone();
    let (start, length) = (c.opt_size("start")?, c.opt_size("length")?);
    let (start, length) = start.zip(length).ok_or("narrow needs a start and a length")?;
    let start = view::position(&start, &size);
    let end = &start + &length;
    tensor(view::slice(&mut c.emit(), x, axis, start, end, 1)?)
}

fn select(c: &mut Call) -> Result<Val> {
    let x = c.tensor("self")?;
    let axis = c.axis("dim", c.rank(x), None)?;
    let index = c.opt_size("index")?.ok_or("select needs an index")?;
    tensor(view::select(&mut c.emit(), x, axis, index)?)
}

fn unbind(c: &mut Call) -> Result<Val> {
    let x = c.tensor("self")?;
    let axis = c.axis("dim", c.rank(x), Some(0))?;
    let count = view::equal_parts(view::size_to_split(&c.emit(), x, axis)?, 1)?.len() as i64;
    (0..count).map(|i| view::select(&mut c.emit(), x, axis, Expr::from(i))).collect::<Result<_>>().map(Val::Tensors)
}

fn diagonal(c: &mut Call) -> Result<Val> {
    let x = c.tensor("self")?;
    let (rows, columns) = (c.axis("dim1", c.rank(x), Some(0))?, c.axis("dim2", c.rank(x), Some(1))?);
    let offset = c.int("offset", Some(0))?;
    tensor(view::diagonal(&mut c.emit(), x, offset, rows, columns)?)
}

/// `self` with `src` where a view of it looks.
fn scatter(c: &mut Call, look: Map) -> Result<Val> {
    let (x, source) = (c.tensor("self")?, c.tensor("src")?);
    let Val::Tensor(seen) = look(c)? else { return Err("a view with several results".into()) };
    let ty = c.ty(seen).clone();
    let source = c.cast(source, ty.dtype)?;
    let mut e = c.emit();
    let source = view::expand(&mut e, source, ty.shape)?;
    let chain = storage::chain(&e, x, seen)?;
    tensor(storage::replace(&mut e, x, &chain, source)?)
}

fn split(c: &mut Call) -> Result<Val> {
    let x = c.tensor("self")?;
    let axis = c.axis("dim", c.rank(x), Some(0))?;
    let sizes = match c.opt_ints("split_sizes")? {
        Some(sizes) => sizes,
        None => view::equal_parts(view::size_to_split(&c.emit(), x, axis)?, c.int("split_size", None)?)?,
    };
    Ok(Val::Tensors(view::split(&mut c.emit(), x, axis, &sizes)?))
}

fn chunk(c: &mut Call) -> Result<Val> {
    let x = c.tensor("self")?;
    let axis = c.axis("dim", c.rank(x), Some(0))?;
    let size = view::size_to_split(&c.emit(), x, axis)?;
    let chunks = c.int("chunks", None)?;
    if chunks < 1 {
        return Err("chunk needs a positive number of chunks".into());
    }
    let sizes = view::equal_parts(size, (size + chunks - 1) / chunks)?;
    Ok(Val::Tensors(view::split(&mut c.emit(), x, axis, &sizes)?))
}

/// The tensors that are joined, in the type that they have together.
fn of_one_type(c: &mut Call) -> Result<Vec<ValueId>> {
    let list: Vec<Operand> = c.tensors("tensors")?.into_iter().map(Operand::Tensor).collect();
    if list.is_empty() {
        return Err("it joins no tensors".into());
    }
    let dtype = c.common(&list);
    list.iter().map(|t| c.typed(t, dtype)).collect()
}

fn cat(c: &mut Call) -> Result<Val> {
    let mut list = of_one_type(c)?;
    let empty = list[0];
    // torch skips empty vectors, whatever the rank of the others.
    list.retain(|&t| c.ty(t).shape.as_slice() != [Expr::zero()]);
    let Some(&first) = list.first() else { return tensor(empty) };
    let axis = c.axis("dim", c.rank(first), Some(0))?;
    tensor(view::concat(&mut c.emit(), &list, axis)?)
}

fn stack(c: &mut Call) -> Result<Val> {
    let list = of_one_type(c)?;
    let axis = c.axis("dim", c.rank(list[0]) + 1, Some(0))?;
    tensor(view::stack(&mut c.emit(), &list, axis)?)
}

/// torch lists padding from the last axis to the first.
fn pad(c: &mut Call) -> Result<Val> {
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
    let repeats = match c.text("mode") {
        None | Some("constant") => None,
        Some("reflect") => Some(Repeats::Mirror),
        Some("replicate") => Some(Repeats::Edge),
        Some("circular") => Some(Repeats::Circle),
        Some(other) => return Err(format!("padding in the mode `{other}` is not supported").into()),
    };
    if let Some(repeats) = repeats {
        return tensor(view::pad_by(&mut c.emit(), x, &pads, repeats)?);
    }
    let value = c.number("value", Number::ZERO)?;
    tensor(view::pad(&mut c.emit(), x, pads, value)?)
}

fn repeat(c: &mut Call) -> Result<Val> {
    let (x, repeats) = (c.tensor("self")?, c.sizes("repeats")?);
    tensor(view::repeat(&mut c.emit(), x, &repeats)?)
}

/// `src` in the type and shape of `self`.
fn copy(c: &mut Call) -> Result<Val> {
    let (x, source) = (c.tensor("self")?, c.tensor("src")?);
    let ty = c.ty(x).clone();
    let source = c.cast(source, ty.dtype)?;
    tensor(view::expand(&mut c.emit(), source, ty.shape)?)
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
    tensor(gather::take(&mut c.emit(), weight, indices, 0)?)
}

fn index_select(c: &mut Call) -> Result<Val> {
    let (x, index) = (c.tensor("self")?, c.tensor("index")?);
    let axis = c.axis("dim", c.rank(x), None)?;
    let shape = c.shape(x);
    let mut e = c.emit();
    let x = view::at_least_vector(&mut e, x)?;
    let taken = gather::take(&mut e, x, index, axis)?;
    // Of a number, a number is taken.
    tensor(if shape.is_empty() { e.reshape(taken, shape)? } else { taken })
}

fn gather_elements(c: &mut Call) -> Result<Val> {
    let (x, index) = (c.tensor("self")?, c.tensor("index")?);
    let axis = c.axis("dim", c.rank(x), None)?;
    let index = if c.ty(index).dtype == DType::I32 { index } else { c.cast(index, DType::I64)? };
    let shape = c.shape(index);
    let mut e = c.emit();
    let (x, index) = (view::at_least_vector(&mut e, x)?, view::at_least_vector(&mut e, index)?);
    let result = gather::elements(&mut e, x, index, axis)?;
    tensor(e.reshape(result, shape)?)
}

fn index_copy(c: &mut Call) -> Result<Val> {
    let (x, index, source) = (c.tensor("self")?, c.tensor("index")?, c.tensor("source")?);
    if c.rank(x) == 0 {
        // One number takes the place of another.
        let source = c.cast(source, c.ty(x).dtype)?;
        return tensor(c.emit().reshape(source, Vec::new())?);
    }
    let axis = c.axis("dim", c.rank(x), None)?;
    let count = semantics::product(&c.shape(index));
    let index = c.emit().reshape(index, vec![count])?;
    tensor(gather::put(&mut c.emit(), x, index, source, axis)?)
}

/// With one vector of integers among the indices; the others are left out.
fn index_put(c: &mut Call) -> Result<Val> {
    if c.flag("accumulate", false)? {
        return Err("index_put that accumulates is not supported".into());
    }
    let (x, indices, values) = (c.tensor("self")?, c.opt_tensors("indices")?, c.tensor("values")?);
    let given: Vec<(usize, ValueId)> = indices.iter().enumerate().filter_map(|(axis, index)| Some((axis, (*index)?))).collect();
    let [(axis, index)] = given[..] else { return Err("index_put with several index tensors is not supported".into()) };
    let is_vector = c.rank(index) == 1 && matches!(c.ty(index).dtype, DType::I32 | DType::I64);
    if !is_vector {
        return Err(format!("index_put at places given by {} is not supported; a vector of integers is", c.ty(index)).into());
    }
    let mut shape = c.shape(x);
    shape[axis] = c.shape(index)[0].clone();
    let mut e = c.emit();
    let values = view::expand(&mut e, values, shape)?;
    tensor(gather::put(&mut e, x, index, values, axis)?)
}

/// Its element type is i64 unless there is a fraction among its ends and step. Their type decides how many elements there are; to
/// integers they are cut before that counts.
fn arange(c: &mut Call) -> Result<Val> {
    let or = |given: bool, name: &str, default: i64| if given { c.scalar(name) } else { Ok(Scalar::Int(default)) };
    let (start, end) = (or(c.has("start"), "start", 0)?, c.scalar("end")?);
    let step = or(c.has("step"), "step", 1)?;
    let dtype = c.opt_dtype("dtype")?;
    let whole = |scalar: &Scalar| match scalar {
        Scalar::Bool(b) => Some(Expr::from(i64::from(*b))),
        Scalar::Int(n) => Some(Expr::from(*n)),
        Scalar::Size(size) => Some(size.clone()),
        Scalar::Float(_) => None,
    };
    if let (Some(start), Some(end), Some(step)) = (whole(&start), whole(&end), whole(&step)) {
        let start = start.as_const().ok_or("arange from a symbolic start is not supported")?;
        let step = step.as_const().ok_or("arange with a symbolic step is not supported")?;
        return tensor(source::range(&mut c.emit(), start, &end, step, dtype.unwrap_or(DType::I64))?);
    }
    let known = |scalar: &Scalar| scalar.number().map(Number::to_f64).ok_or("arange over fractions needs constant ends");
    let [mut start, end, mut step] = [known(&start)?, known(&end)?, known(&step)?];
    let length = ((end - start) / step).ceil().max(0.0);
    if !length.is_finite() {
        return Err(format!("arange from {start} to {end} in steps of {step} has no end").into());
    }
    let dtype = dtype.unwrap_or(DType::F32);
    if !dtype.is_float() {
        (start, step) = (start.trunc(), step.trunc());
    }
    tensor(source::ramp(&mut c.emit(), length as i64, start, step, dtype)?)
}

fn filled_with(c: &mut Call, value: Scalar, shape: Vec<Expr>, dtype: DType) -> Result<Val> {
    if let Some(value) = value.number() {
        return tensor(source::full(&mut c.emit(), value, shape, dtype)?);
    }
    let scalar = c.typed(&Operand::Number(value), dtype)?;
    tensor(view::expand(&mut c.emit(), scalar, shape)?)
}

fn full(c: &mut Call) -> Result<Val> {
    let (value, shape, dtype) = (c.scalar("fill_value")?, c.sizes("size")?, c.opt_dtype("dtype")?);
    let dtype = dtype.unwrap_or(value.dtype());
    filled_with(c, value, shape, dtype)
}

fn filled(c: &mut Call, value: f64) -> Result<Val> {
    let (shape, dtype) = (c.sizes("size")?, c.opt_dtype("dtype")?);
    filled_with(c, Scalar::Float(value), shape, dtype.unwrap_or(DType::F32))
}

fn full_like(c: &mut Call) -> Result<Val> {
    let (x, value, dtype) = (c.tensor("self")?, c.scalar("fill_value")?, c.opt_dtype("dtype")?);
    let (shape, dtype) = (c.shape(x), dtype.unwrap_or(c.ty(x).dtype));
    filled_with(c, value, shape, dtype)
}

/// `value` in the type and shape of `self`.
fn fill(c: &mut Call) -> Result<Val> {
    let x = c.tensor("self")?;
    let ty = c.ty(x).clone();
    let value = c.operand("value")?;
    let value = c.typed(&value, ty.dtype)?;
    tensor(view::expand(&mut c.emit(), value, ty.shape)?)
}

fn filled_like(c: &mut Call, value: f64) -> Result<Val> {
    let (x, dtype) = (c.tensor("self")?, c.opt_dtype("dtype")?);
    let (shape, dtype) = (c.shape(x), dtype.unwrap_or(c.ty(x).dtype));
    filled_with(c, Scalar::Float(value), shape, dtype)
}

fn scalar_tensor(c: &mut Call) -> Result<Val> {
    let (value, dtype) = (c.scalar("s")?, c.opt_dtype("dtype")?);
    filled_with(c, value, Vec::new(), dtype.unwrap_or(DType::F32))
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
