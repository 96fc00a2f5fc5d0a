//! Builds a [`LoopNest`] from the graph: the value it stores, with everything inlined that has no buffer of its own.

use aotfarm_protocol::DType;

use crate::spec::{Index, Layout, LoopNest, Reduction, Scalar, Size};
use aotfarm_ir::{Def, Expr, Graph, Node, Number, Op, ReduceOp, ValueId};

use super::affine::{Affine, Atom, Ranges, Term, linear, unravel};
use super::chains::Chain;
use super::dims::Dims;
use super::forms::Form;
use super::layouts::Layouts;

/// Most times that loops are split to get rid of divisions.
const MAX_SPLITS: usize = 8;

/// What the nest builder reads.
#[derive(Clone, Copy)]
pub(super) struct NestScope<'a> {
    pub(super) graph: &'a Graph,
    pub(super) layouts: &'a Layouts,
    pub(super) forms: &'a [Form],
}

/// A loop nest with operands named by values and symbolic sizes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Nest {
    extents: Vec<Expr>,
    reduction: Option<(ReduceOp, Vec<Expr>, Term)>,
    value: Term,
    store: Affine,
}

/// The operands of one kernel in the order of their first use.
#[derive(Debug, Default)]
pub(super) struct Operands {
    pub(super) inputs: Vec<ValueId>,
    pub(super) weights: Vec<ValueId>,
    /// f32 inputs that are stored in a narrower type.
    pub(super) narrow: Vec<ValueId>,
}

fn position(list: &mut Vec<ValueId>, id: ValueId) -> usize {
    list.iter().position(|known| *known == id).unwrap_or_else(|| {
        list.push(id);
        list.len() - 1
    })
}

/// Loops of the nest under construction: which axis each belongs to, and what it counts.
struct Loops {
    /// Per axis, the factors of its extent, outermost first.
    factors: Vec<Vec<Expr>>,
    /// `(axis, factor)` of every loop whose extent is not 1, in the order of the loops.
    order: Vec<(usize, usize)>,
}

impl Loops {
    fn new(shape: &[Expr], image_block: Option<i64>) -> Self {
        let mut factors: Vec<Vec<Expr>> = shape.iter().map(|size| vec![size.clone()]).collect();
        if let (Some(block), [_, channels, ..]) = (image_block, factors.as_mut_slice()) {
            let blocks = (&channels[0] + (block - 1)).floor_div(&Expr::from(block));
            *channels = vec![blocks, Expr::from(block)];
        }
        let mut loops = Self { factors, order: Vec::new() };
        loops.number(image_block.is_some());
        loops
    }

    /// Loops follow the order in which the elements lie: the channels of an image vary fastest.
    fn number(&mut self, image: bool) {
        let mut order: Vec<(usize, usize)> =
            self.factors.iter().enumerate().flat_map(|(axis, factors)| (0..factors.len()).map(move |f| (axis, f))).collect();
        if image && let Some(lane) = order.iter().position(|&at| at == (1, self.factors[1].len() - 1)) {
            let lane = order.remove(lane);
            order.push(lane);
        }
        order.retain(|&(axis, f)| self.factors[axis][f].as_const() != Some(1));
        self.order = order;
    }

    fn extents(&self) -> Vec<Expr> {
        self.order.iter().map(|&(axis, f)| self.factors[axis][f].clone()).collect()
    }

    /// The index along each axis.
    fn at(&self, atom: fn(usize) -> Atom) -> Vec<Affine> {
        (0..self.factors.len())
            .map(|axis| {
                let mut index = Affine::from(0);
                for (f, size) in self.factors[axis].iter().enumerate() {
                    index = index.times(size);
                    if let Some(k) = self.order.iter().position(|&at| at == (axis, f)) {
                        index = index.plus(&atom(k).into());
                    }
                }
                index
            })
            .collect()
    }

