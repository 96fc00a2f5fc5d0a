//! The operators of the IR: a small semantic set that every importer maps to.
//!
//! A file for each group says all about its operators: parameters, names, number of operands, shape rule, attributes in the text
//! form and evaluation. What later stages do alike for a whole group goes by [`Class`].

/// An enum of functions without parameters, each with its lower-case name.
macro_rules! functions {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $function:ident = $word:literal,)+ }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[expect(missing_docs, reason = "each variant is its own name")]
        pub enum $name {
            $($(#[$doc])* $function,)+
        }

        impl $name {
            /// All of them.
            pub const ALL: [Self; [$($word),+].len()] = [$(Self::$function),+];

            /// The lower-case name.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$function => $word,)+
                }
            }
        }
    };
}

mod gather;
mod normalisation;
mod pointwise;
mod pooling;
mod product;
mod reduction;
mod rules;
mod source;
mod view;
mod window;

use aotfarm_protocol::DType;

use crate::array::Array;
use crate::syntax::{NodeText, TextError};
use crate::types::{MAX_RANK, TensorType, check_sizes};
use crate::{Bindings, Expr, GraphDim, Number};

pub use pointwise::{BinaryOp, Domain, UnaryOp};
pub use pooling::PoolOp;
pub use reduction::ReduceOp;
pub use rules::broadcast;
pub use window::Window;

/// An operator. Inputs are listed in the order in which [`crate::Node::inputs`] holds them; `[x]` is optional.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// `x`: element-wise.
    Unary(UnaryOp),
    /// `a, b`: element-wise with broadcasting.
    Binary(BinaryOp),
    /// `condition, then, else`: element-wise with broadcasting.
    Where,
    /// `x`: conversion of the element type; float to integer truncates.
    Cast(DType),
    /// `x [N,C,H,W], weight [O,C/groups,KH,KW], [bias [O]]`: cross-correlation.
    Conv {
        /// Geometry; `kernel` repeats the weight's.
        window: Window,
        /// Channel groups.
        groups: i64,
    },
    /// `x [N,C,…], scale [C], shift [C], mean [C], variance [C]`: inference-mode batch normalisation.
    BatchNorm {
        /// Added to the variance.
        eps: f64,
    },
    /// `x [N,C,H,W]`: pooling.
    Pool {
        /// Max or average.
        op: PoolOp,
        /// Geometry.
        window: Window,
    },
    /// `x [N,C,H,W]`: average pooling to a fixed size, windows as in torch's adaptive_avg_pool2d.
    AdaptiveAvgPool {
        /// Output height and width.
        output: [i64; 2],
    },
    /// `x […,K], weight [N,K], [bias [N]]`: `x weightᵀ + bias`.
    Linear,
    /// `a […,M,K], b […,K,N]`: matrix product; leading dimensions broadcast; both have rank at least 2.
    MatMul,
    /// `query […,L,E], key […,S,E], value […,S,V], [mask]`: scaled dot-product attention. A Bool mask keeps where true, a float mask is added;
    /// it broadcasts to `[…,L,S]`.
    Attention {
        /// Factor of `query keyᵀ`.
        scale: f64,
        /// Whether position i sees only positions up to i.
        causal: bool,
    },
    /// `x`: softmax along one axis.
    Softmax {
        /// The axis, not negative.
        axis: usize,
    },
    /// `x, [scale, shift]`: normalisation over the last `axes` axes; scale and shift have their shape.
    LayerNorm {
        /// How many trailing axes.
        axes: usize,
        /// Added to the variance.
        eps: f64,
    },
    /// `x`: reduction over `axes` (sorted, distinct).
    Reduce {
        /// Combination.
        op: ReduceOp,
        /// Axes, not negative.
        axes: Vec<usize>,
        /// Whether reduced axes stay with size 1.
        keepdim: bool,
    },
    /// `x`: same elements in row-major order, other shape.
    Reshape {
        /// The new shape.
        shape: Vec<Expr>,
    },
    /// `x`: output axis i is input axis `axes[i]`.
    Permute {
        /// The permutation.
        axes: Vec<usize>,
    },
    /// `x`: broadcast to `shape`, right-aligned as in numpy.
    Expand {
        /// The new shape.
        shape: Vec<Expr>,
    },
    /// `x`: every `step`-th position from `start` (inclusive) to `end` (exclusive) of one axis, already clamped to the size.
    Slice {
        /// The axis.
        axis: usize,
        /// First position.
        start: Expr,
        /// End.
        end: Expr,
        /// Positive step.
        step: i64,
    },
    /// Any number of tensors, equal but for one axis.
    Concat {
        /// The axis.
        axis: usize,
    },
    /// `x`: constant padding (negative crops).
    Pad {
        /// `[before, after]` of each axis.
        pads: Vec<[i64; 2]>,
        /// The value, which the element type rounds, cuts or wraps.
        value: Number,
    },
    /// `x, indices`: `x` with `axis` replaced by the shape of `indices` (ONNX Gather, torch embedding and index_select).
    /// Negative indices count from the end.
    Take {
        /// The axis.
        axis: usize,
    },
    /// `x, indices`: same-rank element gather (torch gather, ONNX GatherElements).
    GatherElements {
        /// The axis.
        axis: usize,
    },
    /// No inputs: `start + step * i` for `i < length`, rank 1.
    Iota {
        /// Number of elements.
        length: Expr,
        /// First value.
        start: i64,
        /// Difference.
        step: i64,
        /// Element type.
        dtype: DType,
    },
    /// No inputs: one value everywhere.
    Full {
        /// The value, which the element type rounds, cuts or wraps.
        value: Number,
        /// Shape.
        shape: Vec<Expr>,
        /// Element type.
        dtype: DType,
    },
}

