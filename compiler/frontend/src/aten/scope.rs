//! What the nodes of an exported graph see: the graph under construction, and what the names so far stand for.

use std::collections::HashMap;

use aotfarm_ir::{Builder, Expr, TensorType, ValueId};

use super::program::{self, Program, TensorMeta};
use crate::storage::{Storages, ViewId};
use crate::symbols::Symbols;

/// What the mapping of a node gives.
#[derive(Debug, Clone)]
pub(super) enum Val {
    Tensor(ValueId),
    Tensors(Vec<ValueId>),
    Size(Expr),
    /// Of nodes that only assert.
    Nothing,
}

/// What a name of the exported graph stands for.
#[derive(Debug, Clone)]
pub(super) enum Bound {
    Tensor(ViewId),
    Size(Expr),
}

pub(super) struct Scope<'a> {
    pub(super) program: &'a Program,
    pub(super) builder: Builder,
    /// Our symbols (`batch`) by torch's (`s77`).
    pub(super) symbols: Symbols,
    /// What each name of the exported graph stands for.
    pub(super) names: HashMap<String, Bound>,
    pub(super) storages: Storages,
}

impl<'a> Scope<'a> {
    pub(super) fn new(program: &'a Program, name: &str, symbols: Symbols) -> Self {
        Self { program, builder: Builder::new(name), symbols, names: HashMap::new(), storages: Storages::default() }
    }

    /// The tensor of that name.
    pub(super) fn view(&self, name: &str) -> Option<ViewId> {
        if let Some(Bound::Tensor(view)) = self.names.get(name) { Some(*view) } else { None }
    }

    /// What the file says of a tensor.
    pub(super) fn meta(&self, name: &str) -> Option<&'a TensorMeta> {
        self.program.graph_module.graph.tensor_values.get(name)
    }

    /// A size, stride or offset of the file in our symbols.
    pub(super) fn size(&self, size: &program::Size) -> Result<Expr, String> {
        let (size, _) = program::size(size)?;
        if let Some(unknown) = size.symbols().into_iter().find(|s| self.symbols.get(s.as_str()).is_none()) {
            return Err(format!("it uses the symbol `{unknown}`, which is the size of no input"));
        }
        Ok(size.substitute(&|s| self.symbols.get(s.as_str()).cloned()))
    }

    /// The type that the file gives a tensor.
    pub(super) fn file_type(&self, meta: &TensorMeta) -> Result<TensorType, String> {
        let shape = meta.sizes.iter().map(|size| self.size(size)).collect::<Result<_, _>>()?;
        Ok(TensorType { dtype: program::dtype(meta.dtype)?, shape })
    }
}
