//! The attributes of a node, as text with places, and what an operator is read from.

use super::{Cursor, TextError};
use crate::{Expr, Number, TensorType};

/// The attributes of one node, as text with places.
pub(crate) struct Attributes<'a> {
    items: Vec<(&'a str, &'a str, usize)>,
}

impl<'a> Attributes<'a> {
    /// Reads `{key=value, flag, …}`, or nothing.
    pub(crate) fn read(cursor: &mut Cursor<'a>) -> Result<Self, TextError> {
        let mut items: Vec<(&str, &str, usize)> = Vec::new();
        if cursor.eat("{") && !cursor.eat("}") {
            loop {
                let key_at = cursor.mark();
                let key = cursor.word()?;
                if items.iter().any(|(k, ..)| *k == key) {
                    return Err(cursor.error_at(key_at, format!("`{key}` is given twice")));
                }
                let at = if cursor.eat("=") { cursor.mark() } else { key_at };
                let value = if at == key_at { "" } else { cursor.until_text(&[',', '}']).trim() };
                items.push((key, value, at));
                if cursor.eat("}") {
                    break;
                }
                cursor.expect(",")?;
            }
        }
        Ok(Self { items })
    }

    /// For reading the operator of a node with these attributes. `operands` and `result` are the types around it; `cursor` tells
    /// where the node is.
    pub(crate) fn of_node(self, cursor: &'a Cursor<'a>, operands: &'a [&'a TensorType], result: &'a TensorType) -> NodeText<'a> {
        NodeText { items: self.items, cursor, operands, result }
    }
}

/// What a node's operator is read from. Each attribute is taken once; [`NodeText::end`] refuses those that are left.
pub(crate) struct NodeText<'n> {
    items: Vec<(&'n str, &'n str, usize)>,
    cursor: &'n Cursor<'n>,
    /// The types of the operands.
    pub(crate) operands: &'n [&'n TensorType],
    /// The declared type of the result.
    pub(crate) result: &'n TensorType,
}

impl<'n> NodeText<'n> {
    /// An error about the whole node.
    pub(crate) fn error(&self, what: impl Into<String>) -> TextError {
        self.cursor.error(what)
    }

    /// Refuses what was not taken as an attribute of the operator `name`.
    pub(crate) fn end(&self, name: &str) -> Result<(), TextError> {
        match self.items.first() {
            Some((key, _, at)) => Err(self.cursor.error_at(*at, format!("`{name}` has no attribute `{key}`"))),
            None => Ok(()),
        }
    }

    fn take(&mut self, key: &str) -> Option<(&'n str, usize)> {
        let at = self.items.iter().position(|(k, ..)| *k == key)?;
        let (_, value, place) = self.items.remove(at);
        Some((value, place))
    }

    fn parsed<T>(
        &mut self,
        key: &str,
        default: Option<T>,
        parse: impl FnOnce(&str) -> Option<T>,
        what: &str,
    ) -> Result<T, TextError> {
        match (self.take(key), default) {
            (Some((text, at)), _) => parse(text).ok_or_else(|| self.cursor.error_at(at, format!("`{key}` must be {what}"))),
            (None, Some(default)) => Ok(default),
            (None, None) => Err(self.cursor.error(format!("the attribute `{key}` ({what}) is missing"))),
        }
    }

    pub(crate) fn int(&mut self, key: &str, default: Option<i64>) -> Result<i64, TextError> {
        self.parsed(key, default, |t| t.parse().ok(), "an integer")
    }

    pub(crate) fn index(&mut self, key: &str) -> Result<usize, TextError> {
        self.parsed(key, None, |t| t.parse().ok(), "a non-negative integer")
    }

    pub(crate) fn float(&mut self, key: &str) -> Result<f64, TextError> {
        self.parsed(key, None, |t| t.parse().ok(), "a number")
    }

    pub(crate) fn number(&mut self, key: &str, default: Option<Number>) -> Result<Number, TextError> {
        self.parsed(key, default, |t| t.parse().ok(), "a number")
    }

    pub(crate) fn expr(&mut self, key: &str) -> Result<Expr, TextError> {
        self.parsed(key, None, |t| t.parse().ok(), "an expression")
    }

    pub(crate) fn flag(&mut self, key: &str) -> Result<bool, TextError> {
        self.parsed(key, Some(false), |t| t.is_empty().then_some(true), "a flag without value")
    }

    pub(crate) fn axes(&mut self, key: &str) -> Result<Vec<usize>, TextError> {
        let parse = |t: &str| ints(t)?.into_iter().map(|n| usize::try_from(n).ok()).collect();
        self.parsed(key, None, parse, "a list of axes")
    }

    pub(crate) fn pair(&mut self, key: &str, default: Option<[i64; 2]>) -> Result<[i64; 2], TextError> {
        self.parsed(key, default, |t| ints(t)?.try_into().ok(), "a pair of integers")
    }

    pub(crate) fn pairs(&mut self, key: &str, default: Option<Vec<[i64; 2]>>) -> Result<Vec<[i64; 2]>, TextError> {
        let parse = |t: &str| {
            let mut list = Cursor::new(t, 0);
            let pairs = list.list(|c| c.list(|c| c.until::<i64>(&[',', ']'], "an integer"))).ok()?;
            list.end().ok()?;
            pairs.into_iter().map(|p| p.try_into().ok()).collect()
        };
        self.parsed(key, default, parse, "a list of pairs of integers")
    }
}

fn ints(text: &str) -> Option<Vec<i64>> {
    let mut cursor = Cursor::new(text, 0);
    let list = cursor.list(|c| c.until::<i64>(&[',', ']'], "an integer")).ok()?;
    cursor.end().ok().map(|()| list)
}
