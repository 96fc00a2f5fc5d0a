//! Which values are kept as blocked images, and how wide their halos are.

use crate::spec::{GPU_CHANNELS, Layout};
use aotfarm_ir::{Class, Def, Graph, Node, Op, ValueId, Window};

use super::chains::{Chain, ChainStep, Chains, Uses};
use super::image::{FEW_CHANNELS, image_size};

/// What an operand of a kernel must look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Need {
    /// A buffer of any layout, or none: the operand is evaluated where it is used.
    Any,
    /// A row-major buffer.
    Plain,
    /// A blocked image.
    Image,
    /// A constant.
    Constant,
}

/// How many channels of an image lie together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blocking {
    /// So many: vectors of a CPU.
    Lanes(i64),
    /// All, rounded up to [`GPU_CHANNELS`], and without halos: kernels of a GPU mask what lies outside.
    Whole,
}

impl Blocking {
    /// Channels of a block of an image with so many.
    pub(super) fn of(self, channels: i64) -> i64 {
        match self {
            Self::Lanes(lanes) => lanes,
            Self::Whole => (channels.max(1) + GPU_CHANNELS - 1) / GPU_CHANNELS * GPU_CHANNELS,
        }
    }
}

/// The layout of every value that gets a buffer.
#[derive(Debug)]
pub(super) struct Layouts {
    blocking: Blocking,
    /// By value, the number of channels in a block of an image; `None` for what is no image.
    image: Vec<Option<u32>>,
    halo: Vec<[u32; 4]>,
}

/// Whether the node's value can be computed anywhere, element by element.
pub(super) fn is_nestable(op: &Op) -> bool {
    matches!(op.class(), Class::Pointwise | Class::View | Class::Gather | Class::Source)
}

impl Layouts {
    /// Decides which values are images.
    pub(super) fn of(graph: &Graph, uses: &Uses, chains: &Chains, blocking: Blocking) -> Self {
        let mut layouts = Self { blocking, image: vec![None; graph.values.len()], halo: vec![[0; 4]; graph.values.len()] };
        // Convolutions and pools decide for themselves, everything computed by loops follows its consumers.
        for (n, node) in graph.nodes.iter().enumerate() {
            match node.op {
                Op::Conv { .. } => {
                    if let Some(chain) = chains.of[n].map(|c| &chains.all[c]) {
                        layouts.mark(graph, graph.nodes[chain.last].output, layouts.conv_has_images(graph, node));
                    }
                }
                Op::Pool { .. } if chains.of[n].is_none() => layouts.mark(graph, node.output, true),
                _ => {}
            }
        }
        for (n, node) in graph.nodes.iter().enumerate().rev() {
            if chains.of[n].is_none() && is_nestable(&node.op) {
                let wanted = image_size(graph, node.output).is_some() && layouts.is_wanted(graph, uses, chains, node.output);
                layouts.mark(graph, node.output, wanted);
            }
        }
        if let Blocking::Lanes(_) = blocking {
            layouts.assign_halos(graph, chains);
        }
        layouts
    }

    /// Makes a value an image, if it is `wanted` and can be one.
    fn mark(&mut self, graph: &Graph, id: ValueId, wanted: bool) {
        let size = image_size(graph, id).filter(|_| wanted);
        self.image[id.index()] = size.and_then(|[channels, ..]| u32::try_from(self.blocking.of(channels)).ok());
    }

    /// Whether the value is a blocked image.
    pub(super) fn is_image(&self, id: ValueId) -> bool {
        self.image[id.index()].is_some()
    }

    /// The layout of a value that has a buffer.
    pub(super) fn layout(&self, id: ValueId) -> Layout {
        let image = |block| Layout::Image { block, halo: self.halo[id.index()] };
        self.image[id.index()].map_or(Layout::Plain, image)
    }

    /// What the node needs its operand `slot` to be.
    pub(super) fn need(&self, graph: &Graph, chains: &Chains, n: usize, slot: usize) -> Need {
        let node = &graph.nodes[n];
        let constant = |id: ValueId| matches!(graph.value(id).def, Def::Weight(_));
        let rides = chains.of[n].is_some_and(|c| chains.all[c].anchor != n);
        let gate = chains.of[n].and_then(|c| chains.all[c].gate);
        match (&node.op, slot) {
            (Op::Pool { .. }, _) if rides => Need::Any,
            (Op::Conv { .. }, 0) if gate.is_some() => Need::Any,
            (Op::Conv { .. }, 0) => self.conv_input(graph, node),
            (Op::Binary(_), _) if gate.is_some_and(|gate| gate.node == n) => {
                if gate.is_some_and(|gate| gate.image == node.inputs[slot]) { Need::Image } else { Need::Plain }
            }
            (Op::Conv { .. }, _) | (Op::Linear, 2) | (Op::LayerNorm { .. }, 1..) => Need::Constant,
            (Op::Linear, 1) if constant(node.inputs[1]) => Need::Constant,
            (Op::MatMul, 1) if constant(node.inputs[1]) && graph.ty(node.inputs[1]).shape.len() == 2 => Need::Constant,
            (Op::Pool { .. }, _) if image_size(graph, node.inputs[0]).is_some() => Need::Image,
            // Looked through by the kernel: see `attention::Strided`.
            (Op::Attention { .. }, 3) if constant(node.inputs[3]) => Need::Constant,
            (Op::Attention { .. }, _) => Need::Plain,
            (Op::Pool { .. } | Op::Linear | Op::MatMul | Op::Softmax { .. } | Op::LayerNorm { .. }, _) => Need::Plain,
            _ => match chains.of[n].map(|c| &chains.all[c]) {
                Some(chain) if n != chain.anchor && is_residual(chain, node.inputs[slot]) => {
                    if self.is_image(graph.nodes[chain.last].output) { Need::Image } else { Need::Plain }
                }
                _ => Need::Any,
            },
        }
    }

