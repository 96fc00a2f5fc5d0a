//! LoopNests → C and CUDA C++: index arithmetic, element types and every element-wise function.
//!
//! Output loop k is the variable `l<k>`, reduction loop k `r<k>`, dim k `d<k>`, operands are `in<k>`, `weight<k>` and `out0`, and
//! the reduced value is `acc`. A gathered index ([`Index::Value`]) is used as it is: the planner takes it modulo the size that it
//! indexes, which also makes sense of negative ones.
//!
//! In C these variables are of 64 bits. In CUDA C++ they are of a type `I` that the kernel chooses: divisions of 64 bits are slow there.

use aotfarm_protocol::DType;

use crate::printer::{Width, binary_c, division_c, float_literal, unary_c};
use aotfarm_ir::{BinaryOp, Number, UnaryOp};
use aotfarm_plan::spec::{Index, KernelSpec, LoopNest, Scalar, Size};

/// The language of the printed text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// C, in the words of `cpu/simd.h` and `cpu/types.h`.
    C,
    /// CUDA C++, in the words of `cuda/math.cuh` and `cuda/types.cuh`, which are the same but for indices and the stored types.
    Cuda,
}

impl Dialect {
    /// The type of an element in memory.
    pub const fn stored(self, dtype: DType) -> &'static str {
        match (self, dtype) {
            (Self::Cuda, DType::F16) => "aotk_f16",
            (Self::Cuda, DType::Bf16) => "aotk_bf16",
            (Self::C | Self::Cuda, _) => stored_c(dtype),
        }
    }
}

/// The C type of an element in memory.
pub const fn stored_c(dtype: DType) -> &'static str {
    match dtype {
        DType::F16 | DType::Bf16 => "uint16_t",
        DType::F32 => "float",
        DType::F64 => "double",
        DType::I8 => "int8_t",
        DType::I16 => "int16_t",
        DType::I32 => "int32_t",
        DType::I64 => "int64_t",
        DType::U8 | DType::Bool => "uint8_t",
    }
}

/// The C type in which expressions of a type are computed.
pub const fn computed_c(dtype: DType) -> &'static str {
    match dtype {
        DType::F16 | DType::Bf16 => "float",
        _ => stored_c(dtype),
    }
}

/// An expression in memory's type as one in the computed type.
fn widened(dtype: DType, x: &str) -> String {
    match dtype {
        DType::F16 => format!("s_from_f16({x})"),
        DType::Bf16 => format!("s_from_bf16({x})"),
        _ => x.to_owned(),
    }
}

/// An expression in the computed type as one in memory's type.
pub fn narrowed(dtype: DType, x: &str) -> String {
    match dtype {
        DType::F16 => format!("s_to_f16({x})"),
        DType::Bf16 => format!("s_to_bf16({x})"),
        _ => x.to_owned(),
    }
}

/// An exact C expression of type `int64_t`.
fn integer(n: i64) -> String {
    // The smallest one has no literal: 9223372036854775808 is not an int64_t.
    if n == i64::MIN { "((int64_t)-9223372036854775807 - 1)".to_owned() } else { format!("((int64_t){n})") }
}

/// A constant in the computed type.
pub fn constant(value: Number, dtype: DType) -> String {
    if !dtype.is_float() && dtype != DType::Bool {
        return format!("(({}){})", computed_c(dtype), integer(value.to_i64()));
    }
    let value = value.to_f64();
    match dtype {
        DType::F32 => float_literal(value),
        DType::F16 => float_literal(half::f16::from_f64(value).to_f64()),
        DType::Bf16 => float_literal(half::bf16::from_f64(value).to_f64()),
        DType::F64 if value.is_nan() => "__builtin_nan(\"\")".to_owned(),
        DType::F64 if value.is_infinite() => format!("({}__builtin_inf())", if value > 0.0 { "" } else { "-" }),
        DType::F64 => format!("({value:?})"),
        _ => if value == 0.0 { "0" } else { "1" }.to_owned(),
    }
}

