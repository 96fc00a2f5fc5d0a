//! Shapes and views, and what is joined, padded and repeated.

use aotfarm_ir::{BinaryOp, Expr, Number, ValueId};
use aotfarm_protocol::DType;

use super::row::{Map, Row, row, shares, shares_if, tensor};
use crate::aten::call::{Call, Operand};
use crate::aten::scope::Val;
use crate::semantics::view::Repeats;
use crate::semantics::{self, Result, view};
use crate::storage;

pub(super) static ROWS: &[Row] = &[
    shares("aten.view.default", |c| reshape(c, "size")),
    shares("aten._unsafe_view.default", |c| reshape(c, "size")),
    shares_if(is_viewable, "aten.reshape.default", |c| reshape(c, "shape")),
    shares_if(is_viewable, "aten.flatten.using_ints", flatten),
    shares("aten.permute.default", permute),
    shares("aten.transpose.int", transpose),
    shares("aten.t.default", transpose_2d),
    shares("aten.unsqueeze.default", unsqueeze),
    shares("aten.squeeze.default", squeeze),
    shares("aten.squeeze.dim", squeeze),
    shares("aten.squeeze.dims", squeeze),
    shares("aten.expand.default", expand),
    shares("aten.broadcast_to.default", expand),
    shares("aten.slice.Tensor", slice),
    shares("aten.narrow.default", narrow),
    shares("aten.select.int", select),
    shares("aten.unbind.int", unbind),
    shares("aten.diagonal.default", diagonal),
    shares("aten.chunk.default", chunk),
    shares("aten.split.Tensor", split),
    shares("aten.split_with_sizes.default", split),
    shares("aten.view_as.default", shaped_as),
    shares_if(is_viewable, "aten.reshape_as.default", shaped_as),
    shares("aten.expand_as.default", expand_as),
    shares_if(is_viewable, "aten.unflatten.int", unflatten),
    shares("aten.swapaxes.default", |c| swapped(c, ["axis0", "axis1"])),
    shares("aten.swapdims.default", |c| swapped(c, ["dim0", "dim1"])),
    shares("aten.movedim.int", move_axes),
    shares("aten.movedim.intlist", move_axes),
    shares("aten.numpy_T.default", transpose_2d),
    shares("aten.mT.default", transpose_matrices),
    row("aten.roll.default", roll),
    row("aten.flip.default", flip),
    row("aten.diff.default", diff),
    row("aten.meshgrid.default", meshgrid),
    row("aten.meshgrid.indexing", meshgrid),
    row("aten.tril.default", |c| triangle(c, BinaryOp::Le)),
    row("aten.triu.default", |c| triangle(c, BinaryOp::Ge)),
    row("aten.repeat_interleave.self_int", repeat_interleave),
    row("aten.slice_scatter.default", |c| scatter(c, slice)),
    row("aten.select_scatter.default", |c| scatter(c, select)),
    row("aten.diagonal_scatter.default", |c| scatter(c, diagonal)),
    row("aten.cat.default", cat),
    row("aten.stack.default", stack),
    row("aten.constant_pad_nd.default", pad),
    row("aten.pad.default", pad),
    row("aten.repeat.default", repeat),
];

/// Whether torch makes the result a view of the operand, as the elements lie so that no copy is needed.
fn is_viewable(c: &Call, result: ValueId) -> Result<bool> {
    Ok(storage::is_viewable(&c.shape(c.tensor("self")?), &c.strides("self")?, &c.shape(result)))
}

fn reshape(c: &mut Call, name: &str) -> Result<Val> {
    let (x, shape) = (c.tensor("self")?, c.sizes(name)?);
    tensor(view::reshape(&mut c.emit(), x, shape)?)
}

fn flatten(c: &mut Call) -> Result<Val> {
    let x = c.tensor("self")?;
    let rank = c.rank(x);
    let (start, end) = (c.axis("start_dim", rank, Some(0))?, c.axis("end_dim", rank, Some(-1))?);
    tensor(view::flatten(&mut c.emit(), x, start, end)?)
}

