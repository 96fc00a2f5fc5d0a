//! Sizes of a port's dimensions at given values of the symbols.

use std::collections::BTreeMap;

use aotfarm_protocol::Dim;

/// The size of `dim` at `point`. An expression is a sum of products of symbols, integers and parentheses, with `//` or `/` for
/// division rounded down and `%` for its remainder.
pub(crate) fn size(dim: &Dim, point: &BTreeMap<String, i64>) -> Result<i64, String> {
    let text = match dim {
        Dim::Size(n) => return Ok(*n),
        Dim::Expr(text) => text,
    };
    let mut parser = Parser { rest: text.trim(), point, depth: 0 };
    let value = parser.sum().filter(|_| parser.rest.is_empty());
    value.filter(|v| *v >= 0).ok_or_else(|| format!("the dimension `{text}` has no size at {}", describe(point)))
}

/// `batch=8, seq=128`.
pub(crate) fn describe(point: &BTreeMap<String, i64>) -> String {
    if point.is_empty() {
        return "the only point".to_owned();
    }
    point.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(", ")
}

struct Parser<'a> {
    rest: &'a str,
    point: &'a BTreeMap<String, i64>,
    depth: u32,
}

impl Parser<'_> {
    fn take(&mut self, token: &str) -> bool {
        let Some(rest) = self.rest.strip_prefix(token) else { return false };
        self.rest = rest.trim_start();
        true
    }

    fn sum(&mut self) -> Option<i64> {
        let mut value = self.product()?;
        loop {
            if self.take("+") {
                value = value.checked_add(self.product()?)?;
            } else if self.take("-") {
                value = value.checked_sub(self.product()?)?;
            } else {
                return Some(value);
            }
        }
    }

    fn product(&mut self) -> Option<i64> {
        let mut value = self.atom()?;
        loop {
            if self.take("*") {
                value = value.checked_mul(self.atom()?)?;
            } else if self.take("//") || self.take("/") {
                value = value.checked_div_euclid(self.atom()?)?;
            } else if self.take("%") {
                value = value.checked_rem_euclid(self.atom()?)?;
            } else {
                return Some(value);
            }
        }
    }

    fn atom(&mut self) -> Option<i64> {
        if self.take("(") {
            self.depth += 1;
            let value = if self.depth <= 64 { self.sum() } else { None }?;
            self.depth -= 1;
            return self.take(")").then_some(value);
        }
        if self.take("-") {
            self.depth += 1;
            let value = if self.depth <= 64 { self.atom() } else { None }?;
            self.depth -= 1;
            return value.checked_neg();
        }
        let end = self.rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest.trim_start();
        word.parse().ok().or_else(|| self.point.get(word).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_evaluated_and_nonsense_refused() {
        let point = BTreeMap::from([("batch".to_owned(), 3), ("seq".to_owned(), 7)]);
        let at = |text: &str| size(&Dim::Expr(text.to_owned()), &point);
        for (text, value) in
            [("batch", 3), ("2*batch+1", 7), ("(seq - 1)//2", 3), ("seq % 4", 3), ("batch*(seq+1)", 24), (" -2 + batch ", 1)]
        {
            assert_eq!(at(text), Ok(value), "{text}");
        }
        for bad in
            ["", "tokens", "batch +", "(batch", "batch)", "seq//0", "batch - seq", "9223372036854775807*2", &"(".repeat(100_000)]
        {
            assert!(at(bad).is_err(), "{}", &bad[..bad.len().min(20)]);
        }
        assert_eq!(size(&Dim::Size(5), &point), Ok(5));
    }
}
