//! The constants of a plan: equal ones once, in the form that the target's kernels read.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};

use aotfarm_protocol::{DType, Precision};

use aotfarm_ir::TensorData;

use crate::plan::{PlanWeight, WeightId};

/// Finds weights with equal bytes.
#[derive(Default)]
pub(super) struct Weights {
    hasher: RandomState,
    known: HashMap<u64, Vec<WeightId>>,
}

impl Weights {
    /// The weight with these bytes; new ones are appended.
    pub(super) fn add(
        &mut self,
        all: &mut Vec<PlanWeight>,
        name: &str,
        dtype: DType,
        shape: Vec<i64>,
        data: &TensorData,
    ) -> WeightId {
        let bytes = data.bytes();
        // A sample finds the few that are worth comparing in full.
        let sample = (bytes.len(), &bytes[..bytes.len().min(256)], &bytes[bytes.len() - bytes.len().min(256)..]);
        let hash = {
            let mut state = self.hasher.build_hasher();
            (sample, dtype, &shape).hash(&mut state);
            std::hash::Hasher::finish(&state)
        };
        let same = self.known.entry(hash).or_default();
        let equal = |id: &&WeightId| {
            let known = &all[id.0 as usize];
            known.dtype == dtype && known.shape == shape && known.data.bytes() == bytes
        };
        if let Some(id) = same.iter().find(equal) {
            return *id;
        }
        let id = WeightId(all.len() as u32);
        all.push(PlanWeight { name: name.to_owned(), dtype, shape, data: data.clone() });
        same.push(id);
        id
    }
}

/// The type in which a GPU stores activations and multiplies weights.
pub(super) const fn storage(precision: Precision) -> DType {
    match precision {
        Precision::Fp32 | Precision::Tf32 => DType::F32,
        Precision::Bf16 => DType::Bf16,
        Precision::Fp16 => DType::F16,
    }
}

/// f32 values as a GPU's kernels multiply them: converted to [`storage`], or rounded to 10 bits of mantissa.
pub(super) fn converted(values: &[f32], precision: Precision) -> TensorData {
    match precision {
        Precision::Fp32 => TensorData::from_f32(values),
        Precision::Tf32 => TensorData::from_f32(&values.iter().map(|x| tf32(*x)).collect::<Vec<_>>()),
        Precision::Bf16 => TensorData::new(values.iter().flat_map(|x| half::bf16::from_f32(*x).to_le_bytes()).collect()),
        Precision::Fp16 => TensorData::new(values.iter().flat_map(|x| half::f16::from_f32(*x).to_le_bytes()).collect()),
    }
}

/// To the nearest number with 10 bits of mantissa, halves away from zero, as `cvt.rna.tf32.f32` does.
fn tf32(x: f32) -> f32 {
    if x.is_finite() { f32::from_bits((x.to_bits() + 0x1000) & !0x1FFF) } else { x }
}

/// `[O, C, KH, KW]` to `[O, KH, KW, channels]`: the channels of a tap lie together, as they do in an image of a GPU. Those past C are zero.
pub(super) fn channels_last(values: &[f32], [o, c, kh, kw]: [usize; 4], channels: usize) -> Vec<f32> {
    let taps = kh * kw;
    let mut result = vec![0.0; o * taps * channels];
    for filter in 0..o {
        for channel in 0..c {
            for tap in 0..taps {
                result[(filter * taps + tap) * channels + channel] = values[(filter * c + channel) * taps + tap];
            }
        }
    }
    result
}

/// `[rows, columns]` to `[columns, rows]`.
pub(super) fn transposed(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|j| (0..rows).map(move |i| values[i * columns + j])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_rounded_to_nearest() {
        // 1 + 2^-11 lies halfway between 1 and the next number with 10 bits.
        assert_eq!(tf32(1.0 + 2f32.powi(-11)), 1.0 + 2f32.powi(-10));
        assert_eq!(tf32(-1.0 - 2f32.powi(-12)), -1.0);
        assert!(tf32(f32::NAN).is_nan());
        assert_eq!(converted(&[1.0, -2.0], Precision::Bf16).bytes(), [0x80, 0x3F, 0x00, 0xC0]);
        assert_eq!(converted(&[1.0, -2.0], Precision::Fp16).bytes(), [0x00, 0x3C, 0x00, 0xC0]);
    }

    #[test]
    fn weights_are_permuted_and_padded() {
        let values: Vec<f32> = (0..12).map(|n| n as f32).collect();
        // One filter of 3 channels and 2x2 taps.
        let expected = [0., 4., 8., 0., 1., 5., 9., 0., 2., 6., 10., 0., 3., 7., 11., 0.];
        assert_eq!(channels_last(&values, [1, 3, 2, 2], 4), expected);
        assert_eq!(transposed(&values[..6], 2, 3), [0., 3., 1., 4., 2., 5.]);
    }
}
