//! Gathers.

use aotfarm_ir::{Op, ValueId};

use super::{Emit, Result};

/// `x` with `axis` replaced by the shape of `indices`.
pub(crate) fn take(e: &mut Emit<'_>, x: ValueId, indices: ValueId, axis: usize) -> Result<ValueId> {
    e.push(Op::Take { axis }, &[x, indices])
}

/// One element of `x` for each of `indices`, which have its rank.
pub(crate) fn elements(e: &mut Emit<'_>, x: ValueId, indices: ValueId, axis: usize) -> Result<ValueId> {
    e.push(Op::GatherElements { axis }, &[x, indices])
}
