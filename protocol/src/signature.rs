//! How a caller of the exported program nests what it passes and what it gets back.

use serde::{Deserialize, Serialize};

/// What the arguments and the result of a model look like to the program that it was exported from.
/// An artifact takes and gives flat lists of tensors; this says which of them goes where.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Signature {
    /// The arguments in order, keyword arguments last.
    pub arguments: Vec<NamedArgument>,
    /// What a call returns. Its [`Nested::Tensor`]s are outputs.
    pub result: Nested,
}

/// An argument of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct NamedArgument {
    /// Its name; empty if the export kept none.
    pub name: String,
    /// What is passed. Its [`Nested::Tensor`]s are inputs; all other leaves were made constants by the export.
    pub value: Nested,
}

/// A value with tensors in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Nested {
    /// The input or output of this position.
    Tensor(usize),
    /// Python's None.
    None,
    /// A boolean.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A floating-point number.
    Float(f64),
    /// A text.
    Text(String),
    /// An integer that follows from the symbolic dimensions, as an expression in them: `2*batch`.
    Size(String),
    /// A tuple.
    Tuple(Vec<Nested>),
    /// A list.
    List(Vec<Nested>),
    /// A dictionary, in its order.
    Dict(Vec<(String, Nested)>),
    /// A type of the program's own, such as a cache.
    Other {
        /// Its name in torch's register of such types.
        kind: String,
        /// What torch keeps of it beside its items, as text.
        context: String,
        /// What it holds.
        items: Vec<Nested>,
    },
}

impl Nested {
    /// The positions of the tensors in it, in order.
    pub fn tensors(&self) -> Box<dyn Iterator<Item = usize> + '_> {
        match self {
            Self::Tensor(at) => Box::new(std::iter::once(*at)),
            Self::Tuple(items) | Self::List(items) | Self::Other { items, .. } => Box::new(items.iter().flat_map(Self::tensors)),
            Self::Dict(items) => Box::new(items.iter().flat_map(|(_, item)| item.tensors())),
            Self::None | Self::Bool(_) | Self::Int(_) | Self::Float(_) | Self::Text(_) | Self::Size(_) => {
                Box::new(std::iter::empty())
            }
        }
    }
}
