//! Kernel specs: what one kernel of a plan computes, and where its operands lie.
//!
//! Sizes that depend on symbolic dimensions are [`Size::Dim`]s, which the kernel reads at run time.

use aotfarm_protocol::{DType, Lattice};

use aotfarm_ir::{BinaryOp, Number, ReduceOp, UnaryOp, Window};

/// A size or stride in a kernel: known when the kernel is rendered, or read from `aotk_call.dim[k]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Size {
    /// Known.
    Const(i64),
    /// `dim[k]`.
    Dim(usize),
}

/// How the elements of an operand lie in its buffer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Layout {
    /// Contiguous, row-major.
    Plain,
    /// `NCHW{block}c` with a physical halo: `[N][⌈C/block⌉][top+H+bottom][left+W+right][block]`. The halo and the lanes past C are
    /// zero, are never written by kernels, and every kernel may rely on that. The value must have rank 4 with static C, H, W. On a GPU a block
    /// holds all channels and there is no halo, which is NHWC.
    Image {
        /// Channels that lie together: the target's vector width on a CPU, all of them (rounded up to [`GPU_CHANNELS`]) on a GPU.
        block: u32,
        /// Zero rows and columns around each plane: top, bottom, left, right.
        halo: [u32; 4],
    },
}

/// What the channels of an image are rounded up to on a GPU: 16 bytes of the smallest type.
pub const GPU_CHANNELS: i64 = 8;

/// An operand of a kernel.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TensorSpec {
    /// Element type.
    pub dtype: DType,
    /// Logical shape.
    pub shape: Vec<Size>,
    /// Layout.
    pub layout: Layout,
}

/// What happens to each output element after the main computation, in order, before it is stored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum EpilogueStep {
    /// Add `weight[k][channel]`, where the channel is dimension 1 of a convolution's output and the last dimension of a matmul's.
    Bias(usize),
    /// Combine with the same element of `in[k]` (same shape and layout as the output): `op(value, residual)`.
    Residual(BinaryOp, usize),
    /// Apply a function.
    Unary(UnaryOp),
}

/// How products are multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Math {
    /// In the type of the operands.
    #[default]
    Exact,
    /// f32 operands with 10 bits of mantissa, on the tensor cores of a GPU. Weights are rounded already; images that convolutions store are rounded as
    /// they are stored.
    Tf32,
}

/// A fused convolution. `in[0]` is x (times `in[gate]`, if there is a gate). `weight[0]` is `[O, C/groups, KH, KW]` in f32 on a CPU, and `[O, KH, KW, C/groups]` in the type that
/// activations are stored in on a GPU; there C is padded as in the input when that is an image and there is one group.
#[derive(Debug, Clone, PartialEq)]
pub struct ConvSpec {
    /// Geometry.
    pub window: Window,
    /// Channel groups; equal to the number of channels for depthwise.
    pub groups: i64,
    /// Fused steps.
    pub epilogue: Vec<EpilogueStep>,
    /// A pooling that follows: the task's output is what it gives, and residuals have the shape before it.
    pub pool: Option<PoolSpec>,
    /// A second convolution whose result is added before the fused steps: the shortcut of a residual block.
    pub branch: Option<Branch>,
    /// Which input is a plain `[N, C]` whose element (n, c) multiplies all of x's channel c of image n: the gate of a squeeze-and-excitation
    /// block (Hu et al. 2018). Only for CPUs.
    pub gate: Option<usize>,
    /// Whether `out[1]` is a plain `[N, O]` of the means of `out[0]` over H and W, which the products of a squeeze-and-excitation block read. Only
    /// for CPUs.
    pub mean: bool,
}

/// A convolution of one group that is added to another one; its output has the same shape.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Branch {
    /// Which input it reads.
    pub input: usize,
    /// Which weight it multiplies, `[O, KH, KW, C]` like the first one's.
    pub weight: usize,
    /// Geometry.
    pub window: Window,
}

