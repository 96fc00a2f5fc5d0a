//! Matrix products.

use aotfarm_ir::{Def, Expr, Node, Op, ValueId};
use aotfarm_protocol::Target;

use super::lowering::{Call, Lowering};
use crate::chains::Chain;
use crate::dims::Dims;
use crate::error::PlanError;
use crate::plan::WeightId;
use crate::spec::{KernelKind, MatMulSpec};
use crate::weights;

pub(super) fn product(l: &mut Lowering<'_>, node: &Node, chain: &Chain) -> Result<(), PlanError> {
    l.require_f32(node)?;
    let (a, b, result) = (node.inputs[0], node.inputs[1], l.graph.nodes[chain.last].output);
    let shape_of = |id: ValueId| l.graph.ty(id).shape.clone();
    let (a_shape, b_shape, shape) = (shape_of(a), shape_of(b), shape_of(result));
    let mut b_transposed = node.op == Op::Linear || l.transposed.contains(&node.output);
    let b_is_weight = matches!(l.graph.value(b).def, Def::Weight(_));
    if let Some(bias) = node.inputs.get(2) {
        l.constant(node, *bias, "bias")?;
    }
    // Leading dimensions become rows when b is one matrix, else one batch.
    let lead = if b_shape.len() == 2 { 1 } else { 2 };
    let fold = |shape: &[Expr]| {
        let at = shape.len() - lead;
        let mut folded = vec![shape[..at].iter().product::<Expr>()];
        folded.extend_from_slice(&shape[at..]);
        folded
    };
    let mut call = Call {
        dims: Dims::default(),
        kind: KernelKind::MatMul(MatMulSpec { b_is_weight, b_transposed, epilogue: Vec::new() }),
        inputs: vec![(a, fold(&a_shape))],
        weights: Vec::new(),
        outputs: vec![(result, fold(&shape))],
    };
    if b_is_weight {
        let (weight, transposed) = matrix(l, node, b_transposed)?;
        call.weights.push(weight);
        b_transposed = transposed;
    } else {
        call.inputs.push((b, if b_shape.len() == 2 { b_shape } else { fold(&b_shape) }));
    }
    let folded = fold(&shape);
    let epilogue = l.epilogue(chain, &folded, &mut call);
    call.kind = KernelKind::MatMul(MatMulSpec { b_is_weight, b_transposed, epilogue });
    l.emit(node, call);
    Ok(())
}

/// The weight of a product as the target's kernels read it, and whether it is `[N, K]`: always on a GPU.
fn matrix(l: &mut Lowering<'_>, node: &Node, b_transposed: bool) -> Result<(WeightId, bool), PlanError> {
    let Target::Cuda { .. } = l.plan.target else {
        return Ok((l.constant(node, node.inputs[1], "weight")?, b_transposed));
    };
    let (data, shape) = l.constant_data(node, node.inputs[1], "weight")?;
    let [rows, columns] = shape[..] else { return Err(l.error(node, "its weight must have rank 2")) };
    let values = data.to_f32();
    let id = if b_transposed {
        l.multiplied(node.inputs[1], shape, &values)
    } else {
        let values = weights::transposed(&values, rows as usize, columns as usize);
        l.multiplied(node.inputs[1], vec![columns, rows], &values)
    };
    Ok((id, true))
}
