//! Shapes: reshapes, permutations, broadcasts, slices, joins, padding, repetition.

use aotfarm_ir::{BinaryOp, Expr, GraphDim, Number, Op, ValueId};
use aotfarm_protocol::DType;

use super::{Emit, Result, along, gather, pointwise, product, source};

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

/// A number as a vector of one.
pub(crate) fn at_least_vector(e: &mut Emit<'_>, x: ValueId) -> Result<ValueId> {
    if e.rank(x) == 0 { e.reshape(x, vec![Expr::one()]) } else { Ok(x) }
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

/// What [`permute`] with these axes was made of.
pub(crate) fn permute_back(e: &mut Emit<'_>, x: ValueId, axes: &[usize]) -> Result<ValueId> {
    let mut inverse = vec![0; axes.len()];
    axes.iter().enumerate().for_each(|(to, &from)| inverse[from] = to);
    permute(e, x, inverse)
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

/// The elements `[…, i, i + offset]` of the matrices that the axes `rows` and `columns` make; the diagonal becomes the last axis.
pub(crate) fn diagonal(e: &mut Emit<'_>, x: ValueId, offset: i64, rows: usize, columns: usize) -> Result<ValueId> {
    if rows == columns {
        return Err("a diagonal needs two different axes".into());
    }
    let mut shape = e.shape(x);
    let (Some(height), Some(width)) = (shape[rows].as_const(), shape[columns].as_const()) else {
        return Err("the diagonal of a matrix of symbolic size is not supported".into());
    };
    let order: Vec<usize> = (0..shape.len()).filter(|axis| ![rows, columns].contains(axis)).chain([rows, columns]).collect();
    shape = order[..order.len() - 2].iter().map(|&axis| shape[axis].clone()).collect();
    shape.push(Expr::from(height * width));
    let matrices = permute(e, x, order)?;
    let flat = e.reshape(matrices, shape.clone())?;
    let count = if offset < 0 { (height + offset).min(width) } else { height.min(width - offset) }.max(0);
    let start = if count == 0 { 0 } else { offset.max(0) - offset.min(0) * width };
    let end = if count == 0 { start } else { start + (count - 1) * (width + 1) + 1 };
    slice(e, flat, shape.len() - 1, Expr::from(start), Expr::from(end), width + 1)
}

/// `base`, with the elements that the view `op` of it shows replaced by those of `part`.
pub(crate) fn replace(e: &mut Emit<'_>, base: ValueId, op: &Op, part: ValueId) -> Result<ValueId> {
    let shape = e.shape(base);
    match op {
        Op::Reshape { .. } => e.reshape(part, shape),
        Op::Permute { axes } => permute_back(e, part, axes),
        Op::Slice { axis, start, end, step: 1 } => {
            let size = &shape[*axis];
            let mut parts = Vec::with_capacity(3);
            if start.as_const() != Some(0) {
                parts.push(slice(e, base, *axis, Expr::zero(), start.clone(), 1)?);
            }
            parts.push(part);
            if end != size {
                parts.push(slice(e, base, *axis, end.clone(), size.clone(), 1)?);
            }
            if parts.len() == 1 { Ok(part) } else { concat(e, &parts, *axis) }
        }
        Op::Slice { axis, start, end, step } => replace_every(e, base, part, *axis, [start, end], *step),
        Op::Expand { shape: wide } if product(wide) == product(&shape) => e.reshape(part, shape),
        _ => Err("it writes to an expanded tensor, whose elements stand for several each; write to a clone of it".into()),
    }
}

/// `base`, with every `step`-th position of an axis between the ends replaced by those of `part`, in order.
fn replace_every(
    e: &mut Emit<'_>,
    base: ValueId,
    part: ValueId,
    axis: usize,
    [start, end]: [&Expr; 2],
    step: i64,
) -> Result<ValueId> {
    let (size, count) = (e.shape(base)[axis].clone(), e.shape(part)[axis].clone());
    if count.as_const() == Some(0) {
        return Ok(base);
    }
    let positions = source::range(e, 0, &size, 1, DType::I64)?;
    let [start, end, step, zero, last] = [start, end, &Expr::from(step), &Expr::zero(), &(count - Expr::one())].map(Clone::clone);
    let mut number = |n: &Expr| source::number(e, n, DType::I64);
    let (start, end, step) = (number(&start)?, number(&end)?, number(&step)?);
    let (zero, last) = (number(&zero)?, number(&last)?);
    let distance = e.binary(BinaryOp::Sub, positions, start)?;
    let conditions = [e.binary(BinaryOp::Ge, distance, zero)?, e.binary(BinaryOp::Lt, positions, end)?, {
        let rest = e.binary(BinaryOp::Mod, distance, step)?;
        e.binary(BinaryOp::Eq, rest, zero)?
    }];
    let chosen = e.binary(BinaryOp::And, conditions[0], conditions[1])?;
    let chosen = e.binary(BinaryOp::And, chosen, conditions[2])?;
    // Positions that are not chosen take some element, which the condition then leaves out.
    let which = e.binary(BinaryOp::FloorDiv, distance, step)?;
    let which = e.binary(BinaryOp::Max, which, zero)?;
    let which = e.binary(BinaryOp::Min, which, last)?;
    let spread = gather::take(e, part, which, axis)?;
    let chosen = e.reshape(chosen, along(e.rank(base), axis, size))?;
    pointwise::select(e, chosen, spread, base)
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
pub(crate) fn pad(e: &mut Emit<'_>, x: ValueId, pads: Vec<[i64; 2]>, value: Number) -> Result<ValueId> {
    e.push(Op::Pad { pads, value }, &[x])
}

/// What a padded tensor repeats beyond its ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeats {
    /// What lies as far on the other side of the first or last element.
    Mirror,
    /// The first or last element.
    Edge,
    /// The other end.
    Circle,
}

/// Padding with elements of the tensor itself, `[before, after]` of each axis. Parts are at least as long as [`Repeats`] reaches.
pub(crate) fn pad_by(e: &mut Emit<'_>, mut x: ValueId, pads: &[[i64; 2]], repeats: Repeats) -> Result<ValueId> {
    for (axis, &[before, after]) in pads.iter().enumerate() {
        if before.max(after) > MAX_PARTS {
            return Err(format!("padding by {before} and {after} elements of the tensor itself is not supported").into());
        }
        // What negative padding leaves out still stands at the edge, but is no part of a circle.
        let cropped = |e: &mut Emit<'_>, x: ValueId| {
            let end = &e.shape(x)[axis] - &Expr::from((-after).max(0));
            slice(e, x, axis, Expr::from((-before).max(0)), end, 1)
        };
        if repeats == Repeats::Circle {
            x = cropped(e, x)?;
        }
        let (before, after) = (before.max(0), after.max(0));
        let size = e.shape(x)[axis].clone();
        let part = |e: &mut Emit<'_>, start: Expr, length: i64| {
            let end = &start + &Expr::from(length);
            slice(e, x, axis, start, end, 1)
        };
        let mut parts = Vec::new();
        match repeats {
            Repeats::Mirror => {
                for distance in (1..=before).rev() {
                    parts.push(part(e, Expr::from(distance), 1)?);
                }
                parts.push(x);
                for distance in 1..=after {
                    parts.push(part(e, &size - &Expr::from(distance + 1), 1)?);
                }
            }
            Repeats::Edge => {
                let (first, last) = (part(e, Expr::zero(), 1)?, part(e, &size - &Expr::one(), 1)?);
                parts.extend(std::iter::repeat_n(first, before as usize));
                parts.push(x);
                parts.extend(std::iter::repeat_n(last, after as usize));
            }
            Repeats::Circle => {
                if before > 0 {
                    parts.push(part(e, &size - &Expr::from(before), before)?);
                }
                parts.push(x);
                if after > 0 {
                    parts.push(part(e, Expr::zero(), after)?);
                }
            }
        }
        if parts.len() > 1 {
            x = concat(e, &parts, axis)?;
        }
        if repeats != Repeats::Circle {
            x = cropped(e, x)?;
        }
    }
    Ok(x)
}

