//! What the nodes of an exported graph see: the graph under construction, and what the names so far stand for.

use std::collections::HashMap;

use aotfarm_ir::{Builder, Expr, ValueId};

/// What a name of the exported graph stands for.
#[derive(Debug, Clone)]
pub(super) enum Val {
    Tensor(ValueId),
    Tensors(Vec<ValueId>),
    Size(Expr),
    /// Of nodes that only assert.
    Nothing,
}

pub(super) struct Scope {
    pub(super) builder: Builder,
    /// What each name of the exported graph stands for.
    pub(super) names: HashMap<String, Val>,
}
