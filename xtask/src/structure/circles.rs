//! No circles between the modules of a crate.
//!
//! A module is a file. It leads to another if it mentions an item that is defined there: in a `use`, a type, an
//! expression, a macro's arguments. Re-exports in between do not count, and a module alone is no item.
//!
//! Seen from their parent, children stand for all that lies below them, and the parent for its own file. Among these there
//! must be no circle: not between children, and not between a parent and its children. So a parent either uses its
//! children or is used by them. To declare a child, or to re-export what is defined below (`pub use child::Item`), is no
//! use; to need that item oneself is.
//!
//! Where that holds at every module, no two files need each other, and each can be read after those that it uses.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::ensure;
use petgraph::algo::tarjan_scc;
use petgraph::graphmap::DiGraphMap;

use super::modules::{Crate, FileId};

/// Circles that are being mended, as the check prints them. One that is gone must be taken from this list.
pub const KNOWN_CIRCLES: &[&[&str]] = &[
    &["protocol::outcome", "protocol::work"],
    &["protocol::job", "protocol::metadata"],
    &["ir::expr", "ir::expr_parse", "ir::graph", "ir::infer", "ir::op"],
    &["ir::builder", "ir::verify"],
    &["ir::text", "ir::text::attrs", "ir::text::cursor"],
    &["frontend", "frontend::graph", "frontend::onnx", "frontend::pt2"],
    &["frontend::onnx", "frontend::onnx::node", "frontend::onnx::ops", "frontend::onnx::tensor"],
    &["frontend::pt2", "frontend::pt2::archive", "frontend::pt2::call", "frontend::pt2::ops"],
    &["plan", "plan::arena", "plan::verify"],
    &[
        "compiler::link",
        "compiler::link::glue",
        "compiler::link::ports",
        "compiler::link::section",
        "compiler::link::steps",
        "compiler::link::values",
        "compiler::link::vendor",
    ],
    &["registry::catalog", "registry::catalog::rows"],
    &["registry::server", "registry::server::blobs", "registry::server::models", "registry::server::oci"],
    &["worker::exec", "worker::gpu", "worker::nvrtc", "worker::toolchain"],
    &[
        "worker::child",
        "worker::child::gpu",
        "worker::child::measure",
        "worker::child::nvrtc",
        "worker::child::pack",
        "worker::child::profile",
        "worker::child::rehearse",
    ],
    &["worker::child::gpu", "worker::child::gpu::bench", "worker::child::gpu::vendor"],
    &["worker::child::gpu::vendor", "worker::child::gpu::vendor::cublaslt", "worker::child::gpu::vendor::cudnn"],
    &[
        "worker::exec",
        "worker::exec::build",
        "worker::exec::link",
        "worker::exec::measure",
        "worker::exec::profile",
        "worker::exec::rehearse",
    ],
    &["cli::args", "cli::context", "cli::embedded", "cli::failure", "cli::output", "cli::tensors", "cli::verbs", "cli::watch"],
];

/// Modules that lead to each other, and for each step a place that takes it.
struct Circle {
    modules: BTreeSet<String>,
    steps: Vec<String>,
}

/// Checks that all circles are known, and that all known ones exist.
///
/// # Errors
/// Every circle that is not known with the places that make it, and every known one that is gone.
pub fn check(crates: &[Crate], known: &[&[&str]]) -> anyhow::Result<()> {
    let known: BTreeSet<BTreeSet<String>> = known.iter().map(|c| c.iter().map(|&module| module.to_owned()).collect()).collect();
    let found: Vec<Circle> = crates.iter().flat_map(circles).collect();
    let mut wrong = Vec::new();
    for circle in found.iter().filter(|circle| !known.contains(&circle.modules)) {
        wrong.push(format!("modules in a circle: {:?}\n  {}", circle.modules, circle.steps.join("\n  ")));
    }
    for modules in known.iter().filter(|modules| found.iter().all(|circle| circle.modules != **modules)) {
        wrong.push(format!("no circle any more, take it from KNOWN_CIRCLES: {modules:?}"));
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// The circles of one crate.
fn circles(source: &Crate) -> Vec<Circle> {
    // By the file that they meet below: from which of its children (or itself) to which, and a place.
    let mut meetings: BTreeMap<FileId, BTreeMap<(FileId, FileId), String>> = BTreeMap::new();
    for (id, module) in source.modules.iter().enumerate() {
        let from = source.line_of_files(module.file);
        for mention in source.mentions(id) {
            for &file in &mention.files {
                let to = source.line_of_files(file);
                if mention.reexport && to.contains(&module.file) {
                    continue;
                }
                let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
                let below = |line: &[FileId]| line.get(common).copied().unwrap_or(line[common - 1]);
                meetings.entry(from[common - 1]).or_default().entry((below(&from), below(&to))).or_insert_with(|| {
                    let (at, of) = (source.files[module.file].display(), source.files[file].display());
                    format!("{at}:{} names {}, of {of}", mention.line, mention.path)
                });
            }
        }
    }
    let mut found = Vec::new();
    for steps in meetings.values() {
        let graph: DiGraphMap<FileId, ()> = steps.keys().copied().collect();
        for circle in tarjan_scc(&graph).into_iter().filter(|files| files.len() > 1) {
            let inside = steps.iter().filter(|((from, to), _)| circle.contains(from) && circle.contains(to));
            found.push(Circle {
                modules: circle.iter().map(|&file| source.name_of(file)).collect(),
                steps: inside.map(|(_, place)| place.clone()).collect(),
            });
        }
    }
    found
}
