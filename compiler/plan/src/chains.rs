//! Which element-wise nodes ride on which computation: the epilogues of convolutions and products, and what follows a reduction.

use aotfarm_protocol::DType;

use crate::spec::PoolSpec;
use aotfarm_ir::{BinaryOp, Def, Expr, Graph, Node, Op, PoolOp, ReduceOp, TensorData, UnaryOp, ValueId, Window};

use super::image::{FEW_CHANNELS, image_size};

/// One fused step.
#[derive(Debug, Clone)]
pub(super) enum ChainStep {
    /// Add a vector along the channels (convolution) or the last axis (product).
    Bias {
        /// For messages.
        name: String,
        /// f32 values.
        data: TensorData,
    },
    /// `op(value, residual)`.
    Residual(BinaryOp, ValueId),
    /// A function.
    Unary(UnaryOp),
}

/// A heavy node with the element-wise nodes that follow it.
#[derive(Debug, Clone)]
pub(super) struct Chain {
    /// The heavy node.
    pub(super) anchor: usize,
    /// The last node: its output is what is stored.
    pub(super) last: usize,
    /// Epilogue of a convolution or product; empty for a reduction, whose followers are evaluated as part of its loop nest, and for
    /// attention, which at most a permutation follows.
    pub(super) steps: Vec<ChainStep>,
    /// A pooling of what the epilogue gives.
    pub(super) pool: Option<PoolSpec>,
    /// A second convolution (its node) that is added before the epilogue.
    pub(super) branch: Option<usize>,
    /// What multiplies the convolution's input.
    pub(super) gate: Option<Gate>,
    /// The node that takes the mean of each channel of each image of what is stored; it is stored too.
    pub(super) mean: Option<usize>,
}

/// A product of an image and a factor for each channel of each image that a convolution makes as it reads the image.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gate {
    /// The product's node.
    pub(super) node: usize,
    /// The image.
    pub(super) image: ValueId,
    /// The factors, `[N, C, 1, 1]`.
    pub(super) factors: ValueId,
}

/// What a target's convolutions take in besides their epilogue.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fusions {
    /// [`Chain::branch`]: the kernels on tensor cores know it.
    pub(super) branches: bool,
    /// [`Chain::gate`]: the kernels of CPUs know it.
    pub(super) gates: bool,
    /// [`Chain::mean`]: the kernels of CPUs know it.
    pub(super) means: bool,
}

impl Chain {
    /// That begins and ends at a node.
    fn new(anchor: usize) -> Self {
        Self { anchor, last: anchor, steps: Vec::new(), pool: None, branch: None, gate: None, mean: None }
    }

    /// Whether the value of one of its nodes is stored.
    pub(super) fn stores(&self, node: usize) -> bool {
        node == self.last || self.mean == Some(node)
    }

    /// Makes one of the biases at the beginning.
    fn merge_biases(&mut self) {
        while let [ChainStep::Bias { name, data: a }, ChainStep::Bias { data: b, .. }, ..] = self.steps.as_slice() {
            let sum: Vec<f32> = a.to_f32().iter().zip(b.to_f32()).map(|(a, b)| a + b).collect();
            let merged = ChainStep::Bias { name: name.clone(), data: TensorData::from_f32(&sum) };
            self.steps.splice(..2, [merged]);
        }
    }
}

/// The edges that use each value.
#[derive(Debug)]
pub(super) struct Uses {
    /// `(node, operand)` of each use.
    pub(super) edges: Vec<Vec<(usize, usize)>>,
    /// Whether the value is an output of the model.
    pub(super) output: Vec<bool>,
}

/// Every chain, and the chain that each node belongs to.
#[derive(Debug)]
pub(super) struct Chains {
    /// In the order of their anchors.
    pub(super) all: Vec<Chain>,
    /// By node.
    pub(super) of: Vec<Option<usize>>,
}

impl Uses {
    /// Finds all uses.
    pub(super) fn of(graph: &Graph) -> Self {
        let mut edges = vec![Vec::new(); graph.values.len()];
        for (n, node) in graph.nodes.iter().enumerate() {
            for (slot, input) in node.inputs.iter().enumerate() {
                edges[input.index()].push((n, slot));
            }
        }
        let mut output = vec![false; graph.values.len()];
        for id in &graph.outputs {
            output[id.index()] = true;
        }
        Self { edges, output }
    }

    /// The single use of a value that is not an output.
    fn single(&self, id: ValueId) -> Option<(usize, usize)> {
        match self.edges[id.index()].as_slice() {
            [edge] if !self.output[id.index()] => Some(*edge),
            _ => None,
        }
    }
}

