//! Reading and making constants.

use aotfarm_protocol::DType;

use aotfarm_ir::{Def, Graph, Number, Op, TensorData, TensorType, ValueId};

/// The number that every element of a value is, when that is known.
pub(super) fn uniform(graph: &Graph, id: ValueId) -> Option<Number> {
    let value = graph.value(id);
    match &value.def {
        Def::Weight(data) => {
            let (bytes, size) = (data.bytes(), value.ty.dtype.size());
            let first = bytes.get(..size)?;
            bytes.chunks_exact(size).all(|element| element == first).then(|| Number::read(value.ty.dtype, bytes)).flatten()
        }
        Def::Node(n) => match graph.nodes[*n].op {
            Op::Full { value, .. } => Some(value),
            _ => None,
        },
        Def::Input(_) | Def::State(_) => None,
    }
}

/// The values of an f32 weight.
pub(super) fn f32_weight(graph: &Graph, id: ValueId) -> Option<Vec<f32>> {
    let value = graph.value(id);
    match &value.def {
        Def::Weight(data) if value.ty.dtype == DType::F32 => Some(data.to_f32()),
        _ => None,
    }
}

/// Type and data of an f32 constant.
pub(super) fn f32_tensor(shape: &[i64], values: &[f32]) -> (TensorType, TensorData) {
    (TensorType::new(DType::F32, shape.iter().copied()), TensorData::from_f32(values))
}
