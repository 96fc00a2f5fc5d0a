//! Shapes: reshapes, permutations, broadcasts, slices, joins, padding, repetition.

use aotfarm_ir::{Expr, GraphDim, Op, ValueId};

use super::{Emit, Result, product};

/// Most parts that a tensor is split into; each is a node.
const MAX_PARTS: i64 = 1 << 16;

/// A new shape in which one size may be -1: what is left.
pub(crate) fn reshape(e: &mut Emit<'_>, x: ValueId, mut shape: Vec<Expr>) -> Result<ValueId> {
    if let Some(at) = shape.iter().position(|s| s.as_const() == Some(-1)) {
        let total = product(&e.ty(x).shape);
        let rest = shape.iter().enumerate().filter(|(i, _)| *i != at).fold(Expr::one(), |a, (_, b)| &a * b);
        shape[at] =
            total.div_exact(&rest).ok_or_else(|| format!("the -1 of its shape is {total} / {rest}, which is no whole size"))?;
    }
    e.reshape(x, shape)
}

/// Merges the axes from `start` to `end`, both included; a scalar becomes a vector of one.
pub(crate) fn flatten(e: &mut Emit<'_>, x: ValueId, start: usize, end: usize) -> Result<ValueId> {
    let mut shape = e.shape(x);
    if shape.is_empty() {
        shape = vec![Expr::one()];
    } else if start < end {
        let merged = product(&shape.drain(start..=end).collect::<Vec<_>>());
        shape.insert(start, merged);
    }
    e.reshape(x, shape)
}

/// The matrix whose rows are the axes before `axis` and whose columns are those from it on.
pub(crate) fn as_matrix(e: &mut Emit<'_>, x: ValueId, axis: usize) -> Result<ValueId> {
    let shape = e.shape(x);
    e.reshape(x, vec![product(&shape[..axis]), product(&shape[axis..])])
}

pub(crate) fn permute(e: &mut Emit<'_>, x: ValueId, axes: Vec<usize>) -> Result<ValueId> {
    e.push(Op::Permute { axes }, &[x])
}

/// The axes in the opposite order.
pub(crate) fn reversed(e: &mut Emit<'_>, x: ValueId) -> Result<ValueId> {
    let axes = (0..e.rank(x)).rev().collect();
    permute(e, x, axes)
}

/// Axes of size 1 where `axes` (of the result) say.
pub(crate) fn unsqueeze(e: &mut Emit<'_>, x: ValueId, mut axes: Vec<usize>) -> Result<ValueId> {
    let mut shape = e.shape(x);
    axes.sort_unstable();
    for axis in axes {
        if axis > shape.len() {
            return Err("its axes repeat".into());
        }
        shape.insert(axis, Expr::one());
    }
    e.reshape(x, shape)
}

/// Without the given axes.
pub(crate) fn without(e: &mut Emit<'_>, x: ValueId, axes: &[usize]) -> Result<ValueId> {
    let kept = e.shape(x).into_iter().enumerate().filter(|(i, _)| !axes.contains(i)).map(|(_, s)| s).collect();
    e.reshape(x, kept)
}

/// Those of the given axes that have size 1.
pub(crate) fn of_size_one(e: &Emit<'_>, x: ValueId, axes: impl IntoIterator<Item = usize>) -> Vec<usize> {
    axes.into_iter().filter(|&i| e.ty(x).shape.get(i).is_some_and(|s| s.as_const() == Some(1))).collect()
}

/// Broadcast to `shape`.
pub(crate) fn expand(e: &mut Emit<'_>, x: ValueId, shape: Vec<Expr>) -> Result<ValueId> {
    if e.ty(x).shape == shape { Ok(x) } else { e.push(Op::Expand { shape }, &[x]) }
}

/// A position as in numpy: negative ones count from the end, and all are clamped. Exporters write the ends of an integer type for
/// "to the end" and "from the start".
pub(crate) fn position(at: &Expr, size: &Expr) -> Expr {
    match (at.as_const(), size.as_const()) {
        (Some(n), Some(size)) => Expr::from((if n < 0 { n.saturating_add(size) } else { n }).clamp(0, size)),
        (Some(n), None) if n >= i64::from(i32::MAX) => size.clone(),
        (Some(n), None) if n <= -i64::from(i32::MAX) => Expr::zero(),
        (Some(n), None) if n < 0 => size + &Expr::from(n),
        _ => at.clone(),
    }
}