/// The group that an operator belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Element i of the result is a function of the elements i of the operands, broadcast.
    Pointwise,
    /// Sums of products: convolutions, linear layers, matrix products, attention.
    Product,
    /// A window over an image.
    Pooling,
    /// Scaled by statistics: of the operand itself, or given.
    Normalisation,
    /// Elements along axes are combined into one.
    Reduction,
    /// The elements of the operands at other places, which the shapes alone decide.
    View,
    /// The elements of one operand at places that another one holds.
    Gather,
    /// No operands.
    Source,
}

/// What the file of a group says of its operators. `op` is always one of the group.
trait Group {
    /// The operator's word in the text form.
    fn name(&self, op: &Op) -> &'static str;

    /// Least and most number of operands.
    fn arity(&self, op: &Op) -> (usize, usize);

    /// The type of the result, from as many operands as [`Group::arity`] allows; or what is wrong with them.
    fn infer(&self, op: &Op, operands: &[&TensorType]) -> Result<TensorType, String>;

    /// Whether elements are taken from within the operands at all allowed sizes of `dims`; or what to change.
    fn check_ranges(&self, _op: &Op, _operands: &[&TensorType], _dims: &[GraphDim]) -> Result<(), String> {
        Ok(())
    }

    /// How many multiply-adds it takes.
    fn multiply_adds(&self, _op: &Op, _operands: &[&TensorType], _result: &TensorType) -> Expr {
        Expr::zero()
    }

    /// `key=value` of every attribute that is not at its default and that the type of the result does not tell.
    fn attributes(&self, _op: &Op) -> Vec<String> {
        Vec::new()
    }

    /// The operator of this name, if it is of the group.
    fn read(&self, name: &str, node: &mut NodeText<'_>) -> Result<Option<Op>, TextError>;

    /// The result, whose sizes are `shape`; or why there is none.
    fn evaluate(&self, op: &Op, operands: &[&Array], shape: &[usize], bindings: &Bindings) -> Result<Array, String>;
}

/// The end of a match over the operators of one group.
fn foreign(op: &Op) -> ! {
    unreachable!("{op:?} is of the class {:?}", op.class())
}

impl Class {
    const ALL: [Self; 8] = [
        Self::Pointwise,
        Self::Product,
        Self::Pooling,
        Self::Normalisation,
        Self::Reduction,
        Self::View,
        Self::Gather,
        Self::Source,
    ];

