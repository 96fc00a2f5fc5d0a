//! Copies and conversions.

use aotfarm_ir::ValueId;

use super::row::{Row, row, shares, shares_if, tensor};
use crate::aten::call::Call;
use crate::aten::scope::Val;
use crate::semantics::{Result, view};

pub(super) static ROWS: &[Row] = &[
    shares("aten.alias.default", same),
    shares("aten.detach.default", same),
    shares_if(|c, _| c.is_laid_out("self"), "aten.contiguous.default", same),
    row("aten.clone.default", same),
    row("aten.lift_fresh_copy.default", same),
    row("aten.copy.default", copy),
    shares("aten.dropout.default", dropout),
    shares("aten.feature_dropout.default", dropout),
    shares_if(is_converted_in_place, "aten.to.dtype", to_dtype),
    shares_if(is_converted_in_place, "aten.to.dtype_layout", to_dtype),
    shares_if(is_converted_in_place, "aten.to.device", to_dtype),
    row("aten._to_copy.default", to_dtype),
    shares_if(is_converted_in_place, "aten.type_as.default", type_as),
];

/// The operand itself.
fn same(c: &mut Call) -> Result<Val> {
    tensor(c.tensor("self")?)
}

/// Whether a conversion has nothing to do, and so gives its operand.
fn is_converted_in_place(c: &Call, result: ValueId) -> Result<bool> {
    let untouched = c.tensor("self")? == result && !c.flag("copy", false)?;
    Ok(untouched && (!c.has("memory_format") || c.is_laid_out("self")?))
}

/// `src` in the type and shape of `self`.
fn copy(c: &mut Call) -> Result<Val> {
    let (x, source) = (c.tensor("self")?, c.tensor("src")?);
    let ty = c.ty(x).clone();
    let source = c.cast(source, ty.dtype)?;
    tensor(view::expand(&mut c.emit(), source, ty.shape)?)
}

fn dropout(c: &mut Call) -> Result<Val> {
    if c.flag("train", false)? && c.float("p", 0.5)? != 0.0 {
        return Err("dropout is in training mode; call model.eval() before exporting".into());
    }
    let x = c.opt_tensor("input")?;
    tensor(match x {
        Some(x) => x,
        None => c.tensor("self")?,
    })
}

fn to_dtype(c: &mut Call) -> Result<Val> {
    let x = c.tensor("self")?;
    let dtype = c.opt_dtype("dtype")?.unwrap_or(c.ty(x).dtype);
    tensor(c.cast(x, dtype)?)
}

fn type_as(c: &mut Call) -> Result<Val> {
    let (x, other) = (c.tensor("self")?, c.tensor("other")?);
    tensor(c.cast(x, c.ty(other).dtype)?)
}
