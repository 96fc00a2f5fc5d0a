//! Models that change their buffers: each call computes what torch computed, in both forms of the export.
//! `tests/fixtures/make_state.py` makes the files.

use std::path::PathBuf;
use std::sync::Arc;

use aotfarm_ir::Graph;
use aotfarm_ir::interp::{self, Tensor};
use safetensors::SafeTensors;

fn read(file: &str) -> Vec<u8> {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "../../tests/fixtures/state", file].iter().collect();
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The inputs and outputs of each call.
fn calls(model: &str) -> Vec<[Vec<Tensor>; 2]> {
    let bytes = read(&format!("{model}.calls.safetensors"));
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let list = |kind: &str, call: usize| -> Vec<Tensor> {
        let tensor = |i: usize| {
            let view = file.tensor(&format!("{kind}.{call}.{i}")).ok()?;
            let dtype = aotfarm_ir::safetensors::from_safetensors(view.dtype()).unwrap();
            Some(Tensor { dtype, shape: view.shape().to_vec(), data: view.data().to_vec() })
        };
        (0..).map_while(tensor).collect()
    };
    (0..).map(|call| [list("in", call), list("out", call)]).take_while(|[inputs, _]| !inputs.is_empty()).collect()
}

fn check(file: &str, model: &str) -> Graph {
    let graph = aotfarm_frontend::load(Arc::new(read(file)), file).unwrap_or_else(|e| panic!("{file}: {e}"));
    let mut states = interp::initial(&graph);
    for (call, [inputs, wanted]) in calls(model).iter().enumerate() {
        let results = interp::run_from(&graph, inputs, &states).unwrap_or_else(|e| panic!("{file}: {e}"));
        assert_eq!(results.outputs.len(), wanted.len(), "{file}");
        for (ours, theirs) in results.outputs.iter().zip(wanted) {
            assert_eq!((&ours.shape, ours.dtype), (&theirs.shape, theirs.dtype), "{file}: call {call}");
            let error = ours.relative_error(theirs);
            assert!(error < 1e-5, "{file}: call {call} has the relative error {error:e}");
        }
        states = results.states;
    }
    graph
}

#[test]
fn state_is_right_call_by_call() {
    for model in ["attention", "counter", "moving_average", "static_cache"] {
        let graph = check(&format!("{model}.pt2"), model);
        assert!(!graph.states.is_empty(), "{model}");
        assert!(graph.writes.is_empty(), "{model}");
    }
}

#[test]
fn the_decomposed_form_has_the_same_state() {
    for model in ["attention", "counter", "moving_average"] {
        let [whole, decomposed] = ["pt2", "decomposed.pt2"].map(|ending| check(&format!("{model}.{ending}"), model));
        let names = |graph: &Graph| graph.states.iter().map(|state| graph.value(state.value).name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&whole), names(&decomposed), "{model}");
    }
}

/// A llama of transformers with a static cache says what torch says, token by token.
#[test]
fn a_static_cache_decodes_the_same_tokens() {
    let graph = check("static_cache.pt2", "static_cache");
    let calls = calls("static_cache");
    let mut states = interp::initial(&graph);
    let mut said = Vec::new();
    for (call, [inputs, _]) in calls.iter().enumerate() {
        let mut inputs = inputs.clone();
        if let Some(token) = said.last().filter(|_| call > 3) {
            inputs[0] = Tensor::from_i64(&[1, 1], &[*token]);
        }
        let results = interp::run_from(&graph, &inputs, &states).unwrap();
        let logits = results.outputs[0].to_f64();
        said.push(logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0 as i64);
        states = results.states;
    }
    let wanted: Vec<i64> = calls[4..].iter().map(|[inputs, _]| inputs[0].to_f64()[0] as i64).collect();
    assert_eq!(said[3..said.len() - 1], wanted);
}
