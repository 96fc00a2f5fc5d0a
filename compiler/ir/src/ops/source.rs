//! Tensors made of nothing.

use aotfarm_protocol::DType;

use super::rules::ensure;
use super::{Group, Op, foreign};
use crate::array::{Array, round};
use crate::syntax::{NodeText, TextError};
use crate::types::TensorType;
use crate::{Bindings, Number};

pub(super) struct Source;

impl Group for Source {
    fn name(&self, op: &Op) -> &'static str {
        match op {
            Op::Iota { .. } => "iota",
            Op::Full { .. } => "full",
            _ => foreign(op),
        }
    }

    fn arity(&self, _: &Op) -> (usize, usize) {
        (0, 0)
    }

    fn infer(&self, op: &Op, _: &[&TensorType]) -> Result<TensorType, String> {
        match op {
            Op::Iota { length, dtype, .. } => {
                ensure(*dtype != DType::Bool, || "the element type must be numeric".into())?;
                Ok(TensorType { dtype: *dtype, shape: vec![length.clone()] })
            }
            Op::Full { shape, dtype, .. } => Ok(TensorType { dtype: *dtype, shape: shape.clone() }),
            _ => foreign(op),
        }
    }

    fn attributes(&self, op: &Op) -> Vec<String> {
        match op {
            Op::Iota { start, step, .. } => {
                let mut attributes = Vec::new();
                if *start != 0 {
                    attributes.push(format!("start={start}"));
                }
                if *step != 1 {
                    attributes.push(format!("step={step}"));
                }
                attributes
            }
            Op::Full { value, .. } => vec![format!("value={value:?}")],
            _ => foreign(op),
        }
    }

    fn read(&self, name: &str, node: &mut NodeText<'_>) -> Result<Option<Op>, TextError> {
        let TensorType { dtype, shape } = node.result;
        Ok(Some(match name {
            "iota" => {
                let [length] = shape.as_slice() else { return Err(node.error("the result of `iota` has one dimension")) };
                let (start, step) = (node.int("start", Some(0))?, node.int("step", Some(1))?);
                Op::Iota { length: length.clone(), start, step, dtype: *dtype }
            }
            "full" => Op::Full { value: node.number("value", None)?, shape: shape.clone(), dtype: *dtype },
            _ => return Ok(None),
        }))
    }

    fn evaluate(&self, op: &Op, _: &[&Array], shape: &[usize], _: &Bindings) -> Result<Array, String> {
        Ok(match op {
            Op::Iota { start, step, dtype, .. } => iota(*start, *step, *dtype, shape[0]),
            Op::Full { value, dtype, .. } => full(*value, *dtype, shape),
            _ => foreign(op),
        })
    }
}

/// One value everywhere.
pub(super) fn full(value: Number, dtype: DType, shape: &[usize]) -> Array {
    let count = shape.iter().product();
    if dtype.is_float() {
        Array::float(dtype, shape, vec![round(dtype, value.to_f64()); count])
    } else {
        let value = if dtype == DType::Bool { i64::from(value != 0.0) } else { value.to_i64() };
        Array::int(dtype, shape, vec![value; count])
    }
}

fn iota(start: i64, step: i64, dtype: DType, length: usize) -> Array {
    let values = (0..length as i64).map(|i| start.wrapping_add(step.wrapping_mul(i)));
    if dtype.is_float() {
        Array::float(dtype, &[length], values.map(|v| round(dtype, v as f64)).collect())
    } else {
        Array::int(dtype, &[length], values.collect())
    }
}
