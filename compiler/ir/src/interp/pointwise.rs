//! Element-wise operators.

use rayon::prelude::*;

use super::data::{Array, Data};
use crate::{BinaryOp, UnaryOp};

const CHUNK: usize = 1 << 14;

fn map<T: Copy + Send + Sync>(x: &[T], f: impl Fn(T) -> T + Sync) -> Vec<T> {
    x.par_iter().with_min_len(CHUNK).map(|&v| f(v)).collect()
}

fn zip<T: Copy + Send + Sync, U: Send>(a: &[T], b: &[T], f: impl Fn(T, T) -> U + Sync) -> Vec<U> {
    a.par_iter().with_min_len(CHUNK).zip(b).map(|(&a, &b)| f(a, b)).collect()
}

pub(super) fn unary(op: UnaryOp, x: &Array) -> Array {
    match &x.data {
        Data::Float(values) => Array::float(x.dtype, &x.shape, map(values, |v| float_unary(op, v))),
        Data::Int(values) => Array::int(x.dtype, &x.shape, map(values, |v| int_unary(op, v))),
    }
}

fn float_unary(op: UnaryOp, x: f64) -> f64 {
    let hardsigmoid = |x: f64| (x + 3.0).clamp(0.0, 6.0) / 6.0;
    match op {
        UnaryOp::Abs => x.abs(),
        UnaryOp::Neg => -x,
        UnaryOp::Exp => x.exp(),
        UnaryOp::Log => x.ln(),
        UnaryOp::Sqrt => x.sqrt(),
        UnaryOp::Rsqrt => 1.0 / x.sqrt(),
        UnaryOp::Reciprocal => 1.0 / x,
        UnaryOp::Sin => x.sin(),
        UnaryOp::Cos => x.cos(),
        UnaryOp::Tanh => x.tanh(),
        UnaryOp::Erf => libm::erf(x),
        UnaryOp::Sigmoid => sigmoid(x),
        UnaryOp::Relu => larger(x, 0.0),
        UnaryOp::Silu => x * sigmoid(x),
        UnaryOp::Gelu => 0.5 * x * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2)),
        UnaryOp::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
            0.5 * x * (1.0 + inner.tanh())
        }
        UnaryOp::Hardswish => x * hardsigmoid(x),
        UnaryOp::Hardsigmoid => hardsigmoid(x),
        UnaryOp::Floor => x.floor(),
        UnaryOp::Ceil => x.ceil(),
        UnaryOp::Round => x.round_ties_even(),
        UnaryOp::Not => unreachable!("the shape rules ask for Bool"),
        UnaryOp::Clamp { low, high } => smaller(larger(x, low), high),
        UnaryOp::LeakyRelu { .. } if x > 0.0 => x,
        UnaryOp::LeakyRelu { slope } => slope * x,
        UnaryOp::Elu { .. } if x > 0.0 => x,
        UnaryOp::Elu { alpha } => alpha * x.exp_m1(),
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn int_unary(op: UnaryOp, x: i64) -> i64 {
    match op {
        UnaryOp::Abs => x.wrapping_abs(),
        UnaryOp::Neg => x.wrapping_neg(),
        UnaryOp::Relu => x.max(0),
        UnaryOp::Not => i64::from(x == 0),
        // In f64 only where an end is not an integer's, so that large values stay exact.
        UnaryOp::Clamp { low, high } => x.max(low.ceil() as i64).min(high.floor() as i64),
        UnaryOp::Floor | UnaryOp::Ceil | UnaryOp::Round => x,
        _ => unreachable!("the shape rules ask for a floating-point operand"),
    }
}

/// The larger; NaN if either is.
pub(super) fn larger(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

/// The smaller; NaN if either is.
pub(super) fn smaller(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.min(b) }
}

