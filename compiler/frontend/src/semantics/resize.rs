//! Images of another size: nearest, linear and cubic interpolation, along one axis after the other.

use aotfarm_ir::{BinaryOp, Expr, Number, TensorData, TensorType, UnaryOp, ValueId};
use aotfarm_protocol::DType;

use super::{Emit, Result, gather, pointwise, product, source, view};

/// How elements between elements are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The element before, as torch's `nearest`.
    Nearest,
    /// The element whose middle is nearest, as torch's `nearest-exact`.
    NearestMiddle,
    Linear,
    /// Keys' cubic with a = -0.75.
    Cubic,
}

/// The size of one axis, and how far its elements lie apart in the operand.
#[derive(Debug, Clone)]
pub(crate) struct Resized {
    pub(crate) size: Expr,
    /// The factor by which it grows, where it is given and not told by the sizes.
    pub(crate) factor: Option<f64>,
}

impl Resized {
    /// An axis of that size, `factor` times as long.
    pub(crate) fn by(size: &Expr, factor: f64) -> Result<Self> {
        let whole = |x: f64| (x.fract() == 0.0 && (1.0..1e6).contains(&x)).then_some(x as i64);
        let new = match size.as_const() {
            Some(n) => Expr::from((n as f64 * factor).floor() as i64),
            None => match (whole(factor), whole(1.0 / factor)) {
                (Some(times), _) => size * &Expr::from(times),
                (None, Some(part)) => size.floor_div(&Expr::from(part)),
                (None, None) => return Err(format!("a symbolic size {size} resized by {factor} is not supported").into()),
            },
        };
        Ok(Self { size: new, factor: Some(factor) })
    }
}

/// `to / from` as torch computes it in f32, or its inverse where corners stay.
fn scale(e: &mut Emit<'_>, from: &Expr, to: &Resized, align_corners: bool) -> Result<ValueId> {
    match (align_corners, to.factor) {
        (false, Some(factor)) => e.full(f64::from((1.0 / factor) as f32), DType::F32),
        (false, None) => ratio(e, from, &to.size),
        (true, _) if to.size.as_const() == Some(1) => e.full(0.0, DType::F32),
        (true, _) => ratio(e, &(from - &Expr::one()), &(&to.size - &Expr::one())),
    }
}

fn ratio(e: &mut Emit<'_>, a: &Expr, b: &Expr) -> Result<ValueId> {
    if let (Some(a), Some(b)) = (a.as_const(), b.as_const()) {
        return e.full(f64::from(a as f32 / b as f32), DType::F32);
    }
    let (a, b) = (source::number(e, a, DType::F32)?, source::number(e, b, DType::F32)?);
    e.binary(BinaryOp::Div, a, b)
}

/// The elements of `axis` at the positions `at` (f32, whole numbers), those beyond the ends at the ends.
fn elements(e: &mut Emit<'_>, x: ValueId, axis: usize, at: ValueId) -> Result<ValueId> {
    let last = &e.shape(x)[axis] - &Expr::one();
    let at = e.cast(at, DType::I64)?;
    let (zero, last) = (e.full(0i64, DType::I64)?, source::number(e, &last, DType::I64)?);
    let at = e.binary(BinaryOp::Max, at, zero)?;
    let at = e.binary(BinaryOp::Min, at, last)?;
    gather::take(e, x, at, axis)
}

