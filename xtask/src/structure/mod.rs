//! Rules that no other tool checks. Each is one module here; its first lines are the rule.

mod circles;
mod glossary;
mod imports;
mod modules;
mod paths;
#[cfg(test)]
mod planted;
mod version;

use std::path::Path;

use cargo_metadata::{Metadata, MetadataCommand};

use modules::Crate;

/// Checks all rules on the workspace at `root`.
///
/// # Errors
/// The first rule that does not hold, with every place where it does not.
pub fn check(root: &Path) -> anyhow::Result<()> {
    let workspace = workspace(root)?;
    imports::check(&workspace, imports::KNOWN_WRONG)?;
    let crates = Crate::read_all(&workspace)?;
    circles::check(&crates, circles::KNOWN_CIRCLES)?;
    glossary::check(&root.join("ARCHITECTURE.md"), &crates)?;
    version::check(root, &root.join("compiler/build.rs"), &workspace)?;
    eprintln!("xtask: structure holds");
    Ok(())
}

/// What cargo knows of the workspace's own packages; needs no network.
fn workspace(root: &Path) -> anyhow::Result<Metadata> {
    Ok(MetadataCommand::new().manifest_path(root.join("Cargo.toml")).no_deps().exec()?)
}
