//! `conv_patch@1`: convolutions on tensor cores out of patches of the image; see `template.cu.j2`.

use aotfarm_protocol::{Launch, Params};
use minijinja::{Value, context};

use super::shared::geometry::{Conv, axis};
use super::shared::mma::{self, Space, Tile, Work};
use crate::families::shared::points::{div_up, param};
use crate::family::{CandidateFamily, FamilyId, KernelSource, Unsupported};
use crate::headers::{CUDA_MATH, CUDA_MMA};
use crate::render::{self, Template, Unit};
use crate::task::TuningTask;

const TEMPLATE: Template = Template { name: "cuda/conv_patch.cu.j2", text: include_str!("template.cu.j2") };

/// Tiles of `ti` images by `th` x `tw` output pixels by `bn` channels. `bc` channels and `run` taps
/// (one, whole rows of the kernel, or all) are in each of `stages` buffers of weights. `wm`, `wn`,
/// `wk`, `split`: see [`Tile`].
pub struct ConvPatch;

/// The geometry.
struct Shape {
    conv: Conv,
    bytes: i64,
}

/// What a point reads of the image, and how.
#[derive(Debug, Clone, Copy)]
struct Patch {
    ti: i64,
    th: i64,
    tw: i64,
    bc: i64,
    run: i64,
}

impl Patch {
    fn of(params: &Params) -> Self {
        let get = |name| param(params, name);
        Self { ti: get("ti"), th: get("th"), tw: get("tw"), bc: get("bc"), run: get("run") }
    }

    fn pixels(&self) -> i64 {
        self.ti * self.th * self.tw
    }
}

impl Shape {
    fn of(task: &TuningTask) -> Result<Self, Unsupported> {
        let conv = Conv::of(task)?;
        let bytes = mma::convolution_bytes(&conv)?;
        let [_, kh, kw, c] = conv.weight;
        if kh * kw == 1 || c * bytes % 64 != 0 {
            return Err(Unsupported("a single tap, or channels that are not whole chunks".into()));
        }
        Ok(Self { conv, bytes })
    }

    fn taps(&self) -> i64 {
        self.conv.weight[1] * self.conv.weight[2]
    }

    /// Pixels of the image that so many outputs along an axis read.
    fn reach(&self, axis: usize, outputs: i64) -> i64 {
        let window = self.conv.window;
        (outputs - 1) * window.stride[axis] + (window.kernel[axis] - 1) * window.dilation[axis] + 1
    }

    /// Rows and columns of a patch of an image, and how many pixels its rows lie apart: if possible
    /// so many that the pixel below the beginning of a row is, to the banks, the neighbour of its
    /// end.
    fn patch(&self, patch: &Patch) -> [i64; 3] {
        let [sh, sw] = self.conv.window.stride;
        let (rows, columns) = (self.reach(0, patch.th), self.reach(1, patch.tw));
        let least = div_up(columns, sw) * sw;
        [rows, columns, (least..least + 8).find(|pitch| (pitch * sh - patch.tw) % 8 == 0).unwrap_or(least)]
    }

    /// Buffers of k in all.
    fn rounds(&self, patch: &Patch) -> i64 {
        self.conv.weight[3] / patch.bc * self.taps() / patch.run
    }

    /// Buffers for patches: those that a block reads, or those that can be in flight.
    fn patches(&self, patch: &Patch, tile: &Tile) -> i64 {
        let (rounds, runs) = (self.rounds(patch), self.taps() / patch.run);
        let from = |rank: i64| rank * rounds / tile.split;
        let read = (0..tile.split).map(|rank| (from(rank + 1) - 1) / runs - from(rank) / runs + 1).max();
        read.unwrap_or(1).min(1 + div_up(tile.stages - 1, runs))
    }

    /// Tiles of an image: across and down.
    fn tiles(&self, patch: &Patch) -> [i64; 2] {
        [div_up(self.conv.output.w, patch.tw), div_up(self.conv.output.h, patch.th)]
    }

    fn work(&self, patch: &Patch, tile: &Tile, rounds: i64, point: &[i64]) -> Work {
        let row = patch.bc * self.bytes;
        let [rows, columns, pitch] = self.patch(patch);
        let [across, down] = self.tiles(patch);
        // A share of k may begin and end inside a chunk of channels.
        let chunks = div_up(rounds * patch.run, self.taps()) + i64::from(tile.split > 1);
        let buffers = tile.stages * patch.run * tile.bn * row + self.patches(patch, tile) * patch.ti * rows * pitch * (row + 16);
        Work {
            grid: div_up(self.conv.batch.at(point), patch.ti) * across * down * div_up(self.conv.weight[0], tile.bn) * tile.split,
            shared: buffers + tile.extra_bytes(self.conv.epilogue.biases.len()),
            rounds,
            steps: patch.run * row / 32 / tile.wk,
            a: chunks.min(self.conv.weight[3] / patch.bc) * patch.ti * rows * columns * row,
            b: rounds * patch.run * tile.bn * row,
        }
    }

