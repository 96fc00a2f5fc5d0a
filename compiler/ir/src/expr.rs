//! Integer expressions over the symbolic dimensions of a model, kept in one canonical form so that equal sizes compare equal.
//!
//! An [`Expr`] is a sum of products of symbols and of the atoms `a//b`, `a % b`, `max(a, b)` and `min(a, b)`. What does not fit
//! (a coefficient beyond i64, an expression of absurd size) becomes [`Expr::overflow`], which poisons everything computed from it
//! and evaluates to an error: arithmetic on sizes from an untrusted file neither panics nor grows without end.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::iter::{Product, Sum};
use std::ops::{Add, Mul, Neg, Sub};
use std::sync::{Arc, LazyLock};

use super::{Bindings, GraphDim, Sym};

/// Most nodes that an expression may have, nested atoms included. Sizes of real models have a few; this keeps the quadratic steps quick.
const MAX_NODES: usize = 512;
/// Deepest nesting of atoms.
const MAX_DEPTH: usize = 48;

/// Why an expression has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// A symbol without a value.
    #[error("the dimension `{0}` has no value")]
    Unbound(Sym),
    /// Beyond 64 bits.
    #[error("the size `{0}` does not fit 64 bits")]
    Overflow(String),
    /// Division by zero.
    #[error("the size `{0}` divides by zero")]
    DivisionByZero(String),
}

/// A factor of a product.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Atom {
    Sym(Sym),
    FloorDiv(Expr, Expr),
    Mod(Expr, Expr),
    Max(Expr, Expr),
    Min(Expr, Expr),
}

/// `coefficient * factors[0] * factors[1] * …`; no factors for the constant.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Term {
    factors: Vec<Atom>,
    coefficient: i64,
}

#[derive(PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Inner {
    /// Non-zero coefficients, distinct sorted factors; products of more factors first, so that the constant is last.
    terms: Vec<Term>,
    // Derived from `terms`, kept to bound them in constant time.
    nodes: usize,
    depth: usize,
}

/// An integer expression in canonical form. Cheap to clone; equal expressions of sums and products are equal values.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Expr(Arc<Inner>);

