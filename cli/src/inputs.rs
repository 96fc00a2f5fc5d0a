//! Random inputs for artifacts.

use std::collections::BTreeMap;

use aotfarm_protocol::{ArtifactMetadata, DType};
use aotfarm_runtime::Tensor;

use crate::failure::Failure;

/// Inputs of the artifact at the given sizes: normal numbers for floats, small counting numbers for
/// integers.
pub(crate) fn random_inputs(metadata: &ArtifactMetadata, sizes: &BTreeMap<String, i64>) -> anyhow::Result<Vec<Tensor>> {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    metadata
        .inputs
        .iter()
        .map(|port| {
            let shape = port.shape_at(sizes).map_err(|e| {
                Failure::input(format!("input `{}`: {e}", port.name)).hint("give other sizes with --at, or inputs with --input")
            })?;
            let count: i64 = shape.iter().product();
            let bytes: Vec<u8> = (0..count).flat_map(|_| element(port.dtype, &mut state)).collect();
            Ok(Tensor::new(port.dtype, shape, bytes)?)
        })
        .collect()
}

/// SplitMix64 (Steele, Lea and Flood, 2014): enough for inputs whose values do not matter.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn element(dtype: DType, state: &mut u64) -> Vec<u8> {
    // The sum of twelve uniform numbers less six is close to normal.
    let mut normal = || (0..12).map(|_| (next(state) >> 11) as f64 / (1u64 << 53) as f64).sum::<f64>() - 6.0;
    match dtype {
        DType::F32 => (normal() as f32).to_le_bytes().to_vec(),
        DType::F64 => normal().to_le_bytes().to_vec(),
        DType::F16 => half::f16::from_f64(normal()).to_le_bytes().to_vec(),
        DType::Bf16 => half::bf16::from_f64(normal()).to_le_bytes().to_vec(),
        DType::Bool => vec![(next(state) & 1) as u8],
        // Integers are mostly indices; small ones are inside every table.
        DType::I8 | DType::U8 | DType::I16 | DType::I32 | DType::I64 => (next(state) % 16).to_le_bytes()[..dtype.size()].to_vec(),
    }
}
