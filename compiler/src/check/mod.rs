//! The case that every artifact of a graph must reproduce before it is published.

use std::collections::BTreeSet;

use aotfarm_ir::interp::{self, Case, InterpError, Tensor};
use aotfarm_ir::{Bindings, Def, EvalError, Graph, ValueId};
use aotfarm_protocol::DType;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use self::domain::Interval;

mod domain;

/// Seed of the inputs: `aotfarm`, so that a resubmitted graph has the same case.
const SEED: u64 = 0x616f_7466_6172_6d00;
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

/// The case of a graph. Of `given`, inputs and outputs are the submitter's; absent outputs are what the reference interpreter makes
/// of the inputs. Without it the inputs are seeded random values at the smallest sizes: integers that their uses allow, as
/// indices and divisors, and floats of which the interpreter makes finite numbers, as far as there are such.
///
/// # Errors
/// When an input has no size there, the interpreter cannot run the graph on the inputs, or no random ones were found on which it
/// can; when expected outputs do not fit the graph.
pub fn check_case(graph: &Graph, given: Option<Case>) -> Result<Case, CheckError> {
    match given {
        None => random_case(graph),
        Some(mut case) => {
            check_samples(graph, &case)?;
            if case.outputs.is_empty() {
                case.outputs = interp::run(graph, &case.inputs)?;
            }
            Ok(case)
        }
    }
}

/// Checks that a submitter's inputs, and his outputs if there are any, are as many and of the types and shapes that the graph says.
///
/// # Errors
/// When they are not.
pub fn check_samples(graph: &Graph, Case { inputs, outputs }: &Case) -> Result<(), CheckError> {
    let bindings = interp::bind(graph, inputs)?;
    if outputs.is_empty() {
        return Ok(());
    }
    let (wanted, got) = (graph.outputs.len(), outputs.len());
    if wanted != got {
        return Err(CheckError::Expected(format!("the model has {wanted} outputs, and {got} are expected")));
    }
    for (i, (id, given)) in graph.outputs.iter().zip(outputs).enumerate() {
        let (name, ty) = (&graph.value(*id).name, graph.ty(*id));
        let shape = ty.shape.iter().map(|size| size.eval(&bindings)).collect::<Result<Vec<_>, _>>()?;
        if given.dtype != ty.dtype || !given.shape.iter().map(|n| *n as i64).eq(shape.iter().copied()) {
            let message =
                format!("output {i} (`{name}`) is {}{shape:?}, and {}{:?} is expected", ty.dtype, given.dtype, given.shape);
            return Err(CheckError::Expected(message));
        }
    }
    Ok(())
}

fn random_case(graph: &Graph) -> Result<Case, CheckError> {
    let smallest: Bindings = graph.dims.iter().map(|d| (d.sym.clone(), d.min)).collect();
    let mut shapes = Vec::new();
    for id in &graph.inputs {
        let value = graph.value(*id);
        let shape = value.ty.shape.iter().map(|e| e.eval(&smallest)).collect::<Result<Vec<i64>, _>>()?;
        let shape = shape.into_iter().map(usize::try_from).collect::<Result<Vec<usize>, _>>();
        shapes.push(shape.map_err(|_| CheckError::Negative(value.name.clone()))?);
    }
    let draw = |seed: u64, domains: &[Interval]| -> Vec<Tensor> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let each = graph.inputs.iter().zip(&shapes).zip(domains);
        each.map(|((id, shape), domain)| random_tensor(graph.ty(*id).dtype, shape.clone(), *domain, &mut rng)).collect()
    };
    // The first draw knows nothing of the graph; where it will do, so it stays.
    let mut domains = vec![Interval::ALL; graph.inputs.len()];
    let (mut best, mut refused): (Option<(usize, Case)>, _) = (None, None);
    for attempt in 0..=REDRAWS {
        let inputs = draw(SEED + attempt, &domains);
        match interp::run(graph, &inputs) {
            Ok(outputs) => {
                let lost = outputs.iter().map(not_finite).sum::<usize>();
                if best.as_ref().is_none_or(|(least, _)| lost < *least) {
                    best = Some((lost, Case { inputs, outputs }));
                }
                if lost == 0 {
                    break;
                }
            }
            Err(error @ InterpError::Node { .. }) => refused = Some(error),
            Err(error) => return Err(error.into()),
        }
        if attempt == 0 {
            domains = domain::of_inputs(graph, &smallest);
        }
    }
    match (best, refused) {
        (Some((lost, case)), _) if lost == 0 || case.outputs.iter().any(|t| not_finite(t) < t.len()) => Ok(case),
        (Some((_, case)), _) => {
            let inputs = names_of(graph, reaching(graph, &graph.outputs));
            Err(CheckError::NoInputs { inputs, why: format!("none of its {} outputs holds a finite number", case.outputs.len()) })
        }
        (None, Some(error)) => Err(CheckError::NoInputs {
            inputs: names_of(graph, reaching(graph, &refusing(graph, &error))),
            why: error.to_string(),
        }),
        (None, None) => unreachable!("an attempt gives a case or was refused"),
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
                Def::Weight(_) => {}
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
