//! `.onnx` files: the standard operator set in versions 6 to 28, weights in the file or beside it.
//!
//! Exporters compute shapes in the graph (Shape, Gather, Concat, Reshape …). Small integer tensors are followed symbolically, so that
//! such arithmetic becomes expressions over the symbolic dimensions and leaves no nodes.

mod node;
mod ops;
mod proto;
mod scope;
mod tensor;

use std::collections::HashMap;

use prost::Message as _;

use aotfarm_ir::{BuildError, Builder, Expr, Graph, Sym, TensorType};

use self::node::NodeCall;
use self::proto::{DimensionValue, GraphProto, ModelProto, ValueInfoProto};
use self::scope::{Known, Scope};
use crate::error::{Failures, ImportError};
use crate::file::{External, SharedBytes};
use crate::semantics::{Equal, Refusal};
use crate::symbols::{Declared, Symbols};

/// Versions of the standard operator set that the mappings hold for.
const OPSETS: std::ops::RangeInclusive<i64> = 6..=28;

/// Reads an `.onnx` file; `name` is the model's.
pub fn read(file: &SharedBytes, name: &str, external: External<'_>) -> Result<Graph, ImportError> {
    let bytes = prost::bytes::Bytes::from_owner(Shared(file.clone()));
    let model = ModelProto::decode(bytes).map_err(|e| ImportError::damaged(e.to_string(), "the protobuf of the model"))?;
    let opset = model.opset_import.iter().find(|o| o.domain.is_empty() || o.domain == "ai.onnx").map(|o| o.version);
    let opset = match opset {
        Some(version) if OPSETS.contains(&version) => version,
        found => {
            return Err(ImportError::Version {
                format: "ONNX operator set",
                found: found.map_or("(none)".to_owned(), |v| v.to_string()),
                remedy: format!("export with opset_version between {} and {}", OPSETS.start(), OPSETS.end()),
            });
        }
    };
    let graph = model.graph.as_ref().ok_or_else(|| ImportError::damaged("it holds no graph", "the protobuf of the model"))?;
    let missing = graph.node.iter().filter(|n| ops::find(n).is_none());
    let missing: Vec<_> = missing.map(|n| (ops::qualified(n), label(n).to_owned())).collect();
    if !missing.is_empty() {
        return Err(ImportError::unsupported(missing));
    }
    let initializers: HashMap<_, _> = graph.initializer.iter().map(|t| (t.name.as_str(), t)).collect();
    let mut equal = HashMap::<Sym, Expr>::new();
    loop {
        let (known, absent) = (HashMap::new(), HashMap::new());
        let scope = Scope { external, opset, builder: Builder::new(name), known, initializers: initializers.clone(), absent };
        let symbols = Symbols::of_file(names(graph)).with_equal(equal.clone());
        match (Import { graph, scope, symbols }).run() {
            Ok(graph) => return Ok(graph),
            Err(Stop::Error(error)) => return Err(error),
            // Each round has fewer dimensions than the one before it.
            Err(Stop::Unequal(found)) => {
                for (sym, same) in found {
                    for other in equal.values_mut().filter(|other| other.as_sym() == Some(&sym)) {
                        *other = same.clone();
                    }
                    equal.insert(sym, same);
                }
            }
        }
    }
}

/// The names of the inputs' dimensions.
fn names(graph: &GraphProto) -> impl Iterator<Item = &str> {
    let shapes = graph.input.iter().filter_map(|input| input.r#type.as_ref()?.tensor_type.as_ref()?.shape.as_ref());
    shapes.flat_map(|shape| &shape.dim).filter_map(|dim| match &dim.value {
        Some(DimensionValue::Param(name)) => Some(name.as_str()),
        _ => None,
    })
}

/// Why an import does not come to its end.
enum Stop {
    /// The graph is refused.
    Error(ImportError),
    /// It makes sense only where these dimensions are equal to those sizes: it is to be read as if it said so.
    Unequal(Equal),
}

impl<E: Into<ImportError>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}

/// What torch's exporter calls the stack trace among the properties of a node.
const STACK_TRACE: &str = "pkg.torch.onnx.stack_trace";

/// The stack trace of each node of an `.onnx` file by its first output, as far as the file can be read.
pub fn stack_traces(file: &SharedBytes) -> Vec<(String, String)> {
    let model = ModelProto::decode(prost::bytes::Bytes::from_owner(Shared(file.clone()))).ok();
    let of = |node: proto::NodeProto| {
        let name = node.output.into_iter().next()?;
        Some((name, node.metadata_props.into_iter().find(|entry| entry.key == STACK_TRACE)?.value))
    };
    model.and_then(|model| model.graph).map(|graph| graph.node.into_iter().filter_map(of).collect()).unwrap_or_default()
}