    fn conv_has_images(&self, graph: &Graph, node: &Node) -> bool {
        let Op::Conv { groups, .. } = node.op else { return false };
        let (Some([c, ..]), Some([o, ..])) = (image_size(graph, node.inputs[0]), image_size(graph, node.output)) else {
            return false;
        };
        let depthwise = groups == c && groups == o;
        let whole = |channels: i64| match self.blocking {
            Blocking::Lanes(lanes) => channels % lanes == 0,
            Blocking::Whole => true,
        };
        groups == 1 || depthwise || (whole(c / groups) && whole(o / groups))
    }

    fn conv_input(&self, graph: &Graph, node: &Node) -> Need {
        let x = node.inputs[0];
        let few = image_size(graph, x).is_some_and(|[c, ..]| c <= FEW_CHANNELS) && !self.is_image(x);
        if self.conv_has_images(graph, node) && !few { Need::Image } else { Need::Plain }
    }

    fn is_wanted(&self, graph: &Graph, uses: &Uses, chains: &Chains, id: ValueId) -> bool {
        uses.edges[id.index()].iter().any(|&(n, slot)| {
            let node = &graph.nodes[n];
            match self.need(graph, chains, n, slot) {
                Need::Image => true,
                Need::Plain | Need::Constant => false,
                Need::Any => {
                    node.op.class() == Class::Pointwise
                        && graph.ty(node.output).shape == graph.ty(id).shape
                        && self.is_image(node.output)
                }
            }
        })
    }

    /// Every image gets the largest halo that one of its readers needs; a residual gets that of the result it is added to,
    /// and the other way round, so that both have one geometry.
    fn assign_halos(&mut self, graph: &Graph, chains: &Chains) {
        for node in &graph.nodes {
            let (window, dense) = match &node.op {
                Op::Conv { window, groups } if self.conv_input(graph, node) == Need::Image => (window, *groups == 1),
                Op::Pool { window, .. } => (window, false),
                _ => continue,
            };
            let (Some([_, h, w]), Some([_, oh, ow])) = (image_size(graph, node.inputs[0]), image_size(graph, node.output)) else {
                continue;
            };
            let [top, bottom] = reach(window, 0, h, oh, dense);
            let [left, right] = reach(window, 1, w, ow, dense);
            widen(&mut self.halo[node.inputs[0].index()], [top, bottom, left, right]);
        }
        loop {
            let before = self.halo.clone();
            for chain in &chains.all {
                let result = graph.nodes[chain.last].output.index();
                for step in &chain.steps {
                    if let ChainStep::Residual(_, residual) = step {
                        let mut halo = self.halo[result];
                        widen(&mut halo, self.halo[residual.index()]);
                        self.halo[result] = halo;
                        self.halo[residual.index()] = halo;
                    }
                }
            }
            if self.halo == before {
                break;
            }
        }
    }
}

fn is_residual(chain: &Chain, id: ValueId) -> bool {
    chain.steps.iter().any(|step| matches!(step, ChainStep::Residual(_, residual) if *residual == id))
}

fn widen(halo: &mut [u32; 4], other: [u32; 4]) {
    for (side, wanted) in halo.iter_mut().zip(other) {
        *side = (*side).max(wanted);
    }
}

/// Zeros that a reader needs before and after an axis of `size` that it turns into `out` positions.
///
/// Beyond what every tap of every output touches, 3x3 convolutions read whole tiles of four outputs (as Winograd kernels do):
/// six inputs at stride 1, nine at stride 2.
fn reach(window: &Window, axis: usize, size: i64, out: i64, dense: bool) -> [u32; 2] {
    let [before, _] = window.pad[axis];
    let (kernel, stride, dilation) = (window.kernel[axis], window.stride[axis], window.dilation[axis]);
    let mut read = (out - 1) * stride + (kernel - 1) * dilation + 1;
    if dense && window.kernel == [3, 3] && window.dilation == [1, 1] {
        let tiles = (out + 3).div_euclid(4);
        match window.stride {
            [1, 1] => read = read.max(tiles * 4 + 2),
            [2, 2] => read = read.max(tiles * 8 + 1),
            _ => {}
        }
    }
    let after = (read - before - size).max(0);
    [before, after].map(|n| u32::try_from(n).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halos_cover_all_taps_and_whole_winograd_tiles() {
        let window = |k: i64, s: i64, p: i64| Window { kernel: [k; 2], stride: [s; 2], pad: [[p; 2]; 2], dilation: [1; 2] };
        assert_eq!(reach(&window(3, 1, 1), 0, 56, 56, true), [1, 1]);
        assert_eq!(reach(&window(3, 1, 1), 0, 7, 7, true), [1, 2]);
        assert_eq!(reach(&window(3, 2, 1), 0, 56, 28, true), [1, 0]);
        assert_eq!(reach(&window(3, 2, 1), 0, 14, 7, true), [1, 2]);
        assert_eq!(reach(&window(3, 2, 1), 0, 14, 7, false), [1, 0]);
        assert_eq!(reach(&window(1, 2, 0), 0, 56, 28, true), [0, 0]);
        assert_eq!(reach(&window(5, 1, 2), 0, 14, 14, false), [2, 2]);
    }
}