    /// Splits loop k into an outer one and an inner one of extent `inner`.
    fn split(&mut self, k: usize, inner: &Expr, image: bool) -> bool {
        let (axis, f) = self.order[k];
        let Some(outer) = self.factors[axis][f].div_exact(inner) else { return false };
        if image && axis == 1 {
            return false;
        }
        self.factors[axis].splice(f..=f, [outer, inner.clone()]);
        self.number(image);
        true
    }
}

struct Builder<'a> {
    context: NestScope<'a>,
    root: ValueId,
    ranges: Ranges,
    /// The reduction of this nest and the index at which its result is needed.
    reduce: Option<&'a Node>,
    reduced_at: Option<Vec<Affine>>,
}

impl Nest {
    /// The nest that stores `value`; `chain` is the reduction that ends in it, if one does.
    pub(super) fn build(context: NestScope<'_>, value: ValueId, chain: Option<&Chain>) -> Result<Self, String> {
        let graph = context.graph;
        let reduce = chain.map(|chain| &graph.nodes[chain.anchor]).filter(|node| matches!(node.op, Op::Reduce { .. }));
        let layout = context.layouts.layout(value);
        let image = matches!(layout, Layout::Image { .. });
        // A row-major reshape stores the same elements in the same order: loop over the source's shape instead.
        let mut source = value;
        while let (false, Def::Node(n)) = (image, &graph.value(source).def) {
            match &graph.nodes[*n] {
                Node { op: Op::Reshape { .. }, inputs, .. } => source = inputs[0],
                _ => break,
            }
            if context.forms[source.index()] != Form::Inline {
                break;
            }
        }
        let shape = &graph.ty(source).shape;
        let block = if let Layout::Image { block, .. } = layout { Some(i64::from(block)) } else { None };
        let mut loops = Loops::new(shape, block);
        let reduce_shape: Vec<Expr> = reduce.map_or_else(Vec::new, |node| match &node.op {
            Op::Reduce { axes, .. } => axes.iter().map(|&axis| graph.ty(node.inputs[0]).shape[axis].clone()).collect(),
            _ => Vec::new(),
        });
        let mut reduce_loops = Loops::new(&reduce_shape, None);
        for round in 0.. {
            let nest = Self::attempt(context, value, source, reduce, &loops, &reduce_loops)?;
            let split = if round < MAX_SPLITS { nest.wanted_split() } else { None };
            let done = match split {
                Some((Atom::Loop(k), by)) => !loops.split(k, &by, image),
                Some((Atom::Reduce(k), by)) => !reduce_loops.split(k, &by, false),
                _ => true,
            };
            if done {
                return Ok(nest.collapse());
            }
        }
        unreachable!("the loop above returns at the latest in round {MAX_SPLITS}")
    }

    fn attempt(
        context: NestScope<'_>,
        value: ValueId,
        source: ValueId,
        reduce: Option<&Node>,
        loops: &Loops,
        reduce_loops: &Loops,
    ) -> Result<Self, String> {
        let graph = context.graph;
        let at = loops.at(Atom::Loop);
        let ranges = Ranges { loops: loops.extents(), reduce: reduce_loops.extents(), dims: graph.dims.clone() };
        let mut builder = Builder { context, root: value, ranges, reduce, reduced_at: None };
        let mut element = if source == value { builder.inner(value, &at)? } else { builder.term(source, &at)? };
        let store = match context.layouts.layout(value) {
            Layout::Plain => linear(&graph.ty(source).shape, &at),
            Layout::Image { .. } => {
                // Lanes past the last channel get the zeros that every image has there.
                let zero = Term::Const(Number::ZERO, graph.ty(value).dtype);
                let channels = graph.ty(value).shape[1].clone();
                element = Term::guarded(at[1].clone(), 0, channels, &builder.ranges, element, zero);
                builder.place(value, &at)
            }
        };
        let reduction = match (reduce, builder.reduced_at.take()) {
            (Some(node), Some(at)) => {
                let Op::Reduce { op, axes, keepdim } = &node.op else { return Err("not a reduction".into()) };
                let mut inner = reduce_loops.at(Atom::Reduce).into_iter();
                let mut kept = at.into_iter();
                let rank = graph.ty(node.inputs[0]).shape.len();
                let mut operand_at = Vec::with_capacity(rank);
                for axis in 0..rank {
                    let reduced = axes.contains(&axis);
                    let outside = if !reduced || *keepdim { kept.next() } else { None };
                    let index = if reduced { inner.next() } else { outside };
                    operand_at.push(index.unwrap_or_else(|| 0.into()));
                }
                let term = builder.term(node.inputs[0], &operand_at)?;
                Some((*op, builder.ranges.reduce.clone(), term))
            }
            _ => None,
        };
        Ok(Self { extents: builder.ranges.loops, reduction, value: element, store })
    }

