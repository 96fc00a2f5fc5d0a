//! Dimensions of ports, and their sizes at a point.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One dimension of an input or output: a number, a symbol's name, or an expression in symbols as
/// text (`2*batch + 1`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum Dim {
    /// A constant size.
    Size(i64),
    /// A symbol or an expression.
    Expr(String),
}

/// A dimension that has no size at a point.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the dimension `{dim}` has no size at {point}: {why}")]
pub struct DimError {
    /// The expression.
    pub dim: String,
    /// The point, as [`point_text`] says it.
    pub point: String,
    /// What is wrong.
    pub why: &'static str,
}

impl Dim {
    /// The size at `point`, which holds the values of the symbols.
    ///
    /// An expression is what the compiler's `ir::Expr` prints: sums of products of names, integers,
    /// parentheses, `max(a, b)` and `min(a, b)`, with `//` rounded down and `%` with the divisor's
    /// sign, both of the precedence of `*`.
    ///
    /// # Errors For a symbol that the point does not hold, a text that is no expression, and a
    /// value that is negative or beyond 64 bits.
    pub fn at(&self, point: &BTreeMap<String, i64>) -> Result<i64, DimError> {
        let text = match self {
            Self::Size(n) => return Ok(*n),
            Self::Expr(text) => text,
        };
        let mut reader = Reader { rest: text.trim(), point, nesting: 0 };
        let size = reader.sum().and_then(|size| match reader.rest {
            "" if size < 0 => Err("it is negative"),
            "" => Ok(size),
            _ => Err(NO_EXPRESSION),
        });
        size.map_err(|why| DimError { dim: text.clone(), point: point_text(point), why })
    }
}

/// The values of symbols in words: `batch=8, seq=128`.
pub fn point_text(point: &BTreeMap<String, i64>) -> String {
    if point.is_empty() {
        return "the only point".to_owned();
    }
    point.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(", ")
}

/// Deepest nesting: enough for anything printed, and far from the end of the stack.
const MAX_NESTING: usize = 128;

const NO_EXPRESSION: &str = "it is no expression";
const TOO_LARGE: &str = "it does not fit 64 bits";

/// Evaluates a text while it reads it.
struct Reader<'a> {
    rest: &'a str,
    point: &'a BTreeMap<String, i64>,
    nesting: usize,
}

impl Reader<'_> {
    fn take(&mut self, token: &str) -> bool {
        let Some(rest) = self.rest.strip_prefix(token) else { return false };
        self.rest = rest.trim_start();
        true
    }

    fn sum(&mut self) -> Result<i64, &'static str> {
        let mut sum = self.product()?;
        loop {
            let next = if self.take("+") {
                sum.checked_add(self.product()?)
            } else if self.take("-") {
                sum.checked_sub(self.product()?)
            } else {
                return Ok(sum);
            };
            sum = next.ok_or(TOO_LARGE)?;
        }
    }

    fn product(&mut self) -> Result<i64, &'static str> {
        let mut product = self.factor()?;
        loop {
            let next = if self.take("*") {
                product.checked_mul(self.factor()?)
            } else if self.take("//") {
                floor_div_mod(product, self.factor()?)?.map(|(quotient, _)| quotient)
            } else if self.take("%") {
                floor_div_mod(product, self.factor()?)?.map(|(_, rest)| rest)
            } else {
                return Ok(product);
            };
            product = next.ok_or(TOO_LARGE)?;
        }
    }

    fn factor(&mut self) -> Result<i64, &'static str> {
        let mut negative = false;
        while self.take("-") {
            negative = !negative;
        }
        let value = self.primary()?;
        if negative { value.checked_neg().ok_or(TOO_LARGE) } else { Ok(value) }
    }

    fn primary(&mut self) -> Result<i64, &'static str> {
        if self.take("(") {
            return self.nested(Self::sum);
        }
        let end = self.rest.find(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '_' | '.')).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest.trim_start();
        match word {
            "" => Err(NO_EXPRESSION),
            "max" if self.take("(") => self.nested(|reader| reader.pair().map(|(a, b)| a.max(b))),
            "min" if self.take("(") => self.nested(|reader| reader.pair().map(|(a, b)| a.min(b))),
            number if number.bytes().all(|byte| byte.is_ascii_digit()) => number.parse().map_err(|_| TOO_LARGE),
            name => self.point.get(name).copied().ok_or("no such symbol is given"),
        }
    }

    fn pair(&mut self) -> Result<(i64, i64), &'static str> {
        let first = self.sum()?;
        if self.take(",") { Ok((first, self.sum()?)) } else { Err(NO_EXPRESSION) }
    }

    fn nested(&mut self, body: impl FnOnce(&mut Self) -> Result<i64, &'static str>) -> Result<i64, &'static str> {
        if self.nesting == MAX_NESTING {
            return Err("it is nested too deeply");
        }
        self.nesting += 1;
        let value = body(self)?;
        self.nesting -= 1;
        if self.take(")") { Ok(value) } else { Err(NO_EXPRESSION) }
    }
}

/// Quotient rounded down and remainder with the divisor's sign; `None` beyond 64 bits.
fn floor_div_mod(a: i64, b: i64) -> Result<Option<(i64, i64)>, &'static str> {
    if b == 0 {
        return Err("it divides by zero");
    }
    let (Some(quotient), Some(rest)) = (a.checked_div(b), a.checked_rem(b)) else { return Ok(None) };
    Ok(Some(if rest != 0 && (rest < 0) != (b < 0) { (quotient - 1, rest + b) } else { (quotient, rest) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_have_a_size_and_nonsense_has_none() {
        let point = BTreeMap::from([("batch".to_owned(), 3), ("seq".to_owned(), 7), ("x.0".to_owned(), 5)]);
        let at = |text: &str| Dim::Expr(text.to_owned()).at(&point).map_err(|e| e.why);
        for (text, value) in [
            ("batch", 3),
            ("2*batch + 1", 7),
            ("(seq - 1)//2", 3),
            ("seq % 4", 3),
            ("batch*(seq + 1)", 24),
            (" -2 + batch ", 1),
            ("x.0//2", 2),
            ("max(4, batch) + min(seq, max(x.0, 1))", 9),
            ("7 + (-seq)//2", 3),
            ("4 + (seq % (-4))", 3),
            ("--batch", 3),
        ] {
            assert_eq!(at(text), Ok(value), "{text}");
        }
        for text in ["", "batch +", "(batch", "batch)", "max(batch)", "max", "1/2", "é", "2 3", "()"] {
            assert!(at(text).is_err(), "{text}");
        }
        assert_eq!(at("tokens"), Err("no such symbol is given"));
        assert_eq!(at("seq//0"), Err("it divides by zero"));
        assert_eq!(at("batch - seq"), Err("it is negative"));
        assert_eq!(at("9223372036854775807*2"), Err(TOO_LARGE));
        assert_eq!(at("99999999999999999999"), Err(TOO_LARGE));
        assert_eq!(at(&"(".repeat(100_000)), Err("it is nested too deeply"));
        assert_eq!(at(&format!("{}1", "-".repeat(100_000))), Ok(1));
        assert_eq!(Dim::Size(5).at(&point), Ok(5));
        let error = Dim::Expr("tokens + 1".to_owned()).at(&point).unwrap_err();
        let said = "the dimension `tokens + 1` has no size at batch=3, seq=7, x.0=5: no such symbol is given";
        assert_eq!(error.to_string(), said);
    }
}
