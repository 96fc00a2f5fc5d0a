//! Places along axes: sorting, sums so far, gathers and scatters, triangles, blocks.

use aotfarm_ir::{Expr, Number, ReduceOp};

use super::super::node::{NodeCall, one};
use super::super::scope::Known;
use super::super::tensor;
use super::Map;
use super::functions::composed;
use crate::semantics::{self, Result, order, pointwise, view};

pub(super) static ROWS: &[(&str, Map)] = &[
    ("CumSum", cumsum),
    ("ArgMax", |c| place(c, true)),
    ("ArgMin", |c| place(c, false)),
    ("TopK", top),
    ("OneHot", one_hot),
    ("Trilu", trilu),
    ("EyeLike", eye_like),
    ("GatherND", |c| {
        let (x, indices, batch) = (c.tensor(0)?, c.tensor(1)?, c.int("batch_dims", 0));
        one(order::rows_at(&mut c.emit(), x, indices, usize::try_from(batch).map_err(|_| "its batch_dims is negative")?)?)
    }),
    ("ScatterND", |c| {
        let (x, indices, values, combined) = (c.tensor(0)?, c.tensor(1)?, c.tensor(2)?, combined(c)?);
        one(order::put_rows(&mut c.emit(), x, indices, values, combined)?)
    }),
    ("ScatterElements", scatter_elements),
    ("Scatter", scatter_elements),
    ("DepthToSpace", depth_to_space),
    ("SpaceToDepth", space_to_depth),
];

fn cumsum(c: &mut NodeCall) -> Result<Vec<Known>> {
    let x = c.tensor(0)?;
    let axis = match c.ints(1)?.as_deref() {
        Some([axis]) => semantics::axis(*axis, c.rank(x))?,
        _ => return Err("its axis must be one number".into()),
    };
    let (exclusive, reverse) = (c.int("exclusive", 0) != 0, c.int("reverse", 0) != 0);
    one(order::sums_so_far(&mut c.emit(), x, axis, exclusive, reverse)?)
}

fn place(c: &mut NodeCall, largest: bool) -> Result<Vec<Known>> {
    let x = c.tensor(0)?;
    let axis = c.axis("axis", 0, c.rank(x))?;
    let (keepdim, last) = (c.int("keepdims", 1) != 0, c.int("select_last_index", 0) != 0);
    composed(c, |e, x| {
        let place = order::place_of(e, x, axis, largest, last)?;
        if keepdim { Ok(place) } else { view::without(e, place, &[axis]) }
    })
}

/// How many is an operand since opset 10.
fn top(c: &mut NodeCall) -> Result<Vec<Known>> {
    let x = c.tensor(0)?;
    let axis = c.axis("axis", -1, c.rank(x))?;
    let count = match c.ints(1)? {
        Some(count) => *count.first().ok_or("its number of elements is missing")?,
        None => c.int("k", -1),
    };
    let largest = c.int("largest", 1) != 0;
    let tops = order::top(&mut c.emit(), x, axis, count, largest)?;
    Ok(tops.map(|id| Known { tensor: Some(id), sizes: None }).into())
}

fn one_hot(c: &mut NodeCall) -> Result<Vec<Known>> {
    let (indices, values) = (c.tensor(0)?, c.tensor(2)?);
    let axis = c.axis("axis", -1, c.rank(indices) + 1)?;
    let depth = match c.opt_sizes(1) {
        Some(sizes) => sizes.values.into_iter().next().ok_or("its depth is missing")?,
        None => Expr::from(c.number(1)?.ok_or("its depth is missing")?.to_i64()),
    };
    let mut e = c.emit();
    let ends = [view::select(&mut e, values, 0, Expr::zero())?, view::select(&mut e, values, 0, Expr::one())?];
    one(order::one_hot(&mut e, indices, &depth, axis, ends)?)
}

