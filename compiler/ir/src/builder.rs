//! Making a Graph node by node, with shapes inferred and checked at once.

use std::collections::HashSet;

use aotfarm_protocol::Signature;

use super::ops::check_ranges;
use super::types::{check_sizes, check_weight};
use super::{
    Def, Expr, Graph, GraphDim, InferError, Node, Op, State, Sym, TensorData, TensorType, Value, ValueId, VerifyError, WriteBack,
    infer, verify,
};

/// Why a graph cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// A node's operands do not fit its operator.
    #[error("node `{node}`: {error}")]
    Node {
        /// The node of the source model.
        node: String,
        /// The rule.
        error: InferError,
    },
    /// A dimension's range is not usable.
    #[error("dimension `{dim}`: {what}")]
    Dim {
        /// The symbol.
        dim: String,
        /// What is wrong.
        what: String,
    },
    /// An input, state or weight has an unusable type or data.
    #[error("tensor `{name}`: {what}")]
    Tensor {
        /// Its name.
        name: String,
        /// What is wrong.
        what: String,
    },
    /// The finished graph breaks an invariant.
    #[error(transparent)]
    Verify(#[from] VerifyError),
}

/// Builds a [`Graph`]. Ids of one builder are valid in its graph only.
#[derive(Debug, Clone)]
pub struct Builder {
    graph: Graph,
    names: HashSet<String>,
}

impl Builder {
    /// An empty graph with the model's name.
    pub fn new(name: &str) -> Self {
        Self { graph: Graph { name: name.to_owned(), ..Graph::default() }, names: HashSet::new() }
    }

    /// Declares a symbolic dimension with its allowed sizes (both ends included) and gives its symbol as an expression.
    pub fn dim(&mut self, sym: impl Into<Sym>, min: i64, max: i64, hint: Option<i64>) -> Result<Expr, BuildError> {
        let dim = GraphDim { sym: sym.into(), min, max, hint };
        let error = |what: String| BuildError::Dim { dim: dim.sym.to_string(), what };
        dim.check().map_err(error)?;
        if self.graph.dims.iter().any(|d| d.sym == dim.sym) {
            return Err(error("declared twice".into()));
        }
        let expr = Expr::from(&dim.sym);
        self.graph.dims.push(dim);
        Ok(expr)
    }

    /// Adds the next input of the model.
    pub fn input(&mut self, name: &str, ty: TensorType) -> Result<ValueId, BuildError> {
        check_sizes(&ty, &self.graph.dims).map_err(|what| BuildError::Tensor { name: name.to_owned(), what })?;
        let position = self.graph.inputs.len();
        let id = self.value_of(name, ty, Def::Input(position));
        self.graph.inputs.push(id);
        Ok(id)
    }

    /// Adds a weight or constant. Its shape must be constant, and `data` must hold exactly its elements.
    pub fn weight(&mut self, name: &str, ty: TensorType, data: TensorData) -> Result<ValueId, BuildError> {
        check_weight(&ty, data.bytes().len()).map_err(|what| BuildError::Tensor { name: name.to_owned(), what })?;
        Ok(self.value_of(name, ty, Def::Weight(data)))
    }

    /// Adds a state, and gives its contents when a run begins. Its shape must be constant, and `initial` must hold exactly its elements.
    /// Runs leave it as it is until [`Builder::next`] says otherwise.
    pub fn state(&mut self, name: &str, ty: TensorType, initial: TensorData) -> Result<ValueId, BuildError> {
        check_weight(&ty, initial.bytes().len()).map_err(|what| BuildError::Tensor { name: name.to_owned(), what })?;
        let value = self.value_of(name, ty, Def::State(self.graph.states.len()));
        self.graph.states.push(State { value, initial, next: value });
        Ok(value)
    }

