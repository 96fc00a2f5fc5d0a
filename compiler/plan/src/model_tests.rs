//! Real exports: everything lowers, and the plan reproduces what torch computed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aotfarm_protocol::{CpuIsa, Precision, Target};

use crate::passes;
use crate::spec::KernelKind;
use aotfarm_frontend as import;
use aotfarm_ir::interp::Case;

use super::{eval, lower};

const TARGETS: [Target; 2] = [Target::Cpu(CpuIsa::X86_64V3), Target::Cpu(CpuIsa::X86_64V4)];

/// The exports of a model, or a printed reason why there are none.
fn exports(model: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/models/small").join(model);
    let files: Vec<PathBuf> = ["pt2", "onnx"]
        .iter()
        .map(|extension| folder.join(format!("{model}.{extension}")))
        .filter(|path| path.exists())
        .collect();
    if files.is_empty() {
        eprintln!("skipped: there is no export of {model} in {}", folder.display());
    }
    files
}

/// Lowers a model's exports for both vector widths, and runs the first on a stored case. The last case is for the wider one.
fn check(model: &str) {
    for path in exports(model) {
        let bytes = std::fs::read(&path).expect("the export can be read");
        let graph = import::load(Arc::new(bytes), &path.to_string_lossy()).expect("it imports");
        let folded = passes::run(graph.clone(), None).expect("the passes take it");
        for (target, case) in TARGETS.into_iter().zip(["case_1", "case_3"]) {
            let plan = lower(folded.clone(), target, Precision::Fp32).expect("it lowers");
            let bytes = std::fs::read(path.with_file_name(format!("{case}.safetensors"))).expect("the case can be read");
            let case = Case::read(&bytes).expect("a case");
            let outputs = eval::run(&plan, &graph, &case.inputs);
            super::tests::assert_close(&outputs, &case.outputs, &path.to_string_lossy());
        }
    }
}

#[test]
fn resnet() {
    check("resnet18");
}

#[test]
fn mobilenet() {
    check("mobilenet_v3_small");
}

#[test]
fn efficientnet() {
    check("efficientnet_b0");
}

#[test]
fn bert() {
    check("bert");
}

#[test]
fn convnext() {
    check("convnext_atto");
}

#[test]
fn resnet18_of_full_size_is_21_convolution_or_product_steps() {
    let graph = aotfarm_ir::example("resnet18").expect("an example");
    let plan = lower(passes::run(graph, None).expect("passes"), TARGETS[0], Precision::Fp32).expect("it lowers");
    let count = |f: fn(&KernelKind) -> bool| plan.steps.iter().filter(|s| f(&plan.specs[s.spec].kind)).count();
    assert_eq!(count(|k| matches!(k, KernelKind::Conv(_))), 20);
    assert_eq!(count(|k| matches!(k, KernelKind::MatMul(_))), 1);
    assert_eq!(plan.steps.len(), 22, "and a mean; the pooling is in the stem\n{}", plan.print());
    assert_eq!(plan.specs.len(), 17, "equal computations share a spec");
}
