//! Several tensors of positions at once, as in `x[rows, :, columns]`.

use aotfarm_ir::{BinaryOp, Expr, ValueId};
use aotfarm_protocol::DType;

use super::{Emit, Result, along, gather, pointwise, product, source, view};

/// `x` with the axes that are indexed merged into one.
struct Merged {
    x: ValueId,
    axis: usize,
    /// Positions along the merged axis.
    places: ValueId,
    /// The axes of the operand in the order of `shape`.
    order: Vec<usize>,
    /// The shape before the axes were merged.
    shape: Vec<Expr>,
}

/// `indices[i]` holds positions along axis i, negative ones from the end; together they broadcast. What they index becomes the axes of
/// the indices: where the indexed axes were if these lie side by side, else in front, as torch and numpy have it.
fn merged(e: &mut Emit<'_>, x: ValueId, indices: &[Option<ValueId>]) -> Result<Merged> {
    let given: Vec<(usize, ValueId)> = indices.iter().enumerate().filter_map(|(axis, index)| Some((axis, (*index)?))).collect();
    let rank = e.rank(x);
    let Some(&(first, _)) = given.first() else { return Err("it has no index tensor".into()) };
    if indices.len() > rank {
        return Err(format!("{} index tensors for a tensor of rank {rank}", indices.len()).into());
    }
    if let Some((_, index)) = given.iter().find(|(_, index)| !matches!(e.dtype(*index), DType::I32 | DType::I64)) {
        let ty = e.ty(*index);
        return Err(format!("an index of {ty}: how many elements a mask picks is known only in a run; use where").into());
    }
    let axes: Vec<usize> = given.iter().map(|(axis, _)| *axis).collect();
    let side_by_side = axes.windows(2).all(|pair| pair[0] + 1 == pair[1]);
    let (axis, order) = if side_by_side {
        (first, (0..rank).collect())
    } else {
        (0, axes.iter().copied().chain((0..rank).filter(|axis| !axes.contains(axis))).collect::<Vec<_>>())
    };
    let x = if side_by_side { x } else { view::permute(e, x, order.clone())? };
    let shape = e.shape(x);
    let sizes = &shape[axis..axis + axes.len()];
    let mut places = None;
    for ((_, index), size) in given.iter().zip(sizes) {
        let index = counted_from_start(e, *index, size)?;
        places = Some(match places {
            None => index,
            Some(before) => {
                let size = source::number(e, size, DType::I64)?;
                let before = e.binary(BinaryOp::Mul, before, size)?;
                e.binary(BinaryOp::Add, before, index)?
            }
        });
    }
    let mut together = shape.clone();
    together.splice(axis..axis + axes.len(), [product(sizes)]);
    let x = e.reshape(x, together)?;
    Ok(Merged { x, axis, places: places.expect("there is a first index"), order, shape })
}

/// Positions of which negative ones counted from the end.
fn counted_from_start(e: &mut Emit<'_>, index: ValueId, size: &Expr) -> Result<ValueId> {
    let index = e.cast(index, DType::I64)?;
    let zero = e.full(0i64, DType::I64)?;
    let is_negative = e.binary(BinaryOp::Lt, index, zero)?;
    let size = source::number(e, size, DType::I64)?;
    let from_end = e.binary(BinaryOp::Add, index, size)?;
    pointwise::select(e, is_negative, from_end, index)
}

/// `x[indices]`; an axis without index tensor stays.
pub(crate) fn take(e: &mut Emit<'_>, x: ValueId, indices: &[Option<ValueId>]) -> Result<ValueId> {
    let mut given = indices.iter().enumerate().filter_map(|(axis, index)| Some((axis, (*index)?)));
    if let (Some((axis, index)), None) = (given.next(), given.next())
        && matches!(e.dtype(index), DType::I32 | DType::I64)
    {
        return gather::take(e, x, index, axis);
    }
    let Merged { x, axis, places, .. } = merged(e, x, indices)?;
    gather::take(e, x, places, axis)
}

/// `x`, where `x[indices]` is `values`, which broadcast to that.
pub(crate) fn put(e: &mut Emit<'_>, x: ValueId, indices: &[Option<ValueId>], values: ValueId) -> Result<ValueId> {
    let Merged { x, axis, places, order, shape } = merged(e, x, indices)?;
    let (mut wide, among) = (e.shape(x), e.shape(places));
    let count = product(&among);
    wide.splice(axis..=axis, among);
    let values = view::expand(e, values, wide)?;
    let mut rows = e.shape(x);
    rows[axis] = count.clone();
    let values = e.reshape(values, rows)?;
    let places = e.reshape(places, vec![count])?;
    let x = gather::put(e, x, places, values, axis)?;
    let x = e.reshape(x, shape)?;
    if order.is_sorted() {
        return Ok(x);
    }
    view::permute_back(e, x, &order)
}

/// One element of `values` put at each of `indices` along `axis`, where both have the shape of `x` but for that axis; of several for one
/// place the last.
pub(crate) fn put_elements(e: &mut Emit<'_>, x: ValueId, indices: ValueId, values: ValueId, axis: usize) -> Result<ValueId> {
    let (meets, order) = meetings(e, x, indices, axis)?;
    let (is_met, which) = gather::last_met(e, meets, order, axis + 1)?;
    let spread = gather::elements(e, values, which, axis)?;
    pointwise::select(e, is_met, spread, x)
}

/// `x`, and to it added each of `values` at its place along `axis`, as [`put_elements`] has them.
pub(crate) fn add_elements(e: &mut Emit<'_>, x: ValueId, indices: ValueId, values: ValueId, axis: usize) -> Result<ValueId> {
    let (meets, _) = meetings(e, x, indices, axis)?;
    let values = view::unsqueeze(e, values, vec![axis])?;
    let zero = e.full(0i64, e.dtype(values))?;
    let added = pointwise::select(e, meets, values, zero)?;
    let sum = super::reduction::reduce(e, aotfarm_ir::ReduceOp::Sum, added, vec![axis + 1], false)?;
    e.binary(BinaryOp::Add, x, sum)
}

/// Whether position p of `axis` is what the index i says, for `[…, p, i, …]`; and the i, which broadcast to that.
fn meetings(e: &mut Emit<'_>, x: ValueId, indices: ValueId, axis: usize) -> Result<(ValueId, ValueId)> {
    let (shape, among) = (e.shape(x), e.shape(indices));
    let fits = shape.len() == among.len() && (0..shape.len()).all(|i| i == axis || shape[i] == among[i]);
    if !fits || axis >= shape.len() {
        let (x, indices) = (e.ty(x), e.ty(indices));
        return Err(format!("scattering with indices {indices} that leave out parts of {x} is not supported").into());
    }
    let along = |at: usize, size: &Expr| along(shape.len() + 1, at, size.clone());
    let positions = source::range(e, 0, &shape[axis], 1, DType::I64)?;
    let positions = e.reshape(positions, along(axis, &shape[axis]))?;
    let order = source::range(e, 0, &among[axis], 1, DType::I64)?;
    let order = e.reshape(order, along(axis + 1, &among[axis]))?;
    let indices = e.cast(indices, DType::I64)?;
    let indices = view::unsqueeze(e, indices, vec![axis])?;
    Ok((e.binary(BinaryOp::Eq, positions, indices)?, order))
}
