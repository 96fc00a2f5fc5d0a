//! Tensors that go in and out of the interpreter, and the files that hold test cases.

use std::collections::BTreeMap;

use aotfarm_protocol::DType;
use half::{bf16, f16};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;

use crate::safetensors::{from_safetensors, to_safetensors};

/// A tensor: little-endian, row-major, contiguous.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Element type.
    pub dtype: DType,
    /// Size of each dimension.
    pub shape: Vec<usize>,
    /// The elements; a Bool takes one byte, 0 or 1.
    pub data: Vec<u8>,
}

/// Why a case file cannot be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CaseError {
    /// The file is not safetensors, or damaged.
    #[error("the case file is damaged: {0}")]
    Damaged(String),
    /// A tensor's name is neither `in.i` nor `out.i`, or a position is missing.
    #[error("the case file holds `{0}`, but `in.0`, `in.1` …, `out.0` … and `write.0` … without gaps are expected")]
    Name(String),
    /// An element type that no model has.
    #[error("tensor `{name}` of the case file has the unsupported element type {dtype}")]
    DType {
        /// The tensor.
        name: String,
        /// As safetensors names it.
        dtype: String,
    },
}

/// A test case: what a call takes, and what it is expected to leave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Case {
    /// `in.0`, `in.1` …
    pub inputs: Vec<Tensor>,
    /// `out.0`, `out.1` …
    pub outputs: Vec<Tensor>,
    /// `write.0`, `write.1` …: what the inputs that the model changes hold, in the order of the graph's `writes`.
    pub writes: Vec<Tensor>,
}

impl Tensor {
    /// Of f32 values. Panics when their number is not that of the shape.
    pub fn from_f32(shape: &[usize], values: &[f32]) -> Self {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "values for the shape {shape:?}");
        Self { dtype: DType::F32, shape: shape.to_vec(), data: values.iter().flat_map(|v| v.to_le_bytes()).collect() }
    }

    /// Of i64 values. Panics when their number is not that of the shape.
    pub fn from_i64(shape: &[usize], values: &[i64]) -> Self {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "values for the shape {shape:?}");
        Self { dtype: DType::I64, shape: shape.to_vec(), data: values.iter().flat_map(|v| v.to_le_bytes()).collect() }
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.data.len() / self.dtype.size()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// The values as f64; integers beyond 2⁵³ are rounded.
    pub fn to_f64(&self) -> Vec<f64> {
        if self.dtype.is_float() {
            floats(self.dtype, &self.data)
        } else {
            integers(self.dtype, &self.data).iter().map(|&v| v as f64).collect()
        }
    }

    /// The values as f32, rounded.
    pub fn to_f32(&self) -> Vec<f32> {
        self.to_f64().iter().map(|&v| v as f32).collect()
    }

    /// `‖self - expected‖ / ‖expected‖` in f64; infinite for other shapes or non-finite differences, 0 when both are all zero.
    pub fn relative_error(&self, expected: &Self) -> f64 {
        if self.shape != expected.shape {
            return f64::INFINITY;
        }
        let (mut difference, mut norm) = (0.0, 0.0);
        for (a, b) in self.to_f64().into_iter().zip(expected.to_f64()) {
            if a != b {
                difference += (a - b) * (a - b);
            }
            norm += b * b;
        }
        let error = if difference == 0.0 { 0.0 } else { (difference / norm).sqrt() };
        if error.is_nan() { f64::INFINITY } else { error }
    }
}

/// Elements of a floating-point type.
pub(crate) fn floats(dtype: DType, data: &[u8]) -> Vec<f64> {
    match dtype {
        DType::F16 => data.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f64()).collect(),
        DType::Bf16 => data.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f64()).collect(),
        DType::F32 => data.as_chunks().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect(),
        _ => data.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
    }
}

/// Elements of an integer type or Bool.
pub(crate) fn integers(dtype: DType, data: &[u8]) -> Vec<i64> {
    match dtype {
        DType::I8 => data.iter().map(|&b| i64::from(b as i8)).collect(),
        DType::U8 => data.iter().map(|&b| i64::from(b)).collect(),
        DType::Bool => data.iter().map(|&b| i64::from(b != 0)).collect(),
        DType::I16 => data.as_chunks().0.iter().map(|b| i64::from(i16::from_le_bytes(*b))).collect(),
        DType::I32 => data.as_chunks().0.iter().map(|b| i64::from(i32::from_le_bytes(*b))).collect(),
        _ => data.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)).collect(),
    }
}

