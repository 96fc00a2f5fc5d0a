//! Model files.

use std::io::{Cursor, Write as _};
use std::sync::Arc;

use aotfarm_frontend::{ImportError, SharedBytes, graph as format, load};
use aotfarm_ir::Graph;
use zip::CompressionMethod;
use zip::write::SimpleFileOptions;

/// A `.graph` file.
pub(crate) fn graph(input: &[u8]) -> bool {
    settle(format::read(&shared(input)))
}

/// An `.onnx` file without external data.
pub(crate) fn onnx(input: &[u8]) -> bool {
    settle(load(shared(input), "fuzzed.onnx"))
}

/// A `.pt2` file; or, for an input that is no zip, the parts of one that are parsed, with zero bytes between them: `models/model.json`,
/// `data/weights/model_weights_config.json`, and the content of every weight.
pub(crate) fn pt2(input: &[u8]) -> bool {
    let file = if input.starts_with(b"PK") { input.to_vec() } else { archive(input) };
    settle(load(shared(&file), "fuzzed.pt2"))
}

fn shared(input: &[u8]) -> SharedBytes {
    Arc::new(input.to_vec())
}

/// How many weights an archive has that is made of its parts.
const WEIGHTS: usize = 4;

fn archive(input: &[u8]) -> Vec<u8> {
    let mut parts = input.splitn(3, |byte| *byte == 0);
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let mut add = |name: &str, content: &[u8]| {
        let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        zip.start_file(name, stored).expect("a name that is not taken");
        zip.write_all(content).expect("memory");
    };
    add("m/models/model.json", parts.next().unwrap_or_default());
    if let Some(config) = parts.next() {
        add("m/data/weights/model_weights_config.json", config);
        let content = parts.next().unwrap_or_default();
        for n in 0..WEIGHTS {
            add(&format!("m/data/weights/weight_{n}"), content);
        }
    }
    zip.finish().expect("memory").into_inner()
}

/// Whether the file was accepted. What was imported must survive being written and read.
fn settle(imported: Result<Graph, ImportError>) -> bool {
    let graph = match imported {
        Ok(graph) => graph,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return false;
        }
    };
    let written = format::write(&graph);
    let read = format::read(&shared(&written)).unwrap_or_else(|e| panic!("what was written is not read: {e}"));
    assert!(format::write(&read) == written, "a graph that was read again is written otherwise");
    true
}