/// The matrices of the last two axes, zero below (or above) a diagonal.
fn trilu(c: &mut NodeCall) -> Result<Vec<Known>> {
    let x = c.tensor(0)?;
    let offset = c.ints(1)?.and_then(|k| k.first().copied()).unwrap_or(0);
    let is_upper = c.int("upper", 1) != 0;
    let shape = c.shape(x);
    let [.., rows, columns] = shape.as_slice() else { return Err("it needs a matrix".into()) };
    let mut e = c.emit();
    // What is on or below the diagonal is not above the next one.
    let above = order::upper(&mut e, [rows, columns], if is_upper { offset } else { offset.saturating_add(1) })?;
    let zero = e.full(Number::ZERO, e.dtype(x))?;
    let [then, otherwise] = if is_upper { [x, zero] } else { [zero, x] };
    one(pointwise::select(&mut e, above, then, otherwise)?)
}

fn eye_like(c: &mut NodeCall) -> Result<Vec<Known>> {
    let x = c.tensor(0)?;
    let dtype = match c.attribute("dtype") {
        Some(attribute) => tensor::dtype(attribute.i as i32)?,
        None => c.dtype(x),
    };
    let (offset, shape) = (c.int("k", 0), c.shape(x));
    let [rows, columns] = shape.as_slice() else { return Err("it needs a matrix".into()) };
    one(order::eye(&mut c.emit(), [rows, columns], offset, dtype)?)
}

/// What values do that meet others at their place.
fn combined(c: &NodeCall) -> Result<Option<ReduceOp>> {
    Ok(match c.text("reduction") {
        "" | "none" => None,
        "add" => Some(ReduceOp::Sum),
        "mul" => Some(ReduceOp::Prod),
        "max" => Some(ReduceOp::Max),
        "min" => Some(ReduceOp::Min),
        other => return Err(format!("reduction `{other}` is not supported").into()),
    })
}

fn scatter_elements(c: &mut NodeCall) -> Result<Vec<Known>> {
    let (x, indices, values, combined) = (c.tensor(0)?, c.tensor(1)?, c.tensor(2)?, combined(c)?);
    let axis = c.axis("axis", 0, c.rank(x))?;
    one(order::put_elements(&mut c.emit(), x, indices, values, axis, combined)?)
}

/// Batch, channels, height, width of an image, and the size of its blocks.
fn blocks(c: &mut NodeCall) -> Result<([Expr; 4], i64)> {
    let x = c.tensor(0)?;
    let block = c.int("blocksize", 0);
    let shape: [Expr; 4] = c.shape(x).try_into().map_err(|_| "it needs an image [N, C, H, W]")?;
    if block < 1 {
        return Err(format!("its blocksize {block} is not positive").into());
    }
    Ok((shape, block))
}

fn depth_to_space(c: &mut NodeCall) -> Result<Vec<Known>> {
    let ([n, channels, h, w], block) = blocks(c)?;
    let size = Expr::from(block);
    let depth = channels.div_exact(&Expr::from(block * block)).ok_or("its channels are no whole blocks")?;
    let (split, order) = match c.text("mode") {
        "" | "DCR" => (vec![n.clone(), size.clone(), size.clone(), depth.clone(), h.clone(), w.clone()], vec![0, 3, 4, 1, 5, 2]),
        "CRD" => (vec![n.clone(), depth.clone(), size.clone(), size.clone(), h.clone(), w.clone()], vec![0, 1, 4, 2, 5, 3]),
        other => return Err(format!("mode `{other}` is not supported").into()),
    };
    composed(c, |e, x| {
        let x = e.reshape(x, split)?;
        let x = view::permute(e, x, order)?;
        e.reshape(x, vec![n, depth, &h * &size, &w * &size])
    })
}

fn space_to_depth(c: &mut NodeCall) -> Result<Vec<Known>> {
    let ([n, channels, h, w], block) = blocks(c)?;
    let size = Expr::from(block);
    let whole = |n: &Expr| n.div_exact(&size).ok_or("its height and width are no whole blocks");
    let (h, w) = (whole(&h)?, whole(&w)?);
    let order = match c.text("mode") {
        "" | "DCR" => vec![0, 3, 5, 1, 2, 4],
        "CRD" => vec![0, 1, 3, 5, 2, 4],
        other => return Err(format!("mode `{other}` is not supported").into()),
    };
    composed(c, |e, x| {
        let x = e.reshape(x, vec![n.clone(), channels.clone(), h.clone(), size.clone(), w.clone(), size.clone()])?;
        let x = view::permute(e, x, order)?;
        e.reshape(x, vec![n, &channels * &Expr::from(block * block), h, w])
    })
}
