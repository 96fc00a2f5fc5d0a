//! `.onnx` files: the standard operator set in versions 13 to 23, weights in the file or beside it.
//!
//! Exporters compute shapes in the graph (Shape, Gather, Concat, Reshape …). Small integer tensors are followed symbolically, so that
//! such arithmetic becomes expressions over the symbolic dimensions and leaves no nodes.

mod node;
mod ops;
mod proto;
mod tensor;

use std::collections::HashMap;

use prost::Message as _;

use aotfarm_ir::{Builder, Expr, Graph, TensorData, TensorType, ValueId};

use self::node::NodeCall;
use self::proto::{DimensionValue, GraphProto, ModelProto, TensorProto, ValueInfoProto};
use crate::semantics::Result;
use crate::symbols::{Declared, Symbols};
use crate::{External, ImportError, SharedBytes};

/// Versions of the standard operator set that the mappings hold for.
const OPSETS: std::ops::RangeInclusive<i64> = 13..=23;

/// Elements up to which an integer tensor is followed symbolically.
const SMALL: usize = 64;

/// What a slice that goes to the end is taken to end at.
const OPEN_END: i64 = 1 << 62;

/// What is known of a value of the file.
#[derive(Debug, Clone, Default)]
struct Known {
    /// The tensor, once something has used it as one.
    tensor: Option<ValueId>,
    /// Its elements, for small integer tensors of rank 0 and 1.
    sizes: Option<Sizes>,
}

/// The elements of a small integer tensor, as expressions.
#[derive(Debug, Clone)]
struct Sizes {
    values: Vec<Expr>,
    /// Whether it has rank 0.
    scalar: bool,
}

/// Reads an `.onnx` file; `name` is the model's.
pub fn read(file: &SharedBytes, name: &str, external: External<'_>) -> std::result::Result<Graph, ImportError> {
    let bytes = prost::bytes::Bytes::from_owner(Shared(file.clone()));
    let model = ModelProto::decode(bytes).map_err(|e| ImportError::damaged(e.to_string(), "the protobuf of the model"))?;
    let opset = model.opset_import.iter().find(|o| o.domain.is_empty() || o.domain == "ai.onnx").map(|o| o.version);
    match opset {
        Some(version) if OPSETS.contains(&version) => {}
        found => {
            return Err(ImportError::Version {
                format: "ONNX operator set",
                found: found.map_or("(none)".to_owned(), |v| v.to_string()),
                remedy: format!("export with opset_version between {} and {}", OPSETS.start(), OPSETS.end()),
            });
        }
    }
    let graph = model.graph.as_ref().ok_or_else(|| ImportError::damaged("it holds no graph", "the protobuf of the model"))?;
    let missing = graph.node.iter().filter(|n| ops::find(n).is_none());
    let missing: Vec<_> = missing.map(|n| (ops::qualified(n), label(n).to_owned())).collect();
    if !missing.is_empty() {
        return Err(ImportError::unsupported(missing));
    }
    Import {
        graph,
        external,
        builder: Builder::new(name),
        known: HashMap::new(),
        symbols: Symbols::default(),
        initializers: HashMap::new(),
    }
    .run()
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

struct Import<'a> {
    graph: &'a GraphProto,
    external: External<'a>,
    builder: Builder,
    known: HashMap<String, Known>,
    symbols: Symbols,
    initializers: HashMap<&'a str, &'a TensorProto>,
}

