//! Graph → Plan: one step for every value that gets a buffer.

use std::collections::HashMap;

use aotfarm_ir::{Expr, Graph, Node, Op, ValueId};
use aotfarm_protocol::{Dim, DimRange, Port, Precision, Target};

use self::lowering::Lowering;
use crate::arena;
use crate::chains::{Chains, Fusions, Uses};
use crate::ends::flatten;
use crate::error::PlanError;
use crate::forms::{Form, forms};
use crate::layouts::{Blocking, Layouts, is_nestable};
use crate::passes::{decompose_attention, spell_out};
use crate::plan::{Plan, PlanState};
use crate::prepare::{Prepared, prepare};
use crate::weights::Weights;

mod attention;
mod conv;
mod label;
mod loops;
mod lowering;
mod pool;
mod product;
mod rows;

/// Fuses, lays out and plans the memory of a graph that went through [`crate::passes::run`]. CPU kernels know only [`Precision::Fp32`].
/// Attention without a kernel of its own becomes products and a softmax.
pub fn lower(graph: Graph, target: Target, precision: Precision) -> Result<Plan, PlanError> {
    let blocking = match target {
        // A vector of f32, and on narrow vectors two of them.
        Target::Cpu(_) => Blocking::Lanes(target.f32_lanes().max(8) as i64),
        Target::Cuda { .. } => Blocking::Whole,
    };
    if blocking != Blocking::Whole && precision != Precision::Fp32 {
        return Err(PlanError::Precision { target, precision });
    }
    let empty = graph.dims.iter().find(|dim| dim.min < 1 && matches!(target, Target::Cuda { .. }));
    if let Some(dim) = empty {
        return Err(PlanError::Empty { target, dim: dim.sym.to_string(), max: dim.max });
    }
    let on_cpu = blocking != Blocking::Whole;
    let graph = decompose_attention(graph, |graph, node| crate::attention::has_kernel(graph, node, target, precision))?;
    // On a GPU an image has constant sizes but for the batch.
    let graph = spell_out(graph, |graph, node| !on_cpu && slides_over_varying_image(graph, node))?;
    let mut inputs: Vec<Port> = graph.inputs.iter().map(|id| port(&graph, *id)).collect();
    let named = |(id, name): (&ValueId, &String)| Port { name: name.clone(), ..port(&graph, *id) };
    let outputs = graph.outputs.iter().zip(&graph.output_names).map(named).collect();
    let (states, writes) = (graph.states.clone(), graph.writes.iter().map(|write| write.input).collect::<Vec<_>>());
    for input in &writes {
        inputs[*input].written = true;
    }
    let signature = graph.signature.clone();
    let (graph, ends) = flatten(graph);
    // In exact f32 only the naive kernel would sum them.
    let fusions = Fusions { branches: precision != Precision::Fp32, gates: on_cpu, means: on_cpu };
    let Prepared { graph, transposed } = prepare(graph, blocking, fusions);
    let uses = Uses::of(&graph);
    let chains = Chains::of(&graph, &uses, fusions);
    let layouts = Layouts::of(&graph, &uses, &chains, blocking);
    let forms = forms(&graph, &uses, &chains, &layouts);
    let mut lowering = Lowering {
        graph: &graph,
        chains: &chains,
        layouts: &layouts,
        forms: &forms,
        transposed: &transposed,
        plan: Plan {
            target,
            precision,
            dims: graph.dims.iter().map(|d| DimRange { name: d.sym.to_string(), min: d.min, max: d.max }).collect(),
            hints: graph.dims.iter().map(|d| d.hint).collect(),
            inputs,
            outputs,
            states: Vec::new(),
            writes,
            signature,
            specs: Vec::new(),
            buffers: Vec::new(),
            slots: Vec::new(),
            weights: Vec::new(),
            steps: Vec::new(),
            segments: Vec::new(),
        },
        buffers: HashMap::new(),
        weights: Weights::default(),
        specs: HashMap::new(),
    };
    lowering.place_ends(&ends);
    // All that no kernel computes is told at once.
    let mut failures: Vec<PlanError> = (0..graph.nodes.len()).filter_map(|n| step(&mut lowering, n).err()).collect();
    match failures.len() {
        0 => {}
        1 => return Err(failures.remove(0)),
        _ => return Err(PlanError::Several(failures)),
    }
    for state in &states {
        let port = port(&graph, state.value);
        let initial = lowering.initial(state);
        lowering.plan.states.push(PlanState { port, initial });
    }
    let mut plan = lowering.plan;
    arena::assign(&mut plan, &graph.dims);
    crate::verify::verify(&plan, &graph.dims)?;
    Ok(plan)
}

/// Whether it is a convolution or pooling of an image whose height or width is symbolic.
fn slides_over_varying_image(graph: &Graph, node: &Node) -> bool {
    let is_window = matches!(node.op, Op::Conv { .. } | Op::Pool { .. });
    is_window && graph.ty(node.inputs[0]).shape.iter().skip(2).any(|size| size.as_const().is_none())
}

fn port(graph: &Graph, id: ValueId) -> Port {
    let value = graph.value(id);
    let dim = |size: &Expr| size.as_const().map_or_else(|| Dim::Expr(size.to_string()), Dim::Size);
    Port { name: value.name.clone(), dtype: value.ty.dtype, dims: value.ty.shape.iter().map(dim).collect(), written: false }
}

/// Emits the step that ends at a node, if one does.
fn step(l: &mut Lowering<'_>, n: usize) -> Result<(), PlanError> {
    let node = &l.graph.nodes[n];
    if l.forms[node.output.index()] != Form::Buffer {
        return Ok(());
    }
    if let Some(chain) = l.chains.storing(n) {
        if chain.last != n {
            return Ok(()); // Its step stores this too.
        }
        let anchor = &l.graph.nodes[chain.anchor];
        return match &anchor.op {
            Op::Conv { .. } => conv::conv(l, anchor, chain),
            Op::Linear | Op::MatMul => product::product(l, anchor, chain),
            Op::Attention { scale, causal } => attention::attention(l, anchor, chain, *scale, *causal),
            _ => loops::loops(l, node, Some(chain)),
        };
    }
    match &node.op {
        Op::Pool { .. } => pool::pool(l, node),
        Op::Softmax { .. } | Op::LayerNorm { .. } => rows::rows(l, node),
        op if is_nestable(op) => loops::loops(l, node, None),
        Op::AdaptiveAvgPool { .. } if l.graph.ty(node.inputs[0]).shape[2..].iter().any(|size| size.as_const().is_none()) => {
            Err(l.error(node, "its windows change with the size of the image; export the model with a fixed height and width"))
        }
        _ => {
            let why = "no kernel computes it and no pass replaced it: run passes::run before; what is new needs a pass in \
                       plan/src/passes or a file in plan/src/lower";
            Err(l.error(node, why))
        }
    }
}
