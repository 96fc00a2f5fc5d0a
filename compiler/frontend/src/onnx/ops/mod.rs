//! The mapping of the standard ONNX operators (<https://onnx.ai/onnx/operators/>). A row is an operator, in all versions of it.

mod functions;
mod images;
mod losses;
mod normal;
mod places;
mod quantised;

use aotfarm_ir::{BinaryOp, Expr, GraphDim, Number, Op, ReduceOp, TensorData, TensorType, UnaryOp, ValueId};
use aotfarm_protocol::DType;

use super::node::{NodeCall, known, one};
use super::proto::NodeProto;
use super::scope::Known;
use super::tensor::{self, Sizes};
use crate::semantics::view::Repeats;
use crate::semantics::{self, Emit, Refusal, Result, gather, order, pointwise, product, reduction, source, view};

type Map = fn(&mut NodeCall) -> Result<Vec<Known>>;

/// `Conv`, or `com.microsoft.Gelu` for an operator of another domain.
pub(super) fn qualified(node: &NodeProto) -> String {
    if standard(node) { node.op_type.clone() } else { format!("{}.{}", node.domain, node.op_type) }
}

fn standard(node: &NodeProto) -> bool {
    node.domain.is_empty() || node.domain == "ai.onnx"
}

/// The row of a node's operator.
pub(super) fn find(node: &NodeProto) -> Option<Map> {
    rows().find(|(name, _)| standard(node) && *name == node.op_type).map(|(_, map)| *map)
}

/// Most elements of a range of fractions.
const MAX_RANGE: f64 = 1e9;

/// The rows of all groups.
fn rows() -> impl Iterator<Item = &'static (&'static str, Map)> {
    [ROWS, functions::ROWS, images::ROWS, losses::ROWS, normal::ROWS, places::ROWS, quantised::ROWS].into_iter().flatten()
}

static ROWS: &[(&str, Map)] = &[
    ("Gemm", gemm),
    ("MatMul", matmul),
    ("Relu", |c| unary(c, UnaryOp::Relu)),
    ("LeakyRelu", |c| {
        let slope = c.float("alpha", 0.01);
        unary(c, UnaryOp::LeakyRelu { slope })
    }),
    ("Elu", |c| {
        let alpha = c.float("alpha", 1.0);
        unary(c, UnaryOp::Elu { alpha })
    }),
    ("Sigmoid", |c| unary(c, UnaryOp::Sigmoid)),
    ("HardSigmoid", hard_sigmoid),
    ("HardSwish", |c| unary(c, UnaryOp::Hardswish)),
    ("Tanh", |c| unary(c, UnaryOp::Tanh)),
    ("Gelu", |c| if c.text("approximate") == "tanh" { unary(c, UnaryOp::GeluTanh) } else { unary(c, UnaryOp::Gelu) }),
    ("Erf", |c| unary(c, UnaryOp::Erf)),
    ("Exp", |c| unary(c, UnaryOp::Exp)),
    ("Log", |c| unary(c, UnaryOp::Log)),
    ("Sqrt", |c| unary(c, UnaryOp::Sqrt)),
    ("Reciprocal", |c| unary(c, UnaryOp::Reciprocal)),
    ("Sin", |c| unary(c, UnaryOp::Sin)),
    ("Cos", |c| unary(c, UnaryOp::Cos)),
    ("Abs", |c| unary(c, UnaryOp::Abs)),
    ("Neg", |c| unary(c, UnaryOp::Neg)),
    ("Floor", |c| unary(c, UnaryOp::Floor)),
    ("Ceil", |c| unary(c, UnaryOp::Ceil)),
    ("Round", |c| unary(c, UnaryOp::Round)),
    ("Not", |c| unary(c, UnaryOp::Not)),
    ("Clip", clip),
    ("IsNaN", is_nan),
    ("Add", |c| arithmetic(c, BinaryOp::Add, |a, b, _| Some(a + b))),
    ("Sub", |c| arithmetic(c, BinaryOp::Sub, |a, b, _| Some(a - b))),
    ("Mul", |c| arithmetic(c, BinaryOp::Mul, |a, b, _| Some(a * b))),
    ("Div", |c| arithmetic(c, BinaryOp::Div, truncated)),
    ("Mod", modulo),
    ("Pow", pow),
    ("Max", |c| fold(c, BinaryOp::Max)),
    ("Min", |c| fold(c, BinaryOp::Min)),
    ("Sum", |c| fold(c, BinaryOp::Add)),
    ("And", |c| binary(c, BinaryOp::And)),
    ("Or", |c| binary(c, BinaryOp::Or)),
    ("Equal", |c| binary(c, BinaryOp::Eq)),
    ("Less", |c| binary(c, BinaryOp::Lt)),
    ("LessOrEqual", |c| binary(c, BinaryOp::Le)),
    ("Greater", |c| binary(c, BinaryOp::Gt)),
    ("GreaterOrEqual", |c| binary(c, BinaryOp::Ge)),
    ("Where", where_),
    ("ReduceMean", |c| reduction(c, ReduceOp::Mean)),
    ("ReduceSum", |c| reduction(c, ReduceOp::Sum)),
    ("ReduceMax", |c| reduction(c, ReduceOp::Max)),
    ("ReduceMin", |c| reduction(c, ReduceOp::Min)),
    ("ReduceProd", |c| reduction(c, ReduceOp::Prod)),
    ("Identity", identity),
    ("Dropout", dropout),
    ("Cast", cast),
    ("Shape", shape),
    ("Size", size),
    ("Constant", constant),
    ("ConstantOfShape", constant_of_shape),
    ("Reshape", reshape),
    ("Flatten", flatten),
    ("Transpose", transpose),
    ("Unsqueeze", unsqueeze),
    ("Squeeze", squeeze),
    ("Expand", expand),
    ("Slice", slice),
    ("Split", split),
    ("Concat", concat),
    ("Pad", pad),
    ("Tile", tile),
    ("Gather", take),
    ("GatherElements", gather_elements),
    ("Range", range),
];

