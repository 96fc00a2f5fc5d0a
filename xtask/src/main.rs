//! Checks and chores of this repository: `cargo xtask ci` is what continuous integration runs.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail, ensure};
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "xtask", about = "Checks and chores of this repository")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Everything: format, lints, structure, tests
    Ci,
    /// Rules that no other tool checks: who imports whom, a golden file for every template
    Structure,
}

/// Which rooms each room may import, in the order of the flow. A worker gets sources by digest and never imports the compiler.
const MAY_IMPORT: [(&str, &[&str]); 14] = [
    ("protocol", &[]),
    ("abi", &[]),
    ("compiler/ir", &["protocol", "abi"]),
    ("compiler/frontend", &["protocol", "ir"]),
    ("compiler/plan", &["protocol", "abi", "ir"]),
    ("compiler/kernels", &["protocol", "abi", "ir", "plan"]),
    ("compiler", &["protocol", "abi", "ir", "frontend", "plan", "kernels"]),
    ("runtime", &["protocol", "abi"]),
    ("registry", &["protocol", "abi"]),
    ("coordinator/search", &["protocol"]),
    ("coordinator", &["protocol", "compiler", "registry", "search"]),
    ("worker", &["protocol", "abi", "runtime", "registry"]),
    ("cli", &["protocol", "runtime", "compiler", "registry", "coordinator", "worker"]),
    ("xtask", &[]),
];

fn main() -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the workspace")?.to_owned();
    match Arguments::parse().task {
        Task::Structure => structure(&root),
        Task::Ci => {
            structure(&root)?;
            cargo(&root, &["fmt", "--all", "--check"])?;
            cargo(&root, &["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"])?;
            cargo(&root, &["test", "--workspace"])
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "running cargo is what this tool is for")]
fn cargo(root: &Path, args: &[&str]) -> anyhow::Result<()> {
    eprintln!("xtask: cargo {}", args.join(" "));
    let status =
        Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())).args(args).current_dir(root).status()?;
    ensure!(status.success(), "cargo {} failed: {status}", args.join(" "));
    Ok(())
}

fn structure(root: &Path) -> anyhow::Result<()> {
    rooms(root)?;
    template_goldens(root)?;
    eprintln!("xtask: structure holds");
    Ok(())
}

/// Checks the dependencies of every room against [`MAY_IMPORT`].
fn rooms(root: &Path) -> anyhow::Result<()> {
    for (room, allowed) in MAY_IMPORT {
        let manifest = fs::read_to_string(root.join(room).join("Cargo.toml")).with_context(|| format!("the room {room}"))?;
        let normal = manifest.split("[dev-dependencies]").next().unwrap_or_default();
        for line in normal.lines().filter_map(|l| l.strip_prefix("aotfarm-")) {
            let other = line.split(['.', ' ', '=']).next().unwrap_or_default();
            ensure!(allowed.contains(&other), "{room} imports {other}; it may import only {allowed:?}");
        }
    }
    Ok(())
}

/// Checks that every kernel template has a golden rendering.
fn template_goldens(root: &Path) -> anyhow::Result<()> {
    let stems = |dir: &Path, ending: &str| -> anyhow::Result<BTreeSet<String>> {
        let mut names = BTreeSet::new();
        for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            names.extend(name.strip_suffix(ending).map(ToOwned::to_owned));
        }
        Ok(names)
    };
    let kernels = root.join("compiler/kernels");
    let goldens = root.join("tests/golden/kernels");
    let mut missing: Vec<_> = stems(&kernels.join("cpu"), ".c.j2")?.difference(&stems(&goldens, ".c")?).cloned().collect();
    // Goldens are named after families, several of which can share a template for GPUs; each says what it was rendered from.
    let mut rendered = String::new();
    for golden in stems(&goldens, ".cu")? {
        rendered += fs::read_to_string(goldens.join(format!("{golden}.cu")))?.lines().next().unwrap_or_default();
    }
    let templates = stems(&kernels.join("cuda"), ".cu.j2")?;
    missing.extend(templates.into_iter().filter(|name| !rendered.contains(&format!("cuda/{name}.cu.j2"))));
    if !missing.is_empty() {
        bail!("templates without a golden file in tests/golden/kernels: {missing:?}; run the compiler's tests with BLESS=1");
    }
    Ok(())
}
