//! Layers of networks: convolutions, products, normalisations, pooling, attention.

use aotfarm_ir::{BinaryOp, Number, PoolOp, ValueId, Window};
use aotfarm_protocol::DType;

use super::row::{Row, row, tensor};
use crate::aten::call::{Call, Operand};
use crate::aten::program::Argument;
use crate::aten::scope::Val;
use crate::semantics::conv::{self, Same};
use crate::semantics::pointwise::{self};
use crate::semantics::{self, Emit, Result, normalisation, pooling, product, source, view};

pub(super) static ROWS: &[Row] = &[
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
];

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
    tensor(normalisation::batch_norm(&mut c.emit(), x, affine, [mean, variance], eps)?)
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
    tensor(normalisation::layer_norm(&mut c.emit(), x, &shape, affine, dtype, eps)?)
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
        let places = pooling::places_of_largest(e, x, window, ceil_mode)?;
        let size = semantics::product(&e.shape(x)[2..]);
        let size = source::number(e, &size, DType::I64)?;
        e.binary(BinaryOp::Mod, places, size)
    })?;
    Ok(Val::Tensors(vec![*largest, places]))
}

fn avg_pool(c: &mut Call) -> Result<Val> {
    if let Some(divisor) = c.opt_float("divisor_override")? {
        let (x, window, ceil_mode) = pooled(c)?;
        return tensor(over_batch(c, x, |e, x| pooling::sum_over(e, x, window, ceil_mode, divisor))?);
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
    tensor(over_batch(c, x, |e, x| pooling::pool(e, op, x, window, ceil_mode))?)
}

fn adaptive_avg_pool(c: &mut Call) -> Result<Val> {
    let (x, output) = (c.tensor("self")?, c.pair("output_size", [1, 1])?);
    tensor(over_batch(c, x, |e, x| pooling::adaptive_average(e, x, output))?)
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
    tensor(normalisation::softmax(&mut c.emit(), x, axis)?)
}