/// An axis in the opposite order.
pub(crate) fn flip(e: &mut Emit<'_>, x: ValueId, axis: usize) -> Result<ValueId> {
    let size = e.shape(x)[axis].clone();
    if size.as_const().is_some_and(|n| n < 2) {
        return Ok(x);
    }
    let last = source::number(e, &(&size - &Expr::one()), DType::I64)?;
    let places = source::range(e, 0, &size, 1, DType::I64)?;
    let places = e.binary(BinaryOp::Sub, last, places)?;
    gather::take(e, x, places, axis)
}

/// Each element of an axis `shift` places further, those at the end at the beginning.
pub(crate) fn roll(e: &mut Emit<'_>, x: ValueId, axis: usize, shift: i64) -> Result<ValueId> {
    let size = e.shape(x)[axis].clone();
    let shift = size.as_const().map_or(shift, |n| shift.rem_euclid(n.max(1)));
    if shift == 0 {
        return Ok(x);
    }
    // Of a symbolic axis, a shift that may be longer than it is refused by the range of its slice.
    let cut = if shift > 0 { &size - &Expr::from(shift) } else { Expr::from(-shift) };
    let tail = e.push(Op::Slice { axis, start: cut.clone(), end: size, step: 1 }, &[x])?;
    let head = e.push(Op::Slice { axis, start: Expr::zero(), end: cut, step: 1 }, &[x])?;
    concat(e, &[tail, head], axis)
}

/// The elements of matrices where `column - row` stands to `diagonal` as `op` says; the others are zero.
pub(crate) fn triangle(e: &mut Emit<'_>, x: ValueId, op: BinaryOp, diagonal: i64) -> Result<ValueId> {
    let shape = e.shape(x);
    let [.., height, width] = shape.as_slice() else { return Err("a triangle is one of a matrix".into()) };
    let rows = source::range(e, 0, height, 1, DType::I64)?;
    let rows = e.reshape(rows, vec![height.clone(), Expr::one()])?;
    let columns = source::range(e, 0, width, 1, DType::I64)?;
    let distance = e.binary(BinaryOp::Sub, columns, rows)?;
    let diagonal = e.full(diagonal, DType::I64)?;
    let kept = e.binary(op, distance, diagonal)?;
    let zero = e.full(0i64, e.dtype(x))?;
    pointwise::select(e, kept, x, zero)
}

/// Each position of an axis `times` in a row.
pub(crate) fn repeat_each(e: &mut Emit<'_>, x: ValueId, axis: usize, times: i64) -> Result<ValueId> {
    let mut shape = e.shape(x);
    let alone = unsqueeze(e, x, vec![axis + 1])?;
    let mut wide = shape.clone();
    wide.insert(axis + 1, Expr::from(times));
    let wide = expand(e, alone, wide)?;
    shape[axis] = &shape[axis] * &Expr::from(times);
    e.reshape(wide, shape)
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