impl Chains {
    /// Assigns every element-wise node that can ride on an earlier computation, first come, first served. The pooling after a model's
    /// first convolution rides too: that convolution's output is the largest of all.
    pub(super) fn of(graph: &Graph, uses: &Uses, fusions: Fusions) -> Self {
        let mut chains = Self { all: Vec::new(), of: vec![None; graph.nodes.len()] };
        for (n, node) in graph.nodes.iter().enumerate() {
            if chains.of[n].is_some() {
                continue;
            }
            let chain = match node.op {
                Op::Conv { .. } => {
                    let mut chain = chains.epilogue(graph, uses, n, 1);
                    chains.pool(graph, uses, &mut chain);
                    if fusions.means {
                        chains.mean(graph, uses, &mut chain);
                    }
                    chain
                }
                Op::Linear | Op::MatMul => chains.epilogue(graph, uses, n, graph.ty(node.output).shape.len() - 1),
                Op::Attention { .. } => chains.heads(graph, uses, n),
                Op::Reduce { .. } => chains.followers(graph, uses, n),
                _ => continue,
            };
            chains.of[n] = Some(chains.all.len());
            chains.all.push(chain);
        }
        if fusions.branches {
            chains.join_branches(graph, uses);
        }
        if fusions.gates {
            chains.join_gates(graph, uses);
        }
        chains
    }

    /// A 1x1 convolution multiplies its input by the gate of a squeeze-and-excitation block: it has fewer weights than the image has elements, so
    /// to scale those for each image costs next to nothing, and the product never goes through memory.
    fn join_gates(&mut self, graph: &Graph, uses: &Uses) {
        for c in 0..self.all.len() {
            let anchor = &graph.nodes[self.all[c].anchor];
            let Op::Conv { window, groups: 1 } = anchor.op else { continue };
            let Some([channels, ..]) = image_size(graph, anchor.inputs[0]) else { continue };
            let Def::Node(node) = graph.value(anchor.inputs[0]).def else { continue };
            let product = &graph.nodes[node];
            let free = self.of[node].is_none() && uses.single(product.output).is_some();
            let narrow = window.kernel == [1, 1] && window.pad == [[0; 2]; 2] && channels > FEW_CHANNELS;
            if !narrow || !free || product.op != Op::Binary(BinaryOp::Mul) {
                continue;
            }
            let shape = &graph.ty(product.output).shape;
            let is_gate = |id: ValueId| {
                let ty = graph.ty(id);
                let one = |size: &Expr| size.as_const() == Some(1);
                let computed = matches!(graph.value(id).def, Def::Node(_));
                computed
                    && ty.dtype == DType::F32
                    && ty.shape.len() == 4
                    && ty.shape[..2] == shape[..2]
                    && ty.shape[2..].iter().all(one)
            };
            let operands = [(0, 1), (1, 0)].map(|(image, factors)| (product.inputs[image], product.inputs[factors]));
            let gated = operands
                .into_iter()
                .find(|(image, factors)| image != factors && is_gate(*factors) && graph.ty(*image) == graph.ty(product.output));
            if let Some((image, factors)) = gated {
                self.all[c].gate = Some(Gate { node, image, factors });
                self.of[node] = Some(c);
            }
        }
    }

    /// A convolution that is added to another one and used nowhere else becomes its branch: both are sums over taps and channels, so one
    /// kernel makes them, and the one's result never goes through memory.
    fn join_branches(&mut self, graph: &Graph, uses: &Uses) {
        for c in 0..self.all.len() {
            let chain = &self.all[c];
            let dense = |node: usize| match graph.nodes[node].op {
                // Few channels have a kernel of their own, which knows no branches.
                Op::Conv { groups: 1, .. } => {
                    image_size(graph, graph.nodes[node].inputs[0]).is_some_and(|[channels, ..]| channels > FEW_CHANNELS)
                }
                _ => false,
            };
            let residual = |step: &ChainStep| matches!(step, ChainStep::Residual(..));
            let added = chain.steps.iter().enumerate().find_map(|(at, step)| match step {
                // Nothing but biases before it, which commute with the sum.
                ChainStep::Residual(BinaryOp::Add, id) if !chain.steps[..at].iter().any(|s| !is_bias(s)) => Some((at, *id)),
                _ => None,
            });
            let (Some((at, id)), true) = (added, dense(chain.anchor)) else { continue };
            let one = chain.pool.is_none() && chain.branch.is_none() && chain.steps.iter().filter(|s| residual(s)).count() == 1;
            let Def::Node(producer) = graph.value(id).def else { continue };
            let Some(other) = self.of[producer].filter(|o| *o != c && self.all[*o].last == producer) else { continue };
            let branch = &self.all[other];
            let simple = branch.steps.iter().all(is_bias) && branch.pool.is_none() && branch.branch.is_none();
            let window = |node: usize| match graph.nodes[node].op {
                Op::Conv { window, .. } => window.kernel,
                _ => [0, 0],
            };
            // The larger of two is the main one.
            let smaller = window(branch.anchor) <= window(chain.anchor);
            if one && simple && smaller && dense(branch.anchor) && uses.single(id).is_some() {
                let (anchor, biases) = (branch.anchor, branch.steps.clone());
                let chain = &mut self.all[c];
                chain.branch = Some(anchor);
                chain.steps.splice(at..=at, biases);
                chain.merge_biases();
                for owner in self.of.iter_mut().filter(|owner| **owner == Some(other)) {
                    *owner = Some(c);
                }
            }
        }
    }

