//! Who imports whom: each crate of the workspace depends only on those that [`MAY_IMPORT`] names for it.
//!
//! Normal and build dependencies count, optional ones too. What only tests depend on is free.

use anyhow::ensure;
use cargo_metadata::{DependencyKind, Metadata};

/// All crates, and of which others each may know: the one table of that.
///
/// A worker is missing the compiler on purpose: it gets sources by digest, so any worker serves any coordinator.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("protocol", &[]),
    ("abi", &[]),
    ("ir", &["protocol", "abi"]),
    ("frontend", &["protocol", "abi", "ir"]),
    ("plan", &["protocol", "abi", "ir"]),
    ("kernels", &["protocol", "abi", "ir", "plan"]),
    ("compiler", &["protocol", "abi", "ir", "frontend", "plan", "kernels"]),
    ("runtime", &["protocol", "abi"]),
    ("blob", &["protocol", "abi"]),
    ("store", &["protocol", "blob"]),
    ("client", &["protocol", "blob"]),
    ("registry", &["protocol", "abi", "blob", "store"]),
    ("search", &["protocol"]),
    ("coordinator", &["protocol", "abi", "compiler", "store", "registry", "search"]),
    ("worker", &["protocol", "abi", "runtime", "client"]),
    ("cli", ALL),
    // What fuzzers and the replay of their corpora try.
    ("fuzz-targets", ALL),
    ("xtask", &[]),
];

/// Imports that are being undone. One that is gone must be taken from this list.
pub const KNOWN_WRONG: &[(&str, &str)] = &[];

/// All that a role can be made of.
const ALL: &[&str] = &[
    "protocol",
    "abi",
    "ir",
    "frontend",
    "plan",
    "kernels",
    "compiler",
    "runtime",
    "blob",
    "store",
    "client",
    "registry",
    "search",
    "coordinator",
    "worker",
];

/// Checks the dependencies of every package of the workspace.
///
/// # Errors
/// Every dependency that the table does not allow and that is not `known`, every known one that is gone, and every
/// package that the table does not hold.
pub fn check(workspace: &Metadata, known: &[(&str, &str)]) -> anyhow::Result<()> {
    let mut wrong = Vec::new();
    let mut gone = known.to_vec();
    let packages = workspace.workspace_packages();
    for package in &packages {
        let Some((_, allowed)) = MAY_IMPORT.iter().find(|(room, _)| *room == room_of(&package.name)) else {
            wrong.push(format!("{}: not in the table of who imports whom (xtask/src/structure/imports.rs)", package.name));
            continue;
        };
        for dependency in package.dependencies.iter().filter(|d| d.kind != DependencyKind::Development) {
            let own = packages.iter().any(|p| p.name.as_str() == dependency.name);
            let still = gone.len();
            gone.retain(|pair| *pair != (package.name.as_str(), dependency.name.as_str()));
            if own && !allowed.contains(&room_of(&dependency.name)) && gone.len() == still {
                wrong.push(format!("{} imports {}; it may import only {allowed:?}", package.name, dependency.name));
            }
        }
    }
    wrong.extend(gone.iter().map(|(a, b)| format!("{a} no longer imports {b}: take it from KNOWN_WRONG")));
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// A package's name without the prefix that all but xtask have.
fn room_of(package: &str) -> &str {
    package.strip_prefix("aotfarm-").unwrap_or(package)
}
