//! The text form of [`Expr`]: Python's spelling and precedence (`*`, `//` and `%` bind alike, from the left).

use std::str::FromStr;

use super::{Expr, Sym};

/// Deepest nesting of parentheses: enough for anything printed, and far from the end of the stack.
const MAX_NESTING: usize = 128;

/// Why a text is not an expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} at character {at} of the expression `{text}`")]
pub struct ParseExprError {
    /// What is wrong.
    pub what: &'static str,
    /// Byte offset in the text.
    pub at: usize,
    /// The text, shortened.
    pub text: String,
}

impl FromStr for Expr {
    type Err = ParseExprError;

    fn from_str(text: &str) -> Result<Self, ParseExprError> {
        let mut parser = Parser { text, at: 0, nesting: 0 };
        let parsed = parser.sum().and_then(|expr| {
            parser.space();
            if parser.at < text.len() { Err("unexpected text") } else { Ok(expr) }
        });
        parsed.map_err(|what| ParseExprError { what, at: parser.at, text: text.chars().take(80).collect() })
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    nesting: usize,
}

impl Parser<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn eat(&mut self, token: &str) -> bool {
        self.space();
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &str {
        let start = self.at;
        self.at += self.rest().find(|c| !wanted(c)).unwrap_or(self.rest().len());
        &self.text[start..self.at]
    }

    fn sum(&mut self) -> Result<Expr, &'static str> {
        let mut sum = self.product()?;
        loop {
            if self.eat("+") {
                sum = sum + self.product()?;
            } else if self.eat("-") {
                sum = sum - self.product()?;
            } else {
                return Ok(sum);
            }
        }
    }

    fn product(&mut self) -> Result<Expr, &'static str> {
        let mut product = self.factor()?;
        loop {
            if self.eat("//") {
                product = product.floor_div(&self.factor()?);
            } else if self.eat("*") {
                product = product * self.factor()?;
            } else if self.eat("%") {
                product = product.modulo(&self.factor()?);
            } else {
                return Ok(product);
            }
        }
    }

    fn factor(&mut self) -> Result<Expr, &'static str> {
        let mut negative = false;
        while self.eat("-") {
            negative = !negative;
        }
        let value = self.primary()?;
        Ok(if negative { -value } else { value })
    }

    fn primary(&mut self) -> Result<Expr, &'static str> {
        self.space();
        match self.rest().chars().next() {
            Some('0'..='9') => {
                let start = self.at;
                let digits = self.take_while(|c| c.is_ascii_digit());
                digits.parse::<i64>().map(Expr::from).map_err(|_| start).map_err(|start| {
                    self.at = start;
                    "number beyond 64 bits"
                })
            }
            Some('(') => {
                self.at += 1;
                self.nested(Self::sum)
            }
            Some(c) if c.is_ascii_alphabetic() || c == '_' => {
                let name = self.take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.')).to_owned();
                match name.as_str() {
                    "max" if self.eat("(") => self.nested(|p| p.pair().map(|(a, b)| a.maximum(&b))),
                    "min" if self.eat("(") => self.nested(|p| p.pair().map(|(a, b)| a.minimum(&b))),
                    name => Ok(Sym::new(name).into()),
                }
            }
            Some(_) => Err("expected a number, a name or `(`"),
            None => Err("unexpected end"),
        }
    }

    fn pair(&mut self) -> Result<(Expr, Expr), &'static str> {
        let first = self.sum()?;
        if !self.eat(",") {
            return Err("expected `,`");
        }
        Ok((first, self.sum()?))
    }

    fn nested(&mut self, body: impl FnOnce(&mut Self) -> Result<Expr, &'static str>) -> Result<Expr, &'static str> {
        if self.nesting == MAX_NESTING {
            return Err("parentheses nested too deeply");
        }
        self.nesting += 1;
        let value = body(self)?;
        self.nesting -= 1;
        if self.eat(")") { Ok(value) } else { Err("expected `)`") }
    }
}