    fn visit(&self, f: &mut dyn FnMut(&Affine)) {
        self.store.visit(f);
        self.value.visit(f);
        if let Some((_, _, element)) = &self.reduction {
            element.visit(f);
        }
    }

    /// A loop that is divided by a factor of its extent: two loops in its place need no division.
    fn wanted_split(&self) -> Option<(Atom, Expr)> {
        let reduce_extents = self.reduction.as_ref().map_or(&[][..], |(_, extents, _)| extents);
        let mut found = None;
        self.visit(&mut |index| {
            for (atom, _) in index.terms() {
                let (Atom::Div(inner, by) | Atom::Mod(inner, by)) = atom else { continue };
                let Some(variable) = inner.as_atom() else { continue };
                let extent = match variable {
                    Atom::Loop(k) => &self.extents[*k],
                    Atom::Reduce(k) => &reduce_extents[*k],
                    _ => continue,
                };
                if by.as_const().is_some() && extent != by && extent.div_exact(by).is_some() {
                    found.get_or_insert_with(|| (variable.clone(), by.clone()));
                }
            }
        });
        found
    }

    /// Merges neighbouring loops that walk every operand as one loop would.
    fn collapse(mut self) -> Self {
        let mut k = 0;
        while k + 1 < self.extents.len() {
            let inner = self.extents[k + 1].clone();
            if self.walks_as_one(&Atom::Loop(k), &Atom::Loop(k + 1), &inner) {
                let merged = &self.extents[k] * &inner;
                self.extents.splice(k..k + 2, [merged]);
                self.rename(&|atom| match atom {
                    Atom::Loop(j) if *j == k => None,
                    Atom::Loop(j) if *j > k => Some(Atom::Loop(j - 1)),
                    _ => Some(atom.clone()),
                });
            } else {
                k += 1;
            }
        }
        let mut k = 0;
        while let Some((_, extents, _)) = &self.reduction
            && k + 1 < extents.len()
        {
            let inner = extents[k + 1].clone();
            if self.walks_as_one(&Atom::Reduce(k), &Atom::Reduce(k + 1), &inner) {
                if let Some((_, extents, _)) = &mut self.reduction {
                    let merged = &extents[k] * &inner;
                    extents.splice(k..k + 2, [merged]);
                }
                self.rename(&|atom| match atom {
                    Atom::Reduce(j) if *j == k => None,
                    Atom::Reduce(j) if *j > k => Some(Atom::Reduce(j - 1)),
                    _ => Some(atom.clone()),
                });
            } else {
                k += 1;
            }
        }
        self
    }

    fn walks_as_one(&self, outer: &Atom, inner: &Atom, extent: &Expr) -> bool {
        let mut fits = true;
        self.visit(&mut |index| fits &= index.factor(outer) == index.factor(inner) * extent);
        fits
    }

    fn rename(&mut self, f: &dyn Fn(&Atom) -> Option<Atom>) {
        self.store = self.store.rename(f);
        self.value = self.value.rename(f);
        if let Some((_, _, element)) = &mut self.reduction {
            *element = element.rename(f);
        }
    }

