//! What softmax and layer normalisation of contiguous rows have in common.

use minijinja::{Value, context};

use super::geometry::{element, gpu, size};
use crate::family::Unsupported;
use crate::task::TuningTask;
use aotfarm_plan::spec::{KernelKind, Layout, RowSpec, Size, TensorSpec};

/// The normalisation that a task is.
pub struct Rowwise<'a> {
    /// The task's own words.
    pub spec: &'a RowSpec,
    /// What is normalised.
    pub x: &'a TensorSpec,
    /// Sizes whose product is the number of rows.
    pub leading: &'a [Size],
    /// Length of a row.
    pub k: Size,
}

impl<'a> Rowwise<'a> {
    /// The normalisation that a task is; refuses what the kernels cannot do.
    pub fn of(task: &'a TuningTask) -> Result<Self, Unsupported> {
        let KernelKind::Rows(spec) = &task.spec.kind else { return Err(Unsupported("not a normalisation of rows".into())) };
        gpu(task)?;
        for tensor in task.spec.inputs.iter().chain(&task.spec.weights).chain(&task.spec.outputs) {
            element(tensor.dtype)?;
            if tensor.layout != Layout::Plain {
                return Err(Unsupported("an operand is not row-major".into()));
            }
        }
        let x = task.spec.inputs.first().ok_or_else(|| Unsupported("there is no input".into()))?;
        let (k, leading) = x.shape.split_last().ok_or_else(|| Unsupported("there are no rows".into()))?;
        Ok(Self { spec, x, leading, k: *k })
    }

    /// Variables of both templates. The types of operands that there are none of are empty.
    pub fn context(&self, task: &TuningTask) -> Value {
        let spec = &task.spec;
        let (softmax, eps) = match self.spec {
            RowSpec::Softmax => (true, 0.0),
            RowSpec::LayerNorm { eps, .. } => (false, *eps),
        };
        let affine = matches!(self.spec, RowSpec::LayerNorm { affine: true, .. });
        let name = |tensor: Option<&TensorSpec>| tensor.and_then(|t| element(t.dtype).ok()).unwrap_or_default();
        let rows: Vec<_> = self.leading.iter().map(|s| size(*s)).collect();
        context! {
            k => size(self.k),
            rows => if rows.is_empty() { "1".to_owned() } else { rows.join(" * ") },
            softmax,
            eps => format!("{eps:e}"),
            in_t => name(Some(self.x)),
            out_t => name(spec.outputs.first()),
            mask_t => name(spec.inputs.get(1).filter(|_| softmax)),
            scale_t => name(spec.weights.first().filter(|_| affine)),
            shift_t => name(spec.weights.get(1).filter(|_| affine)),
        }
    }
}
