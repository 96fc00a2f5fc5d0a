//! Runs a plan on the oracle of the kernel tests, with the arena as it would be: stale bytes in shared slots, zeros only where promised.
#![cfg(test)]

use crate::candidate::oracle;
use crate::interp::{Tensor, bind};
use crate::ir::Graph;
use crate::task::{Layout, TensorSpec, TuningTask};

use super::{BufferId, Place, Plan};

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

/// The outputs of `plan`, lowered from `graph`, for these inputs.
pub(super) fn run(plan: &Plan, graph: &Graph, inputs: &[Tensor]) -> Vec<Tensor> {
    let bindings = bind(graph, inputs).expect("inputs that fit");
    let size = |expr: &crate::ir::Expr| usize::try_from(expr.eval(&bindings).expect("a size")).expect("a size");
    let mut slots: Vec<Vec<u8>> = plan
        .slots
        .iter()
        .map(|slot| vec![if slot.zeroed { 0 } else { 0xff }; slot.bytes.iter().map(size).max().unwrap_or(0)])
        .collect();
    let mut outputs: Vec<Vec<u8>> = vec![Vec::new(); plan.outputs.len()];
    for buffer in &plan.buffers {
        if let Place::Output(i) = buffer.place {
            outputs[i] = vec![0xff; size(&buffer.len) * buffer.dtype.size()];
        }
    }
    for step in &plan.steps {
        let spec = &plan.specs[step.spec];
        let point: Vec<i64> = step.dims.iter().map(|d| d.eval(&bindings).expect("a size")).collect();
        let mut raw = Vec::new();
        for (tensor, BufferId(b)) in spec.inputs.iter().zip(&step.inputs) {
            let buffer = &plan.buffers[*b as usize];
            let bytes = size(&buffer.len) * buffer.dtype.size();
            let data = match buffer.place {
                Place::Input(i) => inputs[i].data[..bytes].to_vec(),
                Place::Output(i) => outputs[i][..bytes].to_vec(),
                Place::Slot(k) => slots[k][..bytes].to_vec(),
            };
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
        let task = TuningTask { spec: spec.clone(), target: plan.target, point: point.clone() };
        for ((result, tensor), buffer) in oracle::evaluate(&task, &raw).iter().zip(&spec.outputs).zip(&step.outputs) {
            let (result, output) = (result.to_bytes(), &plan.buffers[buffer.0 as usize]);
            let width = output.dtype.size();
            let into = match output.place {
                Place::Output(i) => &mut outputs[i],
                Place::Slot(k) => &mut slots[k],
                Place::Input(_) => panic!("a step writes an input"),
            };
            for at in elements(tensor, &point) {
                into[at * width..(at + 1) * width].copy_from_slice(&result[at * width..(at + 1) * width]);
            }
        }
    }
    let shapes = graph.outputs.iter().map(|id| graph.ty(*id));
    shapes.zip(outputs).map(|(ty, data)| Tensor { dtype: ty.dtype, shape: ty.shape.iter().map(size).collect(), data }).collect()
}
