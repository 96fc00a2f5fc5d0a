//! `cuda_conv_wgmma@1`: convolutions as implicit matrix products on the warpgroup instructions of
//! Hopper; see `template.cu.j2`.

use aotfarm_protocol::{DType, GridAxis, Launch, Params};
use minijinja::context;

use super::shared::geometry::{Conv, Source, axis, element};
use crate::families::shared::points::{div_up, param, point};
use crate::family::{CandidateFamily, FULL_TRIALS, FamilyId, KernelSource, Unsupported};
use crate::headers::CUDA_MATH;
use crate::machine::Gpu;
use crate::render::{self, Template, Unit};
use crate::task::TuningTask;
use aotfarm_plan::spec::Math;

const TEMPLATE: Template = Template { name: "cuda/conv_wgmma.cu.j2", text: include_str!("template.cu.j2") };
/// Registers of a copying thread.
const COPIER_REGISTERS: i64 = 56;

/// Implicit matrix product, output channels by pixels.
///
/// `wm` by `wn` warpgroups multiply 64 channels by `px` pixels each; `alternate`: two such sets
/// take tiles in turn. A step is `chunks` times 16 bytes of channels of one tap; `stages` steps of
/// weights and `patches` patches of pixels are in flight. `split` blocks of a cluster share the
/// channels of a tile. `persistent` blocks, `blocks` for each multiprocessor, take one tile after
/// the other. A tile is `images` whole images, or a run of pixels when that is 0. `slice` pixels
/// are stored at a time.
pub struct ConvWgmma;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Point {
    wm: i64,
    wn: i64,
    px: i64,
    chunks: i64,
    stages: i64,
    patches: i64,
    split: i64,
    persistent: bool,
    alternate: bool,
    blocks: i64,
    images: i64,
    slice: i64,
}

impl Point {
    fn of(params: &Params) -> Self {
        let get = |name| param(params, name);
        Self {
            wm: get("wm"),
            wn: get("wn"),
            px: get("px"),
            chunks: get("chunks"),
            stages: get("stages"),
            patches: get("patches"),
            split: get("split"),
            persistent: get("persistent") != 0,
            alternate: get("alternate") != 0,
            blocks: get("blocks"),
            images: get("images"),
            slice: get("slice"),
        }
    }

    fn params(&self) -> Params {
        point([
            ("wm", self.wm),
            ("wn", self.wn),
            ("px", self.px),
            ("chunks", self.chunks),
            ("stages", self.stages),
            ("patches", self.patches),
            ("split", self.split),
            ("persistent", i64::from(self.persistent)),
            ("alternate", i64::from(self.alternate)),
            ("blocks", self.blocks),
            ("images", self.images),
            ("slice", self.slice),
        ])
    }

    /// Multiplying warpgroups.
    fn groups(&self) -> i64 {
        self.wm * self.wn * if self.alternate { 2 } else { 1 }
    }

    fn tile_p(&self) -> i64 {
        self.px * self.wn
    }

    /// Registers of a thread at the start, and of a multiplying one.
    fn registers(&self) -> (i64, i64) {
        let start = (Gpu::H100.registers / 128 / self.blocks / (1 + self.groups()) / 8 * 8).min(248);
        let multiplying = (start * (1 + self.groups()) - COPIER_REGISTERS) / self.groups() / 8 * 8;
        (start, multiplying.min(240))
    }
}

/// A tap of the kernel: its place in the weights, and the plane and the shift in it that it reads.
#[derive(Debug, Clone, Copy)]
struct Tap {
    at: i64,
    plane: [i64; 2],
    shift: [i64; 2],
}

/// A convolution that is summed.
struct Sum {
    source: Source,
    /// Chunks of 16 bytes in an input pixel.
    in_chunks: i64,
    taps: Vec<Tap>,
    /// The planes that taps read, in the order of their first tap.
    planes: Vec<[i64; 2]>,
}

/// What is known of a task.
struct Shape<'a> {
    conv: Conv,
    task: &'a TuningTask,
    /// Of the grid of positions.
    pitch: [i64; 2],
    sums: Vec<Sum>,
}

/// Offsets in shared memory, and its size.
struct Memory {
    places: i64,
    weights: i64,
    patches: i64,
    sums: i64,
    bytes: i64,
}

