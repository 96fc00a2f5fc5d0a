//! The value of one element while a loop nest is being built: [`Scalar`] with operands named by graph values and symbolic sizes.

use aotfarm_protocol::DType;

use aotfarm_ir::{BinaryOp, Expr, UnaryOp, ValueId};

use super::affine::{Affine, Atom, Ranges};

/// Mirrors [`crate::spec::Scalar`].
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Term {
    /// An element of a value's buffer.
    Load(ValueId, Affine),
    /// An element of a weight.
    Weight(ValueId, Affine),
    /// A constant.
    Const(f64, DType),
    /// An index as a number.
    Index(Affine, DType),
    /// The reduced value.
    Reduced,
    /// Element-wise function.
    Unary(UnaryOp, Box<Self>),
    /// Element-wise function.
    Binary(BinaryOp, Box<Self>, Box<Self>),
    /// Condition, then, else.
    Select(Box<Self>, Box<Self>, Box<Self>),
    /// Conversion.
    Cast(DType, Box<Self>),
    /// `low ≤ index < high`.
    InRange(Affine, i64, Expr),
}

impl Term {
    /// `then` where `low ≤ index < high`, else `otherwise`; without the test where the ranges decide it.
    pub(super) fn guarded(index: Affine, low: i64, high: Expr, ranges: &Ranges, then: Self, otherwise: Self) -> Self {
        if low <= 0 && index.is_within(&high, ranges) {
            return then;
        }
        if index.is_outside(low, &high, ranges) {
            return otherwise;
        }
        Self::Select(Box::new(Self::InRange(index, low, high)), Box::new(then), Box::new(otherwise))
    }

    /// The value as index arithmetic, when it is an integer made of loop variables and constants only.
    pub(super) fn as_affine(&self) -> Option<Affine> {
        match self {
            Self::Index(index, dtype) if !dtype.is_float() => Some(index.clone()),
            Self::Const(value, dtype) if !dtype.is_float() && value.abs() < 9e15 => Some((*value as i64).into()),
            Self::Cast(DType::I64 | DType::I32, inner) => inner.as_affine(),
            Self::Binary(BinaryOp::Add, a, b) => Some(a.as_affine()?.plus(&b.as_affine()?)),
            Self::Binary(BinaryOp::Sub, a, b) => Some(a.as_affine()?.plus(&b.as_affine()?.times(&Expr::from(-1)))),
            Self::Binary(BinaryOp::Mul, a, b) => {
                let (a, b) = (a.as_affine()?, b.as_affine()?);
                match (a.as_expr(), b.as_expr()) {
                    (Some(factor), _) => Some(b.times(factor)),
                    (_, Some(factor)) => Some(a.times(factor)),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// Calls `f` for every index sum, nested ones included.
    pub(super) fn visit(&self, f: &mut dyn FnMut(&Affine)) {
        match self {
            Self::Load(_, index) | Self::Weight(_, index) | Self::Index(index, _) | Self::InRange(index, ..) => index.visit(f),
            Self::Const(..) | Self::Reduced => {}
            Self::Unary(_, x) | Self::Cast(_, x) => x.visit(f),
            Self::Binary(_, a, b) => {
                a.visit(f);
                b.visit(f);
            }
            Self::Select(c, a, b) => {
                c.visit(f);
                a.visit(f);
                b.visit(f);
            }
        }
    }

    /// Replaces loop variables as [`Affine::rename`] does.
    pub(super) fn rename(&self, f: &dyn Fn(&Atom) -> Option<Atom>) -> Self {
        let inner = |x: &Self| Box::new(x.rename(f));
        match self {
            Self::Load(value, index) => Self::Load(*value, index.rename(f)),
            Self::Weight(value, index) => Self::Weight(*value, index.rename(f)),
            Self::Index(index, dtype) => Self::Index(index.rename(f), *dtype),
            Self::InRange(index, low, high) => Self::InRange(index.rename(f), *low, high.clone()),
            Self::Const(..) | Self::Reduced => self.clone(),
            Self::Unary(op, x) => Self::Unary(*op, inner(x)),
            Self::Cast(dtype, x) => Self::Cast(*dtype, inner(x)),
            Self::Binary(op, a, b) => Self::Binary(*op, inner(a), inner(b)),
            Self::Select(c, a, b) => Self::Select(inner(c), inner(a), inner(b)),
        }
    }
}
