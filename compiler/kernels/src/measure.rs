//! What a kernel is measured on: buffers with the layouts of its task, and values that make sense for it.

use aotfarm_protocol::{
    Accuracy, DType, Digest, KernelCall, Lattice, MeasureProtocol, MeasureSpec, Operand, OperandRole, Values,
};

use crate::candidate::Candidate;
use crate::task::TuningTask;
use crate::title::title;
use aotfarm_ir::{BinaryOp, Domain};
use aotfarm_plan::spec::{
    AttentionSpec, EpilogueStep, Index, KernelKind, KernelSpec, Layout, LoopNest, Math, Scalar, TensorSpec,
};

/// The Measure item of a task: `candidates` (with the digests of their objects), most promising first, checked against `reference`. `tools` is
/// the object of [`crate::tools`].
pub fn measure_spec(
    task: &TuningTask,
    candidates: &[(Candidate, Digest)],
    reference: (&Candidate, Digest),
    tools: Option<Digest>,
    protocol: MeasureProtocol,
    seed: u64,
) -> MeasureSpec {
    MeasureSpec {
        task: task.key(),
        title: title(task),
        operands: operands(task),
        reference: call(task, reference.0, reference.1),
        candidates: candidates.iter().map(|(candidate, object)| call(task, candidate, *object)).collect(),
        tools,
        tolerance: tolerance(task),
        seed,
        protocol,
    }
}

fn call(task: &TuningTask, candidate: &Candidate, object: Digest) -> KernelCall {
    KernelCall {
        candidate: candidate.id,
        label: candidate.label(),
        object,
        symbol: candidate.source.symbol.clone(),
        dims: task.point.clone(),
        tune: candidate.tune.clone(),
        packed_bytes: candidate.needs.packed,
        shared_bytes: candidate.needs.shared,
        thread_bytes: candidate.needs.thread,
        launch: candidate.launch.clone(),
        vendor: candidate.vendor.clone(),
    }
}

/// The operands of a task at its point: all inputs, then weights, then outputs.
pub fn operands(task: &TuningTask) -> Vec<Operand> {
    let spec = &task.spec;
    let operand = |role, tensor: &TensorSpec, lattices, values| Operand {
        role,
        dtype: tensor.dtype,
        len: tensor.len_at(&task.point).unsigned_abs(),
        lattices,
        values,
    };
    let inputs = spec
        .inputs
        .iter()
        .enumerate()
        .map(|(k, tensor)| operand(OperandRole::Input, tensor, tensor.lattices_at(&task.point), input_values(task, k)));
    let weights = spec
        .weights
        .iter()
        .enumerate()
        .map(|(k, tensor)| operand(OperandRole::Weight, tensor, tensor.lattices_at(&task.point), weight_values(task, k)));
    let outputs = spec.outputs.iter().map(|tensor| {
        let lattices = stored(task, tensor).unwrap_or_else(|| tensor.lattices_at(&task.point));
        operand(OperandRole::Output, tensor, lattices, Values::Normal { std: 1.0 })
    });
    inputs.chain(weights).chain(outputs).collect()
}

/// Largest relative L2 error that is right: rounding of the element type, growing with the square root of the number of terms
/// of a sum. Integers must be equal.
pub fn tolerance(task: &TuningTask) -> f64 {
    match rounded_type(task) {
        // Both operands have lost half a unit of 10 bits, and what is stored may lose one more; truncation loses twice that.
        DType::F32 if task.spec.math == Math::Tf32 => 2e-3,
        // Winograd's transforms lose about four bits more than a plain sum: 3e-6.
        DType::F32 => 3e-6 + 1e-7 * terms(task).sqrt(),
        DType::F64 => 1e-13 + 2e-16 * terms(task).sqrt(),
        DType::F16 => 1e-3,
        DType::Bf16 => 8e-3,
        DType::I8 | DType::I16 | DType::I32 | DType::I64 | DType::U8 | DType::Bool => 0.0,
    }
}