impl Sum {
    fn of(source: Source) -> Self {
        let Source { image, window, weight: [_, kh, kw, c], .. } = source;
        let taps: Vec<Tap> = (0..kh * kw)
            .map(|at| {
                let from = |axis: usize, k: i64| k * window.dilation[axis] - window.pad[axis][0];
                let reach = [from(0, at / kw), from(1, at % kw)];
                let of = |f: fn(i64, i64) -> i64| [f(reach[0], window.stride[0]), f(reach[1], window.stride[1])];
                Tap { at, plane: of(i64::rem_euclid), shift: of(i64::div_euclid) }
            })
            .collect();
        let mut planes = Vec::new();
        for tap in &taps {
            if !planes.contains(&tap.plane) {
                planes.push(tap.plane);
            }
        }
        Self { source, in_chunks: c * image.dtype.size() as i64 / 16, taps, planes }
    }

    /// How far rows (or images) must lie apart for so many results.
    fn pitch(&self, axis: usize, results: i64) -> i64 {
        let Source { image, window, .. } = self.source;
        let need = |tap: &Tap| {
            // A reach beyond the row must end in the zeros before the next row; one before it, in
            // those after the row before.
            let plane = div_up([image.h, image.w][axis] - tap.plane[axis], window.stride[axis]);
            (results + tap.shift[axis]).max(if tap.shift[axis] < 0 { plane - tap.shift[axis] } else { 0 })
        };
        self.taps.iter().map(need).max().unwrap_or(0).max(results)
    }

    /// Blocks of channels.
    fn blocks(&self, point: &Point) -> i64 {
        div_up(self.in_chunks, point.chunks)
    }
}

impl<'a> Shape<'a> {
    fn of(task: &'a TuningTask) -> Result<Self, Unsupported> {
        let conv = Conv::with_branch(task)?;
        let refuse = |why: &str| Err(Unsupported(why.into()));
        let o = conv.weight[0];
        if !conv.machine.wgmma {
            return refuse("wgmma is of sm_90a");
        }
        if conv.groups != 1 || conv.pool.is_some() {
            return refuse("groups or a pooling");
        }
        if conv.weight_dtype != conv.input.dtype || (conv.input.dtype == DType::F32) != (conv.math == Math::Tf32) {
            return refuse("the operands are not of one type of tensor cores");
        }
        let sources = conv.sources();
        if sources.iter().map(Source::taps).sum::<i64>() > 64 || sources.iter().any(|s| s.window.pad[0][0] >= 64) {
            return refuse("a kernel of more taps or reach than the tables hold");
        }
        let eights = |s: &Source| s.image.block == Some(s.weight[3]) && s.weight[3] % 8 == 0;
        if !sources.iter().all(eights) || conv.output.block != Some(o) || o % 8 != 0 {
            return refuse("an image is not NHWC of eights of channels");
        }
        if conv.epilogue.residuals.iter().any(|k| task.spec.inputs[*k].dtype != conv.output.dtype) {
            return refuse("a residual is not stored as the output");
        }
        let sums: Vec<Sum> = sources.into_iter().map(Sum::of).collect();
        let results = [conv.output.h, conv.output.w];
        let pitch = [0, 1].map(|axis| sums.iter().map(|sum| sum.pitch(axis, results[axis])).max().unwrap_or(0));
        Ok(Self { conv, task, pitch, sums })
    }

    /// How far a tap's positions lie from the tile's.
    fn shift(&self, tap: &Tap, point: &Point) -> i64 {
        (tap.shift[0] * self.pitch[1] + tap.shift[1]) * point.images.max(1)
    }

    /// A plane's first shift.
    fn first(&self, sum: &Sum, plane: [i64; 2], point: &Point) -> i64 {
        sum.taps.iter().filter(|t| t.plane == plane).map(|t| self.shift(t, point)).min().unwrap_or(0)
    }

    /// Rows of the patches of one convolution.
    fn rows(&self, sum: &Sum, point: &Point) -> i64 {
        let reach = sum.taps.iter().map(|t| self.shift(t, point) - self.first(sum, t.plane, point)).max().unwrap_or(0);
        point.tile_p() + reach
    }

    /// Rows of the largest patch.
    fn patch_rows(&self, point: &Point) -> i64 {
        self.sums.iter().map(|sum| self.rows(sum, point)).max().unwrap_or(0)
    }

    fn planes(&self) -> i64 {
        self.sums.iter().map(|sum| sum.planes.len() as i64).sum()
    }

    /// Steps of a tile, or of a block's share of it.
    fn steps(&self, point: &Point, split: i64) -> i64 {
        self.sums.iter().map(|sum| sum.taps.len() as i64 * div_up(sum.blocks(point), split)).sum()
    }

    /// Patches of a block's share of a tile.
    fn fills(&self, point: &Point) -> i64 {
        self.sums.iter().map(|sum| sum.planes.len() as i64 * div_up(sum.blocks(point), point.split)).sum()
    }

