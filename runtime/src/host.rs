use aotfarm_abi::isa;
use aotfarm_protocol::Target;

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
    if let Target::Cuda { sm } = target {
        return gpus::why_not(sm);
    }
    let here = std::env::consts::ARCH;
    let architecture = target.architecture().unwrap_or_default();
    if architecture != here {
        return Some(format!("is {here}, not {architecture}"));
    }
    let missing = isa::missing(&target.to_string());
    (!missing.is_empty()).then(|| format!("lacks {}", missing.join(", ")))
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
