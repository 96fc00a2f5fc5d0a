//! The largest and smallest elements and their places, sorted elements, running sums.

use aotfarm_ir::{BinaryOp, Expr, Number, ReduceOp, ValueId};
use aotfarm_protocol::DType;

use super::row::{Row, row, tensor};
use crate::aten::call::Call;
use crate::aten::scope::Val;
use crate::semantics::{self, Result, order, reduction, view};

pub(super) static ROWS: &[Row] = &[
    row("aten.max.dim", |c| extreme(c, ReduceOp::Max)),
    row("aten.min.dim", |c| extreme(c, ReduceOp::Min)),
    row("aten.argmax.default", |c| place(c, ReduceOp::Max)),
    row("aten.argmin.default", |c| place(c, ReduceOp::Min)),
    row("aten.sort.default", sort),
    row("aten.sort.stable", sort),
    row("aten.argsort.default", argsort),
    row("aten.argsort.stable", argsort),
    row("aten.topk.default", topk),
    row("aten.cumsum.default", |c| running(c, BinaryOp::Add, Number::ZERO)),
    row("aten.cumprod.default", |c| running(c, BinaryOp::Mul, Number::ONE)),
];

/// An operand whose number is a vector of one, and the axis of it.
fn along(c: &mut Call, default: Option<i64>) -> Result<(ValueId, usize)> {
    let x = c.tensor("self")?;
    let axis = c.axis("dim", c.rank(x), default)?;
    Ok((view::at_least_vector(&mut c.emit(), x)?, axis))
}

/// Without the axis that a number was given.
fn numbers_again(c: &mut Call, values: Vec<ValueId>) -> Result<Val> {
    let is_number = c.rank(c.tensor("self")?) == 0;
    let again = |value| if is_number { c.emit().reshape(value, Vec::new()) } else { Ok(value) };
    values.into_iter().map(again).collect::<Result<_>>().map(Val::Tensors)
}

fn extreme(c: &mut Call, op: ReduceOp) -> Result<Val> {
    let (x, axis) = along(c, None)?;
    let keepdim = c.flag("keepdim", false)?;
    let mut e = c.emit();
    let op_of_type = match (op, e.dtype(x)) {
        (ReduceOp::Max, DType::Bool) => ReduceOp::Any,
        (_, DType::Bool) => ReduceOp::All,
        _ => op,
    };
    let value = reduction::reduce(&mut e, op_of_type, x, vec![axis], keepdim)?;
    let place = order::place_of(&mut e, op, x, axis, keepdim)?;
    numbers_again(c, vec![value, place])
}

/// Without an axis, the place in the row of all elements.
fn place(c: &mut Call, op: ReduceOp) -> Result<Val> {
    let x = c.tensor("self")?;
    let keepdim = c.flag("keepdim", false)?;
    if c.has("dim") && c.rank(x) > 0 {
        let axis = c.axis("dim", c.rank(x), None)?;
        return tensor(order::place_of(&mut c.emit(), op, x, axis, keepdim)?);
    }
    let shape = c.shape(x);
    let mut e = c.emit();
    let row = e.reshape(x, vec![semantics::product(&shape)])?;
    let place = order::place_of(&mut e, op, row, 0, false)?;
    tensor(if keepdim { e.reshape(place, vec![Expr::one(); shape.len()])? } else { place })
}

fn sort(c: &mut Call) -> Result<Val> {
    let (x, axis) = along(c, Some(-1))?;
    let (descending, count) = (c.flag("descending", false)?, c.shape(x)[axis].clone());
    let mut e = c.emit();
    let places = order::sorted_places(&mut e, x, axis, descending, &count)?;
    let values = order::at_places(&mut e, x, places, axis)?;
    numbers_again(c, vec![values, places])
}

fn argsort(c: &mut Call) -> Result<Val> {
    let (x, axis) = along(c, Some(-1))?;
    let (descending, count) = (c.flag("descending", false)?, c.shape(x)[axis].clone());
    let places = order::sorted_places(&mut c.emit(), x, axis, descending, &count)?;
    let shape = c.shape(c.tensor("self")?);
    tensor(c.emit().reshape(places, shape)?)
}

fn topk(c: &mut Call) -> Result<Val> {
    let (x, axis) = along(c, Some(-1))?;
    let (largest, count) = (c.flag("largest", true)?, c.opt_size("k")?.ok_or("topk needs a k")?);
    let mut e = c.emit();
    let places = order::sorted_places(&mut e, x, axis, largest, &count)?;
    let values = order::at_places(&mut e, x, places, axis)?;
    numbers_again(c, vec![values, places])
}

/// Of integers and truth values in i64, unless another type is given.
fn running(c: &mut Call, op: BinaryOp, neutral: Number) -> Result<Val> {
    let x = c.tensor("self")?;
    let own = c.ty(x).dtype;
    let dtype = c.opt_dtype("dtype")?.unwrap_or(if own.is_float() { own } else { DType::I64 });
    let shape = c.shape(x);
    let axis = c.axis("dim", c.rank(x), None)?;
    // Short floats are summed in f32 and rounded once.
    let wide = if dtype.is_float() && dtype.size() < 4 { DType::F32 } else { dtype };
    let x = c.cast(x, dtype)?;
    let mut e = c.emit();
    let x = e.cast(x, wide)?;
    let x = view::at_least_vector(&mut e, x)?;
    let sums = order::running(&mut e, op, neutral, x, axis)?;
    let sums = e.cast(sums, dtype)?;
    tensor(e.reshape(sums, shape)?)
}
