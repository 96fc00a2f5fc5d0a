//! The same elements at other places.

use std::sync::Arc;

use super::rules::{broadcast, check_axes, check_axis, ensure, like, never_negative, same_dtype};
use super::source::full;
use super::{Group, Op, foreign};
use crate::array::{Array, Data, strides};
use crate::syntax::{NodeText, TextError};
use crate::types::{TensorType, shape_text};
use crate::{Bindings, Expr, GraphDim, MAX_SIZE, Number};

pub(super) struct View;

impl Group for View {
    fn name(&self, op: &Op) -> &'static str {
        match op {
            Op::Reshape { .. } => "reshape",
            Op::Permute { .. } => "permute",
            Op::Expand { .. } => "expand",
            Op::Slice { .. } => "slice",
            Op::Concat { .. } => "concat",
            Op::Pad { .. } => "pad",
            _ => foreign(op),
        }
    }

    fn arity(&self, op: &Op) -> (usize, usize) {
        if let Op::Concat { .. } = op { (1, usize::MAX) } else { (1, 1) }
    }

    fn infer(&self, op: &Op, operands: &[&TensorType]) -> Result<TensorType, String> {
        let x = operands[0].shape.as_slice();
        let shape = match op {
            Op::Reshape { shape } => {
                let (from, to) = (x.iter().product::<Expr>(), shape.iter().product::<Expr>());
                ensure(!from.is_overflow() && from == to, || {
                    format!("cannot reshape {from} elements to {} ({to} elements)", shape_text(shape))
                })?;
                shape.clone()
            }
            Op::Permute { axes } => {
                check_axes(axes, x.len())?;
                ensure(axes.len() == x.len(), || format!("{axes:?} is not a permutation of {} axes", x.len()))?;
                axes.iter().map(|&a| x[a].clone()).collect()
            }
            Op::Expand { shape } => {
                let fits = broadcast(x, shape).is_ok_and(|s| s == *shape);
                ensure(fits, || format!("cannot expand to {}", shape_text(shape)))?;
                shape.clone()
            }
            Op::Slice { axis, start, end, step } => {
                check_axis(*axis, x.len())?;
                ensure((1..=MAX_SIZE).contains(step), || format!("the step {step} is not positive"))?;
                let length = end - start;
                let ends = length.as_const().is_none_or(|n| n >= 0);
                ensure(ends, || format!("the slice {start}..{end} ends before it starts"))?;
                let mut shape = x.to_vec();
                shape[*axis] = (length + (step - 1)).floor_div(&Expr::from(*step));
                shape
            }
            Op::Concat { axis } => {
                same_dtype(operands)?;
                check_axis(*axis, x.len())?;
                let mut shape = x.to_vec();
                for other in &operands[1..] {
                    let fits = other.shape.len() == x.len() && (0..x.len()).all(|i| i == *axis || other.shape[i] == x[i]);
                    ensure(fits, || format!("operands must be equal but for axis {axis}"))?;
                    shape[*axis] = &shape[*axis] + &other.shape[*axis];
                }
                shape
            }
            Op::Pad { pads, .. } => {
                ensure(pads.len() == x.len(), || format!("padding for {} axes, but x has {}", pads.len(), x.len()))?;
                x.iter().zip(pads).map(|(size, [before, after])| size + *before + *after).collect()
            }
            _ => foreign(op),
        };
        Ok(like(operands, &shape))
    }

    fn check_ranges(&self, op: &Op, operands: &[&TensorType], dims: &[GraphDim]) -> Result<(), String> {
        let Op::Slice { axis, start, end, .. } = op else { return Ok(()) };
        let size = &operands[0].shape[*axis];
        let inside = [start, &(end - start), &(size - end)].into_iter().all(|distance| never_negative(distance, dims));
        ensure(inside, || format!("the slice {start}..{end} may leave the axis of size {size}; clamp it to 0..{size}"))
    }

    fn attributes(&self, op: &Op) -> Vec<String> {
        match op {
            Op::Permute { axes } => vec![format!("axes={axes:?}")],
            Op::Slice { axis, start, end, step } => {
                let mut attributes = vec![format!("axis={axis}"), format!("start={start}"), format!("end={end}")];
                if *step != 1 {
                    attributes.push(format!("step={step}"));
                }
                attributes
            }
            Op::Concat { axis } => vec![format!("axis={axis}")],
            Op::Pad { pads, value } => {
                let mut attributes = vec![format!("pads={pads:?}")];
                if value.as_f64().map(f64::to_bits) != Some(0) {
                    attributes.push(format!("value={value:?}"));
                }
                attributes
            }
            _ => Vec::new(),
        }
    }

    fn read(&self, name: &str, node: &mut NodeText<'_>) -> Result<Option<Op>, TextError> {
        Ok(Some(match name {
            "reshape" => Op::Reshape { shape: node.result.shape.clone() },
            "permute" => Op::Permute { axes: node.axes("axes")? },
            "expand" => Op::Expand { shape: node.result.shape.clone() },
            "slice" => Op::Slice {
                axis: node.index("axis")?,
                start: node.expr("start")?,
                end: node.expr("end")?,
                step: node.int("step", Some(1))?,
            },
            "concat" => Op::Concat { axis: node.index("axis")? },
            "pad" => Op::Pad { pads: node.pairs("pads", None)?, value: node.number("value", Some(Number::ZERO))? },
            _ => return Ok(None),
        }))
    }

    fn evaluate(&self, op: &Op, x: &[&Array], shape: &[usize], bindings: &Bindings) -> Result<Array, String> {
        Ok(match op {
            Op::Reshape { .. } => x[0].reshaped(shape),
            Op::Permute { axes } => x[0].permuted(axes),
            Op::Expand { .. } => x[0].broadcast_to(shape),
            Op::Slice { axis, start, step, .. } => {
                let first = start.eval(bindings).map_err(|error| error.to_string())?;
                let first = usize::try_from(first).map_err(|_| format!("the slice starts at {first}"))?;
                slice(x[0], *axis, first, *step as usize, shape)
            }
            Op::Concat { axis } => concat(x, *axis, shape),
            Op::Pad { pads, value } => pad(x[0], pads, *value, shape),
            _ => foreign(op),
        })
    }
}

