//! Pooling.

use aotfarm_ir::{Node, Op, ValueId};

use super::lowering::{Call, Lowering};
use crate::dims::Dims;
use crate::error::PlanError;
use crate::spec::{KernelKind, PoolSpec};

pub(super) fn pool(l: &mut Lowering<'_>, node: &Node) -> Result<(), PlanError> {
    l.require_f32(node)?;
    let Op::Pool { op, window } = node.op else { return Err(l.error(node, "not a pooling")) };
    let shape_of = |id: ValueId| (id, l.graph.ty(id).shape.clone());
    let call = Call {
        dims: Dims::default(),
        kind: KernelKind::Pool(PoolSpec { op, window }),
        inputs: vec![shape_of(node.inputs[0])],
        weights: Vec::new(),
        outputs: vec![shape_of(node.output)],
    };
    l.emit(node, call);
    Ok(())
}
