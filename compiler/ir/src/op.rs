//! The operators of the IR: a small semantic set that every importer maps to.

use aotfarm_protocol::DType;

use super::Expr;

/// An element-wise function of one tensor.
#[derive(Debug, Clone, Copy, PartialEq)]
#[expect(missing_docs, reason = "each variant is its own name; those with fields are documented")]
pub enum UnaryOp {
    Abs,
    Neg,
    Exp,
    Log,
    Sqrt,
    Rsqrt,
    Reciprocal,
    Sin,
    Cos,
    Tanh,
    Erf,
    Sigmoid,
    Relu,
    Silu,
    /// `0.5 x (1 + erf(x / √2))`.
    Gelu,
    /// The tanh approximation of GELU.
    GeluTanh,
    /// `x relu6(x + 3) / 6`.
    Hardswish,
    /// `relu6(x + 3) / 6`.
    Hardsigmoid,
    Floor,
    Ceil,
    Round,
    Not,
    /// `min(max(x, low), high)`; infinite ends are open.
    Clamp {
        /** lower end */
        low: f64,
        /** upper end */
        high: f64,
    },
    /// `x > 0 ? x : slope * x`.
    LeakyRelu {
        /** slope below zero */
        slope: f64,
    },
    /// `x > 0 ? x : alpha (exp(x) - 1)`.
    Elu {
        /** scale below zero */
        alpha: f64,
    },
}

/// An element-wise function of two tensors of one dtype, broadcast as numpy does. Comparisons give `Bool`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each variant is its own name")]
pub enum BinaryOp {
    Add,
    Sub,
    Mul,
    Div,
    /// Division rounded toward minus infinity.
    FloorDiv,
    /// Remainder with the sign of the divisor.
    Mod,
    Pow,
    Max,
    Min,
    And,
    Or,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

/// How a reduction combines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each variant is its own name")]
pub enum ReduceOp {
    Sum,
    Mean,
    Max,
    Min,
    Prod,
    Any,
    All,
}

/// How a pooling window combines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PoolOp {
    /// The largest element; padding never wins.
    Max,
    /// The mean.
    Avg {
        /// Whether padding counts in the divisor.
        count_include_pad: bool,
    },
}

/// A sliding window over the two spatial dimensions of NCHW.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Window {
    /// Height and width of the window.
    pub kernel: [i64; 2],
    /// Steps.
    pub stride: [i64; 2],
    /// `[[top, bottom], [left, right]]`. For pooling with ceil mode the importer has already grown bottom and right.
    pub pad: [[i64; 2]; 2],
    /// Distance between taps.
    pub dilation: [i64; 2],
}

impl Window {
    /// Grows the padding after axis `axis` (0: height, 1: width) of an input of that `size` so that the window takes the outputs
    /// of ceil mode: one more when something is left over, unless it would start in the padding.
    pub fn grow_to_ceil(&mut self, axis: usize, size: i64) {
        let [before, after] = self.pad[axis];
        if self.stride[axis] < 1 {
            return; // the shape rule refuses such a window
        }
        let reach = self.dilation[axis] * (self.kernel[axis] - 1) + 1;
        let span = size + before + after - reach;
        let stride = self.stride[axis];
        let mut outputs = (span + stride - 1).div_euclid(stride) + 1;
        if (outputs - 1) * stride >= size + before {
            outputs -= 1;
        }
        if outputs > span.div_euclid(stride) + 1 {
            self.pad[axis][1] = (outputs - 1) * stride + reach - size - before;
        }
    }
}

/// An operator. Inputs are listed in the order in which [`super::Node::inputs`] holds them; `[x]` is optional.
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
        /// The value.
        value: f64,
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
        /// The value.
        value: f64,
        /// Shape.
        shape: Vec<Expr>,
        /// Element type.
        dtype: DType,
    },
}

#[cfg(test)]
mod tests {
    use super::Window;

    #[test]
    fn ceil_mode_adds_a_window_only_where_one_starts_inside() {
        let mut window = Window { kernel: [2, 2], stride: [2, 2], pad: [[0, 0]; 2], dilation: [1, 1] };
        window.grow_to_ceil(0, 5);
        window.grow_to_ceil(1, 4);
        assert_eq!(window.pad, [[0, 1], [0, 0]]);
        let mut window = Window { kernel: [3, 3], stride: [2, 2], pad: [[1, 1]; 2], dilation: [1, 1] };
        window.grow_to_ceil(0, 6);
        assert_eq!(window.pad[0], [1, 2], "a fourth window starts in the last row");
    }
}
