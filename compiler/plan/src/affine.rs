//! Index arithmetic while a loop nest is being built: sums of loop variables with symbolic factors, kept free of divisions
//! where the ranges of the loops allow it; and the values that are computed at them. An index can be a value and a value is
//! read at indices, so both are here.

use aotfarm_ir::{BinaryOp, Expr, GraphDim, Number, UnaryOp, ValueId};
use aotfarm_protocol::DType;

/// What an index is made of.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Atom {
    /// Output loop k.
    Loop(usize),
    /// Reduction loop k.
    Reduce(usize),
    /// Quotient rounded down, by a positive size.
    Div(Box<Affine>, Expr),
    /// Non-negative remainder, by a positive size.
    Mod(Box<Affine>, Expr),
    /// An integer that is computed at run time.
    Value(Box<Term>),
}

/// `constant + Σ factor * atom`, atoms distinct, no factor zero.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Affine {
    terms: Vec<(Atom, Expr)>,
    constant: Expr,
}

/// The loops that indices range over.
#[derive(Debug, Clone, Default)]
pub(super) struct Ranges {
    /// Extents of the output loops.
    pub(super) loops: Vec<Expr>,
    /// Extents of the reduction loops.
    pub(super) reduce: Vec<Expr>,
    /// The model's symbols, for signs and bounds.
    pub(super) dims: Vec<GraphDim>,
}

impl From<Expr> for Affine {
    fn from(constant: Expr) -> Self {
        Self { terms: Vec::new(), constant }
    }
}

impl From<i64> for Affine {
    fn from(constant: i64) -> Self {
        Expr::from(constant).into()
    }
}

impl From<Atom> for Affine {
    fn from(atom: Atom) -> Self {
        Self { terms: vec![(atom, Expr::one())], constant: Expr::zero() }
    }
}

impl Affine {
    /// The summands other than the constant.
    pub(super) fn terms(&self) -> &[(Atom, Expr)] {
        &self.terms
    }

    /// The constant summand.
    pub(super) fn constant(&self) -> &Expr {
        &self.constant
    }

    /// The value, when it does not depend on any loop.
    pub(super) fn as_expr(&self) -> Option<&Expr> {
        self.terms.is_empty().then_some(&self.constant)
    }

    /// The atom, when this is nothing else.
    pub(super) fn as_atom(&self) -> Option<&Atom> {
        match self.terms.as_slice() {
            [(atom, factor)] if factor.as_const() == Some(1) && self.constant.as_const() == Some(0) => Some(atom),
            _ => None,
        }
    }

    /// The factor of an atom, zero when it does not occur.
    pub(super) fn factor(&self, atom: &Atom) -> Expr {
        self.terms.iter().find(|(a, _)| a == atom).map_or_else(Expr::zero, |(_, factor)| factor.clone())
    }

    fn push(&mut self, atom: &Atom, factor: &Expr) {
        if let Some(at) = self.terms.iter().position(|(a, _)| a == atom) {
            self.terms[at].1 = &self.terms[at].1 + factor;
            if self.terms[at].1.as_const() == Some(0) {
                self.terms.remove(at);
            }
        } else if factor.as_const() != Some(0) {
            self.terms.push((atom.clone(), factor.clone()));
        }
    }

    /// Sum.
    pub(super) fn plus(mut self, other: &Self) -> Self {
        for (atom, factor) in &other.terms {
            self.push(atom, factor);
        }
        self.constant = self.constant + &other.constant;
        self
    }

    /// Product with a size.
    pub(super) fn times(&self, factor: &Expr) -> Self {
        if factor.as_const() == Some(0) {
            return 0.into();
        }
        let terms = self.terms.iter().map(|(atom, f)| (atom.clone(), f * factor)).collect();
        Self { terms, constant: &self.constant * factor }
    }

    /// The quotient by a positive size, rounded down.
    pub(super) fn div(&self, by: &Expr, ranges: &Ranges) -> Self {
        let (whole, rest) = self.split(by);
        if rest.is_within(by, ranges) {
            return whole;
        }
        // (x / a) / b = x / (a b) for positive sizes.
        if let Some(Atom::Div(inner, first)) = rest.as_atom() {
            let quotient = inner.div(&(first * by), ranges);
            return whole.plus(&quotient);
        }
        whole.plus(&Atom::Div(Box::new(rest), by.clone()).into())
    }