    /// The chain that stores the value of a node.
    pub(super) fn storing(&self, node: usize) -> Option<&Chain> {
        self.of[node].map(|c| &self.all[c]).filter(|chain| chain.stores(node))
    }

    /// Whether the value of a node is stored nowhere, because the chain goes on.
    pub(super) fn is_inner(&self, node: usize) -> bool {
        self.of[node].is_some_and(|c| !self.all[c].stores(node))
    }

    fn claim(&mut self, node: usize) {
        self.of[node] = Some(self.all.len());
    }

    fn epilogue(&mut self, graph: &Graph, uses: &Uses, anchor: usize, axis: usize) -> Chain {
        let node = &graph.nodes[anchor];
        let shape = &graph.ty(node.output).shape;
        let mut chain = Chain::new(anchor);
        if let Some(bias) = node.inputs.get(2)
            && let Some(data) = channel_vector(graph, *bias, shape, axis, true)
        {
            chain.steps.push(ChainStep::Bias { name: graph.value(*bias).name.clone(), data });
        }
        let mut value = node.output;
        while let Some((next, slot)) = uses.single(value) {
            if self.of[next].is_some() {
                break;
            }
            let Some(step) = epilogue_step(graph, &graph.nodes[next], slot, axis, node) else { break };
            chain.steps.push(step);
            self.claim(next);
            chain.last = next;
            value = graph.nodes[next].output;
        }
        chain
    }

    /// The first convolution of a model takes the common max pool with it.
    fn pool(&mut self, graph: &Graph, uses: &Uses, chain: &mut Chain) {
        let anchor = &graph.nodes[chain.anchor];
        let dense = matches!(anchor.op, Op::Conv { groups: 1, .. });
        let reads_input = matches!(graph.value(anchor.inputs[0]).def, Def::Input(_))
            && image_size(graph, anchor.inputs[0]).is_some_and(|[channels, ..]| channels <= FEW_CHANNELS);
        let residual = chain.steps.iter().any(|step| matches!(step, ChainStep::Residual(..)));
        let Some((next, _)) = uses.single(graph.nodes[chain.last].output) else { return };
        // Every window has something real in it, as in all but degenerate models.
        let real = |window: &Window| {
            let (read, made) = (image_size(graph, graph.nodes[chain.last].output), image_size(graph, graph.nodes[next].output));
            let axis = |axis: usize, read: i64, made: i64| {
                let before = window.pad[axis][0];
                before < window.kernel[axis] && (made - 1) * window.stride[axis] - before < read
            };
            matches!((read, made), (Some([_, h, w]), Some([_, oh, ow])) if axis(0, h, oh) && axis(1, w, ow))
        };
        if let Op::Pool { op: PoolOp::Max, window } = graph.nodes[next].op
            && (window.kernel, window.stride, window.dilation) == ([3, 3], [2, 2], [1, 1])
            && real(&window)
            && dense
            && reads_input
            && !residual
            && self.of[next].is_none()
        {
            chain.pool = Some(PoolSpec { op: PoolOp::Max, window });
            chain.last = next;
            self.claim(next);
        }
    }

    /// A depthwise convolution sums each channel as it stores it, when a squeeze-and-excitation block needs the mean: to read the image once more
    /// would take a good part of the time that it takes to make it.
    fn mean(&mut self, graph: &Graph, uses: &Uses, chain: &mut Chain) {
        let (anchor, stored) = (&graph.nodes[chain.anchor], graph.nodes[chain.last].output);
        let (Op::Conv { groups, .. }, Some([channels, ..])) = (&anchor.op, image_size(graph, stored)) else { return };
        let read = image_size(graph, anchor.inputs[0]).map(|[channels, ..]| channels);
        let depthwise = *groups == channels && read == Some(channels) && channels > FEW_CHANNELS;
        let takes_mean = |node: &Node| match &node.op {
            Op::Reduce { op: ReduceOp::Mean, axes, .. } => axes.len() == 2 && axes.contains(&2) && axes.contains(&3),
            _ => false,
        };
        let mean = uses.edges[stored.index()].iter().map(|(node, _)| *node).find(|node| takes_mean(&graph.nodes[*node]));
        if let Some(node) = mean
            && depthwise
            && chain.pool.is_none()
        {
            chain.mean = Some(node);
            self.claim(node);
        }
    }

