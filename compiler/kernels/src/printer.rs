//! IR functions on f32 → C expressions in the words of `include/cpu/simd.h`.

use std::fmt::Write as _;

use aotfarm_protocol::Target;

use crate::family::Unsupported;
use aotfarm_ir::{BinaryOp, UnaryOp};
use aotfarm_plan::spec::EpilogueStep;

/// What an expression's operands are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Width {
    /// `vf`: a full vector.
    Vector,
    /// `float`.
    Scalar,
}

impl Width {
    const fn prefix(self) -> &'static str {
        match self {
            Self::Vector => "v_",
            Self::Scalar => "s_",
        }
    }

    /// A constant in every lane.
    pub fn constant(self, value: f64) -> String {
        format!("{}splat({})", self.prefix(), float_literal(value))
    }
}

/// A C expression of type float with exactly the f32 nearest to `value`.
pub fn float_literal(value: f64) -> String {
    let x = value as f32;
    if x.is_nan() {
        "__builtin_nanf(\"\")".to_owned()
    } else if x.is_infinite() {
        if x > 0.0 { "__builtin_inff()".to_owned() } else { "(-__builtin_inff())".to_owned() }
    } else {
        // The shortest decimal that reads back as the same f32. Debug always prints a point or an exponent.
        let text = format!("{x:?}f");
        if x.is_sign_negative() { format!("({text})") } else { text }
    }
}

/// `op(x)` as a C expression; `None` for functions that are not f32 → f32.
pub fn unary_c(op: UnaryOp, width: Width, x: &str) -> Option<String> {
    let p = width.prefix();
    Some(match op {
        UnaryOp::Not => return None,
        UnaryOp::Clamp { low, high } => {
            // The bound comes first: simd.h's min and max give their second operand when one is NaN.
            let mut text = x.to_owned();
            if low != f64::NEG_INFINITY {
                text = format!("{p}max({}, {text})", width.constant(low));
            }
            if high != f64::INFINITY {
                text = format!("{p}min({}, {text})", width.constant(high));
            }
            text
        }
        UnaryOp::LeakyRelu { slope } => format!("{p}leaky_relu({x}, {})", width.constant(slope)),
        UnaryOp::Elu { alpha } => format!("{p}elu({x}, {})", width.constant(alpha)),
        // The headers, and `definitions`, call it as the IR does.
        named => format!("{p}{}({x})", named.name()),
    })
}

/// `op(a, b)` as a C expression; `None` for functions that do not give f32.
pub fn binary_c(op: BinaryOp, width: Width, a: &str, b: &str) -> Option<String> {
    let name = match op {
        BinaryOp::Add => "add",
        BinaryOp::Sub => "sub",
        BinaryOp::Mul => "mul",
        BinaryOp::Div => "div",
        BinaryOp::FloorDiv | BinaryOp::Mod | BinaryOp::Fmod => division_c(op),
        BinaryOp::Pow => "pow",
        BinaryOp::Max => "max",
        BinaryOp::Min => "min",
        BinaryOp::And | BinaryOp::Or => return None,
        BinaryOp::Eq | BinaryOp::Ne | BinaryOp::Lt | BinaryOp::Le | BinaryOp::Gt | BinaryOp::Ge => return None,
    };
    Some(format!("{}{name}({a}, {b})", width.prefix()))
}

/// The name of a division with an integer quotient, of floating-point numbers.
pub(crate) const fn division_c(op: BinaryOp) -> &'static str {
    match op {
        BinaryOp::FloorDiv => "floor_div",
        // The headers' `mod` takes the quotient for exact, which it is not when it is large.
        BinaryOp::Mod => "remainder",
        _ => "fmod",
    }
}

