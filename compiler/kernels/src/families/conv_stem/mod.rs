//! `conv_stem@1`: row-major input with few channels → blocked image, with the max pool that
//! follows; see `template.c.j2`.

use aotfarm_protocol::Params;
use minijinja::{Value, context};

use super::shared::conv::{Conv, Extra, Image, POOL, POOL_STRIDE};
use super::shared::points::{bytes, div_up, even_runs, interleave, param, point};
use crate::family::{CandidateFamily, FamilyId, KernelSource, Needs, Unsupported, compiled, only};
use crate::headers::SIMD;
use crate::printer::Width;
use crate::render::{self, Template, Unit};
use crate::task::TuningTask;
use aotfarm_plan::spec::{Layout, Size};

const TEMPLATE: Template = Template { name: "cpu/conv_stem.c.j2", text: include_str!("template.c.j2") };

/// The first convolution of a network.
///
/// Compile time: `mr` pixels (at most) times `nv` vectors of output channels are a register tile.
/// Run time: the input of `rows` output rows (after pooling) is copied at once.
pub struct ConvStem;

struct Shape<'a> {
    conv: Conv<'a>,
    /// Height and width of the input.
    input: [i64; 2],
    /// Height and width of the convolution's result.
    result: [i64; 2],
    /// What is stored: the result, or its pooling.
    output: Image,
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
        let [_, Size::Const(_), Size::Const(h), Size::Const(w)] = conv.input.shape[..] else {
            return Err(Unsupported("the size of the input is not constant".into()));
        };
        let output = conv.output_image()?;
        let mut result = [output.height, output.width];
        if let Some(pool) = conv.pool {
            pool.of_three(result)?;
            if !conv.residuals().is_empty() {
                return Err(Unsupported("something is added before the fused pooling".into()));
            }
            result = pool.size;
        }
        Ok(Self { conv, input: [h, w], result, output })
    }

    fn vectors(&self) -> i64 {
        self.output.blocks() * self.output.block / self.conv.machine.lanes
    }

    fn masked(&self) -> bool {
        self.output.channels % self.output.block != 0
    }

    /// Length of the dot products.
    fn depth(&self) -> i64 {
        self.conv.weight[1..].iter().product()
    }

    /// Floats of the copy for a number of output rows.
    fn copy(&self, rows: i64) -> i64 {
        let window = &self.conv.window;
        let span = |axis: usize, n: i64| (n - 1) * window.stride[axis] + (window.kernel[axis] - 1) * window.dilation[axis] + 1;
        let rows = if self.conv.pool.is_some() { ((rows - 1) * POOL_STRIDE + POOL).min(self.result[0]) } else { rows };
        self.conv.weight[1] * span(0, rows) * span(1, self.result[1])
    }

    /// Floats of the results that a thread keeps to pool them.
    fn ring(&self, nv: i64) -> i64 {
        self.conv
            .pool
            .map_or(0, |pool| POOL * pool.columns(self.output.width) * div_up(self.vectors(), nv) * nv * self.conv.machine.lanes)
    }
}

impl CandidateFamily for ConvStem {
    fn id(&self) -> FamilyId {
        "conv_stem@1"
    }

    fn supports(&self, task: &TuningTask) -> Result<(), Unsupported> {
        Shape::of(task).map(|_| ())
    }

    fn enumerate(&self, task: &TuningTask) -> Vec<Params> {
        let Ok(shape) = Shape::of(task) else { return Vec::new() };
        let tiles: &[(i64, i64)] = match shape.conv.machine.registers {
            16 => &[(6, 2), (3, 4), (4, 3), (12, 1)],
            _ => &[(14, 2), (7, 4), (9, 3), (6, 4), (14, 1)],
        };
        // As many rows as leave the copy in a good half of L1, and other numbers around that. A
        // pooled kernel goes through more rows of results in one go and is the faster the more it
        // has of them.
        let room = shape.conv.machine.l1 * 5 / 8;
        let fit = (1..=shape.output.height).take_while(|rows| shape.copy(*rows) * 4 <= room).last().unwrap_or(1);
        let numbers = match shape.conv.pool {
            Some(_) => [8 * fit, 4 * fit, 16 * fit, 2 * fit, fit],
            None => [fit, 2 * fit, 4 * fit, div_up(fit, 2), 8 * fit],
        };
        let mut seen: Vec<(i64, i64)> = Vec::new();
        let mut units = Vec::new();
        for (mr, nv) in tiles {
            let tile = (even_runs(shape.result[1], *mr)[0].1, *nv.min(&shape.vectors()));
            if seen.contains(&tile) {
                continue;
            }
            seen.push(tile);
            let mut rows = numbers.map(|r| r.min(shape.output.height)).to_vec();
            rows.dedup();
            units.push(rows.into_iter().map(|rows| point([("mr", tile.0), ("nv", tile.1), ("rows", rows)])).collect());
        }
        interleave(&units)
    }

    fn compile_time(&self) -> Option<&'static [&'static str]> {
        Some(&["mr", "nv"])
    }

    fn render(&self, task: &TuningTask, params: &Params) -> KernelSource {
        let shape = Shape::of(task).unwrap_or_else(|e| panic!("conv_stem was asked for a task that it refuses: {e}"));
        let compile_time = compiled(self, params);
        let unit = Unit { family: self.id(), template: TEMPLATE, headers: &[SIMD], task, params: &compile_time, packs: true };
        render::unit(&unit, variables(&shape, params))
    }

    fn tune(&self, _: &TuningTask, params: &Params) -> Vec<i64> {
        vec![param(params, "rows")]
    }

    fn packing(&self, params: &Params) -> Params {
        only(params, &["nv"])
    }

    fn needs(&self, task: &TuningTask, params: &Params, _: &[i64]) -> Needs {
        let Ok(shape) = Shape::of(task) else { return Needs::NONE };
        let lanes = shape.vectors() * shape.conv.machine.lanes;
        Needs {
            packed: bytes(lanes * (shape.depth() + shape.conv.per_lane(shape.masked()))),
            shared: 0,
            thread: bytes(shape.ring(param(params, "nv")) + shape.copy(param(params, "rows"))),
        }
    }
}

fn variables(shape: &Shape<'_>, params: &Params) -> Value {
    let Shape { conv, input, result, output } = shape;
    let (mr, nv) = (param(params, "mr"), param(params, "nv"));
    let vectors = shape.vectors();
    let epilogue = conv.epilogue_c(
        Width::Vector,
        "(value)",
        |n| format!("v_load(lane + {n} * OUT_LANES + (j) * LANES)"),
        |k| format!("v_load(p->residual{k} + (where))"),
    );
    context! {
        block => output.block,
        in_channels => conv.weight[1],
        out_channels => output.channels,
        kernel => conv.window.kernel,
        stride => conv.window.stride,
        dilation => conv.window.dilation,
        pad => conv.window.pad.map(|[before, _]| before),
        mr, nv,
        runs => even_runs(result[1], mr),
        vector_counts => if vectors % nv == 0 { vec![nv] } else { vec![nv, vectors % nv] },
        registers => conv.machine.registers,
        biases => conv.biases(),
        residuals => conv.residuals(),
        masked => shape.masked(),
        batch => render::size(conv.batch),
        in_size => input,
        result_size => result,
        out_size => [output.height, output.width],
        pool => conv.pool.map(|pool| context! { pad => pool.window.pad.map(|[before, _]| before), columns => pool.columns(output.width) }),
        out_width => output.columns(),
        out_height => output.rows(),
        out_origin => output.origin(),
        epilogue,
    }
}
