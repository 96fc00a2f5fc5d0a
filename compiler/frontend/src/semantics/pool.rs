//! Pooling.

use aotfarm_ir::{Op, PoolOp, ReduceOp, ValueId, Window};

use super::conv::over_images;
use super::{Emit, Result};

/// Max or average pooling. In ceil mode a last window may reach over the end.
pub(crate) fn pool(e: &mut Emit<'_>, op: PoolOp, x: ValueId, mut window: Window, ceil_mode: bool) -> Result<ValueId> {
    over_images(e, x)?;
    if ceil_mode {
        if matches!(op, PoolOp::Avg { .. }) {
            return Err("average pooling in ceil mode is not supported".into());
        }
        for axis in 0..2 {
            let size = e.ty(x).shape[axis + 2].as_const().ok_or("pooling in ceil mode needs constant spatial sizes")?;
            window.grow_to_ceil(axis, size);
        }
    }
    e.push(Op::Pool { op, window }, &[x])
}

/// Average pooling to a fixed size, windows as in torch's adaptive_avg_pool2d.
pub(crate) fn adaptive_average(e: &mut Emit<'_>, x: ValueId, output: [i64; 2]) -> Result<ValueId> {
    e.push(Op::AdaptiveAvgPool { output }, &[x])
}

/// The mean over all spatial axes, which stay with size 1.
pub(crate) fn global_average(e: &mut Emit<'_>, x: ValueId) -> Result<ValueId> {
    let axes = (2..e.rank(x)).collect();
    e.push(Op::Reduce { op: ReduceOp::Mean, axes, keepdim: true }, &[x])
}