/// `alpha A' B' + beta C`.
fn gemm(c: &mut NodeCall) -> Result<Vec<Known>> {
    let (mut a, mut b, bias) = (c.tensor(0)?, c.tensor(1)?, c.opt_tensor(2)?);
    let (alpha, beta) = (c.float("alpha", 1.0), c.float("beta", 1.0));
    let transposed = ["transA", "transB"].map(|name| c.int(name, 0) != 0);
    let plain_bias = bias.is_none_or(|b| c.rank(b) == 1);
    let mut e = c.emit();
    if transposed[0] {
        a = view::permute(&mut e, a, vec![1, 0])?;
    }
    if transposed[1] && alpha == 1.0 && beta == 1.0 && plain_bias {
        return one(product::linear(&mut e, a, b, bias)?);
    }
    if transposed[1] {
        b = view::permute(&mut e, b, vec![1, 0])?;
    }
    let mut y = product::matmul(&mut e, a, b)?;
    y = pointwise::times(&mut e, y, alpha)?;
    if let Some(bias) = bias {
        let bias = pointwise::times(&mut e, bias, beta)?;
        y = e.binary(BinaryOp::Add, y, bias)?;
    }
    one(y)
}

fn matmul(c: &mut NodeCall) -> Result<Vec<Known>> {
    let (a, b) = (c.tensor(0)?, c.tensor(1)?);
    one(product::matmul(&mut c.emit(), a, b)?)
}

fn unary(c: &mut NodeCall, op: UnaryOp) -> Result<Vec<Known>> {
    let x = c.tensor(0)?;
    one(c.unary(op, x)?)
}

/// `max(0, min(1, alpha x + beta))`; torch's has alpha 1/6 and beta 1/2.
fn hard_sigmoid(c: &mut NodeCall) -> Result<Vec<Known>> {
    let (alpha, beta) = (c.float("alpha", 0.2), c.float("beta", 0.5));
    if (alpha - 1.0 / 6.0).abs() < 1e-6 && beta == 0.5 {
        return unary(c, UnaryOp::Hardsigmoid);
    }
    let x = c.tensor(0)?;
    let mut e = c.emit();
    let x = pointwise::times(&mut e, x, alpha)?;
    let beta = e.full(beta, e.dtype(x))?;
    let x = e.binary(BinaryOp::Add, x, beta)?;
    one(e.unary(UnaryOp::Clamp { low: 0.0, high: 1.0 }, x)?)
}

/// The ends have the type of what is clamped.
fn clip(c: &mut NodeCall) -> Result<Vec<Known>> {
    let mut x = c.tensor(0)?;
    if c.opset() < 11 {
        let ends = ["min", "max"].map(|end| c.attribute(end).map(|a| Number::float(a.f.into())));
        return one(pointwise::clamp(&mut c.emit(), x, ends[0], ends[1])?);
    }
    let ends = [c.constant(1)?, c.constant(2)?];
    if (0..2).all(|i| ends[i].is_some() || c.name(i + 1).is_none()) {
        return one(pointwise::clamp(&mut c.emit(), x, ends[0], ends[1])?);
    }
    for (i, op) in [(1, BinaryOp::Max), (2, BinaryOp::Min)] {
        if let Some(end) = c.opt_tensor(i)? {
            x = c.binary(op, x, end)?;
        }
    }
    one(x)
}

