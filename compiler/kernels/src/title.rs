//! A task in words.

use aotfarm_ir::PoolOp;
use aotfarm_plan::spec::{AttentionSpec, KernelKind, LoopNest, PoolSpec, RowSpec, Size, TensorSpec};

use crate::task::TuningTask;

/// The task in words: `convolution(1x64x56x56, 64x64x3x3) f32 cpu-x86_64-v3`.
pub fn title(task: &TuningTask) -> String {
    let spec = &task.spec;
    let name = match &spec.kind {
        KernelKind::Conv(_) => "convolution",
        KernelKind::MatMul(_) => "matmul",
        KernelKind::Attention(_) => "attention",
        KernelKind::Pool(PoolSpec { op: PoolOp::Max, .. }) => "max_pool",
        KernelKind::Pool(PoolSpec { op: PoolOp::Avg { .. }, .. }) => "avg_pool",
        KernelKind::Rows(RowSpec::Softmax) => "softmax",
        KernelKind::Rows(RowSpec::LayerNorm { .. }) => "layer_norm",
        KernelKind::Loops(LoopNest { reduction: Some(_), .. }) => "reduction",
        KernelKind::Loops(_) => "elementwise",
    };
    let shape = |t: &TensorSpec| {
        let sizes: Vec<_> = t.shape.iter().map(|s| s.at(&task.point).to_string()).collect();
        if sizes.is_empty() { "scalar".to_owned() } else { sizes.join("x") }
    };
    // Of the operands, those that say what work it is: not biases and residuals.
    let main = match &spec.kind {
        KernelKind::Conv(_) => spec.inputs.iter().take(1).chain(spec.weights.iter().take(1)).map(shape).collect::<Vec<_>>(),
        KernelKind::MatMul(m) if m.b_is_weight => {
            spec.inputs.iter().take(1).chain(spec.weights.iter().take(1)).map(shape).collect()
        }
        KernelKind::MatMul(_) => spec.inputs.iter().take(2).map(shape).collect(),
        KernelKind::Attention(AttentionSpec { lead: [batch, heads], rows, widths, .. }) => {
            let matrix = |(rows, width): (&Size, &i64)| {
                format!("{}x{}x{}x{width}", batch.at(&task.point), heads.at(&task.point), rows.at(&task.point))
            };
            rows.iter().zip(widths).map(matrix).collect()
        }
        KernelKind::Pool(_) | KernelKind::Rows(_) => spec.inputs.iter().take(1).map(shape).collect(),
        KernelKind::Loops(_) => spec.outputs.iter().take(1).map(shape).collect(),
    };
    let dtype = spec.outputs.first().map_or("", |o| o.dtype.name());
    format!("{name}({}) {dtype} {}", main.join(", "), task.target)
}
