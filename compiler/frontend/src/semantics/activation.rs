//! Functions of one number that are made of simpler ones.

use aotfarm_ir::{BinaryOp, Number, UnaryOp, ValueId};

use super::{Emit, Result, pointwise};

/// `op(x, number)`, in the type of x.
pub(crate) fn with_number(e: &mut Emit<'_>, op: BinaryOp, x: ValueId, number: impl Into<Number>) -> Result<ValueId> {
    let number = e.full(number, e.dtype(x))?;
    e.binary(op, x, number)
}

/// -1, 0 or 1; NaN stays.
pub(crate) fn sign(e: &mut Emit<'_>, x: ValueId) -> Result<ValueId> {
    let dtype = e.dtype(x);
    let (above, below) = (with_number(e, BinaryOp::Gt, x, 0i64)?, with_number(e, BinaryOp::Lt, x, 0i64)?);
    let (above, below) = (e.cast(above, dtype)?, e.cast(below, dtype)?);
    let sign = e.binary(BinaryOp::Sub, above, below)?;
    if !dtype.is_float() {
        return Ok(sign);
    }
    let is_nan = e.binary(BinaryOp::Ne, x, x)?;
    pointwise::select(e, is_nan, x, sign)
}

/// `log(1 + exp(x))`, without overflow.
pub(crate) fn softplus(e: &mut Emit<'_>, x: ValueId) -> Result<ValueId> {
    let size = e.unary(UnaryOp::Abs, x)?;
    let size = e.unary(UnaryOp::Neg, size)?;
    let small = e.unary(UnaryOp::Exp, size)?;
    let small = e.unary(UnaryOp::Log1p, small)?;
    let above = e.unary(UnaryOp::Relu, x)?;
    e.binary(BinaryOp::Add, above, small)
}

/// `x / (1 + |x|)`.
pub(crate) fn softsign(e: &mut Emit<'_>, x: ValueId) -> Result<ValueId> {
    let size = e.unary(UnaryOp::Abs, x)?;
    let size = with_number(e, BinaryOp::Add, size, 1.0)?;
    e.binary(BinaryOp::Div, x, size)
}

/// `x tanh(softplus(x))`.
pub(crate) fn mish(e: &mut Emit<'_>, x: ValueId) -> Result<ValueId> {
    let gate = softplus(e, x)?;
    let gate = e.unary(UnaryOp::Tanh, gate)?;
    e.binary(BinaryOp::Mul, x, gate)
}

/// `max(x, 0) + min(0, alpha (exp(x / alpha) - 1))`.
pub(crate) fn celu(e: &mut Emit<'_>, x: ValueId, alpha: f64) -> Result<ValueId> {
    let scaled = with_number(e, BinaryOp::Div, x, alpha)?;
    let below = e.unary(UnaryOp::Elu { alpha: 1.0 }, scaled)?;
    let below = pointwise::times(e, below, alpha)?;
    let is_above = with_number(e, BinaryOp::Gt, x, 0.0)?;
    pointwise::select(e, is_above, x, below)
}

/// `x < 0 ? slope x : x`, the slope broadcast to x.
pub(crate) fn prelu(e: &mut Emit<'_>, x: ValueId, slope: ValueId) -> Result<ValueId> {
    let is_below = with_number(e, BinaryOp::Lt, x, 0i64)?;
    let below = e.binary(BinaryOp::Mul, x, slope)?;
    pointwise::select(e, is_below, below, x)
}

/// Whether the elements are infinite, of the signs asked for.
pub(crate) fn is_infinite(e: &mut Emit<'_>, x: ValueId, negative: bool, positive: bool) -> Result<ValueId> {
    let [below, above] = [f64::NEG_INFINITY, f64::INFINITY].map(|end| with_number(e, BinaryOp::Eq, x, end));
    let (below, above) = (below?, above?);
    match (negative, positive) {
        (true, true) => e.binary(BinaryOp::Or, below, above),
        (true, false) => Ok(below),
        (false, true) => Ok(above),
        (false, false) => e.binary(BinaryOp::And, below, above),
    }
}
