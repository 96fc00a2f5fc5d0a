//! Sizes, and assertions about them.

use aotfarm_ir::Expr;

use super::row::{Row, row};
use crate::aten::call::Call;
use crate::aten::scope::Val;
use crate::semantics::{self, Result};

/// Comparisons of sizes are of use to assertions alone, which the ranges of dimensions answer.
pub(super) static ROWS: &[Row] = &[
    row("aten.sym_size.int", sym_size),
    row("aten.sym_numel.default", sym_numel),
    row("_operator.mul", |c| size_arithmetic(c, |a, b| Some(a * b))),
    row("_operator.add", |c| size_arithmetic(c, |a, b| Some(a + b))),
    row("_operator.sub", |c| size_arithmetic(c, |a, b| Some(a - b))),
    row("_operator.floordiv", |c| size_arithmetic(c, |a, b| b.as_const().filter(|d| *d > 0).map(|_| a.floor_div(b)))),
    row("_operator.mod", |c| size_arithmetic(c, |a, b| b.as_const().filter(|d| *d > 0).map(|_| a.modulo(b)))),
    row("_operator.neg", negated),
    row("torch.sym_max", |c| size_arithmetic(c, |a, b| Some(a.maximum(b)))),
    row("torch.sym_min", |c| size_arithmetic(c, |a, b| Some(a.minimum(b)))),
    row("_operator.eq", |_| Ok(Val::Nothing)),
    row("_operator.ne", |_| Ok(Val::Nothing)),
    row("_operator.lt", |_| Ok(Val::Nothing)),
    row("_operator.le", |_| Ok(Val::Nothing)),
    row("_operator.gt", |_| Ok(Val::Nothing)),
    row("_operator.ge", |_| Ok(Val::Nothing)),
    row("aten._assert_tensor_metadata.default", |_| Ok(Val::Nothing)),
    row("aten._assert_scalar.default", |_| Ok(Val::Nothing)),
    row("aten.sym_constrain_range_for_size.default", |_| Ok(Val::Nothing)),
];

fn sym_size(c: &mut Call) -> Result<Val> {
    let x = c.tensor("self")?;
    let axis = c.axis("dim", c.rank(x), None)?;
    Ok(Val::Size(c.shape(x)[axis].clone()))
}

fn sym_numel(c: &mut Call) -> Result<Val> {
    let x = c.tensor("self")?;
    Ok(Val::Size(semantics::product(&c.shape(x))))
}

fn size_arithmetic(c: &mut Call, f: fn(&Expr, &Expr) -> Option<Expr>) -> Result<Val> {
    // Python operators have their arguments by position; the exporter names them `a` and `b`.
    let names: Vec<String> = c.node.inputs.iter().map(|i| i.name.clone()).collect();
    let [a, b] = names.as_slice() else { return Err("a Python operator on sizes takes two arguments".into()) };
    let (a, b) = (c.opt_size(a)?, c.opt_size(b)?);
    let result = a.zip(b).and_then(|(a, b)| f(&a, &b));
    result.map(Val::Size).ok_or_else(|| "this arithmetic on sizes is not supported".into())
}

fn negated(c: &mut Call) -> Result<Val> {
    let name = c.node.inputs.first().map(|input| input.name.clone()).ok_or("it takes a size")?;
    let size = c.opt_size(&name)?.ok_or("it takes a size")?;
    Ok(Val::Size(&Expr::zero() - &size))
}
