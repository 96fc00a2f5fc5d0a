//! The case that every artifact of a graph must reproduce before it is published.

use aotfarm_ir::interp::{self, InterpError, Results, Tensor};
use aotfarm_ir::{Bindings, EvalError, Graph};
use aotfarm_protocol::DType;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// Seed of the inputs: `aotfarm`, so that a resubmitted graph has the same case.
const SEED: u64 = 0x616f_7466_6172_6d00;
/// Calls of a model with states: the last one reads what a call has made of what another call had left.
const CALLS: usize = 3;

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
}

/// What the calls of one fresh session take and leave, one after the other: one call, or a few where there are states.
#[derive(Debug, Clone)]
pub struct CheckCase {
    calls: Vec<(Vec<Tensor>, Results)>,
}

impl CheckCase {
    /// The bytes of its file, as [`aotfarm_protocol::ProfileSpec::check`] describes it.
    pub fn write(&self) -> Vec<u8> {
        let mut tensors = Vec::new();
        for (call, (inputs, Results { outputs, writes, .. })) in self.calls.iter().enumerate() {
            let call = if call == 0 { String::new() } else { format!("{call}.") };
            for (kind, list) in [("in", inputs), ("out", outputs), ("write", writes)] {
                tensors.extend(list.iter().enumerate().map(|(i, t)| (format!("{call}{kind}.{i}"), t.clone())));
            }
        }
        interp::write_tensors(&tensors)
    }
}

/// Seeded random inputs at the smallest sizes that are not 0, with what the reference interpreter makes of them.
///
/// # Errors
/// When an input has no size there, or the interpreter cannot run the graph.
pub fn check_case(graph: &Graph) -> Result<CheckCase, CheckError> {
    // Of empty tensors nothing can be wrong.
    let smallest: Bindings = graph.dims.iter().map(|d| (d.sym.clone(), d.min.max(1))).collect();
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let (mut calls, mut states) = (Vec::new(), interp::initial(graph));
    for _ in 0..if states.is_empty() { 1 } else { CALLS } {
        let mut inputs = Vec::new();
        for id in &graph.inputs {
            let value = graph.value(*id);
            let shape = value.ty.shape.iter().map(|e| e.eval(&smallest)).collect::<Result<Vec<i64>, _>>()?;
            let shape = shape.into_iter().map(usize::try_from).collect::<Result<Vec<usize>, _>>();
            let shape = shape.map_err(|_| CheckError::Negative(value.name.to_string()))?;
            inputs.push(random_tensor(value.ty.dtype, shape, &mut rng));
        }
        let results = interp::run_from(graph, &inputs, &states)?;
        states.clone_from(&results.states);
        calls.push((inputs, results));
    }
    Ok(CheckCase { calls })
}

/// Floats have mean 0 and variance 1. Integers are 0 or 1, and the first of each row is 1: valid as
/// an index into any table, and as a mask that does not hide all.
fn random_tensor(dtype: DType, shape: Vec<usize>, rng: &mut ChaCha8Rng) -> Tensor {
    let count: usize = shape.iter().product();
    let row = shape.last().copied().unwrap_or(1).max(1);
    let mut data = Vec::with_capacity(count * dtype.size());
    for i in 0..count {
        if dtype.is_float() {
            let x: f32 = rng.random_range(-1.732..1.732);
            match dtype {
                DType::F16 => data.extend(half::f16::from_f32(x).to_le_bytes()),
                DType::Bf16 => data.extend(half::bf16::from_f32(x).to_le_bytes()),
                DType::F64 => data.extend(f64::from(x).to_le_bytes()),
                _ => data.extend(x.to_le_bytes()),
            }
        } else {
            let one = rng.random_range(0..2u8) | u8::from(i % row == 0);
            data.push(one);
            data.resize(data.len() + dtype.size() - 1, 0);
        }
    }
    Tensor { dtype, shape, data }
}

#[cfg(test)]
mod tests {
    use aotfarm_ir::{BinaryOp, Builder, Op, TensorData, TensorType};
    use safetensors::SafeTensors;

    use super::*;

    #[test]
    fn a_model_with_states_is_called_more_than_once() {
        let mut b = Builder::new("total");
        let x = b.input("x", TensorType::new(DType::F32, [2])).unwrap();
        let total = b.state("total", TensorType::new(DType::F32, [2]), TensorData::from_f32(&[0.0, 1.0])).unwrap();
        let sum = b.push(Op::Binary(BinaryOp::Add), &[total, x], "sum: add").unwrap();
        b.output(sum);
        b.next(total, sum);
        b.write_back(x, sum);
        let file = check_case(&b.finish().unwrap()).unwrap().write();
        let file = SafeTensors::deserialize(&file).unwrap();
        let values = |name: &str| TensorData::new(file.tensor(name).unwrap().data().to_vec()).to_f32();
        let mut names = file.names();
        names.sort_unstable();
        assert_eq!(
            names,
            ["1.in.0", "1.out.0", "1.write.0", "2.in.0", "2.out.0", "2.write.0", "in.0", "out.0", "write.0"],
            "the first call has the names that a worker without calls knows"
        );
        let mut total = vec![0.0, 1.0];
        for call in ["", "1.", "2."] {
            let x = values(&format!("{call}in.0"));
            total = total.iter().zip(x).map(|(t, x)| t + x).collect();
            assert_eq!(values(&format!("{call}out.0")), total);
            assert_eq!(values(&format!("{call}write.0")), total);
        }
    }

    #[test]
    fn integer_inputs_are_valid_indices_and_masks() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let t = random_tensor(DType::I64, vec![3, 4], &mut rng);
        let values: Vec<i64> = t.data.chunks(8).map(|c| i64::from_le_bytes(c.try_into().unwrap())).collect();
        assert_eq!(values.len(), 12);
        assert!(values.iter().all(|v| (0..2).contains(v)));
        assert!(values.chunks(4).all(|row| row[0] == 1));
    }
}
