//! Elements at places that a tensor holds.

use aotfarm_protocol::DType;

use super::rules::{check_axis, ensure, like, never_negative};
use super::{Group, Op, foreign};
use crate::array::{Array, Data, strides};
use crate::syntax::{NodeText, TextError};
use crate::types::TensorType;
use crate::{Bindings, GraphDim};

pub(super) struct Gather;

impl Group for Gather {
    fn name(&self, op: &Op) -> &'static str {
        match op {
            Op::Take { .. } => "take",
            Op::GatherElements { .. } => "gather_elements",
            _ => foreign(op),
        }
    }

    fn arity(&self, _: &Op) -> (usize, usize) {
        (2, 2)
    }

    fn infer(&self, op: &Op, operands: &[&TensorType]) -> Result<TensorType, String> {
        let (Op::Take { axis } | Op::GatherElements { axis }) = op else { foreign(op) };
        let (x, indices) = (operands[0].shape.as_slice(), operands[1]);
        check_axis(*axis, x.len())?;
        ensure(matches!(indices.dtype, DType::I32 | DType::I64), || {
            format!("indices must be i32 or i64, not {}", indices.dtype)
        })?;
        if let Op::Take { .. } = op {
            return Ok(like(operands, &[&x[..*axis], &indices.shape, &x[axis + 1..]].concat()));
        }
        ensure(indices.shape.len() == x.len(), || "data and indices must have the same rank".into())?;
        Ok(like(operands, &indices.shape))
    }

    fn check_ranges(&self, op: &Op, operands: &[&TensorType], dims: &[GraphDim]) -> Result<(), String> {
        let (Op::Take { axis } | Op::GatherElements { axis }) = op else { foreign(op) };
        let size = &operands[0].shape[*axis];
        ensure(size.as_const().is_some() || size.bounds(dims).0 > 0, || {
            format!("the axis of size {size} may be empty, and then has no element for an index to take")
        })?;
        if let Op::Take { .. } = op {
            return Ok(());
        }
        for (k, (size, index)) in operands[0].shape.iter().zip(&operands[1].shape).enumerate() {
            ensure(k == *axis || never_negative(&(size - index), dims), || {
                format!("axis {k} of the indices ({index}) may be longer than that of the data ({size})")
            })?;
        }
        Ok(())
    }

    fn attributes(&self, op: &Op) -> Vec<String> {
        let (Op::Take { axis } | Op::GatherElements { axis }) = op else { foreign(op) };
        vec![format!("axis={axis}")]
    }

    fn read(&self, name: &str, node: &mut NodeText<'_>) -> Result<Option<Op>, TextError> {
        Ok(Some(match name {
            "take" => Op::Take { axis: node.index("axis")? },
            "gather_elements" => Op::GatherElements { axis: node.index("axis")? },
            _ => return Ok(None),
        }))
    }

    fn evaluate(&self, op: &Op, x: &[&Array], shape: &[usize], _: &Bindings) -> Result<Array, String> {
        match op {
            Op::Take { axis } => take(x[0], x[1], *axis, shape),
            Op::GatherElements { axis } => gather_elements(x[0], x[1], *axis),
            _ => foreign(op),
        }
    }
}

/// A position from an index that may count from the end.
fn position(index: i64, size: usize) -> Result<usize, String> {
    let at = if index < 0 { index.checked_add(size as i64) } else { Some(index) };
    at.and_then(|at| usize::try_from(at).ok())
        .filter(|&at| at < size)
        .ok_or_else(|| format!("the index {index} is outside an axis of size {size}"))
}

fn take(x: &Array, indices: &Array, axis: usize, shape: &[usize]) -> Result<Array, String> {
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

fn gather_elements(x: &Array, indices: &Array, axis: usize) -> Result<Array, String> {
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
