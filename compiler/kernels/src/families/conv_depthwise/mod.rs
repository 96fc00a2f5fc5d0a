//! `conv_depthwise@1`: one filter for each channel of a blocked image; see `template.c.j2`.

use aotfarm_protocol::Params;
use minijinja::context;

use super::shared::conv::{Conv, Extra, Image};
use super::shared::points::{bytes, even_runs, param, point};
use crate::family::{CandidateFamily, FamilyId, KernelSource, Needs, Unsupported};
use crate::headers::SIMD;
use crate::printer::Width;
use crate::render::{self, Template, Unit};
use crate::task::TuningTask;

const TEMPLATE: Template = Template { name: "cpu/conv_depthwise.c.j2", text: include_str!("template.c.j2") };

/// Depthwise convolution. Compile time: `mr` neighbouring pixels (at most) are summed side by side.
/// Means are made of the sums of all rows, which wait in the team's workspace: so they are the same
/// for any number of threads.
pub struct ConvDepthwise;

struct Shape<'a> {
    conv: Conv<'a>,
    input: Image,
    output: Image,
}

impl<'a> Shape<'a> {
    fn of(task: &'a TuningTask) -> Result<Self, Unsupported> {
        let conv = Conv::of(task, &[Extra::Mean])?;
        let output = conv.output_image()?;
        let input = conv.input_image(&output, [0, 0])?;
        if conv.groups != input.channels || conv.groups != output.channels {
            return Err(Unsupported("not one filter for each channel".into()));
        }
        Ok(Self { conv, input, output })
    }

    fn masked(&self) -> bool {
        self.output.channels % self.output.block != 0
    }

    fn taps(&self) -> i64 {
        self.conv.weight[2] * self.conv.weight[3]
    }
}

impl CandidateFamily for ConvDepthwise {
    fn id(&self) -> FamilyId {
        "conv_depthwise@1"
    }

    fn supports(&self, task: &TuningTask) -> Result<(), Unsupported> {
        Shape::of(task).map(|_| ())
    }

    fn enumerate(&self, task: &TuningTask) -> Vec<Params> {
        let Ok(shape) = Shape::of(task) else { return Vec::new() };
        let order = if shape.conv.machine.registers == 16 { [7, 4, 10, 2, 14] } else { [14, 7, 20, 4, 2] };
        let mut sizes: Vec<i64> = Vec::new();
        for mr in order {
            // The largest of the even runs, so that equal programs are one point.
            let size = even_runs(shape.output.width, mr)[0].1;
            if !sizes.contains(&size) {
                sizes.push(size);
            }
        }
        sizes.into_iter().map(|mr| point([("mr", mr)])).collect()
    }

    fn render(&self, task: &TuningTask, params: &Params) -> KernelSource {
        let shape = Shape::of(task).unwrap_or_else(|e| panic!("conv_depthwise was asked for a task that it refuses: {e}"));
        let Shape { conv, input, output } = &shape;
        let [pad_top, pad_left] = conv.window.pad.map(|[before, _]| before);
        let epilogue = conv.epilogue_c(
            Width::Vector,
            "(value)",
            |n| format!("v_load(lane + {n} * ALL_LANES)"),
            |k| format!("v_load(residual{k} + (where))"),
        );
        let context = context! {
            block => input.block,
            channels => input.channels,
            kernel => conv.window.kernel,
            stride => conv.window.stride,
            dilation => conv.window.dilation,
            mr => param(params, "mr"),
            runs => even_runs(output.width, param(params, "mr")),
            biases => conv.biases(),
            residuals => conv.residuals(),
            mean => conv.mean,
            masked => shape.masked(),
            batch => render::size(conv.batch),
            in_width => input.columns(),
            in_height => input.rows(),
            in_origin => (input.halo[0] - pad_top) * input.columns() + input.halo[2] - pad_left,
            out_size => [output.height, output.width],
            out_width => output.columns(),
            out_height => output.rows(),
            out_origin => output.origin(),
            epilogue,
        };
        render::unit(&Unit { family: self.id(), template: TEMPLATE, headers: &[SIMD], task, params, packs: true }, context)
    }

    fn packing(&self, _: &Params) -> Params {
        Params::new()
    }

    fn needs(&self, task: &TuningTask, _: &Params, dims: &[i64]) -> Needs {
        let Ok(shape) = Shape::of(task) else { return Needs::NONE };
        let lanes = shape.output.blocks() * shape.output.block;
        let row_sums = shape.conv.batch.at(dims) * lanes * shape.output.height;
        Needs {
            packed: bytes(lanes * (shape.taps() + shape.conv.per_lane(shape.masked()))),
            shared: if shape.conv.mean { bytes(row_sums) } else { 0 },
            thread: 0,
        }
    }
}
