use aotfarm_protocol::{CpuIsa, Target};

#[cfg(feature = "cuda")]
use crate::gpu as gpus;
#[cfg(not(feature = "cuda"))]
use crate::no_gpu as gpus;

/// The CPU targets whose code this host can run, best first.
pub fn host_targets() -> Vec<Target> {
    Target::CPUS.into_iter().rev().filter(|&target| why_not(target).is_none()).collect()
}

/// All targets whose code this host can run, those of its GPUs first, best first.
pub fn all_targets() -> Vec<Target> {
    [gpus::gpu_targets(), host_targets()].concat()
}

/// Why this host cannot run code made for `target`, as a fragment that completes "this host …", or `None` if it can.
pub fn why_not(target: Target) -> Option<String> {
    let isa = match target {
        Target::Cpu(isa) => isa,
        Target::Cuda { sm } => return gpus::why_not(sm),
    };
    let here = std::env::consts::ARCH;
    let architecture = target.architecture().unwrap_or_default();
    if architecture != here {
        return Some(format!("is {here}, not {architecture}"));
    }
    let missing = missing(isa);
    (!missing.is_empty()).then(|| format!("lacks {}", missing.join(", ")))
}

/// The features of a level that this CPU (or its operating system) lacks.
#[cfg(target_arch = "x86_64")]
fn missing(isa: CpuIsa) -> Vec<&'static str> {
    macro_rules! features {
        ($($name:tt),*) => { [$(($name, std::arch::is_x86_feature_detected!($name))),*] };
    }
    let v3 = features!("avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "lzcnt", "movbe");
    let v4 = features!("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl");
    let needed = match isa {
        CpuIsa::X86_64V3 => v3.to_vec(),
        CpuIsa::X86_64V4 => [v3.as_slice(), &v4].concat(),
        CpuIsa::Aarch64 => Vec::new(),
    };
    needed.into_iter().filter(|(_, present)| !present).map(|(name, _)| name).collect()
}

/// The features of ARMv8.2 that this CPU lacks.
#[cfg(target_arch = "aarch64")]
fn missing(_isa: CpuIsa) -> Vec<&'static str> {
    macro_rules! features {
        ($($name:tt),*) => { [$(($name, std::arch::is_aarch64_feature_detected!($name))),*] };
    }
    features!("neon", "lse", "rdm", "dpb").into_iter().filter(|(_, present)| !present).map(|(name, _)| name).collect()
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn missing(_isa: CpuIsa) -> Vec<&'static str> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_architecture_is_named_and_targets_come_best_first() {
        let foreign = if cfg!(target_arch = "aarch64") { "cpu-x86_64-v3" } else { "cpu-aarch64" };
        let reason = why_not(foreign.parse().unwrap()).unwrap();
        assert!(reason.starts_with(&format!("is {}, not ", std::env::consts::ARCH)), "{reason}");
        let targets = host_targets();
        assert!(targets.windows(2).all(|pair| pair[0] > pair[1]), "{targets:?}");
        for target in Target::CPUS {
            assert_eq!(targets.contains(&target), why_not(target).is_none());
        }
    }
}
