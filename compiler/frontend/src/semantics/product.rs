//! Matrix products and attention.

use aotfarm_ir::{Expr, Op, ValueId};

use super::{Emit, Result, view};

/// numpy's and torch's matmul: a vector operand gets a dimension of size 1 that the result loses again.
pub(crate) fn matmul(e: &mut Emit<'_>, mut a: ValueId, mut b: ValueId) -> Result<ValueId> {
    let (row, column) = (e.rank(a) == 1, e.rank(b) == 1);
    if row {
        let shape = [vec![Expr::one()], e.shape(a)].concat();
        a = e.reshape(a, shape)?;
    }
    if column {
        let shape = [e.shape(b), vec![Expr::one()]].concat();
        b = e.reshape(b, shape)?;
    }
    let product = e.push(Op::MatMul, &[a, b])?;
    let mut shape = e.shape(product);
    let rank = shape.len();
    if column {
        shape.remove(rank - 1);
    }
    if row {
        shape.remove(rank - 2);
    }
    e.reshape(product, shape)
}

/// `x weightᵀ + bias`.
pub(crate) fn linear(e: &mut Emit<'_>, x: ValueId, weight: ValueId, bias: Option<ValueId>) -> Result<ValueId> {
    let inputs: Vec<ValueId> = [x, weight].into_iter().chain(bias).collect();
    e.push(Op::Linear, &inputs)
}

/// Heads of `[query, key, value]`, each of the last two repeated for the queries of its group.
pub(crate) fn heads_for_each_query(e: &mut Emit<'_>, [query, key, value]: [ValueId; 3]) -> Result<[ValueId; 3]> {
    let heads = |e: &Emit<'_>, x: ValueId| e.shape(x).iter().rev().nth(2).and_then(Expr::as_const);
    let queries = heads(e, query).ok_or("attention with grouped queries needs a constant number of heads")?;
    let mut repeated = |x: ValueId| match heads(e, x) {
        Some(own) if own == queries => Ok(x),
        Some(own) if own > 0 && queries % own == 0 => view::repeat_each(e, x, e.rank(x) - 3, queries / own),
        _ => Err(format!("{queries} heads of queries cannot share those of {}", e.ty(x)).into()),
    };
    Ok([query, repeated(key)?, repeated(value)?])
}

/// Scaled dot-product attention over `[query, key, value]`; the scale is `1/√width` unless it is given.
pub(crate) fn attention(
    e: &mut Emit<'_>,
    operands: [ValueId; 3],
    mask: Option<ValueId>,
    scale: Option<f64>,
    causal: bool,
) -> Result<ValueId> {
    let width = e.ty(operands[0]).shape.last().and_then(Expr::as_const);
    let scale = match (scale, width) {
        (Some(scale), _) => scale,
        (None, Some(width)) => 1.0 / (width as f64).sqrt(),
        (None, None) => return Err("attention over a symbolic width needs an explicit scale".into()),
    };
    let inputs: Vec<ValueId> = operands.into_iter().chain(mask).collect();
    e.push(Op::Attention { scale, causal }, &inputs)
}
