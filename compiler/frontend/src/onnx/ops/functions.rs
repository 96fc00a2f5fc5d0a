//! Functions of one number that the IR has no operator for, and what is element-wise of two.

use aotfarm_ir::{BinaryOp, Number, ReduceOp, UnaryOp, ValueId};

use super::super::node::{NodeCall, one};
use super::super::scope::Known;
use super::{Map, binary};
use crate::semantics::activation::{self, with_number};
use crate::semantics::{self, Emit, Result, normalisation, order, pointwise, reduction, source};

pub(super) static ROWS: &[(&str, Map)] = &[
    ("Tan", |c| {
        composed(c, |e, x| {
            let (sine, cosine) = (e.unary(UnaryOp::Sin, x)?, e.unary(UnaryOp::Cos, x)?);
            e.binary(BinaryOp::Div, sine, cosine)
        })
    }),
    ("Sign", |c| composed(c, activation::sign)),
    ("Softplus", |c| composed(c, activation::softplus)),
    ("Softsign", |c| composed(c, activation::softsign)),
    ("Mish", |c| composed(c, activation::mish)),
    ("Celu", |c| {
        let alpha = c.float("alpha", 1.0);
        composed(c, |e, x| activation::celu(e, x, alpha))
    }),
    ("Selu", |c| {
        let (alpha, gamma) = (c.float("alpha", 1.673_263_2), c.float("gamma", 1.050_701));
        composed(c, |e, x| {
            let y = e.unary(UnaryOp::Elu { alpha }, x)?;
            pointwise::times(e, y, gamma)
        })
    }),
    ("Swish", |c| {
        let alpha = c.float("alpha", 1.0);
        composed(c, |e, x| {
            let scaled = pointwise::times(e, x, alpha)?;
            let gate = e.unary(UnaryOp::Sigmoid, scaled)?;
            e.binary(BinaryOp::Mul, x, gate)
        })
    }),
    ("ThresholdedRelu", |c| {
        let alpha = c.float("alpha", 1.0);
        composed(c, |e, x| {
            let above = with_number(e, BinaryOp::Gt, x, alpha)?;
            let zero = e.full(0.0, e.dtype(x))?;
            pointwise::select(e, above, x, zero)
        })
    }),
    ("Shrink", |c| {
        let (bias, lambda) = (c.float("bias", 0.0), c.float("lambd", 0.5));
        composed(c, |e, x| {
            let zero = e.full(0.0, e.dtype(x))?;
            let (up, down) = (with_number(e, BinaryOp::Add, x, bias)?, with_number(e, BinaryOp::Sub, x, bias)?);
            let (below, above) = (with_number(e, BinaryOp::Lt, x, -lambda)?, with_number(e, BinaryOp::Gt, x, lambda)?);
            let y = pointwise::select(e, above, down, zero)?;
            pointwise::select(e, below, up, y)
        })
    }),
    ("IsInf", |c| {
        let (negative, positive) = (c.int("detect_negative", 1) != 0, c.int("detect_positive", 1) != 0);
        composed(c, |e, x| activation::is_infinite(e, x, negative, positive))
    }),
    ("PRelu", |c| {
        let (x, slope) = (c.tensor(0)?, c.tensor(1)?);
        one(activation::prelu(&mut c.emit(), x, slope)?)
    }),
    ("Xor", |c| binary(c, BinaryOp::Ne)),
    ("BitwiseAnd", |c| binary(c, BinaryOp::And)),
    ("BitwiseOr", |c| binary(c, BinaryOp::Or)),
    ("BitwiseXor", |c| {
        let (a, b) = (c.tensor(0)?, c.tensor(1)?);
        let (any, both) = (c.binary(BinaryOp::Or, a, b)?, c.binary(BinaryOp::And, a, b)?);
        one(c.binary(BinaryOp::Sub, any, both)?)
    }),
    // Of two's complement: -x - 1.
    ("BitwiseNot", |c| {
        composed(c, |e, x| {
            let x = e.unary(UnaryOp::Neg, x)?;
            with_number(e, BinaryOp::Sub, x, 1i64)
        })
    }),
    ("Mean", |c| {
        let all = c.tensors()?;
        let (&first, rest) = all.split_first().ok_or("it has no operands")?;
        let mut sum = first;
        for &x in rest {
            sum = c.binary(BinaryOp::Add, sum, x)?;
        }
        one(with_number(&mut c.emit(), BinaryOp::Div, sum, all.len() as i64)?)
    }),
    ("CastLike", |c| {
        let (x, like) = (c.tensor(0)?, c.tensor(1)?);
        let dtype = c.dtype(like);
        one(c.emit().cast(x, dtype)?)
    }),
    ("LogSoftmax", |c| along_softmax(c, log_softmax)),
    ("Hardmax", |c| along_softmax(c, hardmax)),
    ("ReduceL1", |c| reduced(c, |e, x| e.unary(UnaryOp::Abs, x), |_, x| Ok(x))),
    ("ReduceL2", |c| reduced(c, squared, |e, x| e.unary(UnaryOp::Sqrt, x))),
    ("ReduceSumSquare", |c| reduced(c, squared, |_, x| Ok(x))),
    ("ReduceLogSum", |c| reduced(c, |_, x| Ok(x), |e, x| e.unary(UnaryOp::Log, x))),
    ("ReduceLogSumExp", log_sum_exp),
];

