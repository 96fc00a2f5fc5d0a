//! The families, in order.
//!
//! A family is one folder here, or in `cuda/` for GPUs, and one line in [`FAMILIES`]. To add
//! `conv_fast`:
//!
//! 1. `conv_fast/template.c.j2` (`template.cu.j2` for GPUs): the kernel, nearly C. The module
//!    `render` says what it may use.
//! 2. `conv_fast/mod.rs`: a unit struct `ConvFast` with [`CandidateFamily`]; its id is
//!    `conv_fast@1`. What it can do says `supports`, which points it has `enumerate`, and the
//!    template is embedded as `Template { name: "cpu/conv_fast.c.j2", text:
//!    include_str!("template.c.j2") }`. That name is no path, though it looks like one: it is a label
//!    that kernels carry and that stays for good, see `Template::name`. Sizes of caches, registers
//!    and the like come from `Machine`.
//! 3. Below: `mod conv_fast;`, and `&conv_fast::ConvFast` where it should stand among equals.
//! 4. `BLESS=1 cargo test -p aotfarm-kernels every_family`: writes `conv_fast/golden.c`
//!    (`golden.cu`), the rendering of its best point for a small task. Read it. `cargo test -p
//!    aotfarm-kernels` checks the family against the oracle on the tasks of `conformance/`; if none
//!    of them is for it, add one there.
//!
//! Families that share a template share its folder, which then has a `golden_<family>.c` for each.
//! What families of one kind share is in `shared/` (`cuda/shared/`); headers of the templates are
//! in the crate's `include/`.

use crate::family::CandidateFamily;

mod conv_depthwise;
mod conv_direct;
mod conv_im2col;
mod conv_naive;
mod conv_stem;
mod conv_stem_winograd;
#[cfg(test)]
mod conv_tests;
mod conv_winograd;
mod cuda;
mod loops;
mod matmul_gemm;
mod matmul_gemv;
mod matmul_naive;
mod pool_image;
mod pool_naive;
mod rows_naive;
mod rows_vec;
mod shared;

pub use cuda::vendor::baseline;

/// Every family. Order is input to tie-breaks, and the first family that supports a task is its
/// naive one.
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
    &pool_naive::PoolNaive,
    &pool_image::PoolImage,
    &rows_naive::RowsNaive,
    &rows_vec::RowsVec,
    &cuda::conv_naive::ConvNaive,
    &cuda::conv_mma::ConvMma,
    &cuda::conv_patch::ConvPatch,
    &cuda::loops::LoopsNaive,
    &cuda::loops::Loops,
    &cuda::matmul_naive::MatMulNaive,
    &cuda::conv_mma::MatMulMma,
    &cuda::pool_naive::PoolNaive,
    &cuda::rows_naive::RowsNaive,
    &cuda::rows::Rows,
    &cuda::conv_wgmma::ConvWgmma,
    &cuda::conv_stem::ConvStem,
    &cuda::conv_depthwise::ConvDepthwise,
    &cuda::pool_image::PoolImage,
    &cuda::gemm_simt::ConvSimt,
    &cuda::gemm_simt::MatMulSimt,
    &cuda::bmm_mma::BmmMma,
    &cuda::attention_naive::AttentionNaive,
    &cuda::attention_flash::AttentionFlash,
];