    /// The task's form of the nest; collects sizes and operands.
    pub(super) fn finish(&self, dims: &mut Dims, operands: &mut Operands) -> LoopNest {
        let mut extents: Vec<Size> = self.extents.iter().map(|e| dims.size(e)).collect();
        if extents.is_empty() {
            extents.push(Size::Const(1));
        }
        let reduction = self.reduction.as_ref().map(|(op, extents, element)| Reduction {
            op: *op,
            extents: if extents.is_empty() { vec![Size::Const(1)] } else { extents.iter().map(|e| dims.size(e)).collect() },
            element: scalar(element, dims, operands),
        });
        LoopNest { extents, reduction, value: scalar(&self.value, dims, operands), store: index(&self.store, dims, operands) }
    }
}

impl Builder<'_> {
    /// The element of `value` at an index.
    fn term(&mut self, value: ValueId, at: &[Affine]) -> Result<Term, String> {
        match self.context.forms[value.index()] {
            Form::Input | Form::Buffer => Ok(Term::Load(value, self.place(value, at))),
            Form::Alias(root) => Ok(Term::Load(root, linear(&self.context.graph.ty(value).shape, at))),
            Form::Weight => Ok(weight_term(self.context.graph, value, at)),
            Form::Inline => self.inner(value, at),
        }
    }

    /// Where an element of a buffer lies.
    fn place(&self, value: ValueId, at: &[Affine]) -> Affine {
        let shape = &self.context.graph.ty(value).shape;
        let Layout::Image { block, halo: [top, bottom, left, right] } = self.context.layouts.layout(value) else {
            return linear(shape, at);
        };
        let block = Expr::from(i64::from(block));
        let blocks = (&shape[1] + (&block - 1)).floor_div(&block);
        let padded = [
            shape[0].clone(),
            blocks,
            &shape[2] + i64::from(top) + i64::from(bottom),
            &shape[3] + i64::from(left) + i64::from(right),
            block.clone(),
        ];
        let place = [
            at[0].clone(),
            at[1].div(&block, &self.ranges),
            at[2].clone().plus(&i64::from(top).into()),
            at[3].clone().plus(&i64::from(left).into()),
            at[1].modulo(&block, &self.ranges),
        ];
        linear(&padded, &place)
    }

    /// The element that the node behind `value` computes.
    fn inner(&mut self, value: ValueId, at: &[Affine]) -> Result<Term, String> {
        let graph = self.context.graph;
        let Def::Node(n) = graph.value(value).def else {
            return self.term(value, at);
        };
        let node = &graph.nodes[n];
        let dtype = graph.ty(value).dtype;
        let x = node.inputs.first().copied();
        let shape_of = |id: ValueId| graph.ty(id).shape.as_slice();
        let missing = || format!("`{}` lacks an operand", node.op.name());
        match &node.op {
            Op::Unary(op) => Ok(Term::Unary(*op, Box::new(self.broadcast(x.ok_or_else(missing)?, at)?))),
            Op::Binary(op) => {
                let (a, b) = (self.broadcast(node.inputs[0], at)?, self.broadcast(node.inputs[1], at)?);
                Ok(Term::Binary(*op, Box::new(a), Box::new(b)))
            }
            Op::Where => {
                let [condition, then, otherwise] = [0, 1, 2].map(|k| self.broadcast(node.inputs[k], at));
                Ok(Term::Select(Box::new(condition?), Box::new(then?), Box::new(otherwise?)))
            }
            Op::Cast(to) => {
                let x = x.ok_or_else(missing)?;
                let inner = self.term(x, at)?;
                Ok(if graph.ty(x).dtype == *to { inner } else { Term::Cast(*to, Box::new(inner)) })
            }
            Op::Expand { .. } => self.broadcast(x.ok_or_else(missing)?, at),
            Op::Reshape { shape } => {
                let x = x.ok_or_else(missing)?;
                let source = unravel(shape_of(x), &linear(shape, at), &self.ranges);
                self.term(x, &source)
            }
            Op::Permute { axes } => {
                let mut source = vec![Affine::from(0); axes.len()];
                for (index, &axis) in at.iter().zip(axes) {
                    source[axis] = index.clone();
                }
                self.term(x.ok_or_else(missing)?, &source)
            }
            Op::Slice { axis, start, step, .. } => {
                let mut source = at.to_vec();
                source[*axis] = source[*axis].times(&Expr::from(*step)).plus(&start.clone().into());
                self.term(x.ok_or_else(missing)?, &source)
            }
            Op::Concat { axis } => {
                // The last part first, each earlier one guarding what has been built so far.
                let mut end = shape_of(value)[*axis].clone();
                let mut whole: Option<Term> = None;
                for part in node.inputs.iter().rev() {
                    let size = shape_of(*part)[*axis].clone();
                    let start = &end - &size;
                    let mut source = at.to_vec();
                    source[*axis] = source[*axis].clone().plus(&(-&start).into());
                    let element = self.term(*part, &source)?;
                    whole = Some(match whole {
                        None => element,
                        Some(rest) => Term::guarded(source[*axis].clone(), 0, size, &self.ranges, element, rest),
                    });
                    end = start;
                }
                whole.ok_or_else(missing)
            }
            Op::Pad { pads, value } => {
                let x = x.ok_or_else(missing)?;
                let mut source = at.to_vec();
                for (index, [before, _]) in source.iter_mut().zip(pads) {
                    *index = index.clone().plus(&(-before).into());
                }
                let mut element = self.term(x, &source)?;
                for (index, size) in source.into_iter().zip(shape_of(x)) {
                    let padding = Term::Const(*value, dtype);
                    element = Term::guarded(index, 0, size.clone(), &self.ranges, element, padding);
                }
                Ok(element)
            }
            Op::Take { axis } => {
                let (data, indices) = (node.inputs[0], node.inputs[1]);
                let rank = shape_of(indices).len();
                let picked = self.term(indices, &at[*axis..axis + rank])?;
                let mut source = at.to_vec();
                source.splice(axis..&(axis + rank), [self.wrapped(picked, &shape_of(data)[*axis])]);
                self.term(data, &source)
            }
            Op::GatherElements { axis } => {
                let (data, indices) = (node.inputs[0], node.inputs[1]);
                let picked = self.term(indices, at)?;
                let mut source = at.to_vec();
                source[*axis] = self.wrapped(picked, &shape_of(data)[*axis]);
                self.term(data, &source)
            }
            Op::Iota { start, step, .. } => Ok(Term::Index(at[0].times(&Expr::from(*step)).plus(&(*start).into()), dtype)),
            Op::Full { value, .. } => Ok(Term::Const(*value, dtype)),
            Op::Reduce { .. } => {
                let is_ours = self.reduce.is_some_and(|reduce| reduce.output == value);
                match &self.reduced_at {
                    _ if !is_ours => Err("two reductions in one loop nest".into()),
                    Some(before) if before != at => Err("a reduction that is read at two places".into()),
                    _ => {
                        self.reduced_at = Some(at.to_vec());
                        Ok(Term::Reduced)
                    }
                }
            }
            op => Err(format!("`{}` cannot be part of a loop nest", op.name())),
        }
    }

    /// The element of an operand that broadcasts to the index `at`, as numpy aligns them.
    fn broadcast(&mut self, operand: ValueId, at: &[Affine]) -> Result<Term, String> {
        let shape = &self.context.graph.ty(operand).shape;
        let aligned = &at[at.len() - shape.len()..];
        let source: Vec<Affine> = shape
            .iter()
            .zip(aligned)
            .map(|(size, index)| if size.as_const() == Some(1) { 0.into() } else { index.clone() })
            .collect();
        debug_assert_ne!(operand, self.root, "a nest reads its own result");
        self.term(operand, &source)
    }

    /// A gathered index. Negative ones count from the end; the remainder also keeps a wrong index from data inside the buffer.
    fn wrapped(&self, picked: Term, size: &Expr) -> Affine {
        let index = picked.as_affine().unwrap_or_else(|| Atom::Value(Box::new(picked)).into());
        index.modulo(size, &self.ranges)
    }
}