/// A load that a kernel makes before it evaluates an expression, of several neighbouring elements at once.
#[derive(Debug, Clone, PartialEq)]
pub struct Load<'a> {
    /// Whether it reads a weight.
    pub weight: bool,
    /// Which operand.
    pub operand: usize,
    /// Where in it.
    pub at: &'a Index,
}

/// Prints the expressions of one nest.
pub struct Printer<'a> {
    spec: &'a KernelSpec,
    nest: &'a LoopNest,
    dialect: Dialect,
    /// Type of the reduced value.
    reduced: DType,
    /// Load k is the variable `x<k>`, whose element j is meant.
    loads: &'a [Load<'a>],
}

/// How an index is computed in CUDA C++.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bits {
    /// In `I`.
    Chosen,
    /// In `int64_t`, for what can be larger than any operand: numbers that are gathered or made of indices.
    All,
}

impl<'a> Printer<'a> {
    /// For a nest of `spec`, in C.
    pub fn new(spec: &'a KernelSpec, nest: &'a LoopNest) -> Self {
        Self::in_dialect(Dialect::C, spec, nest, &[])
    }

    /// For a nest of `spec`, in any language. `loads` are made before the expressions that [`Printer::scalar`] prints.
    pub fn in_dialect(dialect: Dialect, spec: &'a KernelSpec, nest: &'a LoopNest, loads: &'a [Load<'a>]) -> Self {
        let mut printer = Self { spec, nest, dialect, reduced: DType::F32, loads };
        if let Some(reduction) = &nest.reduction {
            printer.reduced = printer.dtype(&reduction.element);
        }
        printer
    }

    /// The type of an expression.
    pub fn dtype(&self, scalar: &Scalar) -> DType {
        match scalar {
            Scalar::Input(k, _) => self.spec.inputs[*k].dtype,
            Scalar::Weight(k, _) => self.spec.weights[*k].dtype,
            Scalar::Const(_, dtype) | Scalar::Index(_, dtype) | Scalar::Cast(dtype, _) => *dtype,
            Scalar::Reduced => self.reduced,
            Scalar::Unary(UnaryOp::Not, _) | Scalar::InRange(..) => DType::Bool,
            Scalar::Unary(_, x) => self.dtype(x),
            Scalar::Binary(op, ..) if op.is_comparison() => DType::Bool,
            Scalar::Binary(_, a, _) => self.dtype(a),
            Scalar::Select(_, a, _) => self.dtype(a),
        }
    }

    /// An expression in its computed type.
    pub fn scalar(&self, scalar: &Scalar) -> String {
        match scalar {
            Scalar::Input(k, at) => widened(self.spec.inputs[*k].dtype, &self.element(false, *k, at)),
            Scalar::Weight(k, at) => widened(self.spec.weights[*k].dtype, &self.element(true, *k, at)),
            Scalar::Const(value, dtype) => constant(*value, *dtype),
            Scalar::Index(index, dtype) => cast(DType::I64, *dtype, &self.index_of(index, Bits::All)),
            Scalar::Reduced => "acc".to_owned(),
            Scalar::Unary(op, x) => unary(*op, self.dtype(x), &self.scalar(x)),
            Scalar::Binary(op, a, b) => binary(*op, self.dtype(a), &self.scalar(a), &self.scalar(b)),
            Scalar::Select(condition, a, b) => {
                format!("({} ? {} : {})", self.scalar(condition), self.scalar(a), self.scalar(b))
            }
            Scalar::Cast(to, x) => cast(self.dtype(x), *to, &self.scalar(x)),
            Scalar::InRange(index, low, high) => self.in_range(index, *low, *high),
        }
    }

    /// An element of an operand, in memory's type.
    fn element(&self, weight: bool, operand: usize, at: &Index) -> String {
        if let Some(k) = self.loads.iter().position(|load| *load == Load { weight, operand, at }) {
            return format!("x{k}.at[j]");
        }
        format!("{}{operand}[{}]", if weight { "weight" } else { "in" }, self.index(at))
    }

    /// An index of type `int64_t` in C, and of type `I` in CUDA C++.
    pub fn index(&self, index: &Index) -> String {
        self.index_of(index, Bits::Chosen)
    }

    fn index_of(&self, index: &Index, bits: Bits) -> String {
        match self.dialect {
            Dialect::C => self.index_c(index),
            Dialect::Cuda => self.index_cuda(index, bits),
        }
    }

    fn index_c(&self, index: &Index) -> String {
        match index {
            Index::Const(n) => integer(*n),
            Index::Loop(k) => format!("l{k}"),
            Index::ReduceLoop(k) => format!("r{k}"),
            Index::Dim(k) => format!("d{k}"),
            Index::Add(a, b) => format!("({} + {})", self.index_c(a), self.index_c(b)),
            Index::Mul(a, b) => format!("({} * {})", self.index_c(a), self.index_c(b)),
            // Unsigned division by a constant is a shift or a multiplication; C's signed one rounds toward zero.
            Index::Div(a, b) if self.range(a).0 >= 0 => {
                format!("(int64_t)((uint64_t){} / (uint64_t){})", self.index_c(a), self.index_c(b))
            }
            Index::Mod(a, b) if self.range(a).0 >= 0 => {
                format!("(int64_t)((uint64_t){} % (uint64_t){})", self.index_c(a), self.index_c(b))
            }
            Index::Div(a, b) => format!("i_floordiv({}, {})", self.index_c(a), self.index_c(b)),
            Index::Mod(a, b) => format!("i_mod({}, {})", self.index_c(a), self.index_c(b)),
            Index::Value(x) => cast(self.dtype(x), DType::I64, &self.scalar(x)),
        }
    }

    fn index_cuda(&self, index: &Index, bits: Bits) -> String {
        let (chosen, all) = (bits == Bits::Chosen, bits == Bits::All);
        let variable = |name: String| if all { format!("(int64_t){name}") } else { name };
        let divided = |name: &str, a: &Index, b: &Index| {
            let (narrow, inner) = if gathers(a) && chosen { ("(I)", Bits::All) } else { ("", bits) };
            let ty = if inner == Bits::All { "int64_t" } else { "I" };
            format!("{narrow}{name}<{ty}>({}, {})", self.index_cuda(a, inner), self.index_cuda(b, inner))
        };
        match index {
            Index::Const(n) if all => integer(*n),
            Index::Const(n) if *n < 0 => format!("({n})"),
            Index::Const(n) => n.to_string(),
            Index::Loop(k) => variable(format!("l{k}")),
            Index::ReduceLoop(k) => variable(format!("r{k}")),
            Index::Dim(k) => variable(format!("d{k}")),
            Index::Add(a, b) => format!("({} + {})", self.index_cuda(a, bits), self.index_cuda(b, bits)),
            Index::Mul(a, b) => format!("({} * {})", self.index_cuda(a, bits), self.index_cuda(b, bits)),
            Index::Div(a, b) => divided(if self.range(a).0 >= 0 { "x_div" } else { "x_floordiv" }, a, b),
            Index::Mod(a, b) => divided(if self.range(a).0 >= 0 { "x_rem" } else { "x_mod" }, a, b),
            Index::Value(x) => {
                let value = cast(self.dtype(x), DType::I64, &self.scalar(x));
                if all { value } else { format!("(I)({value})") }
            }
        }
    }

    fn in_range(&self, index: &Index, low: i64, high: Size) -> String {
        let (least, most) = self.range(index);
        let text = self.index_of(index, if gathers(index) { Bits::All } else { Bits::Chosen });
        let limit = match high {
            Size::Const(n) => integer(n),
            Size::Dim(k) => format!("d{k}"),
        };
        match (least >= low, matches!(high, Size::Const(n) if most < n)) {
            (true, true) => "1".to_owned(),
            (true, false) => format!("({text} < {limit})"),
            (false, true) => format!("({text} >= {})", integer(low)),
            // One comparison for both ends, without a second copy of the index.
            (false, false) if low == 0 && self.dialect == Dialect::C => format!("((uint64_t){text} < (uint64_t){limit})"),
            (false, false) if low == 0 => format!("x_below({text}, {limit})"),
            (false, false) => format!("({text} >= {} && {text} < {limit})", integer(low)),
        }
    }

    /// The least and the largest value of an index over its loops; sizes that are not known are at least 1.
    fn range(&self, index: &Index) -> (i64, i64) {
        let extent = |size: Option<&Size>| match size {
            Some(Size::Const(n)) => (0, (n - 1).max(0)),
            Some(Size::Dim(_)) | None => (0, i64::MAX),
        };
        let corners = |a: (i64, i64), b: (i64, i64)| {
            let all = [a.0.saturating_mul(b.0), a.0.saturating_mul(b.1), a.1.saturating_mul(b.0), a.1.saturating_mul(b.1)];
            (all.into_iter().min().unwrap_or(0), all.into_iter().max().unwrap_or(0))
        };
        match index {
            Index::Const(n) => (*n, *n),
            Index::Loop(k) => extent(self.nest.extents.get(*k)),
            Index::ReduceLoop(k) => extent(self.nest.reduction.as_ref().and_then(|r| r.extents.get(*k))),
            // A size minus a constant, for one, can be negative; only sizes of loops are known not to be.
            Index::Dim(_) => (i64::MIN, i64::MAX),
            Index::Add(a, b) => {
                let ((a, c), (b, d)) = (self.range(a), self.range(b));
                (a.saturating_add(b), c.saturating_add(d))
            }
            Index::Mul(a, b) => {
                // A stride that is not known is a product of sizes.
                let stride = |i: &Index| if matches!(i, Index::Dim(_)) { (0, i64::MAX) } else { self.range(i) };
                corners(stride(a), stride(b))
            }
            Index::Div(a, b) => match (self.range(a), self.range(b)) {
                ((low, high), (by, to)) if by > 0 && by == to => (low.div_euclid(by), high.div_euclid(by)),
                ((low, high), _) if low >= 0 => (0, high),
                _ => (i64::MIN, i64::MAX),
            },
            Index::Mod(_, b) => (0, self.range(b).1.saturating_sub(1).max(0)),
            Index::Value(_) => (i64::MIN, i64::MAX),
        }
    }
}

