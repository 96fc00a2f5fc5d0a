//! What the nodes of an ONNX graph see: the graph under construction, its weights, and the integers that are known while compiling.

use std::collections::HashMap;

use aotfarm_ir::{Builder, Expr, TensorData, TensorType, ValueId};

use super::proto::TensorProto;
use super::tensor::{self, Sizes};
use crate::file::External;
use crate::semantics::Result;

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
            let constants = constants.ok_or("it uses a symbolic shape as data, which is not supported")?;
            if sizes.is_open() {
                return Err(format!("it uses `{name}` as data, whose numbers are beyond ±2⁶², which is not supported").into());
            }
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
}