fn weight_term(graph: &Graph, value: ValueId, at: &[Affine]) -> Term {
    let weight = graph.value(value);
    if let Def::Weight(data) = &weight.def
        && weight.ty.elements().as_const() == Some(1)
        && let Some(scalar) = Number::read(weight.ty.dtype, data.bytes())
    {
        return Term::Const(scalar, weight.ty.dtype);
    }
    Term::Weight(value, linear(&weight.ty.shape, at))
}

fn index(affine: &Affine, dims: &mut Dims, operands: &mut Operands) -> Index {
    // Loops in their order, outermost first, then what is computed from them, then the constant: one form for equal sums.
    let mut terms: Vec<&(Atom, Expr)> = affine.terms().iter().collect();
    terms.sort_by_key(|(atom, _)| match atom {
        Atom::Loop(k) => (0, *k),
        Atom::Reduce(k) => (1, *k),
        _ => (2, 0),
    });
    let mut sum: Option<Index> = None;
    let mut add = |index: Index| {
        sum = Some(match sum.take() {
            None => index,
            Some(before) => Index::Add(Box::new(before), Box::new(index)),
        });
    };
    for (atom, factor) in terms {
        let variable = match atom {
            Atom::Loop(k) => Index::Loop(*k),
            Atom::Reduce(k) => Index::ReduceLoop(*k),
            Atom::Div(inner, by) => Index::Div(Box::new(index(inner, dims, operands)), Box::new(dims.index(by))),
            Atom::Mod(inner, by) => Index::Mod(Box::new(index(inner, dims, operands)), Box::new(dims.index(by))),
            Atom::Value(term) => Index::Value(Box::new(scalar(term, dims, operands))),
        };
        add(match factor.as_const() {
            Some(1) => variable,
            _ => Index::Mul(Box::new(variable), Box::new(dims.index(factor))),
        });
    }
    if affine.constant().as_const() != Some(0) {
        add(dims.index(affine.constant()));
    }
    sum.unwrap_or(Index::Const(0))
}

