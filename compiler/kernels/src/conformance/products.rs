//! Matrix products: sizes around the register blocks, few rows, many matrices, fused steps.
#![cfg(test)]

use aotfarm_protocol::{DType, Target};

use super::{GPU, conforms, conforms_on, plain, stored_as, task};
use crate::task::TuningTask;
use crate::testing::random;
use aotfarm_ir::{BinaryOp, UnaryOp};
use aotfarm_plan::spec::{EpilogueStep, KernelKind, Layout, MatMulSpec, Math, Size, TensorSpec};

const V3: Target = Target::CPUS[0];

/// A linear layer with dim 0 rows.
fn linear(target: Target, m: i64, n: i64, k: i64, b_transposed: bool, epilogue: Vec<EpilogueStep>) -> TuningTask {
    let rows = |columns| TensorSpec { dtype: DType::F32, shape: vec![Size::Dim(0), Size::Const(columns)], layout: Layout::Plain };
    let residual = epilogue.iter().any(|s| matches!(s, EpilogueStep::Residual(..)));
    let biases = epilogue.iter().filter(|s| matches!(s, EpilogueStep::Bias(_))).count();
    let inputs = [rows(k)].into_iter().chain(residual.then(|| rows(n))).collect();
    let b = if b_transposed { [n, k] } else { [k, n] };
    let weights = [plain(DType::F32, &b)].into_iter().chain((0..biases).map(|_| plain(DType::F32, &[n]))).collect();
    let kind = KernelKind::MatMul(MatMulSpec { b_is_weight: true, b_transposed, epilogue });
    task(target, kind, inputs, weights, rows(n), &[m])
}

/// Products of activations, all sizes dims.
fn batched(batch: i64, m: i64, n: i64, k: i64, b_transposed: bool) -> TuningTask {
    let tensor = |sizes: &[usize]| TensorSpec {
        dtype: DType::F32,
        shape: sizes.iter().map(|d| Size::Dim(*d)).collect(),
        layout: Layout::Plain,
    };
    let b = if b_transposed { tensor(&[0, 2, 3]) } else { tensor(&[0, 3, 2]) };
    let epilogue = vec![EpilogueStep::Unary(UnaryOp::Tanh)];
    let kind = KernelKind::MatMul(MatMulSpec { b_is_weight: false, b_transposed, epilogue });
    task(V3, kind, vec![tensor(&[0, 1, 3]), b], vec![], tensor(&[0, 1, 2]), &[batch, m, n, k])
}

/// Products of activations of known sizes, with a bias and a residual; `batch` 0 for one without leading dimensions.
fn fixed(target: Target, batch: i64, [m, n, k]: [i64; 3], b_transposed: bool) -> TuningTask {
    let tensor = |shape: [i64; 3]| plain(DType::F32, &shape[usize::from(batch == 0)..]);
    let epilogue = vec![EpilogueStep::Bias(0), EpilogueStep::Residual(BinaryOp::Add, 2), EpilogueStep::Unary(UnaryOp::Relu)];
    let b = if b_transposed { tensor([batch, n, k]) } else { tensor([batch, k, n]) };
    let inputs = vec![tensor([batch, m, k]), b, tensor([batch, m, n])];
    let kind = KernelKind::MatMul(MatMulSpec { b_is_weight: false, b_transposed, epilogue });
    task(target, kind, inputs, vec![plain(DType::F32, &[n])], tensor([batch, m, n]), &[])
}

fn fused() -> Vec<EpilogueStep> {
    vec![EpilogueStep::Bias(1), EpilogueStep::Residual(BinaryOp::Add, 1), EpilogueStep::Unary(UnaryOp::Relu)]
}

pub(super) fn examples(target: Target) -> Vec<TuningTask> {
    vec![
        linear(target, 1, 40, 24, true, vec![EpilogueStep::Bias(1)]),
        linear(target, 8, 40, 24, false, fused()),
        TuningTask { target, ..batched(3, 12, 20, 16, true) },
        TuningTask { target, ..batched(2, 70, 33, 40, false) },
        fixed(target, 3, [40, 48, 64], false),
        fixed(target, 0, [20, 72, 40], true),
    ]
}

#[test]
fn few_rows_and_many() {
    let mut tasks = Vec::new();
    for (m, n, k) in [
        (1, 1, 1),
        (1, 16, 8),
        (2, 17, 9),
        (3, 33, 7),
        (4, 50, 65),
        (5, 16, 16),
        (6, 48, 40),
        (7, 47, 31),
        (13, 100, 600),
        (50, 70, 20),
    ] {
        tasks.push(linear(V3, m, n, k, true, vec![EpilogueStep::Bias(1)]));
    }
    conforms(&tasks);
}

#[test]
fn fused_steps_and_both_orders_of_b() {
    let mut two_biases = fused();
    two_biases.push(EpilogueStep::Bias(2));
    let tasks = [
        linear(V3, 4, 24, 16, true, fused()),
        linear(V3, 9, 35, 16, false, fused()),
        linear(V3, 9, 35, 16, true, two_biases),
        linear(V3, 3, 35, 16, true, vec![EpilogueStep::Unary(UnaryOp::Gelu)]),
        // One that units define themselves, in each dialect.
        linear(V3, 3, 35, 16, true, vec![EpilogueStep::Unary(UnaryOp::Sigmoid), EpilogueStep::Unary(UnaryOp::Log1p)]),
    ];
    conforms(&tasks);
}

#[test]
fn products_of_activations_of_any_size() {
    let mut tasks = Vec::new();
    for b_transposed in [false, true] {
        for (batch, m, n, k) in [(1, 1, 1, 1), (2, 5, 17, 3), (3, 16, 32, 64), (4, 7, 15, 33)] {
            tasks.push(batched(batch, m, n, k, b_transposed));
        }
    }
    conforms(&tasks);
}

#[test]
fn products_of_activations_on_tensor_cores() {
    let mut tasks = Vec::new();
    for (math, dtype) in [(Math::Tf32, DType::F32), (Math::Exact, DType::Bf16), (Math::Exact, DType::F16)] {
        for (batch, m, n, k) in [(2, 5, 17, 3), (3, 130, 66, 200), (5, 65, 129, 33), (1, 300, 40, 8)] {
            for b_transposed in [false, true] {
                let mut task = stored_as(TuningTask { target: GPU, ..batched(batch, m, n, k, b_transposed) }, dtype);
                task.spec.math = math;
                tasks.push(task);
            }
        }
    }
    conforms(&tasks);
}

#[test]
fn wider_vectors() {
    let v4 = Target::CPUS[1];
    conforms(&[
        linear(v4, 1, 40, 24, true, fused()),
        linear(v4, 17, 55, 70, false, fused()),
        linear(v4, 30, 96, 48, true, vec![]),
    ]);
}

#[test]
fn a_nan_shows_only_where_it_belongs() {
    let task = linear(V3, 5, 19, 11, true, vec![EpilogueStep::Bias(1)]);
    let mut raw = random(&task, 3);
    // Row 2 of a, and row 18 of b, which is the last column of the result.
    raw[0][(2 * 11 + 10) * 4..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
    raw[1][(18 * 11) * 4..][..4].copy_from_slice(&f32::INFINITY.to_le_bytes());
    conforms_on(&[(task, raw)]);
}
