//! Pooling, normalisations and reductions.

use rayon::prelude::*;

use super::data::{Array, Data};
use super::pointwise::{larger, smaller};
use crate::{PoolOp, ReduceOp, Window};

/// Pooling over NCHW, plane by plane.
pub(super) fn pool(op: PoolOp, x: &Array, window: &Window, shape: &[usize]) -> Array {
    match &x.data {
        Data::Float(values) => {
            let combine = |taps: &mut dyn Iterator<Item = Option<f64>>| match op {
                PoolOp::Max => taps.flatten().fold(f64::NEG_INFINITY, larger),
                PoolOp::Avg { count_include_pad } => {
                    let (mut sum, mut count) = (0.0, 0.0);
                    for tap in taps {
                        sum += tap.unwrap_or(0.0);
                        count += if tap.is_some() || count_include_pad { 1.0 } else { 0.0 };
                    }
                    sum / count
                }
            };
            Array::float(x.dtype, shape, slide(values, &x.shape, window, shape, &combine))
        }
        Data::Int(values) => {
            let combine = |taps: &mut dyn Iterator<Item = Option<i64>>| taps.flatten().max().unwrap_or(i64::MIN);
            Array::int(x.dtype, shape, slide(values, &x.shape, window, shape, &combine))
        }
    }
}

/// `combine` over the taps of every window; a tap in the padding is `None`.
fn slide<T: Copy + Default + Send + Sync>(
    values: &[T],
    size: &[usize],
    window: &Window,
    shape: &[usize],
    combine: &(dyn Fn(&mut dyn Iterator<Item = Option<T>>) -> T + Sync),
) -> Vec<T> {
    let [h, w, oh, ow] = [size[2], size[3], shape[2], shape[3]];
    let mut out = vec![T::default(); shape.iter().product()];
    out.par_chunks_mut((oh * ow).max(1)).enumerate().for_each(|(plane, out)| {
        let plane = &values[plane * h * w..][..h * w];
        for (pixel, result) in out.iter_mut().enumerate() {
            let [y0, x0] = [0, 1].map(|axis| {
                let position = if axis == 0 { pixel / ow } else { pixel % ow };
                position as i64 * window.stride[axis] - window.pad[axis][0]
            });
            let mut taps = (0..window.kernel[0]).flat_map(|ky| (0..window.kernel[1]).map(move |kx| (ky, kx))).map(|(ky, kx)| {
                let (y, x) = (y0 + ky * window.dilation[0], x0 + kx * window.dilation[1]);
                let inside = (0..h as i64).contains(&y) && (0..w as i64).contains(&x);
                inside.then(|| plane[y as usize * w + x as usize])
            });
            *result = combine(&mut taps);
        }
    });
    out
}

/// Average pooling to a fixed size: window i covers ⌊i n / out⌋ .. ⌈(i + 1) n / out⌉.
pub(super) fn adaptive_avg_pool(x: &Array, shape: &[usize]) -> Array {
    let [h, w, oh, ow] = [x.shape[2], x.shape[3], shape[2], shape[3]];
    let range = |i: usize, n: usize, out: usize| i * n / out..((i + 1) * n).div_ceil(out);
    let mut out = vec![0.0; shape.iter().product()];
    out.par_chunks_mut((oh * ow).max(1)).enumerate().for_each(|(plane, out)| {
        let plane = &x.f()[plane * h * w..][..h * w];
        for (pixel, result) in out.iter_mut().enumerate() {
            let (ys, xs) = (range(pixel / ow, h, oh), range(pixel % ow, w, ow));
            let count = ys.len() * xs.len();
            let sum: f64 = ys.flat_map(|y| &plane[y * w..][xs.clone()]).sum();
            *result = sum / count as f64;
        }
    });
    Array::float(x.dtype, shape, out)
}