    fn tiles_o(&self, point: &Point) -> i64 {
        div_up(self.conv.output.c, 64 * point.wm)
    }

    /// Whether all weights stay in shared memory.
    fn resident(&self, point: &Point) -> bool {
        point.persistent
            && point.stages == self.steps(point, 1)
            && self.conv.machine.processors * point.blocks % self.tiles_o(point) == 0
    }

    fn memory(&self, point: &Point) -> Memory {
        let up = |n: i64, by: i64| div_up(n, by) * by;
        let places = 16 * (point.stages + point.patches + 1);
        let weights = up(places + 4 * self.planes() * self.patch_rows(point), 1024);
        let patches = weights + point.stages * point.wm * 64 * point.chunks * 16;
        let end = patches + point.patches * up(self.patch_rows(point) * point.chunks * 16, 1024);
        let slices = if point.split > 1 { point.px } else { 2 * point.slice };
        let sums = if point.persistent { end } else { weights };
        Memory { places, weights, patches, sums, bytes: end.max(sums + point.groups() * slices * 68 * 4) }
    }

    fn legal(&self, point: &Point) -> bool {
        let machine = &self.conv.machine;
        let (start, multiplying) = point.registers();
        let positions = point.images * self.pitch[1] * self.conv.output.h - self.pitch[1] + self.conv.output.w;
        (point.images == 0 || (point.tile_p() - 16 * point.wn < positions && positions <= point.tile_p()))
            && self.memory(point).bytes + machine.shared_reserved <= machine.shared / point.blocks
            && point.split <= self.sums[0].blocks(point)
            && point.stages >= 2
            && point.patches >= self.fills(point).min(2)
            && point.px / 2 + 44 <= multiplying
            && point.px / 2 + 26 <= start
    }

    /// Estimated clocks.
    fn cost(&self, point: &Point) -> i64 {
        let size = self.conv.output.dtype.size() as i64;
        let groups = point.wm * point.wn;
        let steps = self.steps(point, point.split);
        let fills = self.fills(point);
        let patch = self.patch_rows(point) * point.chunks * 16;
        let multiply = steps * (groups * point.chunks / 2 * (point.px / 2).max((64 + point.px) / 4 + 4) + 40);
        let weights = if self.resident(point) { 0 } else { steps * 64 * point.wm };
        let copied = weights * point.chunks * 16 + fills * patch;
        let stored = point.tile_p() * 64 * point.wm * size * 2;
        // Patches arrive one latency after the other when few are in flight.
        let again = fills > 1 || point.persistent;
        let waited = if again { fills * (1500 + patch / 24) / (point.patches - 1).max(1) } else { 0 };
        let main = multiply.max((copied + stored) / 24).max(waited);
        let lead = 1800;
        let store =
            if point.split == 1 { 900 + point.px * 14 } else { 900 * (1 + point.split) + point.px * (6 + 10 / point.split) };
        let tiles = self.tiles(point).at(&self.task.point) * point.split;
        // The blocks of a cluster run on one part of the machine, and leave the rest of it idle.
        let sms = self.conv.machine.clustered_guess[point.split as usize - 1];
        let slots = point.blocks * sms;
        if point.persistent {
            let each =
                if point.alternate { multiply.max((multiply + store) / 2).max(main) } else { (multiply + store).max(main) };
            let each = if point.blocks > 1 { each * point.blocks * 3 / 4 } else { each };
            return lead + store + div_up(tiles, slots) * each;
        }
        let alone = lead + store + main;
        let together = alone.max(point.blocks * main + (lead + store) / 2);
        let rest = tiles % slots;
        1000 + tiles / slots * together
            + if rest > sms {
                together
            } else if rest > 0 {
                alone
            } else {
                0
            }
    }

    fn tiles(&self, point: &Point) -> GridAxis {
        let (positions, tile) =
            if point.images > 0 { (1, point.images) } else { (self.pitch[0] * self.pitch[1], point.tile_p()) };
        axis(self.tiles_o(point), positions, &[self.conv.batch], tile)
    }