    /// `[ti, th, tw]` of up to three tiles for each number of fragments and images: those that read
    /// least and are filled best.
    fn shapes(&self, images: i64) -> Vec<[i64; 3]> {
        let (h, w) = (self.conv.output.h, self.conv.output.w);
        let mut widths: Vec<i64> = [1, 2, 3, 4, 5, 7, 8, 14].map(|parts| div_up(w, parts)).into_iter().chain([8, 16]).collect();
        widths.retain(|width| *width <= w);
        widths.sort_unstable();
        widths.dedup();
        let mut best: std::collections::BTreeMap<[i64; 2], Vec<(f64, [i64; 3])>> = std::collections::BTreeMap::new();
        for tw in widths {
            for th in 1..=h {
                for ti in 1..=if (th, tw) == (h, w) { images.clamp(1, 5) } else { 1 } {
                    let pixels = ti * th * tw;
                    let covered = div_up(h, th) * th * div_up(w, tw) * tw * div_up(pixels, 16) * 16;
                    let fill = (h * w * pixels) as f64 / covered as f64;
                    let read = (self.reach(0, th) * self.reach(1, tw) * ti) as f64 / pixels as f64;
                    if (12..=256).contains(&pixels) && fill >= 0.7 {
                        best.entry([div_up(pixels, 16), ti]).or_default().push((read / fill.powi(2), [ti, th, tw]));
                    }
                }
            }
        }
        let mut shapes = Vec::new();
        for list in best.values_mut() {
            list.sort_by(|a, b| a.0.total_cmp(&b.0));
            shapes.extend(list.iter().take(3).map(|(_, shape)| *shape));
        }
        shapes
    }

    fn enumerate(&self, point: &[i64]) -> Vec<Params> {
        let [o, _, kw, c] = self.conv.weight;
        let mut runs = vec![1, kw, self.taps()];
        runs.dedup();
        runs.retain(|run| *run <= 9);
        let mut points = Vec::new();
        for [ti, th, tw] in self.shapes(self.conv.batch.at(point)) {
            for row in [64, 128, 256] {
                let bc = row / self.bytes;
                for run in if c % bc == 0 { runs.as_slice() } else { &[] } {
                    let patch = Patch { ti, th, tw, bc, run: *run };
                    let space =
                        Space { machine: self.conv.machine, channels: o, rows: patch.pixels(), row, rounds: self.rounds(&patch) };
                    let work = |tile: &Tile, rounds| self.work(&patch, tile, rounds, point);
                    let others = [("ti", ti), ("th", th), ("tw", tw), ("bc", bc), ("run", *run)];
                    space.visit(false, work, |cost, tile| points.push((cost, tile.params(others))));
                }
            }
        }
        mma::cheapest(points, &["ti", "th", "tw", "bn", "split"])
    }
}

impl CandidateFamily for ConvPatch {
    fn id(&self) -> FamilyId {
        "conv_patch@1"
    }

    fn supports(&self, task: &TuningTask) -> Result<(), Unsupported> {
        Shape::of(task).map(|_| ())
    }

    fn enumerate(&self, task: &TuningTask) -> Vec<Params> {
        Shape::of(task).map(|shape| shape.enumerate(&task.point)).unwrap_or_default()
    }

    fn render(&self, task: &TuningTask, params: &Params) -> KernelSource {
        let shape = Shape::of(task).unwrap_or_else(|e| panic!("{}: {e}", self.id()));
        let patch = Patch::of(params);
        let [patch_h, patch_w, row_pixels] = shape.patch(&patch);
        let patches = shape.patches(&patch, &Tile::of(patch.pixels(), params));
        let unit = Unit { family: self.id(), template: TEMPLATE, headers: &[CUDA_MATH, CUDA_MMA], task, params, packs: false };
        let own = context! { patch_h, patch_w, row_pixels, patches };
        render::unit(&unit, context! { ..own, ..Value::from_pairs(params.clone()), ..shape.conv.context() })
    }

    fn launch(&self, task: &TuningTask, params: &Params) -> Option<Launch> {
        let shape = Shape::of(task).ok()?;
        let patch = Patch::of(params);
        let tile = Tile::of(patch.pixels(), params);
        let [across, down] = shape.tiles(&patch);
        let tiles = axis(across * down * div_up(shape.conv.weight[0], tile.bn), 1, &[shape.conv.batch], patch.ti);
        Some(tile.launch(tiles, shape.work(&patch, &tile, 1, &task.point).shared))
    }
}
