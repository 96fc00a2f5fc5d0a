//! The flags of C compilers. What workers compile kernels with is the truth; tests and benchmarks use the same.

/// Flags of every compilation. Optimisation that keeps IEEE results up to contraction, and nothing that depends on the
/// place or time of the build. Kernels are written in vectors, or say where vectors are to be made: the search for more
/// takes a third of the time and finds none.
pub const COMMON: &[&str] = &[
    "-std=gnu11",
    "-O2",
    "-fno-tree-vectorize",
    "-fopenmp-simd",
    "-fPIC",
    "-g0",
    "-w",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fno-semantic-interposition",
    "-fno-asynchronous-unwind-tables",
    "-frandom-seed=0",
];

/// Flags that a CPU target implies, by its name: the one table.
pub const BY_TARGET: &[(&str, &[&str])] = &[
    ("cpu-x86_64-v3", &["-march=x86-64-v3", "-mtune=haswell"]),
    ("cpu-x86_64-v4", &["-march=x86-64-v4", "-mtune=skylake-avx512", "-mprefer-vector-width=512"]),
    ("cpu-aarch64", &["-march=armv8.2-a"]),
];

/// The flags that the target of this name implies; none for a GPU, whose artifacts' host code is the linker's own affair.
pub fn target_flags(target: &str) -> &'static [&'static str] {
    BY_TARGET.iter().find(|(name, _)| *name == target).map_or(&[], |(_, flags)| flags)
}

/// Flags that follow [`COMMON`] when a pack function is compiled. Contraction differs between CPUs of different levels;
/// without it every host packs the same bytes.
pub const PACK: &[&str] = &[crate::kernel::PACK_ONLY, "-ffp-contract=off", "-O2"];
