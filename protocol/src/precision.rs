//! What is computed in.

use std::fmt;

use serde::{Deserialize, Serialize};

/// In what type a GPU stores activations and weights, and multiplies. Sums are always in f32, and so is everything between load and store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// f32 throughout; the default, and the only one on CPUs.
    #[default]
    Fp32,
    /// Stored as f32, multiplied with 10 bits of mantissa.
    Tf32,
    /// Stored and multiplied as bfloat16.
    Bf16,
    /// Stored and multiplied as IEEE half.
    Fp16,
}

impl Precision {
    /// Largest relative L2 error of a whole model's output against f64 that rounding explains.
    pub const fn tolerance(self) -> f64 {
        match self {
            Self::Fp32 => 1e-5,
            Self::Tf32 => 5e-3,
            Self::Fp16 => 1e-2,
            Self::Bf16 => 5e-2,
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Fp32 => "fp32",
            Self::Tf32 => "tf32",
            Self::Bf16 => "bf16",
            Self::Fp16 => "fp16",
        })
    }
}