    /// All legal points.
    fn points(&self) -> Vec<Point> {
        let (mut all, in_chunks) = (Vec::new(), self.sums[0].in_chunks);
        for chunks in [8, 4, 2].into_iter().filter(|c| if *c == 2 { in_chunks < 4 } else { *c <= in_chunks }) {
            for (wm, wn, alternate, blocks) in SHAPES {
                for images in [0, 1, 2, 4, 8] {
                    let whole = images * self.pitch[1] * self.conv.output.h - self.pitch[1] + self.conv.output.w;
                    let fitting = [div_up(whole, 8 * wn) * 8];
                    for px in if images > 0 { &fitting[..] } else { &PIXELS[..] } {
                        for split in [1, 2, 3, 4, 6, 8] {
                            for persistent in [false, true] {
                                let point = Point {
                                    wm,
                                    wn,
                                    px: *px,
                                    chunks,
                                    stages: 0,
                                    patches: 0,
                                    split,
                                    persistent,
                                    alternate,
                                    blocks,
                                    images,
                                    slice: 32,
                                };
                                if *px <= 256 && (!alternate || persistent) && (split == 1 || !persistent) {
                                    self.rings(point, &mut all);
                                }
                            }
                        }
                    }
                }
            }
        }
        all
    }

    /// The deepest rings that fit, and those that keep all weights.
    fn rings(&self, point: Point, all: &mut Vec<Point>) {
        let steps = self.steps(&point, 1);
        let fills = if point.persistent { i64::MAX } else { self.fills(&point) };
        let most = if point.persistent { i64::MAX } else { steps };
        let with = |(stages, patches): (i64, i64)| Point { stages: stages.min(most), patches: patches.min(fills), ..point };
        all.extend(RINGS.into_iter().map(with).find(|p| self.legal(p)));
        if point.persistent && steps > 2 {
            let resident =
                [(32, 3), (16, 3), (32, 2), (16, 2)].map(|(slice, patches)| Point { stages: steps, patches, slice, ..point });
            all.extend(resident.into_iter().find(|p| self.resident(p) && self.legal(p)));
        }
    }
}

/// Warpgroups along channels and pixels, whether they alternate, blocks of a multiprocessor.
const SHAPES: [(i64, i64, bool, i64); 8] = [
    (1, 2, false, 1),
    (2, 1, false, 1),
    (1, 1, false, 2),
    (1, 1, false, 1),
    (1, 1, true, 1),
    (1, 2, false, 2),
    (2, 1, false, 2),
    (1, 1, false, 3),
];
const PIXELS: [i64; 24] =
    [8, 16, 24, 32, 40, 48, 56, 64, 72, 80, 88, 96, 104, 112, 128, 144, 160, 176, 192, 208, 216, 224, 240, 256];
const RINGS: [(i64, i64); 8] = [(8, 3), (6, 3), (4, 3), (8, 2), (6, 2), (4, 2), (3, 2), (8, 1)];
/// Points of one kind among the best.
const OF_A_KIND: usize = 2;

impl CandidateFamily for ConvWgmma {
    fn id(&self) -> FamilyId {
        "cuda_conv_wgmma@1"
    }

    fn supports(&self, task: &TuningTask) -> Result<(), Unsupported> {
        Shape::of(task).map(|_| ())
    }

    fn enumerate(&self, task: &TuningTask) -> Vec<Params> {
        let Ok(shape) = Shape::of(task) else { return Vec::new() };
        let mut points = shape.points();
        points.sort_by_cached_key(|p| shape.cost(p));
        // The best of each kind first, so that a prefix has something of everything.
        let mut kinds = std::collections::HashMap::new();
        let mut rounds: Vec<(usize, Point)> = Vec::new();
        for p in points {
            let kind = (p.wm, p.wn, p.blocks, p.alternate, p.split, p.persistent, p.images > 0, p.chunks, shape.resident(&p));
            let before: &mut usize = kinds.entry(kind).or_default();
            rounds.push((*before / OF_A_KIND, p));
            *before += 1;
        }
        rounds.sort_by_key(|(round, _)| *round);
        rounds.into_iter().take(FULL_TRIALS).map(|(_, p)| p.params()).collect()
    }

