//! What this host is: the device that it measures on.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use aotfarm_protocol::{Device, DeviceKind, Target};

/// The CPU of this host as a device. Cores are those that this process may use, which cgroups and affinity may limit.
pub fn probe_cpu() -> Device {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let caches = caches(Path::new("/sys/devices/system/cpu/cpu0/cache"));
    let cores = std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX));
    describe(&cpuinfo, &caches, cores, aotfarm_runtime::host_targets())
}

/// The name of this host, for people.
pub fn host_name() -> String {
    gethostname::gethostname().to_string_lossy().into_owned()
}

fn describe(cpuinfo: &str, caches: &str, cores: u32, targets: Vec<Target>) -> Device {
    // The first processor's paragraph; the others repeat it.
    let first = cpuinfo.split("\n\n").next().unwrap_or_default();
    let fields: BTreeMap<&str, &str> =
        first.lines().filter_map(|l| l.split_once(':')).map(|(k, v)| (k.trim(), v.trim())).collect();
    let field = |names: &[&str]| names.iter().find_map(|n| fields.get(n).copied());
    let name = match field(&["model name", "Model", "Hardware"]) {
        Some(name) => name.split_whitespace().collect::<Vec<_>>().join(" "),
        None => format!("{} CPU", std::env::consts::ARCH),
    };
    let numbers = [
        ("family", field(&["cpu family", "CPU architecture"])),
        ("model", field(&["model", "CPU part"])),
        ("stepping", field(&["stepping", "CPU revision"])),
    ];
    let known = numbers.iter().filter_map(|(what, value)| value.map(|v| format!("{what} {v}")));
    let detail = known.chain((!caches.is_empty()).then(|| caches.to_owned())).collect::<Vec<_>>().join(", ");
    Device { kind: DeviceKind::Cpu, name, cores, detail, targets }
}

/// `L1d 32K, L2 512K, L3 32768K`, as far as the system tells.
fn caches(dir: &Path) -> String {
    let read = |index: u32, file: &str| fs::read_to_string(dir.join(format!("index{index}/{file}"))).map(|t| t.trim().to_owned());
    let cache = |index| {
        let (level, kind, size) = (read(index, "level").ok()?, read(index, "type").ok()?, read(index, "size").ok()?);
        let kind = match kind.as_str() {
            "Instruction" => return Some(None),
            "Data" => "d",
            _ => "",
        };
        Some(Some(format!("L{level}{kind} {size}")))
    };
    (0..16).map_while(cache).flatten().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_told_apart_by_name_numbers_and_caches() {
        let x86 = "processor\t: 0\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD  EPYC 9354\nstepping\t: 1\n\nprocessor\t: 1\nmodel\t: 99\n";
        let device = describe(x86, "L1d 32K, L2 1024K", 2, vec![]);
        assert_eq!(device.name, "AMD EPYC 9354");
        assert_eq!(device.detail, "family 25, model 17, stepping 1, L1d 32K, L2 1024K");
        let other = describe(&x86.replace("17", "18"), "L1d 32K, L2 1024K", 2, vec![]);
        assert_ne!(device.fingerprint(), other.fingerprint());
        let arm = describe("processor : 0\nCPU architecture: 8\nCPU part : 0xd40\nCPU revision : 1\n", "", 4, vec![]);
        assert_eq!(arm.detail, "family 8, model 0xd40, stepping 1");
        assert_eq!(describe("", "", 1, vec![]).detail, "");
    }

    #[test]
    fn this_host_is_a_device() {
        let device = probe_cpu();
        assert!(device.cores >= 1 && !device.name.is_empty(), "{device:?}");
        assert_eq!(device.fingerprint(), probe_cpu().fingerprint());
    }
}