/// A function that the headers do not have.
struct Definition {
    name: &'static str,
    /// Of `a`, or of `a` and `b`.
    operands: &'static [&'static str],
    /// Its body for floats, in C and in CUDA C++.
    float: [&'static str; 2],
    /// Its body for doubles, in C and in CUDA C++.
    double: [&'static str; 2],
    /// Its body for integers, where they have it.
    integer: Option<&'static str>,
}

/// Only the units that call one of these hold its definition, so that a new one leaves the texts of
/// all other kernels as they are, and with them what was built and measured.
const DEFINITIONS: &[Definition] = &[
    Definition {
        name: "log1p",
        operands: &["a"],
        float: ["return __builtin_log1pf(a);", "return log1pf(a);"],
        double: ["return __builtin_log1p(a);", "return log1p(a);"],
        integer: None,
    },
    Definition {
        name: "fmod",
        operands: &["a", "b"],
        float: ["return __builtin_fmodf(a, b);", "return fmodf(a, b);"],
        double: ["return __builtin_fmod(a, b);", "return fmod(a, b);"],
        integer: Some("return b == 0 || b == -1 ? 0 : a % b;"),
    },
    Definition {
        name: "remainder",
        operands: &["a", "b"],
        float: [
            "float r = __builtin_fmodf(a, b); return r != 0 && (r < 0) != (b < 0) ? r + b : r;",
            "float r = fmodf(a, b); return r != 0 && (r < 0) != (b < 0) ? r + b : r;",
        ],
        double: [
            "double r = __builtin_fmod(a, b); return r != 0 && (r < 0) != (b < 0) ? r + b : r;",
            "double r = fmod(a, b); return r != 0 && (r < 0) != (b < 0) ? r + b : r;",
        ],
        integer: None,
    },
    // What is left when the remainder is taken off is all but a multiple of b. By zero it divides as `/` does.
    Definition {
        name: "floor_div",
        operands: &["a", "b"],
        float: [
            "float r = __builtin_fmodf(a, b), q = (a - r) / b - (float)(r != 0 && (b < 0) != (r < 0)); \
             return b == 0 ? a / b : q == 0 ? __builtin_copysignf(0, a / b) : __builtin_rintf(q);",
            "float r = fmodf(a, b), q = (a - r) / b - (float)(r != 0 && (b < 0) != (r < 0)); \
             return b == 0 ? a / b : q == 0 ? copysignf(0, a / b) : rintf(q);",
        ],
        double: [
            "double r = __builtin_fmod(a, b), q = (a - r) / b - (double)(r != 0 && (b < 0) != (r < 0)); \
             return b == 0 ? a / b : q == 0 ? __builtin_copysign(0, a / b) : __builtin_rint(q);",
            "double r = fmod(a, b), q = (a - r) / b - (double)(r != 0 && (b < 0) != (r < 0)); \
             return b == 0 ? a / b : q == 0 ? copysign(0.0, a / b) : rint(q);",
        ],
        integer: None,
    },
];

/// Definitions of the functions that the body of a unit calls and its headers lack.
pub fn definitions(target: Target, body: &str) -> String {
    define(DEFINITIONS, target, body)
}

fn define(functions: &[Definition], target: Target, body: &str) -> String {
    let dialect = usize::from(matches!(target, Target::Cuda { .. }));
    let mut text = String::new();
    for Definition { name, operands, float, double, integer } in functions {
        let calls = |prefix: &str| body.contains(&format!("{prefix}_{name}("));
        let list = |ty: &str| operands.iter().map(|x| format!("{ty} {x}")).collect::<Vec<_>>().join(", ");
        if calls("s") || calls("v") {
            let _ = writeln!(text, "AOTK_INLINE float s_{name}({}) {{ {} }}", list("float"), float[dialect]);
        }
        if calls("v") {
            let lanes = operands.iter().map(|x| format!("{x}[i]")).collect::<Vec<_>>().join(", ");
            let _ = writeln!(
                text,
                "AOTK_INLINE vf v_{name}({}) {{\n    \
                 for (int i = 0; i < VLEN; i++) a[i] = s_{name}({lanes});\n    return a;\n}}",
                list("vf")
            );
        }
        if calls("d") {
            let _ = writeln!(text, "AOTK_INLINE double d_{name}({}) {{ {} }}", list("double"), double[dialect]);
        }
        if let (true, Some(integer)) = (calls("i"), integer) {
            let _ = writeln!(text, "AOTK_INLINE int64_t i_{name}({}) {{ {integer} }}", list("int64_t"));
        }
    }
    text
}

/// Whether [`epilogue_c`] can print all steps.
pub fn epilogue_supported(steps: &[EpilogueStep]) -> Result<(), Unsupported> {
    for step in steps {
        let printed = match *step {
            EpilogueStep::Bias(_) => continue,
            EpilogueStep::Residual(op, _) => binary_c(op, Width::Vector, "", ""),
            EpilogueStep::Unary(op) => unary_c(op, Width::Vector, ""),
        };
        if printed.is_none() {
            return Err(Unsupported(format!("the fused step {step:?} does not give an f32")));
        }
    }
    Ok(())
}

/// The fused steps applied to the expression `value`, as one C expression. `bias(k)` and `residual(k)` give the expressions of the
/// matching part of `weight[k]` and `in[k]`. Each operand appears once in the result.
///
/// # Panics
/// When a step is not printable: families refuse such tasks with [`epilogue_supported`].
pub fn epilogue_c(
    steps: &[EpilogueStep],
    width: Width,
    value: &str,
    bias: impl Fn(usize) -> String,
    residual: impl Fn(usize) -> String,
) -> String {
    let printable = "epilogue_supported has accepted the steps";
    steps.iter().fold(value.to_owned(), |x, step| match *step {
        EpilogueStep::Bias(k) => format!("{}add({x}, {})", width.prefix(), bias(k)),
        EpilogueStep::Residual(op, k) => binary_c(op, width, &x, &residual(k)).expect(printable),
        EpilogueStep::Unary(op) => unary_c(op, width, &x).expect(printable),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_read_back_exactly() {
        let cases = [
            (0.0, "0.0f"),
            (-0.0, "(-0.0f)"),
            (0.1, "0.1f"),
            (1e-40, "1e-40f"),
            (3e38, "3e38f"),
            (f64::INFINITY, "__builtin_inff()"),
            (f64::NEG_INFINITY, "(-__builtin_inff())"),
        ];
        for (value, text) in cases {
            assert_eq!(float_literal(value), text);
        }
    }

    #[test]
    fn steps_nest_in_order() {
        let steps = [
            EpilogueStep::Bias(1),
            EpilogueStep::Residual(BinaryOp::Sub, 1),
            EpilogueStep::Unary(UnaryOp::Clamp { low: 0.0, high: 6.0 }),
        ];
        let text = epilogue_c(&steps, Width::Vector, "x", |k| format!("bias{k}"), |k| format!("in{k}"));
        assert_eq!(text, "v_min(v_splat(6.0f), v_max(v_splat(0.0f), v_sub(v_add(x, bias1), in1)))");
    }

    #[test]
    fn units_define_what_they_call() {
        let (operands, [c, cuda]) = (&["a"][..], ["return 2 * a;", "return a + a;"]);
        let double = Definition { name: "twice", operands, float: [c, cuda], double: [c, cuda], integer: Some(c) };
        let defined = |target, body| define(std::slice::from_ref(&double), target, body);
        let (cpu, gpu) = (Target::CPUS[0], Target::Cuda { sm: 90 });
        assert_eq!(defined(cpu, "x = s_exp(twice);"), "");
        assert_eq!(defined(gpu, "s_twice(x)"), "AOTK_INLINE float s_twice(float a) { return a + a; }\n");
        assert_eq!(defined(gpu, "d_twice(x)"), "AOTK_INLINE double d_twice(double a) { return a + a; }\n");
        assert_eq!(defined(gpu, "i_twice(x)"), "AOTK_INLINE int64_t i_twice(int64_t a) { return 2 * a; }\n");
        let vectors = defined(cpu, "v_twice(v_load(p))");
        assert!(vectors.starts_with("AOTK_INLINE float s_twice(float a) { return 2 * a; }\nAOTK_INLINE vf v_twice(vf a) {\n"));
        assert!(vectors.ends_with("    return a;\n}\n"), "{vectors}");
    }

    #[test]
    fn functions_that_give_no_float_are_refused() {
        let refused = epilogue_supported(&[EpilogueStep::Residual(BinaryOp::Lt, 1)]);
        assert_eq!(refused.unwrap_err().0, "the fused step Residual(Lt, 1) does not give an f32");
        assert!(epilogue_supported(&[EpilogueStep::Unary(UnaryOp::Not)]).is_err());
        assert!(epilogue_supported(&[EpilogueStep::Unary(UnaryOp::Gelu), EpilogueStep::Bias(1)]).is_ok());
    }
}
