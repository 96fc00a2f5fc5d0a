//! `conv_stem_winograd@1`: a network's first convolution, with stride 2 and the max pool that
//! follows, by minimal filtering; see `template.c.j2`.

use aotfarm_protocol::Params;
use minijinja::{Value, context};

use super::shared::conv::{Conv, Extra, Image, POOL_STRIDE, product_for, product_sizes};
use super::shared::points::{bytes, div_up, interleave, param, point};
use crate::family::{CandidateFamily, FamilyId, KernelSource, Needs, Unsupported, only};
use crate::headers::SIMD;
use crate::printer::Width;
use crate::render::{self, Template, Unit};
use crate::task::TuningTask;
use aotfarm_ir::UnaryOp;
use aotfarm_plan::spec::{EpilogueStep, Layout, Size};

const TEMPLATE: Template = Template { name: "cpu/conv_stem_winograd.c.j2", text: include_str!("template.c.j2") };

/// The stride, and the phases of each axis.
const PHASES: i64 = 2;
/// Points of the transform along an axis.
const POINTS: i64 = 6;
/// Channels beyond which blocked images and `conv_winograd` are the better way.
const MOST_CHANNELS: i64 = 8;
/// Floats that the kernel puts between positions of its products.
const SKEW: i64 = 16;
/// Floats after the transformed inputs that a product of more tiles than there are may read.
const SLACK: i64 = 16;

/// The first convolution of a network, in fewer multiplications.
///
/// Compile time: `mr` tiles (at most) times `nv` vectors of output channels are a register tile.
/// Run time: `tiles` of a strip are multiplied before they are transformed back.
pub struct ConvStemWinograd;

/// The transform along one axis.
#[derive(Debug, Clone, Copy)]
struct Axis {
    /// Taps of a phase.
    taps: i64,
    /// Outputs of a tile.
    outputs: i64,
    /// Phases that the six points sum, all together: a phase whose last tap is a zero has nothing
    /// at infinity.
    sums: i64,
}

impl Axis {
    fn new(kernel: i64) -> Result<Self, Unsupported> {
        if !(3..=8).contains(&kernel) {
            return Err(Unsupported(format!("a kernel of {kernel}")));
        }
        let taps = div_up(kernel, PHASES);
        Ok(Self { taps, outputs: POINTS + 1 - taps, sums: PHASES * POINTS - kernel % PHASES })
    }
}

struct Shape<'a> {
    conv: Conv<'a>,
    /// Height and width of the input.
    input: [i64; 2],
    /// Height and width of the convolution's result.
    result: [i64; 2],
    /// What is stored: the result, or its pooling.
    output: Image,
    axes: [Axis; 2],
}

impl<'a> Shape<'a> {
    fn of(task: &'a TuningTask) -> Result<Self, Unsupported> {
        let conv = Conv::of(task, &[Extra::Pool])?;
        if conv.groups != 1 {
            return Err(Unsupported(format!("{} groups", conv.groups)));
        }
        if conv.input.layout != Layout::Plain {
            return Err(Unsupported("the input is not row-major".into()));
        }
        let [_, Size::Const(channels), Size::Const(h), Size::Const(w)] = conv.input.shape[..] else {
            return Err(Unsupported("the size of the input is not constant".into()));
        };
        if channels > MOST_CHANNELS {
            return Err(Unsupported(format!("{channels} input channels")));
        }
        let window = conv.window;
        if window.stride != [PHASES; 2] || window.dilation != [1; 2] {
            return Err(Unsupported(format!("stride {:?}, dilation {:?}", window.stride, window.dilation)));
        }
        let axes = [Axis::new(window.kernel[0])?, Axis::new(window.kernel[1])?];
        let output = conv.output_image()?;
        let mut result = [output.height, output.width];
        if let Some(pool) = conv.pool {
            pool.of_three(result)?;
            if !conv.residuals().is_empty() {
                return Err(Unsupported("something is added before the fused pooling".into()));
            }
            result = pool.size;
        }
        Ok(Self { conv, input: [h, w], result, output, axes })
    }

    fn vectors(&self) -> i64 {
        self.output.blocks() * self.output.block / self.conv.machine.lanes
    }

    fn masked(&self) -> bool {
        self.output.channels % self.output.block != 0
    }

    /// Tiles of a strip.
    fn tiles(&self) -> i64 {
        div_up(self.result[1], self.axes[1].outputs)
    }

    /// Floats of one value of each tile of a strip.
    fn tile_row(&self) -> i64 {
        div_up(self.tiles(), self.conv.machine.lanes) * self.conv.machine.lanes
    }

    /// Lengths of the dot products of all positions.
    fn depth(&self) -> i64 {
        self.conv.weight[1] * self.axes[0].sums * self.axes[1].sums
    }

    /// Floats of the sorted input rows of a strip, and of those of one channel and phase
    /// transformed along their columns.
    fn sorted(&self) -> i64 {
        let row = self.axes[1].outputs * (self.tile_row() + self.conv.machine.lanes);
        POINTS * row * (PHASES * PHASES * self.conv.weight[1] + 1)
    }

    /// Floats of the results that a thread keeps to pool them: a strip, and the rows before that
    /// its windows may need.
    fn ring(&self) -> i64 {
        let rows = self.axes[0].outputs + POOL_STRIDE;
        self.conv.pool.map_or(0, |pool| rows * pool.columns(self.output.width) * self.vectors() * self.conv.machine.lanes)
    }