/// Whether an index depends on the values of an operand.
fn gathers(index: &Index) -> bool {
    match index {
        Index::Value(_) => true,
        Index::Add(a, b) | Index::Mul(a, b) | Index::Div(a, b) | Index::Mod(a, b) => gathers(a) || gathers(b),
        Index::Const(_) | Index::Loop(_) | Index::ReduceLoop(_) | Index::Dim(_) => false,
    }
}

/// Conversion between computed types.
pub fn cast(from: DType, to: DType, x: &str) -> String {
    let c = computed_c(to);
    match (from, to) {
        _ if from == to => x.to_owned(),
        (_, DType::Bool) => format!("(uint8_t)({x} != 0)"),
        // Rounding to half precision happens here, and not only when storing.
        (_, DType::F16) => format!("s_from_f16(s_to_f16((float){x}))"),
        (_, DType::Bf16) => format!("s_from_bf16(s_to_bf16((float){x}))"),
        (_, DType::F32 | DType::F64) => format!("({c}){x}"),
        (_, _) if from.is_float() => {
            let (low, high) = match to {
                DType::I8 => (i64::from(i8::MIN), i64::from(i8::MAX)),
                DType::I16 => (i64::from(i16::MIN), i64::from(i16::MAX)),
                DType::I32 => (i64::from(i32::MIN), i64::from(i32::MAX)),
                DType::U8 => (0, i64::from(u8::MAX)),
                _ => (i64::MIN, i64::MAX),
            };
            format!("({c})i_from_double({x}, {}, {})", integer(low), integer(high))
        }
        (_, _) => format!("({c}){x}"),
    }
}

