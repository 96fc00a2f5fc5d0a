//! Values that operators compute with: all floating-point types are held in f64 (and rounded only by casts and at the outputs),
//! integers and Bool in i64.

use aotfarm_protocol::DType;
use half::{bf16, f16};
use std::sync::Arc;

use crate::tensor::{Tensor, float_bytes, floats, integer_bytes, integers};

#[derive(Debug, Clone)]
pub(crate) enum Data {
    Float(Arc<Vec<f64>>),
    Int(Arc<Vec<i64>>),
}

/// A value with its sizes known.
#[derive(Debug, Clone)]
pub(crate) struct Array {
    pub(crate) dtype: DType,
    pub(crate) shape: Vec<usize>,
    pub(crate) data: Data,
}

impl Array {
    pub(crate) fn from_bytes(dtype: DType, shape: &[usize], bytes: &[u8]) -> Self {
        if dtype.is_float() {
            Self::float(dtype, shape, floats(dtype, bytes))
        } else {
            Self::int(dtype, shape, integers(dtype, bytes))
        }
    }

    pub(crate) fn float(dtype: DType, shape: &[usize], values: Vec<f64>) -> Self {
        debug_assert_eq!(values.len(), shape.iter().product::<usize>());
        Self { dtype, shape: shape.to_vec(), data: Data::Float(Arc::new(values)) }
    }

    /// Values are wrapped to the element type.
    pub(crate) fn int(dtype: DType, shape: &[usize], mut values: Vec<i64>) -> Self {
        debug_assert_eq!(values.len(), shape.iter().product::<usize>());
        if dtype != DType::I64 {
            values.iter_mut().for_each(|v| *v = wrap(dtype, *v));
        }
        Self { dtype, shape: shape.to_vec(), data: Data::Int(Arc::new(values)) }
    }

    pub(crate) fn to_tensor(&self) -> Tensor {
        let data = match &self.data {
            Data::Float(values) => float_bytes(self.dtype, values),
            Data::Int(values) => integer_bytes(self.dtype, values),
        };
        Tensor { dtype: self.dtype, shape: self.shape.clone(), data }
    }

    /// The values of a floating-point array; the shape rules have made sure that it is one.
    pub(crate) fn f(&self) -> &[f64] {
        match &self.data {
            Data::Float(values) => values,
            Data::Int(_) => unreachable!("the shape rules ask for a floating-point operand"),
        }
    }

    /// The values of an integer or Bool array; the shape rules have made sure that it is one.
    pub(crate) fn i(&self) -> &[i64] {
        match &self.data {
            Data::Int(values) => values,
            Data::Float(_) => unreachable!("the shape rules ask for an integer operand"),
        }
    }

    pub(crate) fn reshaped(&self, shape: &[usize]) -> Self {
        Self { dtype: self.dtype, shape: shape.to_vec(), data: self.data.clone() }
    }

    /// The array read with other strides (in elements) from `offset`.
    pub(crate) fn strided(&self, shape: &[usize], strides: &[isize], offset: usize) -> Self {
        match &self.data {
            Data::Float(values) => Self::float(self.dtype, shape, strided(values, shape, strides, offset)),
            Data::Int(values) => Self::int(self.dtype, shape, strided(values, shape, strides, offset)),
        }
    }

    pub(crate) fn permuted(&self, axes: &[usize]) -> Self {
        if axes.iter().enumerate().all(|(i, &a)| i == a) {
            return self.clone();
        }
        let strides = strides(&self.shape);
        let shape: Vec<usize> = axes.iter().map(|&a| self.shape[a]).collect();
        self.strided(&shape, &axes.iter().map(|&a| strides[a]).collect::<Vec<_>>(), 0)
    }

    pub(crate) fn broadcast_to(&self, shape: &[usize]) -> Self {
        if self.shape == shape {
            return self.clone();
        }
        let lead = shape.len() - self.shape.len();
        let own = strides(&self.shape);
        let strides: Vec<isize> =
            (0..shape.len()).map(|i| if i < lead || self.shape[i - lead] == 1 { 0 } else { own[i - lead] }).collect();
        self.strided(shape, &strides, 0)
    }

    pub(crate) fn cast(&self, dtype: DType) -> Self {
        let shape = &self.shape;
        match (&self.data, dtype.is_float()) {
            (Data::Float(values), true) => Self::float(dtype, shape, values.iter().map(|&v| round(dtype, v)).collect()),
            (Data::Float(values), false) if dtype == DType::Bool => {
                Self::int(dtype, shape, values.iter().map(|&v| i64::from(v != 0.0)).collect())
            }
            (Data::Float(values), false) => Self::int(dtype, shape, values.iter().map(|&v| v as i64).collect()),
            (Data::Int(values), true) => Self::float(dtype, shape, values.iter().map(|&v| round(dtype, v as f64)).collect()),
            (Data::Int(values), false) => Self::int(dtype, shape, values.to_vec()),
        }
    }
}

/// A number as the nearest of a floating-point type.
pub(crate) fn round(dtype: DType, value: f64) -> f64 {
    match dtype {
        DType::F16 => f16::from_f64(value).to_f64(),
        DType::Bf16 => bf16::from_f64(value).to_f64(),
        DType::F32 => f64::from(value as f32),
        _ => value,
    }
}

pub(crate) fn wrap(dtype: DType, value: i64) -> i64 {
    match dtype {
        DType::I8 => i64::from(value as i8),
        DType::U8 => i64::from(value as u8),
        DType::I16 => i64::from(value as i16),
        DType::I32 => i64::from(value as i32),
        DType::Bool => i64::from(value != 0),
        _ => value,
    }
}

/// Row-major strides in elements.
pub(crate) fn strides(shape: &[usize]) -> Vec<isize> {
    let mut strides = vec![1isize; shape.len()];
    for i in (1..shape.len()).rev() {
        strides[i - 1] = strides[i] * shape[i] as isize;
    }
    strides
}

fn strided<T: Copy>(values: &[T], shape: &[usize], strides: &[isize], offset: usize) -> Vec<T> {
    let total: usize = shape.iter().product();
    let mut result = Vec::with_capacity(total);
    if total == 0 {
        return result;
    }
    let (Some((&inner, outer)), Some(&step)) = (shape.split_last(), strides.last()) else { return vec![values[offset]] };
    let mut index = vec![0usize; outer.len()];
    let mut start = offset as isize;
    loop {
        match step {
            1 => result.extend_from_slice(&values[start as usize..start as usize + inner]),
            0 => result.extend(std::iter::repeat_n(values[start as usize], inner)),
            _ => result.extend((0..inner as isize).map(|k| values[(start + k * step) as usize])),
        }
        // The next position of the outer dimensions, the last fastest.
        let mut axis = outer.len();
        loop {
            if axis == 0 {
                return result;
            }
            axis -= 1;
            index[axis] += 1;
            start += strides[axis];
            if index[axis] < outer[axis] {
                break;
            }
            start -= strides[axis] * outer[axis] as isize;
            index[axis] = 0;
        }
    }
}

/// The larger; NaN if either is.
pub(crate) fn larger(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

/// The smaller; NaN if either is.
pub(crate) fn smaller(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.min(b) }
}
