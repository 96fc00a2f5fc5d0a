//! Depth first: which steps can be done for a few images at a time, and plans that do so.
//!
//! What a layer writes for a whole batch often does not fit the caches, and the next layer reads it from memory. Where a run of steps is done for a few images, from
//! its first step to its last, before it begins with the next ones, it does fit. An image is a unit of the plan's first symbolic dimension.

use std::ops::Range;

use aotfarm_protocol::{Segment, Target};

use crate::spec::{Index, KernelKind, LoopNest, MatMulSpec, Scalar, Size, TensorSpec};
use aotfarm_ir::{Expr, Sym};

use super::{VerifyError, arena, verify};
use crate::plan::{BufferId, Place, Plan, Step};

impl Plan {
    /// Whether each step computes every image from that image alone, wherever in a batch it lies. Only such steps can be in a [`Segment`].
    pub fn image_wise(&self) -> Vec<bool> {
        let Some(batch) = self.batch() else { return vec![false; self.steps.len()] };
        self.steps.iter().map(|step| Images::of(self, &batch, step).is_some_and(|images| images.are_apart())).collect()
    }

    /// The plan that does these segments for a few images at a time. Buffers get other slots: what lies between two segments keeps its own while either is done.
    ///
    /// # Errors
    /// When segments overlap, are not in order, hold a step that is not [image-wise](Self::image_wise), or could make parts that are smaller than the
    /// smallest batch.
    pub fn in_segments(mut self, segments: Vec<Segment>) -> Result<Self, VerifyError> {
        self.segments = segments;
        for buffer in &mut self.buffers {
            if let Place::Slot(slot) = &mut buffer.place {
                *slot = usize::MAX;
            }
        }
        let dims = self.graph_dims();
        arena::assign(&mut self, &dims);
        verify::verify(&self, &dims)?;
        Ok(self)
    }

    /// All steps in order: each segment with its images, and the runs between that are done for the whole batch.
    pub fn runs(&self) -> Vec<(Range<usize>, Option<i64>)> {
        let mut runs = Vec::new();
        let mut done = 0;
        for Segment { steps, images } in &self.segments {
            runs.extend([(done..steps.start, None), (steps.clone(), Some(*images))]);
            done = steps.end;
        }
        runs.push((done..self.steps.len(), None));
        runs.retain(|(steps, _)| !steps.is_empty());
        runs
    }

    /// Bytes from one image to the next in each buffer that a segment meets in parts but that holds the whole batch: a tensor of the caller's, or what
    /// lies between a segment and other steps.
    pub fn parted(&self) -> Vec<Option<Expr>> {
        let mut parted = vec![None; self.buffers.len()];
        let Some(batch) = self.batch() else { return parted };
        let lifetimes = arena::lifetimes(self);
        for Segment { steps: segment, .. } in &self.segments {
            for BufferId(b) in self.steps[segment.clone()].iter().flat_map(|step| step.inputs.iter().chain(&step.outputs)) {
                let (b, buffer) = (*b as usize, &self.buffers[*b as usize]);
                let within = lifetimes[b].is_some_and(|(first, last)| segment.contains(&first) && segment.contains(&last));
                if !(within && matches!(buffer.place, Place::Slot(_))) {
                    let bytes = per_image(&batch, &(&buffer.len * buffer.dtype.size() as i64));
                    parted[b] = bytes.filter(|bytes| *bytes != Expr::zero());
                }
            }
        }
        parted
    }

    /// The symbol of the first dimension. Kernels for GPUs are launched for whole batches.
    fn batch(&self) -> Option<Sym> {
        self.dims.first().filter(|_| matches!(self.target, Target::Cpu(_))).map(|dim| Sym::new(&dim.name))
    }
}

/// The factor of the batch in a multiple of it, or zero if it does not depend on the batch.
fn per_image(batch: &Sym, size: &Expr) -> Option<Expr> {
    if !size.symbols().contains(batch) {
        return Some(Expr::zero());
    }
    size.div_exact(&Expr::sym(batch.as_str())).filter(|factor| !factor.symbols().contains(batch))
}

/// What each image has of a step's sizes and operands. Zero is what does not depend on the batch.
struct Images<'a> {
    kind: &'a KernelKind,
    inputs: &'a [TensorSpec],
    outputs: &'a [TensorSpec],
    /// Of each dim.
    dims: Vec<i64>,
    /// Elements of each input and output.
    read: Vec<i64>,
    written: Vec<i64>,
}

