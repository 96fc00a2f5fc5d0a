//! Values that come from no tensor.

use aotfarm_ir::{BinaryOp, Expr, Number, Op, ValueId};
use aotfarm_protocol::DType;

use super::{Emit, Result};

/// `start, start + step, …` up to `end`, which is left out.
pub(crate) fn range(e: &mut Emit<'_>, start: i64, end: &Expr, step: i64, dtype: DType) -> Result<ValueId> {
    if step == 0 {
        return Err("a range with step 0".into());
    }
    let span = end - &Expr::from(start);
    let length = match (span.as_const(), step) {
        (Some(n), _) => Expr::from((n.abs() + step.abs() - 1) / step.abs() * i64::from(n.signum() == step.signum())),
        (None, 1) => span,
        (None, _) if step > 1 => (&span + &Expr::from(step - 1)).floor_div(&Expr::from(step)),
        _ => return Err("a range with a negative step over a symbolic end is not supported".into()),
    };
    e.push(Op::Iota { length, start, step, dtype }, &[])
}

/// `start + step i` for `i < length`, where the numbers may be fractions; rounded once.
pub(crate) fn ramp(e: &mut Emit<'_>, length: i64, start: f64, step: f64, dtype: DType) -> Result<ValueId> {
    let length = Expr::from(length);
    let is_whole = |x: f64| x.fract() == 0.0 && x.abs() < 2f64.powi(53);
    if is_whole(start) && is_whole(step) {
        return e.push(Op::Iota { length, start: start as i64, step: step as i64, dtype }, &[]);
    }
    let i = e.push(Op::Iota { length, start: 0, step: 1, dtype: DType::F64 }, &[])?;
    let [start, step] = [e.full(start, DType::F64)?, e.full(step, DType::F64)?];
    let distance = e.binary(BinaryOp::Mul, i, step)?;
    let x = e.binary(BinaryOp::Add, distance, start)?;
    e.cast(x, dtype)
}

/// One value everywhere.
pub(crate) fn full(e: &mut Emit<'_>, value: Number, shape: Vec<Expr>, dtype: DType) -> Result<ValueId> {
    e.push(Op::Full { value, shape, dtype }, &[])
}

/// An integer, constant or symbolic, as a tensor of rank 0.
pub(crate) fn number(e: &mut Emit<'_>, n: &Expr, dtype: DType) -> Result<ValueId> {
    match n.as_const() {
        Some(n) => e.full(n, dtype),
        None => size(e, n, dtype),
    }
}

/// A symbolic size as a tensor of rank 0: the last element of 0, 1, …, n.
pub(crate) fn size(e: &mut Emit<'_>, size: &Expr, dtype: DType) -> Result<ValueId> {
    let length = size + &Expr::one();
    let iota = e.push(Op::Iota { length: length.clone(), start: 0, step: 1, dtype: DType::I64 }, &[])?;
    let last = e.push(Op::Slice { axis: 0, start: size.clone(), end: length, step: 1 }, &[iota])?;
    let scalar = e.reshape(last, Vec::new())?;
    e.cast(scalar, dtype)
}
