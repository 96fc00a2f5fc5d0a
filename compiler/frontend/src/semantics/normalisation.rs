//! Normalisations.

use aotfarm_ir::{BinaryOp, Expr, Number, Op, ReduceOp, UnaryOp, ValueId};
use aotfarm_protocol::DType;

use super::{Emit, Result, pointwise, product, reduction, source, view};

/// A vector or block of one value where an operand was left out.
fn given_or(e: &mut Emit<'_>, given: Option<ValueId>, value: f64, shape: &[Expr], dtype: DType) -> Result<ValueId> {
    match given {
        Some(id) => Ok(id),
        None => e.push(Op::Full { value: value.into(), shape: shape.to_vec(), dtype }, &[]),
    }
}

/// Inference-mode batch normalisation; without scale 1, without shift 0.
pub(crate) fn batch_norm(
    e: &mut Emit<'_>,
    x: ValueId,
    affine: [Option<ValueId>; 2],
    statistics: [ValueId; 2],
    eps: f64,
) -> Result<ValueId> {
    let [mean, variance] = statistics;
    let (dtype, channels) = (e.dtype(mean), e.shape(mean));
    let scale = given_or(e, affine[0], 1.0, &channels, dtype)?;
    let shift = given_or(e, affine[1], 0.0, &channels, dtype)?;
    e.push(Op::BatchNorm { eps }, &[x, scale, shift, mean, variance])
}

/// Normalisation over the last `shape.len()` axes, whose sizes are `shape`; `filled` is the type of a scale or shift that is left
/// out while the other is there.
pub(crate) fn layer_norm(
    e: &mut Emit<'_>,
    x: ValueId,
    shape: &[Expr],
    affine: [Option<ValueId>; 2],
    filled: DType,
    eps: f64,
) -> Result<ValueId> {
    let mut inputs = vec![x];
    if affine.iter().any(Option::is_some) {
        for (given, value) in affine.into_iter().zip([1.0, 0.0]) {
            inputs.push(given_or(e, given, value, shape, filled)?);
        }
    }
    e.push(Op::LayerNorm { axes: shape.len(), eps }, &inputs)
}

/// Along an axis; rank 0 is taken for a vector of one.
pub(crate) fn softmax(e: &mut Emit<'_>, x: ValueId, axis: usize) -> Result<ValueId> {
    let shape = e.shape(x);
    let x = if shape.is_empty() { e.reshape(x, vec![Expr::one()])? } else { x };
    let y = e.push(Op::Softmax { axis }, &[x])?;
    e.reshape(y, shape)
}

/// A type in which sums of that type are made.
const fn wide(dtype: DType) -> DType {
    if matches!(dtype, DType::F64) { dtype } else { DType::F32 }
}

/// `x - log(sum(exp(x)))` along an axis, rounded to its own type once; rank 0 is taken for a vector of one.
pub(crate) fn log_softmax(e: &mut Emit<'_>, x: ValueId, axis: usize) -> Result<ValueId> {
    let (shape, dtype) = (e.shape(x), e.dtype(x));
    let x = view::at_least_vector(e, x)?;
    let x = e.cast(x, wide(dtype))?;
    let largest = reduction::reduce(e, ReduceOp::Max, x, vec![axis], true)?;
    let below = e.binary(BinaryOp::Sub, x, largest)?;
    let powers = e.unary(UnaryOp::Exp, below)?;
    let sum = reduction::reduce(e, ReduceOp::Sum, powers, vec![axis], true)?;
    let log = e.unary(UnaryOp::Log, sum)?;
    let y = e.binary(BinaryOp::Sub, below, log)?;
    let y = e.cast(y, dtype)?;
    e.reshape(y, shape)
}