pub(super) fn composed(c: &mut NodeCall, f: impl FnOnce(&mut Emit<'_>, ValueId) -> Result<ValueId>) -> Result<Vec<Known>> {
    let x = c.tensor(0)?;
    one(f(&mut c.emit(), x)?)
}

pub(super) fn squared(e: &mut Emit<'_>, x: ValueId) -> Result<ValueId> {
    e.binary(BinaryOp::Mul, x, x)
}

/// A function along one axis. Before opset 13 it is over all axes from `axis` on, by default 1, taken together.
pub(super) fn along_softmax(c: &mut NodeCall, f: fn(&mut Emit<'_>, ValueId, usize) -> Result<ValueId>) -> Result<Vec<Known>> {
    let x = c.tensor(0)?;
    let rank = c.rank(x);
    if c.opset() >= 13 {
        let axis = c.axis("axis", -1, rank)?;
        return one(f(&mut c.emit(), x, axis)?);
    }
    let axis = c.int("axis", 1);
    let axis = if axis < 0 { axis + rank as i64 } else { axis };
    if !(0..=rank as i64).contains(&axis) {
        return Err(format!("axis {axis} is outside a tensor of rank {rank}").into());
    }
    let shape = c.shape(x);
    let mut e = c.emit();
    if axis as usize + 1 == rank {
        return one(f(&mut e, x, axis as usize)?);
    }
    let rows = semantics::view::as_matrix(&mut e, x, axis as usize)?;
    let y = f(&mut e, rows, 1)?;
    one(e.reshape(y, shape)?)
}

pub(super) fn log_softmax(e: &mut Emit<'_>, x: ValueId, axis: usize) -> Result<ValueId> {
    let most = reduction::reduce(e, ReduceOp::Max, x, vec![axis], true)?;
    let below = e.binary(BinaryOp::Sub, x, most)?;
    let parts = e.unary(UnaryOp::Exp, below)?;
    let sum = reduction::reduce(e, ReduceOp::Sum, parts, vec![axis], true)?;
    let sum = e.unary(UnaryOp::Log, sum)?;
    e.binary(BinaryOp::Sub, below, sum)
}

/// 1 at the first largest element, 0 elsewhere.
fn hardmax(e: &mut Emit<'_>, x: ValueId, axis: usize) -> Result<ValueId> {
    let (size, dtype) = (e.shape(x)[axis].clone(), e.dtype(x));
    let place = order::place_of(e, x, axis, true, false)?;
    let place = semantics::view::without(e, place, &[axis])?;
    let values = [e.full(Number::ZERO, dtype)?, e.full(Number::ONE, dtype)?];
    order::one_hot(e, place, &size, axis, values)
}

pub(super) fn softmax(e: &mut Emit<'_>, x: ValueId, axis: usize) -> Result<ValueId> {
    normalisation::softmax(e, x, axis)
}

/// The axes that a reduction is over, and whether they stay; `None` where it is told to reduce nothing.
fn axes(c: &mut NodeCall, x: ValueId) -> Result<Option<(Vec<usize>, bool)>> {
    let list = c.axes(1)?.unwrap_or_default();
    if list.is_empty() && c.int("noop_with_empty_axes", 0) != 0 {
        return Ok(None);
    }
    Ok(Some((semantics::axes(&list, c.rank(x))?, c.int("keepdims", 1) != 0)))
}

type Part = fn(&mut Emit<'_>, ValueId) -> Result<ValueId>;

/// `after(sum(before(x)))`.
fn reduced(c: &mut NodeCall, before: Part, after: Part) -> Result<Vec<Known>> {
    let x = c.tensor(0)?;
    let over = axes(c, x)?;
    let mut e = c.emit();
    let mut y = before(&mut e, x)?;
    if let Some((axes, keepdim)) = over {
        y = reduction::reduce(&mut e, ReduceOp::Sum, y, axes, keepdim)?;
    }
    one(after(&mut e, y)?)
}

/// `log(sum(exp(x)))`, without overflow.
fn log_sum_exp(c: &mut NodeCall) -> Result<Vec<Known>> {
    let x = c.tensor(0)?;
    let Some((axes, keepdim)) = axes(c, x)? else { return one(x) };
    let shape = c.shape(x);
    let is_empty = axes.iter().any(|axis| shape[*axis].as_const() == Some(0));
    let mut e = c.emit();
    if is_empty {
        let sum = reduction::reduce(&mut e, ReduceOp::Sum, x, axes, keepdim)?;
        let (shape, dtype) = (e.shape(sum), e.dtype(sum));
        return one(source::full(&mut e, Number::float(f64::NEG_INFINITY), shape, dtype)?);
    }
    let most = reduction::reduce(&mut e, ReduceOp::Max, x, axes.clone(), true)?;
    // An infinite largest element is no distance that others can be measured from.
    let zero = e.full(0.0, e.dtype(x))?;
    let is_infinite = activation::is_infinite(&mut e, most, true, true)?;
    let most = pointwise::select(&mut e, is_infinite, zero, most)?;
    let below = e.binary(BinaryOp::Sub, x, most)?;
    let parts = e.unary(UnaryOp::Exp, below)?;
    let sum = reduction::reduce(&mut e, ReduceOp::Sum, parts, axes.clone(), true)?;
    let sum = e.unary(UnaryOp::Log, sum)?;
    let y = e.binary(BinaryOp::Add, sum, most)?;
    one(if keepdim { y } else { semantics::view::without(&mut e, y, &axes)? })
}