/// Largest relative L2 error of a kernel that may win. [`Accuracy::Strict`] in f32 is a little above what direct sums were seen to have (2e-7
/// for 576 terms, 7e-7 for 4608); tiles of 4x4 outputs are above it (7e-7 and 1.5e-6).
pub fn allowed(task: &TuningTask, accuracy: Accuracy) -> f64 {
    match (accuracy, output_type(task)) {
        (Accuracy::Strict, DType::F32) => 2e-7 + 1e-8 * terms(task).sqrt(),
        _ => tolerance(task),
    }
}

/// The type whose rounding bounds the error: that of the output, but attention multiplies the values with weights that it has rounded to
/// their own type.
fn rounded_type(task: &TuningTask) -> DType {
    match (&task.spec.kind, task.spec.inputs.get(2)) {
        (KernelKind::Attention(_), Some(value)) if value.dtype.size() < output_type(task).size() => value.dtype,
        _ => output_type(task),
    }
}

fn output_type(task: &TuningTask) -> DType {
    task.spec.outputs.first().map_or(DType::F32, |o| o.dtype)
}

/// The terms of a sum; a mean is one of all pixels.
fn terms(task: &TuningTask) -> f64 {
    let spec = &task.spec;
    let at = |tensor: &TensorSpec, from: usize| -> f64 {
        tensor.shape.iter().skip(from).map(|s| s.at(&task.point) as f64).product::<f64>().max(1.0)
    };
    match &spec.kind {
        KernelKind::Conv(conv) => {
            let branch = conv.branch.and_then(|b| spec.weights.get(b.weight));
            let mean = spec.outputs.first().filter(|_| conv.mean).map_or(0.0, |image| at(image, 2));
            spec.weights.first().into_iter().chain(branch).map(|w| at(w, 1)).sum::<f64>() + mean
        }
        KernelKind::MatMul(_) | KernelKind::Rows(_) => {
            spec.inputs.first().map_or(1.0, |a| at(a, a.shape.len().saturating_sub(1)))
        }
        KernelKind::Attention(attention) => (attention.widths[0] + attention.rows[1].at(&task.point)) as f64,
        KernelKind::Pool(pool) => (pool.window.kernel[0] * pool.window.kernel[1]) as f64,
        KernelKind::Loops(nest) => nest.reduction.iter().flat_map(|r| &r.extents).map(|s| s.at(&task.point) as f64).product(),
    }
}

fn plain_values(dtype: DType, std: f32) -> Values {
    match dtype {
        DType::Bool => Values::Uniform { low: 0.0, high: 2.0 },
        DType::U8 => Values::Uniform { low: 0.0, high: 16.0 },
        DType::I8 | DType::I16 | DType::I32 | DType::I64 => Values::Uniform { low: -8.0, high: 8.0 },
        DType::F16 | DType::Bf16 | DType::F32 | DType::F64 => Values::Normal { std },
    }
}

/// Away from zero and from negative numbers, for functions that are not defined there.
const POSITIVE: Values = Values::Uniform { low: 0.5, high: 2.0 };

fn input_values(task: &TuningTask, k: usize) -> Values {
    let tensor = &task.spec.inputs[k];
    match &task.spec.kind {
        KernelKind::Loops(nest) => loop_values(task, nest, tensor, |s| matches!(s, Scalar::Input(i, _) if *i == k)),
        KernelKind::Conv(_) | KernelKind::MatMul(_) => {
            let divides = crate::render::epilogue(&task.spec.kind)
                .iter()
                .any(|s| matches!(s, EpilogueStep::Residual(op, i) if *i == k && !total(*op)));
            if divides { POSITIVE } else { plain_values(tensor.dtype, 1.0) }
        }
        // So that scores have deviation 1, whatever they are multiplied by.
        KernelKind::Attention(AttentionSpec { scale, widths: [width, _], .. }) if k == 0 && *scale != 0.0 => {
            plain_values(tensor.dtype, (1.0 / (scale.abs() * (*width as f64).sqrt())) as f32)
        }
        KernelKind::Attention(_) | KernelKind::Pool(_) | KernelKind::Rows(_) => plain_values(tensor.dtype, 1.0),
    }
}

