//! Element-wise functions of several operands.

use aotfarm_ir::{BinaryOp, Expr, Number, UnaryOp};
use aotfarm_protocol::DType;

use super::row::{Row, row, tensor};
use crate::aten::call::{Call, Operand};
use crate::aten::scope::Val;
use crate::semantics::Result;
use crate::semantics::pointwise::{self};

pub(super) static ROWS: &[Row] = &[
    row("aten.add.Tensor", |c| scaled(c, BinaryOp::Add)),
    row("aten.add.Scalar", |c| scaled(c, BinaryOp::Add)),
    row("aten.sub.Tensor", |c| scaled(c, BinaryOp::Sub)),
    row("aten.sub.Scalar", |c| scaled(c, BinaryOp::Sub)),
    row("aten.rsub.Scalar", rsub),
    row("aten.rsub.Tensor", rsub),
    row("aten.mul.Tensor", |c| binary(c, BinaryOp::Mul)),
    row("aten.mul.Scalar", |c| binary(c, BinaryOp::Mul)),
    row("aten.div.Tensor", |c| binary(c, BinaryOp::Div)),
    row("aten.div.Scalar", |c| binary(c, BinaryOp::Div)),
    row("aten.div.Tensor_mode", div_mode),
    row("aten.div.Scalar_mode", div_mode),
    row("aten.floor_divide.default", |c| binary(c, BinaryOp::FloorDiv)),
    row("aten.remainder.Scalar", |c| binary(c, BinaryOp::Mod)),
    row("aten.remainder.Tensor", |c| binary(c, BinaryOp::Mod)),
    row("aten.remainder.Scalar_Tensor", |c| binary(c, BinaryOp::Mod)),
    row("aten.fmod.Scalar", |c| binary(c, BinaryOp::Fmod)),
    row("aten.fmod.Tensor", |c| binary(c, BinaryOp::Fmod)),
    row("aten.maximum.default", |c| binary(c, BinaryOp::Max)),
    row("aten.minimum.default", |c| binary(c, BinaryOp::Min)),
    row("aten.max.other", |c| binary(c, BinaryOp::Max)),
    row("aten.min.other", |c| binary(c, BinaryOp::Min)),
    row("aten.pow.Tensor_Scalar", pow),
    row("aten.pow.Tensor_Tensor", pow),
    row("aten.pow.Scalar", pow),
    row("aten.eq.Scalar", |c| binary(c, BinaryOp::Eq)),
    row("aten.eq.Tensor", |c| binary(c, BinaryOp::Eq)),
    row("aten.ne.Scalar", |c| binary(c, BinaryOp::Ne)),
    row("aten.ne.Tensor", |c| binary(c, BinaryOp::Ne)),
    row("aten.lt.Scalar", |c| binary(c, BinaryOp::Lt)),
    row("aten.lt.Tensor", |c| binary(c, BinaryOp::Lt)),
    row("aten.le.Scalar", |c| binary(c, BinaryOp::Le)),
    row("aten.le.Tensor", |c| binary(c, BinaryOp::Le)),
    row("aten.gt.Scalar", |c| binary(c, BinaryOp::Gt)),
    row("aten.gt.Tensor", |c| binary(c, BinaryOp::Gt)),
    row("aten.ge.Scalar", |c| binary(c, BinaryOp::Ge)),
    row("aten.ge.Tensor", |c| binary(c, BinaryOp::Ge)),
    row("aten.logical_and.default", |c| logical(c, BinaryOp::And)),
    row("aten.logical_or.default", |c| logical(c, BinaryOp::Or)),
    row("aten.logical_xor.default", |c| logical(c, BinaryOp::Ne)),
    row("aten.bitwise_and.Tensor", |c| bitwise(c, BinaryOp::And)),
    row("aten.bitwise_and.Scalar", |c| bitwise(c, BinaryOp::And)),
    row("aten.bitwise_or.Tensor", |c| bitwise(c, BinaryOp::Or)),
    row("aten.bitwise_or.Scalar", |c| bitwise(c, BinaryOp::Or)),
    row("aten.bitwise_xor.Tensor", bitwise_xor),
    row("aten.bitwise_xor.Scalar", bitwise_xor),
    row("aten.__and__.Tensor", |c| bitwise(c, BinaryOp::And)),
    row("aten.__and__.Scalar", |c| bitwise(c, BinaryOp::And)),
    row("aten.__or__.Tensor", |c| bitwise(c, BinaryOp::Or)),
    row("aten.__or__.Scalar", |c| bitwise(c, BinaryOp::Or)),
    row("aten.__xor__.Tensor", bitwise_xor),
    row("aten.__xor__.Scalar", bitwise_xor),
    row("aten.where.self", where_),
    row("aten.where.ScalarOther", where_),
    row("aten.where.ScalarSelf", where_),
    row("aten.where.Scalar", where_),
    row("aten.prelu.default", prelu),
    row("aten.masked_fill.Scalar", masked_fill),
    row("aten.masked_fill.Tensor", masked_fill),
];

fn binary(c: &mut Call, op: BinaryOp) -> Result<Val> {
    let (a, b) = (c.operand("self")?, c.operand("other")?);
    tensor(c.binary(op, &a, &b)?)
}

