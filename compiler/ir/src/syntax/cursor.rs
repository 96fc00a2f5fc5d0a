//! A position in a line, and the small pieces that lines are made of.

use std::str::FromStr;

use aotfarm_protocol::DType;

use super::{TextError, is_plain};
use crate::{Expr, TensorType};

pub(crate) struct Cursor<'a> {
    line: &'a str,
    number: usize,
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(line: &'a str, number: usize) -> Self {
        Self { line, number, at: 0 }
    }

    pub(crate) fn error(&self, what: impl Into<String>) -> TextError {
        self.error_at(self.at, what)
    }

    pub(crate) fn error_at(&self, at: usize, what: impl Into<String>) -> TextError {
        TextError { line: self.number, column: self.line[..at].chars().count() + 1, what: what.into() }
    }

    /// The byte offset of the next token, for [`Cursor::error_at`].
    pub(crate) fn mark(&mut self) -> usize {
        self.space();
        self.at
    }

    pub(crate) fn rest(&self) -> &'a str {
        &self.line[self.at..]
    }

    fn space(&mut self) {
        self.at = self.line.len() - self.rest().trim_start().len();
    }

    pub(crate) fn peek(&mut self, token: &str) -> bool {
        self.space();
        self.rest().starts_with(token)
    }

    pub(crate) fn eat(&mut self, token: &str) -> bool {
        let found = self.peek(token);
        if found {
            self.at += token.len();
        }
        found
    }

    pub(crate) fn expect(&mut self, token: &str) -> Result<(), TextError> {
        if self.eat(token) { Ok(()) } else { Err(self.error(format!("expected `{token}`"))) }
    }

    pub(crate) fn end(&mut self) -> Result<(), TextError> {
        self.space();
        if self.rest().is_empty() { Ok(()) } else { Err(self.error("unexpected text")) }
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let text = self.rest();
        let length = text.find(|c| !wanted(c)).unwrap_or(text.len());
        self.at += length;
        &text[..length]
    }

    /// A word of letters, digits and `_`.
    pub(crate) fn word(&mut self) -> Result<&'a str, TextError> {
        self.space();
        let word = self.take_while(|c| c.is_ascii_alphanumeric() || c == '_');
        if word.is_empty() { Err(self.error("expected a word")) } else { Ok(word) }
    }

    /// The rest of the line, without surrounding space.
    pub(crate) fn tail(&mut self) -> &'a str {
        let tail = self.rest().trim();
        self.at = self.line.len();
        tail
    }

    /// A plain or quoted name.
    pub(crate) fn name(&mut self) -> Result<String, TextError> {
        self.space();
        if self.rest().starts_with('"') {
            return self.quoted();
        }
        let name = self.take_while(is_plain);
        if name.is_empty() { Err(self.error("expected a name")) } else { Ok(name.to_owned()) }
    }

    /// `%name`.
    pub(crate) fn value(&mut self) -> Result<String, TextError> {
        self.expect("%")?;
        if self.rest().starts_with(char::is_whitespace) {
            return Err(self.error("expected a name"));
        }
        self.name()
    }

    /// A string as `{:?}` prints it.
    pub(crate) fn quoted(&mut self) -> Result<String, TextError> {
        self.expect("\"")?;
        let mut text = String::new();
        loop {
            let c = self.character().ok_or_else(|| self.error("the string has no closing `\"`"))?;
            match c {
                '"' => return Ok(text),
                '\\' => {
                    let escape = self.character();
                    text.push(match escape {
                        Some('n') => '\n',
                        Some('r') => '\r',
                        Some('t') => '\t',
                        Some('0') => '\0',
                        Some(c @ ('\\' | '"' | '\'')) => c,
                        Some('u') => {
                            self.expect("{")?;
                            let digits = self.take_while(|c| c.is_ascii_hexdigit());
                            let c = u32::from_str_radix(digits, 16).ok().and_then(char::from_u32);
                            let c = c.ok_or_else(|| self.error("not a character"))?;
                            self.expect("}")?;
                            c
                        }
                        _ => return Err(self.error("unknown escape")),
                    });
                }
                c => text.push(c),
            }
        }
    }

    fn character(&mut self) -> Option<char> {
        let c = self.rest().chars().next()?;
        self.at += c.len_utf8();
        Some(c)
    }

    /// Text up to one of `ends` outside of brackets, parsed.
    pub(crate) fn until<T: FromStr>(&mut self, ends: &[char], what: &str) -> Result<T, TextError>
    where
        T::Err: ToString,
    {
        let start = self.mark();
        let text = self.until_text(ends).trim();
        text.parse()
            .map_err(|e: T::Err| self.error_at(start, format!("expected {what}, found `{}`: {}", shorten(text), e.to_string())))
    }

    /// Text up to one of `ends` outside of brackets.
    pub(crate) fn until_text(&mut self, ends: &[char]) -> &'a str {
        let text = self.rest();
        let mut depth = 0usize;
        let end = text.char_indices().find(|&(_, c)| {
            if depth == 0 && ends.contains(&c) {
                return true;
            }
            match c {
                '(' | '[' | '{' => depth += 1,
                ')' | ']' | '}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            false
        });
        let length = end.map_or(text.len(), |(i, _)| i);
        self.at += length;
        &text[..length]
    }

    /// `[a, b, …]`, each item read by `item`.
    pub(crate) fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Result<T, TextError>) -> Result<Vec<T>, TextError> {
        self.expect("[")?;
        let mut items = Vec::new();
        if self.eat("]") {
            return Ok(items);
        }
        loop {
            items.push(item(self)?);
            if self.eat("]") {
                return Ok(items);
            }
            self.expect(",")?;
        }
    }

    /// `f32[batch, 3]`.
    pub(crate) fn ty(&mut self) -> Result<TensorType, TextError> {
        let start = self.mark();
        let dtype: DType = self.word()?.parse().map_err(|e: String| self.error_at(start, e))?;
        let shape = self.list(|c| c.until::<Expr>(&[',', ']'], "a size"))?;
        Ok(TensorType { dtype, shape })
    }
}

fn shorten(text: &str) -> String {
    let short: String = text.chars().take(40).collect();
    if short.len() < text.len() { format!("{short}…") } else { short }
}