fn permute(c: &mut Call) -> Result<Val> {
    let x = c.tensor("self")?;
    let rank = c.rank(x);
    let dims = c.opt_ints("dims")?.unwrap_or_default();
    let axes = dims.into_iter().map(|a| semantics::axis(a, rank)).collect::<Result<_>>()?;
    tensor(view::permute(&mut c.emit(), x, axes)?)
}

fn transpose(c: &mut Call) -> Result<Val> {
    swapped(c, ["dim0", "dim1"])
}

fn swapped(c: &mut Call, names: [&str; 2]) -> Result<Val> {
    let x = c.tensor("self")?;
    let rank = c.rank(x);
    let mut axes: Vec<usize> = (0..rank).collect();
    if rank > 0 {
        axes.swap(c.axis(names[0], rank, None)?, c.axis(names[1], rank, None)?);
    }
    tensor(view::permute(&mut c.emit(), x, axes)?)
}

fn transpose_matrices(c: &mut Call) -> Result<Val> {
    let x = c.tensor("self")?;
    let mut axes: Vec<usize> = (0..c.rank(x)).collect();
    let last = axes.len().checked_sub(2).ok_or("it takes matrices")?;
    axes.swap(last, last + 1);
    tensor(view::permute(&mut c.emit(), x, axes)?)
}

/// Axes at other places; the others keep their order.
fn move_axes(c: &mut Call) -> Result<Val> {
    let x = c.tensor("self")?;
    let rank = c.rank(x);
    let axes = |name: &str| {
        c.opt_ints(name)?.unwrap_or_default().into_iter().map(|a| semantics::axis(a, rank)).collect::<Result<Vec<_>>>()
    };
    let (from, to) = (axes("source")?, axes("destination")?);
    let mut rest = (0..rank).filter(|axis| !from.contains(axis));
    let place = |axis| to.iter().position(|other| *other == axis).and_then(|at| from.get(at).copied());
    let order: Vec<usize> = (0..rank).filter_map(|axis| place(axis).or_else(|| rest.next())).collect();
    tensor(view::permute(&mut c.emit(), x, order)?)
}

fn shaped_as(c: &mut Call) -> Result<Val> {
    let (x, other) = (c.tensor("self")?, c.tensor("other")?);
    let shape = c.shape(other);
    tensor(c.emit().reshape(x, shape)?)
}

fn expand_as(c: &mut Call) -> Result<Val> {
    let (x, other) = (c.tensor("self")?, c.tensor("other")?);
    let shape = c.shape(other);
    tensor(view::expand(&mut c.emit(), x, shape)?)
}

/// One axis as several, of which one may be -1.
fn unflatten(c: &mut Call) -> Result<Val> {
    let x = c.tensor("self")?;
    let axis = c.axis("dim", c.rank(x), None)?;
    let (mut shape, mut parts) = (c.shape(x), c.sizes("sizes")?);
    if let Some(at) = parts.iter().position(|size| size.as_const() == Some(-1)) {
        let rest: Vec<Expr> = parts.iter().enumerate().filter(|(i, _)| *i != at).map(|(_, size)| size.clone()).collect();
        parts[at] = shape[axis].div_exact(&semantics::product(&rest)).ok_or("its sizes do not divide the axis")?;
    }
    shape.splice(axis..=axis, parts);
    tensor(c.emit().reshape(x, shape)?)
}

/// Without axes, of the row of all elements.
fn roll(c: &mut Call) -> Result<Val> {
    let x = c.tensor("self")?;
    let shape = c.shape(x);
    let (shifts, dims) = (c.opt_ints("shifts")?.unwrap_or_default(), c.opt_ints("dims")?.unwrap_or_default());
    let mut e = c.emit();
    if dims.is_empty() {
        let [shift] = shifts[..] else { return Err("a roll without axes takes one shift".into()) };
        let row = e.reshape(x, vec![semantics::product(&shape)])?;
        let rolled = view::roll(&mut e, row, 0, shift)?;
        return tensor(e.reshape(rolled, shape)?);
    }
    if dims.len() != shifts.len() {
        return Err(format!("it has {} shifts for {} axes", shifts.len(), dims.len()).into());
    }
    let mut rolled = x;
    for (axis, shift) in dims.into_iter().zip(shifts) {
        rolled = view::roll(&mut e, rolled, semantics::axis(axis, shape.len())?, shift)?;
    }
    tensor(rolled)
}

