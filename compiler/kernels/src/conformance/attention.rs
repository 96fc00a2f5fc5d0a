//! Attention: sizes around the tiles, heads that lie in other tensors, masks of all kinds, rows that may see nothing.
#![cfg(test)]

use aotfarm_protocol::{DType, Target};

use super::{GPU, conforms, conforms_on, stored_as, task};
use crate::task::TuningTask;
use crate::testing::random;
use aotfarm_plan::spec::{AttentionSpec, KernelKind, Layout, Mask, Math, Size, TensorSpec, View};

/// How a mask is given.
#[derive(Clone, Copy, PartialEq)]
enum Masked {
    No,
    /// Bool, one row for each batch, read along all heads and rows.
    Keys,
    /// f32, for each batch, row and key.
    Added,
    /// f32, a weight, for each head, row and key; only of constant sizes.
    Weight,
}

fn tensor(dtype: DType, shape: &[Size]) -> TensorSpec {
    TensorSpec { dtype, shape: shape.to_vec(), layout: Layout::Plain }
}

/// Strides and shape of heads `[batch, heads, rows, width]`, of sizes that are constant.
fn contiguous([_, heads, rows, width]: [i64; 4]) -> View {
    View { offset: Size::Const(0), strides: [heads * rows * width, rows * width, width, 1].map(Size::Const) }
}

/// Attention of constant sizes over contiguous heads.
fn fixed([batch, heads, rows, keys]: [i64; 4], widths: [i64; 2], causal: bool, masked: Masked) -> TuningTask {
    let shapes = [(rows, widths[0]), (keys, widths[0]), (keys, widths[1]), (rows, widths[1])].map(|(r, w)| [batch, heads, r, w]);
    let [q, k, v, out] = shapes.map(|shape| tensor(DType::F32, &shape.map(Size::Const)));
    let zero = Size::Const(0);
    let masks = |dtype, shape: [i64; 4], strides: [i64; 4]| {
        (tensor(dtype, &shape.map(Size::Const)), View { offset: zero, strides: strides.map(Size::Const) })
    };
    let mask = match masked {
        Masked::No => None,
        Masked::Keys => Some(masks(DType::Bool, [batch, 1, 1, keys], [keys, 0, 0, 1])),
        Masked::Added => Some(masks(DType::F32, [batch, 1, rows, keys], [rows * keys, 0, keys, 1])),
        Masked::Weight => Some(masks(DType::F32, [1, heads, rows, keys], [0, rows * keys, keys, 1])),
    };
    let is_weight = masked == Masked::Weight;
    let (mut inputs, mut weights) = (vec![q, k, v], Vec::new());
    if let Some((tensor, _)) = &mask {
        if is_weight { &mut weights } else { &mut inputs }.push(tensor.clone());
    }
    let spec = AttentionSpec {
        lead: [batch, heads].map(Size::Const),
        rows: [rows, keys].map(Size::Const),
        widths,
        scale: 1.0 / (widths[0] as f64).sqrt(),
        causal,
        views: shapes.map(contiguous),
        mask: mask.map(|(_, view)| Mask { is_weight, view }),
    };
    task(GPU, KernelKind::Attention(spec), inputs, weights, out, &[])
}