impl<'a> Images<'a> {
    /// `None` when a size is not a multiple of the batch.
    fn of(plan: &'a Plan, batch: &Sym, step: &Step) -> Option<Self> {
        let spec = &plan.specs[step.spec];
        let elements = |id: &BufferId| per_image(batch, &plan.buffers[id.0 as usize].len)?.as_const();
        Some(Self {
            kind: &spec.kind,
            inputs: &spec.inputs,
            outputs: &spec.outputs,
            dims: step.dims.iter().map(|dim| per_image(batch, dim)?.as_const()).collect::<Option<_>>()?,
            read: step.inputs.iter().map(elements).collect::<Option<_>>()?,
            written: step.outputs.iter().map(elements).collect::<Option<_>>()?,
        })
    }

    /// Whether no image's result depends on another image, nor on where in the batch it lies.
    fn are_apart(&self) -> bool {
        // What is the same for all images must not be computed once for each part.
        if self.written.contains(&0) {
            return false;
        }
        // So many of the last dimensions of an operand mix.
        let mixed = match self.kind {
            KernelKind::Conv(_)
            | KernelKind::Pool(_)
            | KernelKind::MatMul(MatMulSpec { b_is_weight: true, .. })
            | KernelKind::Rows(_) => 1,
            KernelKind::MatMul(_) => 2,
            KernelKind::Loops(nest) => return self.loops_are_apart(nest),
            KernelKind::Attention(_) => return false,
        };
        // Each image has as many of the first dimension, and no part of another one.
        let mut rows = None;
        self.inputs.iter().chain(self.outputs).all(|tensor| {
            let of_image: Vec<i64> = tensor.shape.iter().map(|size| self.share(*size)).collect();
            match of_image.split_first() {
                Some((first, rest)) if *first > 0 => {
                    rest.len() >= mixed && rest.iter().all(|n| *n == 0) && *rows.get_or_insert(*first) == *first
                }
                _ => of_image.iter().all(|n| *n == 0),
            }
        })
    }

    fn loops_are_apart(&self, nest: &LoopNest) -> bool {
        let Some((first, inner)) = nest.extents.split_first() else { return false };
        let reduced = nest.reduction.as_ref();
        let mut others = inner.iter().chain(reduced.into_iter().flat_map(|r| &r.extents));
        let rows = self.share(*first);
        rows > 0
            && others.all(|extent| self.share(*extent) == 0)
            && self.growth(&nest.store, rows) == self.written.first().copied()
            && self.is_apart(&nest.value, rows)
            && reduced.is_none_or(|r| self.is_apart(&r.element, rows))
    }

    fn share(&self, size: Size) -> i64 {
        match size {
            Size::Const(_) => 0,
            Size::Dim(k) => self.dims[k],
        }
    }

    /// Whether an image's elements are computed from its own alone. Each image has `rows` turns of the outermost loop.
    fn is_apart(&self, value: &Scalar, rows: i64) -> bool {
        let all = |values: &[&Scalar]| values.iter().all(|value| self.is_apart(value, rows));
        match value {
            Scalar::Input(k, index) => self.growth(index, rows) == Some(self.read[*k]),
            Scalar::Weight(_, index) | Scalar::Index(index, _) => self.growth(index, rows) == Some(0),
            Scalar::InRange(index, _, high) => self.growth(index, rows) == Some(0) && self.share(*high) == 0,
            Scalar::Const(..) | Scalar::Reduced => true,
            Scalar::Unary(_, a) | Scalar::Cast(_, a) => all(&[a]),
            Scalar::Binary(_, a, b) => all(&[a, b]),
            Scalar::Select(condition, a, b) => all(&[condition, a, b]),
        }
    }

    /// By how much an index grows from one image to the next, if always by the same. What is gathered does not count: it is an index within an image, else the rest
    /// would not grow by all of one.
    fn growth(&self, index: &Index, rows: i64) -> Option<i64> {
        match index {
            Index::Loop(0) => Some(rows),
            Index::Const(_) | Index::Loop(_) | Index::ReduceLoop(_) => Some(0),
            Index::Dim(k) => (self.dims[*k] == 0).then_some(0),
            Index::Add(a, b) => self.growth(a, rows)?.checked_add(self.growth(b, rows)?),
            Index::Mul(a, b) => match (self.growth(a, rows)?, self.growth(b, rows)?, &**a, &**b) {
                (0, 0, ..) => Some(0),
                (n, 0, _, Index::Const(factor)) | (0, n, Index::Const(factor), _) => n.checked_mul(*factor),
                _ => None,
            },
            Index::Div(a, b) => match (self.growth(a, rows)?, self.growth(b, rows)?, &**b) {
                (0, 0, _) => Some(0),
                (n, 0, Index::Const(by)) => (n % by == 0).then_some(n / by),
                _ => None,
            },
            Index::Mod(a, b) => match (self.growth(a, rows)?, self.growth(b, rows)?, &**b) {
                (0, 0, _) => Some(0),
                (n, 0, Index::Const(by)) => (n % by == 0).then_some(0),
                _ => None,
            },
            Index::Value(value) => self.is_apart(value, rows).then_some(0),
        }
    }
}
