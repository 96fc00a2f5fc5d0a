//! `conv_winograd@1`: 3x3 convolutions with stride 1 or 2 by minimal filtering; see
//! `template.c.j2`.

use aotfarm_protocol::Params;
use minijinja::{Value, context};

use super::shared::conv::{Conv, Image, product_for, product_sizes};
use super::shared::points::{bytes, div_up, interleave, param, point};
use crate::family::{CandidateFamily, FamilyId, KernelSource, Needs, Unsupported, compiled, only};
use crate::headers::SIMD;
use crate::printer::Width;
use crate::render::{self, Template, Unit};
use crate::task::TuningTask;

const TEMPLATE: Template = Template { name: "cpu/conv_winograd.c.j2", text: include_str!("template.c.j2") };

/// Floats that the kernel puts between positions of its workspaces.
const SKEW: i64 = 16;
/// Bytes that the kernel keeps of each tile.
const TILE_BYTES: i64 = 24;

/// Winograd convolution.
///
/// Compile time: a tile gives `out`x`out` outputs (2 or 4); `mr` tiles (at most) times `nv` vectors
/// of output channels are a register tile; `pf` cache lines of the next weights are asked for at
/// each input block. Run time: `tiles` of a chunk, `group` panels that are multiplied before they
/// are transformed back, `depth` input blocks of a pass, `split` 0 gives threads different tiles, 1
/// different output channels.
pub struct ConvWinograd;

/// The transform along one axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Taps {
    /// The template's name for it.
    kind: &'static str,
    /// Inputs of a tile, and products.
    points: i64,
    /// Outputs of a tile.
    outputs: i64,
    /// Inputs from one tile to the next.
    step: i64,
}

impl Taps {
    const fn new(stride: i64, outputs: i64) -> Self {
        match (stride, outputs) {
            (1, 2) => Self { kind: "f2", points: 4, outputs, step: 2 },
            (1, _) => Self { kind: "f4", points: 6, outputs, step: 4 },
            (_, 2) => Self { kind: "s2", points: 5, outputs, step: 4 },
            (..) => Self { kind: "s4", points: 9, outputs, step: 8 },
        }
    }
}

/// The legal geometry with one kind of tile.
struct Shape<'a> {
    conv: Conv<'a>,
    input: Image,
    output: Image,
    taps: Taps,
}

impl<'a> Shape<'a> {
    fn of(task: &'a TuningTask, outputs: i64) -> Result<Self, Unsupported> {
        let conv = Conv::of(task, &[])?;
        let stride = conv.window.stride;
        if conv.window.kernel != [3, 3] || conv.window.dilation != [1, 1] || conv.groups != 1 {
            return Err(Unsupported("not a dense 3x3 convolution".into()));
        }
        if stride != [1, 1] && stride != [2, 2] {
            return Err(Unsupported(format!("stride {stride:?}")));
        }
        let output = conv.output_image()?;
        let taps = Taps::new(stride[0], outputs);
        // Inputs of whole tiles, beyond those of the last output.
        let extra = [output.height, output.width].map(|n| {
            let tiles = div_up(n, taps.outputs);
            (tiles - 1) * taps.step + taps.points - ((n - 1) * stride[0] + 3)
        });
        let input = conv.input_image(&output, extra)?;
        Ok(Self { conv, input, output, taps })
    }

    /// All kinds of tiles that the halo allows, the cheapest first.
    fn all(task: &'a TuningTask) -> Vec<Self> {
        let batch = |s: &Self| s.conv.batch.at(&task.point);
        let mut all: Vec<_> = [4, 2].into_iter().filter_map(|n| Self::of(task, n).ok()).collect();
        all.sort_by(|a, b| a.cost(batch(a)).total_cmp(&b.cost(batch(b))));
        all
    }

    fn points(&self) -> i64 {
        self.taps.points * self.taps.points
    }

    fn tiles_of_image(&self) -> i64 {
        div_up(self.output.height, self.taps.outputs) * div_up(self.output.width, self.taps.outputs)
    }

    fn vectors(&self) -> i64 {
        self.output.blocks() * self.output.block / self.conv.machine.lanes
    }

    fn in_lanes(&self) -> i64 {
        self.input.blocks() * self.input.block
    }

    fn masked(&self) -> bool {
        self.output.channels % self.output.block != 0
    }

