//! Normalisations of rows: softmax and layer norm.

use aotfarm_ir::{Node, Op};

use super::lowering::{Call, Lowering};
use crate::dims::Dims;
use crate::error::PlanError;
use crate::spec::{KernelKind, RowSpec};

pub(super) fn rows(l: &mut Lowering<'_>, node: &Node) -> Result<(), PlanError> {
    l.require_f32(node)?;
    let shape = &l.graph.ty(node.output).shape;
    let rank = shape.len();
    let (spec, axes) = match node.op {
        Op::Softmax { axis } if axis + 1 == rank => (RowSpec::Softmax, 1),
        Op::LayerNorm { axes, eps } => (RowSpec::LayerNorm { eps, affine: node.inputs.len() > 1 }, axes),
        _ => return Err(l.error(node, "only the last axis is normalised; canonicalise moves others there")),
    };
    let mut weights = Vec::new();
    for (id, what) in node.inputs[1..].iter().zip(["scale", "shift"]) {
        weights.push(l.constant(node, *id, what)?);
    }
    let rows = vec![shape[..rank - axes].iter().product(), shape[rank - axes..].iter().product()];
    let call = Call {
        dims: Dims::default(),
        kind: KernelKind::Rows(spec),
        inputs: vec![(node.inputs[0], rows.clone())],
        weights,
        outputs: vec![(node.output, rows)],
    };
    l.emit(node, call);
    Ok(())
}
