//! Where the largest elements are, the order of elements, and running sums along an axis.

use aotfarm_ir::{BinaryOp, Expr, Number, ReduceOp, ValueId};
use aotfarm_protocol::DType;

use super::{Emit, Result, along, gather, pointwise, reduction, source, view};

/// A vector of the positions of `axis`, in as many dimensions as `x` has.
fn positions(e: &mut Emit<'_>, x: ValueId, axis: usize) -> Result<ValueId> {
    let size = e.shape(x)[axis].clone();
    let places = source::range(e, 0, &size, 1, DType::I64)?;
    e.reshape(places, along(e.rank(x), axis, size))
}

/// `x` in a type that can be compared.
fn comparable(e: &mut Emit<'_>, x: ValueId) -> Result<ValueId> {
    if e.dtype(x) == DType::Bool { e.cast(x, DType::U8) } else { Ok(x) }
}

/// The place along `axis` of the largest element (`op` is Max) or the smallest (Min): the first of equal ones. What is not a number is
/// larger and smaller than all numbers.
pub(crate) fn place_of(e: &mut Emit<'_>, op: ReduceOp, x: ValueId, axis: usize, keepdim: bool) -> Result<ValueId> {
    let x = comparable(e, x)?;
    let best = reduction::reduce(e, op, x, vec![axis], true)?;
    let mut found = e.binary(BinaryOp::Eq, x, best)?;
    if e.dtype(x).is_float() {
        let is_nan = e.binary(BinaryOp::Ne, x, x)?;
        found = e.binary(BinaryOp::Or, found, is_nan)?;
    }
    let places = positions(e, x, axis)?;
    let size = e.shape(x)[axis].clone();
    let end = source::number(e, &size, DType::I64)?;
    let candidates = pointwise::select(e, found, places, end)?;
    reduction::reduce(e, ReduceOp::Min, candidates, vec![axis], keepdim)
}

/// The places of the `count` first elements along `axis` in ascending or descending order; equal ones stay in their order, and what is
/// not a number is larger than all numbers.
///
/// Each element counts those that come before it, so that the graph stays one of loops: their number is quadratic in the axis.
pub(crate) fn sorted_places(e: &mut Emit<'_>, x: ValueId, axis: usize, descending: bool, count: &Expr) -> Result<ValueId> {
    let x = comparable(e, x)?;
    let (element, other) = (view::unsqueeze(e, x, vec![axis + 1])?, view::unsqueeze(e, x, vec![axis])?);
    let sooner = if descending { BinaryOp::Gt } else { BinaryOp::Lt };
    let mut before = e.binary(sooner, other, element)?;
    let mut equal = e.binary(BinaryOp::Eq, other, element)?;
    if e.dtype(x).is_float() {
        let [element_nan, other_nan] = [element, other].map(|x| e.binary(BinaryOp::Ne, x, x));
        let (element_nan, other_nan) = (element_nan?, other_nan?);
        let (first, last) = if descending { (other_nan, element_nan) } else { (element_nan, other_nan) };
        let last = e.unary(aotfarm_ir::UnaryOp::Not, last)?;
        let apart = e.binary(BinaryOp::And, first, last)?;
        before = e.binary(BinaryOp::Or, before, apart)?;
        let both = e.binary(BinaryOp::And, element_nan, other_nan)?;
        equal = e.binary(BinaryOp::Or, equal, both)?;
    }
    let places = positions(e, x, axis)?;
    let (place, other_place) = (view::unsqueeze(e, places, vec![axis + 1])?, view::unsqueeze(e, places, vec![axis])?);
    let earlier = e.binary(BinaryOp::Lt, other_place, place)?;
    let tied = e.binary(BinaryOp::And, equal, earlier)?;
    let before = e.binary(BinaryOp::Or, before, tied)?;
    let before = e.cast(before, DType::I64)?;
    let rank = reduction::reduce(e, ReduceOp::Sum, before, vec![axis + 1], false)?;
    // The place at each rank is the one whose rank it is.
    let wanted = source::range(e, 0, count, 1, DType::I64)?;
    let wanted = e.reshape(wanted, along(e.rank(x) + 1, axis, count.clone()))?;
    let rank = view::unsqueeze(e, rank, vec![axis])?;
    let met = e.binary(BinaryOp::Eq, wanted, rank)?;
    let nothing = e.full(-1i64, DType::I64)?;
    let candidates = pointwise::select(e, met, other_place, nothing)?;
    reduction::reduce(e, ReduceOp::Max, candidates, vec![axis + 1], false)
}

/// The elements at the places of [`sorted_places`].
pub(crate) fn at_places(e: &mut Emit<'_>, x: ValueId, places: ValueId, axis: usize) -> Result<ValueId> {
    gather::elements(e, x, places, axis)
}

/// What `op` makes of all elements up to each one along `axis`, itself included; `neutral` changes nothing. In steps that double the
/// reach, so that a float sum of n has log n roundings.
pub(crate) fn running(e: &mut Emit<'_>, op: BinaryOp, neutral: Number, mut x: ValueId, axis: usize) -> Result<ValueId> {
    let size = e.shape(x)[axis].clone();
    let (_, longest) = size.bounds(&e.builder.graph().dims);
    let mut reach = 1;
    while reach < longest {
        let mut pads = vec![[0, 0]; e.rank(x)];
        pads[axis] = [reach, 0];
        let moved = view::pad(e, x, pads, neutral)?;
        let moved = view::slice(e, moved, axis, Expr::zero(), size.clone(), 1)?;
        x = e.binary(op, x, moved)?;
        reach *= 2;
    }
    Ok(x)
}
