//! What shape rules of several groups ask of their operands.

use crate::types::{MAX_RANK, TensorType, shape_text};
use crate::{Expr, GraphDim};

pub(super) fn ensure(condition: bool, message: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(message()) }
}

/// The numpy broadcast of two shapes.
pub fn broadcast(a: &[Expr], b: &[Expr]) -> Result<Vec<Expr>, String> {
    let (long, short) = if a.len() >= b.len() { (a, b) } else { (b, a) };
    let lead = long.len() - short.len();
    let mut shape = long.to_vec();
    for (size, other) in shape[lead..].iter_mut().zip(short) {
        if size.as_const() == Some(1) {
            *size = other.clone();
        } else if size != other && other.as_const() != Some(1) {
            return Err(format!("{} and {} do not broadcast: {size} against {other}", shape_text(a), shape_text(b)));
        }
    }
    Ok(shape)
}

/// A type of the element type of the first operand.
pub(super) fn like(operands: &[&TensorType], shape: &[Expr]) -> TensorType {
    TensorType { dtype: operands[0].dtype, shape: shape.to_vec() }
}

pub(super) fn same_dtype(inputs: &[&TensorType]) -> Result<(), String> {
    ensure(inputs.iter().all(|t| t.dtype == inputs[0].dtype), || "operands must have the same element type".into())
}

/// Operands of one floating-point type.
pub(super) fn float(inputs: &[&TensorType]) -> Result<(), String> {
    same_dtype(inputs)?;
    ensure(inputs[0].dtype.is_float(), || format!("operands must be floating-point, not {}", inputs[0].dtype))
}

pub(super) fn check_axis(axis: usize, rank: usize) -> Result<(), String> {
    ensure(axis < rank, || format!("axis {axis} of a tensor with {rank} dimensions"))
}

/// Axes of a tensor, each at most once.
pub(super) fn check_axes(axes: &[usize], rank: usize) -> Result<(), String> {
    axes.iter().try_for_each(|&axis| check_axis(axis, rank))?;
    let mut seen = [false; MAX_RANK];
    ensure(axes.iter().all(|&a| a < MAX_RANK && !std::mem::replace(&mut seen[a], true)), || {
        format!("{axes:?} names an axis twice")
    })
}

/// The shape of an image.
pub(super) fn rank4(x: &[Expr]) -> Result<(), String> {
    ensure(x.len() == 4, || "x must have the shape [N, C, H, W]".into())
}

/// Whether an expression is at least 0 at all allowed sizes of `dims`.
pub(super) fn never_negative(value: &Expr, dims: &[GraphDim]) -> bool {
    value.bounds(dims).0 >= 0
}
