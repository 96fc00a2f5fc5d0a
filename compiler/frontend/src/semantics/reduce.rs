//! Reductions.

use aotfarm_ir::{BinaryOp, Op, ReduceOp, ValueId};
use aotfarm_protocol::DType;

use super::{Emit, Result};

/// A reduction over sorted, distinct axes. `Any` and `All` of numbers ask whether they differ from zero.
pub(crate) fn reduce(e: &mut Emit<'_>, op: ReduceOp, mut x: ValueId, axes: Vec<usize>, keepdim: bool) -> Result<ValueId> {
    let logical = matches!(op, ReduceOp::Any | ReduceOp::All);
    if logical && e.dtype(x) != DType::Bool {
        let zero = e.full(0.0, e.dtype(x))?;
        x = e.binary(BinaryOp::Ne, x, zero)?;
    }
    e.push(Op::Reduce { op, axes, keepdim }, &[x])
}
