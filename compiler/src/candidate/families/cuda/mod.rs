//! The families for NVIDIA GPUs. Their templates are in `kernels/cuda/`.

pub(super) mod conv_naive;
mod geometry;
