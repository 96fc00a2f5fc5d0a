//! Element-wise operators: a row for each function of one tensor says everything about it.

use aotfarm_protocol::DType;
use rayon::prelude::*;

use super::rules::{broadcast, ensure, like, same_dtype};
use super::{Group, Op, foreign};
use crate::Bindings;
use crate::array::{Array, Data, larger, smaller};
use crate::syntax::{NodeText, TextError};
use crate::types::TensorType;

/// What a function of one tensor takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Domain {
    /// Floating-point numbers.
    Float,
    /// Floating-point numbers, some of which have no finite result.
    PartOfFloat,
    /// Floating-point numbers and integers.
    Number,
    /// Bool.
    Bool,
}

/// The value of a function, where it has one for this kind of number.
macro_rules! value {
    ($x:ident) => {
        unreachable!("the shape rules allow no such operand")
    };
    ($x:ident, $argument:ident, $value:expr) => {{
        let $argument = $x;
        $value
    }};
}

/// Declares the functions of one tensor. A row is the variant, its parameters, its name, its
/// [`Domain`], and its values: in f64, and of integers held in i64 (or of Bool, 0 and 1).
macro_rules! unary_functions {
    (
        plain {$(
            $(#[$plain_doc:meta])*
            $plain:ident = $plain_name:literal on $plain_domain:ident
                $(, float |$plain_float:ident| $plain_float_value:expr)?
                $(, int |$plain_int:ident| $plain_int_value:expr)?;
        )+}
        parametric {$(
            $(#[$doc:meta])*
            $function:ident { $($(#[$parameter_doc:meta])* $parameter:ident),+ } = $name:literal on $domain:ident
                , float |$float:ident| $float_value:expr
                $(, int |$int:ident| $int_value:expr)?;
        )+}
    ) => {
        /// An element-wise function of one tensor.
        #[derive(Debug, Clone, Copy, PartialEq)]
        #[expect(missing_docs, reason = "each variant is its own name; those with fields are documented")]
        pub enum UnaryOp {
            $($(#[$plain_doc])* $plain,)+
            $($(#[$doc])* $function { $($(#[$parameter_doc])* $parameter: f64),+ },)+
        }

        impl UnaryOp {
            /// The functions without parameters.
            pub const PLAIN: [Self; [$($plain_name),+].len()] = [$(Self::$plain),+];

            /// The lower-case name, without parameters.
            pub const fn name(&self) -> &'static str {
                match self {
                    $(Self::$plain => $plain_name,)+
                    $(Self::$function { .. } => $name,)+
                }
            }

            /// What it takes.
            pub const fn domain(&self) -> Domain {
                match self {
                    $(Self::$plain => Domain::$plain_domain,)+
                    $(Self::$function { .. } => Domain::$domain,)+
                }
            }

            /// The value for a floating-point number. NaN goes through.
            ///
            /// # Panics
            /// When it takes Bool.
            pub fn of_float(self, x: f64) -> f64 {
                match self {
                    $(Self::$plain => value!(x $(, $plain_float, $plain_float_value)?),)+
                    $(Self::$function { $($parameter),+ } => value!(x, $float, $float_value),)+
                }
            }

            fn of_int(self, x: i64) -> i64 {
                match self {
                    $(Self::$plain => value!(x $(, $plain_int, $plain_int_value)?),)+
                    $(Self::$function { $($parameter),+ } => {
                        let _ = [$($parameter),+];
                        value!(x $(, $int, $int_value)?)
                    })+
                }
            }

            /// Its parameters by name, in the order in which they are declared.
            pub fn parameters(self) -> Vec<(&'static str, f64)> {
                match self {
                    $(Self::$function { $($parameter),+ } => vec![$((stringify!($parameter), $parameter)),+],)+
                    _ => Vec::new(),
                }
            }

            fn read(name: &str, node: &mut NodeText<'_>) -> Result<Option<Self>, TextError> {
                Ok(match name {
                    $($name => Some(Self::$function { $($parameter: node.float(stringify!($parameter))?),+ }),)+
                    _ => Self::PLAIN.into_iter().find(|function| function.name() == name),
                })
            }
        }
    };
}

unary_functions! {
    plain {
        Abs = "abs" on Number, float |x| x.abs(), int |x| x.wrapping_abs();
        Neg = "neg" on Number, float |x| -x, int |x| x.wrapping_neg();
        Exp = "exp" on Float, float |x| x.exp();
        Log = "log" on PartOfFloat, float |x| x.ln();
        /// `log(1 + x)`, as exact near 0 as anywhere.
        Log1p = "log1p" on PartOfFloat, float |x| x.ln_1p();
        Sqrt = "sqrt" on PartOfFloat, float |x| x.sqrt();
        Rsqrt = "rsqrt" on PartOfFloat, float |x| 1.0 / x.sqrt();
        Reciprocal = "reciprocal" on PartOfFloat, float |x| 1.0 / x;
        Sin = "sin" on Float, float |x| x.sin();
        Cos = "cos" on Float, float |x| x.cos();
        Tanh = "tanh" on Float, float |x| x.tanh();
        Erf = "erf" on Float, float |x| libm::erf(x);
        Sigmoid = "sigmoid" on Float, float |x| sigmoid(x);
        Relu = "relu" on Number, float |x| larger(x, 0.0), int |x| x.max(0);
        Silu = "silu" on Float, float |x| x * sigmoid(x);
        /// `0.5 x (1 + erf(x / √2))`.
        Gelu = "gelu" on Float, float |x| 0.5 * x * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2));
        /// The tanh approximation of GELU.
        GeluTanh = "gelu_tanh" on Float, float |x| gelu_tanh(x);
        /// `x relu6(x + 3) / 6`.
        Hardswish = "hardswish" on Float, float |x| x * hardsigmoid(x);
        /// `relu6(x + 3) / 6`.
        Hardsigmoid = "hardsigmoid" on Float, float |x| hardsigmoid(x);
        Floor = "floor" on Number, float |x| x.floor(), int |x| x;
        Ceil = "ceil" on Number, float |x| x.ceil(), int |x| x;
        /// To the nearest integer, halves to even.
        Round = "round" on Number, float |x| x.round_ties_even(), int |x| x;
        Not = "not" on Bool, int |x| i64::from(x == 0);
    }
    parametric {
        /// `min(max(x, low), high)`; infinite ends are open.
        // Of integers in f64 only where an end is not an integer's, so that large values stay exact.
        Clamp { /** lower end */ low, /** upper end */ high } = "clamp" on Number,
            float |x| smaller(larger(x, low), high), int |x| x.max(low.ceil() as i64).min(high.floor() as i64);
        /// `x > 0 ? x : slope * x`.
        LeakyRelu { /** slope below zero */ slope } = "leaky_relu" on Float, float |x| if x > 0.0 { x } else { slope * x };
        /// `x > 0 ? x : alpha (exp(x) - 1)`.
        Elu { /** scale below zero */ alpha } = "elu" on Float, float |x| if x > 0.0 { x } else { alpha * x.exp_m1() };
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn hardsigmoid(x: f64) -> f64 {
    (x + 3.0).clamp(0.0, 6.0) / 6.0
}

fn gelu_tanh(x: f64) -> f64 {
    let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
    0.5 * x * (1.0 + inner.tanh())
}

functions! {
    /// An element-wise function of two tensors of one dtype, broadcast as numpy does. Comparisons give `Bool`.
    BinaryOp {
        Add = "add",
        Sub = "sub",
        Mul = "mul",
        Div = "div",
        /// Division rounded toward minus infinity.
        FloorDiv = "floor_div",
        /// Remainder with the sign of the divisor.
        Mod = "mod",
        /// Remainder with the sign of the dividend, as C's `fmod` and `%` have it.
        Fmod = "fmod",
        Pow = "pow",
        Max = "maximum",
        Min = "minimum",
        And = "and",
        Or = "or",
        Eq = "eq",
        Ne = "ne",
        Lt = "lt",
        Le = "le",
        Gt = "gt",
        Ge = "ge",
    }
}

impl BinaryOp {
    /// Whether the result is `Bool` whatever the operands are.
    pub const fn is_comparison(self) -> bool {
        matches!(self, Self::Eq | Self::Ne | Self::Lt | Self::Le | Self::Gt | Self::Ge)
    }

    /// Whether an integer result has no meaning where the second operand is zero.
    pub const fn divides(self) -> bool {
        matches!(self, Self::Div | Self::FloorDiv | Self::Mod | Self::Fmod)
    }
}

pub(super) struct Pointwise;

impl Group for Pointwise {
    fn name(&self, op: &Op) -> &'static str {
        match op {
            Op::Unary(function) => function.name(),
            Op::Binary(function) => function.name(),
            Op::Where => "where",
            Op::Cast(_) => "cast",
            _ => foreign(op),
        }
    }

    fn arity(&self, op: &Op) -> (usize, usize) {
        match op {
            Op::Unary(_) | Op::Cast(_) => (1, 1),
            Op::Binary(_) => (2, 2),
            Op::Where => (3, 3),
            _ => foreign(op),
        }
    }

    fn infer(&self, op: &Op, operands: &[&TensorType]) -> Result<TensorType, String> {
        let x = operands[0];
        match op {
            Op::Unary(function) => {
                check_unary(*function, x.dtype)?;
                Ok(x.clone())
            }
            Op::Binary(function) => {
                let dtype = binary_dtype(*function, x.dtype, operands[1].dtype)?;
                Ok(TensorType { dtype, shape: broadcast(&x.shape, &operands[1].shape)? })
            }
            Op::Where => {
                ensure(x.dtype == DType::Bool, || format!("the condition must be bool, not {}", x.dtype))?;
                let values = &operands[1..];
                same_dtype(values)?;
                Ok(like(values, &broadcast(&broadcast(&x.shape, &values[0].shape)?, &values[1].shape)?))
            }
            Op::Cast(dtype) => Ok(TensorType { dtype: *dtype, shape: x.shape.clone() }),
            _ => foreign(op),
        }
    }

    fn attributes(&self, op: &Op) -> Vec<String> {
        let Op::Unary(function) = op else { return Vec::new() };
        function.parameters().into_iter().map(|(name, value)| format!("{name}={value:?}")).collect()
    }

    fn read(&self, name: &str, node: &mut NodeText<'_>) -> Result<Option<Op>, TextError> {
        Ok(match name {
            "where" => Some(Op::Where),
            "cast" => Some(Op::Cast(node.result.dtype)),
            _ => match UnaryOp::read(name, node)? {
                Some(function) => Some(Op::Unary(function)),
                None => BinaryOp::ALL.into_iter().find(|function| function.name() == name).map(Op::Binary),
            },
        })
    }

    fn evaluate(&self, op: &Op, x: &[&Array], shape: &[usize], _: &Bindings) -> Result<Array, String> {
        match op {
            Op::Unary(function) => Ok(unary(*function, x[0])),
            Op::Binary(function) => binary(*function, x[0], x[1], shape),
            Op::Where => Ok(select(x[0], x[1], x[2], shape)),
            Op::Cast(dtype) => Ok(x[0].cast(*dtype)),
            _ => foreign(op),
        }
    }
}

fn check_unary(function: UnaryOp, dtype: DType) -> Result<(), String> {
    let fits = match function.domain() {
        Domain::Float | Domain::PartOfFloat => dtype.is_float(),
        Domain::Number => dtype != DType::Bool,
        Domain::Bool => dtype == DType::Bool,
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

const CHUNK: usize = 1 << 14;

fn map<T: Copy + Send + Sync>(x: &[T], f: impl Fn(T) -> T + Sync) -> Vec<T> {
    x.par_iter().with_min_len(CHUNK).map(|&v| f(v)).collect()
}

fn zip<T: Copy + Send + Sync, U: Send>(a: &[T], b: &[T], f: impl Fn(T, T) -> U + Sync) -> Vec<U> {
    a.par_iter().with_min_len(CHUNK).zip(b).map(|(&a, &b)| f(a, b)).collect()
}

fn unary(op: UnaryOp, x: &Array) -> Array {
    match &x.data {
        Data::Float(values) => Array::float(x.dtype, &x.shape, map(values, |v| op.of_float(v))),
        Data::Int(values) => Array::int(x.dtype, &x.shape, map(values, |v| op.of_int(v))),
    }
}

/// Both operands broadcast to `shape`.
fn binary(op: BinaryOp, a: &Array, b: &Array, shape: &[usize]) -> Result<Array, String> {
    let dtype = a.dtype;
    let (a, b) = (a.broadcast_to(shape), b.broadcast_to(shape));
    Ok(match (&a.data, &b.data) {
        (Data::Float(a), Data::Float(b)) if op.is_comparison() => {
            Array::int(DType::Bool, shape, zip(a, b, |a, b| compare(op, &a, &b)))
        }
        (Data::Int(a), Data::Int(b)) if op.is_comparison() => {
            Array::int(DType::Bool, shape, zip(a, b, |a, b| compare(op, &a, &b)))
        }
        (Data::Float(a), Data::Float(b)) => Array::float(dtype, shape, zip(a, b, |a, b| float_binary(op, a, b))),
        (Data::Int(a), Data::Int(b)) => {
            if op.divides() && b.contains(&0) {
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
        BinaryOp::FloorDiv => floor_div(a, b),
        BinaryOp::Mod => {
            let rest = a % b;
            if rest != 0.0 && (rest < 0.0) != (b < 0.0) { rest + b } else { rest }
        }
        BinaryOp::Fmod => a % b,
        BinaryOp::Pow => a.powf(b),
        BinaryOp::Max => larger(a, b),
        BinaryOp::Min => smaller(a, b),
        _ => unreachable!("the shape rules allow no logic on floating-point operands"),
    }
}

/// `⌊a / b⌋` without the error of a quotient that is rounded up to an integer, as torch's `floor_divide` has it.
fn floor_div(a: f64, b: f64) -> f64 {
    if b == 0.0 {
        return a / b;
    }
    let rest = a % b;
    let quotient = (a - rest) / b - f64::from(u8::from(rest != 0.0 && (b < 0.0) != (rest < 0.0)));
    // The quotient is all but an integer.
    if quotient == 0.0 { 0f64.copysign(a / b) } else { quotient.round_ties_even() }
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
        BinaryOp::Fmod => a.wrapping_rem(b),
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
fn select(condition: &Array, then: &Array, otherwise: &Array, shape: &[usize]) -> Array {
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

#[cfg(test)]
mod tests {
    use super::UnaryOp;

    #[test]
    fn log1p_is_exact_near_zero() {
        for (x, wanted) in [(0.0, 0.0), (1e-20, 1e-20), (-1e-9, -1.0000000005e-9), (1.0, std::f64::consts::LN_2)] {
            let got = UnaryOp::Log1p.of_float(x);
            assert!((got - wanted).abs() <= 1e-15 * wanted.abs(), "log1p({x}) = {got}");
        }
        assert_eq!(UnaryOp::Log1p.of_float(-1.0), f64::NEG_INFINITY);
        assert!(UnaryOp::Log1p.of_float(-2.0).is_nan() && UnaryOp::Log1p.of_float(f64::NAN).is_nan());
    }
}
