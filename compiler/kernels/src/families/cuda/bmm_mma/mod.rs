//! `cuda_bmm_mma@1`: products of two activations on tensor cores; see `template.cu.j2`.

use aotfarm_protocol::{Launch, Params};
use minijinja::context;

use super::shared::geometry::{Product, axis};
use super::shared::mma::{self, Space, Tile, Work};
use super::shared::tiles::pitch;
use crate::families::shared::points::{div_up, param, point};
use crate::family::{CandidateFamily, FamilyId, KernelSource, Unsupported};
use crate::headers::{CUDA_MATH, CUDA_MMA, CUDA_TILES};
use crate::render::{self, Template, Unit};
use crate::task::TuningTask;

const TEMPLATE: Template = Template { name: "cuda/bmm_mma.cu.j2", text: include_str!("template.cu.j2") };

/// Tiles of `bm` rows by `bn` columns, shared by `wm` x `wn` warps; `bk` elements of k in each of
/// `stages` buffers. All sizes may be dynamic; rows that are not whole chunks of 16 bytes are
/// copied element by element.
pub struct BmmMma;

/// A product that the kernel can do.
struct Bmm {
    product: Product,
    bytes: i64,
}

impl Bmm {
    fn of(task: &TuningTask) -> Result<Self, Unsupported> {
        let product = Product::of(task)?;
        if !product.machine.copies_beside {
            return Err(Unsupported("cp.async is of sm_80".into()));
        }
        if product.b_is_weight || product.dtypes[0] != product.dtypes[1] {
            return Err(Unsupported("b is a weight, or of another type than a".into()));
        }
        let bytes = mma::element_bytes(product.dtypes[0], product.math)?;
        Ok(Self { product, bytes })
    }

    /// Shared memory of a tile with one buffer.
    fn stage(&self, bm: i64, bn: i64, bk: i64) -> i64 {
        let row = pitch(bk * self.bytes);
        let of_b = match (self.product.b_transposed, self.bytes) {
            (true, _) => bn * row,
            (false, 4) => bk * (bn * 4 + 32),
            (false, _) => bk * pitch(bn * self.bytes),
        };
        bm * row + of_b
    }

    fn points(&self, at: &[i64]) -> Vec<Params> {
        let Product { machine, batch, m, n, k, .. } = &self.product;
        let (m, n, k) = (m.at(at), n.at(at), k.at(at));
        let matrices: i64 = batch.iter().map(|size| size.at(at)).product();
        let mut points = Vec::new();
        for bm in [16, 32, 64, 128, 256] {
            for row in [64, 128] {
                let bk = row / self.bytes;
                let space = Space { machine: *machine, channels: n, rows: bm, row, rounds: div_up(k, bk) };
                let work = |tile: &Tile, rounds: i64| Work {
                    grid: matrices * div_up(m, bm) * div_up(n, tile.bn),
                    shared: tile.stages * self.stage(bm, tile.bn, bk),
                    rounds,
                    steps: row / 32,
                    a: rounds * bm * row,
                    b: rounds * tile.bn * row,
                };
                space.visit(true, work, |cost, tile| {
                    // There are enough tiles without sharing k among warps or blocks: every matrix
                    // has its own.
                    if (tile.wk, tile.split) == (1, 1) {
                        let Tile { bn, wm, wn, stages, .. } = *tile;
                        points.push((
                            cost,
                            point([("bm", bm), ("bn", bn), ("bk", bk), ("wm", wm), ("wn", wn), ("stages", stages)]),
                        ));
                    }
                });
            }
        }
        mma::cheapest(points, &["bm", "bn"])
    }
}

impl CandidateFamily for BmmMma {
    fn id(&self) -> FamilyId {
        "cuda_bmm_mma@1"
    }

    fn supports(&self, task: &TuningTask) -> Result<(), Unsupported> {
        Bmm::of(task).map(|_| ())
    }

    fn enumerate(&self, task: &TuningTask) -> Vec<Params> {
        Bmm::of(task).map_or_else(|_| Vec::new(), |bmm| bmm.points(&task.point))
    }

    fn render(&self, task: &TuningTask, params: &Params) -> KernelSource {
        let Bmm { product, .. } = Bmm::of(task).unwrap_or_else(|e| panic!("{}: {e}", self.id()));
        let headers = &[CUDA_MATH, CUDA_MMA, CUDA_TILES];
        let unit = Unit { family: self.id(), template: TEMPLATE, headers, task, params, packs: false };
        let [bm, bn, bk, wm, wn, stages] = ["bm", "bn", "bk", "wm", "wn", "stages"].map(|name| param(params, name));
        let batched = !product.batch.is_empty();
        render::unit(&unit, context! { bm, bn, bk, wm, wn, stages, batched, ..product.context() })
    }

    fn launch(&self, task: &TuningTask, params: &Params) -> Option<Launch> {
        let bmm = Bmm::of(task).ok()?;
        let [bm, bn, bk, wm, wn, stages] = ["bm", "bn", "bk", "wm", "wn", "stages"].map(|name| param(params, name));
        let Product { batch, m, n, .. } = &bmm.product;
        let (rows, columns) = (axis(1, 1, &[*m], bm), axis(1, 1, &[*n], bn));
        let mut launch = Launch::linear(rows, (32 * wm * wn) as u32, (stages * bmm.stage(bm, bn, bk)) as u32);
        launch.grid[2] = columns;
        if !batch.is_empty() {
            // Only the x axis takes more than 65535 blocks.
            launch.grid.swap(0, 1);
            launch.grid[0] = axis(1, 1, batch, 1);
        }
        Some(launch)
    }
}