/// A fused matrix product of the last two dimensions. `in[0]` is a, always row-major `[…, M, K]`. b is `weight[0]` or `in[1]`.
/// With b a weight, all leading dimensions of a are already folded into M (rank 2).
#[derive(Debug, Clone, PartialEq)]
pub struct MatMulSpec {
    /// Whether b is a weight (packable) or an activation.
    pub b_is_weight: bool,
    /// Whether b is `[…, N, K]` (as in Linear) instead of `[…, K, N]`.
    pub b_transposed: bool,
    /// Fused steps.
    pub epilogue: Vec<EpilogueStep>,
}

/// A max or average pooling over an image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PoolSpec {
    /// Max or average.
    pub op: aotfarm_ir::PoolOp,
    /// Geometry.
    pub window: Window,
}

/// A normalisation over the last dimension of contiguous rows: `in[0]` is `[…, K]`, output the same.
#[derive(Debug, Clone, PartialEq)]
pub enum RowSpec {
    /// Softmax of `scale * x`, plus an optional additive mask `in[1]` of the same shape.
    Softmax,
    /// `(x - mean) / sqrt(variance + eps)`, then times `weight[0]` plus `weight[1]` when `affine`.
    LayerNorm {
        /// Added to the variance.
        eps: f64,
        /// Whether there are weights.
        affine: bool,
    },
}

/// Where the element `[batch, head, row, column]` of an operand lies in a row-major buffer: `offset` plus each index times its stride. So
/// heads that lie side by side in the rows of a product are read without a copy; along what is broadcast the stride is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// Place of the first element.
    pub offset: Size,
    /// Of batch, head, row and column.
    pub strides: [Size; 4],
}

/// Scaled dot-product attention: `softmax(scale * query keyᵀ + mask) value` of every head. `in[0]`, `in[1]` and `in[2]` are query, key
/// and value. A row that may see nothing gives zeros. Only for GPUs.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionSpec {
    /// Batch and heads.
    pub lead: [Size; 2],
    /// Rows of query and of key.
    pub rows: [Size; 2],
    /// Columns of query (and key) and of value.
    pub widths: [i64; 2],
    /// Factor of `query keyᵀ`.
    pub scale: f64,
    /// Whether row i sees only rows up to i of key.
    pub causal: bool,
    /// Where query, key, value and the output lie.
    pub views: [View; 4],
    /// What masks the scores, with a row for each of query and a column for each row of key.
    pub mask: Option<Mask>,
}

/// The mask of an [`AttentionSpec`]: Bool, and a score counts where it is true; or float, and added to the scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mask {
    /// Whether it is `weight[0]`, not `in[3]`.
    pub is_weight: bool,
    /// Where it lies.
    pub view: View,
}

/// Index arithmetic of a [`LoopNest`].
#[derive(Debug, Clone, PartialEq)]
pub enum Index {
    /// A constant.
    Const(i64),
    /// Output loop variable k.
    Loop(usize),
    /// Reduction loop variable k.
    ReduceLoop(usize),
    /// `dim[k]`.
    Dim(usize),
    /// Sum.
    Add(Box<Index>, Box<Index>),
    /// Product.
    Mul(Box<Index>, Box<Index>),
    /// Division rounded toward minus infinity, by a positive number.
    Div(Box<Index>, Box<Index>),
    /// Non-negative remainder, by a positive number.
    Mod(Box<Index>, Box<Index>),
    /// The value of an integer expression (a gathered index).
    Value(Box<Scalar>),
}

