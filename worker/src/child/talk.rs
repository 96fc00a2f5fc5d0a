//! How a child hears and speaks: a job file, and JSON lines on standard output.

use std::io::Write;
use std::path::Path;

/// Reads a job file.
pub(super) fn read_job<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, String> {
    let text = std::fs::read(path).map_err(|e| format!("could not read {}: {e}", path.display()))?;
    serde_json::from_slice(&text).map_err(|e| format!("{} is no job: {e}", path.display()))
}

/// Prints one JSON line.
pub(super) fn say(what: &impl serde::Serialize) -> Result<(), String> {
    let mut line = serde_json::to_vec(what).map_err(|e| format!("could not encode an event: {e}"))?;
    line.push(b'\n');
    let mut out = std::io::stdout().lock();
    out.write_all(&line).and_then(|()| out.flush()).map_err(|e| format!("could not write to the worker: {e}"))
}
