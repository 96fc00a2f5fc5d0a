//! A row of the tables of operators.

use aotfarm_ir::ValueId;

use super::super::call::Call;
use super::super::scope::Val;
use crate::semantics::Result;

/// How a node becomes operators of the graph.
pub(in crate::aten) type Map = fn(&mut Call) -> Result<Val>;

/// How one operator is mapped.
pub(in crate::aten) struct Row {
    /// As in `aten.conv2d.default`.
    pub(in crate::aten) name: &'static str,
    pub(in crate::aten) map: Map,
    pub(in crate::aten) shares: Shares,
}

/// Whether the results of an operator share memory with its first operand.
#[derive(Clone, Copy)]
pub(in crate::aten) enum Shares {
    Never,
    Always,
    /// It depends on the arguments, and on the shape of the result.
    If(Condition),
}

pub(in crate::aten) type Condition = fn(&Call, ValueId) -> Result<bool>;

/// What an operator writes to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::aten) enum Writes {
    Nothing,
    /// Its first operand takes over the result.
    First,
}

pub(in crate::aten) const fn row(name: &'static str, map: Map) -> Row {
    Row { name, map, shares: Shares::Never }
}

pub(in crate::aten) const fn shares(name: &'static str, map: Map) -> Row {
    Row { name, map, shares: Shares::Always }
}

pub(in crate::aten) const fn shares_if(condition: Condition, name: &'static str, map: Map) -> Row {
    Row { name, map, shares: Shares::If(condition) }
}

/// The result of a node that gives one tensor.
pub(in crate::aten) fn tensor(id: ValueId) -> Result<Val> {
    Ok(Val::Tensor(id))
}
