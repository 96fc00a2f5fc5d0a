//! What units include, and the tools of GPU workers: the files of `include/`, embedded. See
//! [`Template::name`] on the labels.

use aotfarm_protocol::Target;

use crate::render::Template;

/// Vectors of f32 in C.
pub const SIMD: Template = Template { name: "cpu/simd.h", text: include_str!("../include/cpu/simd.h") };

/// Element types and scalar functions in C.
pub const TYPES: Template = Template { name: "cpu/types.h", text: include_str!("../include/cpu/types.h") };

/// Element types and scalar functions in CUDA C++.
pub const CUDA_TYPES: Template = Template { name: "cuda/types.cuh", text: include_str!("../include/cuda/types.cuh") };

/// The element-wise functions that printed epilogues call, in CUDA C++.
pub const CUDA_MATH: Template = Template { name: "cuda/math.cuh", text: include_str!("../include/cuda/math.cuh") };

/// Tensor cores by `mma.sync`.
pub const CUDA_MMA: Template = Template { name: "cuda/mma.cuh", text: include_str!("../include/cuda/mma.cuh") };

/// Tiles of row-major matrices, with what [`CUDA_MMA`] has.
pub const CUDA_TILES: Template = Template { name: "cuda/tiles.cuh", text: include_str!("../include/cuda/tiles.cuh") };

/// The kernels that fill and compare operands on a GPU, one unit for all tasks; `None` for a CPU,
/// where the worker does that itself.
pub fn tools(target: Target) -> Option<String> {
    match target {
        Target::Cpu(_) => None,
        Target::Cuda { sm } => {
            Some(format!("/* The worker's tools for sm_{sm} */\n{}", include_str!("../include/cuda/tools.cu")))
        }
    }
}
