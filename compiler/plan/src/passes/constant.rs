//! Reading and making constants.

use aotfarm_protocol::DType;
use half::{bf16, f16};

use aotfarm_ir::{Def, Graph, Op, TensorData, TensorType, ValueId};

/// The first element of a tensor's bytes as a number, when it is one that f64 holds exactly.
pub(crate) fn first_element(dtype: DType, bytes: &[u8]) -> Option<f64> {
    let chunk = bytes.get(..dtype.size())?;
    let exact = |n: i64| (n.unsigned_abs() < 1 << 53).then_some(n as f64);
    match dtype {
        DType::F32 => Some(f32::from_le_bytes(chunk.try_into().ok()?).into()),
        DType::F64 => Some(f64::from_le_bytes(chunk.try_into().ok()?)),
        DType::F16 => Some(f16::from_le_bytes(chunk.try_into().ok()?).into()),
        DType::Bf16 => Some(bf16::from_le_bytes(chunk.try_into().ok()?).into()),
        DType::I8 => Some(f64::from(i8::from_le_bytes(chunk.try_into().ok()?))),
        DType::U8 => Some(f64::from(chunk[0])),
        DType::Bool => Some(f64::from(u8::from(chunk[0] != 0))),
        DType::I16 => Some(f64::from(i16::from_le_bytes(chunk.try_into().ok()?))),
        DType::I32 => Some(f64::from(i32::from_le_bytes(chunk.try_into().ok()?))),
        DType::I64 => exact(i64::from_le_bytes(chunk.try_into().ok()?)),
    }
}

/// The number that every element of a value is, when that is known.
pub(super) fn uniform(graph: &Graph, id: ValueId) -> Option<f64> {
    let value = graph.value(id);
    match &value.def {
        Def::Weight(data) => {
            let (bytes, size) = (data.bytes(), value.ty.dtype.size());
            let first = bytes.get(..size)?;
            bytes.chunks_exact(size).all(|element| element == first).then(|| first_element(value.ty.dtype, bytes)).flatten()
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