    fn render(&self, task: &TuningTask, params: &Params) -> KernelSource {
        let shape = Shape::of(task).unwrap_or_else(|e| panic!("conv_wgmma was asked for a task that it refuses: {e}"));
        let p = Point::of(params);
        let conv = &shape.conv;
        let memory = shape.memory(&p);
        let (mut steps, mut planes, mut sums) = (Vec::new(), Vec::new(), Vec::new());
        for sum in &shape.sums {
            for plane in &sum.planes {
                let first = shape.first(sum, *plane, &p);
                let taps: Vec<_> = sum.taps.iter().filter(|t| t.plane == *plane).collect();
                for (i, tap) in taps.iter().enumerate() {
                    let [opens, closes] = [i == 0, i + 1 == taps.len()].map(i64::from);
                    steps.push([tap.at, planes.len() as i64, shape.shift(tap, &p) - first, opens, closes]);
                }
                planes.push([plane[0], plane[1], first]);
            }
            sums.push(context! {
                in_chunks => sum.in_chunks, taps => sum.taps.len(), planes => sum.planes.len(), rows => shape.rows(sum, &p),
                ..sum.source.context()
            });
        }
        let (_, multiplying) = p.registers();
        let (wgmma_type, depth) = match conv.input.dtype {
            DType::Bf16 => ("bf16", 16),
            DType::F16 => ("f16", 16),
            _ => ("tf32", 8),
        };
        let context = context! {
            out_size => [conv.output.h, conv.output.w], out_channels => conv.output.c, pitch => shape.pitch,
            sums, steps, planes,
            wm => p.wm, wn => p.wn, pixels => p.px, chunks => p.chunks, stages => p.stages, patches => p.patches, split => p.split,
            persistent => i64::from(p.persistent), alternate => i64::from(p.alternate), resident => i64::from(shape.resident(&p)), images => p.images, slice => p.slice,
            occupancy => p.blocks, registers => [COPIER_REGISTERS, multiplying],
            patch_rows => shape.patch_rows(&p),
            places_at => memory.places, weights_at => memory.weights, patches_at => memory.patches, sums_at => memory.sums,
            wgmma_type, depth,
            element => element(conv.input.dtype).unwrap_or("float"), result => element(conv.output.dtype).unwrap_or("float"),
            ..conv.context()
        };
        render::unit(&Unit { family: self.id(), template: TEMPLATE, headers: &[CUDA_MATH], task, params, packs: false }, context)
    }

    fn launch(&self, task: &TuningTask, params: &Params) -> Option<Launch> {
        let shape = Shape::of(task).ok()?;
        let p = Point::of(params);
        let mut blocks = shape.tiles(&p);
        blocks.times *= p.split;
        let blocks = if p.persistent { GridAxis::fixed(shape.conv.machine.processors * p.blocks) } else { blocks };
        let threads = u32::try_from(128 * (1 + p.groups())).ok()?;
        let mut launch = Launch::linear(blocks, threads, u32::try_from(shape.memory(&p).bytes).ok()?);
        launch.cluster[0] = u32::try_from(p.split).ok()?;
        Some(launch)
    }
}

#[cfg(test)]
mod tests {
    use aotfarm_protocol::Target;

    use super::*;
    use crate::conformance::{image, plain, task};
    use aotfarm_ir::{BinaryOp, UnaryOp, Window};
    use aotfarm_plan::spec::{ConvSpec, EpilogueStep, KernelKind};

    /// A convolution of bf16 with bias, residual and ReLU.
    fn convolution(channels: [i64; 2], size: i64, kernel: i64, stride: i64) -> TuningTask {
        let target = Target::Cuda { sm: 90 };
        let [from, to] = channels;
        let pad = kernel / 2;
        let out = (size + 2 * pad - kernel) / stride + 1;
        let window = Window { kernel: [kernel; 2], stride: [stride; 2], pad: [[pad; 2]; 2], dilation: [1; 2] };
        let epilogue = vec![EpilogueStep::Bias(1), EpilogueStep::Residual(BinaryOp::Add, 1), EpilogueStep::Unary(UnaryOp::Relu)];
        let kind = KernelKind::Conv(ConvSpec { window, groups: 1, epilogue, pool: None, branch: None, gate: None, mean: false });
        let images = [image(target, [from, size, size], [0; 4]), image(target, [to, out, out], [0; 4])];
        let weights = vec![plain(DType::Bf16, &[to, kernel, kernel, from]), plain(DType::F32, &[to])];
        let mut task = task(target, kind, images.to_vec(), weights, images[1].clone(), &[128]);
        task.spec.inputs.iter_mut().chain(&mut task.spec.outputs).for_each(|t| t.dtype = DType::Bf16);
        task
    }

    #[test]
    fn the_grid_has_room_for_the_padding_and_no_more() {
        for (task, pitch) in [
            (convolution([64, 64], 56, 3, 1), 57),
            (convolution([64, 128], 56, 3, 2), 29),
            (convolution([64, 128], 56, 1, 2), 28),
            (convolution([64, 128], 56, 5, 1), 58),
        ] {
            assert_eq!(Shape::of(&task).expect("supported").pitch, [pitch; 2]);
        }
    }

    #[test]
    fn points_are_legal_and_many() {
        for task in [convolution([64, 64], 56, 3, 1), convolution([512, 512], 7, 3, 1), convolution([64, 128], 56, 1, 2)] {
            let shape = Shape::of(&task).expect("supported");
            let points: Vec<_> = ConvWgmma.enumerate(&task).iter().map(Point::of).collect();
            assert!(points.len() > 100 && points.iter().all(|p| shape.legal(p)));
        }
    }
}