/// Only NaN differs from itself.
fn is_nan(c: &mut NodeCall) -> Result<Vec<Known>> {
    let x = c.tensor(0)?;
    one(c.binary(BinaryOp::Ne, x, x)?)
}

fn binary(c: &mut NodeCall, op: BinaryOp) -> Result<Vec<Known>> {
    let (a, mut b) = (c.tensor(0)?, c.tensor(1)?);
    // Before opset 7 the second operand lies along the axes of the first from `axis` on.
    if c.opset() < 7 && c.attribute("axis").is_some() {
        let after = c.rank(a).checked_sub(c.axis("axis", 0, c.rank(a))? + c.rank(b));
        let shape = [c.shape(b), vec![Expr::one(); after.ok_or("its operands do not broadcast")?]].concat();
        b = c.emit().reshape(b, shape)?;
    }
    one(c.binary(op, a, b)?)
}

/// What an operator makes of two sizes; the ranges of their symbols are given.
type OnSizes = fn(&Expr, &Expr, &[GraphDim]) -> Option<Expr>;

/// An arithmetic operator, on known integers when both operands are.
fn arithmetic(c: &mut NodeCall, op: BinaryOp, on_sizes: OnSizes) -> Result<Vec<Known>> {
    if let (Some(a), Some(b)) = (c.sizes_beside_symbolic(0), c.sizes_beside_symbolic(1))
        && let Some(values) = of_sizes(c, &a, &b, on_sizes)
    {
        return known(values, a.scalar && b.scalar, a.dtype);
    }
    binary(c, op)
}

/// The function of each pair of elements; `None` where these are not known well enough, or overflow their type.
fn of_sizes(c: &NodeCall, a: &Sizes, b: &Sizes, on_sizes: OnSizes) -> Option<Vec<Expr>> {
    let n = a.values.len().max(b.values.len());
    let fits = |s: &Sizes| (s.values.len() == n || s.values.len() == 1) && !s.is_open();
    if !fits(a) || !fits(b) {
        return None;
    }
    let at = |s: &Sizes, i: usize| s.values[if s.values.len() == 1 { 0 } else { i }].clone();
    let dims = &c.scope.builder.graph().dims;
    (0..n).map(|i| on_sizes(&at(a, i), &at(b, i), dims).filter(|size| in_type(size, a.dtype))).collect()
}

/// Whether a size is one of that element type; a symbolic one is.
fn in_type(size: &Expr, dtype: DType) -> bool {
    match size.as_const() {
        Some(n) if dtype == DType::I32 => i32::try_from(n).is_ok(),
        _ => !size.is_overflow(),
    }
}

/// The quotient rounded toward zero, as that of integer tensors is.
fn truncated(a: &Expr, b: &Expr, dims: &[GraphDim]) -> Option<Expr> {
    let divisor = b.as_const().filter(|n| *n != 0)?;
    let by = Expr::from(divisor.checked_abs()?);
    let above = |a: &Expr| if a.bounds(dims).0 >= 0 { a.clone() } else { a.maximum(&Expr::zero()) };
    // Of a below zero, it is the negated quotient of -a.
    let quotient = if a.bounds(dims).0 >= 0 { a.floor_div(&by) } else { above(a).floor_div(&by) - above(&-a).floor_div(&by) };
    Some(if divisor < 0 { -quotient } else { quotient })
}

/// The remainder has the divisor's sign, or with `fmod` the dividend's.
fn modulo(c: &mut NodeCall) -> Result<Vec<Known>> {
    if c.int("fmod", 0) != 0 {
        return arithmetic(c, BinaryOp::Fmod, |a, b, dims| Some(a - &(b * &truncated(a, b, dims)?)));
    }
    let known = arithmetic(c, BinaryOp::Mod, |a, b, _| b.as_const().filter(|n| *n != 0).map(|_| a.modulo(b)))?;
    match known.first().and_then(|known| known.tensor) {
        Some(id) if c.dtype(id).is_float() => Err("the remainder of floating-point numbers needs `fmod` 1".into()),
        _ => Ok(known),
    }
}

