//! Pooling and normalisation of rows.
#![cfg(test)]

use aotfarm_protocol::{DType, Target};

use super::{ARM, conforms, conforms_on, image, plain, task};
use crate::task::TuningTask;
use crate::testing::random;
use aotfarm_ir::{PoolOp, Window};
use aotfarm_plan::oracle::Tensor;
use aotfarm_plan::spec::{KernelKind, Layout, PoolSpec, RowSpec, Size, TensorSpec};

const V3: Target = Target::CPUS[0];
const AVERAGES: [PoolOp; 2] = [PoolOp::Avg { count_include_pad: true }, PoolOp::Avg { count_include_pad: false }];

fn window(kernel: i64, stride: i64, pad: i64, dilation: i64) -> Window {
    Window { kernel: [kernel; 2], stride: [stride; 2], pad: [[pad; 2]; 2], dilation: [dilation; 2] }
}

fn pool(target: Target, op: PoolOp, window: Window, chw: [i64; 3], batch: i64) -> TuningTask {
    let [c, h, w] = chw;
    let out = |size: i64, d: usize| {
        (size + window.pad[d][0] + window.pad[d][1] - (window.kernel[d] - 1) * window.dilation[d] - 1) / window.stride[d] + 1
    };
    let output = image(target, [c, out(h, 0), out(w, 1)], [1, 1, 1, 1]);
    task(target, KernelKind::Pool(PoolSpec { op, window }), vec![image(target, chw, [1, 2, 0, 3])], vec![], output, &[batch])
}

/// The same with row-major operands.
fn row_major(mut task: TuningTask) -> TuningTask {
    task.spec.inputs[0].layout = Layout::Plain;
    task.spec.outputs[0].layout = Layout::Plain;
    task
}

fn rows(spec: RowSpec, mask: bool, rows: i64, k: i64) -> TuningTask {
    let x = || TensorSpec { dtype: DType::F32, shape: vec![Size::Dim(0), Size::Const(k)], layout: Layout::Plain };
    let inputs = if mask { vec![x(), x()] } else { vec![x()] };
    let affine = matches!(spec, RowSpec::LayerNorm { affine: true, .. });
    let weights = if affine { vec![plain(DType::F32, &[k]), plain(DType::F32, &[k])] } else { vec![] };
    task(V3, KernelKind::Rows(spec), inputs, weights, x(), &[rows])
}

pub(super) fn examples(target: Target) -> Vec<TuningTask> {
    vec![
        pool(target, PoolOp::Max, window(3, 2, 1, 1), [24, 9, 9], 2),
        TuningTask { target, ..rows(RowSpec::LayerNorm { eps: 1e-5, affine: true }, false, 3, 50) },
        TuningTask { target, ..rows(RowSpec::Softmax, true, 3, 50) },
    ]
}

#[test]
fn windows_of_all_shapes() {
    let mut tasks = Vec::new();
    for op in [PoolOp::Max].into_iter().chain(AVERAGES) {
        tasks.push(pool(V3, op, window(3, 2, 1, 1), [8, 8, 11], 2));
        tasks.push(pool(V3, op, window(2, 2, 0, 1), [13, 6, 7], 1));
        tasks.push(pool(V3, op, window(3, 1, 2, 2), [3, 5, 6], 3));
        tasks.push(pool(V3, op, window(7, 1, 0, 1), [16, 7, 7], 1));
        tasks.push(pool(V3, op, window(1, 3, 0, 1), [9, 1, 4], 1));
        tasks.push(row_major(pool(V3, op, window(3, 2, 1, 1), [5, 7, 8], 2)));
    }
    tasks.push(pool(Target::CPUS[1], PoolOp::Max, window(3, 2, 1, 1), [20, 9, 9], 2));
    conforms(&tasks);
}

#[test]
fn padding_never_wins_a_maximum_and_nan_stays() {
    conforms_on(&[V3, ARM].map(|target| {
        let task = pool(target, PoolOp::Max, window(3, 2, 1, 1), [8, 5, 5], 1);
        let mut raw = random(&task, 5);
        let mut x = Tensor::from_bytes(DType::F32, &raw[0]);
        // All negative inside, zero in the halo; and one NaN.
        x.values.iter_mut().for_each(|v| *v = -v.abs());
        let places = crate::testing::offsets(&task.spec.inputs[0].lattices_at(&task.point)[0]);
        x.values[places[12]] = f64::NAN;
        raw[0] = x.to_bytes();
        (task, raw)
    }));
}

#[test]
fn rows_of_all_lengths() {
    let mut tasks = Vec::new();
    for k in [1, 2, 7, 8, 9, 15, 16, 31, 64, 100, 771] {
        // The length as a dim: one unit does them all.
        let any_length = |spec, mask, rows_: i64| {
            let mut task = rows(spec, mask, rows_, k);
            let tensors = task.spec.inputs.iter_mut().chain(&mut task.spec.outputs);
            tensors.for_each(|tensor| tensor.shape[1] = Size::Dim(1));
            task.spec.dims = 2;
            task.point.push(k);
            task
        };
        tasks.push(any_length(RowSpec::Softmax, false, 5));
        tasks.push(any_length(RowSpec::Softmax, true, 2));
        tasks.push(any_length(RowSpec::LayerNorm { eps: 1e-12, affine: false }, false, 3));
    }
    for k in [8, 9, 771] {
        tasks.push(rows(RowSpec::LayerNorm { eps: 1e-5, affine: true }, false, 4, k));
    }
    conforms(&tasks);
}

#[test]
fn rows_far_from_zero_and_masked_ones() {
    let task = rows(RowSpec::LayerNorm { eps: 1e-5, affine: false }, false, 2, 64);
    let far = (0..128).map(|i| 500.0 + f64::from(i % 7)).collect();
    let raw = vec![Tensor { dtype: DType::F32, values: far }.to_bytes(), random(&task, 0)[1].clone()];
    let masked = rows(RowSpec::Softmax, true, 2, 37);
    let mut operands = random(&masked, 1);
    let mask = (0..74).map(|i| if i % 3 == 0 { f64::NEG_INFINITY } else { 0.0 }).collect();
    operands[1] = Tensor { dtype: DType::F32, values: mask }.to_bytes();
    let large = rows(RowSpec::Softmax, false, 1, 20);
    let mut huge = random(&large, 2);
    huge[0] = Tensor { dtype: DType::F32, values: (0..20).map(|i| f64::from(i) * 300.0 - 3000.0).collect() }.to_bytes();
    conforms_on(&[(task, raw), (masked, operands), (large, huge)]);
}
