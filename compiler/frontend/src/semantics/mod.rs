//! One meaning, two spellings: the operators that ATen and ONNX share, normalised. The readers translate names and arguments;
//! what an operator means (broadcasts, axes, optional operands, paddings, parts) is here, one file
//! for each group of `ir/ops` (and `conv`, whose windows are a subject of their own; and `equal`,
//! for all of them).
//!
//! What a specification alone knows stays with its reader: torch's type promotion in `aten`, ONNX's known integers in `onnx`.

pub(crate) mod conv;
pub(crate) mod einsum;
mod equal;
pub(crate) mod gather;
pub(crate) mod index;
pub(crate) mod normalisation;
pub(crate) mod order;
pub(crate) mod pointwise;
pub(crate) mod pooling;
pub(crate) mod product;
pub(crate) mod reduction;
pub(crate) mod resize;
pub(crate) mod source;
pub(crate) mod view;

use aotfarm_ir::{BinaryOp, BuildError, Builder, Expr, Number, Op, TensorType, UnaryOp, ValueId};
use aotfarm_protocol::DType;

pub(crate) use self::equal::Equal;
use crate::error::ImportError;

/// Why a node cannot be mapped.
pub(crate) enum Refusal {
    /// What is wrong with it, or not supported.
    What(String),
    /// A shape rule that it violates.
    Build(BuildError),
    /// A shape rule that it violates unless these dimensions are equal to those sizes.
    Unequal(BuildError, Equal),
}

pub(crate) type Result<T> = std::result::Result<T, Refusal>;

impl Refusal {
    /// The error of the node that `source` names.
    pub(crate) fn at(self, source: &str) -> ImportError {
        match self {
            Self::What(what) => ImportError::Node { node: source.to_owned(), what },
            Self::Build(error) | Self::Unequal(error, _) => error.into(),
        }
    }
}

impl From<BuildError> for Refusal {
    fn from(error: BuildError) -> Self {
        Self::Build(error)
    }
}

impl From<String> for Refusal {
    fn from(what: String) -> Self {
        Self::What(what)
    }
}

impl From<&str> for Refusal {
    fn from(what: &str) -> Self {
        Self::What(what.to_owned())
    }
}

/// The graph under construction, and the node of the file that the next operators come from.
pub(crate) struct Emit<'a> {
    pub(crate) builder: &'a mut Builder,
    pub(crate) source: &'a str,
}

impl Emit<'_> {
    pub(crate) fn ty(&self, id: ValueId) -> &TensorType {
        self.builder.ty(id)
    }

    pub(crate) fn shape(&self, id: ValueId) -> Vec<Expr> {
        self.ty(id).shape.clone()
    }

    pub(crate) fn rank(&self, id: ValueId) -> usize {
        self.ty(id).shape.len()
    }

    pub(crate) fn dtype(&self, id: ValueId) -> DType {
        self.ty(id).dtype
    }

    pub(crate) fn push(&mut self, op: Op, inputs: &[ValueId]) -> Result<ValueId> {
        let same = op.clone();
        let pushed = self.builder.push(op, inputs, self.source);
        pushed.map_err(|error| {
            let types: Vec<_> = inputs.iter().map(|id| self.ty(*id).clone()).collect();
            match equal::needed(&same, &types, &self.builder.graph().dims) {
                Some(equal) => Refusal::Unequal(error, equal),
                None => error.into(),
            }
        })
    }

    pub(crate) fn unary(&mut self, op: UnaryOp, x: ValueId) -> Result<ValueId> {
        self.push(Op::Unary(op), &[x])
    }

    /// An element-wise function of two tensors of one type.
    pub(crate) fn binary(&mut self, op: BinaryOp, a: ValueId, b: ValueId) -> Result<ValueId> {
        self.push(Op::Binary(op), &[a, b])
    }

    pub(crate) fn reshape(&mut self, x: ValueId, shape: Vec<Expr>) -> Result<ValueId> {
        if self.ty(x).shape == shape { Ok(x) } else { self.push(Op::Reshape { shape }, &[x]) }
    }

    pub(crate) fn cast(&mut self, x: ValueId, dtype: DType) -> Result<ValueId> {
        if self.dtype(x) == dtype { Ok(x) } else { self.push(Op::Cast(dtype), &[x]) }
    }

    /// A constant of rank 0.
    pub(crate) fn full(&mut self, value: impl Into<Number>, dtype: DType) -> Result<ValueId> {
        self.push(Op::Full { value: value.into(), shape: Vec::new(), dtype }, &[])
    }
}

/// The axis of a tensor of that rank, counted from the end when negative.
pub(crate) fn axis(axis: i64, rank: usize) -> Result<usize> {
    let n = rank.max(1) as i64;
    if (-n..n).contains(&axis) {
        Ok(axis.rem_euclid(n) as usize)
    } else {
        Err(format!("axis {axis} is outside a tensor of rank {rank}").into())
    }
}

/// Sorted, distinct axes; all of them when the list is empty. Rank 0 has none, though it lets itself be asked for its first.
pub(crate) fn axes(list: &[i64], rank: usize) -> Result<Vec<usize>> {
    let mut axes = list.iter().map(|a| axis(*a, rank)).collect::<Result<Vec<_>>>()?;
    axes.sort_unstable();
    axes.dedup();
    Ok(if axes.is_empty() || rank == 0 { (0..rank).collect() } else { axes })
}

/// A shape of that rank which is `size` along one axis and 1 along all others.
pub(crate) fn along(rank: usize, axis: usize, size: Expr) -> Vec<Expr> {
    let mut shape = vec![Expr::one(); rank];
    shape[axis] = size;
    shape
}

/// The product of sizes.
pub(crate) fn product(sizes: &[Expr]) -> Expr {
    sizes.iter().fold(Expr::one(), |a, b| &a * b)
}
