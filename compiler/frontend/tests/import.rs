//! The `.pt2` and `.onnx` importers on real exports (skipped where they are absent) and on damaged files.

use std::io::{Cursor, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aotfarm_frontend::{self as import, ImportError};
use aotfarm_ir::interp;
use aotfarm_ir::{Graph, Op};

/// Real exports lie beside the checkout where there are any.
fn models() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/models/small");
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: no exported models at {}", folder.display());
    None
}

fn load(file: &Path) -> Graph {
    let bytes = std::fs::read(file).unwrap();
    import::load(Arc::new(bytes), &file.to_string_lossy()).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

/// Relative L2 distance.
fn distance(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
    (square(&mut a.iter().zip(b).map(|(x, y)| x - y)) / square(&mut b.iter().copied())).sqrt()
}

#[test]
fn real_exports_import_and_compute_what_torch_computed() {
    let Some(folder) = models() else { return };
    for model in ["resnet18", "mobilenet_v3_small", "efficientnet_b0", "bert", "convnext_atto"] {
        let graph = load(&folder.join(model).join(format!("{model}.pt2")));
        assert_eq!(graph.name, model);
        let batch = graph.dims.iter().find(|d| d.sym.as_str() == "batch").unwrap();
        assert_eq!((batch.min, batch.max, batch.hint), (1, 32, Some(2)), "{model}");
        check_cases(&graph, &folder, model);
    }
}

/// Runs both recorded cases of a model through the interpreter.
fn check_cases(graph: &Graph, folder: &Path, model: &str) {
    for size in [1, 3] {
        let case = std::fs::read(folder.join(model).join(format!("case_{size}.safetensors"))).unwrap();
        let case = interp::Case::read(&case).unwrap();
        let outputs = interp::run(graph, &case.inputs).unwrap_or_else(|e| panic!("{model}: {e}"));
        assert_eq!(outputs.len(), case.outputs.len(), "{model}");
        for (ours, theirs) in outputs.iter().zip(&case.outputs) {
            let error = distance(&ours.to_f64(), &theirs.to_f64());
            assert!(error < 1e-5, "{model} at batch {size}: relative error {error:e}");
        }
    }
}

#[test]
fn real_onnx_exports_import_and_compute_what_torch_computed() {
    let Some(folder) = models() else { return };
    for model in ["resnet18", "mobilenet_v3_small", "bert"] {
        let graph = load(&folder.join(model).join(format!("{model}.onnx")));
        assert_eq!(graph.dims[0].sym.as_str(), "batch");
        check_cases(&graph, &folder, model);
    }
}

/// Every decoding of a truncated or flipped file ends with an error or a graph, never a panic.
#[test]
fn damaged_files_are_refused() {
    let Some(folder) = models() else { return };
    let whole = std::fs::read(folder.join("resnet18/resnet18.pt2")).unwrap();
    for cut in [0, 1, 3, 100, whole.len() / 2, whole.len() - 30, whole.len() - 1] {
        assert!(import::load(Arc::new(whole[..cut].to_vec()), "m.pt2").is_err(), "cut at {cut}");
    }
    // The directory and the JSON lie at the end; flip bytes all over that part.
    let mut state = 1u64;
    for _ in 0..200 {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let mut bytes = whole.clone();
        let at = whole.len() - 1 - (state >> 33) as usize % 180_000;
        bytes[at] ^= 1 << (state & 7);
        drop(import::load(Arc::new(bytes), "m.pt2"));
    }
}

/// A minimal archive: `y = aten.<op>(x)` over a symbolic batch.
fn archive(op: &str, edit: impl FnOnce(&mut Vec<(String, Vec<u8>)>)) -> Vec<u8> {
    let symbol = r#"{"as_expr": {"expr_str": "Symbol('s7', positive=True, integer=True)", "hint": {"as_int": 2}}}"#;
    let meta = format!(
        r#"{{"dtype": 7, "sizes": [{symbol}, {{"as_int": 4}}], "strides": [{{"as_int": 4}}, {{"as_int": 1}}], "storage_offset": {{"as_int": 0}}}}"#
    );
    let json = format!(
        r#"{{"schema_version": {{"major": 8, "minor": 20}}, "range_constraints": {{"s7": {{"min_val": 2, "max_val": 16}}}},
        "graph_module": {{"graph": {{"nodes": [{{"target": "torch.ops.aten.{op}.default", "inputs": [{{"name": "self", "arg": {{"as_tensor": {{"name": "x"}}}}}}],
        "outputs": [{{"as_tensor": {{"name": "y"}}}}]}}], "tensor_values": {{"x": {meta}}}}},
        "signature": {{"input_specs": [{{"user_input": {{"arg": {{"as_tensor": {{"name": "x"}}}}}}}}],
        "output_specs": [{{"user_output": {{"arg": {{"as_tensor": {{"name": "y"}}}}}}}}]}}}}}}"#
    );
    let mut entries = vec![("m/models/model.json".to_owned(), json.into_bytes()), ("m/byteorder".to_owned(), b"little".to_vec())];
    edit(&mut entries);
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in entries {
        zip.start_file(name, zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored))
            .unwrap();
        zip.write_all(&content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn import(bytes: Vec<u8>) -> Result<Graph, ImportError> {
    import::load(Arc::new(bytes), "dir/m.pt2")
}

#[test]
fn a_minimal_program_imports() {
    let graph = import(archive("tanh", |_| {})).unwrap();
    assert!(matches!(graph.nodes[0].op, Op::Unary(_)));
    assert_eq!((graph.dims[0].sym.as_str(), graph.dims[0].min, graph.dims[0].max), ("batch", 1, 16));
}

#[test]
fn errors_name_the_place_and_the_remedy() {
    let text = |edit: fn(&mut Vec<(String, Vec<u8>)>)| import(archive("tanh", edit)).unwrap_err().to_string();
    let replace = |from: &'static str, to: &'static str| {
        move |entries: &mut Vec<(String, Vec<u8>)>| {
            entries[0].1 = String::from_utf8(entries[0].1.clone()).unwrap().replace(from, to).into_bytes();
        }
    };
    assert!(text(|e| e[0].0 = "m/other.json".into()).contains("models/model.json"));
    assert!(text(|e| e[0].0 = "m/serialized_exported_program.json".into()).contains("torch 2.9 or newer"));
    assert!(text(|e| e[1].0 = "m/../../etc/passwd".into()).contains("leaves the archive"));
    assert!(text(|e| e[1].1 = b"big".to_vec()).contains("big-endian"));
    let edited = |from, to| import(archive("tanh", replace(from, to))).unwrap_err().to_string();
    assert!(edited("\"major\": 8", "\"major\": 9").contains("schema version 9"));
    assert!(edited("\"dtype\": 7", "\"dtype\": 10").contains("complex"));
    assert!(edited("user_input", "token").contains("token"));
    assert!(edited("user_output", "loss_output").contains("an output of the kind `loss_output`"));
}

/// Sizes in a zip directory are only claims: neither one that is too large nor one that is too small is inflated for.
#[test]
fn a_zip_bomb_is_not_inflated() {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let deflated = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
    zip.start_file("m/data/zeros", deflated).unwrap();
    zip.write_all(&[0; 4096]).unwrap();
    let bytes = zip.finish().unwrap().into_inner();
    // The field of the uncompressed size in the central directory.
    let at = bytes.windows(4).position(|w| w == b"PK\x01\x02").unwrap() + 24;
    for (declared, wanted) in [(u32::MAX - 1, "it inflates to 4294967294 bytes"), (4000, "declared uncompressed size")] {
        let mut lying = bytes.clone();
        lying[at..at + 4].copy_from_slice(&declared.to_le_bytes());
        let error = import(lying).unwrap_err().to_string();
        assert!(error.contains(wanted) && error.contains("zip entry `m/data/zeros`"), "{error}");
    }
}

#[test]
fn every_unsupported_operator_is_listed() {
    match import(archive("fft_rfft", |_| {})).unwrap_err() {
        ImportError::Unsupported { ops } => {
            assert_eq!((ops[0].op.as_str(), ops[0].nodes.as_slice()), ("aten.fft_rfft.default", &["y".to_owned()][..]));
        }
        other => panic!("{other}"),
    }
}

/// Each node that is wrong is told, but not those that only lack what it should have given.
#[test]
fn everything_that_is_wrong_with_nodes_is_told_at_once() {
    let node = |target: &str, input: &str, output: &str| {
        format!(
            r#"{{"target": "torch.ops.aten.{target}.default", "inputs": [{{"name": "self", "arg": {{"as_tensor": {{"name": "{input}"}}}}}}],
            "outputs": [{{"as_tensor": {{"name": "{output}"}}}}]}}, "#
        )
    };
    // A permutation without its axes.
    let more = node("permute", "x", "p") + &node("tanh", "p", "q") + &node("permute", "q", "r") + &node("permute", "x", "s");
    let error = import(archive("tanh", |entries| {
        let json = String::from_utf8(entries[0].1.clone()).unwrap();
        entries[0].1 = json.replace("\"nodes\": [", &format!("\"nodes\": [{more}")).into_bytes();
    }));
    let said = error.unwrap_err().to_string();
    assert!(said.starts_with("2 nodes cannot be imported:\n  node `p: aten.permute.default`: "), "{said}");
    assert!(said.contains("\n  node `s: aten.permute.default`: ") && !said.contains("`q:") && !said.contains("`r:"), "{said}");
}

#[test]
fn the_lines_of_source_are_read_from_the_stack_traces() {
    let bytes = archive("tanh", |entries| {
        let json = String::from_utf8(entries[0].1.clone()).unwrap();
        let trace = r#""metadata": {"stack_trace": "  File \"net.py\", line 3, in forward\n    return x.tanh()"}, "outputs""#;
        entries[0].1 = json.replacen("\"outputs\"", trace, 1).into_bytes();
    });
    let lines = |bytes: Vec<u8>| import::source_lines(&(Arc::new(bytes) as import::SharedBytes));
    assert_eq!(lines(bytes).get("y").map(String::as_str), Some("net.py:3, in forward: return x.tanh()"));
    assert!(lines(archive("tanh", |_| {})).is_empty());
}