impl Import<'_> {
    fn run(mut self) -> std::result::Result<Graph, ImportError> {
        self.initializers = self.graph.initializer.iter().map(|t| (t.name.as_str(), t)).collect();
        for input in &self.graph.input {
            // Older files list weights as inputs, too.
            if !self.initializers.contains_key(input.name.as_str()) {
                self.input(input)?;
            }
        }
        for node in &self.graph.node {
            let op = ops::find(node).expect("unsupported operators were refused before");
            let source = format!("{}: {}", node.output.first().map_or("node", String::as_str), ops::qualified(node));
            let mut call = NodeCall { import: &mut self, node, source: &source };
            let results = op(&mut call).map_err(|e| e.at(&source))?;
            for (name, result) in node.output.iter().filter(|n| !n.is_empty()).zip(results) {
                self.known.insert(name.clone(), result);
            }
        }
        for output in &self.graph.output {
            let id = self.tensor(&output.name).map_err(|e| e.at(&format!("output `{}`", output.name)))?;
            self.builder.output(id);
        }
        Ok(self.builder.finish()?)
    }

    /// Declares an input with its symbolic dimensions.
    fn input(&mut self, input: &ValueInfoProto) -> std::result::Result<(), ImportError> {
        let place = format!("input `{}`", input.name);
        let ty = input.r#type.as_ref().and_then(|t| t.tensor_type.as_ref());
        let ty = ty.ok_or_else(|| ImportError::refused(place.clone(), "it is not a tensor"))?;
        let dtype = tensor::dtype(ty.elem_type).map_err(|e| ImportError::refused(place.clone(), e))?;
        let dims = ty.shape.as_ref().map(|s| s.dim.as_slice());
        let dims = dims.ok_or_else(|| ImportError::refused(place.clone(), "its rank is unknown; export it with a shape"))?;
        let mut shape = Vec::with_capacity(dims.len());
        for (axis, dim) in dims.iter().enumerate() {
            shape.push(match &dim.value {
                Some(DimensionValue::Value(n)) => Expr::from(*n),
                Some(DimensionValue::Param(name)) => self.symbol(name, axis)?,
                None => self.symbol(&format!("{}_{axis}", input.name), axis)?,
            });
        }
        let id = self.builder.input(&input.name, TensorType { dtype, shape })?;
        self.known.insert(input.name.clone(), Known { tensor: Some(id), sizes: None });
        Ok(())
    }

    fn symbol(&mut self, name: &str, axis: usize) -> std::result::Result<Expr, ImportError> {
        Ok(self.symbols.declare(&mut self.builder, name, axis, Declared::default())?)
    }

    /// A value as a tensor; weights enter the graph when they are first used.
    fn tensor(&mut self, name: &str) -> Result<ValueId> {
        if let Some(id) = self.known.get(name).and_then(|k| k.tensor) {
            return Ok(id);
        }
        let (ty, data) = if let Some(proto) = self.initializers.get(name).copied() {
            self.data(proto)?
        } else {
            let sizes = self.known.get(name).and_then(|k| k.sizes.as_ref());
            let sizes = sizes.ok_or_else(|| format!("it uses `{name}`, which no earlier node gives"))?;
            let constants: Option<Vec<i64>> = sizes.values.iter().map(Expr::as_const).collect();
            let constants = constants
                .filter(|c| c.iter().all(|n| n.abs() < OPEN_END))
                .ok_or("it uses a symbolic shape as data, which is not supported")?;
            let shape = if sizes.scalar { Vec::new() } else { vec![Expr::from(constants.len() as i64)] };
            let ty = TensorType { dtype: aotfarm_protocol::DType::I64, shape };
            (ty, TensorData::new(constants.iter().flat_map(|n| n.to_le_bytes()).collect()))
        };
        let id = self.builder.weight(name, ty, data)?;
        self.known.entry(name.to_owned()).or_default().tensor = Some(id);
        Ok(id)
    }

    fn data(&self, proto: &TensorProto) -> Result<(TensorType, TensorData)> {
        Ok(tensor::read(proto, self.external).map_err(|e| format!("weight `{}`: {e}", proto.name))?)
    }

    /// The elements of a value, when it is a small integer tensor that is known.
    fn sizes(&mut self, name: &str) -> Option<Sizes> {
        if let Some(sizes) = self.known.get(name).and_then(|k| k.sizes.clone()) {
            return Some(sizes);
        }
        let proto = self.initializers.get(name).copied()?;
        let sizes = tensor::small_integers(proto, self.external)?;
        self.known.entry(name.to_owned()).or_default().sizes = Some(sizes.clone());
        Some(sizes)
    }
}