/// The result has the type of the base.
fn pow(c: &mut NodeCall) -> Result<Vec<Known>> {
    let x = c.tensor(0)?;
    if let Some(power) = c.constant(1)?
        && let Some(simple) = pointwise::simple_power(&mut c.emit(), x, power)?
    {
        return one(simple);
    }
    let exponent = c.tensor(1)?;
    let mut e = c.emit();
    let own = e.dtype(x);
    // Fractions of powers of integers are cut only at the end.
    let dtype = if !own.is_float() && e.dtype(exponent).is_float() { DType::F64 } else { own };
    let (x, exponent) = (e.cast(x, dtype)?, e.cast(exponent, dtype)?);
    let power = e.binary(BinaryOp::Pow, x, exponent)?;
    one(e.cast(power, own)?)
}

fn fold(c: &mut NodeCall, op: BinaryOp) -> Result<Vec<Known>> {
    let all = c.tensors()?;
    let (&first, rest) = all.split_first().ok_or("it has no operands")?;
    let mut y = first;
    for &x in rest {
        y = c.binary(op, y, x)?;
    }
    one(y)
}

fn where_(c: &mut NodeCall) -> Result<Vec<Known>> {
    let (condition, then, otherwise) = (c.tensor(0)?, c.tensor(1)?, c.tensor(2)?);
    one(pointwise::select(&mut c.emit(), condition, then, otherwise)?)
}

/// The axes are an operand since opset 13 (sum) and 18 (the others), an attribute before.
fn reduction(c: &mut NodeCall, op: ReduceOp) -> Result<Vec<Known>> {
    let x = c.tensor(0)?;
    let list = c.axes(1)?.unwrap_or_default();
    if list.is_empty() && c.int("noop_with_empty_axes", 0) != 0 {
        return one(x);
    }
    let (axes, keepdim) = (semantics::axes(&list, c.rank(x))?, c.int("keepdims", 1) != 0);
    let (shape, dtype) = (c.shape(x), c.dtype(x));
    let op = match op {
        ReduceOp::Max if dtype == DType::Bool => ReduceOp::Any,
        ReduceOp::Min if dtype == DType::Bool => ReduceOp::All,
        // Of no elements: what no element is smaller or larger than.
        ReduceOp::Max | ReduceOp::Min if axes.iter().any(|axis| shape[*axis].as_const() == Some(0)) => {
            let value = if op == ReduceOp::Max { order::least(dtype) } else { order::most(dtype) };
            let mut e = c.emit();
            let sum = reduction::reduce(&mut e, ReduceOp::Sum, x, axes, keepdim)?;
            let shape = e.shape(sum);
            return one(source::full(&mut e, value, shape, dtype)?);
        }
        op => op,
    };
    one(reduction::reduce(&mut c.emit(), op, x, axes, keepdim)?)
}

fn identity(c: &mut NodeCall) -> Result<Vec<Known>> {
    if let Some(sizes) = c.opt_sizes(0) {
        if !sizes.is_open() {
            return known(sizes.values, sizes.scalar, sizes.dtype);
        }
        // What they are of is exact.
        let name = c.name(0).unwrap_or_default();
        let same = c.scope.known.get(name).cloned();
        if let (Some(proto), Some(output)) = (c.scope.initializers.get(name).copied(), c.node.output.first()) {
            c.scope.initializers.insert(output, proto);
        }
        return Ok(same.into_iter().collect());
    }
    let x = c.tensor(0)?;
    one(x)
}

/// Nothing in inference, where its mask keeps everything.
fn dropout(c: &mut NodeCall) -> Result<Vec<Known>> {
    let training = c.name(2).is_some() && c.constant(2)?.is_none_or(|training| training != 0.0);
    if training && c.constant(1)?.is_none_or(|ratio| ratio != 0.0) {
        return Err("dropout is in training mode (`training_mode`); export the model in eval mode".into());
    }
    let mut results = identity(c)?;
    if c.gives(1) && c.opset() < 10 {
        return Err("its mask is of another type before opset 10; export it without, or with a newer opset".into());
    }
    if c.gives(1) {
        let x = c.tensor(0)?;
        let shape = c.shape(x);
        results.extend(one(source::full(&mut c.emit(), Number::ONE, shape, DType::Bool)?)?);
    }
    Ok(results)
}

fn cast(c: &mut NodeCall) -> Result<Vec<Known>> {
    let to = tensor::dtype(c.int("to", 0) as i32)?;
    if let (Some(sizes), DType::I64 | DType::I32) = (c.opt_sizes(0), to)
        && !sizes.is_open()
        && sizes.values.iter().all(|size| in_type(size, to))
    {
        return known(sizes.values, sizes.scalar, to);
    }
    let x = c.tensor(0)?;
    one(c.emit().cast(x, to)?)
}

