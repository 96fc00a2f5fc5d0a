//! Normalisations.

use aotfarm_ir::{BinaryOp, Expr, Number, PoolOp, ReduceOp, UnaryOp, ValueId, Window};

use super::super::node::{NodeCall, one};
use super::super::scope::Known;
use super::Map;
use super::functions::{along_softmax, composed, softmax, squared};
use super::images::{powers, root};
use crate::semantics::activation::with_number;
use crate::semantics::{self, Emit, Result, normalisation, pointwise, pooling, reduction, view};

pub(super) static ROWS: &[(&str, Map)] = &[
    ("BatchNormalization", batch_norm),
    ("LayerNormalization", layer_norm),
    ("RMSNormalization", rms_norm),
    ("InstanceNormalization", instance_norm),
    ("GroupNormalization", group_norm),
    ("LpNormalization", lp_norm),
    ("MeanVarianceNormalization", mean_variance),
    ("LRN", lrn),
    ("Softmax", |c| along_softmax(c, softmax)),
];

fn batch_norm(c: &mut NodeCall) -> Result<Vec<Known>> {
    if c.int("training_mode", 0) != 0 || c.opset() < 7 && c.int("is_test", 0) == 0 {
        return Err("the batch normalisation is in training mode; export the model in eval mode".into());
    }
    if c.int("spatial", 1) == 0 {
        return Err("statistics for each place of an image (`spatial` 0) are not supported".into());
    }
    let (x, affine) = (c.tensor(0)?, [c.opt_tensor(1)?, c.opt_tensor(2)?]);
    let (statistics, eps) = ([c.tensor(3)?, c.tensor(4)?], c.float("epsilon", 1e-5));
    one(normalisation::batch_norm(&mut c.emit(), x, affine, statistics, eps)?)
}

/// The mean over axes, and what is left of `x` without it.
fn centred(e: &mut Emit<'_>, x: ValueId, axes: Vec<usize>) -> Result<[ValueId; 2]> {
    let mean = reduction::reduce(e, ReduceOp::Mean, x, axes, true)?;
    Ok([mean, e.binary(BinaryOp::Sub, x, mean)?])
}

/// `1 / √(mean(x²) + eps)` over axes.
fn inverse_size(e: &mut Emit<'_>, x: ValueId, axes: Vec<usize>, eps: f64) -> Result<ValueId> {
    let square = squared(e, x)?;
    let mean = reduction::reduce(e, ReduceOp::Mean, square, axes, true)?;
    let mean = with_number(e, BinaryOp::Add, mean, eps)?;
    e.unary(UnaryOp::Rsqrt, mean)
}

/// Statistics are float32 unless `stash_type` says otherwise.
fn layer_norm(c: &mut NodeCall) -> Result<Vec<Known>> {
    let (x, scale, shift) = (c.tensor(0)?, c.tensor(1)?, c.opt_tensor(2)?);
    let axis = c.axis("axis", -1, c.rank(x))?;
    let shape = c.shape(x).split_off(axis);
    let (filled, eps) = (c.dtype(scale), c.float("epsilon", 1e-5));
    let (axes, gives): (Vec<usize>, bool) = ((axis..c.rank(x)).collect(), c.gives(1) || c.gives(2));
    let stash = super::super::tensor::dtype(c.int("stash_type", 1) as i32)?;
    let mut e = c.emit();
    let [scale, shift] = [Some(scale), shift].map(|given| match given {
        // They may have fewer axes than what they scale.
        Some(id) if e.shape(id) != shape => view::expand(&mut e, id, shape.clone()).map(Some),
        other => Ok(other),
    });
    let y = normalisation::layer_norm(&mut e, x, &shape, [scale?, shift?], filled, eps)?;
    let mut results = one(y)?;
    if gives {
        let x = e.cast(x, stash)?;
        let [mean, rest] = centred(&mut e, x, axes.clone())?;
        let inverse = inverse_size(&mut e, rest, axes, eps)?;
        results.extend([mean, inverse].map(|id| Known { tensor: Some(id), sizes: None }));
    }
    Ok(results)
}

fn rms_norm(c: &mut NodeCall) -> Result<Vec<Known>> {
    let (x, scale, eps) = (c.tensor(0)?, c.tensor(1)?, c.float("epsilon", 1e-5));
    let axes = (c.axis("axis", -1, c.rank(x))?..c.rank(x)).collect();
    let stash = super::super::tensor::dtype(c.int("stash_type", 1) as i32)?;
    let mut e = c.emit();
    let own = e.dtype(scale);
    let wide = e.cast(x, stash)?;
    let inverse = inverse_size(&mut e, wide, axes, eps)?;
    let y = e.binary(BinaryOp::Mul, wide, inverse)?;
    let y = e.cast(y, own)?;
    one(e.binary(BinaryOp::Mul, y, scale)?)
}

/// `scale (x - mean) / √(variance + eps) + shift` over axes.
fn normalised(e: &mut Emit<'_>, x: ValueId, axes: Vec<usize>, eps: f64) -> Result<ValueId> {
    let [_, rest] = centred(e, x, axes.clone())?;
    let inverse = inverse_size(e, rest, axes, eps)?;
    e.binary(BinaryOp::Mul, rest, inverse)
}