/// `inputs` are x, scale, shift, mean, variance; the channel is axis 1.
pub(super) fn batch_norm(inputs: &[&Array], eps: f64) -> Array {
    let [x, scale, shift, mean, variance] = [inputs[0], inputs[1], inputs[2], inputs[3], inputs[4]];
    let inner = x.shape[2..].iter().product::<usize>();
    let mut out = x.f().to_vec();
    out.par_chunks_mut(inner.max(1)).enumerate().for_each(|(plane, out)| {
        let c = plane % x.shape[1];
        let factor = scale.f()[c] / (variance.f()[c] + eps).sqrt();
        out.iter_mut().for_each(|v| *v = (*v - mean.f()[c]) * factor + shift.f()[c]);
    });
    Array::float(x.dtype, &x.shape, out)
}

pub(super) fn softmax_row(row: &mut [f64]) {
    let most = row.iter().copied().fold(f64::NEG_INFINITY, larger);
    row.iter_mut().for_each(|v| *v = (*v - most).exp());
    let sum: f64 = row.iter().sum();
    row.iter_mut().for_each(|v| *v /= sum);
}

pub(super) fn softmax(x: &Array, axis: usize) -> Array {
    let rank = x.shape.len();
    // The axis last; swapping two axes is its own inverse.
    let mut axes: Vec<usize> = (0..rank).collect();
    axes.swap(axis, rank - 1);
    let rows = x.permuted(&axes);
    let mut out = rows.f().to_vec();
    out.par_chunks_mut(x.shape[axis].max(1)).for_each(softmax_row);
    Array::float(x.dtype, &rows.shape, out).permuted(&axes)
}

/// `inputs` are x and perhaps scale and shift.
pub(super) fn layer_norm(inputs: &[&Array], axes: usize, eps: f64) -> Array {
    let x = inputs[0];
    let row = x.shape[x.shape.len() - axes..].iter().product::<usize>();
    let mut out = x.f().to_vec();
    out.par_chunks_mut(row.max(1)).for_each(|out| {
        let mean = out.iter().sum::<f64>() / row as f64;
        let variance = out.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / row as f64;
        let factor = 1.0 / (variance + eps).sqrt();
        out.iter_mut().for_each(|v| *v = (*v - mean) * factor);
        if let [_, scale, shift] = inputs {
            out.iter_mut().zip(scale.f().iter().zip(shift.f())).for_each(|(v, (scale, shift))| *v = *v * scale + shift);
        }
    });
    Array::float(x.dtype, &x.shape, out)
}

pub(super) fn reduce(op: ReduceOp, x: &Array, axes: &[usize], shape: &[usize]) -> Result<Array, String> {
    let order: Vec<usize> = (0..x.shape.len()).filter(|a| !axes.contains(a)).chain(axes.iter().copied()).collect();
    let count: usize = axes.iter().map(|&a| x.shape[a]).product();
    let total: usize = shape.iter().product();
    if count == 0 && total > 0 && matches!(op, ReduceOp::Max | ReduceOp::Min) {
        return Err("the largest or smallest of no elements".into());
    }
    let rows = x.permuted(&order);
    let row = |i: usize| i * count..(i + 1) * count;
    Ok(match &rows.data {
        Data::Float(values) => {
            let reduce = |v: &[f64]| match op {
                ReduceOp::Sum => v.iter().sum(),
                ReduceOp::Mean => v.iter().sum::<f64>() / count as f64,
                ReduceOp::Max => v.iter().copied().fold(f64::NEG_INFINITY, larger),
                ReduceOp::Min => v.iter().copied().fold(f64::INFINITY, smaller),
                _ => v.iter().product(),
            };
            Array::float(x.dtype, shape, (0..total).into_par_iter().map(|i| reduce(&values[row(i)])).collect())
        }
        Data::Int(values) => {
            let reduce = |v: &[i64]| match op {
                ReduceOp::Sum => v.iter().fold(0i64, |a, &b| a.wrapping_add(b)),
                ReduceOp::Max | ReduceOp::Any => v.iter().copied().max().unwrap_or(0),
                ReduceOp::Min | ReduceOp::All => v.iter().copied().min().unwrap_or(1),
                _ => v.iter().fold(1i64, |a, &b| a.wrapping_mul(b)),
            };
            Array::int(x.dtype, shape, (0..total).into_par_iter().map(|i| reduce(&values[row(i)])).collect())
        }
    })
}