fn flip(c: &mut Call) -> Result<Val> {
    let mut x = c.tensor("self")?;
    let rank = c.rank(x);
    for axis in c.opt_ints("dims")?.unwrap_or_default() {
        let axis = semantics::axis(axis, rank)?;
        if rank > 0 {
            x = view::flip(&mut c.emit(), x, axis)?;
        }
    }
    tensor(x)
}

/// Each element without the one before it, `n` times; of truth values, whether they differ.
fn diff(c: &mut Call) -> Result<Val> {
    let x = c.tensor("self")?;
    let (times, axis) = (c.int("n", Some(1))?, c.axis("dim", c.rank(x), Some(-1))?);
    let parts: Vec<Operand> =
        [c.opt_tensor("prepend")?, Some(x), c.opt_tensor("append")?].into_iter().flatten().map(Operand::Tensor).collect();
    let dtype = c.common(&parts);
    let parts = parts.iter().map(|part| c.typed(part, dtype)).collect::<Result<Vec<_>>>()?;
    let mut e = c.emit();
    let mut x = if parts.len() > 1 { view::concat(&mut e, &parts, axis)? } else { x };
    let op = if dtype == DType::Bool { BinaryOp::Ne } else { BinaryOp::Sub };
    for _ in 0..times {
        let size = e.shape(x).get(axis).cloned().ok_or("a number has no differences")?;
        let later = view::slice(&mut e, x, axis, Expr::one(), size.clone(), 1)?;
        let earlier = view::slice(&mut e, x, axis, Expr::zero(), &size - &Expr::one(), 1)?;
        x = e.binary(op, later, earlier)?;
    }
    tensor(x)
}

/// Each vector along an axis of its own; with the indexing `xy` the first two axes change places.
fn meshgrid(c: &mut Call) -> Result<Val> {
    let list = c.tensors("tensors")?;
    let swapped = c.text("indexing") == Some("xy") && list.len() > 1;
    let place = |i: usize| if swapped && i < 2 { 1 - i } else { i };
    let mut shape = vec![Expr::one(); list.len()];
    for (i, x) in list.iter().enumerate() {
        shape[place(i)] = semantics::product(&c.shape(*x));
    }
    let along = |c: &mut Call, i: usize, x: ValueId| {
        let own = semantics::along(shape.len(), place(i), shape[place(i)].clone());
        let mut e = c.emit();
        let x = e.reshape(x, own)?;
        view::expand(&mut e, x, shape.clone())
    };
    list.iter().enumerate().map(|(i, x)| along(c, i, *x)).collect::<Result<_>>().map(Val::Tensors)
}

/// The elements of matrices whose column beside their row is `op` the diagonal; the others are zero.
fn triangle(c: &mut Call, op: BinaryOp) -> Result<Val> {
    let (x, diagonal) = (c.tensor("self")?, c.int("diagonal", Some(0))?);
    tensor(view::triangle(&mut c.emit(), x, op, diagonal)?)
}

/// Each position as often in a row; without an axis, of the row of all elements.
fn repeat_interleave(c: &mut Call) -> Result<Val> {
    let (x, times) = (c.tensor("self")?, c.int("repeats", None)?);
    if times < 0 {
        return Err("it repeats a negative number of times".into());
    }
    let axis = if c.has("dim") { Some(c.axis("dim", c.rank(x), None)?) } else { None };
    let size = semantics::product(&c.shape(x));
    let mut e = c.emit();
    let (x, axis) = match axis {
        Some(axis) => (view::at_least_vector(&mut e, x)?, axis),
        None => (e.reshape(x, vec![size])?, 0),
    };
    tensor(view::repeat_each(&mut e, x, axis, times)?)
}