/// A number for each channel.
fn per_channel(e: &mut Emit<'_>, x: ValueId, scale: ValueId, shift: ValueId) -> Result<ValueId> {
    let mut shape = vec![Expr::one(); e.rank(x)];
    shape[1] = e.shape(x)[1].clone();
    let (scale, shift) = (e.reshape(scale, shape.clone())?, e.reshape(shift, shape)?);
    let y = e.binary(BinaryOp::Mul, x, scale)?;
    e.binary(BinaryOp::Add, y, shift)
}

fn instance_norm(c: &mut NodeCall) -> Result<Vec<Known>> {
    let (x, scale, shift, eps) = (c.tensor(0)?, c.tensor(1)?, c.tensor(2)?, c.float("epsilon", 1e-5));
    let axes = (2..c.rank(x)).collect();
    let mut e = c.emit();
    let y = normalised(&mut e, x, axes, eps)?;
    one(per_channel(&mut e, y, scale, shift)?)
}

/// Scale and shift are of groups before opset 21, then of channels.
fn group_norm(c: &mut NodeCall) -> Result<Vec<Known>> {
    let (x, mut scale, mut shift, eps) = (c.tensor(0)?, c.tensor(1)?, c.tensor(2)?, c.float("epsilon", 1e-5));
    let groups = c.int("num_groups", 0);
    let stash = super::super::tensor::dtype(c.int("stash_type", 1) as i32)?;
    let (shape, of_groups) = (c.shape(x), c.opset() < 21);
    let channels = shape.get(1).and_then(Expr::as_const).ok_or("its channels must be constant")?;
    if groups < 1 || channels % groups != 0 {
        return Err(format!("{channels} channels are not {groups} groups").into());
    }
    let mut e = c.emit();
    let own = e.dtype(x);
    let grouped = [vec![shape[0].clone(), Expr::from(groups), Expr::from(channels / groups)], shape[2..].to_vec()].concat();
    let wide = e.cast(x, stash)?;
    let wide = e.reshape(wide, grouped)?;
    let axes = (2..e.rank(wide)).collect();
    let y = normalised(&mut e, wide, axes, eps)?;
    let y = e.reshape(y, shape)?;
    let y = e.cast(y, own)?;
    if of_groups {
        scale = view::repeat_each(&mut e, scale, 0, channels / groups)?;
        shift = view::repeat_each(&mut e, shift, 0, channels / groups)?;
    }
    one(per_channel(&mut e, y, scale, shift)?)
}

/// Rows of which the norm is 0 stay 0.
fn lp_norm(c: &mut NodeCall) -> Result<Vec<Known>> {
    let x = c.tensor(0)?;
    let (axis, p) = (c.axis("axis", -1, c.rank(x))?, c.int("p", 2) as f64);
    composed(c, |e, x| {
        let size = powers(e, x, p)?;
        let size = reduction::reduce(e, ReduceOp::Sum, size, vec![axis], true)?;
        let size = root(e, size, p)?;
        let is_zero = with_number(e, BinaryOp::Eq, size, 0.0)?;
        let y = e.binary(BinaryOp::Div, x, size)?;
        let zero = e.full(0.0, e.dtype(x))?;
        pointwise::select(e, is_zero, zero, y)
    })
}

fn mean_variance(c: &mut NodeCall) -> Result<Vec<Known>> {
    let x = c.tensor(0)?;
    let axes = crate::semantics::axes(c.list("axes").unwrap_or(&[0, 2, 3]), c.rank(x))?;
    composed(c, |e, x| {
        let [_, rest] = centred(e, x, axes.clone())?;
        let square = squared(e, rest)?;
        let variance = reduction::reduce(e, ReduceOp::Mean, square, axes, true)?;
        let deviation = e.unary(UnaryOp::Sqrt, variance)?;
        let deviation = with_number(e, BinaryOp::Add, deviation, 1e-9)?;
        e.binary(BinaryOp::Div, rest, deviation)
    })
}

/// `x / (bias + alpha / size · the sum of x² over the channels around)^beta`: the channels are the rows of an image.
fn lrn(c: &mut NodeCall) -> Result<Vec<Known>> {
    let (alpha, beta, bias) = (c.float("alpha", 1e-4), c.float("beta", 0.75), c.float("bias", 1.0));
    let size = c.int("size", 0);
    if size < 1 {
        return Err(format!("its size {size} is not positive").into());
    }
    composed(c, |e, x| {
        let shape = e.shape(x);
        let [batch, channels, rest @ ..] = shape.as_slice() else { return Err("it needs channels".into()) };
        let square = squared(e, x)?;
        let image = e.reshape(square, vec![batch.clone(), Expr::one(), channels.clone(), semantics::product(rest)])?;
        // Zeros around, so that every window has as many.
        let before = (size - 1) / 2;
        let image = view::pad(e, image, vec![[0; 2], [0; 2], [before, size - 1 - before], [0; 2]], Number::ZERO)?;
        let window = Window { kernel: [size, 1], stride: [1, 1], pad: [[0; 2]; 2], dilation: [1, 1] };
        let mean = pooling::pool(e, PoolOp::Avg { count_include_pad: true }, image, window, false)?;
        let mean = e.reshape(mean, shape.clone())?;
        let scale = pointwise::times(e, mean, Number::float(alpha))?;
        let scale = with_number(e, BinaryOp::Add, scale, bias)?;
        let scale = with_number(e, BinaryOp::Pow, scale, beta)?;
        e.binary(BinaryOp::Div, x, scale)
    })
}