fn shape(c: &mut NodeCall) -> Result<Vec<Known>> {
    let x = c.tensor(0)?;
    let shape = c.shape(x);
    let rank = shape.len() as i64;
    let clamp = |at: i64| (if at < 0 { at + rank } else { at }).clamp(0, rank) as usize;
    let (start, end) = (clamp(c.int("start", 0)), clamp(c.int("end", rank)));
    known(shape[start..end.max(start)].to_vec(), false, DType::I64)
}

fn size(c: &mut NodeCall) -> Result<Vec<Known>> {
    let x = c.tensor(0)?;
    let count = c.shape(x).iter().fold(Expr::one(), |a, b| &a * b);
    known(vec![count], true, DType::I64)
}

fn constant(c: &mut NodeCall) -> Result<Vec<Known>> {
    let attribute = c.node.attribute.first().ok_or("a constant without a value")?;
    let name = c.node.output.first().map(String::as_str).unwrap_or_default();
    match attribute.name.as_str() {
        "value" => {
            let proto = attribute.t.as_ref().ok_or("a constant without a value")?;
            if tensor::small_integers(proto, c.scope.external).is_some() {
                // Known as integers or as a tensor, as it is used.
                c.scope.initializers.insert(name, proto);
                return Ok(vec![Known::default()]);
            }
            let (ty, data) = c.scope.data(proto)?;
            one(c.scope.builder.weight(name, ty, data)?)
        }
        "value_int" => integers(c, name, &[attribute.i], true),
        "value_ints" => integers(c, name, &attribute.ints, false),
        "value_float" => {
            let value = f64::from(attribute.f);
            one(c.emit().full(value, DType::F32)?)
        }
        "value_floats" => {
            let data = TensorData::from_f32(&attribute.floats);
            let ty = TensorType { dtype: DType::F32, shape: vec![Expr::from(attribute.floats.len() as i64)] };
            one(c.scope.builder.weight(name, ty, data)?)
        }
        other => Err(format!("a constant given as `{other}` is not supported").into()),
    }
}

/// Constant integers; those that are not exact as sizes are a tensor as well.
fn integers(c: &mut NodeCall, name: &str, values: &[i64], scalar: bool) -> Result<Vec<Known>> {
    let sizes = Sizes { values: values.iter().map(|&n| tensor::open_end(n)).collect(), scalar, dtype: DType::I64 };
    let tensor = if sizes.is_open() {
        let shape = if scalar { Vec::new() } else { vec![Expr::from(values.len() as i64)] };
        let data = TensorData::new(values.iter().flat_map(|n| n.to_le_bytes()).collect());
        Some(c.scope.builder.weight(name, TensorType { dtype: DType::I64, shape }, data)?)
    } else {
        None
    };
    Ok(vec![Known { tensor, sizes: Some(sizes) }])
}

fn constant_of_shape(c: &mut NodeCall) -> Result<Vec<Known>> {
    let shape = c.sizes(0)?;
    let Some(proto) = c.attribute("value").and_then(|a| a.t.clone()) else {
        return one(source::full(&mut c.emit(), Number::ZERO, shape, DType::F32)?);
    };
    let (ty, data) = c.scope.data(&proto)?;
    let value = Number::read(ty.dtype, data.bytes()).filter(|_| data.bytes().len() == ty.dtype.size());
    let value = value.ok_or_else(|| format!("its value is {ty}, not one number"))?;
    if let ([count], DType::I64 | DType::I32) = (shape.as_slice(), ty.dtype)
        && let Some(count @ 0..) = count.as_const()
        && count <= tensor::SMALL as i64
    {
        let tensor = source::full(&mut c.emit(), value, shape, ty.dtype)?;
        let values = vec![tensor::open_end(value.to_i64()); count as usize];
        return Ok(vec![Known { tensor: Some(tensor), sizes: Some(Sizes { values, scalar: false, dtype: ty.dtype }) }]);
    }
    one(source::full(&mut c.emit(), value, shape, ty.dtype)?)
}