/// `op(x)` in the computed type of `dtype`.
fn unary(op: UnaryOp, dtype: DType, x: &str) -> String {
    match dtype {
        _ if op == UnaryOp::Not => format!("(uint8_t)({x} == 0)"),
        DType::F32 | DType::F16 | DType::Bf16 => {
            unary_c(op, Width::Scalar, x).expect("Not, the only function that gives no float, is handled above")
        }
        DType::F64 => unary_double(op, x),
        DType::I8 | DType::I16 | DType::I32 | DType::I64 | DType::U8 | DType::Bool => unary_integer(op, dtype, x),
    }
}

fn unary_double(op: UnaryOp, x: &str) -> String {
    let number = |v: f64| constant(v.into(), DType::F64);
    let name = match op {
        UnaryOp::Abs => "__builtin_fabs",
        UnaryOp::Neg => "-",
        UnaryOp::Exp => "__builtin_exp",
        UnaryOp::Log => "__builtin_log",
        UnaryOp::Sqrt => "__builtin_sqrt",
        UnaryOp::Rsqrt => "1 / __builtin_sqrt",
        UnaryOp::Reciprocal => "1 / ",
        UnaryOp::Sin => "__builtin_sin",
        UnaryOp::Cos => "__builtin_cos",
        UnaryOp::Tanh => "__builtin_tanh",
        UnaryOp::Erf => "__builtin_erf",
        UnaryOp::Floor => "__builtin_floor",
        UnaryOp::Ceil => "__builtin_ceil",
        UnaryOp::Round => "__builtin_rint",
        UnaryOp::Not => "!",
        UnaryOp::Relu => return format!("d_clamp({x}, 0, __builtin_inf())"),
        UnaryOp::Clamp { low, high } => return format!("d_clamp({x}, {}, {})", number(low), number(high)),
        UnaryOp::LeakyRelu { slope } => return format!("d_leaky_relu({x}, {})", number(slope)),
        UnaryOp::Elu { alpha } => return format!("d_elu({x}, {})", number(alpha)),
        // The headers, and `printer::definitions`, call it as the IR does.
        named => return format!("(d_{}({x}))", named.name()),
    };
    format!("({name}({x}))")
}