    /// Register tiles: tiles, vectors.
    fn register_tiles(&self) -> Vec<(i64, i64)> {
        // Six tiles leave registers for all of a panel's weights, so that each input is loaded
        // once: with so short sums it counts.
        let all: &[(i64, i64)] = match self.conv.machine.registers {
            16 => &[(6, 2), (3, 4), (12, 1)],
            _ => &[(6, 4), (7, 4), (14, 2), (14, 1)],
        };
        let mut fits: Vec<_> = all.iter().copied().filter(|(_, nv)| self.vectors() % nv == 0).collect();
        // The single vector is for channels that nothing else divides.
        if fits.len() > 1 {
            fits.pop();
        }
        fits
    }

    /// Whether the fused steps keep the order of any two values, rounding included, so that they
    /// may follow the maximum.
    fn late(&self) -> bool {
        let monotone = |step: &EpilogueStep| match step {
            EpilogueStep::Bias(_) | EpilogueStep::Unary(UnaryOp::Relu) => true,
            EpilogueStep::Unary(UnaryOp::Clamp { low, high }) => low <= high,
            EpilogueStep::Unary(_) | EpilogueStep::Residual(..) => false,
        };
        self.conv.pool.is_some() && self.conv.epilogue.iter().all(monotone)
    }
}

impl CandidateFamily for ConvStemWinograd {
    fn id(&self) -> FamilyId {
        "conv_stem_winograd@1"
    }

    fn supports(&self, task: &TuningTask) -> Result<(), Unsupported> {
        Shape::of(task).map(|_| ())
    }

    fn enumerate(&self, task: &TuningTask) -> Vec<Params> {
        let Ok(shape) = Shape::of(task) else { return Vec::new() };
        let all = shape.tiles();
        let units: Vec<_> = shape
            .register_tiles()
            .into_iter()
            .map(|(mr, nv)| {
                // The products of so many tiles take a quarter of L2, which holds them beside the
                // weights, the inputs and the results.
                let fit = shape.conv.machine.l2 / 4 / (POINTS * POINTS * nv * shape.conv.machine.lanes * 4);
                let even = |tiles: i64| div_up(all, div_up(all, tiles.clamp(1, all)));
                let mut numbers: Vec<i64> = Vec::new();
                for tiles in [fit, 2 * fit, fit / 2, all, mr] {
                    if !numbers.contains(&even(tiles)) {
                        numbers.push(even(tiles));
                    }
                }
                numbers.into_iter().map(|tiles| point([("mr", mr), ("nv", nv), ("tiles", tiles)])).collect()
            })
            .collect();
        interleave(&units)
    }

    fn compile_time(&self) -> Option<&'static [&'static str]> {
        Some(&["mr", "nv"])
    }

    fn render(&self, task: &TuningTask, params: &Params) -> KernelSource {
        let shape = Shape::of(task).unwrap_or_else(|e| panic!("conv_stem_winograd was asked for a task that it refuses: {e}"));
        let compile_time = only(params, &["mr", "nv"]);
        let unit = Unit { family: self.id(), template: TEMPLATE, headers: &[SIMD], task, params: &compile_time, packs: true };
        render::unit(&unit, variables(&shape, params))
    }

    fn tune(&self, _: &TuningTask, params: &Params) -> Vec<i64> {
        vec![param(params, "tiles")]
    }

    fn packing(&self, params: &Params) -> Params {
        only(params, &["nv"])
    }

    fn needs(&self, task: &TuningTask, params: &Params, _: &[i64]) -> Needs {
        let Ok(shape) = Shape::of(task) else { return Needs::NONE };
        let lanes = shape.conv.machine.lanes;
        let most = param(params, "tiles").min(shape.tiles());
        let room = (most + 1).max(product_sizes(param(params, "mr"))[0]);
        let v = shape.depth() * shape.tile_row() + SLACK;
        let m = POINTS * POINTS * (room * param(params, "nv") * lanes + SKEW);
        Needs {
            packed: bytes(shape.vectors() * lanes * (shape.depth() + shape.conv.per_lane(shape.masked()))),
            shared: 0,
            thread: bytes(shape.sorted() + v + m + shape.ring()),
        }
    }
}

fn variables(shape: &Shape<'_>, params: &Params) -> Value {
    let Shape { conv, input, result, output, axes } = shape;
    let [taps_h, taps_w] = axes.map(|axis| context! { taps => axis.taps, outputs => axis.outputs });
    let mr = param(params, "mr");
    let epilogue = conv.epilogue_c(
        Width::Vector,
        "(value)",
        |n| format!("v_load(lane + {n} * OUT_LANES + (j) * LANES)"),
        |k| format!("v_load(residual{k} + (where))"),
    );
    context! {
        block => output.block,
        in_channels => conv.weight[1],
        out_channels => output.channels,
        kernel => conv.window.kernel,
        pad => conv.window.pad.map(|[before, _]| before),
        taps_h,
        taps_w,
        tile_row => shape.tile_row(),
        skew => SKEW,
        slack => SLACK,
        mr,
        sizes => product_sizes(mr),
        size_for => product_for(mr),
        nv => param(params, "nv"),
        registers => conv.machine.registers,
        biases => conv.biases(),
        residuals => conv.residuals(),
        masked => shape.masked(),
        batch => render::size(conv.batch),
        in_size => input,
        result_size => result,
        out_size => [output.height, output.width],
        pool => conv.pool.map(|pool| context! {
            pad => pool.window.pad.map(|[before, _]| before),
            columns => pool.columns(output.width),
        }),
        late => shape.late(),
        out_width => output.columns(),
        out_height => output.rows(),
        out_origin => output.origin(),
        epilogue,
    }
}