/// `self ± alpha other`, where alpha is a number of the type that both have together.
fn scaled(c: &mut Call, op: BinaryOp) -> Result<Val> {
    let (a, b) = (c.operand("self")?, c.operand("other")?);
    let b = times_alpha(c, [&a, &b], &b)?;
    tensor(c.binary(op, &a, &b)?)
}

/// `other - alpha self`.
fn rsub(c: &mut Call) -> Result<Val> {
    let (a, b) = (c.operand("self")?, c.operand("other")?);
    let a = times_alpha(c, [&a, &b], &a)?;
    tensor(c.binary(BinaryOp::Sub, &b, &a)?)
}

fn times_alpha(c: &mut Call, operands: [&Operand; 2], x: &Operand) -> Result<Operand> {
    let alpha = c.number("alpha", Number::ONE)?;
    if alpha == Number::ONE {
        return Ok(x.clone());
    }
    let dtype = c.common(operands);
    let x = Operand::Tensor(c.typed(x, dtype)?);
    let alpha = Operand::Tensor(c.emit().full(alpha, dtype)?);
    Ok(Operand::Tensor(c.binary(BinaryOp::Mul, &x, &alpha)?))
}

fn div_mode(c: &mut Call) -> Result<Val> {
    match c.text("rounding_mode") {
        Some("floor") => binary(c, BinaryOp::FloorDiv),
        None => binary(c, BinaryOp::Div),
        Some("trunc") => {
            let (a, b) = (c.operand("self")?, c.operand("other")?);
            let dtype = c.common([&a, &b]);
            let (a, b) = c.typed_pair(&a, &b, dtype)?;
            let quotient = c.emit().binary(BinaryOp::Div, a, b)?;
            tensor(if dtype.is_float() { pointwise::truncated(&mut c.emit(), quotient)? } else { quotient })
        }
        Some(other) => Err(format!("division with rounding mode `{other}` is not supported").into()),
    }
}

fn pow(c: &mut Call) -> Result<Val> {
    let (x, exponent) = (c.operand("self")?, c.operand("exponent")?);
    let dtype = c.common([&x, &exponent]);
    if let Operand::Number(power) = &exponent
        && let Some(power) = power.number()
    {
        let x = c.typed(&x, dtype)?;
        match power.as_f64() {
            Some(-0.5) => return tensor(c.unary(UnaryOp::Rsqrt, x)?),
            Some(1.0) => return tensor(x),
            _ => {}
        }
        if let Some(simple) = pointwise::simple_power(&mut c.emit(), x, power)? {
            return tensor(simple);
        }
        return tensor(c.binary(BinaryOp::Pow, &Operand::Tensor(x), &exponent)?);
    }
    tensor(c.binary(BinaryOp::Pow, &x, &exponent)?)
}

fn logical(c: &mut Call, op: BinaryOp) -> Result<Val> {
    let (a, b) = (c.operand("self")?, c.operand("other")?);
    let (a, b) = (c.truth(&a)?, c.truth(&b)?);
    tensor(c.emit().binary(op, a, b)?)
}

fn bitwise(c: &mut Call, op: BinaryOp) -> Result<Val> {
    let (a, b) = (c.operand("self")?, c.operand("other")?);
    tensor(c.binary(op, &a, &b)?)
}

/// Bits that one operand has and the other has not: those of either without those of both.
fn bitwise_xor(c: &mut Call) -> Result<Val> {
    let (a, b) = (c.operand("self")?, c.operand("other")?);
    let dtype = c.common([&a, &b]);
    let (a, b) = c.typed_pair(&a, &b, dtype)?;
    let mut e = c.emit();
    if dtype == DType::Bool {
        return tensor(e.binary(BinaryOp::Ne, a, b)?);
    }
    let (either, both) = (e.binary(BinaryOp::Or, a, b)?, e.binary(BinaryOp::And, a, b)?);
    tensor(e.binary(BinaryOp::Sub, either, both)?)
}

fn where_(c: &mut Call) -> Result<Val> {
    let (condition, a, b) = (c.tensor("condition")?, c.operand("self")?, c.operand("other")?);
    let dtype = c.common([&a, &b]);
    let (a, b) = c.typed_pair(&a, &b, dtype)?;
    tensor(pointwise::select(&mut c.emit(), condition, a, b)?)
}

fn masked_fill(c: &mut Call) -> Result<Val> {
    let (x, mask, value) = (c.tensor("self")?, c.tensor("mask")?, c.operand("value")?);
    let value = c.typed(&value, c.ty(x).dtype)?;
    tensor(pointwise::select(&mut c.emit(), mask, value, x)?)
}

/// `self > 0 ? self : weight self`, with a weight for each channel or one for all.
fn prelu(c: &mut Call) -> Result<Val> {
    let (x, weight) = (c.tensor("self")?, c.tensor("weight")?);
    let mut shape = vec![Expr::one(); c.rank(x)];
    if let ([size], Some(channels)) = (c.shape(weight).as_slice(), shape.get_mut(1)) {
        *channels = size.clone();
    }
    let mut e = c.emit();
    let weight = e.reshape(weight, shape)?;
    let zero = e.full(0.0, e.dtype(x))?;
    let (positive, scaled) = (e.binary(BinaryOp::Gt, x, zero)?, e.binary(BinaryOp::Mul, x, weight)?);
    tensor(pointwise::select(&mut e, positive, x, scaled)?)
}
