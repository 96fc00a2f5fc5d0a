//! The families, in order: earlier families win ties.

use super::CandidateFamily;

mod conv_depthwise;
mod conv_direct;
mod conv_geometry;
mod conv_im2col;
mod conv_naive;
mod conv_stem;
mod conv_stem_winograd;
#[cfg(test)]
mod conv_tests;
mod conv_winograd;
mod cuda;
mod loops;
mod matmul;
mod matmul_gemm;
mod matmul_gemv;
mod matmul_naive;
mod pool;
mod rows;

pub use cuda::vendor::baseline;

/// Every family. Order is input to tie-breaks, and the first family that supports a task is its naive one.
pub static FAMILIES: &[&dyn CandidateFamily] = &[
    &conv_naive::ConvNaive,
    &conv_direct::ConvDirect,
    &conv_winograd::ConvWinograd,
    &conv_depthwise::ConvDepthwise,
    &conv_stem::ConvStem,
    &conv_stem_winograd::ConvStemWinograd,
    &conv_im2col::ConvIm2col,
    &loops::Loops,
    &loops::LoopsLanes,
    &matmul_naive::MatMulNaive,
    &matmul_gemm::MatMulGemm,
    &matmul_gemv::MatMulGemv,
    &pool::PoolNaive,
    &pool::PoolImage,
    &rows::RowsNaive,
    &rows::RowsVec,
    &cuda::conv_naive::ConvNaive,
    &cuda::conv_mma::ConvMma,
    &cuda::conv_patch::ConvPatch,
    &cuda::loops::LoopsNaive,
    &cuda::loops::Loops,
    &cuda::matmul_naive::MatMulNaive,
    &cuda::conv_mma::MatMulMma,
    &cuda::pool_naive::PoolNaive,
    &cuda::rows::RowsNaive,
    &cuda::rows::Rows,
    &cuda::conv_wgmma::ConvWgmma,
    &cuda::conv_stem::ConvStem,
    &cuda::conv_depthwise::ConvDepthwise,
    &cuda::pool_image::PoolImage,
    &cuda::gemm_simt::ConvSimt,
    &cuda::gemm_simt::MatMulSimt,
    &cuda::bmm_mma::BmmMma,
    &cuda::attention::AttentionNaive,
    &cuda::attention::AttentionFlash,
];
