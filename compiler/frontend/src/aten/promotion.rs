//! torch's type promotion (<https://docs.pytorch.org/docs/stable/tensor_attributes.html#type-promotion-doc>).

use aotfarm_protocol::DType;

/// How much an operand has to say: one of a lower priority widens the type of the others only to another kind (Bool, integer,
/// floating point).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Priority {
    /// A number of Python.
    Number,
    /// A tensor of rank 0.
    Scalar,
    /// A tensor with dimensions.
    Dimensioned,
}

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
    match (a, b) {
        _ if kind(a) < kind(b) => b,
        _ if kind(a) > kind(b) => a,
        (DType::F16, DType::Bf16) | (DType::Bf16, DType::F16) => DType::F32,
        (DType::U8, DType::I8) | (DType::I8, DType::U8) => DType::I16,
        _ if a.size() >= b.size() => a,
        _ => b,
    }
}

/// The type that operands have together, torch's `result_type`; `None` for no operands.
pub(super) fn result_type(operands: impl IntoIterator<Item = (DType, Priority)>) -> Option<DType> {
    let mut found = [None; 3];
    for (dtype, priority) in operands {
        let together = &mut found[priority as usize];
        *together = Some(together.map_or(dtype, |other| promote(other, dtype)));
    }
    found.into_iter().reduce(|lower, higher| match (higher, lower) {
        (Some(higher), Some(lower)) if kind(higher) < kind(lower) => Some(lower),
        _ => higher.or(lower),
    })?
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every line of the table that torch has made: operands, as `f16` for a tensor with dimensions, `f16[]` for one without and
    /// `2.5` for a number, then the type of their result.
    #[test]
    fn operands_have_the_type_that_torch_gives_them() {
        let table = include_str!("../../../../tests/fixtures/promotion.txt");
        let mut lines = 0;
        for line in table.lines().filter(|line| !line.starts_with('#')) {
            let (operands, wanted) = line.split_once(" -> ").expect("operands and a result");
            let read = |word: &str| match word.strip_suffix("[]") {
                Some(dtype) => (dtype.parse().expect("a type"), Priority::Scalar),
                None => match word {
                    "True" => (DType::Bool, Priority::Number),
                    "3" => (DType::I64, Priority::Number),
                    "2.5" => (DType::F32, Priority::Number),
                    dtype => (dtype.parse().expect("a type"), Priority::Dimensioned),
                },
            };
            let got = result_type(operands.split(' ').map(read)).expect("operands");
            assert_eq!(got, wanted.parse().expect("a type"), "{line}");
            lines += 1;
        }
        assert!(lines > 1000, "{lines} lines");
    }
}
