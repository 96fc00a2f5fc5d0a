//! The C ABI of artifacts in the words of this crate.

use aotfarm_protocol::DType;

pub(crate) use aotfarm_abi::artifact::*;

/// DLPack's spelling of an element type.
pub(crate) const fn dl_dtype(dtype: DType) -> DlDataType {
    let code = match dtype {
        DType::I8 | DType::I16 | DType::I32 | DType::I64 => 0,
        DType::U8 => 1,
        DType::F16 | DType::F32 | DType::F64 => 2,
        DType::Bf16 => 4,
        DType::Bool => 6,
    };
    DlDataType { code, bits: dtype.size() as u8 * 8, lanes: 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn element_types_have_the_codes_of_the_header() {
        // `enum { kDLInt = 0, kDLUInt = 1, kDLFloat = 2, kDLBfloat = 4, kDLBool = 6 }`
        let names = ["kDLInt", "kDLUInt", "kDLFloat", "kDLBfloat", "kDLBool"];
        for (dtype, name) in [DType::I64, DType::U8, DType::F16, DType::Bf16, DType::Bool].into_iter().zip(names) {
            assert!(AOTFARM_H.contains(&format!("{name} = {}", dl_dtype(dtype).code)), "{name}");
        }
    }
}
