//! Makes explicit, as nodes of the graph, every copy and broadcast that the kernels need, so that lowering only has to map nodes.

use std::collections::{HashMap, HashSet};

use aotfarm_ir::{Def, Expr, Graph, Node, Op, TensorType, Value, ValueId};

use super::chains::{Chains, Fusions, Uses};
use super::layouts::{Blocking, Layouts, Need};

/// A graph ready for lowering.
pub(super) struct Prepared {
    /// Not valid IR any more: the second operand of the products in `transposed` is `[…, N, K]`.
    pub(super) graph: Graph,
    /// Results of products whose second operand is transposed.
    pub(super) transposed: HashSet<ValueId>,
}

/// Inserts what the kernels need.
pub(super) fn prepare(graph: Graph, blocking: Blocking, fusions: Fusions) -> Prepared {
    let (graph, transposed) = products(graph);
    let uses = Uses::of(&graph);
    let chains = Chains::of(&graph, &uses, fusions);
    let layouts = Layouts::of(&graph, &uses, &chains, blocking);
    Prepared { graph: copies(&graph, &chains, &layouts), transposed }
}

/// Appends nodes in topological order while values keep their ids.
struct Inserter {
    values: Vec<Value>,
    nodes: Vec<Node>,
}

impl Inserter {
    fn insert(&mut self, op: Op, input: ValueId, ty: TensorType, suffix: &str, source: &str) -> ValueId {
        // Ids count values, of which there are far fewer than 2^32.
        let output = ValueId(self.values.len() as u32);
        let name = format!("{}.{suffix}{}", self.values[input.index()].name, output.0);
        self.values.push(Value { name, ty, def: Def::Node(self.nodes.len()) });
        self.nodes.push(Node { op, inputs: vec![input], output, source: source.to_owned() });
        output
    }

    fn keep(&mut self, node: Node) {
        self.values[node.output.index()].def = Def::Node(self.nodes.len());
        self.nodes.push(node);
    }
}

/// Broadcasts the leading dimensions of products of activations, and turns a transposition of the second operand into a flag, or
/// into a copy that keeps rows contiguous.
fn products(mut graph: Graph) -> (Graph, HashSet<ValueId>) {
    let nodes = std::mem::take(&mut graph.nodes);
    let mut into = Inserter { values: std::mem::take(&mut graph.values), nodes: Vec::with_capacity(nodes.len()) };
    let mut transposed = HashSet::new();
    for mut node in nodes {
        if node.op == Op::MatMul {
            let shape = into.values[node.output.index()].ty.shape.clone();
            let lead = &shape[..shape.len() - 2];
            let rank = |into: &Inserter, id: ValueId| into.values[id.index()].ty.shape.len();
            let folds = rank(&into, node.inputs[1]) == 2;
            for slot in 0..2 {
                let operand = node.inputs[slot];
                let ty = into.values[operand.index()].ty.clone();
                let own = &ty.shape[..ty.shape.len() - 2];
                // With a matrix on the right, all rows of the left operand are one product.
                if own != lead && !folds {
                    let full: Vec<Expr> = lead.iter().chain(&ty.shape[ty.shape.len() - 2..]).cloned().collect();
                    let ty = TensorType { dtype: ty.dtype, shape: full.clone() };
                    node.inputs[slot] = into.insert(Op::Expand { shape: full }, operand, ty, "expand", &node.source);
                }
            }
            let b = node.inputs[1];
            if let Def::Node(p) = into.values[b.index()].def
                && let Op::Permute { axes } = &into.nodes[p].op
                && let [.., row, column] = axes.as_slice()
                && *row == axes.len() - 1
            {
                let (source, mut axes) = (into.nodes[p].inputs[0], axes.clone());
                let (last, column) = (axes.len() - 1, *column);
                axes[last - 1] = column;
                axes[last] = last;
                let mut ty = into.values[b.index()].ty.clone();
                ty.shape.swap(last - 1, last);
                let identity = axes.iter().enumerate().all(|(i, axis)| i == *axis);
                node.inputs[1] =
                    if identity { source } else { into.insert(Op::Permute { axes }, source, ty, "rows", &node.source) };
                transposed.insert(node.output);
            }
        }
        into.keep(node);
    }
    (Graph { values: into.values, nodes: into.nodes, ..graph }, transposed)
}

/// Copies what does not lie as its reader needs it, and results that cannot be written to the caller's buffer directly.
fn copies(graph: &Graph, chains: &Chains, layouts: &Layouts) -> Graph {
    let mut into = Inserter { values: graph.values.clone(), nodes: Vec::with_capacity(graph.nodes.len()) };
    let mut made: HashMap<(ValueId, Need), ValueId> = HashMap::new();
    for (n, node) in graph.nodes.iter().enumerate() {
        let mut node = node.clone();
        for slot in 0..node.inputs.len() {
            let operand = node.inputs[slot];
            let need = layouts.need(graph, chains, n, slot);
            let constant = matches!(graph.value(operand).def, Def::Weight(_));
            let misfit = match need {
                Need::Any | Need::Constant => false,
                Need::Plain => constant || layouts.is_image(operand),
                Need::Image => constant || !layouts.is_image(operand),
            };
            if misfit {
                node.inputs[slot] =
                    *made.entry((operand, need)).or_insert_with(|| copy(&mut into, graph, operand, "copy", &node.source));
            }
        }
        into.keep(node);
    }
    let mut written = HashSet::new();
    let mut outputs = graph.outputs.clone();
    for output in &mut outputs {
        let root = bytes_of(graph, layouts, *output);
        let computed = matches!(graph.value(root).def, Def::Node(_));
        if !computed || layouts.is_image(*output) || !written.insert(root) {
            *output = copy(&mut into, graph, *output, "out", "output");
        }
    }
    Graph {
        values: into.values,
        nodes: into.nodes,
        outputs,
        output_names: graph.output_names.clone(),
        name: graph.name.clone(),
        dims: graph.dims.clone(),
        inputs: graph.inputs.clone(),
        states: graph.states.clone(),
        writes: graph.writes.clone(),
        signature: graph.signature.clone(),
    }
}

fn copy(into: &mut Inserter, graph: &Graph, id: ValueId, suffix: &str, source: &str) -> ValueId {
    let ty = graph.ty(id).clone();
    into.insert(Op::Cast(ty.dtype), id, ty, suffix, source)
}

/// The value whose row-major bytes an output shares.
fn bytes_of(graph: &Graph, layouts: &Layouts, mut id: ValueId) -> ValueId {
    while let Def::Node(n) = graph.value(id).def
        && let Op::Reshape { .. } = graph.nodes[n].op
        && !layouts.is_image(graph.nodes[n].inputs[0])
    {
        id = graph.nodes[n].inputs[0];
    }
    id
}
