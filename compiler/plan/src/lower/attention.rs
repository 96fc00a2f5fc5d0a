//! Attention as one kernel.

use aotfarm_ir::{Def, Expr, Node};

use super::lowering::{Call, Lowering};
use crate::attention::Strided;
use crate::chains::Chain;
use crate::dims::Dims;
use crate::error::PlanError;
use crate::spec::{AttentionSpec, KernelKind, Mask, Size, View};

pub(super) fn attention(l: &mut Lowering<'_>, node: &Node, chain: &Chain, scale: f64, causal: bool) -> Result<(), PlanError> {
    let result = l.graph.nodes[chain.last].output;
    let (made, stored) = (&l.graph.ty(node.output).shape, &l.graph.ty(result).shape);
    let operands: Vec<Strided> =
        (0..node.inputs.len()).map(|slot| Strided::of(l.graph, l.chains, l.layouts, node, slot)).collect();
    let mut dims = Dims::default();
    let last = |slot: usize, back: usize| {
        let shape = &l.graph.ty(node.inputs[slot]).shape;
        shape[shape.len() - back].clone()
    };
    let (Some(width), Some(values)) = (last(0, 1).as_const(), last(2, 1).as_const()) else {
        return Err(l.error(node, "the width of its heads is not known"));
    };
    let lead = [dims.size(&made[0]), dims.size(&made[1])];
    let rows = [dims.size(&last(0, 2)), dims.size(&last(1, 2))];
    // Row-major, with heads before or after rows.
    let (row, rest) = (&stored[3], &stored[2] * &stored[3]);
    let [head, row] = if chain.last == chain.anchor { [&rest, row] } else { [row, &rest] };
    let strides = [&stored[1] * &rest, head.clone(), row.clone(), Expr::one()];
    let output = View { offset: Size::Const(0), strides: strides.map(|stride| dims.size(&stride)) };
    let [query, key, value] = [0, 1, 2].map(|slot| operands[slot].view(&mut dims));
    let mut inputs: Vec<_> = operands.iter().map(|o| (o.base, l.graph.ty(o.base).shape.clone())).collect();
    let (mut weights, mut mask) = (Vec::new(), None);
    if let Some(operand) = operands.get(3) {
        let is_weight = matches!(l.graph.value(operand.base).def, Def::Weight(_));
        if is_weight {
            inputs.pop();
            weights.push(l.constant(node, operand.base, "mask")?);
        }
        mask = Some(Mask { is_weight, view: operand.view(&mut dims) });
    }
    let views = [query, key, value, output];
    let kind = KernelKind::Attention(AttentionSpec { lead, rows, widths: [width, values], scale, causal, views, mask });
    l.emit(node, Call { dims, kind, inputs, weights, outputs: vec![(result, stored.clone())] });
    Ok(())
}
