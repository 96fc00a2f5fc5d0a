//! Numbers of the interfaces of NVIDIA's libraries, for the workers that measure calls and for the
//! artifacts that make them: each is said once, and given to both.

/// Constants of Rust, and `C`, the same with a prefix as macros of C.
macro_rules! constants {
    ($prefix:literal: $($(#[$about:meta])* $name:ident: $ty:ty = $value:literal;)*) => {
        $($(#[$about])* pub const $name: $ty = $value;)*

        /// All of them in C, which [`crate::artifact::source::VENDOR`] expects.
        pub const C: &str = concat!($("#define ", $prefix, stringify!($name), " ", $value, "\n",)* "\n");
    };
}

/// cuDNN 9, <https://docs.nvidia.com/deeplearning/cudnn/backend/latest/api/cudnn-cnn-library.html>.
#[expect(missing_docs, reason = "NVIDIA's documentation says what each is")]
pub mod cudnn {
    constants! { "RT_DNN_":
        /// `cudnnTensorFormat_t`.
        NHWC: i32 = 1;
        /// `cudnnConvolutionMode_t`.
        CROSS_CORRELATION: i32 = 1;
        /// `cudnnDataType_t`.
        FLOAT: i32 = 0;
        HALF: i32 = 2;
        BFLOAT16: i32 = 9;
        /// `cudnnMathType_t`.
        TENSOR_OP_MATH: i32 = 1;
        FMA_MATH: i32 = 3;
        /// `cudnnActivationMode_t`.
        RELU: i32 = 1;
        IDENTITY: i32 = 5;
        /// The algorithm that works for all, and the only one that takes an identity for its
        /// activation.
        IMPLICIT_PRECOMP_GEMM: i32 = 1;
    }
}

/// cuBLASLt 12 and 13, <https://docs.nvidia.com/cuda/cublas/#using-the-cublaslt-api>.
#[expect(missing_docs, reason = "NVIDIA's documentation says what each is")]
pub mod cublaslt {
    constants! { "RT_":
        /// `cudaDataType_t`.
        R_32F: i32 = 0;
        R_16F: i32 = 2;
        R_16BF: i32 = 14;
        /// `cublasComputeType_t`.
        COMPUTE_32F: i32 = 68;
        COMPUTE_32F_FAST_TF32: i32 = 77;
        /// `cublasOperation_t`.
        TRANSPOSE: i32 = 1;
        /// `cublasLtMatmulDescAttributes_t`.
        PRODUCT_TRANSA: i32 = 3;
        PRODUCT_EPILOGUE: i32 = 7;
        PRODUCT_BIAS: i32 = 8;
        /// `cublasLtEpilogue_t`: one of the first three, and the last one added.
        EPILOGUE_DEFAULT: i32 = 1;
        EPILOGUE_RELU: i32 = 2;
        EPILOGUE_GELU: i32 = 32;
        EPILOGUE_BIAS: i32 = 4;
        /// `cublasLtMatrixLayoutAttribute_t`.
        MATRIX_BATCH: i32 = 5;
        MATRIX_STRIDE: i32 = 6;
        /// `cublasLtMatmulPreferenceAttributes_t`.
        PREFER_WORKSPACE: i32 = 1;
        /// Of a; b, c and d follow.
        PREFER_ALIGNMENT: i32 = 5;

        // What is asked for where an algorithm is chosen. An artifact knows its algorithm by its
        // place among the proposals, so it must get those that were measured.
        /// How many are asked for, and tried.
        PROPOSALS: usize = 4;
        /// Memory that one may ask for: what NVIDIA recommends for Hopper.
        PROPOSAL_BYTES: usize = 33_554_432;
        /// What is sure of the addresses of an artifact's operands.
        PROPOSAL_ALIGN: u32 = 16;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c_is_told_what_rust_is() {
        for line in ["#define RT_DNN_BFLOAT16 9\n", "#define RT_DNN_IMPLICIT_PRECOMP_GEMM 1\n"] {
            assert!(cudnn::C.contains(line), "{}", cudnn::C);
        }
        for line in ["#define RT_EPILOGUE_GELU 32\n", "#define RT_PROPOSAL_BYTES 33554432\n"] {
            assert!(cublaslt::C.contains(line), "{}", cublaslt::C);
        }
    }
}