    /// The non-negative remainder by a positive size.
    pub(super) fn modulo(&self, by: &Expr, ranges: &Ranges) -> Self {
        let (_, rest) = self.split(by);
        if rest.is_within(by, ranges) { rest } else { Atom::Mod(Box::new(rest), by.clone()).into() }
    }

    /// `self = by * whole + rest` with as much as possible in `whole`.
    fn split(&self, by: &Expr) -> (Self, Self) {
        let (mut whole, mut rest) = (Self::from(0), Self::from(0));
        for (atom, factor) in &self.terms {
            match factor.div_exact(by) {
                Some(quotient) => whole.push(atom, &quotient),
                None => rest.push(atom, factor),
            }
        }
        match (self.constant.as_const(), by.as_const(), self.constant.div_exact(by)) {
            (_, _, Some(quotient)) => whole.constant = quotient,
            // An axis without places is never gone through.
            (Some(c), Some(d), None) if d != 0 => {
                whole.constant = Expr::from(c.div_euclid(d));
                rest.constant = Expr::from(c.rem_euclid(d));
            }
            _ => rest.constant = self.constant.clone(),
        }
        (whole, rest)
    }

    /// Whether `0 ≤ self < size` for all values of the loops and symbols.
    pub(super) fn is_within(&self, size: &Expr, ranges: &Ranges) -> bool {
        self.range(ranges)
            .is_some_and(|(low, high)| low.bounds(&ranges.dims).0 >= 0 && (size - &high).bounds(&ranges.dims).0 >= 1)
    }

    /// Whether `self < low` or `self ≥ high` for all values of the loops and symbols.
    pub(super) fn is_outside(&self, low: i64, high: &Expr, ranges: &Ranges) -> bool {
        self.range(ranges)
            .is_some_and(|(least, most)| (&most - low).bounds(&ranges.dims).1 < 0 || (&least - high).bounds(&ranges.dims).0 >= 0)
    }

    /// The smallest and the largest value, when known.
    pub(super) fn range(&self, ranges: &Ranges) -> Option<(Expr, Expr)> {
        let (mut low, mut high) = (self.constant.clone(), self.constant.clone());
        for (atom, factor) in &self.terms {
            let (from, to) = atom.range(ranges)?;
            let (least, most) = factor.bounds(&ranges.dims);
            if least >= 0 {
                low = low + factor * from;
                high = high + factor * to;
            } else if most <= 0 {
                low = low + factor * to;
                high = high + factor * from;
            } else {
                return None;
            }
        }
        Some((low, high))
    }

    /// Calls `f` for this sum and every one nested in its atoms.
    pub(super) fn visit(&self, f: &mut dyn FnMut(&Self)) {
        f(self);
        for (atom, _) in &self.terms {
            match atom {
                Atom::Loop(_) | Atom::Reduce(_) => {}
                Atom::Div(inner, _) | Atom::Mod(inner, _) => inner.visit(f),
                Atom::Value(term) => term.visit(f),
            }
        }
    }

    /// Replaces loop variables, here and in nested atoms; `f` gives the new variable, or `None` for one that is always 0.
    pub(super) fn rename(&self, f: &dyn Fn(&Atom) -> Option<Atom>) -> Self {
        let mut renamed = Self::from(self.constant.clone());
        for (atom, factor) in &self.terms {
            let atom = match atom {
                Atom::Loop(_) | Atom::Reduce(_) => f(atom),
                Atom::Div(inner, by) => Some(Atom::Div(Box::new(inner.rename(f)), by.clone())),
                Atom::Mod(inner, by) => Some(Atom::Mod(Box::new(inner.rename(f)), by.clone())),
                Atom::Value(term) => Some(Atom::Value(Box::new(term.rename(f)))),
            };
            if let Some(atom) = atom {
                renamed.push(&atom, factor);
            }
        }
        renamed
    }
}

