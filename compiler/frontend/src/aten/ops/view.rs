//! Shapes and views, and what is joined, padded and repeated.

use aotfarm_ir::{Expr, Number, ValueId};

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
    let x = c.tensor("self")?;
    let rank = c.rank(x);
    let mut axes: Vec<usize> = (0..rank).collect();
    if rank > 0 {
        axes.swap(c.axis("dim0", rank, None)?, c.axis("dim1", rank, None)?);
    }
    tensor(view::permute(&mut c.emit(), x, axes)?)
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
