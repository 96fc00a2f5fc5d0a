//! Loop nests: everything that has no kernel kind of its own.

use aotfarm_ir::{Node, ValueId};

use super::lowering::{Call, Lowering};
use crate::chains::Chain;
use crate::dims::Dims;
use crate::error::PlanError;
use crate::nest::{Nest, NestScope, Operands};
use crate::spec::{KernelKind, Scalar};

pub(super) fn loops(l: &mut Lowering<'_>, node: &Node, chain: Option<&Chain>) -> Result<(), PlanError> {
    let scope = NestScope { graph: l.graph, layouts: l.layouts, forms: l.forms };
    let nest = Nest::build(scope, node.output, chain).map_err(|why| l.error(node, why))?;
    let shape_of = |id: ValueId| (id, l.graph.ty(id).shape.clone());
    // Operands are collected once without sizes, so that the kernel's dims come in the order of its operands' shapes.
    let mut operands = Operands::default();
    nest.finish(&mut Dims::default(), &mut operands);
    let mut dims = Dims::default();
    let output = shape_of(node.output);
    let inputs: Vec<_> = operands.inputs.iter().map(|id| shape_of(*id)).collect();
    for size in output.1.iter().chain(inputs.iter().flat_map(|(_, shape)| shape)) {
        dims.size(size);
    }
    let mut weights = Vec::new();
    for id in &operands.weights {
        weights.push(l.constant(node, *id, "operand")?);
    }
    operands.narrow = operands.inputs.iter().copied().filter(|id| l.stored(*id) != l.graph.ty(*id).dtype).collect();
    let mut nest = nest.finish(&mut dims, &mut operands);
    let stored = l.stored(node.output);
    if stored != l.graph.ty(node.output).dtype {
        nest.value = Scalar::Cast(stored, Box::new(nest.value));
    }
    let kind = KernelKind::Loops(nest);
    l.emit(node, Call { dims, kind, inputs, weights, outputs: vec![output] });
    Ok(())
}
