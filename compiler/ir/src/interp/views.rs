//! Operators that move elements.

use std::sync::Arc;

use aotfarm_protocol::DType;

use super::data::{Array, Data, round, strides};

/// `length` of every `step`-th position of an axis, from `start`.
pub(super) fn slice(x: &Array, axis: usize, start: usize, step: usize, shape: &[usize]) -> Array {
    let mut steps = strides(&x.shape);
    let offset = start * steps[axis] as usize;
    steps[axis] *= step as isize;
    x.strided(shape, &steps, offset)
}

pub(super) fn concat(inputs: &[&Array], axis: usize, shape: &[usize]) -> Array {
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

pub(super) fn full(value: f64, dtype: DType, shape: &[usize]) -> Array {
    let count = shape.iter().product();
    if dtype.is_float() {
        Array::float(dtype, shape, vec![round(dtype, value); count])
    } else {
        let value = if dtype == DType::Bool { i64::from(value != 0.0) } else { value as i64 };
        Array::int(dtype, shape, vec![value; count])
    }
}

pub(super) fn iota(start: i64, step: i64, dtype: DType, length: usize) -> Array {
    let values = (0..length as i64).map(|i| start.wrapping_add(step.wrapping_mul(i)));
    if dtype.is_float() {
        Array::float(dtype, &[length], values.map(|v| round(dtype, v as f64)).collect())
    } else {
        Array::int(dtype, &[length], values.collect())
    }
}

pub(super) fn pad(x: &Array, pads: &[[i64; 2]], value: f64, shape: &[usize]) -> Array {
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

/// A position from an index that may count from the end.
fn position(index: i64, size: usize) -> Result<usize, String> {
    let at = if index < 0 { index.checked_add(size as i64) } else { Some(index) };
    at.and_then(|at| usize::try_from(at).ok())
        .filter(|&at| at < size)
        .ok_or_else(|| format!("the index {index} is outside an axis of size {size}"))
}

pub(super) fn take(x: &Array, indices: &Array, axis: usize, shape: &[usize]) -> Result<Array, String> {
    fn pick<T: Copy>(values: &[T], size: usize, inner: usize, positions: &[usize]) -> Vec<T> {
        let slab = size * inner;
        let mut out = Vec::with_capacity(values.len() / slab.max(1) * positions.len() * inner);
        for outer in values.chunks_exact(slab.max(1)) {
            for &at in positions {
                out.extend_from_slice(&outer[at * inner..(at + 1) * inner]);
            }
        }
        out
    }
    let size = x.shape[axis];
    let inner: usize = x.shape[axis + 1..].iter().product();
    let positions: Vec<usize> = indices.i().iter().map(|&i| position(i, size)).collect::<Result<_, _>>()?;
    Ok(match &x.data {
        Data::Float(values) => Array::float(x.dtype, shape, pick(values, size, inner, &positions)),
        Data::Int(values) => Array::int(x.dtype, shape, pick(values, size, inner, &positions)),
    })
}

pub(super) fn gather_elements(x: &Array, indices: &Array, axis: usize) -> Result<Array, String> {
    let (from, to) = (strides(&x.shape), strides(&indices.shape));
    let mut places = Vec::with_capacity(indices.i().len());
    for (at, &index) in indices.i().iter().enumerate() {
        let mut place = 0;
        for k in 0..from.len() {
            let coordinate = at / to[k] as usize % indices.shape[k];
            place += from[k] as usize * if k == axis { position(index, x.shape[k])? } else { coordinate };
        }
        places.push(place);
    }
    Ok(match &x.data {
        Data::Float(values) => Array::float(x.dtype, &indices.shape, places.iter().map(|&p| values[p]).collect()),
        Data::Int(values) => Array::int(x.dtype, &indices.shape, places.iter().map(|&p| values[p]).collect()),
    })
}
