//! Pooling over images.

use aotfarm_protocol::DType;
use rayon::prelude::*;

use super::rules::{ensure, float, like, rank4};
use super::{Group, Op, Window, foreign};
use crate::array::{Array, Data, larger};
use crate::syntax::{NodeText, TextError};
use crate::types::TensorType;
use crate::{Bindings, MAX_SIZE};

/// How a pooling window combines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PoolOp {
    /// The largest element; padding never wins.
    Max,
    /// The mean.
    Avg {
        /// Whether padding counts in the divisor.
        count_include_pad: bool,
    },
}

pub(super) struct Pooling;

impl Group for Pooling {
    fn name(&self, op: &Op) -> &'static str {
        match op {
            Op::Pool { op: PoolOp::Max, .. } => "max_pool",
            Op::Pool { op: PoolOp::Avg { .. }, .. } => "avg_pool",
            Op::AdaptiveAvgPool { .. } => "adaptive_avg_pool",
            _ => foreign(op),
        }
    }

    fn arity(&self, _: &Op) -> (usize, usize) {
        (1, 1)
    }

    fn infer(&self, op: &Op, operands: &[&TensorType]) -> Result<TensorType, String> {
        let (dtype, x) = (operands[0].dtype, operands[0].shape.as_slice());
        match op {
            Op::Pool { op, window } => {
                ensure(dtype != DType::Bool, || "x must be numeric".into())?;
                ensure(*op == PoolOp::Max || dtype.is_float(), || "an average needs a floating-point x".into())?;
                rank4(x)?;
                window.check()?;
                window.check_padding()?;
                let [h, w] = window.slide(x);
                Ok(like(operands, &[x[0].clone(), x[1].clone(), h, w]))
            }
            Op::AdaptiveAvgPool { output } => {
                float(operands)?;
                rank4(x)?;
                ensure(output.iter().all(|n| (1..=MAX_SIZE).contains(n)), || format!("an output of {output:?} is not positive"))?;
                Ok(like(operands, &[x[0].clone(), x[1].clone(), output[0].into(), output[1].into()]))
            }
            _ => foreign(op),
        }
    }

    fn attributes(&self, op: &Op) -> Vec<String> {
        match op {
            Op::Pool { op, window } => {
                let mut attributes = vec![format!("kernel={:?}", window.kernel)];
                attributes.extend(window.attributes());
                if *op == (PoolOp::Avg { count_include_pad: true }) {
                    attributes.push("count_include_pad".to_owned());
                }
                attributes
            }
            Op::AdaptiveAvgPool { output } => vec![format!("output={output:?}")],
            _ => foreign(op),
        }
    }

    fn read(&self, name: &str, node: &mut NodeText<'_>) -> Result<Option<Op>, TextError> {
        Ok(Some(match name {
            "max_pool" | "avg_pool" => {
                let kernel = node.pair("kernel", None)?;
                let window = Window::read(kernel, node)?;
                let op = if name == "max_pool" {
                    PoolOp::Max
                } else {
                    PoolOp::Avg { count_include_pad: node.flag("count_include_pad")? }
                };
                Op::Pool { op, window }
            }
            "adaptive_avg_pool" => Op::AdaptiveAvgPool { output: node.pair("output", None)? },
            _ => return Ok(None),
        }))
    }

    fn evaluate(&self, op: &Op, x: &[&Array], shape: &[usize], _: &Bindings) -> Result<Array, String> {
        Ok(match op {
            Op::Pool { op, window } => pool(*op, x[0], window, shape),
            Op::AdaptiveAvgPool { .. } => adaptive_avg_pool(x[0], shape),
            _ => foreign(op),
        })
    }
}

/// Pooling over NCHW, plane by plane.
fn pool(op: PoolOp, x: &Array, window: &Window, shape: &[usize]) -> Array {
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
fn adaptive_avg_pool(x: &Array, shape: &[usize]) -> Array {
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
