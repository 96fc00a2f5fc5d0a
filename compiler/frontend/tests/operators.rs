//! Arguments of torch's operators that were misread once: what they import to computes what torch computed.
//! `tests/fixtures/make_operators.py` makes the files.

use std::path::PathBuf;
use std::sync::Arc;

use aotfarm_ir::interp::{self, Case};

#[test]
fn operators_compute_what_torch_computed() {
    let folder: PathBuf = [env!("CARGO_MANIFEST_DIR"), "..", "..", "tests", "fixtures", "operators"].iter().collect();
    let mut models: Vec<PathBuf> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    models.retain(|path| path.extension().is_some_and(|ending| ending == "pt2"));
    assert!(!models.is_empty(), "no models in {}", folder.display());
    for path in models {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let graph =
            aotfarm_frontend::load(Arc::new(std::fs::read(&path).unwrap()), name).unwrap_or_else(|e| panic!("{name}: {e}"));
        let case = Case::read(&std::fs::read(folder.join(format!("{name}.case.safetensors"))).unwrap()).unwrap();
        let outputs = interp::run(&graph, &case.inputs).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(outputs.len(), case.outputs.len(), "{name}");
        for (at, (ours, theirs)) in outputs.iter().zip(&case.outputs).enumerate() {
            assert_eq!((ours.dtype, &ours.shape), (theirs.dtype, &theirs.shape), "{name}: output {at}");
            let near = |(a, b): (&f64, &f64)| a == b || (a - b).abs() <= 1e-6 * b.abs().max(1.0);
            let (ours, theirs) = (ours.to_f64(), theirs.to_f64());
            assert!(ours.iter().zip(&theirs).all(near), "{name}: output {at} is {ours:?}, not {theirs:?}");
        }
    }
}
