//! The invariants of a Graph, checked after import and after every pass.

use std::collections::HashSet;

use super::ops::check_ranges;
use super::types::{check_sizes, check_weight};
use super::{Def, Graph, InferError, Node, TensorType, Value, ValueId, infer};

/// A broken invariant. `node` is `%result = op (source)`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages document the fields")]
pub enum VerifyError {
    /// A dimension's range is unusable, or declared twice.
    #[error("dimension `{dim}`: {what}")]
    Dim { dim: String, what: String },
    /// An id beyond the list of values.
    #[error("{place} refers to value {id}, but there are {values} values")]
    NoSuchValue { place: String, id: u32, values: usize },
    /// A position beyond the list of inputs.
    #[error("{place} refers to input {input}, but there are {inputs} inputs")]
    NoSuchInput { place: String, input: usize, inputs: usize },
    /// Two values of one name, or none.
    #[error("the name `{0}` is used by two values")]
    DuplicateName(String),
    /// A value without a name.
    #[error("value {0} has no name")]
    Unnamed(u32),
    /// A value and the list that defines it disagree.
    #[error("value `{name}` is not what defines it says: {what}")]
    Definition { name: String, what: String },
    /// An operand that is defined by the node itself or a later one.
    #[error("node {node} uses `{operand}`, which is computed {when}: the nodes form a cycle or are out of order")]
    Order { node: String, operand: String, when: &'static str },
    /// A shape rule does not hold.
    #[error("node {node}: {error}")]
    Rule { node: String, error: InferError },
    /// The stored type differs from the inferred one.
    #[error("node {node} is declared {declared}, but its operands give {inferred}")]
    Type { node: String, declared: TensorType, inferred: TensorType },
    /// An input, state or weight has an unusable type or data.
    #[error("tensor `{name}`: {what}")]
    Tensor { name: String, what: String },
    /// Nothing is computed.
    #[error("the graph `{0}` has no outputs")]
    NoOutputs(String),
    /// The names of the outputs are not one for each, or not distinct.
    #[error("the names {0:?} are not those of {1} outputs: each needs one of its own")]
    OutputNames(Vec<String>, usize),
}

/// Checks every invariant of a graph: ranges, names, definitions, topological order, types, weight data.
pub fn verify(graph: &Graph) -> Result<(), VerifyError> {
    let mut syms = HashSet::new();
    for dim in &graph.dims {
        let error = |what| VerifyError::Dim { dim: dim.sym.to_string(), what };
        dim.check().map_err(error)?;
        if !syms.insert(&dim.sym) {
            return Err(error("declared twice".into()));
        }
    }
    check_ids(graph)?;
    let mut names = HashSet::new();
    for (i, value) in graph.values.iter().enumerate() {
        let id = ValueId(i as u32);
        if value.name.is_empty() {
            return Err(VerifyError::Unnamed(id.0));
        }
        if !names.insert(value.name.as_str()) {
            return Err(VerifyError::DuplicateName(value.name.clone()));
        }
        let tensor = |what| VerifyError::Tensor { name: value.name.clone(), what };
        let defined = match &value.def {
            Def::Input(position) => {
                check_sizes(&value.ty, &graph.dims).map_err(tensor)?;
                graph.inputs.get(*position) == Some(&id)
            }
            Def::Weight(data) => {
                check_weight(&value.ty, data.bytes().len()).map_err(tensor)?;
                true
            }
            Def::State(position) => graph.states.get(*position).is_some_and(|state| state.value == id),
            Def::Node(index) => graph.nodes.get(*index).is_some_and(|node| node.output == id),
        };
        if !defined {
            let what = format!("{:?}", value.def);
            return Err(VerifyError::Definition { name: value.name.clone(), what });
        }
    }
    for (position, &id) in graph.inputs.iter().enumerate() {
        if !matches!(graph.value(id).def, Def::Input(p) if p == position) {
            let what = format!("listed as input {position}");
            return Err(VerifyError::Definition { name: graph.value(id).name.clone(), what });
        }
    }
    check_states(graph)?;
    for (index, node) in graph.nodes.iter().enumerate() {
        check_node(graph, index, node)?;
    }
    if graph.outputs.is_empty() {
        return Err(VerifyError::NoOutputs(graph.name.clone()));
    }
    check_output_names(graph)
}

fn check_output_names(graph: &Graph) -> Result<(), VerifyError> {
    let distinct: HashSet<&String> = graph.output_names.iter().collect();
    if distinct.len() == graph.outputs.len() && graph.output_names.len() == graph.outputs.len() {
        return Ok(());
    }
    Err(VerifyError::OutputNames(graph.output_names.clone(), graph.outputs.len()))
}

fn check_ids(graph: &Graph) -> Result<(), VerifyError> {
    let values = graph.values.len();
    let check = |id: &ValueId, place: &dyn Fn() -> String| {
        if id.index() < values { Ok(()) } else { Err(VerifyError::NoSuchValue { place: place(), id: id.0, values }) }
    };
    graph.inputs.iter().try_for_each(|id| check(id, &|| "the list of inputs".into()))?;
    graph.outputs.iter().try_for_each(|id| check(id, &|| "the list of outputs".into()))?;
    graph.states.iter().flat_map(|s| [s.value, s.next]).try_for_each(|id| check(&id, &|| "the list of states".into()))?;
    graph.writes.iter().try_for_each(|write| check(&write.value, &|| "the list of writes into inputs".into()))?;
    for (index, node) in graph.nodes.iter().enumerate() {
        let place = || format!("node {index} ({})", node.source);
        check(&node.output, &place)?;
        node.inputs.iter().try_for_each(|id| check(id, &place))?;
    }
    Ok(())
}

/// Checks what outlives a run: states and writes into inputs.
fn check_states(graph: &Graph) -> Result<(), VerifyError> {
    let same_type = |old: ValueId, new: ValueId| {
        let (ty, new) = (graph.ty(old), graph.value(new));
        let what = || format!("it is {ty}, but what it holds after a run, `{}`, is {}", new.name, new.ty);
        if *ty == new.ty { Ok(()) } else { Err(VerifyError::Tensor { name: graph.value(old).name.clone(), what: what() }) }
    };
    for (position, state) in graph.states.iter().enumerate() {
        let Value { name, ty, def } = graph.value(state.value);
        if !matches!(def, Def::State(p) if *p == position) {
            let what = format!("listed as state {position}");
            return Err(VerifyError::Definition { name: name.clone(), what });
        }
        check_weight(ty, state.initial.bytes().len()).map_err(|what| VerifyError::Tensor { name: name.clone(), what })?;
        same_type(state.value, state.next)?;
    }
    let mut written = HashSet::new();
    for write in &graph.writes {
        let inputs = graph.inputs.len();
        let place = || "the list of writes into inputs".to_owned();
        let id = *graph.inputs.get(write.input).ok_or_else(|| VerifyError::NoSuchInput {
            place: place(),
            input: write.input,
            inputs,
        })?;
        if !written.insert(id) {
            return Err(VerifyError::Definition { name: graph.value(id).name.clone(), what: "written back twice".into() });
        }
        same_type(id, write.value)?;
    }
    Ok(())
}

fn check_node(graph: &Graph, index: usize, node: &Node) -> Result<(), VerifyError> {
    let title = || format!("`%{} = {}` ({})", graph.value(node.output).name, node.op.name(), node.source);
    if !matches!(graph.value(node.output).def, Def::Node(at) if at == index) {
        let what = format!("computed by node {}, but defined as {:?}", title(), graph.value(node.output).def);
        return Err(VerifyError::Definition { name: graph.value(node.output).name.clone(), what });
    }
    for &operand in &node.inputs {
        if let Def::Node(at) = graph.value(operand).def
            && at >= index
        {
            let when = if at == index { "by itself" } else { "later" };
            return Err(VerifyError::Order { node: title(), operand: graph.value(operand).name.clone(), when });
        }
    }
    let types: Vec<&TensorType> = node.inputs.iter().map(|&id| graph.ty(id)).collect();
    let rule = |error| VerifyError::Rule { node: title(), error };
    let inferred = infer(&node.op, &types).map_err(rule)?;
    check_ranges(&node.op, &types, &inferred, &graph.dims).map_err(rule)?;
    let declared = graph.ty(node.output);
    if *declared != inferred {
        return Err(VerifyError::Type { node: title(), declared: declared.clone(), inferred });
    }
    Ok(())
}
