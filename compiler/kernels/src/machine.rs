//! What a target's kernels may count on: one table, from which the families take sizes, widths and
//! capabilities.
//!
//! A value is part of what it decides: which points a family offers, in which order, and what some
//! of them compile to. To change one is to change candidates, so it goes with new versions of the
//! families that take it. Where a row says another value than the vendor, a comment says which
//! would be right.

use aotfarm_protocol::{CpuIsa, Target};

/// A target's machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    /// Of a CPU target.
    Cpu(Cpu),
    /// Of a GPU target.
    Gpu(Gpu),
}

impl Machine {
    /// What kernels for a target may count on.
    pub const fn of(target: Target) -> Self {
        match target {
            Target::Cpu(isa) => Self::Cpu(Cpu::of(isa)),
            Target::Cuda { sm } => Self::Gpu(Gpu::of(sm)),
        }
    }
}

/// A CPU, as its instruction set says, and the caches of a usual one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cpu {
    /// f32 lanes of a vector.
    pub lanes: i64,
    /// Vector registers.
    pub registers: i64,
    /// Bytes of a cache line.
    pub line: i64,
    /// Bytes of a core's first level of cache, for data.
    pub l1: i64,
    /// Bytes of a core's second level.
    pub l2: i64,
    /// Bytes of the last level, beyond which data come from memory.
    pub l3: i64,
}

impl Cpu {
    /// Registers: Intel's Software Developer's Manual, volume 1 (AVX2: 16 of 256 bits; AVX-512: 32
    /// of 512 bits), and Arm's Architecture Reference Manual (Advanced SIMD: 32 of 128 bits).
    /// Caches: not of the instruction set. All targets have those of AMD's Zen 2 and Zen 3
    /// (Software Optimization Guides for family 17h and 19h), but for L3, of which a core complex
    /// has 16 or 32 MB.
    ///
    /// What others have: L1 48 KB since Ice Lake, 64 KB on Neoverse V1 and V2; L2 256 KB until
    /// Broadwell, 1 MB from Skylake-SP and in Zen 4, 2 MB from Sapphire Rapids, 1 to 2 MB on
    /// Neoverse. A line is of 64 bytes on all but Apple's cores, which have 128.
    pub const fn of(isa: CpuIsa) -> Self {
        let lanes = Target::Cpu(isa).f32_lanes() as i64;
        let registers = match isa {
            CpuIsa::X86_64V3 => 16,
            CpuIsa::X86_64V4 | CpuIsa::Aarch64 => 32,
        };
        Self { lanes, registers, line: 64, l1: 32 << 10, l2: 512 << 10, l3: 12_000_000 }
    }
}

/// A GPU of a compute capability.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gpu {
    /// The compute capability: major times ten plus minor.
    pub sm: u32,
    /// Multiprocessors.
    pub processors: i64,
    /// How many blocks of which each fills a multiprocessor run at once, in clusters of 1 to 8: a
    /// cluster must fit in one part of the GPU.
    pub clustered: [i64; 8],
    /// The same as it was guessed before it was asked for. The estimate of `cuda_conv_wgmma@1` was
    /// fitted with these, and they order its points: to take [`clustered`](Self::clustered) there
    /// changes the candidates of nine tasks in ten, which is a new version of the family.
    pub clustered_guess: [i64; 8],
    /// Blocks of the largest cluster; 1 where there are none.
    pub cluster: i64,
    /// Registers of 32 bits of a multiprocessor.
    pub registers: i64,
    /// The most resident warps of a multiprocessor.
    pub warps: i64,
    /// Bytes of shared memory of a multiprocessor, for all its blocks.
    pub shared: i64,
    /// Bytes of it that a block may ask for at launch.
    pub shared_of_block: i64,
    /// Bytes of it that a block may have without asking.
    pub shared_unasked: i64,
    /// Bytes of it that each block takes besides its own.
    pub shared_reserved: i64,
    /// Whether copies from global to shared memory go on beside (`cp.async`).
    pub copies_beside: bool,
    /// Whether warpgroups multiply matrices of shared memory (`wgmma`).
    pub wgmma: bool,
}

impl Gpu {
    /// Sizes: NVIDIA's CUDA C++ Programming Guide, "Technical Specifications per Compute
    /// Capability". Instructions: the PTX ISA's target notes (`cp.async` from sm_80, clusters from
    /// sm_90, `wgmma` on sm_90a alone). Multiprocessors and clusters are no matter of the compute
    /// capability: they are those of an H100 SXM (132, and what `cudaOccupancyMaxActiveClusters`
    /// says there), for all.
    pub const fn of(sm: u32) -> Self {
        // An A100 (80) has 108, an RTX 3090 (86) 82, an AGX Orin (87) 16, an RTX 4090 (89) 128 and
        // an L4 (89) 58, an H100 PCIe (90) 114, a B200 (100) 148, an RTX 5090 (120) 170.
        let processors = 132;
        // Per block the guide has one KB more: 227, 163 and 99. 75 has 64 KB in all and 70 has 96,
        // which no family asks for that runs there.
        let (shared, shared_of_block) = match sm {
            90 | 100 | 103 => (228 << 10, 226 << 10),
            80 | 87 => (164 << 10, 162 << 10),
            _ => (100 << 10, 98 << 10),
        };
        Self {
            sm,
            processors,
            clustered: [processors, 132, 117, 120, 110, 102, 105, 120],
            clustered_guess: [processors, 128, 126, 120, 96, 96, 96, 96],
            cluster: if sm >= 90 { 8 } else { 1 },
            registers: 64 << 10,
            // 48 on 86, 87, 89 and 120; 32 on 75.
            warps: 64,
            shared,
            shared_of_block,
            shared_unasked: 48 << 10,
            shared_reserved: 1 << 10,
            copies_beside: sm >= 80,
            wgmma: sm == 90,
        }
    }

    /// The GPU that estimates of time were fitted on.
    pub const H100: Self = Self::of(90);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_asks_for_no_more_than_there_is() {
        for sm in 50..130 {
            let Machine::Gpu(gpu) = Machine::of(Target::Cuda { sm }) else { panic!("sm_{sm} is no GPU") };
            assert!(gpu.shared_of_block + gpu.shared_reserved <= gpu.shared, "sm_{sm}");
            assert!(gpu.shared_unasked <= gpu.shared_of_block, "sm_{sm}");
            assert!(gpu.clustered.iter().all(|blocks| *blocks <= gpu.processors), "sm_{sm}");
            assert!(!gpu.wgmma || (gpu.copies_beside && gpu.cluster > 1), "sm_{sm}");
        }
    }

    #[test]
    fn vectors_are_of_the_targets_lanes() {
        for target in Target::CPUS {
            let Machine::Cpu(cpu) = Machine::of(target) else { panic!("{target} is no CPU") };
            assert_eq!(cpu.lanes, target.f32_lanes() as i64);
            assert!(cpu.lanes * 4 <= cpu.line && cpu.l1 < cpu.l2 && cpu.l2 < cpu.l3, "{target}");
        }
    }
}