/// Self-attention whose heads lie side by side in the rows of one product, as do those of its output: batch and rows are dims, and a
/// mask is Bool, for each batch and key.
fn packed([batch, heads, rows]: [i64; 3], width: i64, causal: bool, masked: bool) -> TuningTask {
    // Dims: batch, rows, and rows times the length of a row.
    let (pitch, [b, l, plane, plane_out]) = (3 * heads * width, [0, 1, 2, 3].map(Size::Dim));
    let view = |offset: i64, plane: Size, pitch: i64| View {
        offset: Size::Const(offset),
        strides: [plane, Size::Const(width), Size::Const(pitch), Size::Const(1)],
    };
    let [q, k, v] = [0, 1, 2].map(|part| view(part * heads * width, plane, pitch));
    let zero = Size::Const(0);
    let spec = AttentionSpec {
        lead: [b, Size::Const(heads)],
        rows: [l, l],
        widths: [width; 2],
        scale: 0.3,
        causal,
        views: [q, k, v, view(0, plane_out, heads * width)],
        mask: masked.then_some(Mask { is_weight: false, view: View { offset: zero, strides: [l, zero, zero, Size::Const(1)] } }),
    };
    let rows_of = |columns: i64| tensor(DType::F32, &[b, l, Size::Const(columns)]);
    let mut inputs = vec![rows_of(pitch); 3];
    inputs.extend(masked.then(|| tensor(DType::Bool, &[b, l])));
    let point = [batch, rows, rows * pitch, rows * heads * width];
    task(GPU, KernelKind::Attention(spec), inputs, vec![], rows_of(heads * width), &point)
}

pub(super) fn examples(target: Target) -> Vec<TuningTask> {
    if let Target::Cpu(_) = target {
        return Vec::new();
    }
    vec![
        packed([2, 2, 70], 64, false, false),
        packed([2, 3, 45], 16, true, true),
        fixed([1, 2, 33, 90], [40, 24], false, Masked::Added),
        fixed([2, 2, 17, 19], [32, 32], false, Masked::Weight),
    ]
}

fn in_every_precision(tasks: &[TuningTask]) -> Vec<TuningTask> {
    let kinds = [(Math::Tf32, DType::F32), (Math::Exact, DType::Bf16), (Math::Exact, DType::F16)];
    let convert = |task: &TuningTask, (math, dtype)| {
        let mut task = stored_as(task.clone(), dtype);
        task.spec.math = math;
        task
    };
    tasks.iter().flat_map(|task| kinds.map(|kind| convert(task, kind))).collect()
}

#[test]
fn attention_of_awkward_sizes() {
    conforms(&in_every_precision(&[
        fixed([1, 1, 1, 1], [8, 8], false, Masked::No),
        fixed([1, 2, 1, 130], [64, 72], false, Masked::No),
        fixed([1, 1, 65, 7], [256, 256], true, Masked::No),
        packed([1, 1, 197], 80, true, false),
    ]));
}

#[test]
fn attention_of_rows_that_do_not_begin_at_whole_chunks() {
    // One element before the heads, so that nothing is aligned.
    let mut task = fixed([1, 2, 20, 40], [16, 16], true, Masked::Keys);
    if let KernelKind::Attention(spec) = &mut task.spec.kind {
        for (view, input) in spec.views.iter_mut().zip(&mut task.spec.inputs[..3]) {
            view.offset = Size::Const(1);
            input.shape[0] = Size::Const(2);
        }
    }
    conforms(&in_every_precision(&[task]));
}

#[test]
fn a_row_that_may_see_nothing_gives_zeros() {
    let mut cases = Vec::new();
    for masked in [Masked::Keys, Masked::Added] {
        for task in in_every_precision(&[fixed([2, 2, 40, 80], [32, 32], false, masked)]) {
            let mut raw = random(&task, 5);
            let mask = &task.spec.inputs[3];
            let per_batch = mask.shape[1..].iter().map(|size| size.at(&[])).product::<i64>() as usize;
            let never = match mask.dtype {
                DType::Bool => vec![0],
                DType::F32 => f32::NEG_INFINITY.to_le_bytes().to_vec(),
                DType::F16 => half::f16::NEG_INFINITY.to_le_bytes().to_vec(),
                _ => half::bf16::NEG_INFINITY.to_le_bytes().to_vec(),
            };
            // All of the first batch; of the second the first tile of keys, so that sums begin late.
            let width = never.len();
            let late = (0..per_batch).filter(|i| i % 80 < 70).map(|i| per_batch + i);
            for i in (0..per_batch).chain(late) {
                raw[3][i * width..(i + 1) * width].copy_from_slice(&never);
            }
            cases.push((task, raw));
        }
    }
    conforms_on(&cases);
}
