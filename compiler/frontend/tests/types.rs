//! Element types: what mixed operands, numbers and constants are imported to computes what torch and ONNX Runtime computed.
//!
//! `tests/programs.py` draws random element-wise programs of torch, of which `AOTFARM_PROGRAMS` names a folder; those in the
//! repository are run without. `tests/fixtures/make_onnx_types.py` makes the models of ONNX. The cases of the shared folder are run
//! where it is there.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aotfarm_ir::interp::{self, Case, Tensor};
use aotfarm_protocol::DType;

/// Models of the shared folder that are right or wrong by their element types.
const CASES: [&str; 12] = [
    "avgpool-ceil-mode-onnx",
    "clamp-int-by-float",
    "int64-constant-2p53",
    "int64-constant-min-compare",
    "onnx-clip-f16",
    "onnx-int32-constants",
    "onnx-int32-shape-cast",
    "onnx-maxpool-indices",
    "onnx-mod-fmod-float",
    "onnx-shape-div-negative",
    "sum-of-bool-mask",
    "sum-of-int32",
];

fn fixtures(folder: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", "..", "tests", "fixtures", folder].iter().collect()
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The files of a folder with that ending.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|found| found == ending));
    files.sort();
    assert!(!files.is_empty(), "no .{ending} in {}", folder.display());
    files
}

/// Whether values are those that are wanted: integers to the bit, others up to a few roundings of their type.
fn same(got: &Tensor, wanted: &Tensor) -> bool {
    if (got.dtype, &got.shape) != (wanted.dtype, &wanted.shape) {
        return false;
    }
    let bits = match got.dtype {
        DType::F16 => 10,
        DType::Bf16 => 7,
        DType::F32 => 23,
        DType::F64 => 52,
        _ => return got.data == wanted.data,
    };
    let eps = 0.5f64.powi(bits);
    let close =
        |(a, b): (f64, f64)| (a.is_nan() && b.is_nan()) || a == b || (a - b).abs() <= (16.0 * eps * b.abs()).max(eps).max(1e-6);
    got.to_f64().into_iter().zip(wanted.to_f64()).all(close)
}

/// What is wrong with the outputs of a model; `labels` say what each is.
fn wrong(model: &Path, case: &Path, labels: &[String]) -> Vec<String> {
    let name = model.display();
    let run = || -> Result<_, String> {
        let graph = aotfarm_frontend::load(Arc::new(read(model)), &name.to_string()).map_err(|e| e.to_string())?;
        let case = Case::read(&read(case)).map_err(|e| e.to_string())?;
        let outputs = interp::run(&graph, &case.inputs).map_err(|e| e.to_string())?;
        Ok((outputs, case.outputs))
    };
    let (outputs, wanted) = match run() {
        Ok(both) => both,
        Err(error) => return vec![format!("{name}: {error}")],
    };
    assert_eq!(outputs.len(), wanted.len(), "{name}");
    let text = |t: &Tensor| format!("{}{:?} {:?}", t.dtype, t.shape, t.to_f64());
    let pairs = outputs.iter().zip(&wanted).enumerate().filter(|(_, (got, wanted))| !same(got, wanted));
    pairs
        .map(|(i, (got, wanted))| {
            let label = labels.get(i).map_or_else(|| i.to_string(), Clone::clone);
            format!("{name}: output {label}\n  wanted {}\n  got    {}", text(wanted), text(got))
        })
        .collect()
}

#[test]
fn programs_compute_what_torch_computed() {
    let folder = std::env::var_os("AOTFARM_PROGRAMS").map_or_else(|| fixtures("programs"), PathBuf::from);
    let (mut programs, mut all) = (0, Vec::new());
    for file in files(&folder, "pt2") {
        let lines = String::from_utf8(read(&file.with_extension("txt"))).unwrap();
        let labels: Vec<String> = lines.lines().map(ToOwned::to_owned).collect();
        programs += labels.len();
        all.extend(wrong(&file, &file.with_extension("case.safetensors"), &labels));
    }
    assert!(all.is_empty(), "{} of {programs} programs:\n{}", all.len(), all.join("\n"));
}

#[test]
fn operators_of_onnx_compute_what_its_runtime_computed() {
    let mut all = Vec::new();
    for file in files(&fixtures("onnx_types"), "onnx") {
        if !file.file_name().unwrap().to_string_lossy().starts_with("refused") {
            all.extend(wrong(&file, &file.with_extension("case.safetensors"), &[]));
        }
    }
    assert!(all.is_empty(), "{}", all.join("\n"));
}

#[test]
fn what_inference_has_no_place_for_is_refused_by_name() {
    for (model, wanted) in [
        ("batch_norm", "batch normalisation is in training mode"),
        ("column_major", "`storage_order` 1"),
        ("dropout", "dropout is in training mode (`training_mode`)"),
        ("mod", "needs `fmod` 1"),
        ("output", "it uses `m`, output 1 of `LayerNormalization`, which is not supported"),
    ] {
        let file = fixtures("onnx_types").join(format!("refused_{model}.onnx"));
        let error = aotfarm_frontend::load(Arc::new(read(&file)), "m.onnx").unwrap_err().to_string();
        assert!(error.contains(wanted), "{model}: {error}");
    }
}

#[test]
fn shared_cases_compute_what_is_recorded() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/cases");
    if !folder.is_dir() {
        println!("skipped: no cases at {}", folder.display());
        return;
    }
    let mut all = Vec::new();
    for case in CASES {
        let model = ["model.pt2", "model.onnx"].map(|name| folder.join(case).join(name)).into_iter().find(|path| path.is_file());
        all.extend(wrong(&model.expect("a model"), &folder.join(case).join("case.safetensors"), &[]));
    }
    assert!(all.is_empty(), "{}", all.join("\n"));
}
