//! What NVIDIA's libraries are to do in place of a kernel: with which they are compared, and what an artifact calls when its job allows that.

use serde::{Deserialize, Serialize};

use crate::DType;

/// A library of NVIDIA's, opened where it is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum VendorLibrary {
    /// Convolutions.
    Cudnn,
    /// Matrix products.
    CublasLt,
}

impl VendorLibrary {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Cudnn, Self::CublasLt];

    /// As people write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cudnn => "cuDNN",
            Self::CublasLt => "cuBLASLt",
        }
    }

    /// How the names of its files begin.
    pub const fn file(self) -> &'static str {
        match self {
            Self::Cudnn => "libcudnn.so",
            Self::CublasLt => "libcublasLt.so",
        }
    }

    /// What an artifact opens, for people and the loader.
    pub const fn needed(self) -> &'static str {
        match self {
            Self::Cudnn => "libcudnn.so.9",
            Self::CublasLt => "libcublasLt.so.13 or libcublasLt.so.12",
        }
    }

    /// The environment variable that names another file; an empty one means none.
    pub const fn variable(self) -> &'static str {
        match self {
            Self::Cudnn => "AOTFARM_CUDNN",
            Self::CublasLt => "AOTFARM_CUBLASLT",
        }
    }
}

/// A size of a call: a constant times dynamic sizes. A value and not a function, so that workers and artifacts can evaluate it for sizes that
/// are only known at run time.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Extent {
    /// The constant part.
    pub factor: i64,
    /// Indices of the dynamic sizes that it is multiplied by.
    pub dims: Vec<usize>,
}

impl Extent {
    /// So many, whatever the sizes.
    pub const fn fixed(size: i64) -> Self {
        Self { factor: size, dims: Vec::new() }
    }

    /// The size at the given dims; `None` beyond 64 bits, or when a dim does not exist.
    pub fn at(&self, dims: &[i64]) -> Option<i64> {
        self.dims.iter().try_fold(self.factor, |size, k| size.checked_mul(*dims.get(*k)?))
    }
}

/// What a library is to do. All operands are those of the task, with f32 biases; sums are in f32.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(tag = "call", rename_all = "snake_case")]
pub enum VendorCall {
    /// By cuDNN.
    Conv(VendorConv),
    /// By cuBLASLt.
    MatMul(VendorMatMul),
}

impl VendorCall {
    /// Whose it is.
    pub const fn library(&self) -> VendorLibrary {
        match self {
            Self::Conv(_) => VendorLibrary::Cudnn,
            Self::MatMul(_) => VendorLibrary::CublasLt,
        }
    }

    /// Whether the second factor is the first weight, and not the second input. The first factor is the first input.
    pub const fn multiplies_weight(&self) -> bool {
        match self {
            Self::Conv(_) => true,
            Self::MatMul(product) => product.b_is_weight,
        }
    }

    /// Which weight is the bias.
    pub const fn bias(&self) -> Option<usize> {
        match self {
            Self::Conv(conv) => Some(conv.bias),
            Self::MatMul(product) => product.bias,
        }
    }

    /// Which input is added.
    pub const fn residual(&self) -> Option<usize> {
        match self {
            Self::Conv(conv) => conv.residual,
            Self::MatMul(product) => product.residual,
        }
    }
}

/// A convolution as cuDNN takes it: NHWC images and OHWI filters of one type, then bias, residual and ReLU.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct VendorConv {
    /// Element type of images and filters.
    pub dtype: DType,
    /// Images.
    pub batch: Extent,
    /// Channels, rows and columns of x.
    pub input: [i64; 3],
    /// Channels, rows and columns of the result.
    pub output: [i64; 3],
    /// Rows and columns of a filter.
    pub kernel: [i64; 2],
    /// Steps down and to the right.
    pub stride: [i64; 2],
    /// Zeros above and on the left, as many as below and on the right.
    pub pad: [i64; 2],
    /// Distance of neighbouring taps.
    pub dilation: [i64; 2],
    /// f32 may be multiplied with 10 bits of mantissa.
    pub tf32: bool,
    /// Which weight is the bias.
    pub bias: usize,
    /// Which input is added before the ReLU.
    pub residual: Option<usize>,
    /// Whether there is a ReLU.
    pub relu: bool,
}

/// A matrix product as cuBLASLt takes it: row-major `[batch, m, k]` times `[batch, k, n]`, then bias, residual and activation.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct VendorMatMul {
    /// Element types of both factors, and of residual and result.
    pub dtypes: [DType; 2],
    /// Matrices.
    pub batch: Extent,
    /// Rows of the result.
    pub m: Extent,
    /// Columns of the result.
    pub n: Extent,
    /// Terms of a sum.
    pub k: Extent,
    /// Whether b is the first weight, and not the second input.
    pub b_is_weight: bool,
    /// Whether b is `[batch, n, k]`.
    pub b_transposed: bool,
    /// f32 may be multiplied with 10 bits of mantissa.
    pub tf32: bool,
    /// Which weight, of n elements, is added to every row.
    pub bias: Option<usize>,
    /// Which input is added before the activation.
    pub residual: Option<usize>,
    /// What follows.
    pub activation: Activation,
}

/// The functions that cuBLASLt applies to a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// None.
    None,
    /// The larger of x and 0.
    Relu,
    /// The tanh form of GELU.
    Gelu,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_follow_the_dims() {
        let size = Extent { factor: 3, dims: vec![1, 1] };
        assert_eq!(size.at(&[7, 4]), Some(48));
        assert_eq!(size.at(&[7]), None);
        assert_eq!(size.at(&[0, i64::MAX]), None);
        assert_eq!(Extent::fixed(5).at(&[]), Some(5));
    }
}
