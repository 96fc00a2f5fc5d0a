//! Ranges of symbolic dimensions that a request asks for, in place of the export's.

use aotfarm_ir::{Graph, VerifyError, verify};
use aotfarm_protocol::DimRange;

/// Why a graph cannot have such ranges.
#[derive(Debug, thiserror::Error)]
pub enum RangeError {
    /// It has no such dimension.
    #[error("the graph `{graph}` has no symbolic dimension `{}`", name.escape_default())]
    NoDimension {
        /// The graph's name.
        graph: String,
        /// The one that was asked for.
        name: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// It is not valid with them.
    #[error(transparent)]
    Invalid(#[from] VerifyError),
}

impl RangeError {
    /// What to ask for instead.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoDimension { known, .. } if known.is_empty() => Some("it has none".to_owned()),
            Self::NoDimension { known, .. } => Some(format!("it has {}", known.join(", "))),
            Self::Invalid(_) => None,
        }
    }
}

/// The graph with these ranges of its symbolic dimensions. A typical size that is out of a new range
/// is forgotten.
///
/// # Errors
/// When the graph has no such dimension, or is not valid with the range.
pub fn with_ranges(mut graph: Graph, ranges: &[DimRange]) -> Result<Graph, RangeError> {
    for range in ranges {
        let Some(dim) = graph.dims.iter_mut().find(|d| d.sym.as_str() == range.name) else {
            let known = graph.dims.iter().map(|d| d.sym.as_str().to_owned()).collect();
            return Err(RangeError::NoDimension { graph: graph.name, name: range.name.clone(), known });
        };
        (dim.min, dim.max) = (range.min, range.max);
        dim.hint = dim.hint.filter(|h| (range.min..=range.max).contains(h));
    }
    if !ranges.is_empty() {
        verify(&graph)?;
    }
    Ok(graph)
}
