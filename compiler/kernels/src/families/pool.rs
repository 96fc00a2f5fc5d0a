//! Max and average pooling: `pool_naive@1` for any layout, `pool_image@1` from image to image.

use aotfarm_protocol::{DType, Params, Target};
use minijinja::{Value, context};

use crate::printer::SIMD;
use crate::render::{self, Template, Unit, size};
use crate::task::TuningTask;
use crate::{CandidateFamily, FamilyId, KernelSource, Needs, Unsupported};
use aotfarm_ir::PoolOp;
use aotfarm_plan::spec::{KernelKind, Layout, PoolSpec, Size, TensorSpec};

const NAIVE: Template = Template { name: "cpu/pool_naive.c.j2", text: include_str!("../../cpu/pool_naive.c.j2") };
const IMAGE: Template = Template { name: "cpu/pool_image.c.j2", text: include_str!("../../cpu/pool_image.c.j2") };

/// Every element is a loop over its window.
pub struct PoolNaive;

/// Vectors over the channels of a block.
pub struct PoolImage;

/// The pooling that a task is.
struct Pool<'a> {
    spec: &'a PoolSpec,
    input: &'a TensorSpec,
    output: &'a TensorSpec,
}

impl<'a> Pool<'a> {
    fn of(task: &'a TuningTask) -> Result<Self, Unsupported> {
        let KernelKind::Pool(spec) = &task.spec.kind else { return Err(Unsupported("not a pooling".into())) };
        let Target::Cpu(_) = task.target else { return Err(Unsupported(format!("no C code for {}", task.target))) };
        let (Some(input), Some(output)) = (task.spec.inputs.first(), task.spec.outputs.first()) else {
            return Err(Unsupported("a pooling without operands".into()));
        };
        if [input, output].iter().any(|t| t.dtype != DType::F32 || t.shape.len() != 4) {
            return Err(Unsupported("an operand is not an f32 tensor of rank 4".into()));
        }
        Ok(Self { spec, input, output })
    }

    /// Variables of both templates.
    fn variables(&self) -> Value {
        let window = self.spec.window;
        context! {
            batch => size(self.output.shape[0]),
            channels => size(self.output.shape[1]),
            in_h => size(self.input.shape[2]),
            in_w => size(self.input.shape[3]),
            out_h => size(self.output.shape[2]),
            out_w => size(self.output.shape[3]),
            kernel => window.kernel.to_vec(),
            stride => window.stride.to_vec(),
            dilation => window.dilation.to_vec(),
            pad => vec![window.pad[0][0], window.pad[1][0]],
            max => self.spec.op == PoolOp::Max,
            include_pad => self.spec.op == PoolOp::Avg { count_include_pad: true },
        }
    }
}

/// The place of element (b, ch, y, x) of a tensor of rank 4, as a C expression in these variables.
fn place(tensor: &TensorSpec) -> String {
    let [c, h, w] = [1, 2, 3].map(|d| size(tensor.shape[d]));
    match tensor.layout {
        Layout::Plain => format!("((b * {c} + ch) * {h} + y) * {w} + x"),
        Layout::Image { block, halo: [top, bottom, left, right] } => format!(
            "(((b * (({c} + {}) / {block}) + ch / {block}) * ({h} + {}) + y + {top}) * ({w} + {}) + x + {left}) * {block} + ch % {block}",
            block - 1,
            top + bottom,
            left + right,
        ),
    }
}

impl CandidateFamily for PoolNaive {
    fn id(&self) -> FamilyId {
        "pool_naive@1"
    }

    fn supports(&self, task: &TuningTask) -> Result<(), Unsupported> {
        Pool::of(task).map(|_| ())
    }

    fn enumerate(&self, _: &TuningTask) -> Vec<Params> {
        vec![Params::new()]
    }

    fn render(&self, task: &TuningTask, params: &Params) -> KernelSource {
        let pool = Pool::of(task).unwrap_or_else(|e| panic!("{}: {e}", self.id()));
        let unit = Unit { family: self.id(), template: NAIVE, headers: &[], task, params, packs: false };
        render::unit(&unit, context! { in_at => place(pool.input), out_at => place(pool.output), ..pool.variables() })
    }

    fn tune(&self, _: &TuningTask, _: &Params) -> Vec<i64> {
        Vec::new()
    }

    fn needs(&self, _: &TuningTask, _: &Params, _: &[i64]) -> Needs {
        Needs { packed: 0, shared: 0, thread: 0 }
    }
}

/// `(channels, [height, width], halo)` of a blocked image whose block is the target's vector.
fn image(tensor: &TensorSpec, target: Target) -> Option<(i64, [i64; 2], [u32; 4])> {
    let [_, Size::Const(c), Size::Const(h), Size::Const(w)] = tensor.shape[..] else { return None };
    match tensor.layout {
        Layout::Image { block, halo } if block as usize == target.f32_lanes() => Some((c, [h, w], halo)),
        _ => None,
    }
}

impl CandidateFamily for PoolImage {
    fn id(&self) -> FamilyId {
        "pool_image@1"
    }

    fn supports(&self, task: &TuningTask) -> Result<(), Unsupported> {
        let pool = Pool::of(task)?;
        let (Some((_, from, _)), Some((_, to, _))) = (image(pool.input, task.target), image(pool.output, task.target)) else {
            return Err(Unsupported("an operand is not an image in blocks of the target's vectors".into()));
        };
        // The result of an empty window (infinite or NaN) must not get into the lanes past the last channel.
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
            (image(pool.input, task.target), image(pool.output, task.target))
        else {
            panic!("{} does not support {:?}", self.id(), task.spec)
        };
        let lanes = task.target.f32_lanes() as i64;
        let unit = Unit { family: self.id(), template: IMAGE, headers: &[SIMD], task, params, packs: false };
        let own = context! {
            blocks => (channels + lanes - 1) / lanes,
            in_halo => in_halo.to_vec(),
            out_halo => out_halo.to_vec(),
        };
        render::unit(&unit, context! { ..own, ..pool.variables() })
    }

    fn tune(&self, _: &TuningTask, _: &Params) -> Vec<i64> {
        Vec::new()
    }

    fn needs(&self, _: &TuningTask, _: &Params, _: &[i64]) -> Needs {
        Needs { packed: 0, shared: 0, thread: 0 }
    }
}