    /// Attention stores its heads side by side, if that is all that they are read for.
    fn heads(&mut self, graph: &Graph, uses: &Uses, anchor: usize) -> Chain {
        let mut chain = Chain::new(anchor);
        if let Some((next, _)) = uses.single(graph.nodes[anchor].output)
            && matches!(&graph.nodes[next].op, Op::Permute { axes } if axes == &[0, 2, 1, 3])
        {
            self.claim(next);
            chain.last = next;
        }
        chain
    }

    /// A reduction takes with it single-use element-wise nodes that keep its type.
    fn followers(&mut self, graph: &Graph, uses: &Uses, anchor: usize) -> Chain {
        let mut chain = Chain::new(anchor);
        let mut value = graph.nodes[anchor].output;
        while let Some((next, _)) = uses.single(value) {
            let node = &graph.nodes[next];
            let rides = matches!(node.op, Op::Unary(_) | Op::Binary(_) | Op::Where)
                && graph.ty(node.output) == graph.ty(value)
                && self.of[next].is_none();
            if !rides {
                break;
            }
            self.claim(next);
            chain.last = next;
            value = node.output;
        }
        chain
    }
}

fn is_bias(step: &ChainStep) -> bool {
    matches!(step, ChainStep::Bias { .. })
}

fn epilogue_step(graph: &Graph, node: &Node, slot: usize, axis: usize, anchor: &Node) -> Option<ChainStep> {
    let ty = graph.ty(node.output);
    if ty.dtype != DType::F32 || ty.shape != graph.ty(anchor.output).shape {
        return None;
    }
    match node.op {
        Op::Unary(op) => Some(ChainStep::Unary(op)),
        Op::Binary(op) => {
            let other = node.inputs[1 - slot];
            if let Some(data) = channel_vector(graph, other, &ty.shape, axis, false) {
                let name = graph.value(other).name.clone();
                return match (op, slot) {
                    (BinaryOp::Add, _) => Some(ChainStep::Bias { name, data }),
                    (BinaryOp::Sub, 0) => {
                        let negated: Vec<f32> = data.to_f32().iter().map(|x| -x).collect();
                        Some(ChainStep::Bias { name, data: TensorData::from_f32(&negated) })
                    }
                    _ => None,
                };
            }
            let commutes = matches!(op, BinaryOp::Add | BinaryOp::Mul | BinaryOp::Max | BinaryOp::Min);
            let whole = graph.ty(other).shape == ty.shape && has_own_elements(graph, other, matches!(anchor.op, Op::Conv { .. }));
            (whole && (slot == 0 || commutes)).then_some(ChainStep::Residual(op, other))
        }
        _ => None,
    }
}

/// Whether it pays to read a value as a residual: not a broadcast, and for images nothing that only exists row-major.
fn has_own_elements(graph: &Graph, id: ValueId, image: bool) -> bool {
    match &graph.value(id).def {
        Def::Weight(_) => false,
        Def::Input(_) | Def::State(_) => !image,
        Def::Node(n) => match graph.nodes[*n].op {
            Op::Expand { .. } | Op::Full { .. } | Op::Iota { .. } => false,
            Op::Linear | Op::MatMul | Op::Softmax { .. } | Op::LayerNorm { .. } => !image,
            _ => true,
        },
    }
}

/// The f32 vector that a constant adds along `axis` of `shape`, when it varies along no other. `own` is for an operator's own
/// bias, which has rank 1 whatever the axis.
fn channel_vector(graph: &Graph, id: ValueId, shape: &[Expr], axis: usize, own: bool) -> Option<TensorData> {
    let value = graph.value(id);
    let count = shape[axis].as_const()?;
    if value.ty.dtype != DType::F32 {
        return None;
    }
    match &value.def {
        Def::Weight(data) => {
            let from_end = if own { 0 } else { shape.len() - 1 - axis };
            let rank = value.ty.shape.len();
            if rank > shape.len() {
                return None;
            }
            let mut along = 1;
            for (k, size) in value.ty.shape.iter().enumerate() {
                match size.as_const()? {
                    1 => {}
                    n if rank - 1 - k == from_end && n == count => along = n,
                    _ => return None,
                }
            }
            if along == count {
                return Some(data.clone());
            }
            let scalar = *data.to_f32().first()?;
            Some(TensorData::from_f32(&vec![scalar; usize::try_from(count).ok()?]))
        }
        Def::Node(n) => match &graph.nodes[*n].op {
            Op::Full { value: scalar, .. } if value.ty.shape.iter().all(|size| size.as_const() == Some(1)) => {
                Some(TensorData::from_f32(&vec![scalar.to_f64() as f32; usize::try_from(count).ok()?]))
            }
            _ => None,
        },
        Def::Input(_) | Def::State(_) => None,
    }
}
