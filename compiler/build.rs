//! Makes `AOTFARM_COMPILER_VERSION`: the program's version and a digest of all that can change what a request compiles to.
//!
//! That is every source, template and header of the crates along the compiler's flow, of the words and the ABI that they build on,
//! of the search, which chooses among the kernels, and the versions of the crates that they use.
//! Tests are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

/// What is read, relative to the workspace; `cargo xtask structure` compares it with the
/// dependencies.
const ROOMS: [&str; 8] = [
    "abi",
    "compiler/frontend",
    "compiler/ir",
    "compiler/kernels",
    "compiler/plan",
    "compiler/src",
    "coordinator/search/src",
    "protocol/src",
];

/// Names of folders and files (without extension) that hold only tests.
const TESTS: [&str; 3] = ["tests", "testing", "conformance"];

/// Hexadecimal digits of the digest in the version.
const DIGITS: usize = 12;

fn main() {
    let compiler = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let workspace = compiler.parent().expect("the room lies in the workspace");
    let mut files = BTreeSet::new();
    for room in ROOMS {
        println!("cargo::rerun-if-changed={}", workspace.join(room).display());
        collect(&workspace.join(room), &mut files);
    }
    let mut hash = Sha256::new();
    let mut field = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    for file in &files {
        let name = file.strip_prefix(workspace).expect("collected below it").to_str().expect("names are UTF-8");
        field(name.as_bytes());
        field(&fs::read(file).unwrap_or_else(|e| panic!("cannot read {}: {e}", file.display())));
    }
    let lock = workspace.join("Cargo.lock");
    println!("cargo::rerun-if-changed={}", lock.display());
    if let Ok(text) = fs::read_to_string(&lock) {
        for dependency in dependencies(&text, "aotfarm-compiler") {
            field(dependency.as_bytes());
        }
    }
    let digest: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let version = std::env::var("CARGO_PKG_VERSION").expect("cargo sets it");
    println!("cargo::rustc-env=AOTFARM_COMPILER_VERSION={version}+{}", &digest[..DIGITS]);
}

/// All files below a folder that are not only tests, sorted.
fn collect(folder: &Path, files: &mut BTreeSet<PathBuf>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("cannot list {}: {e}", folder.display()));
    for entry in entries {
        let path = entry.expect("a readable folder").path();
        let stem = path.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
        if TESTS.contains(&stem) || stem.ends_with("_tests") || stem.starts_with("golden") {
            continue;
        }
        if path.is_dir() {
            collect(&path, files);
        } else {
            files.insert(path);
        }
    }
}

/// `name version` of every crate of the registry that `root` needs, as the lock file says.
fn dependencies(lock: &str, root: &str) -> BTreeSet<String> {
    // By name: the versions, and the names that each needs. A version behind a name is left out, so that all versions count.
    let mut packages: BTreeMap<&str, (BTreeSet<&str>, BTreeSet<&str>)> = BTreeMap::new();
    for block in lock.split("[[package]]").skip(1) {
        let value = |key: &str| {
            let line = block.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "));
            line.map(|text| text.trim_matches('"')).unwrap_or_default()
        };
        let needs = block.split_once("dependencies = [").map_or("", |(_, rest)| rest.split(']').next().unwrap_or_default());
        let needs = needs.split(',').filter_map(|item| item.trim().trim_matches('"').split(' ').next());
        let (versions, all) = packages.entry(value("name")).or_default();
        versions.insert(value("version"));
        all.extend(needs.filter(|name| !name.is_empty()));
    }
    let mut found = BTreeSet::new();
    let mut open = vec![root];
    let mut seen = BTreeSet::new();
    while let Some(name) = open.pop() {
        let (true, Some((versions, needs))) = (seen.insert(name), packages.get(name)) else { continue };
        if !name.starts_with("aotfarm-") {
            found.extend(versions.iter().map(|version| format!("{name} {version}")));
        }
        open.extend(needs);
    }
    found
}