    const fn group(self) -> &'static dyn Group {
        match self {
            Self::Pointwise => &pointwise::Pointwise,
            Self::Product => &product::Product,
            Self::Pooling => &pooling::Pooling,
            Self::Normalisation => &normalisation::Normalisation,
            Self::Reduction => &reduction::Reduction,
            Self::View => &view::View,
            Self::Gather => &gather::Gather,
            Self::Source => &source::Source,
        }
    }
}

impl Op {
    /// The group that it belongs to.
    pub const fn class(&self) -> Class {
        match self {
            Self::Unary(_) | Self::Binary(_) | Self::Where | Self::Cast(_) => Class::Pointwise,
            Self::Conv { .. } | Self::Linear | Self::MatMul | Self::Attention { .. } => Class::Product,
            Self::Pool { .. } | Self::AdaptiveAvgPool { .. } => Class::Pooling,
            Self::BatchNorm { .. } | Self::Softmax { .. } | Self::LayerNorm { .. } => Class::Normalisation,
            Self::Reduce { .. } => Class::Reduction,
            Self::Reshape { .. }
            | Self::Permute { .. }
            | Self::Expand { .. }
            | Self::Slice { .. }
            | Self::Concat { .. }
            | Self::Pad { .. } => Class::View,
            Self::Take { .. } | Self::GatherElements { .. } => Class::Gather,
            Self::Iota { .. } | Self::Full { .. } => Class::Source,
        }
    }

    /// The operator's word in the text form: `conv`, `add`, `reduce_mean` …
    pub fn name(&self) -> &'static str {
        self.class().group().name(self)
    }

    /// The multiply-adds that it takes; 0 for operators that are not products.
    pub fn multiply_adds(&self, operands: &[&TensorType], result: &TensorType) -> Expr {
        self.class().group().multiply_adds(self, operands, result)
    }

    /// Its attributes in the text form.
    pub(crate) fn attributes(&self) -> Vec<String> {
        self.class().group().attributes(self)
    }

    /// The operator of this name with the attributes of `node`.
    pub(crate) fn read(name: &str, mut node: NodeText<'_>) -> Result<Self, TextError> {
        for class in Class::ALL {
            if let Some(op) = class.group().read(name, &mut node)? {
                return node.end(name).map(|()| op);
            }
        }
        Err(node.error(format!("unknown operator `{name}`")))
    }

    /// The result for these operands, whose sizes are `shape` where the symbols are as `bindings` says.
    pub(crate) fn evaluate(&self, operands: &[&Array], shape: &[usize], bindings: &Bindings) -> Result<Array, String> {
        self.class().group().evaluate(self, operands, shape, bindings)
    }
}

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
    let group = op.class().group();
    let (least, most) = group.arity(op);
    let result = if (least..=most).contains(&inputs.len()) {
        group.infer(op, inputs)
    } else {
        let wanted = if least == most { least.to_string() } else { format!("{least} to {most}") };
        Err(format!("expected {wanted} operands, got {}", inputs.len()))
    };
    result
        .and_then(|ty| match ty.shape.len() {
            0..=MAX_RANK => Ok(ty),
            rank => Err(format!("the result has {rank} dimensions, more than {MAX_RANK}")),
        })
        .map_err(|rule| InferError::new(op, inputs, rule))
}

/// Checks what the shape rule cannot decide without the symbols' ranges: a slice or gather within its tensor, and no size of the
/// result negative or absurd, for every allowed size of the symbols. `result` is what [`infer`] gave.
pub fn check_ranges(op: &Op, inputs: &[&TensorType], result: &TensorType, dims: &[GraphDim]) -> Result<(), InferError> {
    let within = op.class().group().check_ranges(op, inputs, dims);
    within.and_then(|()| check_sizes(result, dims)).map_err(|rule| InferError::new(op, inputs, rule))
}

#[cfg(test)]
mod tests;
