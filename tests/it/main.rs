//! End-to-end tests of the binary `aotfarm`: commands, farms of processes, and what is said when something is wrong.
//!
//! Models are compiled for this host with its C compiler. Where there is none, only the tests that need none run.
#![expect(clippy::disallowed_methods, reason = "these tests run the program as a user does")]

mod cases;
mod cluster;
mod farm;
mod faults;
mod flow;
mod foreign;
mod help;
mod model;
mod npy;
mod old_data;
mod old_worker;
mod samples;

/// Whether this host has a C compiler; the reason is printed when it has not.
fn has_compiler() -> bool {
    let found = ["cc", "gcc", "clang"]
        .into_iter()
        .any(|name| std::process::Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success()));
    if !found {
        eprintln!("skipped: there is no C compiler");
    }
    found
}