    /// Says what a state, named by its contents when a run begins, holds when the run has ended; the last word counts.
    /// [`Builder::finish`] checks that both are of one type. Panics when `state` is no state's value.
    pub fn next(&mut self, state: ValueId, next: ValueId) {
        let Def::State(position) = self.graph.value(state).def else {
            panic!("`{}` is not the value of a state", self.graph.value(state).name)
        };
        self.graph.states[position].next = next;
    }

    /// Says what an input of the model holds when the run has ended; the last word counts. [`Builder::finish`] checks that both are
    /// of one type. Panics when `input` is no input.
    pub fn write_back(&mut self, input: ValueId, value: ValueId) {
        let Def::Input(input) = self.graph.value(input).def else {
            panic!("`{}` is not an input of the model", self.graph.value(input).name)
        };
        self.graph.writes.retain(|write| write.input != input);
        self.graph.writes.push(WriteBack { input, value });
    }

    /// Adds a node and gives its result. `source` tells where it comes from (`conv2d_3: aten.conv2d.default`); the part before the
    /// first `:` names the result.
    pub fn push(&mut self, op: Op, inputs: &[ValueId], source: &str) -> Result<ValueId, BuildError> {
        let name = source.split(':').next().map(str::trim).filter(|name| !name.is_empty()).unwrap_or(op.name()).to_owned();
        self.push_named(&name, op, inputs, source)
    }

    /// [`Builder::push`] with a name for the result.
    pub fn push_named(&mut self, name: &str, op: Op, inputs: &[ValueId], source: &str) -> Result<ValueId, BuildError> {
        let node_error = |error| BuildError::Node { node: source.to_owned(), error };
        let types: Vec<&TensorType> = inputs.iter().map(|&id| self.graph.ty(id)).collect();
        let ty = infer(&op, &types).map_err(node_error)?;
        check_ranges(&op, &types, &ty, &self.graph.dims).map_err(node_error)?;
        let output = self.value_of(name, ty, Def::Node(self.graph.nodes.len()));
        self.graph.nodes.push(Node { op, inputs: inputs.to_vec(), output, source: source.to_owned() });
        Ok(output)
    }

    /// Adds the next output of the model, by the name of its value; a value may be an output more than once.
    pub fn output(&mut self, id: ValueId) {
        let name = self.graph.value(id).name.clone();
        self.output_named(&name, id);
    }

    /// [`Builder::output`] by another name. A number is added to a name that an output has already.
    pub fn output_named(&mut self, name: &str, id: ValueId) {
        let numbered = (1..).map(|n| format!("{name}_{n}"));
        let mut names = std::iter::once(name.to_owned()).chain(numbered);
        let free = names.find(|name| !self.graph.output_names.contains(name)).expect("there are infinitely many names");
        self.graph.output_names.push(free);
        self.graph.outputs.push(id);
    }

    /// Says how the exported program nests its arguments and results.
    pub fn signature(&mut self, signature: Signature) {
        self.graph.signature = Some(signature);
    }

    /// The type of a value.
    pub fn ty(&self, id: ValueId) -> &TensorType {
        self.graph.ty(id)
    }

    /// The shape of a value.
    pub fn shape(&self, id: ValueId) -> &[Expr] {
        &self.graph.ty(id).shape
    }

    /// What has been built so far.
    pub const fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The verified graph.
    pub fn finish(self) -> Result<Graph, BuildError> {
        verify(&self.graph)?;
        Ok(self.graph)
    }

    fn value_of(&mut self, name: &str, ty: TensorType, def: Def) -> ValueId {
        let base = if name.is_empty() { "value" } else { name };
        let mut unique = base.to_owned();
        for n in 1.. {
            if self.names.insert(unique.clone()) {
                break;
            }
            unique = format!("{base}_{n}");
        }
        let id = ValueId(u32::try_from(self.graph.values.len()).expect("fewer than 2^32 values fit in memory"));
        self.graph.values.push(Value { name: unique, ty, def });
        id
    }
}