/// The value of one element of a [`LoopNest`].
#[derive(Debug, Clone, PartialEq)]
pub enum Scalar {
    /// `in[operand][index]`, an index into the buffer in elements (layout already applied).
    Input(usize, Index),
    /// `weight[operand][index]`.
    Weight(usize, Index),
    /// A constant of the given type.
    Const(Number, DType),
    /// An index as a number of the given type.
    Index(Index, DType),
    /// The reduced value (only in [`LoopNest::value`] of a nest with a reduction).
    Reduced,
    /// Element-wise function.
    Unary(UnaryOp, Box<Scalar>),
    /// Element-wise function.
    Binary(BinaryOp, Box<Scalar>, Box<Scalar>),
    /// `condition ? then : else`; the side not taken is not evaluated, so it guards loads.
    Select(Box<Scalar>, Box<Scalar>, Box<Scalar>),
    /// Conversion.
    Cast(DType, Box<Scalar>),
    /// `low ≤ index < high` as Bool.
    InRange(Index, i64, Size),
}

/// A reduction inside a [`LoopNest`].
#[derive(Debug, Clone, PartialEq)]
pub struct Reduction {
    /// How to combine. `Mean` divides by the product of the extents.
    pub op: ReduceOp,
    /// Loops, outermost first.
    pub extents: Vec<Size>,
    /// The element.
    pub element: Scalar,
}

/// The general kernel: for every point of the output loops, evaluate and store. Anything that is not one of the tuned
/// kinds is expressed so: chains of element-wise functions over any views, reductions, gathers, padding, layout changes.
#[derive(Debug, Clone, PartialEq)]
pub struct LoopNest {
    /// Output loops, outermost first; each point stores one element.
    pub extents: Vec<Size>,
    /// The reduction, if any.
    pub reduction: Option<Reduction>,
    /// What is stored.
    pub value: Scalar,
    /// Where in `out[0]`.
    pub store: Index,
}

/// What a kernel computes.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "each variant is documented by its type")]
pub enum KernelKind {
    Conv(ConvSpec),
    MatMul(MatMulSpec),
    Attention(AttentionSpec),
    Pool(PoolSpec),
    Rows(RowSpec),
    Loops(LoopNest),
}

/// What a kernel computes and where its operands lie.
#[derive(Debug, Clone, PartialEq)]
pub struct KernelSpec {
    /// The computation.
    pub kind: KernelKind,
    /// Activations.
    pub inputs: Vec<TensorSpec>,
    /// Raw weights, always [`Layout::Plain`] with constant sizes.
    pub weights: Vec<TensorSpec>,
    /// Outputs: one, and a second of a convolution with a [mean](ConvSpec::mean).
    pub outputs: Vec<TensorSpec>,
    /// How many `dim`s there are.
    pub dims: usize,
    /// How products are multiplied.
    pub math: Math,
}

impl Size {
    /// The value at a point.
    pub fn at(self, point: &[i64]) -> i64 {
        match self {
            Self::Const(n) => n,
            Self::Dim(k) => point[k],
        }
    }
}

impl View {
    /// The offset and the strides at a point.
    pub fn at(&self, point: &[i64]) -> (i64, [i64; 4]) {
        (self.offset.at(point), self.strides.map(|stride| stride.at(point)))
    }
}

impl TensorSpec {
    /// Elements of the whole buffer at the given dims, halo and padding included.
    pub fn len_at(&self, dims: &[i64]) -> i64 {
        match self.layout {
            Layout::Plain => self.shape.iter().map(|s| s.at(dims)).product(),
            Layout::Image { block, halo: [top, bottom, left, right] } => {
                let [n, c, h, w] = self.nchw(dims);
                let block = i64::from(block);
                n * (c + block - 1).div_euclid(block) * (h + i64::from(top + bottom)) * (w + i64::from(left + right)) * block
            }
        }
    }

