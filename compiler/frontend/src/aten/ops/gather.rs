//! Gathers, and tensors made of nothing.

use aotfarm_ir::{Expr, Number};
use aotfarm_protocol::DType;

use super::row::{Row, row, tensor};
use crate::aten::call::{Call, Operand, Scalar};
use crate::aten::scope::Val;
use crate::semantics::{self, Result, gather, source, view};

pub(super) static ROWS: &[Row] = &[
    row("aten.embedding.default", embedding),
    row("aten.index_select.default", index_select),
    row("aten.gather.default", gather_elements),
    row("aten.index_copy.default", index_copy),
    row("aten.arange.default", arange),
    row("aten.arange.start", arange),
    row("aten.arange.start_step", arange),
    row("aten.full.default", full),
    row("aten.zeros.default", |c| filled(c, 0.0)),
    row("aten.ones.default", |c| filled(c, 1.0)),
    row("aten.empty.memory_format", |c| filled(c, 0.0)),
    row("aten.new_zeros.default", |c| new_filled(c, 0.0)),
    row("aten.new_ones.default", |c| new_filled(c, 1.0)),
    row("aten.new_empty.default", |c| new_filled(c, 0.0)),
    row("aten.new_full.default", new_full),
    row("aten.full_like.default", full_like),
    row("aten.fill.Scalar", fill),
    row("aten.fill.Tensor", fill),
    row("aten.zero.default", |c| filled_like(c, 0.0)),
    row("aten.zeros_like.default", |c| filled_like(c, 0.0)),
    row("aten.ones_like.default", |c| filled_like(c, 1.0)),
    row("aten.empty_like.default", |c| filled_like(c, 0.0)),
    row("aten.scalar_tensor.default", scalar_tensor),
    row("aten.linspace.default", linspace),
];

fn embedding(c: &mut Call) -> Result<Val> {
    let (weight, indices) = (c.tensor("weight")?, c.tensor("indices")?);
    tensor(gather::take(&mut c.emit(), weight, indices, 0)?)
}

fn index_select(c: &mut Call) -> Result<Val> {
    let (x, index) = (c.tensor("self")?, c.tensor("index")?);
    let axis = c.axis("dim", c.rank(x), None)?;
    let shape = c.shape(x);
    let mut e = c.emit();
    let x = view::at_least_vector(&mut e, x)?;
    let taken = gather::take(&mut e, x, index, axis)?;
    // Of a number, a number is taken.
    tensor(if shape.is_empty() { e.reshape(taken, shape)? } else { taken })
}

fn gather_elements(c: &mut Call) -> Result<Val> {
    let (x, index) = (c.tensor("self")?, c.tensor("index")?);
    let axis = c.axis("dim", c.rank(x), None)?;
    let index = if c.ty(index).dtype == DType::I32 { index } else { c.cast(index, DType::I64)? };
    let shape = c.shape(index);
    let mut e = c.emit();
    let (x, index) = (view::at_least_vector(&mut e, x)?, view::at_least_vector(&mut e, index)?);
    let result = gather::elements(&mut e, x, index, axis)?;
    tensor(e.reshape(result, shape)?)
}

fn index_copy(c: &mut Call) -> Result<Val> {
    let (x, index, source) = (c.tensor("self")?, c.tensor("index")?, c.tensor("source")?);
    if c.rank(x) == 0 {
        // One number takes the place of another.
        let source = c.cast(source, c.ty(x).dtype)?;
        return tensor(c.emit().reshape(source, Vec::new())?);
    }
    let axis = c.axis("dim", c.rank(x), None)?;
    let count = semantics::product(&c.shape(index));
    let index = c.emit().reshape(index, vec![count])?;
    tensor(gather::put(&mut c.emit(), x, index, source, axis)?)
}