/// Functions that integers have are exact; the others go through double and are rounded toward zero.
fn unary_integer(op: UnaryOp, dtype: DType, x: &str) -> String {
    let c = computed_c(dtype);
    match op {
        UnaryOp::Floor | UnaryOp::Ceil | UnaryOp::Round => x.to_owned(),
        UnaryOp::Abs => format!("({c})i_abs({x})"),
        UnaryOp::Neg => format!("({c})(0 - (uint64_t){x})"),
        UnaryOp::Relu => format!("({c})i_max({x}, 0)"),
        UnaryOp::Clamp { low, high } => {
            // The integers between the bounds; an `as` cast takes infinite ones to the ends of i64.
            let (low, high) = (integer(low.ceil() as i64), integer(high.floor() as i64));
            format!("({c})i_min(i_max({x}, {low}), {high})")
        }
        op => cast(DType::F64, dtype, &unary_double(op, &format!("(double){x}"))),
    }
}

/// `op(a, b)` in the computed type of the result.
fn binary(op: BinaryOp, dtype: DType, a: &str, b: &str) -> String {
    let comparison = match op {
        BinaryOp::Eq => Some("=="),
        BinaryOp::Ne => Some("!="),
        BinaryOp::Lt => Some("<"),
        BinaryOp::Le => Some("<="),
        BinaryOp::Gt => Some(">"),
        BinaryOp::Ge => Some(">="),
        _ => None,
    };
    if let Some(sign) = comparison {
        return format!("(uint8_t)({a} {sign} {b})");
    }
    match dtype {
        DType::F32 | DType::F16 | DType::Bf16 => match op {
            BinaryOp::Max => format!("s_max_nan({a}, {b})"),
            BinaryOp::Min => format!("s_min_nan({a}, {b})"),
            BinaryOp::And => format!("(float)({a} != 0 && {b} != 0)"),
            BinaryOp::Or => format!("(float)({a} != 0 || {b} != 0)"),
            op => binary_c(op, Width::Scalar, a, b).expect("what gives no float is handled above"),
        },
        DType::F64 => binary_double(op, a, b),
        DType::I8 | DType::I16 | DType::I32 | DType::I64 | DType::U8 | DType::Bool => binary_integer(op, dtype, a, b),
    }
}