pub(crate) fn float_bytes(dtype: DType, values: &[f64]) -> Vec<u8> {
    match dtype {
        DType::F16 => values.iter().flat_map(|&v| f16::from_f64(v).to_le_bytes()).collect(),
        DType::Bf16 => values.iter().flat_map(|&v| bf16::from_f64(v).to_le_bytes()).collect(),
        DType::F32 => values.iter().flat_map(|&v| (v as f32).to_le_bytes()).collect(),
        _ => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
    }
}

pub(crate) fn integer_bytes(dtype: DType, values: &[i64]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes().into_iter().take(dtype.size())).collect()
}

impl Case {
    /// Reads a safetensors file of one call.
    ///
    /// # Errors
    /// As [`Case::read_calls`], and when the file holds more calls.
    pub fn read(bytes: &[u8]) -> Result<Self, CaseError> {
        let mut calls = Self::read_calls(bytes)?;
        match calls.len() {
            0 | 1 => Ok(calls.pop().unwrap_or_default()),
            _ => Err(CaseError::Name("1.in.0".to_owned())),
        }
    }

    /// Reads a safetensors file of what the calls of one session take and leave, one after the other: the tensors `in.i`, `out.i` and
    /// `write.i` of the first, `1.in.i` and so on of the one after it.
    ///
    /// # Errors
    /// When it is no such file.
    pub fn read_calls(bytes: &[u8]) -> Result<Vec<Self>, CaseError> {
        let file = SafeTensors::deserialize(bytes).map_err(|error| CaseError::Damaged(error.to_string()))?;
        let mut found = BTreeMap::new();
        for (name, view) in file.iter() {
            let key = place(name).ok_or_else(|| CaseError::Name(name.to_owned()))?;
            let dtype = from_safetensors(view.dtype())
                .ok_or_else(|| CaseError::DType { name: name.to_owned(), dtype: format!("{:?}", view.dtype()) })?;
            found.insert(key, Tensor { dtype, shape: view.shape().to_vec(), data: view.data().to_vec() });
        }
        let mut calls = Vec::new();
        for ((call, kind, position), tensor) in found {
            if call == calls.len() {
                calls.push(Self::default());
            }
            let list = calls.get_mut(call).map(|case| match kind {
                "in" => &mut case.inputs,
                "out" => &mut case.outputs,
                _ => &mut case.writes,
            });
            match list {
                Some(list) if list.len() == position => list.push(tensor),
                _ => return Err(CaseError::Name(format!("{}{kind}.{position}", prefix(call)))),
            }
        }
        Ok(calls)
    }

    /// The bytes of the file of one call.
    pub fn write(&self) -> Vec<u8> {
        Self::write_calls(std::slice::from_ref(self))
    }

    /// The bytes of the file of the calls of a session.
    pub fn write_calls(calls: &[Self]) -> Vec<u8> {
        let mut tensors = Vec::new();
        for (call, Self { inputs, outputs, writes }) in calls.iter().enumerate() {
            for (kind, list) in [("in", inputs), ("out", outputs), ("write", writes)] {
                tensors.extend(list.iter().enumerate().map(|(i, t)| (format!("{}{kind}.{i}", prefix(call)), t.clone())));
            }
        }
        write_tensors(&tensors)
    }
}

/// What is before the names of a call's tensors: nothing for the first one, and `1.` for the next.
fn prefix(call: usize) -> String {
    if call == 0 { String::new() } else { format!("{call}.") }
}

/// The call, kind and position of the tensor of that name.
fn place(name: &str) -> Option<(usize, &str, usize)> {
    let (call, name) = match name.split_once('.')? {
        (call, rest) if rest.contains('.') => (call.parse().ok().filter(|call| *call > 0)?, rest),
        _ => (0, name),
    };
    let (kind, position) = name.split_once('.')?;
    matches!(kind, "in" | "out" | "write").then_some((call, kind, position.parse().ok()?))
}

/// The bytes of a safetensors file with these tensors. Panics when two have one name, or one has not the bytes of its shape.
pub fn write_tensors(tensors: &[(String, Tensor)]) -> Vec<u8> {
    let views = tensors.iter().map(|(name, t)| {
        (name, TensorView::new(to_safetensors(t.dtype), t.shape.clone(), &t.data).expect("a tensor has the bytes of its shape"))
    });
    safetensors::serialize(views, None).expect("views with distinct names always serialise")
}
