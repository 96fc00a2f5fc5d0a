//! Reductions over axes.

use aotfarm_protocol::DType;
use rayon::prelude::*;

use super::rules::{check_axes, ensure, like};
use super::{Group, Op, foreign};
use crate::array::{Array, Data, larger, smaller};
use crate::syntax::{NodeText, TextError};
use crate::types::TensorType;
use crate::{Bindings, Expr, GraphDim};

functions! {
    /// How a reduction combines.
    ReduceOp {
        Sum = "sum",
        Mean = "mean",
        Max = "max",
        Min = "min",
        Prod = "prod",
        Any = "any",
        All = "all",
    }
}

pub(super) struct Reduction;

impl Group for Reduction {
    fn name(&self, op: &Op) -> &'static str {
        let Op::Reduce { op, .. } = op else { foreign(op) };
        match op {
            ReduceOp::Sum => "reduce_sum",
            ReduceOp::Mean => "reduce_mean",
            ReduceOp::Max => "reduce_max",
            ReduceOp::Min => "reduce_min",
            ReduceOp::Prod => "reduce_prod",
            ReduceOp::Any => "reduce_any",
            ReduceOp::All => "reduce_all",
        }
    }

    fn arity(&self, _: &Op) -> (usize, usize) {
        (1, 1)
    }

    fn infer(&self, op: &Op, operands: &[&TensorType]) -> Result<TensorType, String> {
        let Op::Reduce { op, axes, keepdim } = op else { foreign(op) };
        let x = &operands[0].shape;
        check_dtype(*op, operands[0].dtype)?;
        check_axes(axes, x.len())?;
        ensure(axes.is_sorted(), || format!("the axes {axes:?} are not sorted"))?;
        let kept = x.iter().enumerate().filter_map(|(i, size)| match (axes.contains(&i), keepdim) {
            (false, _) => Some(size.clone()),
            (true, true) => Some(Expr::one()),
            (true, false) => None,
        });
        Ok(like(operands, &kept.collect::<Vec<_>>()))
    }

    fn check_ranges(&self, op: &Op, operands: &[&TensorType], dims: &[GraphDim]) -> Result<(), String> {
        let Op::Reduce { op, axes, .. } = op else { foreign(op) };
        let mut sizes = axes.iter().map(|axis| &operands[0].shape[*axis]).filter(|size| size.as_const().is_none());
        match sizes.find(|size| size.bounds(dims).0 < 1) {
            Some(size) if matches!(op, ReduceOp::Max | ReduceOp::Min) => {
                Err(format!("the axis of size {size} may be empty, and then has no largest or smallest element"))
            }
            _ => Ok(()),
        }
    }

    fn attributes(&self, op: &Op) -> Vec<String> {
        let Op::Reduce { axes, keepdim, .. } = op else { foreign(op) };
        let mut attributes = vec![format!("axes={axes:?}")];
        if *keepdim {
            attributes.push("keepdim".to_owned());
        }
        attributes
    }

    fn read(&self, name: &str, node: &mut NodeText<'_>) -> Result<Option<Op>, TextError> {
        let Some(word) = name.strip_prefix("reduce_") else { return Ok(None) };
        let Some(op) = ReduceOp::ALL.into_iter().find(|op| op.name() == word) else { return Ok(None) };
        Ok(Some(Op::Reduce { op, axes: node.axes("axes")?, keepdim: node.flag("keepdim")? }))
    }

    fn evaluate(&self, op: &Op, x: &[&Array], shape: &[usize], _: &Bindings) -> Result<Array, String> {
        let Op::Reduce { op, axes, .. } = op else { foreign(op) };
        reduce(*op, x[0], axes, shape)
    }
}

fn check_dtype(op: ReduceOp, dtype: DType) -> Result<(), String> {
    let fits = match op {
        ReduceOp::Any | ReduceOp::All => dtype == DType::Bool,
        ReduceOp::Mean => dtype.is_float(),
        _ => dtype != DType::Bool,
    };
    ensure(fits, || format!("not defined for {dtype}; cast first"))
}

fn reduce(op: ReduceOp, x: &Array, axes: &[usize], shape: &[usize]) -> Result<Array, String> {
    let order: Vec<usize> = (0..x.shape.len()).filter(|a| !axes.contains(a)).chain(axes.iter().copied()).collect();
    let count: usize = axes.iter().map(|&a| x.shape[a]).product();
    let total: usize = shape.iter().product();
    if count == 0 && total > 0 && matches!(op, ReduceOp::Max | ReduceOp::Min) {
        return Err("the largest or smallest of no elements".into());
    }
    let rows = x.permuted(&order);
    let row = |i: usize| i * count..(i + 1) * count;
    Ok(match &rows.data {
        Data::Float(values) => {
            let reduce = |v: &[f64]| match op {
                ReduceOp::Sum => v.iter().sum(),
                ReduceOp::Mean => v.iter().sum::<f64>() / count as f64,
                ReduceOp::Max => v.iter().copied().fold(f64::NEG_INFINITY, larger),
                ReduceOp::Min => v.iter().copied().fold(f64::INFINITY, smaller),
                _ => v.iter().product(),
            };
            Array::float(x.dtype, shape, (0..total).into_par_iter().map(|i| reduce(&values[row(i)])).collect())
        }
        Data::Int(values) => {
            let reduce = |v: &[i64]| match op {
                ReduceOp::Sum => v.iter().fold(0i64, |a, &b| a.wrapping_add(b)),
                ReduceOp::Max | ReduceOp::Any => v.iter().copied().max().unwrap_or(0),
                ReduceOp::Min | ReduceOp::All => v.iter().copied().min().unwrap_or(1),
                _ => v.iter().fold(1i64, |a, &b| a.wrapping_mul(b)),
            };
            Array::int(x.dtype, shape, (0..total).into_par_iter().map(|i| reduce(&values[row(i)])).collect())
        }
    })
}
