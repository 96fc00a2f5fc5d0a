//! `conv_im2col@1`: any convolution with row-major output; see `template.c.j2`.

use aotfarm_protocol::Params;
use minijinja::context;

use super::shared::conv::{Conv, place};
use super::shared::points::{bytes, even_runs, interleave, param, point};
use crate::family::{CandidateFamily, FamilyId, KernelSource, Needs, Unsupported, only};
use crate::headers::SIMD;
use crate::printer::Width;
use crate::render::{self, Template, Unit};
use crate::task::TuningTask;
use aotfarm_plan::spec::Layout;

const TEMPLATE: Template = Template { name: "cpu/conv_im2col.c.j2", text: include_str!("template.c.j2") };

/// Matrix product with gathered patches.
///
/// Compile time: `mr` output channels (at most) times `nv` vectors of pixels are a register tile.
/// Run time: `tiles` of pixels are gathered at once.
pub struct ConvIm2col;

fn supported(task: &TuningTask) -> Result<Conv<'_>, Unsupported> {
    let conv = Conv::of(task, &[])?;
    if conv.output.layout != Layout::Plain {
        return Err(Unsupported("the output is not row-major".into()));
    }
    match (conv.input.shape.len(), conv.output.shape.len()) {
        (4, 4) => Ok(conv),
        (a, b) => Err(Unsupported(format!("operands of rank {a} and {b}, not 4"))),
    }
}

/// Length of the dot products.
fn depth(conv: &Conv<'_>) -> i64 {
    conv.weight[1..].iter().product()
}

impl CandidateFamily for ConvIm2col {
    fn id(&self) -> FamilyId {
        "conv_im2col@1"
    }

    fn supports(&self, task: &TuningTask) -> Result<(), Unsupported> {
        supported(task).map(|_| ())
    }

    fn enumerate(&self, task: &TuningTask) -> Vec<Params> {
        let Ok(conv) = supported(task) else { return Vec::new() };
        let tiles: &[(i64, i64)] =
            if conv.machine.registers == 16 { &[(6, 2), (4, 3), (12, 1)] } else { &[(14, 2), (7, 3), (6, 4), (24, 1)] };
        let mut seen: Vec<(i64, i64)> = Vec::new();
        let mut units = Vec::new();
        for (most, nv) in tiles {
            let mr = even_runs(conv.weight[0] / conv.groups, *most)[0].1;
            if seen.contains(&(mr, *nv)) {
                continue;
            }
            seen.push((mr, *nv));
            // The panel stays in a part of L2.
            let fit = (conv.machine.l2 / 4 / (depth(&conv) * nv * conv.machine.lanes * 4)).clamp(1, 64);
            let mut sizes = vec![fit, (fit / 4).max(1), 2 * fit, 1];
            sizes.dedup();
            units.push(sizes.into_iter().map(|tiles| point([("mr", mr), ("nv", *nv), ("tiles", tiles)])).collect());
        }
        interleave(&units)
    }

    fn compile_time(&self) -> Option<&'static [&'static str]> {
        Some(&["mr", "nv"])
    }

    fn render(&self, task: &TuningTask, params: &Params) -> KernelSource {
        let conv = supported(task).unwrap_or_else(|e| panic!("conv_im2col was asked for a task that it refuses: {e}"));
        let (mr, nv) = (param(params, "mr"), param(params, "nv"));
        let size = |axis: usize| (render::size(conv.input.shape[axis]), render::size(conv.output.shape[axis]));
        let [(in_h, out_h), (in_w, out_w)] = [size(2), size(3)];
        let epilogue = conv.epilogue_c(
            Width::Vector,
            "(value)",
            |n| format!("v_splat(bias[{n} * GROUPS * GROUP_OUT + (channel)])"),
            |k| format!("v_loadu(residual{k} + at_)"),
        );
        let context = context! {
            groups => conv.groups,
            group_in => conv.weight[1],
            group_out => conv.weight[0] / conv.groups,
            kernel => conv.window.kernel,
            stride => conv.window.stride,
            dilation => conv.window.dilation,
            pad => conv.window.pad.map(|[before, _]| before),
            mr, nv,
            runs => even_runs(conv.weight[0] / conv.groups, mr),
            input => place(conv.input),
            in_size => [in_h, in_w],
            out_size => [out_h, out_w],
            biases => conv.biases(),
            residuals => conv.residuals(),
            batch => render::size(conv.batch),
            epilogue,
        };
        let compile_time = point([("mr", mr), ("nv", nv)]);
        let unit = Unit { family: self.id(), template: TEMPLATE, headers: &[SIMD], task, params: &compile_time, packs: true };
        render::unit(&unit, context)
    }

    fn tune(&self, _: &TuningTask, params: &Params) -> Vec<i64> {
        vec![param(params, "tiles")]
    }

    fn packing(&self, params: &Params) -> Params {
        only(params, &["mr"])
    }

    fn needs(&self, task: &TuningTask, params: &Params, _: &[i64]) -> Needs {
        let Ok(conv) = supported(task) else { return Needs::NONE };
        Needs {
            packed: bytes(conv.weight[0] * (depth(&conv) + conv.per_lane(false))),
            shared: 0,
            thread: bytes(depth(&conv) * param(params, "tiles") * param(params, "nv") * conv.machine.lanes),
        }
    }
}
