//! Pooling.

use aotfarm_ir::{BinaryOp, Expr, Number, Op, PoolOp, ReduceOp, ValueId, Window};
use aotfarm_protocol::DType;

use super::conv::over_images;
use super::{Emit, Result, pointwise, product, view};

/// Max or average pooling. In ceil mode a last window may reach over the end.
pub(crate) fn pool(e: &mut Emit<'_>, op: PoolOp, x: ValueId, window: Window, ceil_mode: bool) -> Result<ValueId> {
    over_images(e, x)?;
    if !ceil_mode {
        return e.push(Op::Pool { op, window }, &[x]);
    }
    let grown = grown_to_ceil(e, x, window)?;
    if op != (PoolOp::Avg { count_include_pad: true }) || grown == window {
        return e.push(Op::Pool { op, window: grown }, &[x]);
    }
    // What ceil mode adds never counts in the divisor, while the padding does: as zeros that belong to the image.
    let padding = vec![[0, 0], [0, 0], window.pad[0], window.pad[1]];
    let x = view::pad(e, x, padding, Number::ZERO)?;
    let pad = [0, 1].map(|axis| [0, grown.pad[axis][1] - window.pad[axis][1]]);
    e.push(Op::Pool { op: PoolOp::Avg { count_include_pad: false }, window: Window { pad, ..grown } }, &[x])
}

/// The sums of windows, padding included as zeros, divided by `divisor`.
pub(crate) fn sum_over(e: &mut Emit<'_>, x: ValueId, window: Window, ceil_mode: bool, divisor: f64) -> Result<ValueId> {
    over_images(e, x)?;
    let window = if ceil_mode { grown_to_ceil(e, x, window)? } else { window };
    let mean = e.push(Op::Pool { op: PoolOp::Avg { count_include_pad: true }, window }, &[x])?;
    let area = (window.kernel[0] * window.kernel[1]) as f64;
    pointwise::times(e, mean, Number::float(area / divisor))
}

fn grown_to_ceil(e: &Emit<'_>, x: ValueId, mut window: Window) -> Result<Window> {
    for axis in 0..2 {
        let size = e.ty(x).shape[axis + 2].as_const().ok_or("pooling in ceil mode needs constant spatial sizes")?;
        window.grow_to_ceil(axis, size);
    }
    Ok(window)
}

/// The places that [`pool`] finds the largest elements at, of `x` as one row: the first of equal ones.
pub(crate) fn places_of_largest(e: &mut Emit<'_>, x: ValueId, window: Window, ceil_mode: bool) -> Result<ValueId> {
    over_images(e, x)?;
    let window = if ceil_mode { grown_to_ceil(e, x, window)? } else { window };
    let shape = e.shape(x);
    let places = e.push(Op::Iota { length: product(&shape), start: 0, step: 1, dtype: DType::I64 }, &[])?;
    let places = e.reshape(places, shape.clone())?;
    let padding = vec![[0, 0], [0, 0], window.pad[0], window.pad[1]];
    let least = if e.dtype(x).is_float() { Number::float(f64::NEG_INFINITY) } else { Number::from(i64::MIN).of_type(e.dtype(x)) };
    let values = view::pad(e, x, padding.clone(), least)?;
    // No place: any element is larger than the padding.
    let places = view::pad(e, places, padding, Number::from(-1))?;
    let zero = e.full(0i64, DType::I64)?;
    let padded = e.shape(values);
    let is_padded = window.pad != [[0; 2]; 2];
    let mut best: Option<(ValueId, ValueId)> = None;
    // Each tap of all windows at once.
    for (ky, kx) in (0..window.kernel[0]).flat_map(|ky| (0..window.kernel[1]).map(move |kx| (ky, kx))) {
        let mut tap = [values, places];
        for (axis, k) in [(0, ky), (1, kx)] {
            let (start, step) = (k * window.dilation[axis], window.stride[axis]);
            let reach = window.dilation[axis] * (window.kernel[axis] - 1);
            let end = &padded[axis + 2] - &Expr::from(reach - start);
            for part in &mut tap {
                *part = view::slice(e, *part, axis + 2, Expr::from(start), end.clone(), step)?;
            }
        }
        best = Some(match best {
            None => (tap[0], tap[1]),
            Some((value, place)) => {
                let mut larger = e.binary(BinaryOp::Gt, tap[0], value)?;
                if is_padded {
                    let is_first = e.binary(BinaryOp::Lt, place, zero)?;
                    larger = e.binary(BinaryOp::Or, larger, is_first)?;
                }
                (pointwise::select(e, larger, tap[0], value)?, pointwise::select(e, larger, tap[1], place)?)
            }
        });
    }
    best.map(|(_, place)| place).ok_or_else(|| "its window is empty".into())
}

/// Average pooling to a fixed size, windows as in torch's adaptive_avg_pool2d.
pub(crate) fn adaptive_average(e: &mut Emit<'_>, x: ValueId, output: [i64; 2]) -> Result<ValueId> {
    e.push(Op::AdaptiveAvgPool { output }, &[x])
}

/// The mean over all spatial axes, which stay with size 1.
pub(crate) fn global_average(e: &mut Emit<'_>, x: ValueId) -> Result<ValueId> {
    let axes = (2..e.rank(x)).collect();
    e.push(Op::Reduce { op: ReduceOp::Mean, axes, keepdim: true }, &[x])
}
