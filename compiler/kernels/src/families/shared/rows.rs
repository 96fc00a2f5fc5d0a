//! What softmax and layer normalisation of contiguous rows have in common.

use aotfarm_protocol::{DType, Target};
use minijinja::{Value, context};

use crate::family::Unsupported;
use crate::render::{product, size};
use crate::task::TuningTask;
use aotfarm_plan::spec::{KernelKind, Layout, RowSpec, TensorSpec};

/// The normalisation that a task is, and its x; refuses what C kernels cannot do.
pub fn rows(task: &TuningTask) -> Result<(&RowSpec, &TensorSpec), Unsupported> {
    let KernelKind::Rows(spec) = &task.spec.kind else { return Err(Unsupported("not a normalisation of rows".into())) };
    let Target::Cpu(_) = task.target else { return Err(Unsupported(format!("no C code for {}", task.target))) };
    let mut operands = task.spec.inputs.iter().chain(&task.spec.weights).chain(&task.spec.outputs);
    if operands.any(|t| t.dtype != DType::F32 || t.layout != Layout::Plain) {
        return Err(Unsupported("an operand is not a row-major f32 tensor".into()));
    }
    match task.spec.inputs.first() {
        Some(x) if !x.shape.is_empty() => Ok((spec, x)),
        _ => Err(Unsupported("there are no rows".into())),
    }
}

/// Variables of both templates.
pub fn variables(task: &TuningTask) -> Value {
    let (spec, x) = rows(task).unwrap_or_else(|e| panic!("{e}"));
    let (k, leading) = x.shape.split_last().unwrap_or_else(|| panic!("a row has a length"));
    let (softmax, eps, affine) = match spec {
        RowSpec::Softmax => (true, 0.0, false),
        RowSpec::LayerNorm { eps, affine } => (false, *eps, *affine),
    };
    context! {
        k => size(*k),
        rows => product(leading),
        softmax,
        mask => softmax && task.spec.inputs.len() > 1,
        affine,
        eps => format!("{eps:e}"),
    }
}
