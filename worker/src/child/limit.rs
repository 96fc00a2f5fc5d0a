//! The limit that a child sets on itself.

use rustix::process::{Resource, Rlimit, setrlimit};

/// Bounds this process's address space to what it has now plus `bytes`.
pub(super) fn limit_memory(bytes: u64) -> Result<(), String> {
    let statm = std::fs::read_to_string("/proc/self/statm").map_err(|e| format!("could not read /proc/self/statm: {e}"))?;
    let pages: u64 = statm.split(' ').next().and_then(|n| n.parse().ok()).ok_or("/proc/self/statm is not as expected")?;
    let limit = Some((pages * rustix::param::page_size() as u64).saturating_add(bytes));
    let limit = Rlimit { current: limit, maximum: limit };
    setrlimit(Resource::As, limit).map_err(|e| format!("could not limit memory: {e}"))
}
