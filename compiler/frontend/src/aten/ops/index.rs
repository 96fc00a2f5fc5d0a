//! Elements at places that tensors hold: indexing and scattering.

use aotfarm_ir::{Expr, ValueId};
use aotfarm_protocol::DType;

use super::row::{Row, row, tensor};
use crate::aten::call::Call;
use crate::aten::scope::Val;
use crate::semantics::{Result, index, pointwise, view};

pub(super) static ROWS: &[Row] = &[
    row("aten.index.Tensor", take),
    row("aten.index_put.default", put),
    row("aten.scatter.src", scatter),
    row("aten.scatter.value", scatter),
    row("aten.scatter_add.default", scatter_add),
];

fn take(c: &mut Call) -> Result<Val> {
    let (x, indices) = (c.tensor("self")?, c.opt_tensors("indices")?);
    tensor(index::take(&mut c.emit(), x, &indices)?)
}

/// Of one mask with one value, a choice; else at integer places.
fn put(c: &mut Call) -> Result<Val> {
    if c.flag("accumulate", false)? {
        return Err("index_put that accumulates is not supported".into());
    }
    let (x, indices, values) = (c.tensor("self")?, c.opt_tensors("indices")?, c.tensor("values")?);
    let is_one = c.shape(values).iter().all(|size| size.as_const() == Some(1));
    let mut e = c.emit();
    if let ([Some(mask)], true) = (indices.as_slice(), is_one)
        && e.dtype(*mask) == DType::Bool
    {
        let mut shape = e.shape(*mask);
        shape.resize(e.rank(x), Expr::one());
        let (mask, value) = (e.reshape(*mask, shape)?, e.reshape(values, Vec::new())?);
        return tensor(pointwise::select(&mut e, mask, value, x)?);
    }
    tensor(index::put(&mut e, x, &indices, values)?)
}

/// What is scattered, and where: `self`, the index, the axis.
fn scattered(c: &mut Call) -> Result<(ValueId, ValueId, usize)> {
    if c.has("reduce") {
        return Err("scatter that reduces is not supported".into());
    }
    let (x, index) = (c.tensor("self")?, c.tensor("index")?);
    if c.rank(x) == 0 {
        return Err("scattering into a number is not supported".into());
    }
    Ok((x, index, c.axis("dim", c.rank(x), None)?))
}

/// The first elements of `source` along each axis, as many as there are places.
fn as_many_as(c: &mut Call, mut source: ValueId, index: ValueId) -> Result<ValueId> {
    for (axis, size) in c.shape(index).into_iter().enumerate().take(c.rank(source)) {
        source = view::slice(&mut c.emit(), source, axis, Expr::zero(), size, 1)?;
    }
    Ok(source)
}

fn scatter(c: &mut Call) -> Result<Val> {
    let (x, places, axis) = scattered(c)?;
    let source = if c.has("src") {
        as_many_as(c, c.tensor("src")?, places)?
    } else {
        let value = c.operand("value")?;
        let value = c.typed(&value, c.ty(x).dtype)?;
        let shape = c.shape(places);
        view::expand(&mut c.emit(), value, shape)?
    };
    tensor(index::put_elements(&mut c.emit(), x, places, source, axis)?)
}

fn scatter_add(c: &mut Call) -> Result<Val> {
    let (x, places, axis) = scattered(c)?;
    let source = as_many_as(c, c.tensor("src")?, places)?;
    tensor(index::add_elements(&mut c.emit(), x, places, source, axis)?)
}
