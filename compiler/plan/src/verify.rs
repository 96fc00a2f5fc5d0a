//! The invariants of a Plan, checked at the end of lowering.

use aotfarm_protocol::Segment;

use crate::spec::TensorSpec;
use aotfarm_ir::{Bindings, EvalError, GraphDim};

use super::arena::lifetimes;
use crate::plan::{BufferId, Place, Plan};

/// A broken invariant of a plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages document the fields")]
pub enum VerifyError {
    /// The spec and the step disagree on how many operands there are.
    #[error("step `{step}` has {got} {what}, but its task takes {expected}")]
    Operands { step: String, what: &'static str, got: usize, expected: usize },
    /// A buffer is read before a step has written it.
    #[error("step `{step}` reads buffer {buffer}, which nothing has written")]
    Unwritten { step: String, buffer: u32 },
    /// A buffer is written twice, or is the caller's input, or what a state held before the run.
    #[error("step `{step}` overwrites buffer {buffer}")]
    Overwritten { step: String, buffer: u32 },
    /// Two buffers that hold values at the same time share a slot.
    #[error("buffers {a} and {b} share slot {slot} while both are in use")]
    Shared { a: u32, b: u32, slot: usize },
    /// A buffer has no slot, or one that is too small.
    #[error("buffer {buffer} does not fit its place: {what}")]
    Place { buffer: u32, what: String },
    /// The operand of a task is not as long as the buffer that is passed for it.
    #[error("step `{step}`: operand {operand} has {expected} elements at {point}, but its buffer has {got}")]
    Length { step: String, operand: usize, expected: i64, got: i64, point: String },
    /// What a run must leave is never written: an output of the model, what a state or an input holds afterwards.
    #[error("{0} is never written")]
    NoResult(Place),
    /// A run of steps cannot be done for a few images at a time.
    #[error("steps {} to {} cannot be done for {images} images at a time: {why}", steps.start, steps.end)]
    Segment { steps: std::ops::Range<usize>, images: i64, why: String },
    /// A size cannot be computed.
    #[error(transparent)]
    Size(#[from] EvalError),
}

/// Checks that every buffer is written once and before it is read, that no two live buffers share a slot, and that operands, buffers
/// and slots agree in number and, at the smallest and the largest sizes, in length; and that segments can be done in parts.
pub(super) fn verify(plan: &Plan, dims: &[GraphDim]) -> Result<(), VerifyError> {
    check_order(plan)?;
    check_segments(plan)?;
    check_slots(plan)?;
    for pick in [|d: &GraphDim| d.min, |d: &GraphDim| d.max] {
        check_lengths(plan, &dims.iter().map(|d| (d.sym.clone(), pick(d))).collect())?;
    }
    Ok(())
}

fn check_order(plan: &Plan) -> Result<(), VerifyError> {
    let mut written: Vec<bool> = plan.buffers.iter().map(|b| b.place.is_read_only()).collect();
    for step in &plan.steps {
        let spec = &plan.specs[step.spec];
        let counts = [
            ("inputs", step.inputs.len(), spec.inputs.len()),
            ("weights", step.weights.len(), spec.weights.len()),
            ("outputs", step.outputs.len(), spec.outputs.len()),
            ("dims", step.dims.len(), spec.dims),
        ];
        if let Some((what, got, expected)) = counts.into_iter().find(|(_, got, expected)| got != expected) {
            return Err(VerifyError::Operands { step: step.label.clone(), what, got, expected });
        }
        if let Some(BufferId(buffer)) = step.inputs.iter().find(|b| !written[b.0 as usize]) {
            return Err(VerifyError::Unwritten { step: step.label.clone(), buffer: *buffer });
        }
        for BufferId(buffer) in &step.outputs {
            if std::mem::replace(&mut written[*buffer as usize], true) {
                return Err(VerifyError::Overwritten { step: step.label.clone(), buffer: *buffer });
            }
        }
    }
    let is_written = |place| plan.buffers.iter().zip(&written).any(|(b, written)| b.place == place && *written);
    match plan.results().find(|place| !is_written(*place)) {
        Some(place) => Err(VerifyError::NoResult(place)),
        None => Ok(()),
    }
}

fn check_segments(plan: &Plan) -> Result<(), VerifyError> {
    if plan.segments.is_empty() {
        return Ok(());
    }
    let image_wise = plan.image_wise();
    let mut done = 0;
    for Segment { steps, images } in &plan.segments {
        let error = |why: String| Err(VerifyError::Segment { steps: steps.clone(), images: *images, why });
        if steps.start < done || steps.is_empty() || steps.end > plan.steps.len() {
            return error("they do not follow those before, or there are no such steps".into());
        }
        if let Some(s) = steps.clone().find(|s| !image_wise[*s]) {
            return error(format!("step `{}` needs all of the batch", plan.steps[s].label));
        }
        // A batch is cut into equal parts, so they have at least half as many images, rounded up.
        let least = plan.dims.first().map_or(1, |dim| dim.min);
        if *images < 1 || (images + 1) / 2 < least || least < 1 {
            return error(format!("the smallest batch is {least}"));
        }
        done = steps.end;
    }
    Ok(())
}

fn check_slots(plan: &Plan) -> Result<(), VerifyError> {
    let lifetimes = lifetimes(plan);
    let mut tenants: Vec<Vec<(usize, (usize, usize))>> = vec![Vec::new(); plan.slots.len()];
    for (b, (buffer, lifetime)) in plan.buffers.iter().zip(&lifetimes).enumerate() {
        let (Place::Slot(slot), Some(lifetime)) = (buffer.place, lifetime) else { continue };
        let Some(others) = tenants.get_mut(slot) else {
            return Err(VerifyError::Place { buffer: b as u32, what: "there is no such slot".into() });
        };
        if let Some((a, _)) = others.iter().find(|(_, (first, last))| first <= &lifetime.1 && &lifetime.0 <= last) {
            return Err(VerifyError::Shared { a: *a as u32, b: b as u32, slot });
        }
        others.push((b, *lifetime));
    }
    Ok(())
}

fn check_lengths(plan: &Plan, bindings: &Bindings) -> Result<(), VerifyError> {
    let lens = plan.buffers.iter().map(|b| b.len.eval(bindings)).collect::<Result<Vec<_>, _>>()?;
    for (b, buffer) in plan.buffers.iter().enumerate() {
        let Place::Slot(slot) = buffer.place else { continue };
        let Some(slot) = plan.slots.get(slot) else { continue }; // Never used.
        let sizes = slot.bytes.iter().map(|bytes| bytes.eval(bindings)).collect::<Result<Vec<_>, _>>()?;
        let (have, needed) = (sizes.into_iter().max().unwrap_or(0), lens[b].saturating_mul(buffer.dtype.size() as i64));
        if have < needed {
            return Err(VerifyError::Place { buffer: b as u32, what: format!("{needed} bytes in a slot of {have}") });
        }
    }
    for step in &plan.steps {
        let dims = step.dims.iter().map(|d| d.eval(bindings)).collect::<Result<Vec<_>, _>>()?;
        let spec = &plan.specs[step.spec];
        let pairs = spec.inputs.iter().zip(&step.inputs).chain(spec.outputs.iter().zip(&step.outputs));
        for (operand, (tensor, buffer)) in pairs.enumerate() {
            let (expected, got) = (tensor.len_at(&dims), lens[buffer.0 as usize]);
            if expected != got || !same_dtype(plan, tensor, *buffer) {
                let point = format!("{:?}", bindings.iter().collect::<Vec<_>>());
                return Err(VerifyError::Length { step: step.label.clone(), operand, expected, got, point });
            }
        }
    }
    Ok(())
}

fn same_dtype(plan: &Plan, tensor: &TensorSpec, buffer: BufferId) -> bool {
    plan.buffers[buffer.0 as usize].dtype == tensor.dtype
}
