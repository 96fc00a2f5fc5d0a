//! Lets models in f16 and bf16 compute in f32, in which the kernels for products, pools and normalisations compute.
//!
//! What the model stores between its nodes becomes f32, too, so that a model that is narrow throughout is an f32 model with casts
//! at its ends. Only what it says itself is rounded: constants, inputs, outputs, and casts to a narrow type. That is closer to what
//! it means than its own arithmetic, and what the reference interpreter does.

use std::collections::HashMap;

use aotfarm_ir::{BuildError, Class, Graph, Node, Op, ValueId};
use aotfarm_protocol::DType;

use super::rewrite::{Rewriter, rewrite};

pub(super) fn run(graph: &Graph) -> Result<Graph, BuildError> {
    let is_narrow = |id: &ValueId| narrow(graph.ty(*id).dtype);
    // Loop nests load, compute and store narrow types as they are.
    let heavy = |node: &Node| matches!(node.op.class(), Class::Product | Class::Pooling | Class::Normalisation);
    if !graph.nodes.iter().any(|node| heavy(node) && is_narrow(&node.output)) {
        return Ok(graph.clone());
    }
    let mut wide = HashMap::new();
    rewrite(graph, |r, node, inputs| {
        if !node.inputs.iter().chain([&node.output]).any(is_narrow) {
            return Ok(None);
        }
        let inputs = inputs.iter().map(|id| widened(r, *id, &mut wide)).collect::<Result<Vec<_>, _>>()?;
        // The cast that ends the model takes the name of its output.
        let ends = graph.outputs.contains(&node.output) && is_narrow(&node.output);
        let name = if ends { format!("{}.f32", r.name_of(node)) } else { r.name_of(node) };
        let result = match node.op {
            Op::Cast(dtype) | Op::Full { dtype, .. } | Op::Iota { dtype, .. } if narrow(dtype) => {
                let rounded = r.push(&format!("{name}.{dtype}"), node.op.clone(), &inputs, &node.source)?;
                r.push(&name, Op::Cast(DType::F32), &[rounded], &node.source)?
            }
            _ => r.push(&name, node.op.clone(), &inputs, &node.source)?,
        };
        Ok(Some(result))
    })
}

const fn narrow(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::Bf16)
}

/// The value in f32; `wide` holds those that were cast already.
fn widened(r: &mut Rewriter<'_>, id: ValueId, wide: &mut HashMap<ValueId, ValueId>) -> Result<ValueId, BuildError> {
    if !narrow(r.ty(id).dtype) {
        return Ok(id);
    }
    if let Some(known) = wide.get(&id) {
        return Ok(*known);
    }
    let name = format!("{}.f32", r.graph().value(id).name);
    let cast = r.push(&name, Op::Cast(DType::F32), &[id], &name)?;
    wide.insert(id, cast);
    Ok(cast)
}
