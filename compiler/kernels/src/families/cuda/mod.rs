//! The families for NVIDIA GPUs. Their templates are in `kernels/cuda/`.

pub(super) mod attention;
pub(super) mod bmm_mma;
pub(super) mod conv_depthwise;
pub(super) mod conv_mma;
pub(super) mod conv_naive;
pub(super) mod conv_patch;
pub(super) mod conv_stem;
pub(super) mod conv_wgmma;
pub(super) mod gemm_simt;
mod geometry;
pub(super) mod loops;
pub(super) mod matmul_naive;
mod mma;
pub(super) mod pool_image;
pub(super) mod pool_naive;
pub(super) mod rows;
pub(super) mod vendor;
