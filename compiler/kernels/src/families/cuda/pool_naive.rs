//! `cuda_pool_naive@1`: any pooling in any layouts; the reference for the others.

use aotfarm_protocol::{Launch, Params};
use minijinja::context;

use super::geometry::{axis, element, size, sm};
use crate::render::{self, Template, Unit};
use crate::task::TuningTask;
use crate::{CandidateFamily, FamilyId, KernelSource, Unsupported};
use aotfarm_ir::PoolOp;
use aotfarm_plan::spec::{KernelKind, Layout, PoolSpec, TensorSpec};

const TEMPLATE: Template = Template { name: "cuda/pool_naive.cu.j2", text: include_str!("../../../cuda/pool_naive.cu.j2") };
const THREADS: u32 = 128;

/// One thread for each element, sums in double. No parameters.
pub(crate) struct PoolNaive;

/// The pooling that a task is, with its operands.
pub(super) fn pool(task: &TuningTask) -> Result<(&PoolSpec, &TensorSpec, &TensorSpec), Unsupported> {
    let KernelKind::Pool(pool) = &task.spec.kind else { return Err(Unsupported("not a pooling".into())) };
    sm(task)?;
    let ([input], [output]) = (task.spec.inputs.as_slice(), task.spec.outputs.as_slice()) else {
        return Err(Unsupported("not one input and one output".into()));
    };
    for tensor in [input, output] {
        element(tensor.dtype)?;
        let whole = match tensor.layout {
            Layout::Plain => true,
            Layout::Image { block, halo } => halo == [0; 4] && i64::from(block) >= tensor.shape[1].at(&task.point),
        };
        if tensor.shape.len() != 4 || !whole {
            return Err(Unsupported("an operand is neither a row-major tensor of rank 4 nor NHWC".into()));
        }
    }
    Ok((pool, input, output))
}

/// The place of element (n, c, y, x), as a C++ expression in these variables.
fn place(tensor: &TensorSpec) -> String {
    let [c, h, w] = [1, 2, 3].map(|d| size(tensor.shape[d]));
    match tensor.layout {
        Layout::Plain => format!("((n * {c} + c) * {h} + y) * {w} + x"),
        Layout::Image { block, .. } => format!("((n * {h} + y) * {w} + x) * {block} + c"),
    }
}

impl CandidateFamily for PoolNaive {
    fn id(&self) -> FamilyId {
        "cuda_pool_naive@1"
    }

    fn supports(&self, task: &TuningTask) -> Result<(), Unsupported> {
        pool(task).map(|_| ())
    }

    fn enumerate(&self, task: &TuningTask) -> Vec<Params> {
        if self.supports(task).is_ok() { vec![Params::new()] } else { Vec::new() }
    }

    fn render(&self, task: &TuningTask, params: &Params) -> KernelSource {
        let (pool, input, output) = pool(task).unwrap_or_else(|e| panic!("{}: {e}", self.id()));
        let window = pool.window;
        let unit = Unit { family: self.id(), template: TEMPLATE, headers: &[], task, params, packs: false };
        let context = context! {
            in_t => element(input.dtype).unwrap_or("float"),
            out_t => element(output.dtype).unwrap_or("float"),
            batch => size(output.shape[0]),
            channels => size(output.shape[1]),
            in_h => size(input.shape[2]),
            in_w => size(input.shape[3]),
            out_h => size(output.shape[2]),
            out_w => size(output.shape[3]),
            channels_last => output.layout != Layout::Plain,
            in_at => place(input),
            out_at => place(output),
            kernel => window.kernel,
            stride => window.stride,
            dilation => window.dilation,
            pad => [window.pad[0][0], window.pad[1][0]],
            max => pool.op == PoolOp::Max,
            include_pad => pool.op == PoolOp::Avg { count_include_pad: true },
        };
        render::unit(&unit, context)
    }

    fn launch(&self, task: &TuningTask, _: &Params) -> Option<Launch> {
        let (_, _, output) = pool(task).ok()?;
        Some(Launch::linear(axis(1, 1, &output.shape, i64::from(THREADS)), THREADS, 0))
    }
}
