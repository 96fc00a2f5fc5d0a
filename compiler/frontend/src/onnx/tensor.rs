//! Tensors of an ONNX file: typed fields, raw bytes, or a part of another file.

use std::sync::Arc;

use aotfarm_protocol::DType;

use super::super::{External, SharedBytes};
use super::proto::TensorProto;
use aotfarm_ir::{Expr, TensorData, TensorType};

/// Elements up to which an integer tensor is followed symbolically.
pub(super) const SMALL: usize = 64;

/// What a slice that goes to the end is taken to end at.
pub(super) const OPEN_END: i64 = 1 << 62;

/// The elements of a small integer tensor, as expressions.
#[derive(Debug, Clone)]
pub(super) struct Sizes {
    pub(super) values: Vec<Expr>,
    /// Whether it has rank 0.
    pub(super) scalar: bool,
    /// I32 or I64.
    pub(super) dtype: DType,
}

impl Sizes {
    /// Whether an element is only near what the file says: an end that is open.
    pub(super) fn is_open(&self) -> bool {
        self.values.iter().any(|n| n.as_const().is_some_and(|n| n.abs() >= OPEN_END))
    }
}

/// The element type of `TensorProto.DataType`.
pub(super) fn dtype(number: i32) -> Result<DType, String> {
    Ok(match number {
        1 => DType::F32,
        2 => DType::U8,
        3 => DType::I8,
        5 => DType::I16,
        6 => DType::I32,
        7 => DType::I64,
        9 => DType::Bool,
        10 => DType::F16,
        11 => DType::F64,
        16 => DType::Bf16,
        other => return Err(format!("element type number {other} is not supported")),
    })
}

struct Raw(prost::bytes::Bytes);

impl AsRef<[u8]> for Raw {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Type and data of a tensor.
pub(super) fn read(proto: &TensorProto, external: External<'_>) -> Result<(TensorType, TensorData), String> {
    let dtype = dtype(proto.data_type)?;
    if proto.dims.iter().any(|&d| d < 0) {
        return Err(format!("its shape {:?} is negative", proto.dims));
    }
    let count = proto.dims.iter().try_fold(1i64, |n, &d| n.checked_mul(d)).ok_or("its shape overflows")?;
    let ty = TensorType { dtype, shape: proto.dims.iter().map(|&d| Expr::from(d)).collect() };
    let data = if proto.data_location == 1 {
        beside(proto, external, count.checked_mul(dtype.size() as i64).ok_or("its shape overflows")?)?
    } else if !proto.raw_data.is_empty() || count == 0 {
        let len = proto.raw_data.len();
        TensorData::slice_of(Arc::new(Raw(proto.raw_data.clone())), 0, len)
    } else {
        TensorData::new(typed(proto, dtype))
    };
    Ok((ty, data))
}

/// The typed fields: 32-bit integers also carry the narrower types and the bits of 16-bit floats.
fn typed(proto: &TensorProto, dtype: DType) -> Vec<u8> {
    let narrow = |size: usize| proto.int32_data.iter().flat_map(|n| n.to_le_bytes()[..size].to_vec()).collect();
    match dtype {
        DType::F32 => proto.float_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DType::F64 => proto.double_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DType::I64 => proto.int64_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        _ => narrow(dtype.size()),
    }
}

fn beside(proto: &TensorProto, external: External<'_>, wanted: i64) -> Result<TensorData, String> {
    let field = |key: &str| proto.external_data.iter().find(|e| e.key == key).map(|e| e.value.as_str());
    let location = field("location").ok_or("its external data has no location")?;
    if location.starts_with('/') || location.split(['/', '\\']).any(|part| part == "..") {
        return Err(format!("its external data `{location}` lies outside the model's folder"));
    }
    let number = |key: &str, default: u64| {
        field(key).map_or(Ok(default), |v| v.parse::<u64>().map_err(|_| format!("its {key} `{v}` is not a number")))
    };
    let (offset, length) = (number("offset", 0)?, number("length", wanted as u64)?);
    let file: SharedBytes = external(location).map_err(|e| format!("its data is in `{location}`: {e}"))?;
    let size = (*file).as_ref().len() as u64;
    match offset.checked_add(length) {
        Some(end) if end <= size => Ok(TensorData::slice_of(file, offset as usize, length as usize)),
        _ => Err(format!("its {length} bytes at offset {offset} are not in `{location}` of {size} bytes")),
    }
}

/// The elements of a small integer tensor of rank 0 or 1.
pub(super) fn small_integers(proto: &TensorProto, external: External<'_>) -> Option<Sizes> {
    let scalar = proto.dims.is_empty();
    let count: i64 = proto.dims.iter().product();
    if proto.dims.len() > 1 || !(0..=SMALL as i64).contains(&count) {
        return None;
    }
    let (ty, data) = read(proto, external).ok()?;
    let bytes = data.bytes();
    let values = match ty.dtype {
        DType::I64 => {
            bytes.chunks_exact(8).map(|b| open_end(i64::from_le_bytes(b.try_into().expect("eight bytes")))).collect::<Vec<_>>()
        }
        DType::I32 => {
            bytes.chunks_exact(4).map(|b| Expr::from(i64::from(i32::from_le_bytes(b.try_into().expect("four bytes"))))).collect()
        }
        _ => return None,
    };
    (values.len() as i64 == count).then_some(Sizes { values, scalar, dtype: ty.dtype })
}

/// The ends of i64 stand for "to the end" in slices; an expression holds only numbers that arithmetic may still be done on.
pub(super) fn open_end(n: i64) -> Expr {
    Expr::from(n.clamp(-OPEN_END, OPEN_END))
}
