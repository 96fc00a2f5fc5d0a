use std::fmt::Write;

use aotfarm_ir::BuildError;

/// An operator that the importer does not know.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnsupportedOp {
    /// Its name in the source format: `aten.fft_rfft.default`, `GridSample`.
    pub op: String,
    /// The nodes that use it, in file order.
    pub nodes: Vec<String>,
}

/// Why a file cannot be imported.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ImportError {
    /// The content is none of the supported formats.
    #[error("`{file}` is not a model: expected a .graph file, a .pt2 file of torch.export.save, or an .onnx file")]
    Unrecognised {
        /// The file's name.
        file: String,
    },
    /// The file is truncated or contradicts itself.
    #[error("the file is damaged: {what} ({place})")]
    Damaged {
        /// What is wrong.
        what: String,
        /// Where: an entry, a field, a byte offset.
        place: String,
    },
    /// A version of the format that is not supported.
    #[error("{format} {found} is not supported: {remedy}")]
    Version {
        /// The format: `torch.export schema`, `ONNX opset`.
        format: &'static str,
        /// The file's version.
        found: String,
        /// What to do.
        remedy: String,
    },
    /// Operators that the importer does not know: all of them, with every node.
    #[error("{}", unsupported_text(.ops))]
    Unsupported {
        /// By name.
        ops: Vec<UnsupportedOp>,
    },
    /// A known operator with arguments or a property that the importer cannot express.
    #[error("node `{node}`: {what}")]
    Node {
        /// The node and its operator: `conv2d_3: aten.conv2d.default`.
        node: String,
        /// What, and what to do about it.
        what: String,
    },
    /// Something valid that an artifact cannot do or the importer cannot express, outside of any node.
    #[error("{place}: {what}")]
    Refused {
        /// Where: the signature, an input, a weight.
        place: String,
        /// What, and what to do about it.
        what: String,
    },
    /// A shape rule or an invariant of the graph does not hold.
    #[error(transparent)]
    Graph(#[from] BuildError),
    /// Several of these, of different nodes, in file order.
    #[error("{} nodes cannot be imported:{}", .0.len(), lines(.0))]
    Several(Vec<ImportError>),
}

fn lines(errors: &[ImportError]) -> String {
    errors.iter().map(|error| format!("\n  {error}")).collect()
}

impl ImportError {
    /// [`ImportError::Damaged`].
    pub fn damaged(what: impl Into<String>, place: impl Into<String>) -> Self {
        Self::Damaged { what: what.into(), place: place.into() }
    }

    /// [`ImportError::Refused`].
    pub fn refused(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self::Refused { place: place.into(), what: what.into() }
    }

    /// [`ImportError::Unsupported`] from the `(operator, node)` pairs met, in any order; operators come sorted by name.
    pub fn unsupported(met: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut ops = std::collections::BTreeMap::<String, Vec<String>>::new();
        for (op, node) in met {
            ops.entry(op).or_default().push(node);
        }
        Self::Unsupported { ops: ops.into_iter().map(|(op, nodes)| UnsupportedOp { op, nodes }).collect() }
    }
}

/// What is wrong with the nodes of a file, each of which is told unless it reads the result of another that is.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    errors: Vec<ImportError>,
    /// Names of results that there are not.
    pub(crate) missing: std::collections::HashSet<String>,
}

impl Failures {
    /// Takes in what is wrong with a node, whose results have these names.
    pub(crate) fn add(&mut self, error: ImportError, results: impl IntoIterator<Item = String>) {
        self.errors.push(error);
        self.missing.extend(results);
    }

    /// Everything that is wrong, if anything is.
    pub(crate) fn finish(mut self) -> Result<(), ImportError> {
        match self.errors.len() {
            0 => Ok(()),
            1 => Err(self.errors.remove(0)),
            _ => Err(ImportError::Several(self.errors)),
        }
    }
}

fn unsupported_text(ops: &[UnsupportedOp]) -> String {
    let mut text = format!("{} unsupported operator{}:", ops.len(), if ops.len() == 1 { "" } else { "s" });
    for UnsupportedOp { op, nodes } in ops {
        let times = if nodes.len() == 1 { "node" } else { "nodes" };
        // Writing to a String cannot fail.
        let _ = write!(text, "\n  {op}: {} {times}: {}", nodes.len(), nodes.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_nodes_is_told_at_once() {
        let node = |name: &str| ImportError::Node { node: name.to_owned(), what: "no".to_owned() };
        let mut failures = Failures::default();
        assert_eq!(Failures::default().finish(), Ok(()));
        failures.add(node("a"), ["x".to_owned()]);
        failures.add(node("b"), []);
        assert!(failures.missing.contains("x"));
        assert_eq!(failures.finish().unwrap_err().to_string(), "2 nodes cannot be imported:\n  node `a`: no\n  node `b`: no");
    }

    #[test]
    fn every_unsupported_operator_is_listed_with_its_nodes() {
        let met = [("aten.b", "n1"), ("aten.a", "n2"), ("aten.b", "n3")].map(|(op, node)| (op.to_owned(), node.to_owned()));
        let error = ImportError::unsupported(met);
        assert_eq!(error.to_string(), "2 unsupported operators:\n  aten.a: 1 node: n2\n  aten.b: 2 nodes: n1, n3");
    }
}
