//! `conv_direct@1`: implicit matrix product on blocked images, any kernel, stride and dilation; see
//! `template.c.j2`.

use aotfarm_protocol::Params;
use minijinja::{Value, context};

use super::shared::conv::{Conv, Extra, Image};
use super::shared::points::{bytes, div_up, even_runs, interleave, param, point};
use crate::family::{CandidateFamily, FamilyId, KernelSource, Needs, Unsupported, compiled, only};
use crate::headers::SIMD;
use crate::printer::Width;
use crate::render::{self, Template, Unit};
use crate::task::TuningTask;

const TEMPLATE: Template = Template { name: "cpu/conv_direct.c.j2", text: include_str!("template.c.j2") };

/// Implicit matrix product on blocked images.
///
/// Compile time: `mr` pixels (at most) times `nv` vectors of output channels are a register tile;
/// `flat` tiles go on across row ends; `pf` cache lines of the next weights are asked for at each
/// tap. Run time: `rows` (`flat`: pixels) and `panels` are a chunk of work; `depth` input blocks
/// are summed in one pass; `split` 0 gives threads different pixels, 1 different channels. The gate
/// of a 1x1 convolution's input scales the weights of a pass, for each image.
pub struct ConvDirect;

/// The legal geometry.
struct Shape<'a> {
    conv: Conv<'a>,
    input: Image,
    output: Image,
}

impl<'a> Shape<'a> {
    fn of(task: &'a TuningTask) -> Result<Self, Unsupported> {
        let conv = Conv::of(task, &[Extra::Gate])?;
        let output = conv.output_image()?;
        let input = conv.input_image(&output, [0, 0])?;
        if conv.gate.is_some() && (conv.groups, conv.window.kernel) != (1, [1, 1]) {
            return Err(Unsupported("its input has a gate, and it is no dense 1x1 convolution".into()));
        }
        let [o, i, ..] = conv.weight;
        if conv.groups > 1 && (i % input.block != 0 || (o / conv.groups) % output.block != 0) {
            return Err(Unsupported(format!("groups of {i} channels are not whole blocks of {}", input.block)));
        }
        Ok(Self { conv, input, output })
    }

    /// Blocks of input channels of a group.
    fn in_blocks(&self) -> i64 {
        div_up(self.conv.weight[1], self.input.block)
    }

    /// Vectors of output channels of a group.
    fn vectors(&self) -> i64 {
        div_up(self.conv.weight[0] / self.conv.groups, self.output.block) * self.output.block / self.conv.machine.lanes
    }

    fn taps(&self) -> i64 {
        self.conv.weight[2] * self.conv.weight[3]
    }

    fn masked(&self) -> bool {
        self.conv.weight[0] % self.output.block != 0
    }

    /// Sizes of the vector panels: the full one, and that of the rest.
    fn vector_counts(&self, nv: i64) -> Vec<i64> {
        let vectors = self.vectors();
        if vectors % nv == 0 { vec![nv] } else { vec![nv, vectors % nv] }
    }

    /// Estimated cycles for all products of a row of outputs, one input channel and tap; units are
    /// arbitrary but equal for all tiles.
    fn cost(&self, tile: &Tile) -> f64 {
        let runs = even_runs(if tile.flat { self.output.height * self.output.width } else { self.output.width }, tile.mr);
        let vectors = self.vectors();
        let one = |mr: i64, nv: i64| {
            // Two multiply-adds and two loads in a cycle, and four cycles before a sum can be added
            // to again.
            let free = (self.conv.machine.registers - mr * nv - 1).max(1);
            let passes = if mr < nv && mr <= free { 1 } else { div_up(nv, free.min(nv)) };
            let (sums, loads) = ((mr * nv) as f64 / 2.0, (mr * passes + nv) as f64 / 2.0);
            sums.max(loads).max(4.0) + 0.04 * loads
        };
        let rows = |nv: i64| runs.iter().map(|(count, mr)| *count as f64 * one(*mr, nv)).sum::<f64>();
        let full = (vectors / tile.nv) as f64 * rows(tile.nv);
        let rest = if vectors % tile.nv > 0 { rows(vectors % tile.nv) } else { 0.0 };
        let row = full + rest;
        if tile.flat { row / self.output.height as f64 * 1.02 } else { row }
    }

