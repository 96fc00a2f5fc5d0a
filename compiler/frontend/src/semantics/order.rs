//! What the order of the elements along an axis decides: sums so far, the place of the largest, one-hot rows, triangles.

use aotfarm_ir::{BinaryOp, Expr, Number, Op, ReduceOp, ValueId};
use aotfarm_protocol::DType;

use super::{Emit, Result, gather, pointwise, product, source, view};

/// Most pairs of elements that are compared with each other.
const MAX_PAIRS: i64 = 1 << 26;

/// 0, 1, … along `axis`, which alone has a size other than 1.
fn along(e: &mut Emit<'_>, size: &Expr, axis: usize, rank: usize) -> Result<ValueId> {
    let numbers = source::range(e, 0, size, 1, DType::I64)?;
    let mut shape = vec![Expr::one(); rank];
    shape[axis] = size.clone();
    e.reshape(numbers, shape)
}

fn reduced(e: &mut Emit<'_>, op: ReduceOp, x: ValueId, axis: usize, keepdim: bool) -> Result<ValueId> {
    e.push(Op::Reduce { op, axes: vec![axis], keepdim }, &[x])
}

/// The sums of the elements up to each one; without it when `exclusive`, from the other end when `reverse`.
///
/// Each element of the result chooses what it adds, so that the graph stays one of loops.
pub(crate) fn sums_so_far(e: &mut Emit<'_>, x: ValueId, axis: usize, exclusive: bool, reverse: bool) -> Result<ValueId> {
    let size = e.shape(x)[axis].clone();
    let rank = e.rank(x) + 1;
    let (to, from) = (along(e, &size, axis, rank)?, along(e, &size, axis + 1, rank)?);
    let op = match (exclusive, reverse) {
        (false, false) => BinaryOp::Le,
        (true, false) => BinaryOp::Lt,
        (false, true) => BinaryOp::Ge,
        (true, true) => BinaryOp::Gt,
    };
    let adds = e.binary(op, from, to)?;
    let x = view::unsqueeze(e, x, vec![axis])?;
    let zero = e.full(Number::ZERO, e.dtype(x))?;
    let chosen = pointwise::select(e, adds, x, zero)?;
    reduced(e, ReduceOp::Sum, chosen, axis + 1, false)
}

/// The place of the largest element along an axis, which stays with size 1 (or of the smallest): of equal ones the first, or the last.
/// NaN is larger and smaller than all others.
pub(crate) fn place_of(e: &mut Emit<'_>, x: ValueId, axis: usize, largest: bool, last: bool) -> Result<ValueId> {
    let size = e.shape(x)[axis].clone();
    let best = reduced(e, if largest { ReduceOp::Max } else { ReduceOp::Min }, x, axis, true)?;
    let mut is_best = e.binary(BinaryOp::Eq, x, best)?;
    if e.dtype(x).is_float() {
        let is_nan = e.binary(BinaryOp::Ne, x, x)?;
        is_best = e.binary(BinaryOp::Or, is_best, is_nan)?;
    }
    let places = along(e, &size, axis, e.rank(x))?;
    let none = if last { e.full(-1i64, DType::I64)? } else { source::number(e, &size, DType::I64)? };
    let candidates = pointwise::select(e, is_best, places, none)?;
    reduced(e, if last { ReduceOp::Max } else { ReduceOp::Min }, candidates, axis, true)
}

/// The `count` largest (or smallest) elements along an axis in order, and their places; of equal ones the first comes first.
pub(crate) fn top(e: &mut Emit<'_>, x: ValueId, axis: usize, count: i64, largest: bool) -> Result<[ValueId; 2]> {
    let shape = e.shape(x);
    let (size, rank) = (shape[axis].clone(), shape.len() + 1);
    let Some(pairs) = (&product(&shape) * &size).as_const().filter(|pairs| *pairs <= MAX_PAIRS) else {
        return Err("sorting an axis of a tensor that is large or of symbolic size is not supported".into());
    };
    if !(0..=pairs.max(1)).contains(&count) || size.as_const().is_none_or(|size| count > size) {
        return Err(format!("{count} elements of an axis of {size}").into());
    }
    // The rank of an element is how many come before it.
    let (own, other) = (view::unsqueeze(e, x, vec![axis + 1])?, view::unsqueeze(e, x, vec![axis])?);
    let (own_place, other_place) = (along(e, &size, axis, rank)?, along(e, &size, axis + 1, rank)?);
    let is_better = e.binary(if largest { BinaryOp::Gt } else { BinaryOp::Lt }, other, own)?;
    let (is_equal, is_first) = (e.binary(BinaryOp::Eq, other, own)?, e.binary(BinaryOp::Lt, other_place, own_place)?);
    let is_first = e.binary(BinaryOp::And, is_equal, is_first)?;
    let is_before = e.binary(BinaryOp::Or, is_better, is_first)?;
    let is_before = e.cast(is_before, DType::I64)?;
    let order = reduced(e, ReduceOp::Sum, is_before, axis + 1, false)?;
    let order = view::unsqueeze(e, order, vec![axis])?;
    let wanted = along(e, &Expr::from(count), axis, rank)?;
    let is_it = e.binary(BinaryOp::Eq, order, wanted)?;
    let zero = e.full(0i64, DType::I64)?;
    let places = pointwise::select(e, is_it, other_place, zero)?;
    let places = reduced(e, ReduceOp::Sum, places, axis + 1, false)?;
    Ok([gather::elements(e, x, places, axis)?, places])
}

