//! Layers of networks: convolutions, products, normalisations, pooling, attention.

use aotfarm_ir::{BinaryOp, Expr, Number, PoolOp, ValueId, Window};
use aotfarm_protocol::DType;

use super::row::{Row, row, tensor};
use crate::aten::call::{Call, Operand};
use crate::aten::program::Argument;
use crate::aten::scope::Val;
use crate::semantics::conv::{self, Same};
use crate::semantics::pointwise::{self};
use crate::semantics::{self, Emit, Result, einsum, normalisation, pooling, product, source, view};

pub(super) static ROWS: &[Row] = &[
    row("aten.conv2d.default", convolution),
    row("aten.conv2d.padding", convolution_same),
    row("aten.convolution.default", convolution),
    row("aten.conv1d.default", convolution),
    row("aten.conv1d.padding", convolution_same),
    row("aten.conv_transpose1d.default", transposed_convolution),
    row("aten.conv_transpose2d.input", transposed_convolution),
    row("aten.batch_norm.default", |c| batch_norm(c, "training")),
    row("aten._native_batch_norm_legit_no_training.default", |c| batch_norm(c, "")),
    row("aten.linear.default", linear),
    row("aten.addmm.default", |c| addmm(c, ["mat1", "mat2"])),
    row("aten.baddbmm.default", |c| addmm(c, ["batch1", "batch2"])),
    row("aten.mm.default", |c| matmul(c, "mat2")),
    row("aten.bmm.default", |c| matmul(c, "mat2")),
    row("aten.matmul.default", |c| matmul(c, "other")),
    row("aten.einsum.default", einsum),
    row("aten.group_norm.default", |c| group_norm(c, "num_groups")),
    row("aten.native_group_norm.default", |c| group_norm(c, "group")),
    row("aten.instance_norm.default", instance_norm),
    row("aten._weight_norm.default", weight_norm),
    row("aten.layer_norm.default", layer_norm),
    row("aten.native_layer_norm.default", layer_norm),
    row("aten.max_pool2d.default", max_pool),
    row("aten.max_pool2d_with_indices.default", max_pool_with_indices),
    row("aten.avg_pool2d.default", avg_pool),
    row("aten.adaptive_avg_pool2d.default", adaptive_avg_pool),
    row("aten._adaptive_avg_pool2d.default", adaptive_avg_pool),
    row("aten.adaptive_avg_pool1d.default", adaptive_avg_pool_1d),
    row("aten.adaptive_max_pool2d.default", adaptive_max_pool),
    row("aten.scaled_dot_product_attention.default", attention),
    row("aten.softmax.int", softmax),
    row("aten._softmax.default", softmax),
    row("aten.log_softmax.int", log_softmax),
    row("aten._log_softmax.default", log_softmax),
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

/// The numbers of an argument for height and width; a signal has height 1, for which `of_height` stands.
fn spatial(c: &Call, name: &str, is_signal: bool, of_height: i64, default: i64) -> Result<[i64; 2]> {
    let [h, w] = c.pair(name, [default; 2])?;
    Ok(if is_signal { [of_height, w] } else { [h, w] })
}

/// A weight as that of an image: a signal's `[O, C, K]` gets height 1. Says whether it is a signal's.
fn weight_of_image(c: &mut Call) -> Result<(ValueId, bool)> {
    let weight = c.tensor("weight")?;
    let is_signal = c.rank(weight) == 3;
    Ok((if is_signal { view::unsqueeze(&mut c.emit(), weight, vec![2])? } else { weight }, is_signal))
}

fn convolution(c: &mut Call) -> Result<Val> {
    if c.flag("transposed", false)? {
        return transposed_convolution(c);
    }
    let (weight, is_signal) = weight_of_image(c)?;
    let kernel = conv::kernel_of(&c.emit(), weight)?;
    let pad = spatial(c, "padding", is_signal, 0, 0)?.map(|pad| [pad; 2]);
    let (stride, dilation) = (spatial(c, "stride", is_signal, 1, 1)?, spatial(c, "dilation", is_signal, 1, 1)?);
    finish_convolution(c, weight, is_signal, Window { kernel, stride, pad, dilation })
}

/// `padding="same"` or `"valid"`; same is for stride 1.
fn convolution_same(c: &mut Call) -> Result<Val> {
    let (weight, is_signal) = weight_of_image(c)?;
    let kernel = conv::kernel_of(&c.emit(), weight)?;
    let (stride, dilation) = (spatial(c, "stride", is_signal, 1, 1)?, spatial(c, "dilation", is_signal, 1, 1)?);
    let mut window = Window { kernel, stride, pad: [[0; 2]; 2], dilation };
    if c.text("padding") == Some("same") {
        window.pad = [0, 1].map(|axis| Same::Upper.split(dilation[axis] * (kernel[axis] - 1)));
    }
    finish_convolution(c, weight, is_signal, window)
}

fn finish_convolution(c: &mut Call, weight: ValueId, is_signal: bool, window: Window) -> Result<Val> {
    let (x, bias, groups) = (c.tensor("input")?, c.opt_tensor("bias")?, c.int("groups", Some(1))?);
    tensor(over_images(c, x, is_signal, |e, x| conv::conv(e, x, weight, bias, window, groups))?)
}

/// What an operator over a batch of images makes of `x`: images, or signals, with or without a batch.
fn over_images(
    c: &mut Call,
    x: ValueId,
    is_signal: bool,
    of: impl FnOnce(&mut Emit<'_>, ValueId) -> Result<ValueId>,
) -> Result<ValueId> {
    if !is_signal {
        return over_batch(c, x, of);
    }
    let e = &mut c.emit();
    let rank = e.rank(x);
    if !(2..=3).contains(&rank) {
        return Err(format!("a convolution of signals takes a tensor of rank 2 or 3, not {rank}").into());
    }
    let x = view::unsqueeze(e, x, if rank == 2 { vec![0, 2] } else { vec![2] })?;
    let y = of(e, x)?;
    view::without(e, y, if rank == 2 { &[0, 2] } else { &[2] })
}

fn transposed_convolution(c: &mut Call) -> Result<Val> {
    let (weight, is_signal) = weight_of_image(c)?;
    let geometry = conv::Transposed {
        stride: spatial(c, "stride", is_signal, 1, 1)?,
        pad: spatial(c, "padding", is_signal, 0, 0)?,
        output_pad: spatial(c, "output_padding", is_signal, 0, 0)?,
        dilation: spatial(c, "dilation", is_signal, 1, 1)?,
    };
    let (x, bias, groups) = (c.tensor("input")?, c.opt_tensor("bias")?, c.int("groups", Some(1))?);
    tensor(over_images(c, x, is_signal, |e, x| conv::transposed(e, x, weight, bias, geometry, groups))?)
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

fn einsum(c: &mut Call) -> Result<Val> {
    let operands = c.tensors("tensors")?;
    let equation = c.text("equation").ok_or("it has no equation")?.to_owned();
    tensor(einsum::einsum(&mut c.emit(), &equation, &operands)?)
}

fn group_norm(c: &mut Call, groups: &str) -> Result<Val> {
    let (x, groups, eps) = (c.tensor("input")?, c.int(groups, None)?, c.float("eps", 1e-5)?);
    let affine = [c.opt_tensor("weight")?, c.opt_tensor("bias")?];
    tensor(normalisation::group_norm(&mut c.emit(), x, groups, affine, eps)?)
}

/// With the statistics of each image and channel, or with given ones as a batch normalisation.
fn instance_norm(c: &mut Call) -> Result<Val> {
    if !c.flag("use_input_stats", true)? {
        return batch_norm(c, "");
    }
    if c.opt_tensor("running_mean")?.is_some() {
        return Err(
            "an instance normalisation that updates running statistics is not supported; call model.eval() before exporting"
                .into(),
        );
    }
    let (x, eps) = (c.tensor("input")?, c.float("eps", 1e-5)?);
    let affine = [c.opt_tensor("weight")?, c.opt_tensor("bias")?];
    let channels = c.shape(x).get(1).and_then(Expr::as_const).ok_or("it needs a constant number of channels")?;
    tensor(normalisation::group_norm(&mut c.emit(), x, channels, affine, eps)?)
}

/// `v g / |v|`, with the norm over all axes but `dim`, or over all of them where it is -1.
fn weight_norm(c: &mut Call) -> Result<Val> {
    let (v, g, dim) = (c.tensor("v")?, c.tensor("g")?, c.int("dim", Some(0))?);
    let axes = (0..c.rank(v)).filter(|axis| *axis as i64 != dim).collect();
    let mut e = c.emit();
    let length = normalisation::vector_norm(&mut e, v, 2.0, axes, true)?;
    let factor = e.binary(BinaryOp::Div, g, length)?;
    tensor(e.binary(BinaryOp::Mul, v, factor)?)
}

fn max_pool(c: &mut Call) -> Result<Val> {
    pooling(c, PoolOp::Max)
}

/// The places count within each channel. A file names results that nothing reads `…_unused_…`.
fn max_pool_with_indices(c: &mut Call) -> Result<Val> {
    let largest = max_pool(c)?;
    let (true, Val::Tensor(largest)) = (reads_places(c), &largest) else { return Ok(largest) };
    let (x, window, ceil_mode) = pooled(c)?;
    Ok(Val::Tensors(vec![*largest, places_in_channel(c, x, window, ceil_mode)?]))
}

/// Whether a node reads the second result.
fn reads_places(c: &Call) -> bool {
    c.node.outputs.get(1).and_then(Argument::result).is_some_and(|name| !name.contains("_unused_"))
}

fn places_in_channel(c: &mut Call, x: ValueId, window: Window, ceil_mode: bool) -> Result<ValueId> {
    over_batch(c, x, |e, x| {
        let places = pooling::places_of_largest(e, x, window, ceil_mode)?;
        let size = semantics::product(&e.shape(x)[2..]);
        let size = source::number(e, &size, DType::I64)?;
        e.binary(BinaryOp::Mod, places, size)
    })
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

fn adaptive_avg_pool_1d(c: &mut Call) -> Result<Val> {
    let (x, output) = (c.tensor("self")?, spatial(c, "output_size", true, 1, 1)?);
    tensor(over_images(c, x, true, |e, x| pooling::adaptive_average(e, x, output))?)
}

/// Where all windows are of one size.
fn adaptive_max_pool(c: &mut Call) -> Result<Val> {
    let (x, output) = (c.tensor("self")?, c.pair("output_size", [1, 1])?);
    let shape = c.shape(x);
    let mut kernel = [1, 1];
    for ((kernel, output), size) in kernel.iter_mut().zip(output).zip(&shape[shape.len().saturating_sub(2)..]) {
        let size = size.as_const().ok_or("adaptive max pooling of a symbolic size is not supported")?;
        if output < 1 || size % output != 0 {
            return Err(
                format!("adaptive max pooling of {size} to {output}, of which it is no multiple, is not supported").into()
            );
        }
        *kernel = size / output;
    }
    let window = Window { kernel, stride: kernel, pad: [[0; 2]; 2], dilation: [1, 1] };
    let largest = over_batch(c, x, |e, x| pooling::pool(e, PoolOp::Max, x, window, false))?;
    if !reads_places(c) {
        return tensor(largest);
    }
    Ok(Val::Tensors(vec![largest, places_in_channel(c, x, window, false)?]))
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

fn log_softmax(c: &mut Call) -> Result<Val> {
    let x = c.tensor("self")?;
    let x = match c.opt_dtype("dtype")? {
        Some(dtype) => c.cast(x, dtype)?,
        None => x,
    };
    let axis = c.axis("dim", c.rank(x), None)?;
    tensor(normalisation::log_softmax(&mut c.emit(), x, axis)?)
}