    /// Register tiles, the best first.
    fn tiles(&self) -> Vec<Tile> {
        let mut all: Vec<Tile> = Vec::new();
        let vectors = self.vectors();
        for nv in 1..=4.min(vectors) {
            let most = (self.conv.machine.registers - 2) / nv;
            let largest = most.min(if self.conv.machine.registers == 16 { 12 } else { 14 });
            let width = self.output.width;
            for mr in [largest, largest - 1, largest / 2, width, div_up(width, 2), div_up(width, 3)] {
                if (1..=largest).contains(&mr) && mr <= width {
                    // The size that is left of even runs, so that equal programs are one point.
                    all.push(Tile { mr: even_runs(width, mr)[0].1, nv, flat: false });
                }
            }
            let pixels = width * self.output.height;
            if width % largest != 0 && pixels > 1 {
                all.push(Tile { mr: largest.min(pixels), nv, flat: true });
            }
        }
        let mut unique: Vec<Tile> = Vec::new();
        for tile in all {
            if !unique.contains(&tile) {
                unique.push(tile);
            }
        }
        unique.sort_by(|a, b| self.cost(a).total_cmp(&self.cost(b)));
        unique.truncate(6);
        unique
    }

    /// The run-time integers for a tile, the best guess first.
    fn chunks(&self, tile: &Tile) -> Vec<[i64; 4]> {
        let (blocks, panels) = (self.in_blocks(), self.conv.groups * div_up(self.vectors(), tile.nv));
        // A pass streams its weights through L1 once for each tile: a good half of L1 is theirs.
        let block_bytes = self.taps() * self.input.block * tile.nv * self.conv.machine.lanes * 4;
        let depth = (self.conv.machine.l1 * 5 / 8 / block_bytes).clamp(1, blocks);
        // The input rows of a chunk stay in a part of L2 while its panels run.
        let row_bytes = self.conv.window.stride[0] * self.input.columns() * self.input.block * blocks * 4;
        let rows = (self.conv.machine.l2 * 3 / 8 / row_bytes).clamp(1, 2 * self.output.height);
        let unit = if tile.flat { self.output.width } else { 1 };
        let weights = self.taps() * self.conv.weight[0] * self.conv.weight[1] * 4;
        // Threads that share the channels read each weight once; those that share the pixels read
        // each input once.
        let split = i64::from(weights > self.input.height * row_bytes);
        let all = 2 * self.output.height * unit;
        let best = [rows * unit, panels, depth, split];
        let mut list = vec![best];
        let mut add = |change: [Option<i64>; 4]| {
            let mut chunk = best;
            for (slot, value) in chunk.iter_mut().zip(change) {
                *slot = value.unwrap_or(*slot);
            }
            if !list.contains(&chunk) {
                list.push(chunk);
            }
        };
        add([Some(all), Some(1), None, Some(1)]);
        add([None, None, Some(blocks), None]);
        add([None, None, None, Some(1 - split)]);
        add([Some((rows / 4).max(1) * unit), None, Some((2 * depth).min(blocks)), None]);
        add([Some(all), Some(1), Some((2 * depth).min(blocks)), Some(1)]);
        add([Some(all), None, Some((depth / 2).max(1)), None]);
        add([Some((rows / 2).max(1) * unit), Some(2.min(panels)), Some((depth / 2).max(1)), None]);
        list
    }
}

/// A register tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tile {
    mr: i64,
    nv: i64,
    flat: bool,
}

impl CandidateFamily for ConvDirect {
    fn id(&self) -> FamilyId {
        "conv_direct@1"
    }

    fn supports(&self, task: &TuningTask) -> Result<(), Unsupported> {
        Shape::of(task).map(|_| ())
    }

