//! Integers that stand for numbers: `scale (x - zero point)`.

use aotfarm_ir::{BinaryOp, Expr, ReduceOp, UnaryOp, ValueId};
use aotfarm_protocol::DType;

use super::super::node::{NodeCall, one};
use super::super::scope::Known;
use super::super::tensor;
use super::Map;
use crate::semantics::activation::with_number;
use crate::semantics::{self, Emit, Result, order, pointwise, product, reduction, view};

pub(super) static ROWS: &[(&str, Map)] = &[
    ("QuantizeLinear", quantize),
    ("DequantizeLinear", dequantize),
    ("DynamicQuantizeLinear", quantize_by_range),
    ("MatMulInteger", |c| {
        let operands = [operand(c, 0, 2)?, operand(c, 1, 3)?];
        let mut e = c.emit();
        let y = product::matmul(&mut e, operands[0], operands[1])?;
        one(e.cast(y, DType::I32)?)
    }),
];

/// Scale or zero point of `x`: for all of it, along an axis, or for blocks of an axis.
fn spread(c: &mut NodeCall, x: ValueId, given: ValueId) -> Result<ValueId> {
    let (shape, own) = (c.shape(x), c.shape(given));
    let block = c.int("block_size", 0);
    match own.as_slice() {
        [] => Ok(given),
        [one] if one.as_const() == Some(1) && block == 0 => c.emit().reshape(given, Vec::new()),
        [_] if block == 0 => {
            let mut along = vec![Expr::one(); shape.len()];
            along[c.axis("axis", 1, shape.len())?] = own[0].clone();
            c.emit().reshape(given, along)
        }
        _ if block > 0 && own.len() == shape.len() => {
            let axis = c.axis("axis", 1, shape.len())?;
            let mut e = c.emit();
            let wide = view::repeat_each(&mut e, given, axis, block)?;
            let end = shape[axis].clone();
            view::slice(&mut e, wide, axis, Expr::zero(), end, 1)
        }
        _ => Err("a scale of such a shape is not supported".into()),
    }
}

/// To the nearest integer, halves to even, plus the zero point, within what the type holds.
fn rounded(e: &mut Emit<'_>, x: ValueId, zero: Option<ValueId>, dtype: DType) -> Result<ValueId> {
    let mut y = e.unary(UnaryOp::Round, x)?;
    if let Some(zero) = zero {
        let zero = e.cast(zero, e.dtype(y))?;
        y = e.binary(BinaryOp::Add, y, zero)?;
    }
    let y = pointwise::clamp(e, y, Some(order::least(dtype)), Some(order::most(dtype)))?;
    e.cast(y, dtype)
}

fn quantize(c: &mut NodeCall) -> Result<Vec<Known>> {
    let (x, scale, zero) = (c.tensor(0)?, c.tensor(1)?, c.opt_tensor(2)?);
    let dtype = match (zero, c.int("output_dtype", 0)) {
        (Some(zero), _) => c.dtype(zero),
        (None, 0) => DType::U8,
        (None, number) => tensor::dtype(number as i32)?,
    };
    if dtype.is_float() || !matches!(dtype, DType::U8 | DType::I8 | DType::I16) {
        return Err(format!("quantising to {dtype} is not supported").into());
    }
    let scale = spread(c, x, scale)?;
    let zero = zero.map(|zero| spread(c, x, zero)).transpose()?;
    let mut e = c.emit();
    // float16 and integers are divided as float32.
    let (x, scale) = (e.cast(x, DType::F32)?, e.cast(scale, DType::F32)?);
    let y = e.binary(BinaryOp::Div, x, scale)?;
    one(rounded(&mut e, y, zero, dtype)?)
}

fn dequantize(c: &mut NodeCall) -> Result<Vec<Known>> {
    let (x, scale, zero) = (c.tensor(0)?, c.tensor(1)?, c.opt_tensor(2)?);
    let dtype = match c.int("output_dtype", 0) {
        0 => c.dtype(scale),
        number => tensor::dtype(number as i32)?,
    };
    let scale = spread(c, x, scale)?;
    let zero = zero.map(|zero| spread(c, x, zero)).transpose()?;
    let mut e = c.emit();
    let mut y = e.cast(x, DType::I32)?;
    if let Some(zero) = zero {
        let zero = e.cast(zero, DType::I32)?;
        y = e.binary(BinaryOp::Sub, y, zero)?;
    }
    let (y, scale) = (e.cast(y, DType::F32)?, e.cast(scale, DType::F32)?);
    let y = e.binary(BinaryOp::Mul, y, scale)?;
    one(e.cast(y, dtype)?)
}

/// By the smallest and the largest element, and 0.
fn quantize_by_range(c: &mut NodeCall) -> Result<Vec<Known>> {
    let x = c.tensor(0)?;
    let axes = semantics::axes(&[], c.rank(x))?;
    let mut e = c.emit();
    let (most, least) = (
        reduction::reduce(&mut e, ReduceOp::Max, x, axes.clone(), false)?,
        reduction::reduce(&mut e, ReduceOp::Min, x, axes, false)?,
    );
    let (most, least) = (with_number(&mut e, BinaryOp::Max, most, 0.0)?, with_number(&mut e, BinaryOp::Min, least, 0.0)?);
    let span = e.binary(BinaryOp::Sub, most, least)?;
    let scale = with_number(&mut e, BinaryOp::Div, span, 255.0)?;
    let zero = e.binary(BinaryOp::Div, least, scale)?;
    let zero = e.unary(UnaryOp::Neg, zero)?;
    let zero = rounded(&mut e, zero, None, DType::U8)?;
    let y = e.binary(BinaryOp::Div, x, scale)?;
    let y = rounded(&mut e, y, Some(zero), DType::U8)?;
    Ok([y, scale, zero].map(|id| Known { tensor: Some(id), sizes: None }).into())
}

/// Operand `i` less its zero point, operand `zero`, in float64, whose products of small integers are exact.
fn operand(c: &mut NodeCall, i: usize, zero: usize) -> Result<ValueId> {
    let (x, zero) = (c.tensor(i)?, c.opt_tensor(zero)?);
    let rank = c.rank(x);
    let mut e = c.emit();
    let wide = e.cast(x, DType::F64)?;
    let Some(zero) = zero else { return Ok(wide) };
    let mut zero = e.cast(zero, DType::F64)?;
    // Of each row of the first operand, of each column of the second.
    if e.rank(zero) == 1 && i == 0 && rank > 1 && e.shape(zero)[0].as_const() != Some(1) {
        zero = view::unsqueeze(&mut e, zero, vec![1])?;
    }
    e.binary(BinaryOp::Sub, wide, zero)
}