/// A new axis of size `depth` with `on` where `indices` say and `off` elsewhere. Negative indices count from the end; of those outside
/// the row is all off.
pub(crate) fn one_hot(e: &mut Emit<'_>, indices: ValueId, depth: &Expr, axis: usize, [off, on]: [ValueId; 2]) -> Result<ValueId> {
    let indices = e.cast(indices, DType::I64)?;
    let indices = from_the_start(e, indices, depth)?;
    let indices = view::unsqueeze(e, indices, vec![axis])?;
    let places = along(e, depth, axis, e.rank(indices))?;
    let meets = e.binary(BinaryOp::Eq, indices, places)?;
    pointwise::select(e, meets, on, off)
}

/// Indices of which negative ones counted from the end of an axis of that size.
pub(crate) fn from_the_start(e: &mut Emit<'_>, indices: ValueId, size: &Expr) -> Result<ValueId> {
    let zero = e.full(0i64, e.dtype(indices))?;
    let is_negative = e.binary(BinaryOp::Lt, indices, zero)?;
    let size = source::number(e, size, e.dtype(indices))?;
    let counted = e.binary(BinaryOp::Add, indices, size)?;
    pointwise::select(e, is_negative, counted, indices)
}

/// Where a matrix of `[rows, columns]` lies at or above its diagonal `offset`: Bool.
pub(crate) fn upper(e: &mut Emit<'_>, [rows, columns]: [&Expr; 2], offset: i64) -> Result<ValueId> {
    let (row, column) = (along(e, rows, 0, 2)?, along(e, columns, 1, 2)?);
    let offset = e.full(offset, DType::I64)?;
    let first = e.binary(BinaryOp::Add, row, offset)?;
    e.binary(BinaryOp::Ge, column, first)
}

/// Ones on the diagonal `offset` of a matrix of `[rows, columns]`, zeros elsewhere.
pub(crate) fn eye(e: &mut Emit<'_>, [rows, columns]: [&Expr; 2], offset: i64, dtype: DType) -> Result<ValueId> {
    let (row, column) = (along(e, rows, 0, 2)?, along(e, columns, 1, 2)?);
    let offset = e.full(offset, DType::I64)?;
    let place = e.binary(BinaryOp::Add, row, offset)?;
    let is_on = e.binary(BinaryOp::Eq, column, place)?;
    e.cast(is_on, dtype)
}

/// The rows of `x` that `indices` name: their last axis holds places of the axes of `x` after the first `batch`, which both share.
pub(crate) fn rows_at(e: &mut Emit<'_>, x: ValueId, indices: ValueId, batch: usize) -> Result<ValueId> {
    let (shape, mut result) = (e.shape(x), e.shape(indices));
    let count = result.pop().and_then(|n| n.as_const()).ok_or("its indices need a last axis of constant size")? as usize;
    let indexed = batch + count;
    if indexed > shape.len() || batch > result.len() {
        return Err(format!("indices of {count} axes for a tensor of rank {}", shape.len()).into());
    }
    let mut place = linear(e, indices, &shape[batch..indexed])?;
    if batch > 0 {
        let mut rows = vec![Expr::one(); result.len()];
        rows[..batch].clone_from_slice(&shape[..batch]);
        let numbers = source::range(e, 0, &product(&shape[..batch]), 1, DType::I64)?;
        let numbers = e.reshape(numbers, rows)?;
        let stride = source::number(e, &product(&shape[batch..indexed]), DType::I64)?;
        let first = e.binary(BinaryOp::Mul, numbers, stride)?;
        place = e.binary(BinaryOp::Add, first, place)?;
    }
    let flat = [vec![product(&shape[..indexed])], shape[indexed..].to_vec()].concat();
    let flat = e.reshape(x, flat)?;
    gather::take(e, flat, place, 0)
}

/// The places, in row-major order, of elements whose coordinates along axes of these `sizes` are in the last axis of `indices`.
fn linear(e: &mut Emit<'_>, indices: ValueId, sizes: &[Expr]) -> Result<ValueId> {
    let indices = e.cast(indices, DType::I64)?;
    let last = e.rank(indices) - 1;
    let mut place: Option<ValueId> = None;
    for (i, size) in sizes.iter().enumerate() {
        let part = view::select(e, indices, last, Expr::from(i as i64))?;
        let part = from_the_start(e, part, size)?;
        place = Some(match place {
            None => part,
            Some(place) => {
                let stride = source::number(e, size, DType::I64)?;
                let place = e.binary(BinaryOp::Mul, place, stride)?;
                e.binary(BinaryOp::Add, place, part)?
            }
        });
    }
    place.ok_or_else(|| "its indices name no axis".into())
}

