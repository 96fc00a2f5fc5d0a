//! The case that every artifact of a graph must reproduce before it is published.

use std::collections::BTreeSet;

use aotfarm_ir::interp::{self, Case, InterpError, Results, Tensor};
use aotfarm_ir::{Bindings, Def, EvalError, Graph, ValueId};
use aotfarm_protocol::DType;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use self::domain::Interval;

mod domain;

/// Seed of the inputs: `aotfarm`, so that a resubmitted graph has the same case.
const SEED: u64 = 0x616f_7466_6172_6d00;
/// Calls of a model with states: the last one reads what a call has made of what another call had left.
const CALLS: u64 = 3;
/// Draws within the domains of the inputs, after one that knows nothing of the graph.
const REDRAWS: u64 = 4;

/// Why there is no case.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The size of an input is not defined at the smallest dimensions.
    #[error(transparent)]
    Size(#[from] EvalError),
    /// The size of an input is negative.
    #[error("input `{0}` has a negative size at the smallest dimensions")]
    Negative(String),
    /// The interpreter cannot run the graph.
    #[error(transparent)]
    Interp(#[from] InterpError),
    /// No random inputs were found that the model takes.
    #[error("no random values of {} that the model takes were found: {why}", names(.inputs))]
    NoInputs {
        /// The inputs on which what went wrong depends.
        inputs: Vec<String>,
        /// What went wrong.
        why: String,
    },
    /// The expected outputs that were given are not those of the model.
    #[error("{0}")]
    Expected(String),
}

impl CheckError {
    /// What the user can do.
    pub fn hint(&self) -> Option<String> {
        let Self::NoInputs { inputs, .. } = self else { return None };
        let one = inputs.first().map_or("in.0", String::as_str);
        Some(format!(
            "give typical values with --samples FILE.safetensors, which holds each input by its name (`{one}`) or as in.0, in.1 …"
        ))
    }
}

fn names(inputs: &[String]) -> String {
    inputs.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// What the calls of one fresh session of a graph take and leave, one after the other. Of `given`, inputs, outputs and what is written
/// are the submitter's; what is absent of the latter two is what the reference interpreter makes of the inputs. Without it there is
/// one call, or a few where there are states, and the inputs are seeded random values at the smallest sizes that are not 0: integers
/// that their uses allow, as indices and divisors, and floats of which the interpreter makes finite numbers, as far as there are such.
///
/// # Errors
/// When an input has no size there, the interpreter cannot run the graph on the inputs, or no random ones were found on which it
/// can; when expected outputs do not fit the graph.
pub fn check_case(graph: &Graph, given: Option<Vec<Case>>) -> Result<Vec<Case>, CheckError> {
    let Some(mut calls) = given else { return random_calls(graph) };
    check_samples(graph, &calls)?;
    let is_whole = |case: &Case| case.outputs.len() == graph.outputs.len() && case.writes.len() == graph.writes.len();
    if !calls.iter().all(is_whole) {
        let mut states = interp::initial(graph);
        for case in &mut calls {
            let results = interp::run_from(graph, &case.inputs, &states)?;
            if case.outputs.is_empty() {
                case.outputs = results.outputs;
            }
            if case.writes.is_empty() {
                case.writes = results.writes;
            }
            states = results.states;
        }
    }
    Ok(calls)
}

/// Checks that the inputs of a submitter's calls, and what he expects of them if he does, are as many and of the types and shapes that
/// the graph says.
///
/// # Errors
/// When they are not.
pub fn check_samples(graph: &Graph, calls: &[Case]) -> Result<(), CheckError> {
    let writes: Vec<ValueId> = graph.writes.iter().map(|write| graph.inputs[write.input]).collect();
    for Case { inputs, outputs, writes: written } in calls {
        let bindings = interp::bind(graph, inputs)?;
        check_expected(graph, &bindings, "output", &graph.outputs, outputs)?;
        check_expected(graph, &bindings, "written input", &writes, written)?;
    }
    Ok(())
}

/// Checks that the tensors that are expected of `values`, if any are, are as many and as the graph says.
fn check_expected(
    graph: &Graph,
    bindings: &Bindings,
    what: &str,
    values: &[ValueId],
    expected: &[Tensor],
) -> Result<(), CheckError> {
    if expected.is_empty() {
        return Ok(());
    }
    let (wanted, got) = (values.len(), expected.len());
    if wanted != got {
        return Err(CheckError::Expected(format!("the model has {wanted} {what}s, and {got} are expected")));
    }
    for (i, (id, given)) in values.iter().zip(expected).enumerate() {
        let (name, ty) = (&graph.value(*id).name, graph.ty(*id));
        let shape = ty.shape.iter().map(|size| size.eval(bindings)).collect::<Result<Vec<_>, _>>()?;
        if given.dtype != ty.dtype || !given.shape.iter().map(|n| *n as i64).eq(shape.iter().copied()) {
            let message =
                format!("{what} {i} (`{name}`) is {}{shape:?}, and {}{:?} is expected", ty.dtype, given.dtype, given.shape);
            return Err(CheckError::Expected(message));
        }
    }
    Ok(())
}

fn random_calls(graph: &Graph) -> Result<Vec<Case>, CheckError> {
    // Of empty tensors nothing can be wrong.
    let smallest: Bindings = graph.dims.iter().map(|d| (d.sym.clone(), d.min.max(1))).collect();
    let mut shapes = Vec::new();
    for id in &graph.inputs {
        let value = graph.value(*id);
        let shape = value.ty.shape.iter().map(|e| e.eval(&smallest)).collect::<Result<Vec<i64>, _>>()?;
        let shape = shape.into_iter().map(usize::try_from).collect::<Result<Vec<usize>, _>>();
        shapes.push(shape.map_err(|_| CheckError::Negative(value.name.clone()))?);
    }
    // The first draw knows nothing of the graph; where it will do, so it stays.
    let mut random = Random { graph, smallest, shapes, domains: None };
    let (mut calls, mut states) = (Vec::new(), interp::initial(graph));
    for call in 0..if states.is_empty() { 1 } else { CALLS } {
        let (case, left) = random.call(SEED + call * (REDRAWS + 1), &states)?;
        calls.push(case);
        states = left;
    }
    Ok(calls)
}

/// What random inputs are drawn from.
struct Random<'a> {
    graph: &'a Graph,
    smallest: Bindings,
    shapes: Vec<Vec<usize>>,
    /// What the uses of the inputs allow, once a draw without that knowledge would not do.
    domains: Option<Vec<Interval>>,
}

impl Random<'_> {
    fn draw(&self, seed: u64) -> Vec<Tensor> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let each = self.graph.inputs.iter().zip(&self.shapes).enumerate();
        let tensor = |(i, (id, shape)): (usize, (&ValueId, &Vec<usize>))| {
            let domain = self.domains.as_ref().map_or(Interval::ALL, |domains| domains[i]);
            random_tensor(self.graph.ty(*id).dtype, shape.clone(), domain, &mut rng)
        };
        each.map(tensor).collect()
    }

    /// A call of a session whose states hold `states`, and what they hold after it.
    fn call(&mut self, seed: u64, states: &[Tensor]) -> Result<(Case, Vec<Tensor>), CheckError> {
        let graph = self.graph;
        let (mut best, mut refused): (Option<(usize, Case, Vec<Tensor>)>, _) = (None, None);
        for attempt in 0..=REDRAWS {
            let inputs = self.draw(seed + attempt);
            match interp::run_from(graph, &inputs, states) {
                Ok(Results { outputs, states, writes }) => {
                    let lost = outputs.iter().chain(&writes).map(not_finite).sum::<usize>();
                    if best.as_ref().is_none_or(|(least, ..)| lost < *least) {
                        best = Some((lost, Case { inputs, outputs, writes }, states));
                    }
                    if lost == 0 {
                        break;
                    }
                }
                Err(error @ InterpError::Node { .. }) => refused = Some(error),
                Err(error) => return Err(error.into()),
            }
            if self.domains.is_none() {
                self.domains = Some(domain::of_inputs(graph, &self.smallest));
            }
        }
        let some_finite = |case: &Case| case.outputs.iter().chain(&case.writes).any(|t| not_finite(t) < t.len());
        match (best, refused) {
            (Some((lost, case, states)), _) if lost == 0 || some_finite(&case) => Ok((case, states)),
            (Some((_, case, _)), _) => {
                let inputs = names_of(graph, reaching(graph, &graph.outputs));
                let why = format!("none of its {} outputs holds a finite number", case.outputs.len());
                Err(CheckError::NoInputs { inputs, why })
            }
            (None, Some(error)) => Err(CheckError::NoInputs {
                inputs: names_of(graph, reaching(graph, &refusing(graph, &error))),
                why: error.to_string(),
            }),
            (None, None) => unreachable!("an attempt gives a case or was refused"),
        }
    }
}

