//! What the poolings have in common.

use super::geometry::{element, gpu};
use crate::family::Unsupported;
use crate::task::TuningTask;
use aotfarm_plan::spec::{KernelKind, Layout, PoolSpec, TensorSpec};

/// The pooling that a task is, with its operands.
pub fn pool(task: &TuningTask) -> Result<(&PoolSpec, &TensorSpec, &TensorSpec), Unsupported> {
    let KernelKind::Pool(pool) = &task.spec.kind else { return Err(Unsupported("not a pooling".into())) };
    gpu(task)?;
    let ([input], [output]) = (task.spec.inputs.as_slice(), task.spec.outputs.as_slice()) else {
        return Err(Unsupported("not one input and one output".into()));
    };
    for tensor in [input, output] {
        element(tensor.dtype)?;
        let whole = match tensor.layout {
            Layout::Plain => true,
            Layout::Image { block, halo } => halo == [0; 4] && i64::from(block) >= tensor.shape[1].at(&task.point),
        };
        if tensor.shape.len() != 4 || !whole {
            return Err(Unsupported("an operand is neither a row-major tensor of rank 4 nor NHWC".into()));
        }
    }
    Ok((pool, input, output))
}
