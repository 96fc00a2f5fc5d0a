//! Random element-wise programs over mixed types, ranks and numbers, as torch exports them: what they import to computes what torch
//! computed. `tests/programs.py` draws them; `AOTFARM_PROGRAMS` names a folder of others than those in the repository.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aotfarm_ir::interp::{self, Case, Tensor};
use aotfarm_protocol::DType;

fn folder() -> PathBuf {
    match std::env::var_os("AOTFARM_PROGRAMS") {
        Some(folder) => folder.into(),
        None => [env!("CARGO_MANIFEST_DIR"), "..", "..", "tests", "fixtures", "programs"].iter().collect(),
    }
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
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

#[test]
fn programs_compute_what_torch_computed() {
    let folder = folder();
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "pt2"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no programs in {}", folder.display());
    let (mut programs, mut wrong) = (0, Vec::new());
    for file in files {
        let name = file.display();
        let graph = match aotfarm_frontend::load(Arc::new(read(&file)), &name.to_string()) {
            Ok(graph) => graph,
            Err(error) => {
                wrong.push(error.to_string());
                continue;
            }
        };
        let case = Case::read(&read(&file.with_extension("case.safetensors"))).unwrap();
        let outputs = interp::run(&graph, &case.inputs).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(outputs.len(), case.outputs.len(), "{name}");
        let lines = String::from_utf8(read(&file.with_extension("txt"))).unwrap();
        for ((line, got), wanted) in lines.lines().zip(&outputs).zip(&case.outputs) {
            programs += 1;
            if !same(got, wanted) {
                let text = |t: &Tensor| format!("{}{:?} {:?}", t.dtype, t.shape, t.to_f64());
                wrong.push(format!("{name}: {line}\n  torch   {}\n  aotfarm {}", text(wanted), text(got)));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {programs} programs:\n{}", wrong.len(), wrong.join("\n"));
}
