//! The names of operators, as the text form, messages and kernel labels spell them.

use super::{BinaryOp, Op, PoolOp, ReduceOp, UnaryOp};

impl UnaryOp {
    /// The functions without parameters.
    pub const PLAIN: [Self; 22] = [
        Self::Abs,
        Self::Neg,
        Self::Exp,
        Self::Log,
        Self::Sqrt,
        Self::Rsqrt,
        Self::Reciprocal,
        Self::Sin,
        Self::Cos,
        Self::Tanh,
        Self::Erf,
        Self::Sigmoid,
        Self::Relu,
        Self::Silu,
        Self::Gelu,
        Self::GeluTanh,
        Self::Hardswish,
        Self::Hardsigmoid,
        Self::Floor,
        Self::Ceil,
        Self::Round,
        Self::Not,
    ];

    /// The lower-case name, without parameters.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Abs => "abs",
            Self::Neg => "neg",
            Self::Exp => "exp",
            Self::Log => "log",
            Self::Sqrt => "sqrt",
            Self::Rsqrt => "rsqrt",
            Self::Reciprocal => "reciprocal",
            Self::Sin => "sin",
            Self::Cos => "cos",
            Self::Tanh => "tanh",
            Self::Erf => "erf",
            Self::Sigmoid => "sigmoid",
            Self::Relu => "relu",
            Self::Silu => "silu",
            Self::Gelu => "gelu",
            Self::GeluTanh => "gelu_tanh",
            Self::Hardswish => "hardswish",
            Self::Hardsigmoid => "hardsigmoid",
            Self::Floor => "floor",
            Self::Ceil => "ceil",
            Self::Round => "round",
            Self::Not => "not",
            Self::Clamp { .. } => "clamp",
            Self::LeakyRelu { .. } => "leaky_relu",
            Self::Elu { .. } => "elu",
        }
    }
}

impl BinaryOp {
    /// All functions.
    pub const ALL: [Self; 17] = [
        Self::Add,
        Self::Sub,
        Self::Mul,
        Self::Div,
        Self::FloorDiv,
        Self::Mod,
        Self::Pow,
        Self::Max,
        Self::Min,
        Self::And,
        Self::Or,
        Self::Eq,
        Self::Ne,
        Self::Lt,
        Self::Le,
        Self::Gt,
        Self::Ge,
    ];

    /// The lower-case name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Sub => "sub",
            Self::Mul => "mul",
            Self::Div => "div",
            Self::FloorDiv => "floor_div",
            Self::Mod => "mod",
            Self::Pow => "pow",
            Self::Max => "maximum",
            Self::Min => "minimum",
            Self::And => "and",
            Self::Or => "or",
            Self::Eq => "eq",
            Self::Ne => "ne",
            Self::Lt => "lt",
            Self::Le => "le",
            Self::Gt => "gt",
            Self::Ge => "ge",
        }
    }

    /// Whether the result is `Bool` whatever the operands are.
    pub const fn is_comparison(self) -> bool {
        matches!(self, Self::Eq | Self::Ne | Self::Lt | Self::Le | Self::Gt | Self::Ge)
    }
}

impl ReduceOp {
    /// All combinations.
    pub const ALL: [Self; 7] = [Self::Sum, Self::Mean, Self::Max, Self::Min, Self::Prod, Self::Any, Self::All];

    /// The lower-case name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Mean => "mean",
            Self::Max => "max",
            Self::Min => "min",
            Self::Prod => "prod",
            Self::Any => "any",
            Self::All => "all",
        }
    }
}

impl Op {
    /// The operator's word in the text form: `conv`, `add`, `reduce_mean` …
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Unary(op) => op.name(),
            Self::Binary(op) => op.name(),
            Self::Where => "where",
            Self::Cast(_) => "cast",
            Self::Conv { .. } => "conv",
            Self::BatchNorm { .. } => "batch_norm",
            Self::Pool { op: PoolOp::Max, .. } => "max_pool",
            Self::Pool { op: PoolOp::Avg { .. }, .. } => "avg_pool",
            Self::AdaptiveAvgPool { .. } => "adaptive_avg_pool",
            Self::Linear => "linear",
            Self::MatMul => "matmul",
            Self::Attention { .. } => "attention",
            Self::Softmax { .. } => "softmax",
            Self::LayerNorm { .. } => "layer_norm",
            Self::Reduce { op, .. } => match op {
                ReduceOp::Sum => "reduce_sum",
                ReduceOp::Mean => "reduce_mean",
                ReduceOp::Max => "reduce_max",
                ReduceOp::Min => "reduce_min",
                ReduceOp::Prod => "reduce_prod",
                ReduceOp::Any => "reduce_any",
                ReduceOp::All => "reduce_all",
            },
            Self::Reshape { .. } => "reshape",
            Self::Permute { .. } => "permute",
            Self::Expand { .. } => "expand",
            Self::Slice { .. } => "slice",
            Self::Concat { .. } => "concat",
            Self::Pad { .. } => "pad",
            Self::Take { .. } => "take",
            Self::GatherElements { .. } => "gather_elements",
            Self::Iota { .. } => "iota",
            Self::Full { .. } => "full",
        }
    }
}