fn binary_double(op: BinaryOp, a: &str, b: &str) -> String {
    match op {
        BinaryOp::Add => format!("({a} + {b})"),
        BinaryOp::Sub => format!("({a} - {b})"),
        BinaryOp::Mul => format!("({a} * {b})"),
        BinaryOp::Div => format!("({a} / {b})"),
        BinaryOp::FloorDiv | BinaryOp::Mod | BinaryOp::Fmod => format!("d_{}({a}, {b})", division_c(op)),
        BinaryOp::Pow => format!("__builtin_pow({a}, {b})"),
        BinaryOp::Max => format!("d_max_nan({a}, {b})"),
        BinaryOp::Min => format!("d_min_nan({a}, {b})"),
        BinaryOp::And => format!("(double)({a} != 0 && {b} != 0)"),
        BinaryOp::Or => format!("(double)({a} != 0 || {b} != 0)"),
        BinaryOp::Eq | BinaryOp::Ne | BinaryOp::Lt | BinaryOp::Le | BinaryOp::Gt | BinaryOp::Ge => {
            unreachable!("comparisons are printed for all types alike")
        }
    }
}

/// Sums and products wrap around, so they are computed unsigned.
fn binary_integer(op: BinaryOp, dtype: DType, a: &str, b: &str) -> String {
    let c = computed_c(dtype);
    let unsigned = if dtype == DType::I64 { "uint64_t" } else { "uint32_t" };
    let wrapping = |sign: &str| format!("({c})(({unsigned}){a} {sign} ({unsigned}){b})");
    let call = |name: &str| format!("({c}){name}({a}, {b})");
    match op {
        BinaryOp::Add => wrapping("+"),
        BinaryOp::Sub => wrapping("-"),
        BinaryOp::Mul => wrapping("*"),
        BinaryOp::And => format!("({c})({a} & {b})"),
        BinaryOp::Or => format!("({c})({a} | {b})"),
        BinaryOp::Div => call("i_div"),
        BinaryOp::FloorDiv => call("i_floordiv"),
        BinaryOp::Mod => call("i_mod"),
        BinaryOp::Fmod => call("i_fmod"),
        BinaryOp::Pow => call("i_pow"),
        BinaryOp::Max => call("i_max"),
        BinaryOp::Min => call("i_min"),
        BinaryOp::Eq | BinaryOp::Ne | BinaryOp::Lt | BinaryOp::Le | BinaryOp::Gt | BinaryOp::Ge => {
            unreachable!("comparisons are printed for all types alike")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_printed_as_they_are() {
        let exact = |n: i64| constant(n.into(), DType::I64);
        assert_eq!(exact((1 << 53) + 1), "((int64_t)((int64_t)9007199254740993))");
        assert_eq!(exact(i64::MAX), "((int64_t)((int64_t)9223372036854775807))");
        assert_eq!(exact(i64::MIN), "((int64_t)((int64_t)-9223372036854775807 - 1))");
        assert_eq!(constant(0.5.into(), DType::Bool), "1");
        assert_eq!(constant((-1.0).into(), DType::U8), "((uint8_t)((int64_t)-1))");
    }
}