/// `x`, and in it the rows of `values` at the places that `indices` name as in [`rows_at`]; `combined` with what is there when it is
/// given, else in its place, of several the last.
pub(crate) fn put_rows(
    e: &mut Emit<'_>,
    x: ValueId,
    indices: ValueId,
    values: ValueId,
    combined: Option<ReduceOp>,
) -> Result<ValueId> {
    let (shape, own) = (e.shape(x), e.shape(indices));
    let (count, places) = own.split_last().ok_or("its indices need a last axis")?;
    let count = count.as_const().ok_or("its indices need a last axis of constant size")? as usize;
    if count > shape.len() {
        return Err(format!("indices of {count} axes for a tensor of rank {}", shape.len()).into());
    }
    let place = linear(e, indices, &shape[..count])?;
    let (total, rest) = (product(places), shape[count..].to_vec());
    let place = e.reshape(place, vec![total.clone()])?;
    let flat = e.reshape(x, [vec![product(&shape[..count])], rest.clone()].concat())?;
    let values = e.reshape(values, [vec![total], rest].concat())?;
    let y = put(e, flat, place, values, combined)?;
    e.reshape(y, shape)
}

/// `x`, and in it `values` at the places that `indices`, which have their shape, name along `axis`; otherwise as [`put_rows`].
pub(crate) fn put_elements(
    e: &mut Emit<'_>,
    x: ValueId,
    indices: ValueId,
    values: ValueId,
    axis: usize,
    combined: Option<ReduceOp>,
) -> Result<ValueId> {
    let (shape, own) = (e.shape(x), e.shape(indices));
    let indices = e.cast(indices, DType::I64)?;
    let mut place: Option<ValueId> = None;
    for (i, size) in shape.iter().enumerate() {
        let part = if i == axis { from_the_start(e, indices, size)? } else { along(e, &own[i], i, own.len())? };
        place = Some(match place {
            None => part,
            Some(place) => {
                let stride = source::number(e, size, DType::I64)?;
                let place = e.binary(BinaryOp::Mul, place, stride)?;
                e.binary(BinaryOp::Add, place, part)?
            }
        });
    }
    let place = place.ok_or("it has no axis")?;
    let place = view::expand(e, place, own.clone())?;
    let count = vec![product(&own)];
    let place = e.reshape(place, count.clone())?;
    let values = e.reshape(values, count)?;
    let flat = e.reshape(x, vec![product(&shape)])?;
    let y = put(e, flat, place, values, combined)?;
    e.reshape(y, shape)
}

/// [`gather::put`] along the first axis, or with `combined` what all values for a place come to together with what is there.
fn put(e: &mut Emit<'_>, x: ValueId, indices: ValueId, values: ValueId, combined: Option<ReduceOp>) -> Result<ValueId> {
    let (shape, count) = (e.shape(x), e.shape(indices)[0].clone());
    let pairs = &shape[0] * &count;
    if pairs.as_const().is_none_or(|pairs| pairs > MAX_PAIRS) {
        return Err(format!("a scatter of {count} parts over {} places is not supported", shape[0]).into());
    }
    let Some(op) = combined else { return gather::put(e, x, indices, values, 0) };
    if count.as_const() == Some(0) {
        return Ok(x);
    }
    let dtype = e.dtype(x);
    let rank = shape.len() + 1;
    let (binary, neutral) = match op {
        ReduceOp::Sum => (BinaryOp::Add, Number::ZERO),
        ReduceOp::Prod => (BinaryOp::Mul, Number::ONE),
        ReduceOp::Max => (BinaryOp::Max, least(dtype)),
        ReduceOp::Min => (BinaryOp::Min, most(dtype)),
        _ => return Err("such a scatter is not supported".into()),
    };
    let places = along(e, &shape[0], 0, rank)?;
    let mut row = vec![Expr::one(); rank];
    row[1] = count;
    let indices = e.reshape(indices, row)?;
    let meets = e.binary(BinaryOp::Eq, places, indices)?;
    let values = view::unsqueeze(e, values, vec![0])?;
    let neutral = e.full(neutral, dtype)?;
    let chosen = pointwise::select(e, meets, values, neutral)?;
    let sum = reduced(e, op, chosen, 1, false)?;
    e.binary(binary, x, sum)
}

/// What no element of the type is smaller than.
pub(crate) fn least(dtype: DType) -> Number {
    match dtype {
        DType::U8 => Number::ZERO,
        _ if dtype.is_float() => Number::float(f64::NEG_INFINITY),
        _ => Number::from(-1i64 << (8 * dtype.size() - 1)),
    }
}

/// What no element of the type is larger than.
pub(crate) fn most(dtype: DType) -> Number {
    match dtype {
        DType::U8 => Number::from(255),
        _ if dtype.is_float() => Number::float(f64::INFINITY),
        _ => Number::from(!(-1i64 << (8 * dtype.size() - 1))),
    }
}
