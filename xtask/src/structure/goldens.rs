//! Every kernel template has a golden rendering in `tests/golden/kernels`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};

/// Checks the templates of the workspace at `root`.
///
/// # Errors
/// Every template without a golden file.
pub fn check(root: &Path) -> anyhow::Result<()> {
    let kernels = root.join("compiler/kernels");
    let goldens = root.join("tests/golden/kernels");
    let cpu = stems(&kernels.join("cpu"), ".c.j2")?;
    let mut missing: Vec<_> = cpu.difference(&stems(&goldens, ".c")?).cloned().collect();
    // Goldens are named after families, several of which can share a template for GPUs; each says what it was
    // rendered from.
    let mut rendered = String::new();
    for golden in stems(&goldens, ".cu")? {
        rendered += fs::read_to_string(goldens.join(format!("{golden}.cu")))?.lines().next().unwrap_or_default();
    }
    let cuda = stems(&kernels.join("cuda"), ".cu.j2")?;
    missing.extend(cuda.into_iter().filter(|name| !rendered.contains(&format!("cuda/{name}.cu.j2"))));
    ensure!(
        missing.is_empty(),
        "templates without a golden file in tests/golden/kernels: {missing:?}; run the compiler's tests with BLESS=1"
    );
    Ok(())
}

/// The names of the files in `dir` that end so, without the ending.
fn stems(dir: &Path, ending: &str) -> anyhow::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        names.extend(name.strip_suffix(ending).map(ToOwned::to_owned));
    }
    Ok(names)
}