/// `x` with `axis` resized.
pub(crate) fn resize(
    e: &mut Emit<'_>,
    kind: Kind,
    mut x: ValueId,
    axis: usize,
    to: &Resized,
    align_corners: bool,
) -> Result<ValueId> {
    let from = e.shape(x)[axis].clone();
    let is_nearest = matches!(kind, Kind::Nearest | Kind::NearestMiddle);
    if let (true, Some(times)) = (is_nearest, to.size.div_exact(&from).and_then(|times| times.as_const()))
        && to.factor.is_none_or(|factor| factor == times as f64)
        && times > 0
    {
        return if times == 1 { Ok(x) } else { view::repeat_each(e, x, axis, times) };
    }
    let dtype = e.dtype(x);
    let scale = scale(e, &from, to, align_corners)?;
    let at = source::range(e, 0, &to.size, 1, DType::F32)?;
    let half = e.full(0.5, DType::F32)?;
    if is_nearest {
        let at = if kind == Kind::NearestMiddle { e.binary(BinaryOp::Add, at, half)? } else { at };
        let at = e.binary(BinaryOp::Mul, at, scale)?;
        let at = e.unary(UnaryOp::Floor, at)?;
        return elements(e, x, axis, at);
    }
    if !dtype.is_float() {
        return Err(format!("interpolation of {dtype} is not supported; convert it to a floating-point type").into());
    }
    let at = if align_corners {
        e.binary(BinaryOp::Mul, at, scale)?
    } else {
        let middle = e.binary(BinaryOp::Add, at, half)?;
        let middle = e.binary(BinaryOp::Mul, middle, scale)?;
        e.binary(BinaryOp::Sub, middle, half)?
    };
    let at = if kind == Kind::Linear { pointwise::clamp(e, at, Some(Number::ZERO), None)? } else { at };
    let before = e.unary(UnaryOp::Floor, at)?;
    let distance = e.binary(BinaryOp::Sub, at, before)?;
    let wide = if dtype == DType::F64 { DType::F64 } else { DType::F32 };
    x = e.cast(x, wide)?;
    let taps = match kind {
        Kind::Linear => vec![0, 1],
        _ => vec![-1, 0, 1, 2],
    };
    let along = super::along(e.rank(x), axis, to.size.clone());
    let mut sum = None;
    for tap in taps {
        let offset = e.full(f64::from(tap), DType::F32)?;
        let place = e.binary(BinaryOp::Add, before, offset)?;
        let away = if tap <= 0 { e.binary(BinaryOp::Sub, distance, offset)? } else { e.binary(BinaryOp::Sub, offset, distance)? };
        let weight = match (kind, tap) {
            (Kind::Linear, _) => {
                let one = e.full(1.0, DType::F32)?;
                e.binary(BinaryOp::Sub, one, away)?
            }
            // (a + 2) d³ - (a + 3) d² + 1 up to 1, then a d³ - 5a d² + 8a d - 4a.
            (_, 0 | 1) => polynomial(e, away, &[1.25, -2.25, 0.0, 1.0])?,
            _ => polynomial(e, away, &[-0.75, 3.75, -6.0, 3.0])?,
        };
        let weight = e.cast(weight, wide)?;
        let weight = e.reshape(weight, along.clone())?;
        let part = elements(e, x, axis, place)?;
        let part = e.binary(BinaryOp::Mul, part, weight)?;
        sum = Some(match sum {
            None => part,
            Some(sum) => e.binary(BinaryOp::Add, sum, part)?,
        });
    }
    let sum = sum.expect("there are taps");
    e.cast(sum, dtype)
}

/// `c[0] x³ + c[1] x² + …`.
fn polynomial(e: &mut Emit<'_>, x: ValueId, coefficients: &[f64]) -> Result<ValueId> {
    let mut y = e.full(coefficients[0], DType::F32)?;
    for coefficient in &coefficients[1..] {
        let coefficient = e.full(*coefficient, DType::F32)?;
        y = e.binary(BinaryOp::Mul, y, x)?;
        y = e.binary(BinaryOp::Add, y, coefficient)?;
    }
    Ok(y)
}

/// `x` with `axis` resized by a filter that widens where it shrinks, as PIL and torch's `antialias` have it: a product with a constant
/// matrix, so that sizes are constant. Linear is a triangle, cubic Keys' with a = -0.5.
pub(crate) fn antialiased(
    e: &mut Emit<'_>,
    kind: Kind,
    x: ValueId,
    axis: usize,
    to: &Resized,
    align_corners: bool,
) -> Result<ValueId> {
    let (Some(from), Some(size)) = (e.shape(x)[axis].as_const(), to.size.as_const()) else {
        return Err("resizing an image of symbolic size with antialiasing is not supported; export with constant sizes".into());
    };
    let dtype = e.dtype(x);
    if !dtype.is_float() {
        return Err(format!("interpolation of {dtype} is not supported; convert it to a floating-point type").into());
    }
    let scale = match to.factor {
        _ if align_corners && size > 1 => (from - 1) as f32 / (size - 1) as f32,
        _ if align_corners => 0.0,
        Some(factor) => (1.0 / factor) as f32,
        None => from as f32 / size as f32,
    };
    let widened = scale.max(1.0);
    let support = widened * if kind == Kind::Linear { 1.0 } else { 2.0 };
    let filter = |x: f32| {
        let x = x.abs();
        match kind {
            Kind::Linear => (1.0 - x).max(0.0),
            _ if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
            _ if x < 2.0 => ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0,
            _ => 0.0,
        }
    };
    let mut matrix = Vec::with_capacity((from * size) as usize);
    for i in 0..size {
        let centre = scale * (i as f32 + 0.5);
        let first = ((centre - support + 0.5) as i64).max(0);
        let end = ((centre + support + 0.5) as i64).min(from);
        let weight = |j: i64| filter((j as f32 - centre + 0.5) / widened);
        let total: f32 = (first..end).map(weight).sum();
        matrix.extend((0..from).map(|j| if (first..end).contains(&j) { weight(j) / total } else { 0.0 }));
    }
    let name = e.source.split(": ").next().unwrap_or("resize").to_owned();
    let weight =
        e.builder.weight(&format!("{name}.filter"), TensorType::new(DType::F32, [size, from]), TensorData::from_f32(&matrix))?;
    let wide = e.cast(x, DType::F32)?;
    let mut axes: Vec<usize> = (0..e.rank(x)).collect();
    let last = axes.len() - 1;
    axes.swap(axis, last);
    let turned = view::permute(e, wide, axes.clone())?;
    let resized = product::linear(e, turned, weight, None)?;
    let resized = view::permute(e, resized, axes)?;
    e.cast(resized, dtype)
}