    fn enumerate(&self, task: &TuningTask) -> Vec<Params> {
        let Ok(shape) = Shape::of(task) else { return Vec::new() };
        let mut units = Vec::new();
        for tile in shape.tiles() {
            let chunks = shape.chunks(&tile);
            // Weights that L2 holds need no prefetching; others need enough lines to be there in
            // time, the more the fewer tiles there are, and the more the longer vectors are.
            let weights = bytes(shape.taps() * shape.conv.weight[0] * shape.conv.weight[1]);
            let lines = shape.conv.lines(shape.input.block, tile.nv);
            let order = match weights > shape.conv.machine.l2.unsigned_abs() {
                true if lines >= 16 => [(lines / 4).min(8), 2],
                true => [2, 0],
                false => [0, 1],
            };
            for pf in order {
                let points = chunks.iter().map(|[rows, panels, depth, split]| {
                    point([
                        ("depth", *depth),
                        ("flat", i64::from(tile.flat)),
                        ("mr", tile.mr),
                        ("nv", tile.nv),
                        ("panels", *panels),
                        ("pf", pf),
                        ("rows", *rows),
                        ("split", *split),
                    ])
                });
                units.push(points.collect());
            }
        }
        interleave(&units)
    }

    fn compile_time(&self) -> Option<&'static [&'static str]> {
        Some(&["mr", "nv", "flat", "pf"])
    }

    fn render(&self, task: &TuningTask, params: &Params) -> KernelSource {
        let shape = Shape::of(task).unwrap_or_else(|e| panic!("conv_direct was asked for a task that it refuses: {e}"));
        let compile_time = compiled(self, params);
        let unit = Unit { family: self.id(), template: TEMPLATE, headers: &[SIMD], task, params: &compile_time, packs: true };
        render::unit(&unit, variables(&shape, params))
    }

    fn tune(&self, _: &TuningTask, params: &Params) -> Vec<i64> {
        ["rows", "panels", "depth", "split"].map(|name| param(params, name)).to_vec()
    }

    fn packing(&self, params: &Params) -> Params {
        only(params, &["nv"])
    }

    fn needs(&self, task: &TuningTask, params: &Params, _: &[i64]) -> Needs {
        let Ok(shape) = Shape::of(task) else { return Needs::NONE };
        let lanes = shape.conv.groups * shape.vectors() * shape.conv.machine.lanes;
        let depth = shape.in_blocks() * shape.taps() * shape.input.block;
        let scaled = param(params, "depth") * shape.input.block * param(params, "nv") * shape.conv.machine.lanes;
        Needs {
            packed: bytes(lanes * (depth + shape.conv.per_lane(shape.masked()))),
            shared: 0,
            thread: if shape.conv.gate.is_some() { bytes(scaled) } else { 0 },
        }
    }
}

fn variables(shape: &Shape<'_>, params: &Params) -> Value {
    let Shape { conv, input, output } = shape;
    let Tile { mr, nv, flat } = Tile { mr: param(params, "mr"), nv: param(params, "nv"), flat: param(params, "flat") != 0 };
    let runs = even_runs(output.width, mr);
    let pixel_counts: Vec<i64> = if flat { (1..=mr).collect() } else { runs.iter().map(|(_, size)| *size).collect() };
    let [pad_top, pad_left] = conv.window.pad.map(|[before, _]| before);
    let lane_offset = |n: usize| format!("{n} * GROUPS * OUT_LANES");
    let epilogue = conv.epilogue_c(
        Width::Vector,
        "(value)",
        |n| format!("v_load(lane + {} + (j) * LANES)", lane_offset(n)),
        |k| format!("v_load(p->residual{k} + (where))"),
    );
    context! {
        block => input.block,
        groups => conv.groups,
        in_channels => conv.weight[1],
        out_channels => conv.weight[0] / conv.groups,
        kernel => conv.window.kernel,
        stride => conv.window.stride,
        dilation => conv.window.dilation,
        registers => conv.machine.registers,
        mr, nv, flat, runs, pixel_counts,
        prefetch => param(params, "pf"),
        vector_counts => shape.vector_counts(nv),
        biases => conv.biases(),
        residuals => conv.residuals(),
        gate => conv.gate,
        masked => shape.masked(),
        batch => render::size(conv.batch),
        in_width => input.columns(),
        in_height => input.rows(),
        in_image_blocks => input.blocks(),
        in_origin => (input.halo[0] - pad_top) * input.columns() + input.halo[2] - pad_left,
        out_size => [output.height, output.width],
        out_width => output.columns(),
        out_height => output.rows(),
        out_image_blocks => output.blocks(),
        out_origin => output.origin(),
        epilogue,
    }
}
