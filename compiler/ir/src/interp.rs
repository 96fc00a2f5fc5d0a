//! The reference interpreter: runs a graph in plain Rust, in f64, for tests and as the measure of what kernels compute.
//!
//! Floating-point values are held in f64 between nodes and rounded to their type only by casts and at the outputs, so a result is as
//! good as the same model evaluated in float64. Integers wrap on overflow, as in torch.

use crate::array::Array;
use crate::{Bindings, Def, EvalError, Expr, Graph, Node, State, ValueId};

pub use crate::tensor::{Case, CaseError, Tensor, write_tensors};

/// Most elements of one value: 16 GiB of f64.
const MAX_ELEMENTS: usize = 1 << 31;

/// Why a graph cannot be run on these inputs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages document the fields")]
pub enum InterpError {
    /// Too few or too many inputs.
    #[error("the model `{model}` takes {expected} inputs, got {got}")]
    InputCount { model: String, expected: usize, got: usize },
    /// An input of the wrong type, rank, size, or number of bytes.
    #[error("input `{name}`: {what}")]
    Input { name: String, what: String },
    /// Contents of states that are not those of this graph.
    #[error("state `{name}`: {what}")]
    State { name: String, what: String },
    /// A dimension that no input's shape tells.
    #[error("the size of `{0}` cannot be found from the inputs")]
    UnknownDim(String),
    /// A size that cannot be computed.
    #[error("`{value}`: {error}")]
    Size { value: String, error: EvalError },
    /// A tensor too large for the interpreter.
    #[error("`{value}` would have the shape {shape:?}, too large to interpret")]
    TooLarge { value: String, shape: Vec<i64> },
    /// An index out of range, an integer division by zero.
    #[error("node `{node}`: {what}")]
    Node { node: String, what: String },
}

/// Finds the sizes of the symbolic dimensions from the inputs' shapes, and checks every input against its declaration.
pub fn bind(graph: &Graph, inputs: &[Tensor]) -> Result<Bindings, InterpError> {
    if inputs.len() != graph.inputs.len() {
        return Err(InterpError::InputCount { model: graph.name.clone(), expected: graph.inputs.len(), got: inputs.len() });
    }
    let mut bindings = Bindings::new();
    let dims = || graph.inputs.iter().zip(inputs).flat_map(|(&id, t)| graph.ty(id).shape.iter().zip(&t.shape));
    for (expr, &size) in dims() {
        if let Some(sym) = expr.as_sym() {
            bindings.insert(sym.clone(), size as i64);
        }
    }
    for (expr, &size) in dims() {
        if let Some((sym, value)) = solve(expr, size as i64, &bindings) {
            bindings.insert(sym, value);
        }
    }
    for (&id, tensor) in graph.inputs.iter().zip(inputs) {
        let value = graph.value(id);
        check_input(graph, &value.ty, tensor, &bindings).map_err(|what| InterpError::Input { name: value.name.clone(), what })?;
    }
    for dim in &graph.dims {
        if bindings.get(dim.sym.as_str()).is_none() && uses(graph, dim.sym.as_str()) {
            return Err(InterpError::UnknownDim(dim.sym.to_string()));
        }
    }
    Ok(bindings)
}

/// The symbol and value that make `a n + b` equal to `size`, if `n` is its only symbol and not bound yet.
fn solve(expr: &Expr, size: i64, bindings: &Bindings) -> Option<(crate::Sym, i64)> {
    let symbols = expr.symbols();
    let mut free = symbols.iter().filter(|s| bindings.get(s.as_str()).is_none());
    let (sym, None) = (free.next()?, free.next()) else { return None };
    let at = |n: i64| {
        let mut bound = bindings.clone();
        bound.insert(sym.clone(), n);
        expr.eval(&bound).ok()
    };
    let (zero, one) = (at(0)?, at(1)?);
    let value = size.checked_sub(zero)?.checked_div(one.checked_sub(zero)?)?;
    (at(value) == Some(size)).then(|| (sym.clone(), value))
}

fn uses(graph: &Graph, sym: &str) -> bool {
    graph.values.iter().flat_map(|v| &v.ty.shape).any(|e| e.symbols().contains(sym))
}

fn check_input(graph: &Graph, ty: &crate::TensorType, tensor: &Tensor, bindings: &Bindings) -> Result<(), String> {
    if tensor.dtype != ty.dtype || tensor.shape.len() != ty.shape.len() {
        return Err(format!("expected {ty}, got {}{:?}", tensor.dtype, tensor.shape));
    }
    let bytes = tensor.shape.iter().try_fold(tensor.dtype.size(), |n, &size| n.checked_mul(size));
    if bytes != Some(tensor.data.len()) {
        return Err(format!("{}{:?} does not have {} bytes", tensor.dtype, tensor.shape, tensor.data.len()));
    }
    for (axis, (expr, &size)) in ty.shape.iter().zip(&tensor.shape).enumerate() {
        for sym in expr.symbols() {
            let dim = graph.dims.iter().find(|d| d.sym == sym);
            if let (Some(dim), Some(value)) = (dim, bindings.get(sym.as_str()))
                && !(dim.min..=dim.max).contains(&value)
            {
                return Err(format!(
                    "axis {axis} has the size {size}, so {sym} is {value}, but the model accepts {sym} from {} to {}",
                    dim.min, dim.max
                ));
            }
        }
        match expr.eval(bindings) {
            Ok(wanted) if wanted == size as i64 => {}
            Ok(wanted) => return Err(format!("axis {axis} has the size {size}, expected {expr} = {wanted}")),
            Err(error) => return Err(format!("axis {axis}: {error}")),
        }
    }
    Ok(())
}