    /// Where in the buffer the elements lie at the given dims, in row-major order of the logical shape within each lattice.
    /// An image whose channels do not fill the last block has two: the full blocks, then the rest.
    pub fn lattices_at(&self, dims: &[i64]) -> Vec<Lattice> {
        let Layout::Image { block, halo: [top, bottom, left, right] } = self.layout else {
            let mut dims: Vec<_> = self.shape.iter().map(|s| (s.at(dims), 0)).collect();
            let mut stride = 1;
            for (size, place) in dims.iter_mut().rev() {
                *place = stride;
                stride *= *size;
            }
            return vec![Lattice { offset: 0, dims }];
        };
        let [n, c, h, w] = self.nchw(dims);
        let block = i64::from(block);
        let row = (w + i64::from(left + right)) * block;
        let plane = (h + i64::from(top + bottom)) * row;
        let image = (c + block - 1).div_euclid(block) * plane;
        let origin = i64::from(top) * row + i64::from(left) * block;
        let mut lattices = Vec::new();
        if c >= block {
            let dims = vec![(n, image), (c / block, plane), (block, 1), (h, row), (w, block)];
            lattices.push(Lattice { offset: origin, dims });
        }
        if c % block != 0 {
            let dims = vec![(n, image), (c % block, 1), (h, row), (w, block)];
            lattices.push(Lattice { offset: origin + c / block * plane, dims });
        }
        lattices
    }

    /// Where in the buffer each element lies at the given dims, in row-major order of the logical shape.
    pub fn places_at(&self, dims: &[i64]) -> Vec<usize> {
        let Layout::Image { block, halo: [top, bottom, left, right] } = self.layout else {
            return (0..self.len_at(dims).unsigned_abs() as usize).collect();
        };
        let [n, c, h, w] = self.nchw(dims);
        let (block, [top, bottom, left, right]) = (i64::from(block), [top, bottom, left, right].map(i64::from));
        let (rows, columns, blocks) = (top + h + bottom, left + w + right, (c + block - 1) / block);
        let mut places = Vec::with_capacity((n * c * h * w).unsigned_abs() as usize);
        for (b, k) in (0..n).flat_map(|b| (0..c).map(move |k| (b, k))) {
            for (y, x) in (0..h).flat_map(|y| (0..w).map(move |x| (y, x))) {
                places.push(((((b * blocks + k / block) * rows + top + y) * columns + left + x) * block + k % block) as usize);
            }
        }
        places
    }

    fn nchw(&self, dims: &[i64]) -> [i64; 4] {
        let sizes: Vec<_> = self.shape.iter().map(|s| s.at(dims)).collect();
        sizes.try_into().expect("an image has rank 4")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(shape: &[i64], layout: Layout) -> TensorSpec {
        TensorSpec { dtype: DType::F32, shape: shape.iter().map(|n| Size::Const(*n)).collect(), layout }
    }

    #[test]
    fn images_have_a_lattice_for_whole_blocks_and_one_for_the_rest() {
        let image = tensor(&[2, 19, 3, 4], Layout::Image { block: 8, halo: [1, 0, 2, 3] });
        // Rows of 2 + 4 + 3 places of 8 lanes; planes of 4 rows; 3 planes.
        assert_eq!(image.len_at(&[]), 2 * 3 * 4 * 9 * 8);
        let origin = 9 * 8 + 2 * 8;
        let whole = Lattice { offset: origin, dims: vec![(2, 864), (2, 288), (8, 1), (3, 72), (4, 8)] };
        let rest = Lattice { offset: origin + 2 * 288, dims: vec![(2, 864), (3, 1), (3, 72), (4, 8)] };
        assert_eq!(image.lattices_at(&[]), [whole, rest]);
        let all: i64 = image.lattices_at(&[]).iter().map(|l| l.dims.iter().map(|(n, _)| n).product::<i64>()).sum();
        assert_eq!(all, 2 * 19 * 3 * 4);
    }

    #[test]
    fn a_scalar_is_one_element() {
        let scalar = tensor(&[], Layout::Plain);
        assert_eq!(scalar.len_at(&[]), 1);
        assert_eq!(scalar.lattices_at(&[]), [Lattice { offset: 0, dims: vec![] }]);
    }
}