/// Every `step`-th position of an axis from `start` to `end`, both as [`position`] gives them; what lies outside an axis that may be
/// shorter is left out, as everywhere in numpy.
pub(crate) fn slice(e: &mut Emit<'_>, x: ValueId, axis: usize, start: Expr, end: Expr, step: i64) -> Result<ValueId> {
    if start.as_const() == Some(0) && end == e.ty(x).shape[axis] && step == 1 {
        return Ok(x);
    }
    let end = match (start.as_const(), end.as_const()) {
        (Some(s), Some(e)) => Expr::from(e.max(s)),
        _ => end,
    };
    let (start, end) = within(&e.ty(x).shape[axis], start, end, &e.builder.graph().dims);
    e.push(Op::Slice { axis, start, end, step }, &[x])
}

/// The part of `start..end` that lies in `0..size` at all allowed sizes of `dims`; as it is where that is all of it.
fn within(size: &Expr, start: Expr, end: Expr, dims: &[GraphDim]) -> (Expr, Expr) {
    let never_negative = |distance: &Expr| distance.bounds(dims).0 >= 0;
    if [&start, &(&end - &start), &(size - &end)].into_iter().all(never_negative) {
        return (start, end);
    }
    let clamp = |at: Expr| {
        let at = if never_negative(&at) { at } else { at.maximum(&Expr::zero()) };
        if never_negative(&(size - &at)) { at } else { at.minimum(size) }
    };
    let (start, end) = (clamp(start), clamp(end));
    let end = if never_negative(&(&end - &start)) { end } else { end.maximum(&start) };
    (start, end)
}

/// One position of an axis, which is then dropped.
pub(crate) fn select(e: &mut Emit<'_>, x: ValueId, axis: usize, index: Expr) -> Result<ValueId> {
    let mut shape = e.shape(x);
    let start = if index.as_const().is_some_and(|n| n < 0) { &shape[axis] + &index } else { index };
    let end = &start + &Expr::one();
    let part = e.push(Op::Slice { axis, start, end, step: 1 }, &[x])?;
    shape.remove(axis);
    e.reshape(part, shape)
}

/// The constant size of an axis that is to be split.
pub(crate) fn size_to_split(e: &Emit<'_>, x: ValueId, axis: usize) -> Result<i64> {
    e.ty(x).shape[axis].as_const().ok_or_else(|| "splitting a symbolic dimension is not supported".into())
}

/// Sizes of `part` each that add up to `size`; the last may be smaller.
pub(crate) fn equal_parts(size: i64, part: i64) -> Result<Vec<i64>> {
    if part < 1 || size / part > MAX_PARTS {
        return Err(format!("a size of {size} cannot be split into parts of {part}").into());
    }
    Ok((0..size).step_by(part as usize).map(|at| part.min(size - at)).collect())
}

/// Parts of these sizes along an axis, one after the other.
pub(crate) fn split(e: &mut Emit<'_>, x: ValueId, axis: usize, sizes: &[i64]) -> Result<Vec<ValueId>> {
    let mut start = 0;
    let mut list = Vec::with_capacity(sizes.len());
    for size in sizes {
        list.push(e.push(Op::Slice { axis, start: Expr::from(start), end: Expr::from(start + size), step: 1 }, &[x])?);
        start += size;
    }
    Ok(list)
}

pub(crate) fn concat(e: &mut Emit<'_>, list: &[ValueId], axis: usize) -> Result<ValueId> {
    e.push(Op::Concat { axis }, list)
}

/// Joined along a new axis.
pub(crate) fn stack(e: &mut Emit<'_>, list: &[ValueId], axis: usize) -> Result<ValueId> {
    let parts = list.iter().map(|id| unsqueeze(e, *id, vec![axis])).collect::<Result<Vec<_>>>()?;
    concat(e, &parts, axis)
}

/// Constant padding, `[before, after]` of each axis.
pub(crate) fn pad(e: &mut Emit<'_>, x: ValueId, pads: Vec<[i64; 2]>, value: f64) -> Result<ValueId> {
    e.push(Op::Pad { pads, value }, &[x])
}

/// Repeats along each axis, as a reshape, an expansion and a reshape. More repeats than dimensions make new ones in front.
pub(crate) fn repeat(e: &mut Emit<'_>, x: ValueId, repeats: &[Expr]) -> Result<ValueId> {
    let mut old = e.shape(x);
    let new = repeats.len().checked_sub(old.len()).ok_or("it has fewer repeats than its input has dimensions")?;
    old.splice(0..0, vec![Expr::one(); new]);
    let (mut parts, mut wide, mut merged) = (Vec::new(), Vec::new(), Vec::new());
    for (size, times) in old.iter().zip(repeats) {
        parts.extend([Expr::one(), size.clone()]);
        wide.extend([times.clone(), size.clone()]);
        merged.push(size * times);
    }
    let x = e.reshape(x, parts)?;
    let x = e.push(Op::Expand { shape: wide }, &[x])?;
    e.reshape(x, merged)
}
