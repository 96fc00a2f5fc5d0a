//! Memory planning: buffers that are never alive together share slots.

use aotfarm_ir::{Bindings, Expr, GraphDim};

use crate::plan::{Place, Plan, Plane, Slot};

/// The steps between which a buffer holds a value: written at the first, read at the last. A segment's steps are done again and again, so what comes from
/// before it or is read after it must stay for all of it.
pub(super) fn lifetimes(plan: &Plan) -> Vec<Option<(usize, usize)>> {
    let mut lifetimes: Vec<Option<(usize, usize)>> = vec![None; plan.buffers.len()];
    for (s, step) in plan.steps.iter().enumerate() {
        for buffer in step.outputs.iter().chain(&step.inputs) {
            let lifetime = &mut lifetimes[buffer.0 as usize];
            *lifetime = Some(lifetime.map_or((s, s), |(first, _)| (first, s)));
        }
    }
    let segment = |s: usize| plan.segments.iter().map(|segment| &segment.steps).find(|steps| steps.contains(&s));
    for (first, last) in lifetimes.iter_mut().flatten() {
        let (starts, ends) = (segment(*first), segment(*last));
        if starts != ends {
            *first = starts.map_or(*first, |steps| steps.start);
            *last = ends.map_or(*last, |steps| steps.end - 1);
        }
    }
    lifetimes
}

/// Gives every buffer that has no slot yet one. Buffers with zeros to keep share only slots of their own geometry.
pub(super) fn assign(plan: &mut Plan, dims: &[GraphDim]) {
    let lifetimes = lifetimes(plan);
    let largest: Bindings = dims.iter().map(|d| (d.sym.clone(), d.max)).collect();
    let bytes_of = |plan: &Plan, b: usize| &plan.buffers[b].len * plan.buffers[b].dtype.size() as i64;
    let size_of = |bytes: &Expr| bytes.eval(&largest).unwrap_or(i64::MAX);
    let mut slots: Vec<(Slot, Option<Plane>, i64)> = Vec::new();
    let mut free: Vec<usize> = Vec::new();
    for s in 0..plan.steps.len() {
        for (b, lifetime) in lifetimes.iter().enumerate() {
            if plan.buffers[b].place != Place::Slot(usize::MAX) || lifetime.is_none_or(|(first, _)| first != s) {
                continue;
            }
            let bytes = bytes_of(plan, b);
            let size = size_of(&bytes);
            let plane = plan.buffers[b].plane.clone();
            // The tightest free slot that holds it, else the one that has to grow least.
            let best = free
                .iter()
                .copied()
                .filter(|&k| slots[k].1 == plane)
                .min_by_key(|&k| if slots[k].2 >= size { (0, slots[k].2 - size) } else { (1, size - slots[k].2) });
            let k = match best {
                Some(k) => {
                    free.retain(|&other| other != k);
                    k
                }
                None => {
                    slots.push((Slot { bytes: Vec::new(), zeroed: plane.is_some() }, plane, 0));
                    slots.len() - 1
                }
            };
            slots[k].2 = slots[k].2.max(size);
            grow(&mut slots[k].0, bytes, dims);
            plan.buffers[b].place = Place::Slot(k);
        }
        for (b, lifetime) in lifetimes.iter().enumerate() {
            if let (Some((_, last)), Place::Slot(k)) = (lifetime, plan.buffers[b].place)
                && *last == s
            {
                free.push(k);
            }
        }
    }
    plan.slots = slots.into_iter().map(|(slot, ..)| slot).collect();
}

/// Adds a size, unless one of the slot's is never smaller.
fn grow(slot: &mut Slot, bytes: Expr, dims: &[GraphDim]) {
    let covers = |a: &Expr, b: &Expr| (a - b).bounds(dims).0 >= 0;
    if slot.bytes.iter().any(|known| covers(known, &bytes)) {
        return;
    }
    slot.bytes.retain(|known| !covers(&bytes, known));
    slot.bytes.push(bytes);
}