fn weight_values(task: &TuningTask, k: usize) -> Values {
    let tensor = &task.spec.weights[k];
    let size = |d: usize| tensor.shape.get(d).map_or(1, |s| s.at(&task.point)).max(1) as f32;
    match &task.spec.kind {
        KernelKind::Loops(nest) => loop_values(task, nest, tensor, |s| matches!(s, Scalar::Weight(i, _) if *i == k)),
        // Scaled so that a sum over the fan-in has deviation 1, as in a trained network.
        KernelKind::Conv(conv) if k == 0 || conv.branch.is_some_and(|b| b.weight == k) => {
            plain_values(tensor.dtype, 1.0 / (size(1) * size(2) * size(3)).sqrt())
        }
        KernelKind::MatMul(m) if k == 0 && m.b_is_weight => {
            plain_values(tensor.dtype, 1.0 / size(usize::from(m.b_transposed)).sqrt())
        }
        _ => plain_values(tensor.dtype, 1.0),
    }
}

/// Values of one operand of a nest: places inside the tensor that it indexes, if it is an index; positive numbers, if the nest has
/// functions that are not defined everywhere; else the usual ones.
fn loop_values(task: &TuningTask, nest: &LoopNest, tensor: &TensorSpec, is_operand: impl Fn(&Scalar) -> bool) -> Values {
    let mut walk = Walk { spec: &task.spec, point: &task.point, is_operand: &is_operand, limit: None, partial: false };
    for root in nest.reduction.iter().map(|r| &r.element).chain([&nest.value]) {
        walk.scalar(root);
    }
    walk.index(&nest.store, None);
    match walk.limit {
        Some(limit) => Values::Uniform { low: 0.0, high: limit.max(1) as f64 },
        None if walk.partial && tensor.dtype.is_float() => POSITIVE,
        None if walk.partial && tensor.dtype != DType::Bool => Values::Uniform { low: 1.0, high: 8.0 },
        None => plain_values(tensor.dtype, 1.0),
    }
}

/// Whether the function is defined for all pairs of finite numbers.
fn total(op: BinaryOp) -> bool {
    !op.divides() && op != BinaryOp::Pow
}

struct Walk<'a> {
    spec: &'a KernelSpec,
    point: &'a [i64],
    is_operand: &'a dyn Fn(&Scalar) -> bool,
    /// The operand's values index something with this many places.
    limit: Option<i64>,
    /// There is a function that is not defined everywhere.
    partial: bool,
}

