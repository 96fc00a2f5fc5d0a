//! Finds activation functions that exporters spell out in simpler operators, so that they can ride on what comes before them.

use aotfarm_ir::{BinaryOp, BuildError, Graph, Node, Op, UnaryOp, ValueId};

use super::rewrite::{Rewriter, rewrite};

pub(super) fn run(graph: &Graph) -> Result<Graph, BuildError> {
    rewrite(graph, |r, node, inputs| {
        let Some((function, x)) = recognise(r, node, inputs) else { return Ok(None) };
        if r.ty(x).dtype != graph.ty(node.output).dtype || r.ty(x).shape != graph.ty(node.output).shape {
            return Ok(None);
        }
        let name = r.name_of(node);
        r.push(&name, Op::Unary(function), &[x], &node.source).map(Some)
    })
}

/// The function, and its operand in the new graph.
fn recognise(r: &Rewriter<'_>, node: &Node, inputs: &[ValueId]) -> Option<(UnaryOp, ValueId)> {
    let Op::Binary(op) = node.op else { return None };
    match op {
        BinaryOp::Mul => product(r, inputs[0], inputs[1]).or_else(|| product(r, inputs[1], inputs[0])),
        BinaryOp::Div if uniform(r, inputs[1]) == Some(6.0) => sixth(r, inputs[0]),
        _ => None,
    }
}

fn product(r: &Rewriter<'_>, a: ValueId, b: ValueId) -> Option<(UnaryOp, ValueId)> {
    match unary(r, b) {
        // x sigmoid(x), x hardsigmoid(x).
        Some((UnaryOp::Sigmoid, x)) if x == a => return Some((UnaryOp::Silu, a)),
        Some((UnaryOp::Hardsigmoid, x)) if x == a => return Some((UnaryOp::Hardswish, a)),
        _ => {}
    }
    match uniform(r, b) {
        // (x (1 + erf(x / √2))) 0.5
        Some(0.5) => {
            let (first, second) = binary(r, BinaryOp::Mul, a)?;
            return gelu(r, first, second).or_else(|| gelu(r, second, first));
        }
        Some(sixth_part) if close(sixth_part, 1.0 / 6.0) => return sixth(r, a),
        _ => {}
    }
    // (0.5 x) (1 + erf(x / √2))
    let x = scaled(r, a, 0.5)?;
    gelu(r, x, b)
}

/// `clamp(x + 3, 0, 6)` divided by 6, or x times it.
fn sixth(r: &Rewriter<'_>, value: ValueId) -> Option<(UnaryOp, ValueId)> {
    if let Some(x) = relu6_of_shifted(r, value) {
        return Some((UnaryOp::Hardsigmoid, x));
    }
    let (a, b) = binary(r, BinaryOp::Mul, value)?;
    let is = |x: ValueId, other: ValueId| relu6_of_shifted(r, other) == Some(x);
    if is(a, b) { Some((UnaryOp::Hardswish, a)) } else { is(b, a).then_some((UnaryOp::Hardswish, b)) }
}

/// The x of `clamp(x + 3, 0, 6)`.
fn relu6_of_shifted(r: &Rewriter<'_>, value: ValueId) -> Option<ValueId> {
    match unary(r, value)? {
        (UnaryOp::Clamp { low: 0.0, high: 6.0 }, shifted) => {
            let (a, b) = binary(r, BinaryOp::Add, shifted)?;
            if uniform(r, b) == Some(3.0) { Some(a) } else { (uniform(r, a) == Some(3.0)).then_some(b) }
        }
        _ => None,
    }
}

/// `x` when `other` is `1 + erf(x / √2)`.
fn gelu(r: &Rewriter<'_>, x: ValueId, other: ValueId) -> Option<(UnaryOp, ValueId)> {
    let (a, b) = binary(r, BinaryOp::Add, other)?;
    let erf = if uniform(r, a) == Some(1.0) { b } else { (uniform(r, b) == Some(1.0)).then_some(a)? };
    let (UnaryOp::Erf, scaled_x) = unary(r, erf)? else { return None };
    let inner = scaled(r, scaled_x, std::f64::consts::FRAC_1_SQRT_2)?;
    (inner == x).then_some((UnaryOp::Gelu, x))
}

/// The x of `x * factor`, `factor * x` or `x / (1 / factor)`.
fn scaled(r: &Rewriter<'_>, value: ValueId, factor: f64) -> Option<ValueId> {
    if let Some((a, b)) = binary(r, BinaryOp::Mul, value) {
        let is = |id: ValueId| uniform(r, id).is_some_and(|v| close(v, factor));
        return if is(b) { Some(a) } else { is(a).then_some(b) };
    }
    let (a, b) = binary(r, BinaryOp::Div, value)?;
    uniform(r, b).is_some_and(|v| close(v, 1.0 / factor)).then_some(a)
}

/// The number that every element of a value is, when that is known.
fn uniform(r: &Rewriter<'_>, value: ValueId) -> Option<f64> {
    r.uniform(value)?.as_f64()
}

/// Equal to within f32 rounding, as constants pass through f32 files.
fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-6 * b.abs()
}

fn unary(r: &Rewriter<'_>, value: ValueId) -> Option<(UnaryOp, ValueId)> {
    let node = r.producer(value)?;
    match node.op {
        Op::Unary(op) => Some((op, node.inputs[0])),
        _ => None,
    }
}

fn binary(r: &Rewriter<'_>, wanted: BinaryOp, value: ValueId) -> Option<(ValueId, ValueId)> {
    let node = r.producer(value)?;
    match node.op {
        Op::Binary(op) if op == wanted => Some((node.inputs[0], node.inputs[1])),
        _ => None,
    }
}