    /// Estimated time in arbitrary units: multiply-adds and transforms, or reading the weights
    /// where those are more than caches hold.
    fn cost(&self, batch: i64) -> f64 {
        let tiles = (batch * self.tiles_of_image()) as f64;
        let (i, o, p) = (self.in_lanes() as f64, self.output.channels as f64, self.points() as f64);
        let sums = tiles * p * i * o;
        let transforms = tiles * p * (i + o) * 12.0;
        let weights = p * i * o * 4.0;
        let read = if weights > self.conv.machine.l3 as f64 { weights * 4.0 } else { weights };
        (sums + transforms).max(read)
    }

    /// How many cache lines of the next weights to ask for at each input block. Weights of up to
    /// twice L2 need none; of others a few runs of tiles must ask for a whole panel's block, which
    /// has the more lines the longer vectors are, or for what they can.
    fn prefetches(&self, nv: i64) -> [i64; 2] {
        let lines = self.conv.lines(self.input.block, nv);
        if self.points() * self.in_lanes() * self.output.channels * 4 > 2 * self.conv.machine.l2 {
            [(lines / 2).clamp(3, 12), 2]
        } else {
            [0, 2]
        }
    }

    /// Register tiles: pixels, vectors.
    fn register_tiles(&self) -> Vec<(i64, i64)> {
        let all: &[(i64, i64)] = match (self.conv.machine.registers, self.conv.machine.lanes) {
            (16, _) => &[(3, 4), (6, 2), (12, 1)],
            (_, 16) => &[(6, 4), (14, 2), (14, 1)],
            _ => &[(6, 4), (12, 2), (14, 1)],
        };
        let mut fits: Vec<_> = all.iter().copied().filter(|(_, nv)| self.vectors() % nv == 0).collect();
        // The single vector is for channels that nothing else divides.
        if fits.len() > 1 {
            fits.pop();
        }
        fits
    }

    /// The run-time integers for a register tile, the best guess first.
    fn chunks(&self, batch: i64, mr: i64, nv: i64) -> Vec<[i64; 4]> {
        let total = batch * self.tiles_of_image();
        let panels = self.vectors() / nv;
        let blocks = self.input.blocks();
        let tile_bytes = self.points() * self.in_lanes() * 4;
        // Whole register tiles; all there is rather than a chunk and a small rest.
        let whole = |tiles: i64| if 4 * total <= 5 * tiles { total } else { (tiles / mr * mr).max(mr).min(total) };
        // The transformed inputs take about as much as L2 holds, but are enough to pay for reading
        // all weights once for each chunk.
        let tiles = whole((self.conv.machine.l2 / tile_bytes).clamp(16, 96));
        // A group's products are transformed while L2 still holds them.
        let fits = |tiles: i64| {
            (self.conv.machine.l2 * 3 / 8 / (self.points() * nv * self.conv.machine.lanes * tiles * 4)).clamp(1, panels)
        };
        // Threads that share the channels need a group each.
        let group = |tiles: i64| fits(tiles).min(div_up(panels, 2));
        let weights = self.points() * self.in_lanes() * self.output.channels * 4;
        let split = i64::from(weights > total * tile_bytes || total < 2 * mr);
        let depth = (self.conv.machine.l1 * 3 / 4 / (self.input.block * nv * self.conv.machine.lanes * 4)).clamp(1, blocks);
        let best = [tiles, group(tiles), blocks, split];
        let more = whole(2 * tiles);
        let mut list = vec![best];
        for other in [
            [tiles, group(tiles), blocks, 1 - split],
            [more, group(more), blocks, split],
            [tiles, (group(tiles) / 2).max(1), blocks, split],
            [more, group(more), blocks, 1 - split],
            [total.min(192), group(total.min(192)), blocks, 1],
            [whole(tiles / 2), group(div_up(tiles, 2)), blocks, split],
            [tiles, (2 * group(tiles)).min(panels), depth, split],
            [more, group(more), depth, split],
        ] {
            if !list.contains(&other) {
                list.push(other);
            }
        }
        list
    }
}

impl CandidateFamily for ConvWinograd {
    fn id(&self) -> FamilyId {
        "conv_winograd@1"
    }

    fn supports(&self, task: &TuningTask) -> Result<(), Unsupported> {
        // Smaller tiles never need a larger halo.
        Shape::of(task, 2).map(|_| ())
    }

