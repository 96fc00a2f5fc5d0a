//! What the nodes of an ONNX graph see: the graph under construction, its weights, and the integers that are known while compiling.

use std::collections::HashMap;

use aotfarm_ir::{Builder, Expr, TensorData, TensorType, ValueId};

use super::proto::TensorProto;
use super::tensor::{self, OPEN_END, Sizes};
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
    pub(super) initializers: HashMap<&'a str, &'a TensorProto>,
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