/// Both operands broadcast to `shape`.
pub(super) fn binary(op: BinaryOp, a: &Array, b: &Array, shape: &[usize]) -> Result<Array, String> {
    use aotfarm_protocol::DType::Bool;
    let dtype = a.dtype;
    let (a, b) = (a.broadcast_to(shape), b.broadcast_to(shape));
    Ok(match (&a.data, &b.data) {
        (Data::Float(a), Data::Float(b)) if op.is_comparison() => Array::int(Bool, shape, zip(a, b, |a, b| compare(op, &a, &b))),
        (Data::Int(a), Data::Int(b)) if op.is_comparison() => Array::int(Bool, shape, zip(a, b, |a, b| compare(op, &a, &b))),
        (Data::Float(a), Data::Float(b)) => Array::float(dtype, shape, zip(a, b, |a, b| float_binary(op, a, b))),
        (Data::Int(a), Data::Int(b)) => {
            if matches!(op, BinaryOp::Div | BinaryOp::FloorDiv | BinaryOp::Mod) && b.contains(&0) {
                return Err("an integer division by zero".into());
            }
            Array::int(dtype, shape, zip(a, b, |a, b| int_binary(op, a, b)))
        }
        _ => unreachable!("the shape rules ask for operands of one element type"),
    })
}

fn compare<T: PartialOrd>(op: BinaryOp, a: &T, b: &T) -> i64 {
    i64::from(match op {
        BinaryOp::Eq => a == b,
        BinaryOp::Ne => a != b,
        BinaryOp::Lt => a < b,
        BinaryOp::Le => a <= b,
        BinaryOp::Gt => a > b,
        _ => a >= b,
    })
}

fn float_binary(op: BinaryOp, a: f64, b: f64) -> f64 {
    match op {
        BinaryOp::Add => a + b,
        BinaryOp::Sub => a - b,
        BinaryOp::Mul => a * b,
        BinaryOp::Div => a / b,
        BinaryOp::FloorDiv => (a / b).floor(),
        BinaryOp::Mod => {
            let rest = a % b;
            if rest != 0.0 && (rest < 0.0) != (b < 0.0) { rest + b } else { rest }
        }
        BinaryOp::Pow => a.powf(b),
        BinaryOp::Max => larger(a, b),
        BinaryOp::Min => smaller(a, b),
        _ => unreachable!("the shape rules allow no logic on floating-point operands"),
    }
}

/// Overflow wraps. Divisors are not zero.
fn int_binary(op: BinaryOp, a: i64, b: i64) -> i64 {
    match op {
        BinaryOp::Add => a.wrapping_add(b),
        BinaryOp::Sub => a.wrapping_sub(b),
        BinaryOp::Mul => a.wrapping_mul(b),
        BinaryOp::Div => a.wrapping_div(b),
        BinaryOp::FloorDiv => {
            let (quotient, rest) = (a.wrapping_div(b), a.wrapping_rem(b));
            if rest != 0 && (rest < 0) != (b < 0) { quotient - 1 } else { quotient }
        }
        BinaryOp::Mod => {
            let rest = a.wrapping_rem(b);
            if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest }
        }
        BinaryOp::Pow => match u32::try_from(b) {
            Ok(exponent) => a.wrapping_pow(exponent),
            // A negative exponent (or one beyond u32, which wraps for every other base): 1/a^b truncated.
            Err(_) => match a {
                1 => 1,
                -1 => {
                    if b % 2 == 0 {
                        1
                    } else {
                        -1
                    }
                }
                _ => 0,
            },
        },
        BinaryOp::Max => a.max(b),
        BinaryOp::Min => a.min(b),
        BinaryOp::And => a & b,
        BinaryOp::Or => a | b,
        _ => unreachable!("comparisons are handled before"),
    }
}

/// All operands broadcast to `shape`.
pub(super) fn select(condition: &Array, then: &Array, otherwise: &Array, shape: &[usize]) -> Array {
    let dtype = then.dtype;
    let (condition, then, otherwise) = (condition.broadcast_to(shape), then.broadcast_to(shape), otherwise.broadcast_to(shape));
    let c = condition.i();
    match (&then.data, &otherwise.data) {
        (Data::Float(a), Data::Float(b)) => Array::float(dtype, shape, choose(c, a, b)),
        (Data::Int(a), Data::Int(b)) => Array::int(dtype, shape, choose(c, a, b)),
        _ => unreachable!("the shape rules ask for operands of one element type"),
    }
}

fn choose<T: Copy>(condition: &[i64], then: &[T], otherwise: &[T]) -> Vec<T> {
    condition.iter().zip(then.iter().zip(otherwise)).map(|(&c, (&a, &b))| if c != 0 { a } else { b }).collect()
}