/// Normalisation of `x [N, C, …]` over groups of as many channels; scale and shift are of each channel. Rounded to its own type once.
pub(crate) fn group_norm(e: &mut Emit<'_>, x: ValueId, groups: i64, affine: [Option<ValueId>; 2], eps: f64) -> Result<ValueId> {
    let (shape, dtype) = (e.shape(x), e.dtype(x));
    let Some(channels) = shape.get(1).cloned() else { return Err("its input has no channels".into()) };
    let groups = Expr::from(groups);
    let each = channels.div_exact(&groups).ok_or("its channels are no multiple of its groups")?;
    let rest = product(&shape[2..]);
    let x = e.cast(x, wide(dtype))?;
    let x = e.reshape(x, vec![shape[0].clone(), groups, &each * &rest])?;
    let mut y = e.push(Op::LayerNorm { axes: 1, eps }, &[x])?;
    y = e.reshape(y, shape.clone())?;
    let along = super::along(shape.len() - 1, 0, channels);
    for (op, given) in [BinaryOp::Mul, BinaryOp::Add].into_iter().zip(affine) {
        if let Some(given) = given {
            let given = e.cast(given, wide(dtype))?;
            let given = e.reshape(given, along.clone())?;
            y = e.binary(op, y, given)?;
        }
    }
    e.cast(y, dtype)
}

/// The norm of that order over sorted axes: of 2 the length, of infinity the largest size, of 0 how many are not zero.
pub(crate) fn vector_norm(e: &mut Emit<'_>, x: ValueId, order: f64, axes: Vec<usize>, keepdim: bool) -> Result<ValueId> {
    let dtype = e.dtype(x);
    if !dtype.is_float() {
        return Err(format!("a norm of {dtype} is not supported; convert it to a floating-point type").into());
    }
    let x = e.cast(x, wide(dtype))?;
    let sum = |e: &mut Emit<'_>, x: ValueId| reduction::reduce(e, ReduceOp::Sum, x, axes.clone(), keepdim);
    let y = if order == 2.0 {
        let squares = e.binary(BinaryOp::Mul, x, x)?;
        let total = sum(e, squares)?;
        e.unary(UnaryOp::Sqrt, total)?
    } else if order == 0.0 {
        let counted = pointwise::truth(e, x)?;
        let counted = e.cast(counted, wide(dtype))?;
        sum(e, counted)?
    } else {
        let size = e.unary(UnaryOp::Abs, x)?;
        if order.is_infinite() {
            let op = if order > 0.0 { ReduceOp::Max } else { ReduceOp::Min };
            reduction::reduce(e, op, size, axes, keepdim)?
        } else if order == 1.0 {
            sum(e, size)?
        } else {
            let power = e.full(order, wide(dtype))?;
            let powers = e.binary(BinaryOp::Pow, size, power)?;
            let total = sum(e, powers)?;
            let root = e.full(1.0 / order, wide(dtype))?;
            e.binary(BinaryOp::Pow, total, root)?
        }
    };
    e.cast(y, dtype)
}

/// The variance over sorted axes and the mean: the squared distances from the mean, summed and divided by `n - correction`.
pub(crate) fn variance(e: &mut Emit<'_>, x: ValueId, axes: &[usize], keepdim: bool, correction: f64) -> Result<[ValueId; 2]> {
    let dtype = e.dtype(x);
    if !dtype.is_float() {
        return Err(format!("a variance of {dtype} is not supported; convert it to a floating-point type").into());
    }
    let count = product(&axes.iter().map(|axis| e.shape(x)[*axis].clone()).collect::<Vec<_>>());
    let x = e.cast(x, wide(dtype))?;
    let mean = reduction::reduce(e, ReduceOp::Mean, x, axes.to_vec(), true)?;
    let distance = e.binary(BinaryOp::Sub, x, mean)?;
    let squares = e.binary(BinaryOp::Mul, distance, distance)?;
    let total = reduction::reduce(e, ReduceOp::Sum, squares, axes.to_vec(), keepdim)?;
    let count = source::number(e, &count, wide(dtype))?;
    let correction = e.full(correction, wide(dtype))?;
    let free = e.binary(BinaryOp::Sub, count, correction)?;
    let free = pointwise::clamp(e, free, Some(Number::ZERO), None)?;
    let variance = e.binary(BinaryOp::Div, total, free)?;
    let mean = if keepdim { mean } else { view::without(e, mean, axes)? };
    Ok([e.cast(variance, dtype)?, e.cast(mean, dtype)?])
}
