//! The worker's child process: where code that nobody vouches for is run.
//!
//! The program starts itself again with a hidden subcommand and a job file; [`main`] is what that subcommand calls. The
//! child dies with its parent, which reads what it prints.

mod bench;
mod buffer;
pub(crate) mod gpu;
mod limit;
mod measure;
mod measuring;
pub(crate) mod messages;
pub(crate) mod model_race;
pub(crate) mod nvrtc;
pub(crate) mod operand;
pub(crate) mod pack;
pub(crate) mod profile;
mod talk;
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
