//! What continuous integration runs, in the order in which it is cheapest to fail.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

use crate::structure;

/// Runs every check, and stops at the first that fails.
pub fn run(root: &Path) -> anyhow::Result<()> {
    structure::check(root)?;
    cargo(root, &["fmt", "--all", "--check"])?;
    tables(root)?;
    // Advisories need the network, so the workflow `ci` asks for them and this does not.
    if installed(root, "machete") {
        cargo(root, &["machete"])?;
    }
    if installed(root, "deny") {
        cargo(root, &["deny", "--offline", "--log-level", "error", "check", "licenses", "bans", "sources"])?;
    }
    cargo(root, &["clippy", "--workspace", "--all-targets", "--locked", "--quiet", "--", "-D", "warnings"])?;
    cargo(root, &["test", "--workspace", "--locked"])
}

/// Checks that docs/performance.md shows what bench/results holds.
fn tables(root: &Path) -> anyhow::Result<()> {
    if !finds(root, "python3".into(), &["--version"]) {
        eprintln!("xtask: no python3, so the tables of docs/performance.md are not checked");
        return Ok(());
    }
    run_in(root, "python3".into(), &["bench/tables.py", "--check"])
}

/// Whether `cargo install` has brought this subcommand; says so if not.
fn installed(root: &Path, subcommand: &str) -> bool {
    let found = finds(root, cargo_program(), &[subcommand, "--version"]);
    if !found {
        eprintln!("xtask: no cargo {subcommand}, so it is left out; to have it: cargo install --locked cargo-{subcommand}");
    }
    found
}

fn cargo(root: &Path, args: &[&str]) -> anyhow::Result<()> {
    run_in(root, cargo_program(), args)
}

/// The cargo that started this, so that one toolchain does all.
fn cargo_program() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

#[expect(clippy::disallowed_methods, reason = "running the checks is what this tool is for")]
fn run_in(root: &Path, program: OsString, args: &[&str]) -> anyhow::Result<()> {
    let shown = format!("{} {}", Path::new(&program).file_name().unwrap_or_default().display(), args.join(" "));
    eprintln!("xtask: {shown}");
    let status = Command::new(program).args(args).current_dir(root).status().with_context(|| format!("could not run {shown}"))?;
    ensure!(status.success(), "{shown} failed: {status}");
    Ok(())
}

/// Whether a program can be started and says that all is well.
#[expect(clippy::disallowed_methods, reason = "running the checks is what this tool is for")]
fn finds(root: &Path, program: OsString, args: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(args).current_dir(root).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