fn scalar(term: &Term, dims: &mut Dims, operands: &mut Operands) -> Scalar {
    let mut inner = |x: &Term| Box::new(scalar(x, dims, operands));
    match term {
        Term::Load(value, at) => {
            let operand = position(&mut operands.inputs, *value);
            let element = Scalar::Input(operand, index(at, dims, operands));
            if operands.narrow.contains(value) { Scalar::Cast(DType::F32, Box::new(element)) } else { element }
        }
        Term::Weight(value, at) => {
            let operand = position(&mut operands.weights, *value);
            Scalar::Weight(operand, index(at, dims, operands))
        }
        Term::Const(value, dtype) => Scalar::Const(*value, *dtype),
        Term::Index(at, dtype) => Scalar::Index(index(at, dims, operands), *dtype),
        Term::Reduced => Scalar::Reduced,
        Term::Unary(op, x) => Scalar::Unary(*op, inner(x)),
        Term::Cast(dtype, x) => Scalar::Cast(*dtype, inner(x)),
        Term::Binary(op, a, b) => Scalar::Binary(*op, inner(a), inner(b)),
        Term::Select(c, a, b) => Scalar::Select(inner(c), inner(a), inner(b)),
        Term::InRange(at, low, high) => Scalar::InRange(index(at, dims, operands), *low, dims.size(high)),
    }
}
