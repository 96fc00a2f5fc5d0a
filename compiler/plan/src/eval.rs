//! Runs a plan on the oracle of the kernel tests, with the arena as it would be: stale bytes in shared slots, zeros only where promised.
#![cfg(test)]

use std::ops::Range;

use crate::oracle;
use crate::spec::{Layout, TensorSpec};
use aotfarm_ir::interp::{Results, Tensor, bind, initial};
use aotfarm_ir::{Bindings, Expr, Graph, Sym, TensorType, ValueId};

use crate::plan::{BufferId, Place, Plan};

/// The places of a tensor's elements in its buffer.
fn elements(spec: &TensorSpec, point: &[i64]) -> Vec<usize> {
    let mut all = Vec::new();
    for lattice in spec.lattices_at(point) {
        let mut places = vec![lattice.offset];
        for (size, stride) in &lattice.dims {
            places = places.iter().flat_map(|at| (0..*size).map(move |i| at + i * stride)).collect();
        }
        all.extend(places.into_iter().map(|at| at as usize));
    }
    all
}

/// Runs of steps in order, each with the first and the number of the images that it is done for.
fn parts(plan: &Plan, batch: i64) -> Vec<(Range<usize>, i64, i64)> {
    let mut parts = Vec::new();
    for (steps, images) in plan.runs() {
        let count = images.map_or(1, |images| (batch + images - 1) / images);
        parts.extend((0..count).map(|k| (steps.clone(), k * batch / count, (k + 1) * batch / count - k * batch / count)));
    }
    parts
}

/// The outputs of `plan`, lowered from `graph`, for these inputs, in the first run of a session.
pub(super) fn run(plan: &Plan, graph: &Graph, inputs: &[Tensor]) -> Vec<Tensor> {
    run_from(plan, graph, inputs, &initial(graph)).outputs
}

/// What a run leaves whose states hold what `states` says.
pub(super) fn run_from(plan: &Plan, graph: &Graph, inputs: &[Tensor], states: &[Tensor]) -> Results {
    let bindings = bind(graph, inputs).expect("inputs that fit");
    let size = |expr: &Expr, at: &Bindings| usize::try_from(expr.eval(at).expect("a size")).expect("a size");
    let mut slots: Vec<Vec<u8>> = plan
        .slots
        .iter()
        .map(|slot| {
            let bytes = slot.bytes.iter().map(|bytes| size(bytes, &bindings)).max().unwrap_or(0);
            vec![if slot.zeroed { 0 } else { 0xff }; bytes]
        })
        .collect();
    // What the run leaves: outputs, then states, then writes.
    let left = |place: Place| plan.results().position(|result| result == place);
    let mut results: Vec<Vec<u8>> = vec![Vec::new(); plan.results().count()];
    for buffer in &plan.buffers {
        if let Some(i) = left(buffer.place) {
            results[i] = vec![0xff; size(&buffer.len, &bindings) * buffer.dtype.size()];
        }
    }
    let batch = plan.dims.first().and_then(|dim| bindings.get(&dim.name)).unwrap_or(1);
    let parted = plan.parted();
    for (steps, first, images) in parts(plan, batch) {
        let mut of_part = bindings.clone();
        if let Some(dim) = plan.dims.first() {
            of_part.insert(Sym::new(&dim.name), images);
        }
        // Where the part of a buffer lies.
        let bytes_of = |b: &BufferId| {
            let buffer = &plan.buffers[b.0 as usize];
            let start = parted[b.0 as usize].as_ref().map_or(0, |bytes| first as usize * size(bytes, &bindings));
            start..start + size(&buffer.len, &of_part) * buffer.dtype.size()
        };
        for step in &plan.steps[steps] {
            let spec = &plan.specs[step.spec];
            let point: Vec<i64> = step.dims.iter().map(|d| d.eval(&of_part).expect("a size")).collect();
            let mut raw = Vec::new();
            for (tensor, b) in spec.inputs.iter().zip(&step.inputs) {
                let data = match plan.buffers[b.0 as usize].place {
                    Place::Input(i) => &inputs[i].data,
                    Place::State(i) => &states[i].data,
                    Place::Slot(k) => &slots[k],
                    place => &results[left(place).expect("a result")],
                };
                let data = data[bytes_of(b)].to_vec();
                if let Layout::Image { .. } = tensor.layout {
                    let mut rest = data.clone();
                    for at in elements(tensor, &point) {
                        rest[at * 4..at * 4 + 4].fill(0);
                    }
                    assert!(rest.iter().all(|byte| *byte == 0), "{}: the halo of {tensor:?} is not zero", step.label);
                }
                raw.push(data);
            }
            raw.extend(step.weights.iter().map(|w| plan.weights[w.0 as usize].data.bytes().to_vec()));
            for ((result, tensor), buffer) in
                oracle::evaluate(spec, plan.target, &point, &raw).iter().zip(&spec.outputs).zip(&step.outputs)
            {
                let (result, output) = (result.to_bytes(), &plan.buffers[buffer.0 as usize]);
                let width = output.dtype.size();
                let into = match output.place {
                    Place::Slot(k) => &mut slots[k],
                    place => &mut results[left(place).unwrap_or_else(|| panic!("a step writes {place}"))],
                };
                let into = &mut into[bytes_of(buffer)];
                for at in elements(tensor, &point) {
                    into[at * width..(at + 1) * width].copy_from_slice(&result[at * width..(at + 1) * width]);
                }
            }
        }
    }
    let shape = |ty: &TensorType| ty.shape.iter().map(|n| size(n, &bindings)).collect();
    let tensor = |(id, data): (ValueId, Vec<u8>)| Tensor { dtype: graph.ty(id).dtype, shape: shape(graph.ty(id)), data };
    let mut outputs: Vec<Tensor> = graph.results().zip(results).map(tensor).collect();
    let mut states = outputs.split_off(plan.outputs.len());
    let writes = states.split_off(plan.states.len());
    Results { outputs, states, writes }
}