fn transpose_2d(c: &mut Call) -> Result<Val> {
    let x = c.tensor("self")?;
    tensor(view::reversed(&mut c.emit(), x)?)
}

fn unsqueeze(c: &mut Call) -> Result<Val> {
    let x = c.tensor("self")?;
    let axis = c.axis("dim", c.rank(x) + 1, None)?;
    tensor(view::unsqueeze(&mut c.emit(), x, vec![axis])?)
}

/// Axes of another size than 1 stay. Without a list all axes are meant, by an empty one none.
fn squeeze(c: &mut Call) -> Result<Val> {
    let x = c.tensor("self")?;
    let axes = if c.opt_ints("dim")?.is_some_and(|dim| dim.is_empty()) { Vec::new() } else { c.axes("dim", c.rank(x))? };
    let axes = view::of_size_one(&c.emit(), x, axes);
    tensor(view::without(&mut c.emit(), x, &axes)?)
}

/// -1 keeps a size.
fn expand(c: &mut Call) -> Result<Val> {
    let x = c.tensor("self")?;
    let old = c.shape(x);
    let mut shape = c.sizes("size")?;
    let new = shape.len().checked_sub(old.len()).ok_or("it has fewer dimensions than its input")?;
    for (i, size) in shape.iter_mut().enumerate() {
        if size.as_const() == Some(-1) {
            *size = i.checked_sub(new).map(|i| old[i].clone()).ok_or("a new dimension cannot have size -1")?;
        }
    }
    tensor(view::expand(&mut c.emit(), x, shape)?)
}

fn slice(c: &mut Call) -> Result<Val> {
    let x = c.tensor("self")?;
    let axis = c.axis("dim", c.rank(x), Some(0))?;
    let size = c.shape(x)[axis].clone();
    let at = |given: Option<Expr>, default: Expr| given.map_or(default, |at| view::position(&at, &size));
    let (start, end) = (at(c.opt_size("start")?, Expr::zero()), at(c.opt_size("end")?, size.clone()));
    let step = c.int("step", Some(1))?;
    tensor(view::slice(&mut c.emit(), x, axis, start, end, step)?)
}

fn narrow(c: &mut Call) -> Result<Val> {
    let x = c.tensor("self")?;
    let axis = c.axis("dim", c.rank(x), None)?;
    let size = c.shape(x)[axis].clone();
    let (start, length) = (c.opt_size("start")?, c.opt_size("length")?);
    let (start, length) = start.zip(length).ok_or("narrow needs a start and a length")?;
    let start = view::position(&start, &size);
    let end = &start + &length;
    tensor(view::slice(&mut c.emit(), x, axis, start, end, 1)?)
}

fn select(c: &mut Call) -> Result<Val> {
    let x = c.tensor("self")?;
    let axis = c.axis("dim", c.rank(x), None)?;
    let index = c.opt_size("index")?.ok_or("select needs an index")?;
    tensor(view::select(&mut c.emit(), x, axis, index)?)
}

fn unbind(c: &mut Call) -> Result<Val> {
    let x = c.tensor("self")?;
    let axis = c.axis("dim", c.rank(x), Some(0))?;
    let count = view::equal_parts(view::size_to_split(&c.emit(), x, axis)?, 1)?.len() as i64;
    (0..count).map(|i| view::select(&mut c.emit(), x, axis, Expr::from(i))).collect::<Result<_>>().map(Val::Tensors)
}

fn diagonal(c: &mut Call) -> Result<Val> {
    let x = c.tensor("self")?;
    let (rows, columns) = (c.axis("dim1", c.rank(x), Some(0))?, c.axis("dim2", c.rank(x), Some(1))?);
    let offset = c.int("offset", Some(0))?;
    tensor(view::diagonal(&mut c.emit(), x, offset, rows, columns)?)
}

