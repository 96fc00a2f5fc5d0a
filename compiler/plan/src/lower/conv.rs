//! Convolutions, with all that is fused into them.

use aotfarm_ir::{Node, Op};
use aotfarm_protocol::Target;

use super::lowering::{Call, Lowering};
use crate::chains::Chain;
use crate::dims::Dims;
use crate::error::PlanError;
use crate::layouts::Blocking;
use crate::plan::WeightId;
use crate::spec::{Branch, ConvSpec, KernelKind};
use crate::weights;

pub(super) fn conv(l: &mut Lowering<'_>, node: &Node, chain: &Chain) -> Result<(), PlanError> {
    l.require_f32(node)?;
    let Op::Conv { window, groups } = node.op else { return Err(l.error(node, "not a convolution")) };
    let weight = filter(l, node)?;
    if let Some(bias) = node.inputs.get(2) {
        l.constant(node, *bias, "bias")?;
    }
    let x = chain.gate.map_or(node.inputs[0], |gate| gate.image);
    let result = l.graph.nodes[chain.last].output;
    let shape = l.graph.ty(result).shape.clone();
    let mut call = Call {
        dims: Dims::default(),
        kind: KernelKind::Conv(ConvSpec {
            window,
            groups,
            epilogue: Vec::new(),
            pool: None,
            branch: None,
            gate: None,
            mean: false,
        }),
        inputs: vec![(x, l.graph.ty(x).shape.clone())],
        weights: vec![weight],
        outputs: vec![(result, shape.clone())],
    };
    let mut branch = None;
    if let Some(other) = chain.branch.map(|n| &l.graph.nodes[n])
        && let Op::Conv { window, .. } = other.op
    {
        call.weights.push(filter(l, other)?);
        call.inputs.push((other.inputs[0], l.graph.ty(other.inputs[0]).shape.clone()));
        branch = Some(Branch { input: 1, weight: 1, window });
    }
    let gate = chain.gate.map(|gate| {
        call.inputs.push((gate.factors, l.graph.ty(gate.factors).shape[..2].to_vec()));
        call.inputs.len() - 1
    });
    let mean = chain.mean.map(|node| l.graph.nodes[node].output);
    call.outputs.extend(mean.map(|id| (id, shape[..2].to_vec())));
    let (mean, epilogue) = (mean.is_some(), l.epilogue(chain, &shape, &mut call));
    call.kind = KernelKind::Conv(ConvSpec { window, groups, epilogue, pool: chain.pool, branch, gate, mean });
    l.emit(node, call);
    Ok(())
}

/// The weight of a convolution as the target's kernels read it.
fn filter(l: &mut Lowering<'_>, node: &Node) -> Result<WeightId, PlanError> {
    let Op::Conv { groups, .. } = node.op else { return Err(l.error(node, "not a convolution")) };
    let Target::Cuda { .. } = l.plan.target else { return l.constant(node, node.inputs[1], "weight") };
    let (data, shape) = l.constant_data(node, node.inputs[1], "weight")?;
    let [o, c, kh, kw] = shape[..] else { return Err(l.error(node, "its weight must have rank 4")) };
    let padded = l.layouts.is_image(node.inputs[0]) && groups == 1;
    let channels = if padded { Blocking::Whole.of(c) } else { c };
    let sizes = [o, c, kh, kw].map(|n| n as usize);
    let values = weights::channels_last(&data.to_f32(), sizes, channels as usize);
    Ok(l.multiplied(node.inputs[1], vec![o, kh, kw, channels], &values))
}
