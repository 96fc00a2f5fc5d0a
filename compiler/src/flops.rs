//! Floating-point operations of a task. Those of a whole graph, as people count them, are in
//! [`Stats`](aotfarm_ir::Stats).

use aotfarm_kernels::TuningTask;
use aotfarm_plan::spec::{AttentionSpec, KernelKind, Reduction, TensorSpec};

/// Operations of one run of a convolution or matrix product, by which one sees how near a kernel is
/// to the machine's peak; `None` for other kinds. A multiply-add counts two.
pub fn of_product(task: &TuningTask) -> Option<f64> {
    matches!(task.spec.kind, KernelKind::Conv(_) | KernelKind::MatMul(_)).then(|| estimate(task))
}

/// Estimated operations of one run, by which tasks share a budget: exact for products, a few per
/// element for the rest.
pub fn estimate(task: &TuningTask) -> f64 {
    let elements = |t: &TensorSpec| t.shape.iter().map(|s| s.at(&task.point) as f64).product::<f64>();
    task.spec.outputs.iter().map(elements).sum::<f64>() * per_output(task)
}

/// Operations for each element of the outputs.
fn per_output(task: &TuningTask) -> f64 {
    let spec = &task.spec;
    match &spec.kind {
        // Weights are [O, …]: every output takes all but the first. A pooled one takes as many as the
        // pooling's stride leaves out.
        KernelKind::Conv(conv) => {
            let terms = |w: &TensorSpec| 2.0 * w.shape[1..].iter().map(|s| s.at(&task.point) as f64).product::<f64>();
            let branch = conv.branch.and_then(|b| spec.weights.get(b.weight));
            let pooled = conv.pool.map_or(1, |p| p.window.stride[0] * p.window.stride[1]);
            spec.weights.first().into_iter().chain(branch).map(terms).sum::<f64>() * pooled as f64
        }
        KernelKind::MatMul(_) => {
            let inner = spec.inputs.first().and_then(|a| a.shape.last());
            inner.map_or(1.0, |k| 2.0 * k.at(&task.point) as f64)
        }
        // Every score takes a row of query and of key, and is multiplied by a row of value.
        KernelKind::Attention(AttentionSpec { rows: [_, keys], widths: [width, values], .. }) => {
            2.0 * keys.at(&task.point) as f64 * (width + values) as f64 / *values as f64
        }
        KernelKind::Pool(p) => (p.window.kernel[0] * p.window.kernel[1]) as f64,
        // A guess: a normalisation reads its row three times and takes a root or an exponential.
        KernelKind::Rows(_) => 16.0,
        KernelKind::Loops(nest) => {
            let reduced = |r: &Reduction| r.extents.iter().map(|e| e.at(&task.point) as f64).product();
            nest.reduction.as_ref().map_or(2.0, reduced)
        }
    }
}