impl Walk<'_> {
    fn scalar(&mut self, scalar: &Scalar) {
        match scalar {
            Scalar::Input(k, index) => self.index(index, self.spec.inputs.get(*k)),
            Scalar::Weight(k, index) => self.index(index, self.spec.weights.get(*k)),
            Scalar::Index(index, _) | Scalar::InRange(index, ..) => self.index(index, None),
            Scalar::Const(..) | Scalar::Reduced => {}
            Scalar::Unary(op, x) => {
                self.partial |= op.domain() == Domain::PartOfFloat;
                self.scalar(x);
            }
            Scalar::Binary(op, a, b) => {
                self.partial |= !total(*op);
                self.scalar(a);
                self.scalar(b);
            }
            Scalar::Select(condition, a, b) => {
                self.scalar(condition);
                self.scalar(a);
                self.scalar(b);
            }
            Scalar::Cast(_, x) => self.scalar(x),
        }
    }

    /// `indexed` is what the index goes into.
    fn index(&mut self, index: &Index, indexed: Option<&TensorSpec>) {
        self.term(index, indexed, 1);
    }

    /// `stride` is the constant that this part of the index is multiplied by.
    fn term(&mut self, index: &Index, indexed: Option<&TensorSpec>, stride: i64) {
        match index {
            Index::Const(_) | Index::Loop(_) | Index::ReduceLoop(_) | Index::Dim(_) => {}
            Index::Add(a, b) => {
                self.term(a, indexed, stride);
                self.term(b, indexed, stride);
            }
            Index::Mul(a, b) => {
                let factor = |i: &Index| match i {
                    Index::Const(n) => Some(*n),
                    Index::Dim(k) => self.point.get(*k).copied(),
                    _ => None,
                };
                let (fa, fb) = (factor(a), factor(b));
                self.term(a, indexed, stride.saturating_mul(fb.unwrap_or(1)));
                self.term(b, indexed, stride.saturating_mul(fa.unwrap_or(1)));
            }
            // A gathered index is taken modulo the size that it indexes.
            Index::Mod(a, b) if matches!(**a, Index::Value(_)) && constant(b, self.point).is_some() => {
                let Index::Value(scalar) = &**a else { return };
                if contains(scalar, self.is_operand) {
                    let limit = constant(b, self.point).unwrap_or(1);
                    self.limit = Some(self.limit.map_or(limit, |l| l.min(limit)));
                }
                self.scalar(scalar);
            }
            Index::Div(a, b) | Index::Mod(a, b) => {
                self.term(a, indexed, stride);
                self.term(b, None, 1);
            }
            Index::Value(scalar) => {
                if contains(scalar, self.is_operand) {
                    let limit = indexed.map_or(1, |t| places(t, self.point, stride));
                    self.limit = Some(self.limit.map_or(limit, |l| l.min(limit)));
                }
                self.scalar(scalar);
            }
        }
    }
}

/// How many places a tensor has at the distance `stride`: the size of the dimension with that stride, else what certainly fits.
fn places(tensor: &TensorSpec, point: &[i64], stride: i64) -> i64 {
    if tensor.layout != Layout::Plain || stride <= 0 {
        return 1;
    }
    let mut inner = 1;
    for size in tensor.shape.iter().rev().map(|s| s.at(point)) {
        if inner == stride && size > 1 {
            return size;
        }
        inner *= size;
    }
    1
}

fn contains(scalar: &Scalar, wanted: &dyn Fn(&Scalar) -> bool) -> bool {
    let in_index = |index: &Index| index_contains(index, wanted);
    wanted(scalar)
        || match scalar {
            Scalar::Input(_, i) | Scalar::Weight(_, i) | Scalar::Index(i, _) | Scalar::InRange(i, ..) => in_index(i),
            Scalar::Const(..) | Scalar::Reduced => false,
            Scalar::Unary(_, x) | Scalar::Cast(_, x) => contains(x, wanted),
            Scalar::Binary(_, a, b) => contains(a, wanted) || contains(b, wanted),
            Scalar::Select(c, a, b) => contains(c, wanted) || contains(a, wanted) || contains(b, wanted),
        }
}

fn index_contains(index: &Index, wanted: &dyn Fn(&Scalar) -> bool) -> bool {
    match index {
        Index::Const(_) | Index::Loop(_) | Index::ReduceLoop(_) | Index::Dim(_) => false,
        Index::Add(a, b) | Index::Mul(a, b) | Index::Div(a, b) | Index::Mod(a, b) => {
            index_contains(a, wanted) || index_contains(b, wanted)
        }
        Index::Value(scalar) => contains(scalar, wanted),
    }
}

/// The places that a nest stores to, when its store index is a sum of loop variables times constants. A nest may write only a
/// part of its output (one part of a concatenation).
fn stored(task: &TuningTask, tensor: &TensorSpec) -> Option<Vec<Lattice>> {
    let KernelKind::Loops(nest) = &task.spec.kind else { return None };
    if tensor.layout != Layout::Plain {
        return None;
    }
    let mut strides = vec![0; nest.extents.len()];
    let offset = affine(&nest.store, &task.point, &mut strides, 1)?;
    let dims = nest.extents.iter().map(|s| s.at(&task.point)).zip(strides).collect();
    Some(vec![Lattice { offset, dims }])
}