/// The whole file as one owner, so that weights refer to it without a copy.
struct Shared(SharedBytes);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        (*self.0).as_ref()
    }
}

/// A node's name for messages: its own, else its first output.
fn label(node: &proto::NodeProto) -> &str {
    if node.name.is_empty() { node.output.first().map_or("?", String::as_str) } else { &node.name }
}

/// [`Symbols::declare`] or [`Symbols::unnamed`].
type Declare = fn(&mut Symbols, &mut Builder, &str, usize, Declared) -> Result<Expr, BuildError>;

struct Import<'a> {
    graph: &'a GraphProto,
    scope: Scope<'a>,
    symbols: Symbols,
}

impl<'a> Import<'a> {
    fn run(mut self) -> Result<Graph, Stop> {
        for input in &self.graph.input {
            // Older files list weights as inputs, too.
            if !self.scope.initializers.contains_key(input.name.as_str()) {
                self.input(input)?;
            }
        }
        let mut failures = Failures::default();
        for node in &self.graph.node {
            // An operand or result that is left out has an empty name.
            let results = || node.output.iter().filter(|name| !name.is_empty()).cloned();
            if node.input.iter().any(|name| failures.missing.contains(name)) {
                failures.missing.extend(results());
                continue;
            }
            match self.node(node) {
                Ok(()) => {}
                Err(Stop::Error(error)) => failures.add(error, results()),
                Err(unequal) => return Err(unequal),
            }
        }
        failures.finish()?;
        for output in &self.graph.output {
            let id = self.scope.tensor(&output.name).map_err(|e| e.at(&format!("output `{}`", output.name)))?;
            self.scope.builder.output_named(&output.name, id);
        }
        Ok(self.scope.builder.finish()?)
    }

    fn node(&mut self, node: &'a proto::NodeProto) -> Result<(), Stop> {
        let op = ops::find(node).expect("unsupported operators were refused before");
        let source = format!("{}: {}", node.output.first().map_or("node", String::as_str), ops::qualified(node));
        let mut call = NodeCall { scope: &mut self.scope, node, source: &source };
        let results = op(&mut call).map_err(|refusal| match refusal {
            Refusal::Unequal(_, equal) => Stop::Unequal(equal),
            refusal => refusal.at(&source).into(),
        })?;
        let mut results = results.into_iter();
        for (i, name) in node.output.iter().enumerate() {
            let result = results.next();
            match result {
                _ if name.is_empty() => {}
                Some(result) => drop(self.scope.known.insert(name.clone(), result)),
                None => drop(self.scope.absent.insert(name, format!("output {i} of `{}`", ops::qualified(node)))),
            }
        }
        Ok(())
    }

    /// Declares an input with its symbolic dimensions.
    fn input(&mut self, input: &ValueInfoProto) -> Result<(), ImportError> {
        let place = format!("input `{}`", input.name);
        let ty = input.r#type.as_ref().and_then(|t| t.tensor_type.as_ref());
        let ty = ty.ok_or_else(|| ImportError::refused(place.clone(), "it is not a tensor"))?;
        let dtype = tensor::dtype(ty.elem_type).map_err(|e| ImportError::refused(place.clone(), e))?;
        let dims = ty.shape.as_ref().map(|s| s.dim.as_slice());
        let dims = dims.ok_or_else(|| ImportError::refused(place.clone(), "its rank is unknown; export it with a shape"))?;
        let mut shape = Vec::with_capacity(dims.len());
        for (axis, dim) in dims.iter().enumerate() {
            shape.push(match &dim.value {
                Some(DimensionValue::Value(n)) if *n >= 0 => Expr::from(*n),
                Some(DimensionValue::Param(name)) if !name.is_empty() => self.declare(Symbols::declare, name, axis)?,
                // A size of -1 is what some exporters write for any size.
                _ => self.declare(Symbols::unnamed, &format!("{}_{axis}", input.name), axis)?,
            });
        }
        let id = self.scope.builder.input(&input.name, TensorType { dtype, shape })?;
        self.scope.known.insert(input.name.clone(), Known { tensor: Some(id), sizes: None });
        Ok(())
    }

    fn declare(&mut self, declare: Declare, name: &str, axis: usize) -> Result<Expr, ImportError> {
        Ok(declare(&mut self.symbols, &mut self.scope.builder, name, axis, Declared::default())?)
    }
}
