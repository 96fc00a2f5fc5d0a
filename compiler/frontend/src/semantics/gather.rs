//! Gathers, and their inverse.

use aotfarm_ir::{BinaryOp, Expr, Op, ReduceOp, ValueId};
use aotfarm_protocol::DType;

use super::{Emit, Result, along, pointwise, source};

/// `x` with `axis` replaced by the shape of `indices`.
pub(crate) fn take(e: &mut Emit<'_>, x: ValueId, indices: ValueId, axis: usize) -> Result<ValueId> {
    e.push(Op::Take { axis }, &[x, indices])
}

/// One element of `x` for each of `indices`, which have its rank.
pub(crate) fn elements(e: &mut Emit<'_>, x: ValueId, indices: ValueId, axis: usize) -> Result<ValueId> {
    e.push(Op::GatherElements { axis }, &[x, indices])
}

/// `x`, and in it the slices of `values` along `axis` at the positions `indices`, a vector; of several for one position the last.
/// Positions outside are left out.
///
/// Each position looks for the slice that it gets, so that no element is written twice and the graph stays one of loops:
/// `which[p] = max { i : indices[i] = p }`, or -1.
pub(crate) fn put(e: &mut Emit<'_>, x: ValueId, indices: ValueId, values: ValueId, axis: usize) -> Result<ValueId> {
    let (size, count) = (e.shape(x)[axis].clone(), e.shape(values)[axis].clone());
    if count.as_const() == Some(0) {
        return Ok(x);
    }
    let row = |of: &Expr| vec![Expr::one(), of.clone()];
    let indices = e.cast(indices, DType::I64)?;
    let indices = e.reshape(indices, row(&count))?;
    let order = source::range(e, 0, &count, 1, DType::I64)?;
    let order = e.reshape(order, row(&count))?;
    let positions = source::range(e, 0, &size, 1, DType::I64)?;
    let positions = e.reshape(positions, vec![size.clone(), Expr::one()])?;
    let meets = e.binary(BinaryOp::Eq, positions, indices)?;
    let (is_met, which) = last_met(e, meets, order, 1)?;
    let spread = take(e, values, which, axis)?;
    let is_met = e.reshape(is_met, along(e.rank(x), axis, size))?;
    pointwise::select(e, is_met, spread, x)
}

/// Whether anything along `axis` meets, and the last of `order` that does; where nothing does, some place that there is.
pub(crate) fn last_met(e: &mut Emit<'_>, meets: ValueId, order: ValueId, axis: usize) -> Result<(ValueId, ValueId)> {
    let nothing = e.full(-1i64, DType::I64)?;
    let candidates = pointwise::select(e, meets, order, nothing)?;
    let which = e.push(Op::Reduce { op: ReduceOp::Max, axes: vec![axis], keepdim: false }, &[candidates])?;
    let zero = e.full(0i64, DType::I64)?;
    let is_met = e.binary(BinaryOp::Ge, which, zero)?;
    Ok((is_met, e.binary(BinaryOp::Max, which, zero)?))
}