    fn enumerate(&self, task: &TuningTask) -> Vec<Params> {
        let mut units = Vec::new();
        for (rank, shape) in Shape::all(task).iter().enumerate() {
            let batch = shape.conv.batch.at(&task.point).max(1);
            // The kind that should lose gets one register tile.
            let tiles = shape.register_tiles();
            for (mr, nv) in tiles.into_iter().take(if rank == 0 { 3 } else { 1 }) {
                for pf in shape.prefetches(nv) {
                    let points = shape.chunks(batch, mr, nv).into_iter().map(|[tiles, group, depth, split]| {
                        point([
                            ("depth", depth),
                            ("group", group),
                            ("mr", mr),
                            ("nv", nv),
                            ("out", shape.taps.outputs),
                            ("pf", pf),
                            ("split", split),
                            ("tiles", tiles),
                        ])
                    });
                    units.push(points.collect());
                }
            }
        }
        interleave(&units)
    }

    fn compile_time(&self) -> Option<&'static [&'static str]> {
        Some(&["mr", "nv", "out", "pf"])
    }

    fn render(&self, task: &TuningTask, params: &Params) -> KernelSource {
        let shape = Shape::of(task, param(params, "out"))
            .unwrap_or_else(|e| panic!("conv_winograd was asked for a task that it refuses: {e}"));
        let compile_time = compiled(self, params);
        let unit = Unit { family: self.id(), template: TEMPLATE, headers: &[SIMD], task, params: &compile_time, packs: true };
        render::unit(&unit, variables(&shape, params))
    }

    fn tune(&self, _: &TuningTask, params: &Params) -> Vec<i64> {
        ["tiles", "group", "depth", "split"].map(|name| param(params, name)).to_vec()
    }

    fn packing(&self, params: &Params) -> Params {
        only(params, &["out", "nv"])
    }

    fn needs(&self, task: &TuningTask, params: &Params, dims: &[i64]) -> Needs {
        let Ok(shape) = Shape::of(task, param(params, "out")) else { return Needs::NONE };
        let (nv, lanes) = (param(params, "nv"), shape.conv.machine.lanes);
        let total = shape.conv.batch.at(dims).max(1) * shape.tiles_of_image();
        let most = param(params, "tiles").min(total);
        let room = (most + 1).max(product_sizes(param(params, "mr"))[0]);
        let group = param(params, "group").min(shape.vectors() / nv);
        let v = shape.points() * (shape.in_lanes() * room + SKEW);
        let m = shape.points() * (group * nv * lanes * room + SKEW);
        let out_lanes = shape.vectors() * lanes;
        let by_channels = param(params, "split") != 0;
        Needs {
            packed: bytes(out_lanes * (shape.points() * shape.in_lanes() + shape.conv.per_lane(shape.masked()))),
            shared: if by_channels { bytes(v) } else { 0 },
            thread: bytes(m + if by_channels { 0 } else { v }) + (most * TILE_BYTES).unsigned_abs(),
        }
    }
}

fn variables(shape: &Shape<'_>, params: &Params) -> Value {
    let Shape { conv, input, output, taps } = shape;
    let Taps { kind, points, outputs, step } = *taps;
    // The same along both axes.
    let taps = context! { kind, points, outputs, step };
    let mr = param(params, "mr");
    let sizes = product_sizes(mr);
    let size_for = product_for(mr);
    let [pad_top, pad_left] = conv.window.pad.map(|[before, _]| before);
    let epilogue = conv.epilogue_c(
        Width::Vector,
        "(value)",
        |n| format!("v_load(lane + {n} * OUT_LANES)"),
        |k| format!("v_load(residual{k} + (where))"),
    );
    context! {
        block => input.block,
        in_channels => input.channels,
        out_channels => output.channels,
        taps_h => taps.clone(),
        taps_w => taps,
        mr, sizes, size_for,
        nv => param(params, "nv"),
        prefetch => param(params, "pf"),
        registers => conv.machine.registers,
        biases => conv.biases(),
        residuals => conv.residuals(),
        masked => shape.masked(),
        batch => render::size(conv.batch),
        out_size => [output.height, output.width],
        in_width => input.columns(),
        in_height => input.rows(),
        in_origin => (input.halo[0] - pad_top) * input.columns() + input.halo[2] - pad_left,
        out_width => output.columns(),
        out_height => output.rows(),
        out_origin => output.origin(),
        epilogue,
    }
}
