//! Which values get a buffer and which are evaluated inside the loop nests that use them.

use aotfarm_ir::{BinaryOp, Def, Graph, Node, Op, UnaryOp, ValueId};

use super::attention::Strided;
use super::chains::{Chains, Uses};
use super::layouts::{Layouts, Need, is_nestable};

/// Most operations that one loop nest evaluates for an element.
const MAX_NEST: u32 = 64;
/// Most times that one value is evaluated within an element of a nest (the C compiler finds the common subexpressions).
const MAX_COPIES: u32 = 4;
/// Longest chain of inlined values: the nests are built by recursion.
const MAX_DEPTH: u32 = 128;
/// Most work (see [`work`]) that is done again for every element of a broadcast instead of once.
const MAX_REPEATED_WORK: u32 = 3;

/// How a value exists at run time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// The model's input.
    Input,
    /// A constant.
    Weight,
    /// Stored by a kernel.
    Buffer,
    /// The same row-major bytes as another value that is a [`Form::Buffer`] or [`Form::Input`].
    Alias(ValueId),
    /// Evaluated where it is used, or dead.
    Inline,
}

/// The loop nests that a value is evaluated in.
#[derive(Clone, Copy, PartialEq)]
enum Nests {
    None,
    One(usize),
    Several,
}

struct State {
    must_buffer: bool,
    nests: Nests,
    copies: u32,
    /// Inlined values between here and the nest's result.
    depth: u32,
    /// Work between here and a broadcast downstream.
    repeated: Option<u32>,
}

/// Decides the form of every value, consumers first.
pub(super) fn forms(graph: &Graph, uses: &Uses, chains: &Chains, layouts: &Layouts) -> Vec<Form> {
    let mut forms: Vec<Form> = graph
        .values
        .iter()
        .map(|value| match value.def {
            Def::Input(_) | Def::State(_) => Form::Input,
            Def::Weight(_) => Form::Weight,
            Def::Node(_) => Form::Inline,
        })
        .collect();
    let mut states: Vec<State> = uses
        .output
        .iter()
        .map(|&output| State { must_buffer: output, nests: Nests::None, copies: 0, depth: 0, repeated: None })
        .collect();
    let mut sizes = vec![0u32; graph.nodes.len()];
    for (n, node) in graph.nodes.iter().enumerate().rev() {
        let v = node.output;
        if let Some(chain) = chains.of[n].map(|c| &chains.all[c]) {
            if chain.stores(n) {
                forms[v.index()] = Form::Buffer;
            }
            let reduces = matches!(graph.nodes[chain.anchor].op, Op::Reduce { .. });
            for (slot, operand) in node.inputs.iter().enumerate() {
                if let Op::Attention { .. } = node.op {
                    let base = Strided::of(graph, chains, layouts, node, slot).base;
                    states[base.index()].must_buffer = true;
                } else if reduces && !chains_value(graph, chains, n, *operand) {
                    use_in_nest(&mut states[operand.index()], Nests::One(chain.last), 1, 1, None);
                } else if layouts.need(graph, chains, n, slot) != Need::Any {
                    states[operand.index()].must_buffer = true;
                }
            }
            continue;
        }
        if !is_nestable(&node.op) {
            forms[v.index()] = Form::Buffer;
            for operand in &node.inputs {
                states[operand.index()].must_buffer = true;
            }
            continue;
        }
        let state = &states[v.index()];
        if state.must_buffer
            && let Op::Reshape { .. } = node.op
            && shares_bytes(graph, chains, layouts, v, node.inputs[0])
        {
            forms[v.index()] = Form::Alias(node.inputs[0]);
            states[node.inputs[0].index()].must_buffer = true;
            continue;
        }
        let (nests, copies, depth, repeated) = if state.must_buffer || !can_inline(node, state, &sizes) {
            if matches!(state.nests, Nests::None) && !state.must_buffer {
                continue; // Dead.
            }
            forms[v.index()] = Form::Buffer;
            (Nests::One(n), 1, 0, None)
        } else {
            let repeated = state.repeated.map(|r| r + work(node));
            (state.nests, state.copies, state.depth, repeated)
        };
        if let Nests::One(root) = nests {
            sizes[root] = sizes[root].saturating_add(copies);
        }
        for (slot, operand) in node.inputs.iter().enumerate() {
            let repeated = if broadcasts(graph, node, slot) { Some(repeated.unwrap_or(0)) } else { repeated };
            use_in_nest(&mut states[operand.index()], nests, copies, depth + 1, repeated);
        }
    }
    resolve_aliases(graph, chains, layouts, &mut forms);
    forms
}