impl Atom {
    fn range(&self, ranges: &Ranges) -> Option<(Expr, Expr)> {
        match self {
            Self::Loop(k) => Some((Expr::zero(), &ranges.loops[*k] - 1)),
            Self::Reduce(k) => Some((Expr::zero(), &ranges.reduce[*k] - 1)),
            Self::Div(inner, by) => {
                let (low, high) = inner.range(ranges)?;
                Some((low.floor_div(by), high.floor_div(by)))
            }
            Self::Mod(_, by) => Some((Expr::zero(), by - 1)),
            Self::Value(_) => None,
        }
    }
}

/// Row-major position of `at` in `shape`.
pub(super) fn linear(shape: &[Expr], at: &[Affine]) -> Affine {
    let mut position = Affine::from(0);
    for (size, index) in shape.iter().zip(at) {
        position = position.times(size).plus(index);
    }
    position
}

/// The index in `shape` of a row-major position.
pub(super) fn unravel(shape: &[Expr], position: &Affine, ranges: &Ranges) -> Vec<Affine> {
    let mut rest = position.clone();
    let mut at = vec![Affine::from(0); shape.len()];
    // Sizes of 1 take nothing of the position; the outermost other one takes all that is left.
    let outermost = shape.iter().position(|size| size.as_const() != Some(1));
    for (axis, size) in shape.iter().enumerate().rev() {
        if Some(axis) == outermost {
            at[axis] = rest;
            break;
        }
        if size.as_const() != Some(1) {
            at[axis] = rest.modulo(size, ranges);
            rest = rest.div(size, ranges);
        }
    }
    at
}

/// The value of one element: [`crate::spec::Scalar`] with operands named by graph values and symbolic sizes.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Term {
    /// An element of a value's buffer.
    Load(ValueId, Affine),
    /// An element of a weight.
    Weight(ValueId, Affine),
    /// A constant.
    Const(Number, DType),
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
            Self::Const(value, dtype) if !dtype.is_float() && value.to_f64().abs() < 9e15 => Some(value.to_i64().into()),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(name: &str) -> GraphDim {
        GraphDim { sym: name.into(), min: 1, max: 32, hint: None }
    }

    fn ranges(loops: &[Expr]) -> Ranges {
        Ranges { loops: loops.to_vec(), reduce: vec![], dims: vec![batch("b"), batch("s")] }
    }

    fn loops(n: usize) -> Vec<Affine> {
        (0..n).map(|k| Atom::Loop(k).into()).collect()
    }

    #[test]
    fn a_reshape_that_merges_or_splits_whole_axes_needs_no_division() {
        let shape = [Expr::sym("b"), Expr::sym("s"), Expr::from(12), Expr::from(64)];
        let ranges = ranges(&shape);
        let merged = linear(&shape, &loops(4));
        let at = unravel(&[Expr::sym("b"), Expr::sym("s"), Expr::from(768)], &merged, &ranges);
        assert_eq!(at[0], Atom::Loop(0).into());
        assert_eq!(at[1], Atom::Loop(1).into());
        assert_eq!(at[2], Affine::from(Atom::Loop(2)).times(&Expr::from(64)).plus(&Atom::Loop(3).into()));
        assert_eq!(unravel(&shape, &merged, &ranges), loops(4));
    }

    #[test]
    fn a_merged_loop_is_divided() {
        let ranges = ranges(&[Expr::from(768)]);
        let at = unravel(&[Expr::from(12), Expr::from(64)], &Atom::Loop(0).into(), &ranges);
        assert_eq!(at[0], Atom::Div(Box::new(Atom::Loop(0).into()), Expr::from(64)).into());
        assert_eq!(at[1], Atom::Mod(Box::new(Atom::Loop(0).into()), Expr::from(64)).into());
    }

    #[test]
    fn negative_offsets_keep_floor_semantics() {
        let ranges = ranges(&[Expr::from(8)]);
        let index = Affine::from(Atom::Loop(0)).plus(&(-1).into());
        assert!(!index.is_within(&Expr::from(8), &ranges));
        assert!(matches!(index.div(&Expr::from(8), &ranges).terms(), [(Atom::Div(..), _)]));
        assert!(index.plus(&9.into()).is_outside(0, &Expr::from(8), &ranges));
    }
}