/// What a run leaves.
#[derive(Debug, Clone, PartialEq)]
pub struct Results {
    /// The model's outputs.
    pub outputs: Vec<Tensor>,
    /// What the states hold, in the order of [`Graph::states`].
    pub states: Vec<Tensor>,
    /// What the inputs that the model changes hold, in the order of [`Graph::writes`].
    pub writes: Vec<Tensor>,
}

/// What the states of a verified graph hold in a fresh session.
pub fn initial(graph: &Graph) -> Vec<Tensor> {
    let tensor = |state: &State| {
        let ty = graph.ty(state.value);
        let sizes = ty.shape.iter().map(|size| size.as_const().and_then(|n| usize::try_from(n).ok()));
        let shape = sizes.collect::<Option<_>>().expect("a verified state has a constant shape");
        Tensor { dtype: ty.dtype, shape, data: state.initial.bytes().to_vec() }
    };
    graph.states.iter().map(tensor).collect()
}

/// Runs a verified graph as the first run of a session.
pub fn run(graph: &Graph, inputs: &[Tensor]) -> Result<Vec<Tensor>, InterpError> {
    run_from(graph, inputs, &initial(graph)).map(|results| results.outputs)
}

/// Runs a verified graph whose states hold what `states` says: [`initial`], or what the run before left.
pub fn run_from(graph: &Graph, inputs: &[Tensor], states: &[Tensor]) -> Result<Results, InterpError> {
    let bindings = bind(graph, inputs)?;
    check_states(graph, states)?;
    let run = Run { graph, bindings };
    // How many uses of each value are still to come, so that it can be dropped after the last.
    let mut uses = vec![0usize; graph.values.len()];
    for id in graph.nodes.iter().flat_map(|n| n.inputs.iter().copied()).chain(graph.results()) {
        uses[id.index()] += 1;
    }
    let mut values: Vec<Option<Array>> = vec![None; graph.values.len()];
    let states = graph.states.iter().map(|state| &state.value).zip(states);
    for (id, tensor) in graph.inputs.iter().zip(inputs).chain(states) {
        values[id.index()] = Some(Array::from_bytes(tensor.dtype, &tensor.shape, &tensor.data));
    }
    for node in &graph.nodes {
        for &id in &node.inputs {
            run.load_weight(id, &mut values)?;
        }
        let operands: Vec<&Array> = node.inputs.iter().filter_map(|id| values[id.index()].as_ref()).collect();
        assert_eq!(operands.len(), node.inputs.len(), "a verified graph is in topological order");
        let result = run.node(node, &operands)?;
        for id in &node.inputs {
            uses[id.index()] -= 1;
            if uses[id.index()] == 0 {
                values[id.index()] = None;
            }
        }
        if uses[node.output.index()] > 0 {
            values[node.output.index()] = Some(result);
        }
    }
    let mut outputs = Vec::new();
    for id in graph.results() {
        run.load_weight(id, &mut values)?;
        outputs.push(values[id.index()].as_ref().expect("a verified graph computes its results").to_tensor());
    }
    let mut states = outputs.split_off(graph.outputs.len());
    let writes = states.split_off(graph.states.len());
    Ok(Results { outputs, states, writes })
}

fn check_states(graph: &Graph, states: &[Tensor]) -> Result<(), InterpError> {
    let wanted = initial(graph);
    for (n, state) in wanted.iter().enumerate() {
        let like = |t: &Tensor| (t.dtype, &t.shape, t.data.len()) == (state.dtype, &state.shape, state.data.len());
        if !states.get(n).is_some_and(like) {
            let value = graph.value(graph.states[n].value);
            let got =
                states.get(n).map_or("nothing".to_owned(), |t| format!("{}{:?} of {} bytes", t.dtype, t.shape, t.data.len()));
            return Err(InterpError::State { name: value.name.clone(), what: format!("expected {}, got {got}", value.ty) });
        }
    }
    Ok(())
}

struct Run<'a> {
    graph: &'a Graph,
    bindings: Bindings,
}

impl Run<'_> {
    fn size(&self, expr: &Expr, value: &str) -> Result<usize, InterpError> {
        let size = expr.eval(&self.bindings).map_err(|error| InterpError::Size { value: value.to_owned(), error })?;
        usize::try_from(size).map_err(|_| InterpError::TooLarge { value: value.to_owned(), shape: vec![size] })
    }

    fn shape(&self, id: ValueId) -> Result<Vec<usize>, InterpError> {
        let value = self.graph.value(id);
        let shape: Vec<usize> = value.ty.shape.iter().map(|e| self.size(e, &value.name)).collect::<Result<_, _>>()?;
        let elements = shape.iter().try_fold(1usize, |n, &size| n.checked_mul(size));
        if elements.is_none_or(|n| n > MAX_ELEMENTS) {
            return Err(InterpError::TooLarge { value: value.name.clone(), shape: shape.iter().map(|&n| n as i64).collect() });
        }
        Ok(shape)
    }

    fn load_weight(&self, id: ValueId, values: &mut [Option<Array>]) -> Result<(), InterpError> {
        if let (Def::Weight(data), None) = (&self.graph.value(id).def, &values[id.index()]) {
            values[id.index()] = Some(Array::from_bytes(self.graph.ty(id).dtype, &self.shape(id)?, data.bytes()));
        }
        Ok(())
    }

    fn node(&self, node: &Node, x: &[&Array]) -> Result<Array, InterpError> {
        let shape = self.shape(node.output)?;
        node.op.evaluate(x, &shape, &self.bindings).map_err(|what| {
            let node = if node.source.is_empty() { &self.graph.value(node.output).name } else { &node.source };
            InterpError::Node { node: node.clone(), what }
        })
    }
}

#[cfg(test)]
mod tests;