/// 0 keeps a size (unless `allowzero`), one -1 takes what is left.
fn reshape(c: &mut NodeCall) -> Result<Vec<Known>> {
    if let (Some(sizes), Some([count])) = (c.opt_sizes(0), c.opt_sizes(1).map(|s| s.values).as_deref()) {
        // A small integer tensor made a vector; to rank 0 is below.
        if count.as_const().is_some_and(|n| n == -1 || n == sizes.values.len() as i64) {
            return known(sizes.values, false, sizes.dtype);
        }
    }
    if let (Some(sizes), Some([])) = (c.opt_sizes(0), c.opt_sizes(1).map(|s| s.values).as_deref()) {
        return known(sizes.values, true, sizes.dtype);
    }
    let x = c.tensor(0)?;
    let old = c.shape(x);
    let mut shape = c.sizes(1)?;
    let keep = c.int("allowzero", 0) == 0;
    for (i, size) in shape.iter_mut().enumerate() {
        if keep && size.as_const() == Some(0) {
            *size = old.get(i).cloned().ok_or("a 0 in its shape has no size to keep")?;
        }
    }
    one(view::reshape(&mut c.emit(), x, shape)?)
}

fn flatten(c: &mut NodeCall) -> Result<Vec<Known>> {
    let x = c.tensor(0)?;
    let rank = c.rank(x) as i64;
    let axis = c.int("axis", 1);
    let axis = if axis < 0 { axis + rank } else { axis };
    if !(0..=rank).contains(&axis) {
        return Err(format!("axis {axis} is outside a tensor of rank {rank}").into());
    }
    one(view::as_matrix(&mut c.emit(), x, axis as usize)?)
}

fn transpose(c: &mut NodeCall) -> Result<Vec<Known>> {
    let x = c.tensor(0)?;
    let rank = c.rank(x);
    let Some(perm) = c.list("perm") else { return one(view::reversed(&mut c.emit(), x)?) };
    let axes = perm.iter().map(|a| semantics::axis(*a, rank)).collect::<Result<_>>()?;
    one(view::permute(&mut c.emit(), x, axes)?)
}

fn unsqueeze(c: &mut NodeCall) -> Result<Vec<Known>> {
    let axes = c.axes(1)?.ok_or("its axes are missing")?;
    if let (Some(sizes), [0 | -1]) = (c.opt_sizes(0).filter(|s| s.scalar), axes.as_slice()) {
        return known(sizes.values, false, sizes.dtype);
    }
    let x = c.tensor(0)?;
    let rank = c.rank(x) + axes.len();
    let axes = axes.into_iter().map(|a| semantics::axis(a, rank)).collect::<Result<_>>()?;
    one(view::unsqueeze(&mut c.emit(), x, axes)?)
}

fn squeeze(c: &mut NodeCall) -> Result<Vec<Known>> {
    let axes = c.axes(1)?;
    if let Some(sizes) = c.opt_sizes(0).filter(|s| s.values.len() == 1) {
        return known(sizes.values, true, sizes.dtype);
    }
    let x = c.tensor(0)?;
    let rank = c.rank(x);
    let mut e = c.emit();
    let axes = match axes {
        Some(axes) => axes.into_iter().map(|a| semantics::axis(a, rank)).collect::<Result<Vec<_>>>()?,
        None => view::of_size_one(&e, x, 0..rank),
    };
    one(view::without(&mut e, x, &axes)?)
}

/// Broadcasting in both directions: the given shape may have 1 where the tensor has more.
fn expand(c: &mut NodeCall) -> Result<Vec<Known>> {
    let x = c.tensor(0)?;
    let old = c.shape(x);
    let given = c.sizes(1)?;
    let rank = old.len().max(given.len());
    let at = |list: &[Expr], i: usize| (i + list.len()).checked_sub(rank).map(|i| list[i].clone()).unwrap_or_else(Expr::one);
    let shape: Vec<Expr> =
        (0..rank).map(|i| if at(&given, i).as_const() == Some(1) { at(&old, i) } else { at(&given, i) }).collect();
    one(view::expand(&mut c.emit(), x, shape)?)
}

