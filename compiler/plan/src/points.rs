//! At which sizes a plan is tuned.

use aotfarm_protocol::Target;

use aotfarm_ir::Bindings;

use crate::plan::{Place, Plan, Slot};

/// How far apart neighbouring sizes that [`spread`] chooses may be. A GPU is filled by other kernels at each size.
const FAR: i64 = 16;
const FAR_ON_GPU: i64 = 4;

impl Plan {
    /// The points to tune at: `sizes` of the first symbolic dimension; when there are none, those of [`spread`]; other dimensions stay at their hint, or at their largest size without one. Sizes outside the range are moved into it;
    /// at the size 0 there is nothing to tune.
    /// A plan without symbolic dimensions has one point.
    pub fn tune_points(&self, sizes: &[i64]) -> Vec<Bindings> {
        let typical = |k: usize| {
            let dim = &self.dims[k];
            self.hints[k].unwrap_or(dim.max).clamp(dim.min.max(1), dim.max)
        };
        let mut rest: Bindings = self.dims.iter().enumerate().map(|(k, dim)| (dim.name.as_str(), typical(k))).collect();
        let Some(first) = self.dims.first() else { return vec![rest] };
        let far = if let Target::Cuda { .. } = self.target { FAR_ON_GPU } else { FAR };
        let mut wanted: Vec<i64> =
            if sizes.is_empty() { spread(first.min.max(1), first.max, self.hints[0], far) } else { sizes.to_vec() };
        for size in &mut wanted {
            *size = (*size).clamp(first.min.max(1), first.max);
        }
        wanted.sort_unstable();
        wanted.dedup();
        wanted
            .into_iter()
            .map(|size| {
                rest.insert(first.name.as_str().into(), size);
                rest.clone()
            })
            .collect()
    }

    /// Bytes that one run touches at a point: weights, the arena, inputs and outputs.
    pub fn footprint(&self, point: &Bindings) -> u64 {
        let weights: usize = self.weights.iter().map(|w| w.data.bytes().len()).sum();
        let largest = |slot: &Slot| slot.bytes.iter().filter_map(|b| b.eval(point).ok()).max().unwrap_or(0);
        let ends = self.buffers.iter().filter(|b| !matches!(b.place, Place::Slot(_)));
        let ends: i64 = ends.map(|b| b.len.eval(point).unwrap_or(0) * b.dtype.size() as i64).sum();
        weights as u64 + (self.slots.iter().map(largest).sum::<i64>() + ends).unsigned_abs()
    }
}

/// Sizes that stand for a range: its ends, the exporter's hint unless it is within a factor of two of an end (as the 2 that torch needs
/// to keep a dimension symbolic), and the middle of what lies more than a factor of `apart`, rounded up to a power of two.
fn spread(min: i64, max: i64, hint: Option<i64>, apart: i64) -> Vec<i64> {
    let far = |a: i64, b: i64, factor: i64| a.max(1).saturating_mul(factor) < b;
    let mut sizes = vec![min];
    let mut rest = vec![max];
    rest.extend(hint.filter(|h| far(min, *h, 2) && far(*h, max, 2)));
    while let Some(next) = rest.pop() {
        let last = sizes[sizes.len() - 1];
        if far(last, next, apart) {
            let middle = ((last.max(1) as f64 * next as f64).sqrt().ceil() as u64).next_power_of_two();
            rest.extend([next, middle as i64]);
        } else {
            sizes.push(next);
        }
    }
    sizes
}
