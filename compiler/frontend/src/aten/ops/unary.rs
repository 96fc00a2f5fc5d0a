//! Element-wise functions of one tensor.

use aotfarm_ir::{BinaryOp, Domain, Number, UnaryOp, ValueId};
use aotfarm_protocol::DType;

use super::row::{Row, row, tensor};
use crate::aten::call::{Call, Operand};
use crate::aten::scope::Val;
use crate::semantics::pointwise::{self, RELU6};
use crate::semantics::{Emit, Result, view};

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
    row("aten.square.default", square),
    row("aten.trunc.default", trunc),
    row("aten.fix.default", trunc),
    row("aten.frac.default", frac),
    row("aten.sign.default", sign),
    row("aten.tan.default", tan),
    row("aten.isnan.default", |c| is(c, NOT_A_NUMBER)),
    row("aten.isinf.default", |c| is(c, INFINITE)),
    row("aten.isfinite.default", |c| is(c, FINITE)),
    row("aten.softplus.default", softplus),
    row("aten.log_sigmoid.default", log_sigmoid),
    row("aten.mish.default", mish),
    row("aten.glu.default", glu),
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

fn square(c: &mut Call) -> Result<Val> {
    let x = Operand::Tensor(c.tensor("self")?);
    let x = if c.common([&x]) == DType::Bool { Operand::Tensor(c.typed(&x, DType::I64)?) } else { x };
    tensor(c.binary(BinaryOp::Mul, &x, &x)?)
}

fn trunc(c: &mut Call) -> Result<Val> {
    let x = c.tensor("self")?;
    tensor(if c.ty(x).dtype.is_float() { pointwise::truncated(&mut c.emit(), x)? } else { x })
}

fn frac(c: &mut Call) -> Result<Val> {
    let x = c.tensor("self")?;
    let mut e = c.emit();
    let whole = pointwise::truncated(&mut e, x)?;
    tensor(e.binary(BinaryOp::Sub, x, whole)?)
}

/// -1, 0 or 1; 0 for what is not a number.
fn sign(c: &mut Call) -> Result<Val> {
    let x = c.tensor("self")?;
    let dtype = c.ty(x).dtype;
    if dtype == DType::Bool {
        return tensor(x);
    }
    let mut e = c.emit();
    let zero = e.full(0.0, dtype)?;
    let (above, below) = (e.binary(BinaryOp::Gt, x, zero)?, e.binary(BinaryOp::Lt, x, zero)?);
    let (above, below) = (e.cast(above, dtype)?, e.cast(below, dtype)?);
    tensor(e.binary(BinaryOp::Sub, above, below)?)
}

fn tan(c: &mut Call) -> Result<Val> {
    in_f32(c, "self", |e, x| {
        let (sine, cosine) = (e.unary(UnaryOp::Sin, x)?, e.unary(UnaryOp::Cos, x)?);
        e.binary(BinaryOp::Div, sine, cosine)
    })
}

/// What `of` makes of an operand in f32 (f64 stays), rounded to its own type once. Integers become floats.
fn in_f32(c: &mut Call, name: &str, of: impl FnOnce(&mut Emit<'_>, ValueId) -> Result<ValueId>) -> Result<Val> {
    let x = c.tensor(name)?;
    let own = c.ty(x).dtype;
    let own = if own.is_float() { own } else { DType::F32 };
    let mut e = c.emit();
    let wide = e.cast(x, if own == DType::F64 { own } else { DType::F32 })?;
    let y = of(&mut e, wide)?;
    tensor(e.cast(y, own)?)
}

/// How a number, or its size beside infinity, compares. Integers are finite.
type Test = (BinaryOp, bool);
const NOT_A_NUMBER: Test = (BinaryOp::Ne, false);
const INFINITE: Test = (BinaryOp::Eq, true);
const FINITE: Test = (BinaryOp::Lt, true);

fn is(c: &mut Call, (op, of_size): Test) -> Result<Val> {
    let x = c.tensor("self")?;
    let dtype = c.ty(x).dtype;
    let mut e = c.emit();
    if !dtype.is_float() {
        return tensor(e.binary(if op == BinaryOp::Lt { BinaryOp::Eq } else { BinaryOp::Ne }, x, x)?);
    }
    if !of_size {
        return tensor(e.binary(op, x, x)?);
    }
    let (size, infinity) = (e.unary(UnaryOp::Abs, x)?, e.full(f64::INFINITY, dtype)?);
    tensor(e.binary(op, size, infinity)?)
}

fn softplus(c: &mut Call) -> Result<Val> {
    let (beta, threshold) = (c.float("beta", 1.0)?, c.float("threshold", 20.0)?);
    in_f32(c, "self", |e, x| pointwise::softplus(e, x, beta, threshold))
}

/// `-log(1 + exp(-x))`, as `min(x, 0) - log(1 + exp(-|x|))`.
fn log_sigmoid(c: &mut Call) -> Result<Val> {
    in_f32(c, "self", |e, x| {
        let size = e.unary(UnaryOp::Abs, x)?;
        let power = e.unary(UnaryOp::Neg, size)?;
        let power = e.unary(UnaryOp::Exp, power)?;
        let log = e.unary(UnaryOp::Log1p, power)?;
        let low = pointwise::clamp(e, x, None, Some(Number::ZERO))?;
        e.binary(BinaryOp::Sub, low, log)
    })
}

/// `x tanh(softplus(x))`.
fn mish(c: &mut Call) -> Result<Val> {
    in_f32(c, "self", |e, x| {
        let soft = pointwise::softplus(e, x, 1.0, 20.0)?;
        let gate = e.unary(UnaryOp::Tanh, soft)?;
        e.binary(BinaryOp::Mul, x, gate)
    })
}

/// The first half of an axis, gated by the second.
fn glu(c: &mut Call) -> Result<Val> {
    let x = c.tensor("self")?;
    let axis = c.axis("dim", c.rank(x), Some(-1))?;
    let mut e = c.emit();
    let size = view::size_to_split(&e, x, axis)?;
    if size % 2 != 0 {
        return Err(format!("an axis of {size} has no halves").into());
    }
    let halves = view::split(&mut e, x, axis, &[size / 2, size / 2])?;
    let gate = e.unary(UnaryOp::Sigmoid, halves[1])?;
    tensor(e.binary(BinaryOp::Mul, halves[0], gate)?)
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