fn slice(c: &mut NodeCall) -> Result<Vec<Known>> {
    // Attributes before opset 10.
    let ends_of = |c: &mut NodeCall, name: &str, i: usize| match c.list(name) {
        Some(list) => Ok(list.iter().map(|&n| tensor::open_end(n)).collect()),
        None => c.sizes(i),
    };
    let (starts, ends) = (ends_of(c, "starts", 1)?, ends_of(c, "ends", 2)?);
    let count = starts.len();
    let axes = c.axes(3)?.unwrap_or_else(|| (0..count as i64).collect());
    let steps = c.ints(4)?.unwrap_or_else(|| vec![1; count]);
    if ends.len() != count || axes.len() != count || steps.len() != count {
        return Err("its starts, ends, axes and steps differ in length".into());
    }
    if steps.contains(&0) {
        return Err("a slice with step 0".into());
    }
    if let (Some(sizes), [step]) = (c.opt_sizes(0).filter(|s| !s.scalar), steps.as_slice())
        && *step > 0
    {
        let size = Expr::from(sizes.values.len() as i64);
        if let (Some(from), Some(to)) = (view::position(&starts[0], &size).as_const(), view::position(&ends[0], &size).as_const())
        {
            let part = sizes.values.get(from as usize..to.max(from) as usize).unwrap_or_default();
            return known(part.iter().step_by(*step as usize).cloned().collect(), false, sizes.dtype);
        }
    }
    let mut x = c.tensor(0)?;
    let mut e = c.emit();
    for i in 0..count {
        let axis = semantics::axis(axes[i], e.rank(x))?;
        let size = e.shape(x)[axis].clone();
        if steps[i] < 0 {
            x = backwards(&mut e, x, axis, [&starts[i], &ends[i]], steps[i])?;
            continue;
        }
        let (start, end) = (view::position(&starts[i], &size), view::position(&ends[i], &size));
        x = view::slice(&mut e, x, axis, start, end, steps[i])?;
    }
    one(x)
}

/// Every `-step`-th position of an axis of constant size from `start` down to `end`, which is left out.
fn backwards(e: &mut Emit<'_>, x: ValueId, axis: usize, [start, end]: [&Expr; 2], step: i64) -> Result<ValueId> {
    let constants = [start, end, &e.shape(x)[axis].clone()].map(Expr::as_const);
    let [Some(start), Some(end), Some(size)] = constants else {
        return Err("a slice with a negative step needs constant ends and an axis of constant size".into());
    };
    let position = |at: i64, most: i64| if at < 0 { at.saturating_add(size).max(-1) } else { at.min(most) };
    let (start, end) = (position(start, size - 1), position(end, size - 1));
    let length = ((start - end).max(0) as u64).div_ceil(step.unsigned_abs()) as i64;
    if length == 0 {
        return view::slice(e, x, axis, Expr::zero(), Expr::zero(), 1);
    }
    // One step alone may be as large as the largest number.
    let step = if length == 1 { -1 } else { step };
    let places = e.push(Op::Iota { length: Expr::from(length), start, step, dtype: DType::I64 }, &[])?;
    gather::take(e, x, places, axis)
}

fn split(c: &mut NodeCall) -> Result<Vec<Known>> {
    let x = c.tensor(0)?;
    let axis = c.axis("axis", 0, c.rank(x))?;
    let given = match c.list("split") {
        Some(sizes) => Some(sizes.to_vec()),
        None => c.ints(1)?,
    };
    let sizes = match given {
        Some(sizes) => sizes,
        None => {
            let parts = c.node.output.len() as i64;
            let size = view::size_to_split(&c.emit(), x, axis)?;
            let part = (size + parts - 1) / parts;
            (0..parts).map(|i| part.min(size - i * part)).collect()
        }
    };
    let parts = view::split(&mut c.emit(), x, axis, &sizes)?;
    Ok(parts.into_iter().map(|part| Known { tensor: Some(part), sizes: None }).collect())
}

fn concat(c: &mut NodeCall) -> Result<Vec<Known>> {
    let parts: Option<Vec<_>> = (0..c.node.input.len()).map(|i| c.sizes_beside_symbolic(i).filter(|s| !s.scalar)).collect();
    if let Some(parts) = parts
        && let Some(dtype) = parts.first().map(|s| s.dtype)
        && parts.iter().all(|s| s.dtype == dtype)
    {
        return known(parts.into_iter().flat_map(|s| s.values).collect(), false, dtype);
    }
    let all = c.tensors()?;
    let first = *all.first().ok_or("it has no operands")?;
    let axis = c.axis("axis", 0, c.rank(first))?;
    one(view::concat(&mut c.emit(), &all, axis)?)
}

