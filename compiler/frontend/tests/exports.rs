//! Tiny models as torch exports them: what they import to computes what torch computed. `tests/fixtures/make_exports.py` makes the files.

use std::path::PathBuf;
use std::sync::Arc;

use aotfarm_ir::interp::{self, Case};

const MODELS: [&str; 6] = ["attention", "conv_bn_relu", "dynamic_batch", "embedding_mask", "in_place", "linear_gelu_layernorm"];
const BATCHES: [usize; 2] = [1, 3];

fn exports() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", "..", "tests", "fixtures", "exports"].iter().collect()
}

fn read(file: &str) -> Vec<u8> {
    let path = exports().join(file);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Relative L2 distance of values from those that are wanted.
fn distance(values: &[f64], wanted: &[f64]) -> f64 {
    assert_eq!(values.len(), wanted.len());
    let norm = |squares: &mut dyn Iterator<Item = f64>| squares.sum::<f64>().sqrt();
    norm(&mut values.iter().zip(wanted).map(|(v, w)| (v - w).powi(2))) / norm(&mut wanted.iter().map(|w| w.powi(2)))
}

/// Imports `<model>.<ending>` and runs the interpreter on each recorded case.
fn check(model: &str, ending: &str) {
    let file = format!("{model}.{ending}");
    let graph = aotfarm_frontend::load(Arc::new(read(&file)), &file).unwrap_or_else(|e| panic!("{file}: {e}"));
    let dims: Vec<_> = graph.dims.iter().map(|d| (d.sym.as_str(), d.min)).collect();
    assert_eq!(dims, [("batch", 1)], "{file}");
    for batch in BATCHES {
        let case = Case::read(&read(&format!("{model}.case_{batch}.safetensors"))).unwrap();
        assert!(!case.outputs.is_empty() && case.inputs.iter().all(|input| input.shape[0] == batch), "{model}");
        let outputs = interp::run(&graph, &case.inputs).unwrap_or_else(|e| panic!("{file} at batch {batch}: {e}"));
        assert_eq!(outputs.len(), case.outputs.len(), "{file}");
        for (i, (ours, theirs)) in outputs.iter().zip(&case.outputs).enumerate() {
            assert_eq!((&ours.shape, ours.dtype), (&theirs.shape, theirs.dtype), "{file}: output {i} at batch {batch}");
            let error = distance(&ours.to_f64(), &theirs.to_f64());
            assert!(error < 1e-6, "{file}: output {i} at batch {batch} has the relative error {error:e}");
        }
    }
}

#[test]
fn pt2_files_compute_what_torch_computed() {
    for model in MODELS {
        check(model, "pt2");
    }
}

#[test]
fn onnx_files_compute_what_torch_computed() {
    for model in MODELS {
        check(model, "onnx");
    }
}

#[test]
fn no_export_is_forgotten() {
    let mut files: Vec<String> =
        exports().read_dir().unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    files.sort();
    let mut wanted: Vec<String> = MODELS
        .iter()
        .flat_map(|model| {
            let cases = BATCHES.map(|batch| format!("{model}.case_{batch}.safetensors"));
            cases.into_iter().chain(["pt2", "onnx"].map(|ending| format!("{model}.{ending}")))
        })
        .collect();
    wanted.sort();
    assert_eq!(files, wanted, "tests/fixtures/make_exports.py writes what this test reads");
}
