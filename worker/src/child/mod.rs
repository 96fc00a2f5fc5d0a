//! The worker's child process: where code that nobody vouches for is run.
//!
//! The program starts itself again with a hidden subcommand and a job file; [`main`] is what that subcommand calls. The
//! child dies with its parent, which reads what it prints.

mod bench;
mod buffer;
pub(crate) mod gpu;
mod measure;
pub(crate) mod messages;
pub(crate) mod model_race;
pub(crate) mod nvrtc;
pub(crate) mod operand;
pub(crate) mod pack;
pub(crate) mod profile;
mod team;
mod watch;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

/// Runs the child's job: `args` are those after the hidden subcommand, a kind of work and, for most, the path of a job file.
///
/// What it finds goes to standard output as JSON lines. The exit code is 0 when the job came to an end, whatever its result,
/// and 2 when the arguments or the job file are unusable.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let (kind, job) = match args.as_slice() {
        [kind] => (kind, None),
        [kind, job] => (kind, Some(Path::new(job))),
        _ => {
            eprintln!("aotfarm: the child process takes a kind of work and a job file");
            return ExitCode::from(2);
        }
    };
    if let Err(e) = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)) {
        eprintln!("aotfarm: could not tie the child to its parent: {e}");
        return ExitCode::from(2);
    }
    let done = match (kind.to_str(), job) {
        (Some("devices"), None) => gpu::devices::run(),
        (Some("gpu"), None) => gpu::run(),
        (Some("measure"), Some(job)) => measure::run(job),
        (Some("nvrtc"), Some(job)) => nvrtc::run(job),
        (Some("pack"), Some(job)) => pack::run(job),
        (Some("profile"), Some(job)) => profile::run(job),
        (Some("model-race"), Some(job)) => model_race::run(job),
        _ => Err(format!("`{}` is no kind of work", kind.to_string_lossy())),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("aotfarm: {reason}");
            ExitCode::from(2)
        }
    }
}

/// Reads a job file.
fn read_job<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, String> {
    let text = std::fs::read(path).map_err(|e| format!("could not read {}: {e}", path.display()))?;
    serde_json::from_slice(&text).map_err(|e| format!("{} is no job: {e}", path.display()))
}

/// Prints one JSON line.
fn say(what: &impl serde::Serialize) -> Result<(), String> {
    use std::io::Write;
    let mut line = serde_json::to_vec(what).map_err(|e| format!("could not encode an event: {e}"))?;
    line.push(b'\n');
    let mut out = std::io::stdout().lock();
    out.write_all(&line).and_then(|()| out.flush()).map_err(|e| format!("could not write to the worker: {e}"))
}

/// Bounds this process's address space to what it has now plus `bytes`.
fn limit_memory(bytes: u64) -> Result<(), String> {
    let statm = std::fs::read_to_string("/proc/self/statm").map_err(|e| format!("could not read /proc/self/statm: {e}"))?;
    let pages: u64 = statm.split(' ').next().and_then(|n| n.parse().ok()).ok_or("/proc/self/statm is not as expected")?;
    let limit = (pages * buffer::page_size() as u64).saturating_add(bytes);
    let limit = libc::rlimit { rlim_cur: limit as libc::rlim_t, rlim_max: limit as libc::rlim_t };
    // SAFETY: a plain system call on a local value.
    if unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) } != 0 {
        return Err(format!("could not limit memory: {}", std::io::Error::last_os_error()));
    }
    Ok(())
}
