//! Element-wise functions of one tensor.

use aotfarm_ir::{BinaryOp, Domain, Number, UnaryOp};
use aotfarm_protocol::DType;

use super::row::{Row, row, tensor};
use crate::aten::call::{Call, Operand};
use crate::aten::scope::Val;
use crate::semantics::Result;
use crate::semantics::pointwise::{self, RELU6};

pub(super) static ROWS: &[Row] = &[
    row("aten.relu.default", |c| unary(c, UnaryOp::Relu)),
    row("aten.relu6.default", |c| unary(c, RELU6)),
    row("aten.hardtanh.default", hardtanh),
    row("aten.hardswish.default", |c| unary(c, UnaryOp::Hardswish)),
    row("aten.hardsigmoid.default", |c| unary(c, UnaryOp::Hardsigmoid)),
    row("aten.silu.default", |c| unary(c, UnaryOp::Silu)),
    row("aten.sigmoid.default", |c| unary(c, UnaryOp::Sigmoid)),
    row("aten.tanh.default", |c| unary(c, UnaryOp::Tanh)),
    row("aten.gelu.default", gelu),
    row("aten.leaky_relu.default", leaky_relu),
    row("aten.elu.default", elu),
    row("aten.erf.default", |c| unary(c, UnaryOp::Erf)),
    row("aten.exp.default", |c| unary(c, UnaryOp::Exp)),
    row("aten.log.default", |c| unary(c, UnaryOp::Log)),
    row("aten.log1p.default", |c| unary(c, UnaryOp::Log1p)),
    row("aten.sqrt.default", |c| unary(c, UnaryOp::Sqrt)),
    row("aten.rsqrt.default", |c| unary(c, UnaryOp::Rsqrt)),
    row("aten.reciprocal.default", |c| unary(c, UnaryOp::Reciprocal)),
    row("aten.sin.default", |c| unary(c, UnaryOp::Sin)),
    row("aten.cos.default", |c| unary(c, UnaryOp::Cos)),
    row("aten.abs.default", |c| unary(c, UnaryOp::Abs)),
    row("aten.neg.default", |c| unary(c, UnaryOp::Neg)),
    row("aten.floor.default", |c| unary(c, UnaryOp::Floor)),
    row("aten.ceil.default", |c| unary(c, UnaryOp::Ceil)),
    row("aten.round.default", |c| unary(c, UnaryOp::Round)),
    row("aten.logical_not.default", logical_not),
    row("aten.bitwise_not.default", bitwise_not),
    row("aten.clamp.default", clamp),
    row("aten.clamp.Tensor", clamp),
    row("aten.clamp_min.default", clamp),
    row("aten.clamp_min.Tensor", clamp),
    row("aten.clamp_max.default", clamp),
    row("aten.clamp_max.Tensor", clamp),
];

/// Functions to the real numbers make floating-point numbers of integers.
fn unary(c: &mut Call, op: UnaryOp) -> Result<Val> {
    let mut x = c.tensor("self")?;
    if matches!(op.domain(), Domain::Float | Domain::PartOfFloat) && !c.ty(x).dtype.is_float() {
        x = c.cast(x, DType::F32)?;
    }
    tensor(c.unary(op, x)?)
}

fn hardtanh(c: &mut Call) -> Result<Val> {
    let (x, low, high) = (c.tensor("self")?, c.number("min_val", (-1.0).into())?, c.number("max_val", Number::ONE)?);
    tensor(pointwise::clamp(&mut c.emit(), x, Some(low), Some(high))?)
}

/// Its ends widen what is clamped: integers between fractions are floating-point numbers.
fn clamp(c: &mut Call) -> Result<Val> {
    let x = Operand::Tensor(c.tensor("self")?);
    let ends = [c.opt_operand("min")?, c.opt_operand("max")?];
    let dtype = c.common([&x].into_iter().chain(ends.iter().flatten()));
    let mut y = c.typed(&x, dtype)?;
    let known = |end: &Option<Operand>| match end {
        None => Some(None),
        Some(Operand::Number(scalar)) => scalar.number().map(Some),
        Some(Operand::Tensor(_)) => None,
    };
    if let [Some(low), Some(high)] = [known(&ends[0]), known(&ends[1])] {
        return tensor(pointwise::clamp(&mut c.emit(), y, low, high)?);
    }
    for (op, end) in [BinaryOp::Max, BinaryOp::Min].into_iter().zip(&ends) {
        if let Some(end) = end {
            y = c.binary(op, &Operand::Tensor(y), end)?;
        }
    }
    tensor(y)
}

fn gelu(c: &mut Call) -> Result<Val> {
    match c.text("approximate").unwrap_or("none") {
        "tanh" => unary(c, UnaryOp::GeluTanh),
        _ => unary(c, UnaryOp::Gelu),
    }
}

fn leaky_relu(c: &mut Call) -> Result<Val> {
    let slope = c.float("negative_slope", 0.01)?;
    unary(c, UnaryOp::LeakyRelu { slope })
}

fn elu(c: &mut Call) -> Result<Val> {
    if c.float("scale", 1.0)? != 1.0 || c.float("input_scale", 1.0)? != 1.0 {
        return Err("elu with a scale is not supported".into());
    }
    let alpha = c.float("alpha", 1.0)?;
    unary(c, UnaryOp::Elu { alpha })
}

/// Whether it is zero.
fn logical_not(c: &mut Call) -> Result<Val> {
    let x = c.operand("self")?;
    let x = c.truth(&x)?;
    tensor(c.unary(UnaryOp::Not, x)?)
}

/// The complement of an integer is what is left of -1.
fn bitwise_not(c: &mut Call) -> Result<Val> {
    let x = c.tensor("self")?;
    match c.ty(x).dtype {
        DType::Bool => tensor(c.unary(UnaryOp::Not, x)?),
        dtype if dtype.is_float() => Err("it takes integers".into()),
        dtype => {
            let ones = c.emit().full(-1.0, dtype)?;
            tensor(c.emit().binary(BinaryOp::Sub, ones, x)?)
        }
    }
}
