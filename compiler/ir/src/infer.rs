//! Shape rules: the type of a node's result from its operator and the types of its operands.

use aotfarm_protocol::DType;

use super::{BinaryOp, Expr, GraphDim, Op, PoolOp, ReduceOp, TensorType, UnaryOp, Window};

/// Most dimensions of a tensor.
pub const MAX_RANK: usize = 16;
/// Largest size of one dimension.
pub const MAX_SIZE: i64 = 1 << 40;
/// Most elements of a tensor at the largest sizes of its dimensions.
pub const MAX_ELEMENTS: i64 = 1 << 44;

/// A violated shape rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{op}({}): {rule}", types(.inputs))]
pub struct InferError {
    /// The operator's name.
    pub op: &'static str,
    /// The operands.
    pub inputs: Vec<TensorType>,
    /// What is wrong.
    pub rule: String,
}

impl InferError {
    fn new(op: &Op, inputs: &[&TensorType], rule: String) -> Self {
        Self { op: op.name(), inputs: inputs.iter().map(|&t| t.clone()).collect(), rule }
    }
}

fn types(inputs: &[TensorType]) -> String {
    inputs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The type of the result. What depends on the ranges of symbols is left to [`check_ranges`].
pub fn infer(op: &Op, inputs: &[&TensorType]) -> Result<TensorType, InferError> {
    rule(op, inputs)
        .and_then(|ty| match ty.shape.len() {
            0..=MAX_RANK => Ok(ty),
            rank => Err(format!("the result has {rank} dimensions, more than {MAX_RANK}")),
        })
        .map_err(|rule| InferError::new(op, inputs, rule))
}

/// Checks what the shape rule cannot decide without the symbols' ranges: a slice or gather within its tensor, and no size of the
/// result negative or absurd, for every allowed size of the symbols. `result` is what [`infer`] gave.
pub fn check_ranges(op: &Op, inputs: &[&TensorType], result: &TensorType, dims: &[GraphDim]) -> Result<(), InferError> {
    within(op, inputs, dims).and_then(|()| check_sizes(result, dims)).map_err(|rule| InferError::new(op, inputs, rule))
}

/// Checks that every size is between 0 and [`MAX_SIZE`], and their product at most [`MAX_ELEMENTS`], for all allowed sizes of the
/// symbols. The error says what to change.
pub fn check_sizes(ty: &TensorType, dims: &[GraphDim]) -> Result<(), String> {
    let mut elements = 1i64;
    for size in &ty.shape {
        if let Some(unknown) = size.symbols().into_iter().find(|s| !dims.iter().any(|d| d.sym == *s)) {
            return Err(format!("the size `{size}` uses `{unknown}`, which is not a dimension of the graph"));
        }
        let (low, high) = size.bounds(dims);
        if low < 0 {
            let ranges = if low == i64::MIN { String::new() } else { format!(" (as low as {low})") };
            return Err(format!(
                "the size `{size}` may be negative{ranges} for allowed sizes of its symbols; raise their lower ends"
            ));
        }
        if high > MAX_SIZE {
            return Err(format!("the size `{size}` may exceed {MAX_SIZE}; lower the upper ends of its symbols"));
        }
        elements = elements.checked_mul(high.max(1)).filter(|&n| n <= MAX_ELEMENTS).ok_or_else(|| {
            format!("a result of type {ty} may have more than {MAX_ELEMENTS} elements; lower the upper ends of its symbols")
        })?;
    }
    Ok(())
}

fn within(op: &Op, inputs: &[&TensorType], dims: &[GraphDim]) -> Result<(), String> {
    let never_negative = |e: Expr| e.bounds(dims).0 >= 0;
    match op {
        Op::Slice { axis, start, end, .. } => {
            let size = &inputs[0].shape[*axis];
            let inside = never_negative(start.clone()) && never_negative(end - start) && never_negative(size - end);
            ensure(inside, || format!("the slice {start}..{end} may leave the axis of size {size}; clamp it to 0..{size}"))
        }
        Op::GatherElements { axis } => {
            for (k, (size, index)) in inputs[0].shape.iter().zip(&inputs[1].shape).enumerate() {
                ensure(k == *axis || never_negative(size - index), || {
                    format!("axis {k} of the indices ({index}) may be longer than that of the data ({size})")
                })?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn ensure(condition: bool, message: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(message()) }
}

fn rule(op: &Op, inputs: &[&TensorType]) -> Result<TensorType, String> {
    let (least, most) = arity(op);
    ensure((least..=most).contains(&inputs.len()), || {
        let wanted = if least == most { least.to_string() } else { format!("{least} to {most}") };
        format!("expected {wanted} operands, got {}", inputs.len())
    })?;
    let same = |shape: &[Expr]| TensorType { dtype: inputs[0].dtype, shape: shape.to_vec() };
    let x = inputs.first().map_or(&[][..], |t| &t.shape);
    match op {
        Op::Unary(function) => {
            unary_dtype(*function, inputs[0].dtype)?;
            Ok(same(x))
        }
        Op::Binary(function) => {
            let dtype = binary_dtype(*function, inputs[0].dtype, inputs[1].dtype)?;
            Ok(TensorType { dtype, shape: broadcast(x, &inputs[1].shape)? })
        }
        Op::Where => {
            let [condition, then, otherwise] = [inputs[0], inputs[1], inputs[2]];
            ensure(condition.dtype == DType::Bool, || format!("the condition must be bool, not {}", condition.dtype))?;
            same_dtype(&[then, otherwise])?;
            let shape = broadcast(&broadcast(&condition.shape, &then.shape)?, &otherwise.shape)?;
            Ok(TensorType { dtype: then.dtype, shape })
        }
        Op::Cast(dtype) => Ok(TensorType { dtype: *dtype, shape: x.to_vec() }),
        Op::Conv { window, groups } => conv(inputs, window, *groups),
        Op::BatchNorm { .. } => {
            float(inputs)?;
            ensure(x.len() >= 2, || "x must have at least 2 dimensions, [N, C, …]".into())?;
            for (operand, name) in inputs[1..].iter().zip(["scale", "shift", "mean", "variance"]) {
                ensure(operand.shape == [x[1].clone()], || format!("{name} must have the shape [{}]", x[1]))?;
            }
            Ok(same(x))
        }
        Op::Pool { op, window } => {
            ensure(inputs[0].dtype != DType::Bool, || "x must be numeric".into())?;
            ensure(*op == PoolOp::Max || inputs[0].dtype.is_float(), || "an average needs a floating-point x".into())?;
            rank4(x)?;
            check_window(window)?;
            for (axis, [before, after]) in window.pad.iter().enumerate() {
                let extent = window.dilation[axis] * (window.kernel[axis] - 1) + 1;
                ensure(*before < extent && *after < extent, || {
                    format!("padding {before},{after} leaves windows of {extent} without any element")
                })?;
            }
            let [h, w] = slide(x, window);
            Ok(same(&[x[0].clone(), x[1].clone(), h, w]))
        }
        Op::AdaptiveAvgPool { output } => {
            float(inputs)?;
            rank4(x)?;
            ensure(output.iter().all(|n| (1..=MAX_SIZE).contains(n)), || format!("an output of {output:?} is not positive"))?;
            Ok(same(&[x[0].clone(), x[1].clone(), output[0].into(), output[1].into()]))
        }
        Op::Linear => {
            float(inputs)?;
            ensure(!x.is_empty(), || "x must have at least 1 dimension".into())?;
            let [n, k] = inputs[1].shape.as_slice() else { return Err("the weight must have the shape [N, K]".into()) };
            let last = x.len() - 1;
            ensure(x[last] == *k, || format!("x has {} features, but the weight expects {k}", x[last]))?;
            bias(inputs.get(2), n)?;
            Ok(same(&[&x[..last], std::slice::from_ref(n)].concat()))
        }
        Op::MatMul => {
            same_dtype(inputs)?;
            ensure(inputs[0].dtype != DType::Bool, || "operands must be numeric".into())?;
            let (a_lead, [m, k]) = matrix(inputs[0], "a")?;
            let (b_lead, [k2, n]) = matrix(inputs[1], "b")?;
            ensure(k == k2, || format!("a has {k} columns, but b has {k2} rows"))?;
            let mut shape = broadcast(a_lead, b_lead)?;
            shape.extend([m.clone(), n.clone()]);
            Ok(same(&shape))
        }
        Op::Attention { .. } => attention(inputs),
        Op::Softmax { axis } => {
            float(inputs)?;
            check_axis(*axis, x.len())?;
            Ok(same(x))
        }
        Op::LayerNorm { axes, .. } => {
            float(inputs)?;
            ensure(inputs.len() != 2, || "scale and shift come together: expected 1 or 3 operands, got 2".into())?;
            ensure((1..=x.len()).contains(axes), || format!("cannot normalise over {axes} of {} axes", x.len()))?;
            let normalised = &x[x.len() - axes..];
            for (operand, name) in inputs[1..].iter().zip(["scale", "shift"]) {
                ensure(operand.shape == normalised, || format!("{name} must have the shape {}", shape_text(normalised)))?;
            }
            Ok(same(x))
        }
        Op::Reduce { op, axes, keepdim } => {
            reduce_dtype(*op, inputs[0].dtype)?;
            check_axes(axes, x.len())?;
            ensure(axes.is_sorted(), || format!("the axes {axes:?} are not sorted"))?;
            let kept = x.iter().enumerate().filter_map(|(i, size)| match (axes.contains(&i), keepdim) {
                (false, _) => Some(size.clone()),
                (true, true) => Some(Expr::one()),
                (true, false) => None,
            });
            Ok(same(&kept.collect::<Vec<_>>()))
        }
        Op::Reshape { shape } => {
            let (from, to) = (x.iter().product::<Expr>(), shape.iter().product::<Expr>());
            ensure(!from.is_overflow() && from == to, || {
                format!("cannot reshape {from} elements to {} ({to} elements)", shape_text(shape))
            })?;
            Ok(same(shape))
        }
        Op::Permute { axes } => {
            check_axes(axes, x.len())?;
            ensure(axes.len() == x.len(), || format!("{axes:?} is not a permutation of {} axes", x.len()))?;
            Ok(same(&axes.iter().map(|&a| x[a].clone()).collect::<Vec<_>>()))
        }
        Op::Expand { shape } => {
            ensure(broadcast(x, shape).is_ok_and(|s| s == *shape), || format!("cannot expand to {}", shape_text(shape)))?;
            Ok(same(shape))
        }
        Op::Slice { axis, start, end, step } => {
            check_axis(*axis, x.len())?;
            ensure((1..=MAX_SIZE).contains(step), || format!("the step {step} is not positive"))?;
            let length = end - start;
            ensure(length.as_const().is_none_or(|n| n >= 0), || format!("the slice {start}..{end} ends before it starts"))?;
            let mut shape = x.to_vec();
            shape[*axis] = (length + (step - 1)).floor_div(&Expr::from(*step));
            Ok(same(&shape))
        }
        Op::Concat { axis } => {
            same_dtype(inputs)?;
            check_axis(*axis, x.len())?;
            let mut shape = x.to_vec();
            for other in &inputs[1..] {
                let fits = other.shape.len() == x.len() && (0..x.len()).all(|i| i == *axis || other.shape[i] == x[i]);
                ensure(fits, || format!("operands must be equal but for axis {axis}"))?;
                shape[*axis] = &shape[*axis] + &other.shape[*axis];
            }
            Ok(same(&shape))
        }
        Op::Pad { pads, .. } => {
            ensure(pads.len() == x.len(), || format!("padding for {} axes, but x has {}", pads.len(), x.len()))?;
            Ok(same(&x.iter().zip(pads).map(|(size, [before, after])| size + *before + *after).collect::<Vec<_>>()))
        }
        Op::Take { axis } => {
            check_axis(*axis, x.len())?;
            integer(inputs[1])?;
            Ok(same(&[&x[..*axis], &inputs[1].shape, &x[axis + 1..]].concat()))
        }
        Op::GatherElements { axis } => {
            check_axis(*axis, x.len())?;
            integer(inputs[1])?;
            ensure(inputs[1].shape.len() == x.len(), || "data and indices must have the same rank".into())?;
            Ok(same(&inputs[1].shape))
        }
        Op::Iota { length, dtype, .. } => {
            ensure(*dtype != DType::Bool, || "the element type must be numeric".into())?;
            Ok(TensorType { dtype: *dtype, shape: vec![length.clone()] })
        }
        Op::Full { shape, dtype, .. } => Ok(TensorType { dtype: *dtype, shape: shape.clone() }),
    }
}

/// Least and most number of operands.
const fn arity(op: &Op) -> (usize, usize) {
    match op {
        Op::Iota { .. } | Op::Full { .. } => (0, 0),
        Op::Unary(_)
        | Op::Cast(_)
        | Op::Pool { .. }
        | Op::AdaptiveAvgPool { .. }
        | Op::Softmax { .. }
        | Op::Reduce { .. }
        | Op::Reshape { .. }
        | Op::Permute { .. }
        | Op::Expand { .. }
        | Op::Slice { .. }
        | Op::Pad { .. } => (1, 1),
        Op::Binary(_) | Op::MatMul | Op::Take { .. } | Op::GatherElements { .. } => (2, 2),
        Op::Conv { .. } | Op::Linear => (2, 3),
        Op::LayerNorm { .. } => (1, 3),
        Op::Where => (3, 3),
        Op::Attention { .. } => (3, 4),
        Op::BatchNorm { .. } => (5, 5),
        Op::Concat { .. } => (1, usize::MAX),
    }
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

pub(super) fn shape_text(shape: &[Expr]) -> String {
    format!("[{}]", shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
}

fn same_dtype(inputs: &[&TensorType]) -> Result<(), String> {
    ensure(inputs.iter().all(|t| t.dtype == inputs[0].dtype), || "operands must have the same element type".into())
}

fn float(inputs: &[&TensorType]) -> Result<(), String> {
    same_dtype(inputs)?;
    ensure(inputs[0].dtype.is_float(), || format!("operands must be floating-point, not {}", inputs[0].dtype))
}

fn integer(indices: &TensorType) -> Result<(), String> {
    ensure(matches!(indices.dtype, DType::I32 | DType::I64), || format!("indices must be i32 or i64, not {}", indices.dtype))
}

fn unary_dtype(function: UnaryOp, dtype: DType) -> Result<(), String> {
    use UnaryOp::{Abs, Ceil, Clamp, Floor, Neg, Not, Relu, Round};
    let fits = match function {
        Not => dtype == DType::Bool,
        Abs | Neg | Relu | Clamp { .. } | Floor | Ceil | Round => dtype != DType::Bool,
        _ => dtype.is_float(),
    };
    ensure(fits, || format!("not defined for {dtype}; cast first"))
}

fn binary_dtype(function: BinaryOp, a: DType, b: DType) -> Result<DType, String> {
    use BinaryOp::{And, Eq, Ne, Or};
    ensure(a == b, || format!("operands must have the same element type, not {a} and {b}; cast first"))?;
    let fits = match function {
        And | Or => !a.is_float(),
        Eq | Ne => true,
        _ => a != DType::Bool,
    };
    ensure(fits, || format!("not defined for {a}; cast first"))?;
    Ok(if function.is_comparison() { DType::Bool } else { a })
}

fn reduce_dtype(op: ReduceOp, dtype: DType) -> Result<(), String> {
    let fits = match op {
        ReduceOp::Any | ReduceOp::All => dtype == DType::Bool,
        ReduceOp::Mean => dtype.is_float(),
        _ => dtype != DType::Bool,
    };
    ensure(fits, || format!("not defined for {dtype}; cast first"))
}

fn check_axis(axis: usize, rank: usize) -> Result<(), String> {
    ensure(axis < rank, || format!("axis {axis} of a tensor with {rank} dimensions"))
}

fn check_axes(axes: &[usize], rank: usize) -> Result<(), String> {
    axes.iter().try_for_each(|&axis| check_axis(axis, rank))?;
    let mut seen = [false; MAX_RANK];
    ensure(axes.iter().all(|&a| a < MAX_RANK && !std::mem::replace(&mut seen[a], true)), || {
        format!("{axes:?} names an axis twice")
    })
}

fn rank4(x: &[Expr]) -> Result<(), String> {
    ensure(x.len() == 4, || "x must have the shape [N, C, H, W]".into())
}

fn bias(operand: Option<&&TensorType>, n: &Expr) -> Result<(), String> {
    ensure(operand.is_none_or(|b| b.shape == [n.clone()]), || format!("the bias must have the shape [{n}]"))
}

fn check_window(window: &Window) -> Result<(), String> {
    const MOST: i64 = 1 << 20;
    let positive = [window.kernel, window.stride, window.dilation].iter().flatten().all(|n| (1..=MOST).contains(n));
    let pads = window.pad.iter().flatten().all(|n| (0..=MOST).contains(n));
    ensure(positive && pads, || {
        format!("kernel, stride and dilation must be in 1..={MOST} and padding in 0..={MOST}, got {window:?}")
    })
}

/// Output height and width of a window over NCHW.
fn slide(x: &[Expr], window: &Window) -> [Expr; 2] {
    [0, 1].map(|axis| {
        let [before, after] = window.pad[axis];
        let extent = window.dilation[axis] * (window.kernel[axis] - 1) + 1;
        (&x[axis + 2] + (before + after - extent)).floor_div(&Expr::from(window.stride[axis])) + 1
    })
}

fn conv(inputs: &[&TensorType], window: &Window, groups: i64) -> Result<TensorType, String> {
    float(inputs)?;
    rank4(&inputs[0].shape)?;
    let [o, per_group, kh, kw] = inputs[1].shape.as_slice() else {
        return Err("the weight must have the shape [O, C/groups, KH, KW]".into());
    };
    check_window(window)?;
    let kernel = [kh.as_const(), kw.as_const()];
    ensure(kernel == window.kernel.map(Some), || format!("a window of {:?} for a weight of [{kh}, {kw}]", window.kernel))?;
    ensure((1..=MAX_SIZE).contains(&groups), || format!("{groups} groups"))?;
    let x = &inputs[0].shape;
    ensure(x[1] == per_group * groups, || {
        format!("x has {} channels, but the weight expects {per_group} in each of {groups} groups", x[1])
    })?;
    ensure(o.as_const().is_some_and(|o| o % groups == 0), || format!("{o} output channels do not divide into {groups} groups"))?;
    bias(inputs.get(2), o)?;
    let [h, w] = slide(x, window);
    Ok(TensorType { dtype: inputs[0].dtype, shape: vec![x[0].clone(), o.clone(), h, w] })
}

fn matrix<'a>(ty: &'a TensorType, name: &str) -> Result<(&'a [Expr], &'a [Expr; 2]), String> {
    ty.shape.split_last_chunk().ok_or_else(|| format!("{name} must have at least 2 dimensions"))
}

fn attention(inputs: &[&TensorType]) -> Result<TensorType, String> {
    float(&inputs[..3])?;
    let (q_lead, [l, e]) = matrix(inputs[0], "query")?;
    let (k_lead, [s, e2]) = matrix(inputs[1], "key")?;
    let (v_lead, [s2, v]) = matrix(inputs[2], "value")?;
    ensure(e == e2, || format!("query has {e} features, but key has {e2}"))?;
    ensure(s == s2, || format!("key has {s} positions, but value has {s2}"))?;
    let mut scores = broadcast(&broadcast(q_lead, k_lead)?, v_lead)?;
    let mut shape = scores.clone();
    scores.extend([l.clone(), s.clone()]);
    shape.extend([l.clone(), v.clone()]);
    if let Some(mask) = inputs.get(3) {
        ensure(mask.dtype == DType::Bool || mask.dtype == inputs[0].dtype, || {
            format!("the mask must be bool or {}, not {}", inputs[0].dtype, mask.dtype)
        })?;
        ensure(broadcast(&mask.shape, &scores).is_ok_and(|b| b == scores), || {
            format!("the mask {} does not broadcast to {}", shape_text(&mask.shape), shape_text(&scores))
        })?;
    }
    Ok(TensorType { dtype: inputs[0].dtype, shape })
}