/// `self` with `src` where a view of it looks.
fn scatter(c: &mut Call, look: Map) -> Result<Val> {
    let (x, source) = (c.tensor("self")?, c.tensor("src")?);
    let Val::Tensor(seen) = look(c)? else { return Err("a view with several results".into()) };
    let ty = c.ty(seen).clone();
    let source = c.cast(source, ty.dtype)?;
    let mut e = c.emit();
    let source = view::expand(&mut e, source, ty.shape)?;
    let chain = storage::chain(&e, x, seen)?;
    tensor(storage::replace(&mut e, x, &chain, source)?)
}

fn split(c: &mut Call) -> Result<Val> {
    let x = c.tensor("self")?;
    let axis = c.axis("dim", c.rank(x), Some(0))?;
    let sizes = match c.opt_ints("split_sizes")? {
        Some(sizes) => sizes,
        None => view::equal_parts(view::size_to_split(&c.emit(), x, axis)?, c.int("split_size", None)?)?,
    };
    Ok(Val::Tensors(view::split(&mut c.emit(), x, axis, &sizes)?))
}

fn chunk(c: &mut Call) -> Result<Val> {
    let x = c.tensor("self")?;
    let axis = c.axis("dim", c.rank(x), Some(0))?;
    let size = view::size_to_split(&c.emit(), x, axis)?;
    let chunks = c.int("chunks", None)?;
    if chunks < 1 {
        return Err("chunk needs a positive number of chunks".into());
    }
    let sizes = view::equal_parts(size, (size + chunks - 1) / chunks)?;
    Ok(Val::Tensors(view::split(&mut c.emit(), x, axis, &sizes)?))
}

/// The tensors that are joined, in the type that they have together.
fn of_one_type(c: &mut Call) -> Result<Vec<ValueId>> {
    let list: Vec<Operand> = c.tensors("tensors")?.into_iter().map(Operand::Tensor).collect();
    if list.is_empty() {
        return Err("it joins no tensors".into());
    }
    let dtype = c.common(&list);
    list.iter().map(|t| c.typed(t, dtype)).collect()
}

fn cat(c: &mut Call) -> Result<Val> {
    let mut list = of_one_type(c)?;
    let empty = list[0];
    // torch skips empty vectors, whatever the rank of the others.
    list.retain(|&t| c.ty(t).shape.as_slice() != [Expr::zero()]);
    let Some(&first) = list.first() else { return tensor(empty) };
    let axis = c.axis("dim", c.rank(first), Some(0))?;
    tensor(view::concat(&mut c.emit(), &list, axis)?)
}

fn stack(c: &mut Call) -> Result<Val> {
    let list = of_one_type(c)?;
    let axis = c.axis("dim", c.rank(list[0]) + 1, Some(0))?;
    tensor(view::stack(&mut c.emit(), &list, axis)?)
}

/// torch lists padding from the last axis to the first.
fn pad(c: &mut Call) -> Result<Val> {
    let x = c.tensor("self")?;
    let list = c.opt_ints("pad")?.unwrap_or_default();
    let rank = c.rank(x);
    if list.len() % 2 != 0 || list.len() / 2 > rank {
        return Err(format!("its padding has {} numbers for rank {rank}", list.len()).into());
    }
    let mut pads = vec![[0, 0]; rank];
    for (i, pair) in list.chunks(2).enumerate() {
        pads[rank - 1 - i] = [pair[0], pair[1]];
    }
    let repeats = match c.text("mode") {
        None | Some("constant") => None,
        Some("reflect") => Some(Repeats::Mirror),
        Some("replicate") => Some(Repeats::Edge),
        Some("circular") => Some(Repeats::Circle),
        Some(other) => return Err(format!("padding in the mode `{other}` is not supported").into()),
    };
    if let Some(repeats) = repeats {
        return tensor(view::pad_by(&mut c.emit(), x, &pads, repeats)?);
    }
    let value = c.number("value", Number::ZERO)?;
    tensor(view::pad(&mut c.emit(), x, pads, value)?)
}

fn repeat(c: &mut Call) -> Result<Val> {
    let (x, repeats) = (c.tensor("self")?, c.sizes("repeats")?);
    tensor(view::repeat(&mut c.emit(), x, &repeats)?)
}