/// The C functions that [`Expr::to_c`] calls.
pub const EXPR_C_HELPERS: &str = "\
static inline int64_t aot_floordiv(int64_t a, int64_t b) { int64_t q = a / b; return q - ((a % b != 0) && ((a < 0) != (b < 0))); }
static inline int64_t aot_mod(int64_t a, int64_t b) { return a - aot_floordiv(a, b) * b; }
static inline int64_t aot_max(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t aot_min(int64_t a, int64_t b) { return a < b ? a : b; }
";

impl Atom {
    fn nested(&self) -> Option<(&Expr, &Expr)> {
        match self {
            Self::Sym(_) => None,
            Self::FloorDiv(a, b) | Self::Mod(a, b) | Self::Max(a, b) | Self::Min(a, b) => Some((a, b)),
        }
    }
}

impl Expr {
    /// The constant 0.
    pub fn zero() -> Self {
        Self::from(0)
    }

    /// The constant 1.
    pub fn one() -> Self {
        Self::from(1)
    }

    /// A symbol.
    pub fn sym(name: &str) -> Self {
        Self::from(Sym::new(name))
    }

    /// What does not fit: it has no constant value, no bounds, and evaluates to [`EvalError::Overflow`]. Printed as 2⁶³-1.
    pub fn overflow() -> Self {
        static OVERFLOW: LazyLock<Expr> = LazyLock::new(|| {
            Expr(Arc::new(Inner { terms: vec![Term { factors: vec![], coefficient: i64::MAX }], nodes: 1, depth: 0 }))
        });
        OVERFLOW.clone()
    }

    /// Whether this is [`Expr::overflow`].
    pub fn is_overflow(&self) -> bool {
        matches!(self.0.terms.as_slice(), [Term { factors, coefficient: i64::MAX }] if factors.is_empty())
    }

    fn from_map(map: BTreeMap<(Reverse<usize>, Vec<Atom>), i128>) -> Self {
        let mut terms = Vec::with_capacity(map.len());
        let (mut nodes, mut depth) = (0usize, 0usize);
        for ((_, factors), coefficient) in map {
            if coefficient == 0 {
                continue;
            }
            match i64::try_from(coefficient) {
                Ok(coefficient) if coefficient > -i64::MAX && coefficient < i64::MAX => {
                    nodes += 1 + factors.len();
                    for (a, b) in factors.iter().filter_map(Atom::nested) {
                        nodes += a.0.nodes + b.0.nodes;
                        depth = depth.max(1 + a.0.depth.max(b.0.depth));
                    }
                    terms.push(Term { factors, coefficient });
                }
                _ => return Self::overflow(),
            }
        }
        if nodes > MAX_NODES || depth > MAX_DEPTH {
            return Self::overflow();
        }
        Self(Arc::new(Inner { terms, nodes, depth }))
    }

    fn from_terms(terms: impl IntoIterator<Item = (Vec<Atom>, i128)>) -> Self {
        let mut map = BTreeMap::new();
        for (factors, coefficient) in terms {
            *map.entry((Reverse(factors.len()), factors)).or_insert(0i128) += coefficient;
        }
        Self::from_map(map)
    }

    fn atom(atom: Atom) -> Self {
        Self::from_terms([(vec![atom], 1)])
    }

    fn terms(&self) -> impl Iterator<Item = (&[Atom], i128)> {
        self.0.terms.iter().map(|t| (t.factors.as_slice(), i128::from(t.coefficient)))
    }

    fn add_scaled(&self, other: &Self, factor: i128) -> Self {
        if self.is_overflow() || other.is_overflow() {
            return Self::overflow();
        }
        Self::from_terms(self.terms().map(|(f, c)| (f.to_vec(), c)).chain(other.terms().map(|(f, c)| (f.to_vec(), c * factor))))
    }

    fn product(&self, other: &Self) -> Self {
        if self.is_overflow() || other.is_overflow() || self.0.terms.len() * other.0.terms.len() > MAX_NODES {
            return Self::overflow();
        }
        let mut products = Vec::new();
        for (fa, ca) in self.terms() {
            for (fb, cb) in other.terms() {
                let mut factors = [fa, fb].concat();
                factors.sort();
                products.push((factors, ca * cb));
            }
        }
        // i128 holds every product of two i64, but a sum of thousands of them could pass it only beyond 2^126 * 2: clamp first.
        const LIMIT: i128 = 1 << 100;
        if products.iter().any(|(_, c)| c.abs() > LIMIT) {
            return Self::overflow();
        }
        Self::from_terms(products)
    }

    /// The value, if there are no symbols.
    pub fn as_const(&self) -> Option<i64> {
        match self.0.terms.as_slice() {
            [] => Some(0),
            [t] if t.factors.is_empty() && !self.is_overflow() => Some(t.coefficient),
            _ => None,
        }
    }

    /// The symbol, if this is just one.
    pub fn as_sym(&self) -> Option<&Sym> {
        match self.0.terms.as_slice() {
            [Term { factors, coefficient: 1 }] => match factors.as_slice() {
                [Atom::Sym(sym)] => Some(sym),
                _ => None,
            },
            _ => None,
        }
    }

    /// The symbol, factor and summand, if this is `factor * symbol + summand` with a positive factor: a size that tells its symbol.
    pub fn affine(&self) -> Option<(&Sym, i64, i64)> {
        let (linear, summand) = match self.0.terms.as_slice() {
            [linear] => (linear, 0),
            [linear, constant] if constant.factors.is_empty() => (linear, constant.coefficient),
            _ => return None,
        };
        match linear.factors.as_slice() {
            [Atom::Sym(sym)] if linear.coefficient > 0 => Some((sym, linear.coefficient, summand)),
            _ => None,
        }
    }

    /// `self / divisor` rounded toward minus infinity. Division by the constant 0 stays as written and fails in [`Expr::eval`].
    pub fn floor_div(&self, divisor: &Self) -> Self {
        if self.is_overflow() || divisor.is_overflow() {
            return Self::overflow();
        }
        let Some(b) = divisor.as_const() else {
            return self.div_exact(divisor).unwrap_or_else(|| Self::atom(Atom::FloorDiv(self.clone(), divisor.clone())));
        };
        match b {
            0 => return Self::atom(Atom::FloorDiv(self.clone(), divisor.clone())),
            1 => return self.clone(),
            b if b < 0 => return (-self).floor_div(&-divisor),
            _ => {}
        }
        // (b q + r) // b = q + r // b, term by term, so that every coefficient left inside is in 1..b.
        let b = i128::from(b);
        let whole = Self::from_terms(self.terms().map(|(f, c)| (f.to_vec(), c.div_euclid(b))));
        let rest = Self::from_terms(self.terms().map(|(f, c)| (f.to_vec(), c.rem_euclid(b))));
        if rest.as_const().is_some() {
            return whole;
        }
        // (g p + c) // (g m) = (p + c // g) // m.
        let g = rest.terms().filter(|(f, _)| !f.is_empty()).fold(b, |g, (_, c)| gcd(g, c));
        if g > 1 {
            let reduced = Self::from_terms(rest.terms().map(|(f, c)| (f.to_vec(), c.div_euclid(g))));
            return whole + reduced.floor_div(&Self::from_terms([(vec![], b / g)]));
        }
        // (p // m) // b = p // (m b) for positive m.
        if let [Term { factors, coefficient: 1 }] = rest.0.terms.as_slice()
            && let [Atom::FloorDiv(p, m)] = factors.as_slice()
            && m.as_const().is_some_and(|m| m > 0)
        {
            return whole + p.floor_div(&(m * divisor));
        }
        whole + Self::atom(Atom::FloorDiv(rest, divisor.clone()))
    }

    /// `self - divisor * (self // divisor)`: the remainder with the divisor's sign.
    pub fn modulo(&self, divisor: &Self) -> Self {
        if self.is_overflow() || divisor.is_overflow() {
            return Self::overflow();
        }
        let Some(b) = divisor.as_const() else {
            return match self.div_exact(divisor) {
                Some(_) => Self::zero(),
                None => Self::atom(Atom::Mod(self.clone(), divisor.clone())),
            };
        };
        match b {
            0 => return Self::atom(Atom::Mod(self.clone(), divisor.clone())),
            b if b < 0 => return -(-self).modulo(&-divisor),
            _ => {}
        }
        let b = i128::from(b);
        let rest = Self::from_terms(self.terms().map(|(f, c)| (f.to_vec(), c.rem_euclid(b))));
        if rest.as_const().is_some() {
            return rest;
        }
        // (g p + c) % (g m) = g ((p + c // g) % m) + c % g.
        let g = rest.terms().filter(|(f, _)| !f.is_empty()).fold(b, |g, (_, c)| gcd(g, c));
        if g > 1 {
            let constant = rest.terms().find(|(f, _)| f.is_empty()).map_or(0, |(_, c)| c);
            let reduced = Self::from_terms(rest.terms().map(|(f, c)| (f.to_vec(), c.div_euclid(g))));
            let g_expr = Self::from_terms([(vec![], g)]);
            return reduced.modulo(&Self::from_terms([(vec![], b / g)])) * g_expr + Self::from_terms([(vec![], constant % g)]);
        }
        Self::atom(Atom::Mod(rest, divisor.clone()))
    }

    /// The larger (not `max`, which [`Ord`] takes for the order of the canonical forms).
    pub fn maximum(&self, other: &Self) -> Self {
        self.pick(other, Ordering::Greater)
    }

    /// The smaller.
    pub fn minimum(&self, other: &Self) -> Self {
        self.pick(other, Ordering::Less)
    }

    fn pick(&self, other: &Self, wanted: Ordering) -> Self {
        let difference = self - other;
        if difference.is_overflow() {
            return Self::overflow();
        }
        if let Some(d) = difference.as_const() {
            return if d.cmp(&0) == wanted { self.clone() } else { other.clone() };
        }
        let (a, b) = if self <= other { (self.clone(), other.clone()) } else { (other.clone(), self.clone()) };
        Self::atom(if wanted == Ordering::Greater { Atom::Max(a, b) } else { Atom::Min(a, b) })
    }

    /// The quotient, when `self` is `divisor` times an expression: `32*batch*128 / 128`, `(a*b + a) / (b + 1)`.
    pub fn div_exact(&self, divisor: &Self) -> Option<Self> {
        if self.is_overflow() || divisor.is_overflow() {
            return None;
        }
        // Long division by the leading term; each step removes the leading term of the rest, or there is no quotient.
        let lead = divisor.0.terms.first()?;
        let (mut rest, mut quotient) = (self.clone(), Self::zero());
        for _ in 0..=MAX_NODES {
            let Some(term) = rest.0.terms.first() else { return Some(quotient) };
            if term.coefficient % lead.coefficient != 0 {
                return None;
            }
            let mut factors = term.factors.clone();
            for factor in &lead.factors {
                let at = factors.iter().position(|f| f == factor)?;
                factors.remove(at);
            }
            let step = Self::from_terms([(factors, i128::from(term.coefficient / lead.coefficient))]);
            let next = &rest - &(&step * divisor);
            // Products order by degree and then by name; a step that does not lower the leading term cannot end.
            if next.is_overflow() || next.0.terms.iter().any(|t| t.factors == term.factors) {
                return None;
            }
            quotient = quotient + step;
            rest = next;
        }
        None
    }

    /// The value with the symbols bound. Every step is checked.
    pub fn eval(&self, bindings: &Bindings) -> Result<i64, EvalError> {
        let overflow = || EvalError::Overflow(self.to_string());
        if self.is_overflow() {
            return Err(overflow());
        }
        let mut sum = 0i64;
        for term in &self.0.terms {
            let mut product = term.coefficient;
            for factor in &term.factors {
                let value = match factor {
                    Atom::Sym(sym) => bindings.get(sym.as_str()).ok_or_else(|| EvalError::Unbound(sym.clone()))?,
                    Atom::Max(a, b) => a.eval(bindings)?.max(b.eval(bindings)?),
                    Atom::Min(a, b) => a.eval(bindings)?.min(b.eval(bindings)?),
                    Atom::FloorDiv(a, b) | Atom::Mod(a, b) => {
                        let (a, b) = (a.eval(bindings)?, b.eval(bindings)?);
                        if b == 0 {
                            return Err(EvalError::DivisionByZero(self.to_string()));
                        }
                        let (quotient, rest) = floor_div_mod(a, b).ok_or_else(overflow)?;
                        if matches!(factor, Atom::FloorDiv(..)) { quotient } else { rest }
                    }
                };
                product = product.checked_mul(value).ok_or_else(overflow)?;
            }
            sum = sum.checked_add(product).ok_or_else(overflow)?;
        }
        Ok(sum)
    }

    /// Replaces the symbols for which `f` gives an expression.
    pub fn substitute(&self, f: &dyn Fn(&Sym) -> Option<Self>) -> Self {
        if self.is_overflow() {
            return self.clone();
        }
        self.0
            .terms
            .iter()
            .map(|term| {
                let factors = term.factors.iter().map(|factor| match factor {
                    Atom::Sym(sym) => f(sym).unwrap_or_else(|| Self::from(sym.clone())),
                    Atom::FloorDiv(a, b) => a.substitute(f).floor_div(&b.substitute(f)),
                    Atom::Mod(a, b) => a.substitute(f).modulo(&b.substitute(f)),
                    Atom::Max(a, b) => a.substitute(f).maximum(&b.substitute(f)),
                    Atom::Min(a, b) => a.substitute(f).minimum(&b.substitute(f)),
                });
                Self::from(term.coefficient) * factors.product::<Self>()
            })
            .sum()
    }

    /// The symbols that occur.
    pub fn symbols(&self) -> BTreeSet<Sym> {
        let mut found = BTreeSet::new();
        self.collect_symbols(&mut found);
        found
    }

    fn collect_symbols(&self, found: &mut BTreeSet<Sym>) {
        for factor in self.0.terms.iter().flat_map(|t| &t.factors) {
            match factor {
                Atom::Sym(sym) => _ = found.insert(sym.clone()),
                Atom::FloorDiv(a, b) | Atom::Mod(a, b) | Atom::Max(a, b) | Atom::Min(a, b) => {
                    a.collect_symbols(found);
                    b.collect_symbols(found);
                }
            }
        }
    }

    /// A lower and an upper bound for symbols within their ranges, by interval arithmetic: never too narrow, not always tight.
    /// `i64::MIN` and `i64::MAX` stand for "no bound" (unknown symbols, possible overflow or division by zero).
    pub fn bounds(&self, dims: &[GraphDim]) -> (i64, i64) {
        let (low, high) = self.refined(dims, 6);
        (i64::try_from(low).unwrap_or(i64::MIN), i64::try_from(high).unwrap_or(i64::MAX))
    }

    /// The interval, narrowed where an atom that stands alone in its term is tied to the rest, as in `n - min(n, 8)` or `n - n//2`.
    fn refined(&self, dims: &[GraphDim], budget: u32) -> (i128, i128) {
        let (mut low, mut high) = self.interval(dims);
        if budget == 0 || self.is_overflow() {
            return (low, high);
        }
        for term in &self.0.terms {
            let [atom] = term.factors.as_slice() else { continue };
            let c = i128::from(term.coefficient);
            let rest = self.add_scaled(&Self::from_terms([(term.factors.clone(), c)]), -1);
            let with = |e: &Self| rest.add_scaled(e, c).refined(dims, budget - 1);
            match atom {
                Atom::Max(a, b) | Atom::Min(a, b) => {
                    // c max(a, b) is the larger of c a and c b for positive c, and the smaller for negative c.
                    let (a, b) = (with(a), with(b));
                    let larger = matches!(atom, Atom::Max(..)) == (c > 0);
                    let pick = if larger { i128::max } else { i128::min };
                    (low, high) = (low.max(pick(a.0, b.0)), high.min(pick(a.1, b.1)));
                }
                Atom::FloorDiv(p, m) => {
                    // m (p // m) lies in p - m + 1 ..= p.
                    let Some(m) = m.as_const().filter(|m| *m > 0).map(i128::from) else { continue };
                    let scaled = Self::zero().add_scaled(&rest, m).add_scaled(p, c).refined(dims, budget - 1);
                    let slack = c * (m - 1);
                    let (least, most) = (scaled.0 - slack.max(0), scaled.1 - slack.min(0));
                    if scaled.0 > i128::from(i64::MIN) && scaled.1 < i128::from(i64::MAX) {
                        (low, high) = (low.max(-(-least).div_euclid(m)), high.min(most.div_euclid(m)));
                    }
                }
                Atom::Sym(_) | Atom::Mod(..) => continue,
            }
            break;
        }
        (low, high)
    }

    fn interval(&self, dims: &[GraphDim]) -> (i128, i128) {
        // Far outside i64, and small enough that the product of two ends fits i128.
        const END: i128 = 1 << 63;
        const UNKNOWN: (i128, i128) = (-END - 1, END);
        if self.is_overflow() {
            return UNKNOWN;
        }
        let clamp = |(low, high): (i128, i128)| if low < -END || high >= END { UNKNOWN } else { (low, high) };
        let times = |a: (i128, i128), b: (i128, i128)| {
            let ends = [a.0 * b.0, a.0 * b.1, a.1 * b.0, a.1 * b.1];
            let all = ends.iter().fold((i128::MAX, i128::MIN), |(l, h), &e| (l.min(e), h.max(e)));
            if a == UNKNOWN || b == UNKNOWN { UNKNOWN } else { clamp(all) }
        };
        let mut sum = (0i128, 0i128);
        for term in &self.0.terms {
            let c = i128::from(term.coefficient);
            let mut product = (c, c);
            for factor in &term.factors {
                let range = match factor {
                    Atom::Sym(sym) => {
                        dims.iter().find(|d| d.sym == *sym).map_or(UNKNOWN, |d| (i128::from(d.min), i128::from(d.max.max(d.min))))
                    }
                    Atom::Max(a, b) => {
                        let (a, b) = (a.interval(dims), b.interval(dims));
                        (a.0.max(b.0), a.1.max(b.1))
                    }
                    Atom::Min(a, b) => {
                        let (a, b) = (a.interval(dims), b.interval(dims));
                        (a.0.min(b.0), a.1.min(b.1))
                    }
                    Atom::FloorDiv(a, b) => match (a.interval(dims), b.interval(dims)) {
                        (a, b) if a == UNKNOWN || b == UNKNOWN || b.0 <= 0 => UNKNOWN,
                        (a, b) => {
                            let ends = [a.0.div_euclid(b.0), a.0.div_euclid(b.1), a.1.div_euclid(b.0), a.1.div_euclid(b.1)];
                            ends.iter().fold((i128::MAX, i128::MIN), |(l, h), &e| (l.min(e), h.max(e)))
                        }
                    },
                    Atom::Mod(a, b) => match (a.interval(dims), b.interval(dims)) {
                        (_, b) if b == UNKNOWN || b.0 <= 0 => UNKNOWN,
                        (a, b) if a.0 >= 0 => (0, a.1.min(b.1 - 1)),
                        (_, b) => (0, b.1 - 1),
                    },
                };
                product = times(product, range);
            }
            sum = if sum == UNKNOWN || product == UNKNOWN { UNKNOWN } else { clamp((sum.0 + product.0, sum.1 + product.1)) };
        }
        sum
    }

    /// A C expression of type `int64_t`; `f` spells each symbol (itself of type `int64_t`). Uses [`EXPR_C_HELPERS`].
    pub fn to_c(&self, f: &dyn Fn(&Sym) -> String) -> String {
        if self.0.terms.is_empty() {
            return "0".into();
        }
        let terms: Vec<String> = self
            .0
            .terms
            .iter()
            .map(|term| {
                let mut factors: Vec<String> = Vec::new();
                if term.coefficient != 1 || term.factors.is_empty() {
                    factors.push(if term.coefficient < 0 {
                        format!("({})", term.coefficient)
                    } else {
                        term.coefficient.to_string()
                    });
                }
                factors.extend(term.factors.iter().map(|factor| match factor {
                    Atom::Sym(sym) => f(sym),
                    Atom::FloorDiv(a, b) => format!("aot_floordiv({}, {})", a.to_c(f), b.to_c(f)),
                    Atom::Mod(a, b) => format!("aot_mod({}, {})", a.to_c(f), b.to_c(f)),
                    Atom::Max(a, b) => format!("aot_max({}, {})", a.to_c(f), b.to_c(f)),
                    Atom::Min(a, b) => format!("aot_min({}, {})", a.to_c(f), b.to_c(f)),
                }));
                factors.join("*")
            })
            .collect();
        if terms.len() == 1 { terms.join("") } else { format!("({})", terms.join(" + ")) }
    }
}

fn gcd(a: i128, b: i128) -> i128 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Quotient rounded down and remainder with the divisor's sign; `None` by zero, and beyond 64 bits.
fn floor_div_mod(a: i64, b: i64) -> Option<(i64, i64)> {
    let (quotient, rest) = (a.checked_div(b)?, a.checked_rem(b)?);
    Some(if rest != 0 && (rest < 0) != (b < 0) { (quotient - 1, rest + b) } else { (quotient, rest) })
}

impl From<i64> for Expr {
    /// A constant. `i64::MIN`, `-i64::MAX` and `i64::MAX` become [`Expr::overflow`]: bounds say by
    /// them that there is none.
    fn from(value: i64) -> Self {
        Self::from_terms([(vec![], i128::from(value))])
    }
}

impl From<Sym> for Expr {
    fn from(sym: Sym) -> Self {
        Self::atom(Atom::Sym(sym))
    }
}

impl From<&Sym> for Expr {
    fn from(sym: &Sym) -> Self {
        Self::atom(Atom::Sym(sym.clone()))
    }
}

impl From<&Expr> for Expr {
    fn from(expr: &Expr) -> Self {
        expr.clone()
    }
}

macro_rules! operator {
    ($trait:ident, $method:ident, |$a:ident, $b:ident| $body:expr) => {
        operator!(@ $trait, $method, Expr, Expr, |$a, $b| $body);
        operator!(@ $trait, $method, Expr, &Expr, |$a, $b| $body);
        operator!(@ $trait, $method, &Expr, Expr, |$a, $b| $body);
        operator!(@ $trait, $method, &Expr, &Expr, |$a, $b| $body);
        operator!(@ $trait, $method, Expr, i64, |$a, $b| $body);
        operator!(@ $trait, $method, &Expr, i64, |$a, $b| $body);
    };
    (@ $trait:ident, $method:ident, $left:ty, $right:ty, |$a:ident, $b:ident| $body:expr) => {
        impl $trait<$right> for $left {
            type Output = Expr;

            fn $method(self, other: $right) -> Expr {
                let ($a, $b) = (Expr::from(self), Expr::from(other));
                $body
            }
        }
    };
}

operator!(Add, add, |a, b| a.add_scaled(&b, 1));
operator!(Sub, sub, |a, b| a.add_scaled(&b, -1));
operator!(Mul, mul, |a, b| a.product(&b));

impl Neg for Expr {
    type Output = Expr;

    fn neg(self) -> Expr {
        Expr::zero().add_scaled(&self, -1)
    }
}

impl Neg for &Expr {
    type Output = Expr;

    fn neg(self) -> Expr {
        Expr::zero().add_scaled(self, -1)
    }
}

impl Sum for Expr {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::zero(), |a, b| a + b)
    }
}

