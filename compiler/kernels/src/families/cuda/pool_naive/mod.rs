//! `cuda_pool_naive@1`: any pooling in any layouts; the reference for the others.

use aotfarm_protocol::{Launch, Params};
use minijinja::context;

use super::shared::geometry::{NAIVE_THREADS, axis, element, size};
use super::shared::pool::pool;
use crate::family::{CandidateFamily, FamilyId, KernelSource, Unsupported};
use crate::render::{self, Template, Unit};
use crate::task::TuningTask;
use aotfarm_ir::PoolOp;
use aotfarm_plan::spec::{Layout, TensorSpec};

const TEMPLATE: Template = Template { name: "cuda/pool_naive.cu.j2", text: include_str!("template.cu.j2") };

/// One thread for each element, sums in double. No parameters.
pub struct PoolNaive;

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
        Some(Launch::linear(axis(1, 1, &output.shape, i64::from(NAIVE_THREADS)), NAIVE_THREADS, 0))
    }
}
