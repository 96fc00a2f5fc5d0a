//! Losses, as inference tools that judge a model compute them.

use aotfarm_ir::{BinaryOp, Expr, Number, ReduceOp, UnaryOp, ValueId};
use aotfarm_protocol::DType;

use super::super::node::{NodeCall, one};
use super::super::scope::Known;
use super::Map;
use super::functions::log_softmax;
use crate::semantics::activation::with_number;
use crate::semantics::{Result, gather, order, pointwise, reduction, view};

pub(super) static ROWS: &[(&str, Map)] = &[
    ("NegativeLogLikelihoodLoss", |c| {
        let x = c.tensor(0)?;
        one(likelihood(c, x)?)
    }),
    ("SoftmaxCrossEntropyLoss", |c| {
        let x = c.tensor(0)?;
        let x = log_softmax(&mut c.emit(), x, 1)?;
        Ok([likelihood(c, x)?, x].map(|id| Known { tensor: Some(id), sizes: None }).into())
    }),
];

/// `-weight[t] x[t]` for the class t of each place, all of them, their sum, or by the sum of the weights. `x` is `[N, C, …]`, the
/// classes are operand 1, weights of classes operand 2.
fn likelihood(c: &mut NodeCall, x: ValueId) -> Result<ValueId> {
    let (target, weight) = (c.tensor(1)?, c.opt_tensor(2)?);
    let reduction = c.text("reduction").to_owned();
    let ignored = c.attribute("ignore_index").map(|a| a.i);
    let mut e = c.emit();
    let (dtype, classes) = (e.dtype(x), e.shape(x).get(1).cloned().unwrap_or_else(Expr::one));
    let target = e.cast(target, DType::I64)?;
    let zero = e.full(Number::ZERO, dtype)?;
    // What is ignored need not be a class.
    let is_ignored = ignored.map(|class| with_number(&mut e, BinaryOp::Eq, target, class)).transpose()?;
    let mut class = target;
    if let Some(is_ignored) = is_ignored {
        let first = e.full(0i64, DType::I64)?;
        class = pointwise::select(&mut e, is_ignored, first, target)?;
    }
    let class = order::from_the_start(&mut e, class, &classes)?;
    let mut weights = match weight {
        Some(weight) => gather::take(&mut e, weight, class, 0)?,
        None => {
            let shape = e.shape(class);
            crate::semantics::source::full(&mut e, Number::ONE, shape, dtype)?
        }
    };
    let index = view::unsqueeze(&mut e, class, vec![1])?;
    let chosen = gather::elements(&mut e, x, index, 1)?;
    let chosen = view::without(&mut e, chosen, &[1])?;
    let mut loss = e.unary(UnaryOp::Neg, chosen)?;
    loss = e.binary(BinaryOp::Mul, loss, weights)?;
    if let Some(is_ignored) = is_ignored {
        weights = pointwise::select(&mut e, is_ignored, zero, weights)?;
        loss = pointwise::select(&mut e, is_ignored, zero, loss)?;
    }
    if reduction == "none" {
        return Ok(loss);
    }
    let axes: Vec<usize> = (0..e.rank(loss)).collect();
    let sum = reduction::reduce(&mut e, ReduceOp::Sum, loss, axes.clone(), false)?;
    match reduction.as_str() {
        "sum" => Ok(sum),
        "" | "mean" => {
            let count = reduction::reduce(&mut e, ReduceOp::Sum, weights, axes, false)?;
            e.binary(BinaryOp::Div, sum, count)
        }
        other => Err(format!("reduction `{other}` is not supported").into()),
    }
}