/// Its element type is i64 unless there is a fraction among its ends and step. Their type decides how many elements there are; to
/// integers they are cut before that counts.
fn arange(c: &mut Call) -> Result<Val> {
    let or = |given: bool, name: &str, default: i64| if given { c.scalar(name) } else { Ok(Scalar::Int(default)) };
    let (start, end) = (or(c.has("start"), "start", 0)?, c.scalar("end")?);
    let step = or(c.has("step"), "step", 1)?;
    let dtype = c.opt_dtype("dtype")?;
    let whole = |scalar: &Scalar| match scalar {
        Scalar::Bool(b) => Some(Expr::from(i64::from(*b))),
        Scalar::Int(n) => Some(Expr::from(*n)),
        Scalar::Size(size) => Some(size.clone()),
        Scalar::Float(_) => None,
    };
    if let (Some(start), Some(end), Some(step)) = (whole(&start), whole(&end), whole(&step)) {
        let start = start.as_const().ok_or("arange from a symbolic start is not supported")?;
        let step = step.as_const().ok_or("arange with a symbolic step is not supported")?;
        return tensor(source::range(&mut c.emit(), start, &end, step, dtype.unwrap_or(DType::I64))?);
    }
    let known = |scalar: &Scalar| scalar.number().map(Number::to_f64).ok_or("arange over fractions needs constant ends");
    let [mut start, end, mut step] = [known(&start)?, known(&end)?, known(&step)?];
    let length = ((end - start) / step).ceil().max(0.0);
    if !length.is_finite() {
        return Err(format!("arange from {start} to {end} in steps of {step} has no end").into());
    }
    let dtype = dtype.unwrap_or(DType::F32);
    if !dtype.is_float() {
        (start, step) = (start.trunc(), step.trunc());
    }
    tensor(source::ramp(&mut c.emit(), length as i64, start, step, dtype)?)
}

fn filled_with(c: &mut Call, value: Scalar, shape: Vec<Expr>, dtype: DType) -> Result<Val> {
    if let Some(value) = value.number() {
        return tensor(source::full(&mut c.emit(), value, shape, dtype)?);
    }
    let scalar = c.typed(&Operand::Number(value), dtype)?;
    tensor(view::expand(&mut c.emit(), scalar, shape)?)
}

fn full(c: &mut Call) -> Result<Val> {
    let (value, shape, dtype) = (c.scalar("fill_value")?, c.sizes("size")?, c.opt_dtype("dtype")?);
    let dtype = dtype.unwrap_or(value.dtype());
    filled_with(c, value, shape, dtype)
}

fn filled(c: &mut Call, value: f64) -> Result<Val> {
    let (shape, dtype) = (c.sizes("size")?, c.opt_dtype("dtype")?);
    filled_with(c, Scalar::Float(value), shape, dtype.unwrap_or(DType::F32))
}

/// In the type of `self` unless another is given.
fn new_filled(c: &mut Call, value: f64) -> Result<Val> {
    let (x, shape, dtype) = (c.tensor("self")?, c.sizes("size")?, c.opt_dtype("dtype")?);
    let dtype = dtype.unwrap_or(c.ty(x).dtype);
    filled_with(c, Scalar::Float(value), shape, dtype)
}

fn new_full(c: &mut Call) -> Result<Val> {
    let (x, value, shape) = (c.tensor("self")?, c.scalar("fill_value")?, c.sizes("size")?);
    let dtype = c.opt_dtype("dtype")?.unwrap_or(c.ty(x).dtype);
    filled_with(c, value, shape, dtype)
}

/// `steps` numbers from `start` to `end`, both included.
fn linspace(c: &mut Call) -> Result<Val> {
    let [start, end] = [c.float("start", 0.0)?, c.float("end", 0.0)?];
    let (steps, dtype) = (c.int("steps", None)?, c.opt_dtype("dtype")?.unwrap_or(DType::F32));
    if !dtype.is_float() {
        return Err(format!("linspace of {dtype} is not supported; make it of floats and convert it").into());
    }
    let step = if steps > 1 { (end - start) / (steps - 1) as f64 } else { 0.0 };
    tensor(source::ramp(&mut c.emit(), steps, start, step, dtype)?)
}

fn full_like(c: &mut Call) -> Result<Val> {
    let (x, value, dtype) = (c.tensor("self")?, c.scalar("fill_value")?, c.opt_dtype("dtype")?);
    let (shape, dtype) = (c.shape(x), dtype.unwrap_or(c.ty(x).dtype));
    filled_with(c, value, shape, dtype)
}

/// `value` in the type and shape of `self`.
fn fill(c: &mut Call) -> Result<Val> {
    let x = c.tensor("self")?;
    let ty = c.ty(x).clone();
    let value = c.operand("value")?;
    let value = c.typed(&value, ty.dtype)?;
    tensor(view::expand(&mut c.emit(), value, ty.shape)?)
}

fn filled_like(c: &mut Call, value: f64) -> Result<Val> {
    let (x, dtype) = (c.tensor("self")?, c.opt_dtype("dtype")?);
    let (shape, dtype) = (c.shape(x), dtype.unwrap_or(c.ty(x).dtype));
    filled_with(c, Scalar::Float(value), shape, dtype)
}

fn scalar_tensor(c: &mut Call) -> Result<Val> {
    let (value, dtype) = (c.scalar("s")?, c.opt_dtype("dtype")?);
    filled_with(c, value, Vec::new(), dtype.unwrap_or(DType::F32))
}
