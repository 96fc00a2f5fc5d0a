//! The families for NVIDIA GPUs.

pub mod attention_flash;
pub mod attention_naive;
pub mod bmm_mma;
pub mod conv_depthwise;
pub mod conv_mma;
pub mod conv_naive;
pub mod conv_patch;
pub mod conv_stem;
pub mod conv_wgmma;
pub mod gemm_simt;
pub mod loops;
pub mod matmul_naive;
pub mod pool_image;
pub mod pool_naive;
pub mod rows;
pub mod rows_naive;
mod shared;
pub mod vendor;
