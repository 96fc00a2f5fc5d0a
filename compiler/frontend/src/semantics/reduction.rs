//! Reductions.

use aotfarm_ir::{Op, ReduceOp, ValueId};

use super::{Emit, Result, pointwise};

/// A reduction over sorted, distinct axes. `Any` and `All` of numbers ask whether they differ from zero.
pub(crate) fn reduce(e: &mut Emit<'_>, op: ReduceOp, mut x: ValueId, axes: Vec<usize>, keepdim: bool) -> Result<ValueId> {
    let logical = matches!(op, ReduceOp::Any | ReduceOp::All);
    if logical {
        x = pointwise::truth(e, x)?;
    }
    e.push(Op::Reduce { op, axes, keepdim }, &[x])
}
