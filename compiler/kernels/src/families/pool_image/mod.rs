//! `pool_image@1`: max and average pooling from image to image.

use aotfarm_protocol::Params;
use minijinja::context;

use super::shared::pool::Pool;
use crate::family::{CandidateFamily, FamilyId, KernelSource, Unsupported};
use crate::headers::SIMD;
use crate::machine::Cpu;
use crate::render::{self, Template, Unit};
use crate::task::TuningTask;
use aotfarm_plan::spec::{Layout, Size, TensorSpec};

const TEMPLATE: Template = Template { name: "cpu/pool_image.c.j2", text: include_str!("template.c.j2") };

/// Vectors over the channels of a block.
pub struct PoolImage;

/// `(channels, [height, width], halo)` of a blocked image whose block is a vector.
fn image(tensor: &TensorSpec, machine: Cpu) -> Option<(i64, [i64; 2], [u32; 4])> {
    let [_, Size::Const(c), Size::Const(h), Size::Const(w)] = tensor.shape[..] else { return None };
    match tensor.layout {
        Layout::Image { block, halo } if i64::from(block) == machine.lanes => Some((c, [h, w], halo)),
        _ => None,
    }
}

impl CandidateFamily for PoolImage {
    fn id(&self) -> FamilyId {
        "pool_image@1"
    }

    fn supports(&self, task: &TuningTask) -> Result<(), Unsupported> {
        let pool = Pool::of(task)?;
        let (Some((_, from, _)), Some((_, to, _))) = (image(pool.input, pool.machine), image(pool.output, pool.machine)) else {
            return Err(Unsupported("an operand is not an image in blocks of the target's vectors".into()));
        };
        // The result of an empty window (infinite or NaN) must not get into the lanes past the last
        // channel.
        let window = pool.spec.window;
        let empty = |d: usize| {
            (0..to[d]).any(|o| {
                let start = o * window.stride[d] - window.pad[d][0];
                !(0..window.kernel[d]).any(|i| (0..from[d]).contains(&(start + i * window.dilation[d])))
            })
        };
        if empty(0) || empty(1) {
            return Err(Unsupported("a window lies outside the picture".into()));
        }
        Ok(())
    }

    fn enumerate(&self, _: &TuningTask) -> Vec<Params> {
        vec![Params::new()]
    }

    fn render(&self, task: &TuningTask, params: &Params) -> KernelSource {
        let pool = Pool::of(task).unwrap_or_else(|e| panic!("{}: {e}", self.id()));
        let (Some((channels, _, in_halo)), Some((_, _, out_halo))) =
            (image(pool.input, pool.machine), image(pool.output, pool.machine))
        else {
            panic!("{} does not support {:?}", self.id(), task.spec)
        };
        let lanes = pool.machine.lanes;
        let unit = Unit { family: self.id(), template: TEMPLATE, headers: &[SIMD], task, params, packs: false };
        let own = context! {
            blocks => (channels + lanes - 1) / lanes,
            in_halo => in_halo.to_vec(),
            out_halo => out_halo.to_vec(),
        };
        render::unit(&unit, context! { ..own, ..pool.variables() })
    }
}
