//! Normalisations: by given statistics, or by those of the rows themselves.

use rayon::prelude::*;

use super::rules::{check_axis, ensure, float};
use super::{Group, Op, foreign};
use crate::Bindings;
use crate::array::{Array, larger};
use crate::syntax::{NodeText, TextError};
use crate::types::{TensorType, shape_text};

pub(super) struct Normalisation;

impl Group for Normalisation {
    fn name(&self, op: &Op) -> &'static str {
        match op {
            Op::BatchNorm { .. } => "batch_norm",
            Op::Softmax { .. } => "softmax",
            Op::LayerNorm { .. } => "layer_norm",
            _ => foreign(op),
        }
    }

    fn arity(&self, op: &Op) -> (usize, usize) {
        match op {
            Op::BatchNorm { .. } => (5, 5),
            Op::Softmax { .. } => (1, 1),
            Op::LayerNorm { .. } => (1, 3),
            _ => foreign(op),
        }
    }

    fn infer(&self, op: &Op, operands: &[&TensorType]) -> Result<TensorType, String> {
        float(operands)?;
        let x = operands[0].shape.as_slice();
        match op {
            Op::BatchNorm { .. } => {
                ensure(x.len() >= 2, || "x must have at least 2 dimensions, [N, C, …]".into())?;
                for (operand, name) in operands[1..].iter().zip(["scale", "shift", "mean", "variance"]) {
                    ensure(operand.shape == [x[1].clone()], || format!("{name} must have the shape [{}]", x[1]))?;
                }
            }
            Op::Softmax { axis } => check_axis(*axis, x.len())?,
            Op::LayerNorm { axes, .. } => {
                ensure(operands.len() != 2, || "scale and shift come together: expected 1 or 3 operands, got 2".into())?;
                ensure((1..=x.len()).contains(axes), || format!("cannot normalise over {axes} of {} axes", x.len()))?;
                let normalised = &x[x.len() - axes..];
                for (operand, name) in operands[1..].iter().zip(["scale", "shift"]) {
                    ensure(operand.shape == normalised, || format!("{name} must have the shape {}", shape_text(normalised)))?;
                }
            }
            _ => foreign(op),
        }
        Ok(operands[0].clone())
    }

    fn attributes(&self, op: &Op) -> Vec<String> {
        match op {
            Op::BatchNorm { eps } => vec![format!("eps={eps:?}")],
            Op::Softmax { axis } => vec![format!("axis={axis}")],
            Op::LayerNorm { axes, eps } => vec![format!("axes={axes}"), format!("eps={eps:?}")],
            _ => foreign(op),
        }
    }

    fn read(&self, name: &str, node: &mut NodeText<'_>) -> Result<Option<Op>, TextError> {
        Ok(Some(match name {
            "batch_norm" => Op::BatchNorm { eps: node.float("eps")? },
            "softmax" => Op::Softmax { axis: node.index("axis")? },
            "layer_norm" => Op::LayerNorm { axes: node.index("axes")?, eps: node.float("eps")? },
            _ => return Ok(None),
        }))
    }

    fn evaluate(&self, op: &Op, x: &[&Array], _: &[usize], _: &Bindings) -> Result<Array, String> {
        Ok(match op {
            Op::BatchNorm { eps } => batch_norm(x, *eps),
            Op::Softmax { axis } => softmax(x[0], *axis),
            Op::LayerNorm { axes, eps } => layer_norm(x, *axes, *eps),
            _ => foreign(op),
        })
    }
}

/// `inputs` are x, scale, shift, mean, variance; the channel is axis 1.
fn batch_norm(inputs: &[&Array], eps: f64) -> Array {
    let [x, scale, shift, mean, variance] = [inputs[0], inputs[1], inputs[2], inputs[3], inputs[4]];
    let inner = x.shape[2..].iter().product::<usize>();
    let mut out = x.f().to_vec();
    out.par_chunks_mut(inner.max(1)).enumerate().for_each(|(plane, out)| {
        let c = plane % x.shape[1];
        let factor = scale.f()[c] / (variance.f()[c] + eps).sqrt();
        out.iter_mut().for_each(|v| *v = (*v - mean.f()[c]) * factor + shift.f()[c]);
    });
    Array::float(x.dtype, &x.shape, out)
}

/// Softmax of one row.
pub(super) fn softmax_row(row: &mut [f64]) {
    let most = row.iter().copied().fold(f64::NEG_INFINITY, larger);
    row.iter_mut().for_each(|v| *v = (*v - most).exp());
    let sum: f64 = row.iter().sum();
    row.iter_mut().for_each(|v| *v /= sum);
}

fn softmax(x: &Array, axis: usize) -> Array {
    let rank = x.shape.len();
    // The axis last; swapping two axes is its own inverse.
    let mut axes: Vec<usize> = (0..rank).collect();
    axes.swap(axis, rank - 1);
    let rows = x.permuted(&axes);
    let mut out = rows.f().to_vec();
    out.par_chunks_mut(x.shape[axis].max(1)).for_each(softmax_row);
    Array::float(x.dtype, &rows.shape, out).permuted(&axes)
}

/// `inputs` are x and perhaps scale and shift.
fn layer_norm(inputs: &[&Array], axes: usize, eps: f64) -> Array {
    let x = inputs[0];
    let row = x.shape[x.shape.len() - axes..].iter().product::<usize>();
    let mut out = x.f().to_vec();
    out.par_chunks_mut(row.max(1)).for_each(|out| {
        let mean = out.iter().sum::<f64>() / row as f64;
        let variance = out.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / row as f64;
        let factor = 1.0 / (variance + eps).sqrt();
        out.iter_mut().for_each(|v| *v = (*v - mean) * factor);
        if let [_, scale, shift] = inputs {
            out.iter_mut().zip(scale.f().iter().zip(shift.f())).for_each(|(v, (scale, shift))| *v = *v * scale + shift);
        }
    });
    Array::float(x.dtype, &x.shape, out)
}