/// How many elements are NaN or infinite.
fn not_finite(tensor: &Tensor) -> usize {
    if tensor.dtype.is_float() { tensor.to_f64().iter().filter(|x| !x.is_finite()).count() } else { 0 }
}

/// The operands of the nodes that refused to be evaluated.
fn refusing(graph: &Graph, error: &InterpError) -> Vec<ValueId> {
    let InterpError::Node { node: refused, .. } = error else { return graph.outputs.clone() };
    let is_it = |node: &&aotfarm_ir::Node| node.source == *refused || graph.value(node.output).name == *refused;
    graph.nodes.iter().filter(is_it).flat_map(|node| node.inputs.iter().copied()).collect()
}

/// The inputs on which any of `values` depends.
fn reaching(graph: &Graph, values: &[ValueId]) -> BTreeSet<usize> {
    let (mut open, mut seen) = (values.to_vec(), BTreeSet::new());
    let mut inputs = BTreeSet::new();
    while let Some(id) = open.pop() {
        if seen.insert(id) {
            match graph.value(id).def {
                Def::Input(i) => _ = inputs.insert(i),
                Def::Node(n) => open.extend(&graph.nodes[n].inputs),
                Def::Weight(_) | Def::State(_) => {}
            }
        }
    }
    inputs
}

