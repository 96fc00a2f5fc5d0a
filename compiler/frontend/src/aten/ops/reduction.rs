//! Reductions.

use aotfarm_ir::ReduceOp;
use aotfarm_protocol::DType;

use super::row::{Row, row, tensor};
use crate::aten::call::Call;
use crate::aten::scope::Val;
use crate::semantics::{Result, reduction};

pub(super) static ROWS: &[Row] = &[
    row("aten.mean.default", |c| reduction(c, ReduceOp::Mean)),
    row("aten.mean.dim", |c| reduction(c, ReduceOp::Mean)),
    row("aten.sum.default", |c| reduction(c, ReduceOp::Sum)),
    row("aten.sum.dim_IntList", |c| reduction(c, ReduceOp::Sum)),
    row("aten.prod.default", |c| reduction(c, ReduceOp::Prod)),
    row("aten.prod.dim_int", |c| reduction(c, ReduceOp::Prod)),
    row("aten.amax.default", |c| reduction(c, ReduceOp::Max)),
    row("aten.amin.default", |c| reduction(c, ReduceOp::Min)),
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
