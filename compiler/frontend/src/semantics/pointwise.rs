//! Element-wise functions.

use aotfarm_ir::{BinaryOp, Op, UnaryOp, ValueId};

use super::{Emit, Result};

/// `min(max(x, 0), 6)`.
pub(crate) const RELU6: UnaryOp = UnaryOp::Clamp { low: 0.0, high: 6.0 };

/// `factor x`, in the type of x.
pub(crate) fn times(e: &mut Emit<'_>, x: ValueId, factor: f64) -> Result<ValueId> {
    if factor == 1.0 {
        return Ok(x);
    }
    let factor = e.full(factor, e.dtype(x))?;
    e.binary(BinaryOp::Mul, x, factor)
}

/// The powers that have a function of their own; `None` for others.
pub(crate) fn simple_power(e: &mut Emit<'_>, x: ValueId, power: f64) -> Result<Option<ValueId>> {
    Ok(Some(match power {
        0.5 => e.unary(UnaryOp::Sqrt, x)?,
        2.0 => e.binary(BinaryOp::Mul, x, x)?,
        _ => return Ok(None),
    }))
}

/// `condition ? then : otherwise`, element by element; both of one type.
pub(crate) fn select(e: &mut Emit<'_>, condition: ValueId, then: ValueId, otherwise: ValueId) -> Result<ValueId> {
    e.push(Op::Where, &[condition, then, otherwise])
}