/// `length` of every `step`-th position of an axis, from `start`.
fn slice(x: &Array, axis: usize, start: usize, step: usize, shape: &[usize]) -> Array {
    let mut steps = strides(&x.shape);
    let offset = start * steps[axis] as usize;
    steps[axis] *= step as isize;
    x.strided(shape, &steps, offset)
}

fn concat(inputs: &[&Array], axis: usize, shape: &[usize]) -> Array {
    fn join<'a, T: Copy + 'a>(inputs: &[&Array], values: impl Fn(usize) -> &'a [T], axis: usize) -> Vec<T> {
        let outer: usize = inputs[0].shape[..axis].iter().product();
        let mut out = Vec::new();
        for row in 0..outer {
            for (i, input) in inputs.iter().enumerate() {
                let inner: usize = input.shape[axis..].iter().product();
                out.extend_from_slice(&values(i)[row * inner..(row + 1) * inner]);
            }
        }
        out
    }
    let dtype = inputs[0].dtype;
    match inputs[0].data {
        Data::Float(_) => Array::float(dtype, shape, join(inputs, |i| inputs[i].f(), axis)),
        Data::Int(_) => Array::int(dtype, shape, join(inputs, |i| inputs[i].i(), axis)),
    }
}

fn pad(x: &Array, pads: &[[i64; 2]], value: Number, shape: &[usize]) -> Array {
    fn copy<T: Copy>(values: &[T], size: &[usize], pads: &[[i64; 2]], out: &mut [T], shape: &[usize]) {
        let (from, to) = (strides(size), strides(shape));
        let place = |axis: usize, i: usize| {
            let moved = i as i64 + pads[axis][0];
            (0..shape[axis] as i64).contains(&moved).then_some(moved as usize)
        };
        // Every source position whose outer coordinates stay inside, then its row.
        let Some(last) = size.len().checked_sub(1) else {
            out.copy_from_slice(values);
            return;
        };
        let rows: usize = size[..last].iter().product();
        for row in 0..rows {
            let (mut rest, mut source, mut target) = (row, 0, Some(0));
            for axis in (0..last).rev() {
                let i = rest % size[axis];
                rest /= size[axis];
                source += i * from[axis] as usize;
                target = target.zip(place(axis, i)).map(|(t, j)| t + j * to[axis] as usize);
            }
            let Some(target) = target else { continue };
            for i in 0..size[last] {
                if let Some(j) = place(last, i) {
                    out[target + j] = values[source + i];
                }
            }
        }
    }
    let filled = full(value, x.dtype, shape);
    match (&x.data, filled.data) {
        (Data::Float(values), Data::Float(mut out)) => {
            copy(values, &x.shape, pads, Arc::make_mut(&mut out).as_mut_slice(), shape);
            Array { dtype: x.dtype, shape: shape.to_vec(), data: Data::Float(out) }
        }
        (Data::Int(values), Data::Int(mut out)) => {
            copy(values, &x.shape, pads, Arc::make_mut(&mut out).as_mut_slice(), shape);
            Array { dtype: x.dtype, shape: shape.to_vec(), data: Data::Int(out) }
        }
        _ => unreachable!("padding is made of the tensor's own element type"),
    }
}
