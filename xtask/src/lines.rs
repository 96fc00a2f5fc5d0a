//! Lines by crate, the longest file and the longest function: figures to compare two states of the tree by.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use cargo_metadata::MetadataCommand;
use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};
use walkdir::WalkDir;

/// Sources besides Rust: kernels, what artifacts carry, the scripts of benchmarks, SQL.
const OTHER_SOURCES: [&str; 8] = ["c", "h", "cu", "cuh", "j2", "sql", "py", "sh"];

/// What a crate (or a folder outside of crates) holds.
#[derive(Default)]
struct Count {
    rust: usize,
    other: usize,
}

/// A length with what has it.
#[derive(Default)]
struct Longest(Vec<(usize, String)>);

/// Prints the figures of the workspace at `root`.
///
/// # Errors
/// A file that cannot be read, or no workspace.
pub fn print(root: &Path) -> anyhow::Result<()> {
    let root = root.canonicalize().with_context(|| root.display().to_string())?;
    let workspace = MetadataCommand::new().manifest_path(root.join("Cargo.toml")).no_deps().exec()?;
    let folders: Vec<PathBuf> =
        workspace.packages.iter().filter_map(|p| p.manifest_path.parent()).map(|p| p.as_std_path().to_owned()).collect();
    let mut counts: BTreeMap<String, Count> = BTreeMap::new();
    let (mut files, mut functions) = (Longest::default(), Longest::default());
    let sources = WalkDir::new(&root).sort_by_file_name().into_iter().filter_entry(|entry| {
        let name = entry.file_name().to_string_lossy();
        entry.depth() == 0 || !(name.starts_with('.') || name == "target" || name.starts_with("golden") || name == "fixtures")
    });
    for entry in sources {
        let path = entry?.into_path();
        let ending = path.extension().unwrap_or_default().to_string_lossy().into_owned();
        let rust = ending == "rs";
        if !rust && !OTHER_SOURCES.contains(&ending.as_str()) {
            continue;
        }
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let shown = path.strip_prefix(&root)?.display().to_string();
        let own = folders.iter().filter(|folder| path.starts_with(folder)).max_by_key(|folder| folder.as_os_str().len());
        let place = match own {
            Some(folder) => folder.strip_prefix(&root)?.display().to_string(),
            None => shown.split('/').next().unwrap_or_default().to_owned(),
        };
        let count = counts.entry(place).or_default();
        let lines = text.lines().count();
        if rust {
            count.rust += lines;
            files.add(lines, shown.clone());
            let parsed = syn::parse_file(&text).with_context(|| format!("{}: no Rust", path.display()))?;
            Functions { file: &shown, longest: &mut functions }.visit_file(&parsed);
        } else {
            count.other += lines;
        }
    }
    println!("{:24}{:>10}{:>10}", "LINES", "Rust", "other");
    for (place, count) in &counts {
        println!("{place:24}{:>10}{:>10}", count.rust, count.other);
    }
    let (rust, other) = counts.values().fold((0, 0), |(rust, other), count| (rust + count.rust, other + count.other));
    println!("{:24}{rust:>10}{other:>10}", "all");
    files.print("LONGEST FILES");
    functions.print("LONGEST FUNCTIONS");
    Ok(())
}

impl Longest {
    fn add(&mut self, lines: usize, what: String) {
        self.0.push((lines, what));
    }

    /// Prints the first five.
    fn print(mut self, title: &str) {
        self.0.sort_by(|a, b| b.cmp(a));
        println!("\n{title}");
        for (lines, what) in self.0.iter().take(5) {
            println!("{lines:>6}  {what}");
        }
    }
}

struct Functions<'f> {
    file: &'f str,
    longest: &'f mut Longest,
}

impl Functions<'_> {
    fn note(&mut self, signature: &syn::Signature, body: &syn::Block) {
        let first = signature.span().start().line;
        let lines = body.brace_token.span.close().end().line + 1 - first;
        self.longest.add(lines, format!("{} ({}:{first})", signature.ident, self.file));
    }
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.note(&function.sig, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.note(&function.sig, &function.block);
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast syn::TraitItemFn) {
        if let Some(body) = &function.default {
            self.note(&function.sig, body);
        }
        visit::visit_trait_item_fn(self, function);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_as_long_as_from_their_signature_to_their_end() {
        let text =
            "/// Why.\nfn a(\n    x: u8,\n) -> u8 {\n    x\n}\nimpl S {\n    fn b() { fn c() {\n } }\n}\ntrait T { fn d(); }\n";
        let mut longest = Longest::default();
        Functions { file: "f.rs", longest: &mut longest }.visit_file(&syn::parse_file(text).expect("Rust"));
        let found: Vec<_> = longest.0.iter().map(|(lines, what)| (*lines, what.as_str())).collect();
        assert_eq!(found, [(5, "a (f.rs:2)"), (2, "b (f.rs:8)"), (2, "c (f.rs:8)")]);
    }
}
