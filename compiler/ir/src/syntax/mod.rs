//! The pieces that lines of the text form are made of, for `text` and for the attributes of operators.

mod attributes;
mod cursor;

pub(crate) use attributes::{Attributes, NodeText};
pub(crate) use cursor::Cursor;

/// Where a text is not a Graph, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {what}")]
pub struct TextError {
    /// From 1; 0 for what no line is to blame for.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// What is wrong.
    pub what: String,
}

/// Whether a name with this character needs no quotes for it.
pub(crate) fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | '-')
}