fn names_of(graph: &Graph, inputs: BTreeSet<usize>) -> Vec<String> {
    inputs.into_iter().map(|i| graph.value(graph.inputs[i]).name.clone()).collect()
}

/// Values of an interval. Where it is open, floats have mean 0 and variance 1, and integers are 0 or 1, the first of each row 1: valid
/// as an index into any table, and as a mask that does not hide all.
fn random_tensor(dtype: DType, shape: Vec<usize>, domain: Interval, rng: &mut ChaCha8Rng) -> Tensor {
    let count: usize = shape.iter().product();
    let row = shape.last().copied().unwrap_or(1).max(1);
    let mut data = Vec::with_capacity(count * dtype.size());
    let (floats, integers) = (domain.floats(), domain.integers(dtype));
    for i in 0..count {
        if dtype.is_float() {
            let x: f32 = rng.random_range(floats.clone());
            match dtype {
                DType::F16 => data.extend(half::f16::from_f32(x).to_le_bytes()),
                DType::Bf16 => data.extend(half::bf16::from_f32(x).to_le_bytes()),
                DType::F64 => data.extend(f64::from(x).to_le_bytes()),
                _ => data.extend(x.to_le_bytes()),
            }
        } else if let Some(integers) = &integers {
            let n: i64 = rng.random_range(integers.clone());
            data.extend(&n.to_le_bytes()[..dtype.size()]);
        } else {
            let one = rng.random_range(0..2u8) | u8::from(i % row == 0);
            data.push(one);
            data.resize(data.len() + dtype.size() - 1, 0);
        }
    }
    Tensor { dtype, shape, data }
}

#[cfg(test)]
mod tests;
