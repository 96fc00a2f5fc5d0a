//! Element-wise functions.

use aotfarm_ir::{BinaryOp, Number, Op, UnaryOp, ValueId};
use aotfarm_protocol::DType;

use super::{Emit, Result};

/// `min(max(x, 0), 6)`.
pub(crate) const RELU6: UnaryOp = UnaryOp::Clamp { low: 0.0, high: 6.0 };

/// `factor x`, in the type of x.
pub(crate) fn times(e: &mut Emit<'_>, x: ValueId, factor: impl Into<Number>) -> Result<ValueId> {
    let factor = factor.into();
    if factor == 1.0 {
        return Ok(x);
    }
    let factor = e.full(factor, e.dtype(x))?;
    e.binary(BinaryOp::Mul, x, factor)
}

/// The powers that have a function of their own; `None` for others.
pub(crate) fn simple_power(e: &mut Emit<'_>, x: ValueId, power: Number) -> Result<Option<ValueId>> {
    Ok(Some(match power.as_f64() {
        Some(0.5) if e.dtype(x).is_float() => e.unary(UnaryOp::Sqrt, x)?,
        Some(2.0) => e.binary(BinaryOp::Mul, x, x)?,
        _ => return Ok(None),
    }))
}

/// `min(max(x, low), high)`; an end that is left out is open.
pub(crate) fn clamp(e: &mut Emit<'_>, x: ValueId, low: Option<Number>, high: Option<Number>) -> Result<ValueId> {
    let dtype = e.dtype(x);
    let [low, high] = [low, high].map(|end| end.map(|end| end.of_type(dtype)));
    let end = |end: Option<Number>, open: f64| end.unwrap_or(Number::float(open)).as_f64();
    if let (Some(low), Some(high)) = (end(low, f64::NEG_INFINITY), end(high, f64::INFINITY)) {
        return e.unary(UnaryOp::Clamp { low, high }, x);
    }
    // The parameters of functions are f64, which these ends are not.
    let mut y = x;
    for (op, end) in [(BinaryOp::Max, low), (BinaryOp::Min, high)] {
        if let Some(end) = end {
            let end = e.full(end, dtype)?;
            y = e.binary(op, y, end)?;
        }
    }
    Ok(y)
}

/// `log(1 + exp(beta x)) / beta`, and x itself where `beta x` is above the threshold.
pub(crate) fn softplus(e: &mut Emit<'_>, x: ValueId, beta: f64, threshold: f64) -> Result<ValueId> {
    let scaled = times(e, x, Number::float(beta))?;
    let limit = e.full(threshold, e.dtype(x))?;
    let linear = e.binary(BinaryOp::Gt, scaled, limit)?;
    let power = e.unary(UnaryOp::Exp, scaled)?;
    let log = e.unary(UnaryOp::Log1p, power)?;
    let log = if beta == 1.0 {
        log
    } else {
        let beta = e.full(beta, e.dtype(x))?;
        e.binary(BinaryOp::Div, log, beta)?
    };
    select(e, linear, x, log)
}

/// Rounded toward zero.
pub(crate) fn truncated(e: &mut Emit<'_>, x: ValueId) -> Result<ValueId> {
    let zero = e.full(0.0, e.dtype(x))?;
    let negative = e.binary(BinaryOp::Lt, x, zero)?;
    let (up, down) = (e.unary(UnaryOp::Ceil, x)?, e.unary(UnaryOp::Floor, x)?);
    select(e, negative, up, down)
}

/// Whether the elements differ from zero.
pub(crate) fn truth(e: &mut Emit<'_>, x: ValueId) -> Result<ValueId> {
    if e.dtype(x) == DType::Bool {
        return Ok(x);
    }
    let zero = e.full(0.0, e.dtype(x))?;
    e.binary(BinaryOp::Ne, x, zero)
}

/// `condition ? then : otherwise`, element by element; both of one type.
pub(crate) fn select(e: &mut Emit<'_>, condition: ValueId, then: ValueId, otherwise: ValueId) -> Result<ValueId> {
    e.push(Op::Where, &[condition, then, otherwise])
}