/// What is around may be a value, or elements of the tensor itself.
fn pad(c: &mut NodeCall) -> Result<Vec<Known>> {
    let x = c.tensor(0)?;
    let rank = c.rank(x);
    // Attributes before opset 11.
    let (list, value) = match c.list("pads") {
        Some(list) => (list.to_vec(), Some(Number::float(c.float("value", 0.0)))),
        None => (c.ints(1)?.ok_or("its padding is missing")?, c.number(2)?),
    };
    let axes = c.ints(3)?.unwrap_or_else(|| (0..rank as i64).collect());
    if list.len() != 2 * axes.len() {
        return Err(format!("its padding has {} numbers for {} axes", list.len(), axes.len()).into());
    }
    let mut pads = vec![[0, 0]; rank];
    for (i, &axis) in axes.iter().enumerate() {
        pads[semantics::axis(axis, rank)?] = [list[i], list[axes.len() + i]];
    }
    let repeats = match c.text("mode") {
        "" | "constant" => return one(view::pad(&mut c.emit(), x, pads, value.unwrap_or(Number::ZERO))?),
        "reflect" => Repeats::Mirror,
        "edge" => Repeats::Edge,
        "wrap" => Repeats::Circle,
        other => return Err(format!("padding in mode `{other}` is not supported").into()),
    };
    let shape = c.shape(x);
    for ([before, after], size) in pads.iter().zip(&shape) {
        let reach = *before.max(after);
        let reach = if repeats == Repeats::Mirror { reach + 1 } else { reach };
        let least = size.bounds(&c.scope.builder.graph().dims).0;
        if reach > 0 && least < if repeats == Repeats::Edge { 1 } else { reach } {
            return Err(format!("padding by {before} and {after} elements of an axis of {size} is not supported").into());
        }
    }
    one(view::pad_by(&mut c.emit(), x, &pads, repeats)?)
}

fn tile(c: &mut NodeCall) -> Result<Vec<Known>> {
    let (x, repeats) = (c.tensor(0)?, c.sizes(1)?);
    if repeats.len() != c.rank(x) {
        return Err("it has another number of repeats than its input has dimensions".into());
    }
    one(view::repeat(&mut c.emit(), x, &repeats)?)
}

fn take(c: &mut NodeCall) -> Result<Vec<Known>> {
    if let (Some(data), Some(indices)) = (c.opt_sizes(0).filter(|s| !s.scalar), c.opt_sizes(1)) {
        let n = data.values.len() as i64;
        let pick =
            |i: &Expr| data.values.get(usize::try_from(i.as_const().map(|i| if i < 0 { i + n } else { i })?).ok()?).cloned();
        if let Some(values) = indices.values.iter().map(pick).collect::<Option<Vec<_>>>() {
            return known(values, indices.scalar, data.dtype);
        }
    }
    let (x, indices) = (c.tensor(0)?, c.tensor(1)?);
    let axis = c.axis("axis", 0, c.rank(x))?;
    one(gather::take(&mut c.emit(), x, indices, axis)?)
}

fn gather_elements(c: &mut NodeCall) -> Result<Vec<Known>> {
    let (x, indices) = (c.tensor(0)?, c.tensor(1)?);
    let axis = c.axis("axis", 0, c.rank(x))?;
    one(gather::elements(&mut c.emit(), x, indices, axis)?)
}

fn range(c: &mut NodeCall) -> Result<Vec<Known>> {
    let dtypes: Vec<DType> = (0..3).map(|i| c.opt_sizes(i).map(|sizes| sizes.dtype)).collect::<Option<_>>().unwrap_or_default();
    if dtypes.is_empty() {
        return numbers_between(c);
    }
    let single = |c: &mut NodeCall, i| -> Result<Expr> {
        c.sizes(i)?.into_iter().next().ok_or_else(|| Refusal::from("a range needs three numbers"))
    };
    let (start, end, step) = (single(c, 0)?, single(c, 1)?, single(c, 2)?);
    let (Some(start), Some(step)) = (start.as_const(), step.as_const()) else {
        return Err("a range needs a constant start and a constant step".into());
    };
    one(source::range(&mut c.emit(), start, &end, step, dtypes[0])?)
}

/// A range of constant numbers, which may be fractions.
fn numbers_between(c: &mut NodeCall) -> Result<Vec<Known>> {
    let mut ends = [0.0; 3];
    for (i, end) in ends.iter_mut().enumerate() {
        let number = c.number(i)?.ok_or("a range needs three numbers")?;
        *end = number.as_f64().ok_or("a range of numbers beyond 2⁵³ is not supported")?;
    }
    let [start, end, step] = ends;
    let x = c.tensor(0)?;
    let (dtype, length) = (c.dtype(x), ((end - start) / step).ceil().max(0.0));
    if !length.is_finite() || length > MAX_RANGE {
        return Err(format!("a range of {length} numbers is not supported").into());
    }
    one(source::ramp(&mut c.emit(), length as i64, start, step, dtype)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_distinct() {
        let mut names: Vec<_> = rows().map(|(name, _)| *name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|w| w[0] != w[1]), "an operator is listed twice");
    }
}
