//! The compiler's version is a digest of all that decides what a request compiles to: `ROOMS` in
//! `compiler/build.rs` names the folder of every crate that the compiler and the search are made
//! of, and no other.
//!
//! Normal and build dependencies count. Of a crate its whole folder is named, or its `src`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};
use cargo_metadata::{DependencyKind, Metadata};
use syn::{Expr, ExprLit, Item, Lit};

/// The crates that decide: the one that makes kernels, and the one that chooses among them.
const ROOTS: [&str; 2] = ["aotfarm-compiler", "aotfarm-search"];

/// Checks the list in the build script at `script` against the dependencies in `workspace`, whose
/// root is `root`.
///
/// # Errors
/// Every crate that the list lacks, and every folder in it that is of none.
pub fn check(root: &Path, script: &Path, workspace: &Metadata) -> anyhow::Result<()> {
    let rooms = rooms(&fs::read_to_string(script).with_context(|| script.display().to_string())?)?;
    let folders = folders(root, workspace)?;
    let covers = |room: &str, folder: &str| room.strip_suffix("/src").unwrap_or(room) == folder;
    let lacking = folders.iter().filter(|folder| !rooms.iter().any(|room| covers(room, folder)));
    let needless = rooms.iter().filter(|room| !folders.iter().any(|folder| covers(room, folder)));
    let lacking = lacking.map(|folder| format!("{folder} is no part of the compiler's version: name it in ROOMS"));
    let needless = needless.map(|room| format!("{room} is in ROOMS, but neither compiler nor search is made of it"));
    let wrong: Vec<_> = lacking.chain(needless).collect();
    ensure!(wrong.is_empty(), "{}:\n{}", script.display(), wrong.join("\n"));
    Ok(())
}

/// The folders, below the workspace, of the crates that [`ROOTS`] are made of.
fn folders(root: &Path, workspace: &Metadata) -> anyhow::Result<BTreeSet<String>> {
    let packages = workspace.workspace_packages();
    let mut found = BTreeSet::new();
    let mut open: Vec<&str> = ROOTS.to_vec();
    while let Some(name) = open.pop() {
        let Some(package) = packages.iter().find(|package| package.name.as_str() == name) else { continue };
        let folder = package.manifest_path.parent().context("a manifest lies in a folder")?;
        let folder = folder.strip_prefix(root).with_context(|| format!("{folder} is outside of the workspace"))?;
        if found.insert(folder.to_string()) {
            let needed = package.dependencies.iter().filter(|dependency| dependency.kind != DependencyKind::Development);
            open.extend(needed.map(|dependency| dependency.name.as_str()));
        }
    }
    Ok(found)
}

/// The strings in `const ROOMS` of a source text.
fn rooms(text: &str) -> anyhow::Result<Vec<String>> {
    let value = syn::parse_file(text)?.items.into_iter().find_map(|item| match item {
        Item::Const(item) if item.ident == "ROOMS" => Some(*item.expr),
        _ => None,
    });
    let Some(Expr::Array(array)) = value else { anyhow::bail!("the build script has no array `ROOMS`") };
    let room = |element| match element {
        Expr::Lit(ExprLit { lit: Lit::Str(room), .. }) => Ok(room.value()),
        _ => anyhow::bail!("`ROOMS` holds more than texts"),
    };
    array.elems.into_iter().map(room).collect()
}
