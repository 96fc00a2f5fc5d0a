//! Attention as one kernel: for which nodes there is one, and how it reads and writes heads where they lie.

use aotfarm_protocol::{DType, Precision, Target};

use crate::spec::View;
use aotfarm_ir::{Def, Expr, Graph, Node, Op, ValueId};

use super::affine::{Affine, Atom, Ranges, linear, unravel};
use super::chains::Chains;
use super::dims::Dims;
use super::layouts::Layouts;

/// The widest head whose sums fit the registers of the kernels.
const WIDEST: i64 = 256;

/// Whether the target has a kernel that is better than products and a softmax: tensor cores, and heads of whole eights.
pub(super) fn has_kernel(graph: &Graph, node: &Node, target: Target, precision: Precision) -> bool {
    let Target::Cuda { sm: 80.. } = target else { return false };
    let width =
        |id: ValueId| graph.ty(id).shape.last().and_then(Expr::as_const).is_some_and(|e| e % 8 == 0 && (8..=WIDEST).contains(&e));
    precision != Precision::Fp32
        && graph.ty(node.output).shape.len() == 4
        && node.inputs[..3].iter().all(|id| graph.ty(*id).dtype == DType::F32)
        && width(node.inputs[0])
        && width(node.inputs[2])
}

/// An operand as the kernel reads it.
pub(super) struct Strided {
    /// The value whose row-major buffer holds the elements.
    pub(super) base: ValueId,
    /// Where the element at loops 0 to 3 lies in it.
    place: Affine,
}

impl Strided {
    /// An operand of an attention node, looked through whatever only changes its indices: permutations, reshapes, slices, broadcasts.
    pub(super) fn of(graph: &Graph, chains: &Chains, layouts: &Layouts, node: &Node, slot: usize) -> Self {
        let sizes = sizes(graph, node, slot);
        let ranges = Ranges { loops: sizes.to_vec(), reduce: Vec::new(), dims: graph.dims.clone() };
        let loops: Vec<Affine> = (0..4).map(|k| Atom::Loop(k).into()).collect();
        let mut value = node.inputs[slot];
        let mut at = aligned(graph, value, &loops);
        let mut found = Self { base: value, place: linear(&graph.ty(value).shape, &at) };
        while let Def::Node(n) = graph.value(value).def
            && chains.of[n].is_none()
            && let Some(source) = graph.nodes[n].inputs.first().copied()
        {
            let shape = &graph.ty(source).shape;
            at = match &graph.nodes[n].op {
                Op::Permute { axes } => {
                    let mut turned = vec![Affine::from(0); axes.len()];
                    for (index, &axis) in at.into_iter().zip(axes) {
                        turned[axis] = index;
                    }
                    turned
                }
                Op::Reshape { shape: reshaped } => unravel(shape, &linear(reshaped, &at), &ranges),
                Op::Slice { axis, start, step, .. } => {
                    at[*axis] = at[*axis].times(&Expr::from(*step)).plus(&start.clone().into());
                    at
                }
                Op::Expand { .. } => aligned(graph, source, &at),
                _ => break,
            };
            value = source;
            let place = linear(shape, &at);
            let strided = place.terms().iter().all(|(atom, _)| matches!(atom, Atom::Loop(_)));
            // Columns are copied in whole chunks, but for those of a mask, which may be a constant too.
            let whole = slot == 3 || place.factor(&Atom::Loop(3)).as_const() == Some(1);
            let stored = slot == 3 || !matches!(graph.value(source).def, Def::Weight(_));
            if strided && whole && stored && !layouts.is_image(source) {
                found = Self { base: source, place };
            }
        }
        found
    }

    /// As the task has it.
    pub(super) fn view(&self, dims: &mut Dims) -> View {
        let strides = [0, 1, 2, 3].map(|k| dims.size(&self.place.factor(&Atom::Loop(k))));
        View { offset: dims.size(self.place.constant()), strides }
    }
}

/// What an operand's element is indexed by, after broadcasting.
fn sizes(graph: &Graph, node: &Node, slot: usize) -> [Expr; 4] {
    let last = |id: ValueId, back: usize| {
        let shape = &graph.ty(id).shape;
        shape[shape.len() - back].clone()
    };
    let [query, key, value] = [node.inputs[0], node.inputs[1], node.inputs[2]];
    let shape = &graph.ty(node.output).shape;
    let [rows, columns] = match slot {
        0 => [last(query, 2), last(query, 1)],
        1 => [last(key, 2), last(key, 1)],
        2 => [last(value, 2), last(value, 1)],
        _ => [last(query, 2), last(key, 2)],
    };
    [shape[0].clone(), shape[1].clone(), rows, columns]
}

/// The index of an operand that broadcasts to `at`, as numpy aligns them.
fn aligned(graph: &Graph, operand: ValueId, at: &[Affine]) -> Vec<Affine> {
    let shape = &graph.ty(operand).shape;
    let index = |(size, index): (&Expr, &Affine)| if size.as_const() == Some(1) { 0.into() } else { index.clone() };
    shape.iter().zip(&at[at.len() - shape.len()..]).map(index).collect()
}