/// Whether an operand of a chain's node is the chain's own running value.
fn chains_value(graph: &Graph, chains: &Chains, n: usize, operand: ValueId) -> bool {
    match graph.value(operand).def {
        Def::Node(producer) => chains.of[producer] == chains.of[n],
        _ => false,
    }
}

fn use_in_nest(state: &mut State, nests: Nests, copies: u32, depth: u32, repeated: Option<u32>) {
    state.nests = match (state.nests, nests) {
        (Nests::None, new) => new,
        (old, new) if old == new => old,
        _ => Nests::Several,
    };
    state.copies = state.copies.saturating_add(copies);
    state.depth = state.depth.max(depth);
    state.repeated = state.repeated.max(repeated);
}

/// A row-major reshape of a row-major buffer needs no kernel.
fn shares_bytes(graph: &Graph, chains: &Chains, layouts: &Layouts, v: ValueId, source: ValueId) -> bool {
    let inner = matches!(graph.value(source).def, Def::Node(n) if chains.is_inner(n));
    !layouts.is_image(v) && !layouts.is_image(source) && !inner && !matches!(graph.value(source).def, Def::Weight(_))
}

fn can_inline(node: &Node, state: &State, sizes: &[u32]) -> bool {
    let cheap_view = matches!(
        node.op,
        Op::Reshape { .. } | Op::Permute { .. } | Op::Expand { .. } | Op::Slice { .. } | Op::Iota { .. } | Op::Full { .. }
    );
    if state.depth > MAX_DEPTH {
        return false;
    }
    match state.nests {
        Nests::None => false,
        Nests::Several => cheap_view,
        Nests::One(root) => {
            let size = sizes[root].saturating_add(state.copies);
            let repeats_too_much = state.repeated.is_some_and(|r| work(node) > 0 && r + work(node) > MAX_REPEATED_WORK);
            cheap_view || (size <= MAX_NEST && state.copies <= MAX_COPIES && !repeats_too_much)
        }
    }
}

/// Whether one element of the operand is read for several elements of the result.
fn broadcasts(graph: &Graph, node: &Node, slot: usize) -> bool {
    match node.op {
        Op::Binary(_) | Op::Where | Op::Expand { .. } => {
            graph.ty(node.inputs[slot]).elements() != graph.ty(node.output).elements()
        }
        Op::Take { .. } | Op::GatherElements { .. } => true,
        _ => false,
    }
}

/// Rough cost of an operation: 1 for what a vector unit does in one instruction.
fn work(node: &Node) -> u32 {
    match node.op {
        Op::Unary(op) => match op {
            UnaryOp::Abs
            | UnaryOp::Neg
            | UnaryOp::Relu
            | UnaryOp::Not
            | UnaryOp::Floor
            | UnaryOp::Ceil
            | UnaryOp::Round
            | UnaryOp::Clamp { .. } => 1,
            _ => 8,
        },
        Op::Binary(op) if op.divides() || op == BinaryOp::Pow => 4,
        Op::Binary(_) | Op::Where => 1,
        Op::Take { .. } | Op::GatherElements { .. } => 1,
        _ => 0,
    }
}

/// Points every alias at the value whose bytes it shares, and makes aliases of inlined reshapes of row-major buffers, because
/// their indices are simpler that way.
fn resolve_aliases(graph: &Graph, chains: &Chains, layouts: &Layouts, forms: &mut [Form]) {
    for (n, node) in graph.nodes.iter().enumerate() {
        let v = node.output.index();
        let source = match (forms[v], &node.op) {
            (Form::Alias(source), _) => source,
            (Form::Inline, Op::Reshape { .. })
                if chains.of[n].is_none() && shares_bytes(graph, chains, layouts, node.output, node.inputs[0]) =>
            {
                node.inputs[0]
            }
            _ => continue,
        };
        forms[v] = match forms[source.index()] {
            Form::Alias(root) => Form::Alias(root),
            Form::Buffer | Form::Input => Form::Alias(source),
            Form::Inline | Form::Weight => Form::Inline,
        };
    }
}
