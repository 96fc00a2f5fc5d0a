//! Reductions.

use aotfarm_ir::{ReduceOp, UnaryOp, ValueId};
use aotfarm_protocol::DType;

use super::row::{Row, row, tensor};
use crate::aten::call::Call;
use crate::aten::scope::Val;
use crate::semantics::{Result, normalisation, reduction};

pub(super) static ROWS: &[Row] = &[
    row("aten.mean.default", |c| reduction(c, ReduceOp::Mean)),
    row("aten.mean.dim", |c| reduction(c, ReduceOp::Mean)),
    row("aten.sum.default", |c| reduction(c, ReduceOp::Sum)),
    row("aten.sum.dim_IntList", |c| reduction(c, ReduceOp::Sum)),
    row("aten.prod.default", |c| reduction(c, ReduceOp::Prod)),
    row("aten.prod.dim_int", |c| reduction(c, ReduceOp::Prod)),
    row("aten.amax.default", |c| reduction(c, ReduceOp::Max)),
    row("aten.amin.default", |c| reduction(c, ReduceOp::Min)),
    row("aten.max.default", |c| reduction(c, ReduceOp::Max)),
    row("aten.min.default", |c| reduction(c, ReduceOp::Min)),
    row("aten.var.correction", |c| variance(c, false)),
    row("aten.var.dim", |c| variance(c, false)),
    row("aten.var.default", |c| variance(c, false)),
    row("aten.std.correction", |c| variance(c, true)),
    row("aten.std.dim", |c| variance(c, true)),
    row("aten.std.default", |c| variance(c, true)),
    row("aten.var_mean.correction", variance_and_mean),
    row("aten.linalg_vector_norm.default", |c| vector_norm(c, "ord")),
    row("aten.norm.Scalar", |c| vector_norm(c, "p")),
    row("aten.norm.ScalarOpt_dim", |c| vector_norm(c, "p")),
    row("aten.any.default", |c| reduction(c, ReduceOp::Any)),
    row("aten.any.dim", |c| reduction(c, ReduceOp::Any)),
    row("aten.any.dims", |c| reduction(c, ReduceOp::Any)),
    row("aten.all.default", |c| reduction(c, ReduceOp::All)),
    row("aten.all.dim", |c| reduction(c, ReduceOp::All)),
    row("aten.all.dims", |c| reduction(c, ReduceOp::All)),
];

/// Sums and products of integers and truth values are of i64, whatever theirs is.
fn reduction(c: &mut Call, op: ReduceOp) -> Result<Val> {
    let mut x = c.tensor("self")?;
    let (given, own) = (c.opt_dtype("dtype")?, c.ty(x).dtype);
    let op = match op {
        ReduceOp::Max if own == DType::Bool => ReduceOp::Any,
        ReduceOp::Min if own == DType::Bool => ReduceOp::All,
        op => op,
    };
    let wide = (matches!(op, ReduceOp::Sum | ReduceOp::Prod) && !own.is_float()).then_some(DType::I64);
    if let Some(dtype) = given.or(wide) {
        x = c.cast(x, dtype)?;
    }
    let (mut axes, keepdim) = (c.axes("dim", c.rank(x))?, c.flag("keepdim", false)?);
    // For other reductions no axes are all of them.
    if matches!(op, ReduceOp::Any | ReduceOp::All) && c.opt_ints("dim")?.is_some_and(|dim| dim.is_empty()) {
        axes.clear();
    }
    let y = reduction::reduce(&mut c.emit(), op, x, axes, keepdim)?;
    // Any and all of bytes are bytes.
    tensor(if own == DType::U8 && matches!(op, ReduceOp::Any | ReduceOp::All) { c.cast(y, own)? } else { y })
}

/// What is subtracted from the number of elements: 1 unless the arguments say otherwise.
fn moments(c: &mut Call) -> Result<[ValueId; 2]> {
    let x = c.tensor("self")?;
    let default = if c.flag("unbiased", true)? { 1.0 } else { 0.0 };
    let (axes, keepdim, correction) = (c.axes("dim", c.rank(x))?, c.flag("keepdim", false)?, c.float("correction", default)?);
    normalisation::variance(&mut c.emit(), x, &axes, keepdim, correction)
}

fn variance(c: &mut Call, root: bool) -> Result<Val> {
    let [variance, _] = moments(c)?;
    tensor(if root { c.unary(UnaryOp::Sqrt, variance)? } else { variance })
}

fn variance_and_mean(c: &mut Call) -> Result<Val> {
    moments(c).map(|both| Val::Tensors(both.to_vec()))
}

fn vector_norm(c: &mut Call, order: &str) -> Result<Val> {
    let x = c.tensor("self")?;
    let x = match c.opt_dtype("dtype")? {
        Some(dtype) => c.cast(x, dtype)?,
        None => x,
    };
    let (order, axes, keepdim) = (c.float(order, 2.0)?, c.axes("dim", c.rank(x))?, c.flag("keepdim", false)?);
    tensor(normalisation::vector_norm(&mut c.emit(), x, order, axes, keepdim)?)
}
