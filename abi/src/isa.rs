//! What the levels of CPUs are: the one table, from which come the check of Rust programs and that
//! of the C in artifacts.
//!
//! The levels of x86-64 are those of its psABI (<https://gitlab.com/x86-psABIs/x86-64-ABI>,
//! "Micro-Architecture Levels"), to which `-march=x86-64-v3` lets a compiler go; ARMv8.2 is what
//! `-march=armv8.2-a` needs beyond ARMv8.0 (Arm ARM, A2.4). Levels of one architecture include each
//! other.

/// The levels, by the name of the CPU target that needs each. Artifacts hold the number.
const LEVELS: &[(&str, u32)] = &[("cpu-x86_64-v3", 3), ("cpu-x86_64-v4", 4), ("cpu-aarch64", 82)];

/// The level that code for the target of this name needs; `None` for a GPU.
pub fn level(target: &str) -> Option<u32> {
    LEVELS.iter().find(|(name, _)| *name == target).map(|(_, level)| *level)
}

/// Gives the rows of x86-64 to a macro: level, name in Rust, question in C. `rt_cpuid` is asked
/// where compilers before clang 19 have no word.
///
/// Not among them: LAHF and SAHF of level 2, for which stable Rust has no word; what has AVX has
/// them.
macro_rules! x86_64 {
    ($to:ident) => {
        $to! { "RT_X86_64":
            (2, "sse3", "__builtin_cpu_supports(\"sse3\")")
            (2, "ssse3", "__builtin_cpu_supports(\"ssse3\")")
            (2, "sse4.1", "__builtin_cpu_supports(\"sse4.1\")")
            (2, "sse4.2", "__builtin_cpu_supports(\"sse4.2\")")
            (2, "popcnt", "__builtin_cpu_supports(\"popcnt\")")
            (2, "cmpxchg16b", "rt_cpuid(1, 13)")
            (3, "avx", "__builtin_cpu_supports(\"avx\")")
            (3, "avx2", "__builtin_cpu_supports(\"avx2\")")
            (3, "bmi1", "__builtin_cpu_supports(\"bmi\")")
            (3, "bmi2", "__builtin_cpu_supports(\"bmi2\")")
            (3, "f16c", "rt_cpuid(1, 29)")
            (3, "fma", "__builtin_cpu_supports(\"fma\")")
            (3, "lzcnt", "rt_cpuid(0x80000001, 5)")
            (3, "movbe", "rt_cpuid(1, 22)")
            (4, "avx512f", "__builtin_cpu_supports(\"avx512f\")")
            (4, "avx512bw", "__builtin_cpu_supports(\"avx512bw\")")
            (4, "avx512cd", "__builtin_cpu_supports(\"avx512cd\")")
            (4, "avx512dq", "__builtin_cpu_supports(\"avx512dq\")")
            (4, "avx512vl", "__builtin_cpu_supports(\"avx512vl\")")
        }
    };
}

/// The same of aarch64; the questions are bits of `AT_HWCAP`.
macro_rules! aarch64 {
    ($to:ident) => {
        $to! { "RT_AARCH64":
            (80, "neon", "rt_hwcap(HWCAP_ASIMD)")
            (81, "lse", "rt_hwcap(HWCAP_ATOMICS)")
            (81, "rdm", "rt_hwcap(HWCAP_ASIMDRDM)")
            (82, "dpb", "rt_hwcap(HWCAP_DCPOP)")
        }
    };
}

macro_rules! as_c {
    ($name:literal: $(($level:literal, $feature:literal, $question:literal))*) => {
        concat!("#define ", $name, "(needs)", $(" \\\n    needs(", $level, ", \"", $feature, "\", ", $question, ")",)* "\n\n")
    };
}

/// The table as X-macros of C, which [`crate::artifact::source::ISA`] expects: `needs(level, name,
/// question)` for each row.
pub const TABLE_C: &str = concat!(x86_64!(as_c), aarch64!(as_c));

/// The features that code for the target of this name needs and this CPU, or its operating system,
/// lacks. That the target is of this architecture is for the caller to know; a GPU's has none.
pub fn missing(target: &str) -> Vec<&'static str> {
    let level = level(target).unwrap_or_default();
    here().into_iter().filter(|(needed_from, _, present)| *needed_from <= level && !present).map(|(_, name, _)| name).collect()
}

/// Of each row of this architecture the level, the name, and whether this CPU has it.
#[cfg(target_arch = "x86_64")]
fn here() -> Vec<(u32, &'static str, bool)> {
    macro_rules! detect {
        ($name:literal: $(($level:literal, $feature:tt, $question:literal))*) => {
            vec![$(($level, $feature, std::arch::is_x86_feature_detected!($feature))),*]
        };
    }
    x86_64!(detect)
}

/// Of each row of this architecture the level, the name, and whether this CPU has it.
#[cfg(target_arch = "aarch64")]
fn here() -> Vec<(u32, &'static str, bool)> {
    macro_rules! detect {
        ($name:literal: $(($level:literal, $feature:tt, $question:literal))*) => {
            vec![$(($level, $feature, std::arch::is_aarch64_feature_detected!($feature))),*]
        };
    }
    aarch64!(detect)
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn here() -> Vec<(u32, &'static str, bool)> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_that_has_flags_has_a_level() {
        let with_flags: Vec<_> = crate::cc::BY_TARGET.iter().map(|(name, _)| *name).collect();
        let with_level: Vec<_> = LEVELS.iter().map(|(name, _)| *name).collect();
        assert_eq!(with_level, with_flags);
        assert_eq!(level("cuda-sm_90"), None);
    }
}