/// Adds `factor * index` to `strides` (by output loop) and returns its constant part; `None` if it is not of that form.
fn affine(index: &Index, point: &[i64], strides: &mut [i64], factor: i64) -> Option<i64> {
    match index {
        Index::Const(n) => Some(n * factor),
        Index::Dim(k) => Some(point.get(*k)? * factor),
        Index::Loop(k) => {
            *strides.get_mut(*k)? += factor;
            Some(0)
        }
        Index::Add(a, b) => Some(affine(a, point, strides, factor)? + affine(b, point, strides, factor)?),
        Index::Mul(a, b) => match (constant(a, point), constant(b, point)) {
            (Some(n), _) => affine(b, point, strides, factor * n),
            (_, Some(n)) => affine(a, point, strides, factor * n),
            _ => None,
        },
        Index::Div(..) | Index::Mod(..) | Index::Value(_) | Index::ReduceLoop(_) => None,
    }
}

fn constant(index: &Index, point: &[i64]) -> Option<i64> {
    match index {
        Index::Const(n) => Some(*n),
        Index::Dim(k) => point.get(*k).copied(),
        Index::Add(a, b) => Some(constant(a, point)? + constant(b, point)?),
        Index::Mul(a, b) => Some(constant(a, point)? * constant(b, point)?),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use aotfarm_plan::spec::{KernelKind, RowSpec, Size};
    use aotfarm_protocol::{DType, Digest, MeasureProtocol, OperandRole, Values};

    use super::*;
    use crate::testing::samples::{first_candidates, linear};

    #[test]
    fn a_measure_item_says_all_that_a_worker_needs() {
        let task = linear();
        let considered = first_candidates(&task, 3);
        let object = Digest::of("object");
        let given: Vec<_> = considered.iter().map(|c| (c.clone(), object)).collect();
        let protocol = MeasureProtocol {
            version: 1,
            threads: 2,
            screen_runs: 8,
            race_runs: 100,
            race_width: 6,
            drop_factor: 3.0,
            rotate_bytes: 64 << 20,
            budget_ms: 1000,
            run_limit_ms: 1000,
            memory_limit: 1 << 30,
        };
        let spec = measure_spec(&task, &given, (&considered[0], object), None, protocol, 7);
        assert_eq!(spec.title, "matmul(64x100, 50x100) f32 cpu-x86_64-v3");
        assert_eq!(spec.task, task.key());
        let roles: Vec<_> = spec.operands.iter().map(|o| o.role).collect();
        assert_eq!(roles, [OperandRole::Input, OperandRole::Weight, OperandRole::Weight, OperandRole::Output]);
        assert_eq!(spec.operands[1].values, Values::Normal { std: 0.1 }, "a sum of 100 products has deviation 1");
        assert_eq!(spec.candidates.len(), 3);
        for (call, candidate) in spec.candidates.iter().zip(&considered) {
            assert_eq!((call.candidate, &call.symbol, call.object), (candidate.id, &candidate.source.symbol, object));
            assert_eq!((call.packed_bytes > 0, &call.tune), (candidate.source.packs, &candidate.tune));
        }
    }

    #[test]
    fn tolerances_follow_type_and_length() {
        let mut task = linear();
        let short = tolerance(&task);
        task.spec.inputs[0].shape[1] = Size::Const(10_000);
        assert!(tolerance(&task) > short && tolerance(&task) < 2e-5);
        task.spec.outputs[0].dtype = DType::I64;
        assert_eq!(tolerance(&task), 0.0);
        task.spec.kind = KernelKind::Rows(RowSpec::Softmax);
        task.spec.outputs[0].dtype = DType::Bf16;
        assert_eq!(tolerance(&task), 8e-3);
        assert_eq!(operands(&task)[0].values, Values::Normal { std: 1.0 });
    }
}
