//! What the nodes of an ONNX graph see: the graph under construction, its weights, and the integers that are known while compiling.

use std::collections::HashMap;

use aotfarm_ir::interp::{self, Tensor};
use aotfarm_ir::{Builder, Def, Expr, Graph, TensorData, TensorType, ValueId};
use aotfarm_protocol::DType;

use super::proto::TensorProto;
use super::tensor::{self, Sizes};
use crate::file::External;
use crate::semantics::{Emit, Result, source, view};

/// What is known of a value of the file.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    /// The tensor, once something has used it as one.
    pub(super) tensor: Option<ValueId>,
    /// Its elements, for small integer tensors of rank 0 and 1.
    pub(super) sizes: Option<Sizes>,
}

/// The graph under construction, and what its nodes can name.
pub(super) struct Scope<'a> {
    pub(super) external: External<'a>,
    /// Version of the standard operator set that the file is of.
    pub(super) opset: i64,
    pub(super) builder: Builder,
    pub(super) known: HashMap<String, Known>,
    /// The tensors of the file that are not made by an operator.
    pub(super) initializers: HashMap<&'a str, &'a TensorProto>,
    /// Results that no mapping computes, with what they are.
    pub(super) absent: HashMap<&'a str, String>,
}

impl Scope<'_> {
    /// A value as a tensor; weights enter the graph when they are first used.
    pub(super) fn tensor(&mut self, name: &str) -> Result<ValueId> {
        if let Some(id) = self.known.get(name).and_then(|k| k.tensor) {
            return Ok(id);
        }
        let (ty, data) = if let Some(proto) = self.initializers.get(name).copied() {
            self.data(proto)?
        } else {
            let sizes = self.known.get(name).and_then(|k| k.sizes.as_ref());
            let sizes = sizes.ok_or_else(|| match self.absent.get(name) {
                Some(what) => format!("it uses `{name}`, {what}, which is not supported"),
                None => format!("it uses `{name}`, which no earlier node gives"),
            })?;
            let constants: Option<Vec<i64>> = sizes.values.iter().map(Expr::as_const).collect();
            if sizes.is_open() {
                return Err(format!("it uses `{name}` as data, whose numbers are beyond ±2⁶², which is not supported").into());
            }
            let Some(constants) = constants else {
                let sizes = sizes.clone();
                let id = as_data(&mut Emit { builder: &mut self.builder, source: name }, &sizes)?;
                self.known.entry(name.to_owned()).or_default().tensor = Some(id);
                return Ok(id);
            };
            let shape = if sizes.scalar { Vec::new() } else { vec![Expr::from(constants.len() as i64)] };
            let width = sizes.dtype.size();
            let bytes = constants.iter().flat_map(|n| n.to_le_bytes().into_iter().take(width)).collect();
            (TensorType { dtype: sizes.dtype, shape }, TensorData::new(bytes))
        };
        let id = self.builder.weight(name, ty, data)?;
        self.known.entry(name.to_owned()).or_default().tensor = Some(id);
        Ok(id)
    }

    pub(super) fn data(&self, proto: &TensorProto) -> Result<(TensorType, TensorData)> {
        Ok(tensor::read(proto, self.external).map_err(|e| format!("weight `{}`: {e}", proto.name))?)
    }

    /// The elements of a value, when it is a small integer tensor that is known.
    pub(super) fn sizes(&mut self, name: &str) -> Option<Sizes> {
        if let Some(sizes) = self.known.get(name).and_then(|k| k.sizes.clone()) {
            return Some(sizes);
        }
        let proto = self.initializers.get(name).copied()?;
        let sizes = tensor::small_integers(proto, self.external)?;
        self.known.entry(name.to_owned()).or_default().sizes = Some(sizes.clone());
        Some(sizes)
    }

    /// [`Scope::sizes`], also of a tensor that operators make of constants alone.
    pub(super) fn folded_sizes(&mut self, name: &str) -> Option<Sizes> {
        if let Some(sizes) = self.sizes(name) {
            return Some(sizes);
        }
        let id = self.tensor(name).ok()?;
        let value = self.folded(id)?;
        let values = match (value.dtype, value.shape.len()) {
            (DType::I64, 0 | 1) => value.data.chunks(8).map(|b| i64::from_le_bytes(b.try_into().expect("eight bytes"))).collect(),
            (DType::I32, 0 | 1) => {
                value.data.chunks(4).map(|b| i64::from(i32::from_le_bytes(b.try_into().expect("four bytes")))).collect()
            }
            _ => Vec::new(),
        };
        let count: usize = value.shape.iter().product();
        let values: Vec<Expr> = values.into_iter().map(tensor::open_end).collect();
        (values.len() == count).then_some(Sizes { values, scalar: value.shape.is_empty(), dtype: value.dtype })
    }

    /// The value of a small tensor that follows from constants alone.
    pub(super) fn folded(&self, id: ValueId) -> Option<Tensor> {
        let mut alone = Builder::new("constants");
        let copy = copied(self.builder.graph(), id, &mut alone, &mut HashMap::new())?;
        alone.output_named("constant", copy);
        interp::run(&alone.finish().ok()?, &[]).ok()?.into_iter().next()
    }
}

/// Most operators that are run to know a constant.
const MAX_FOLDED: usize = 256;

/// A small tensor in another graph, with the constants and operators that make it; `None` where it needs anything else.
fn copied(graph: &Graph, id: ValueId, to: &mut Builder, made: &mut HashMap<ValueId, ValueId>) -> Option<ValueId> {
    if let Some(copy) = made.get(&id) {
        return Some(*copy);
    }
    let value = graph.value(id);
    let count = value.ty.shape.iter().try_fold(1i64, |n, size| n.checked_mul(size.as_const()?))?;
    if count > tensor::SMALL as i64 || made.len() >= MAX_FOLDED {
        return None;
    }
    let copy = match &value.def {
        Def::Weight(data) => to.weight(&value.name, value.ty.clone(), data.clone()).ok()?,
        Def::Node(at) => {
            let node = &graph.nodes[*at];
            let inputs = node.inputs.iter().map(|input| copied(graph, *input, to, made)).collect::<Option<Vec<_>>>()?;
            to.push(node.op.clone(), &inputs, "a constant").ok()?
        }
        _ => return None,
    };
    made.insert(id, copy);
    Some(copy)
}

/// Integers, some of them symbolic, as a tensor.
fn as_data(e: &mut Emit<'_>, sizes: &Sizes) -> Result<ValueId> {
    let numbers = sizes.values.iter().map(|n| source::number(e, n, sizes.dtype)).collect::<Result<Vec<_>>>()?;
    match numbers.as_slice() {
        [one] if sizes.scalar => Ok(*one),
        all => view::stack(e, all, 0),
    }
}
