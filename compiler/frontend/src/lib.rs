//! Importers: `.graph`, `.pt2` and `.onnx` → Graph.
//!
//! An importer never trusts its file: it checks every size and offset before use, builds through [`aotfarm_ir::Builder`] (which infers
//! and checks every shape), and names the place of what is wrong. Weights are slices of the file's bytes, not copies.

mod aten;
mod error;
mod file;
pub mod graph;
mod lines;
mod onnx;
mod semantics;
mod storage;
mod symbols;

pub use error::{ImportError, UnsupportedOp};
pub use file::{External, SharedBytes};
pub use lines::source_lines;

use aotfarm_ir::Graph;

/// Imports a file of any supported format, told apart by content. `file_name` names the model where the file does not, and shows
/// in messages. Files that refer to other files need [`load_with`].
pub fn load(bytes: SharedBytes, file_name: &str) -> Result<Graph, ImportError> {
    load_with(bytes, file_name, &|path| Err(format!("`{path}` lies outside the file, and only the file itself was given")))
}

/// [`load`] for files that may refer to others beside them.
pub fn load_with(bytes: SharedBytes, file_name: &str, external: External<'_>) -> Result<Graph, ImportError> {
    let content = (*bytes).as_ref();
    if content.is_empty() {
        return Err(ImportError::damaged("the file is empty", file_name));
    }
    if graph::looks_like(content) {
        return graph::read(&bytes);
    }
    if content.starts_with(b"PK") {
        return aten::read(bytes, stem(file_name));
    }
    // Protobuf has no signature; a model opens with its IR version (field 1, a varint).
    if content.starts_with(&[0x08]) {
        return onnx::read(&bytes, stem(file_name), external);
    }
    Err(ImportError::Unrecognised { file: file_name.to_owned() })
}

/// A model's name from a file name: without folders and extension.
pub fn stem(file_name: &str) -> &str {
    let base = file_name.rsplit(['/', '\\']).next().unwrap_or(file_name);
    match base.rsplit_once('.') {
        Some((stem, _)) if !stem.is_empty() => stem,
        _ => base,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn content_decides_and_not_the_name() {
        let graph = graph::write(&aotfarm_ir::example("mobilenet_v2").unwrap());
        assert_eq!(load(Arc::new(graph), "disguised.onnx").unwrap().name, "mobilenet_v2");
        let refused = |bytes: &[u8]| load(Arc::new(bytes.to_vec()), "dir/x.graph").unwrap_err().to_string();
        assert_eq!(refused(b""), "the file is damaged: the file is empty (dir/x.graph)");
        assert!(refused(b"\x7fELF and so on").starts_with("`dir/x.graph` is not a model: expected a .graph file"));
        assert!(refused(b"PK\x03\x04 but no zip").contains("zip"));
    }

    #[test]
    fn the_stem_of_a_file_name() {
        for (name, wanted) in
            [("a/b/resnet.v2.pt2", "resnet.v2"), ("c:\\m\\x.onnx", "x"), (".hidden", ".hidden"), ("plain", "plain")]
        {
            assert_eq!(stem(name), wanted);
        }
    }
}
