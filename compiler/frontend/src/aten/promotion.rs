//! torch's type promotion (<https://docs.pytorch.org/docs/stable/tensor_attributes.html#type-promotion-doc>).

use std::cmp::Ordering;

use aotfarm_protocol::DType;

/// Boolean, integer, floating point.
fn kind(dtype: DType) -> u8 {
    match dtype {
        DType::Bool => 0,
        _ if dtype.is_float() => 2,
        _ => 1,
    }
}

/// The type that two tensors of these types have together.
pub(super) fn promote(a: DType, b: DType) -> DType {
    if a == b {
        return a;
    }
    match kind(a).cmp(&kind(b)) {
        Ordering::Less => b,
        Ordering::Greater => a,
        Ordering::Equal => match (a, b) {
            (DType::F16, DType::Bf16) | (DType::Bf16, DType::F16) => DType::F32,
            (DType::U8, DType::I8) | (DType::I8, DType::U8) => DType::I16,
            _ if a.size() >= b.size() => a,
            _ => b,
        },
    }
}

/// [`promote`] of two operands, each with whether it has rank 0: such a one only widens the other across kinds.
pub(super) fn common((a, a_is_scalar): (DType, bool), (b, b_is_scalar): (DType, bool)) -> DType {
    match (a_is_scalar, b_is_scalar) {
        (false, true) if kind(b) <= kind(a) => a,
        (true, false) if kind(a) <= kind(b) => b,
        _ => promote(a, b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_widen_and_scalars_only_across_them() {
        assert_eq!(promote(DType::F16, DType::Bf16), DType::F32);
        assert_eq!(promote(DType::I64, DType::F16), DType::F16);
        assert_eq!(promote(DType::Bool, DType::U8), DType::U8);
        assert_eq!(common((DType::F16, false), (DType::F32, true)), DType::F16);
        assert_eq!(common((DType::I32, false), (DType::F32, true)), DType::F32);
        assert_eq!(common((DType::F16, false), (DType::F32, false)), DType::F32);
    }
}
