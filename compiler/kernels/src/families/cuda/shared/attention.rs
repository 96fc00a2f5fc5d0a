//! What the attention kernels have in common.

use aotfarm_protocol::DType;
use minijinja::{Value, context};

use super::geometry::{element, gpu, size};
use crate::family::Unsupported;
use crate::machine::Gpu;
use crate::task::TuningTask;
use aotfarm_plan::spec::{AttentionSpec, KernelKind, KernelSpec, Layout, View};

/// The attention that a task is.
pub struct Attention<'a> {
    /// The task's own words.
    pub spec: &'a AttentionSpec,
    /// The kernel that it is, with its operands.
    pub task: &'a KernelSpec,
    /// What it runs on.
    pub machine: Gpu,
}

impl<'a> Attention<'a> {
    /// The attention that a task is; refuses what neither kernel can do.
    pub fn of(task: &'a TuningTask) -> Result<Self, Unsupported> {
        let KernelKind::Attention(spec) = &task.spec.kind else { return Err(Unsupported("not attention".into())) };
        let machine = gpu(task)?;
        let task = &task.spec;
        if task.inputs.len() < 3 || task.inputs.iter().chain(&task.outputs).any(|tensor| tensor.layout != Layout::Plain) {
            return Err(Unsupported("an operand is missing or not row-major".into()));
        }
        for tensor in task.inputs[..3].iter().chain(&task.outputs) {
            element(tensor.dtype)?;
        }
        let attention = Self { spec, task, machine };
        attention.mask_type()?;
        Ok(attention)
    }

    /// The C++ type of the mask, if there is one.
    fn mask_type(&self) -> Result<Option<&'static str>, Unsupported> {
        let Some(mask) = self.spec.mask else { return Ok(None) };
        let tensor = if mask.is_weight { self.task.weights.first() } else { self.task.inputs.get(3) };
        match tensor.map(|tensor| tensor.dtype) {
            None => Err(Unsupported("the mask is missing".into())),
            Some(DType::Bool) => Ok(Some("bool")),
            Some(dtype) => element(dtype).map(Some),
        }
    }

    /// What both templates take.
    pub fn context(&self) -> Value {
        let AttentionSpec { lead: [_, heads], rows: [rows, keys], widths: [width, values], scale, causal, views, mask } =
            self.spec;
        let view = |name: &str, view: &View| {
            let [batch, head, row, column] = view.strides.map(size);
            context! { type => name, offset => size(view.offset), batch, head, row, column }
        };
        let name = |dtype: DType| element(dtype).unwrap_or("float");
        let [q, k, v] = [0, 1, 2].map(|k| view(name(self.task.inputs[k].dtype), &views[k]));
        let mask = mask.map(|mask| {
            let operand = if mask.is_weight { "AOTK_WEIGHT(0)" } else { "AOTK_IN(3)" };
            context! { operand, ..view(self.mask_type().ok().flatten().unwrap_or("float"), &mask.view) }
        });
        context! {
            heads => size(*heads), rows => size(*rows), keys => size(*keys), width, values, causal, q, k, v, mask,
            out => view(name(self.task.outputs[0].dtype), &views[3]),
            scale => format!("{scale:?}"),
            scale_log2 => format!("{:?}f", (scale * std::f64::consts::LOG2_E) as f32),
        }
    }
}
