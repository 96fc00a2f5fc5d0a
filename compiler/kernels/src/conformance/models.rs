//! Whole models on a GPU: every task that their plans come to has a naive kernel, which compiles.
#![cfg(test)]

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use aotfarm_protocol::{Precision, TuneMode};

use super::GPU;
use crate::testing::gpu::{Nvrtc, cubins};
use crate::{Candidate, candidates, title};
use aotfarm_frontend as import;
use aotfarm_ir::Graph;
use aotfarm_plan::{self as plan, passes};

/// Checks a graph in every precision, and compiles the first candidates of each task in one that converts the most.
fn check(graph: Graph, name: &str) {
    let graph = passes::run(graph, None).unwrap_or_else(|e| panic!("{name}: {e}"));
    let mut units: HashMap<String, Candidate> = HashMap::new();
    for precision in [Precision::Fp32, Precision::Tf32, Precision::Fp16, Precision::Bf16] {
        let plan = plan::lower(graph.clone(), GPU, precision).unwrap_or_else(|e| panic!("{name} in {precision}: {e}"));
        for point in plan.tune_points(&[]) {
            for task in crate::tasks(&plan, &point).expect("sizes within the range").into_iter().map(|t| t.task) {
                let found = candidates(&task, TuneMode::Quick, Some(2));
                assert!(!found.is_empty(), "{name} in {precision}: no family supports {}\n{:?}", title(&task), task.spec);
                assert!(
                    found.iter().all(|c| c.launch.is_some() || c.vendor.is_some()),
                    "{name} in {precision}: no launch for {}",
                    title(&task)
                );
                if precision == Precision::Bf16 {
                    units.extend(found.into_iter().map(|c| (c.source.symbol.clone(), c)));
                }
            }
        }
    }
    if let Some(nvrtc) = Nvrtc::find() {
        cubins(nvrtc, 90, &units.values().collect::<Vec<_>>());
    }
}

/// [`check`] of an export.
fn check_export(model: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/models/small").join(model);
    let path = folder.join(format!("{model}.pt2"));
    let Ok(bytes) = std::fs::read(&path) else {
        eprintln!("skipped: there is no export of {model} in {}", folder.display());
        return;
    };
    match import::load(Arc::new(bytes), &path.to_string_lossy()) {
        Ok(graph) => check(graph, model),
        Err(reason) => eprintln!("skipped: {model} does not import yet: {reason}"),
    }
}

#[test]
fn the_examples_plan_for_a_gpu() {
    for name in aotfarm_ir::EXAMPLES {
        check(aotfarm_ir::example(name).expect("an example"), name);
    }
}

#[test]
fn image_models_plan_for_a_gpu() {
    ["resnet18", "mobilenet_v3_small", "efficientnet_b0", "convnext_atto"].into_iter().for_each(check_export);
}

#[test]
fn transformers_plan_for_a_gpu() {
    ["bert", "vit_tiny", "gpt2", "llama"].into_iter().for_each(check_export);
}
