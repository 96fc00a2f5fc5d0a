//! The team of CPU artifacts has no data race: `team_race.c` drives it under ThreadSanitizer.
//!
//! The C runtime of artifacts cannot be seen by Rust's tools, and a race in it shows as a wrong
//! result once in a million runs. Skipped where there is no `gcc`, or one without the sanitizer's
//! runtime.

use std::process::{Command, Output};

/// Runs of each size of a team; a tenth of it for each way in which a caller's pool behaves.
const ROUNDS: &str = "200";
/// What the sanitizer says on a system whose address space it cannot use.
const NO_ADDRESS_SPACE: &str = "unexpected memory mapping";

/// What came of a command; `None` when there is no such program.
#[expect(clippy::disallowed_methods, reason = "the test asks the C compiler, and runs what it made")]
fn run(program: &str, args: &[&str]) -> Option<Output> {
    Command::new(program).args(args).output().ok()
}

#[test]
fn the_team_has_no_data_race() {
    let driver = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/team_race.c");
    let dir = tempfile::tempdir().expect("a folder");
    let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    let (probe, program) = (path("probe.c"), path("team_race"));
    std::fs::write(&probe, "int main(void) { return 0; }").expect("the probe is written");
    let compile = |source: &str| {
        let flags = ["-std=gnu11", "-D_GNU_SOURCE", "-O1", "-g", "-Wall", "-Werror", "-fsanitize=thread", "-pthread"];
        run("gcc", &[&flags[..], &[source, "-o", &program]].concat())
    };
    let Some(probed) = compile(&probe) else { return println!("skipped: there is no `gcc` here") };
    if !probed.status.success() {
        return println!("skipped: this gcc has no ThreadSanitizer: {}", String::from_utf8_lossy(&probed.stderr));
    }
    let compiled = compile(driver).expect("gcc was there before");
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let ran = run(&program, &[ROUNDS]).expect("the program was just made");
    let said = String::from_utf8_lossy(&ran.stderr);
    if said.contains(NO_ADDRESS_SPACE) {
        return println!("skipped: {said}");
    }
    assert!(ran.status.success(), "{}: {said}", ran.status);
}