impl Product for Expr {
    fn product<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::one(), |a, b| a * b)
    }
}

impl<'a> Product<&'a Expr> for Expr {
    fn product<I: Iterator<Item = &'a Expr>>(iter: I) -> Self {
        iter.fold(Self::one(), |a, b| a * b)
    }
}

/// An operand of `//` or `%`, in parentheses unless it is one symbol or one non-negative number.
struct Operand<'a>(&'a Expr);

impl fmt::Display for Operand<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.as_sym(), self.0.as_const()) {
            (None, None) | (None, Some(..=-1)) => write!(f, "({})", self.0),
            _ => write!(f, "{}", self.0),
        }
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.terms.is_empty() {
            return f.write_str("0");
        }
        for (i, term) in self.0.terms.iter().enumerate() {
            let magnitude = term.coefficient.unsigned_abs();
            f.write_str(match (i, term.coefficient < 0) {
                (0, false) => "",
                (0, true) => "-",
                (_, false) => " + ",
                (_, true) => " - ",
            })?;
            let alone = term.coefficient == 1 && term.factors.len() == 1;
            if magnitude != 1 || term.factors.is_empty() {
                write!(f, "{magnitude}")?;
            }
            for (k, factor) in term.factors.iter().enumerate() {
                if k > 0 || magnitude != 1 {
                    f.write_str("*")?;
                }
                match factor {
                    Atom::Sym(sym) => write!(f, "{sym}")?,
                    Atom::FloorDiv(a, b) if alone => write!(f, "{}//{}", Operand(a), Operand(b))?,
                    Atom::FloorDiv(a, b) => write!(f, "({}//{})", Operand(a), Operand(b))?,
                    Atom::Mod(a, b) if alone => write!(f, "{} % {}", Operand(a), Operand(b))?,
                    Atom::Mod(a, b) => write!(f, "({} % {})", Operand(a), Operand(b))?,
                    Atom::Max(a, b) => write!(f, "max({a}, {b})")?,
                    Atom::Min(a, b) => write!(f, "min({a}, {b})")?,
                }
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
#[path = "expr_tests.rs"]
mod tests;
