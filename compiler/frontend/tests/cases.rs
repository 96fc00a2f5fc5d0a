//! Small models that other compilers got wrong once, with the values that torch or ONNX Runtime give. They lie beside the checkout
//! where there are any; each folder's README tells where the model comes from.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aotfarm_ir::interp::{self, Case, Tensor};

fn cases() -> Option<Vec<PathBuf>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/cases");
    let Ok(list) = folder.read_dir() else {
        println!("skipped: no cases at {}", folder.display());
        return None;
    };
    let mut cases: Vec<PathBuf> = list.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
    cases.sort();
    Some(cases)
}

/// What `submit --dim` allows of a dimension, for models of which more is asked than the file says.
const RANGES: [(&str, &str, [i64; 2]); 1] = [("onnx-past-length-zero", "past", [0, 64])];

/// What is wrong with a result; `None` if nothing is.
fn difference(ours: &Tensor, wanted: &Tensor) -> Option<String> {
    if (ours.dtype, &ours.shape) != (wanted.dtype, &wanted.shape) {
        return Some(format!("is {}{:?}, not {}{:?}", ours.dtype, ours.shape, wanted.dtype, wanted.shape));
    }
    if !wanted.dtype.is_float() {
        return (ours.data != wanted.data).then(|| format!("{:?}, not {:?}", ours.to_f64(), wanted.to_f64()));
    }
    let same = |a: f64, b: f64| a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-6 + 1e-5 * b.abs();
    let (ours, wanted) = (ours.to_f64(), wanted.to_f64());
    let at = ours.iter().zip(&wanted).position(|(a, b)| !same(*a, *b))?;
    Some(format!("element {at} is {}, not {}", ours[at], wanted[at]))
}

fn check(folder: &Path) -> Result<(), String> {
    let name = folder.file_name().unwrap().to_string_lossy();
    let file = ["model.pt2", "model.onnx"].map(|file| folder.join(file)).into_iter().find(|file| file.exists());
    let file = file.ok_or("there is no model")?;
    let mut graph =
        aotfarm_frontend::load(Arc::new(std::fs::read(&file).unwrap()), &file.to_string_lossy()).map_err(|e| e.to_string())?;
    for (_, dim, [min, max]) in RANGES.iter().filter(|(case, ..)| *case == name) {
        let dim = graph.dims.iter_mut().find(|d| d.sym.as_str() == *dim).ok_or("there is no such dimension")?;
        (dim.min, dim.max) = (*min, *max);
        aotfarm_ir::verify(&graph).map_err(|e| e.to_string())?;
    }
    let case = Case::read(&std::fs::read(folder.join("case.safetensors")).unwrap()).map_err(|e| e.to_string())?;
    let fresh = interp::initial(&graph);
    let mut results = interp::run_from(&graph, &case.inputs, &fresh).map_err(|e| e.to_string())?;
    // Of models with state, the case holds the second call.
    if name.starts_with("buffer-mutated") {
        results = interp::run_from(&graph, &case.inputs, &results.states).map_err(|e| e.to_string())?;
    }
    if results.outputs.len() != case.outputs.len() {
        return Err(format!("{} outputs, not {}", results.outputs.len(), case.outputs.len()));
    }
    for (at, (ours, wanted)) in results.outputs.iter().zip(&case.outputs).enumerate() {
        if let Some(difference) = difference(ours, wanted) {
            return Err(format!("output {at}: {difference}"));
        }
    }
    Ok(())
}

#[test]
fn models_that_others_got_wrong_come_out_right() {
    let Some(cases) = cases() else { return };
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|case| check(case).err().map(|e| format!("{}: {e}", case.file_name().unwrap().display())))
        .collect();
    assert!(wrong.is_empty(), "{} of {} are wrong:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}
