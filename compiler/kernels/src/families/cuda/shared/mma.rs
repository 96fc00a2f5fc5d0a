//! What the families on tensor cores by `mma.sync`, of `include/cuda/mma.cuh`, share: how warps
//! share a tile, and what a point may cost.

use aotfarm_protocol::{DType, GridAxis, Launch, Params};

use super::geometry::{Conv, Image};
use crate::families::shared::points::{div_up, param};
use crate::family::Unsupported;
use crate::machine::Gpu;
use aotfarm_plan::spec::Math;

/// How many points a family offers, and of these with equal tiles.
const POINTS: usize = 48;
const EQUAL_TILES: usize = 2;
/// Shared memory that leaves room for the first blocks of the next kernel, which load their weights
/// meanwhile.
const ROOM: i64 = 112 * 1024;

/// Bytes of an element if the tensor cores multiply it.
pub fn element_bytes(dtype: DType, math: Math) -> Result<i64, Unsupported> {
    match (dtype, math) {
        (DType::Bf16 | DType::F16, _) => Ok(2),
        (DType::F32, Math::Tf32) => Ok(4),
        _ => Err(Unsupported(format!("no tensor core multiplies {dtype} exactly"))),
    }
}

/// Whether the kernels can do a convolution; bytes of its elements.
pub fn convolution_bytes(conv: &Conv) -> Result<i64, Unsupported> {
    if !conv.machine.copies_beside {
        return Err(Unsupported("cp.async is of sm_80".into()));
    }
    if conv.groups != 1 || conv.pool.is_some() {
        return Err(Unsupported("groups or a pooling".into()));
    }
    let sources = conv.sources();
    let eights = |[.., c]: [i64; 4], image: Image| image.block == Some(c) && c % 8 == 0;
    if !sources.iter().all(|s| eights(s.weight, s.image)) || conv.output.block.is_none() {
        return Err(Unsupported("an image is not NHWC".into()));
    }
    if conv.weight_dtype != conv.input.dtype || sources.iter().any(|s| s.taps() > 64) {
        return Err(Unsupported("weights of another type, or more than 64 taps".into()));
    }
    same_residuals(&conv.epilogue.residuals, &conv.input_types, conv.output.dtype)?;
    element_bytes(conv.input.dtype, conv.math)
}

/// Residuals are read as the output is stored.
pub fn same_residuals(residuals: &[usize], types: &[&str], output: DType) -> Result<(), Unsupported> {
    let output = super::geometry::element(output)?;
    if residuals.iter().all(|k| types.get(*k) == Some(&output)) {
        return Ok(());
    }
    Err(Unsupported("a residual is not of the output's type".into()))
}

/// A tile of 16 `fragments` rows by `bn` channels, shared by `wm` x `wn` warps; `wk` such groups
/// share each buffer of k, `split` blocks of a cluster all of k; `stages` buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tile {
    pub fragments: i64,
    pub bn: i64,
    pub wm: i64,
    pub wn: i64,
    pub wk: i64,
    pub stages: i64,
    pub split: i64,
}

impl Tile {
    /// Of a point whose tile has so many rows.
    pub fn of(rows: i64, params: &Params) -> Self {
        let get = |name| param(params, name);
        let (bn, wm, wn, wk) = (get("bn"), get("wm"), get("wn"), get("wk"));
        Self { fragments: div_up(rows, 16), bn, wm, wn, wk, stages: get("stages"), split: get("split") }
    }

    /// The point, with what else the family names.
    pub fn params<const N: usize>(&self, others: [(&str, i64); N]) -> Params {
        let Self { bn, wm, wn, wk, stages, split, .. } = *self;
        let own = [("bn", bn), ("wm", wm), ("wn", wn), ("wk", wk), ("stages", stages), ("split", split)];
        own.into_iter().chain(others).map(|(name, value)| (name.to_owned(), value)).collect()
    }

    pub fn threads(&self) -> i64 {
        32 * self.wm * self.wn * self.wk
    }

    /// Fragments of a warp: down, and groups of four across.
    fn of_warp(&self) -> [i64; 2] {
        [div_up(self.fragments, self.wm), self.bn / self.wn / 32]
    }

    /// Sums of each output that are added at the end.
    fn parts(&self) -> i64 {
        self.split * self.wk
    }

    /// Shared memory for partial sums and so many biases.
    pub fn extra_bytes(&self, biases: usize) -> i64 {
        let [down, across] = self.of_warp();
        let sent = div_up(2 * down * across, self.split) * self.parts() * 32 * self.wm * self.wn * 32;
        self.bn * 4 * biases as i64 + if self.parts() > 1 { sent } else { 0 }
    }

    /// A grid along x of `split` blocks for each tile.
    pub fn launch(&self, tiles: GridAxis, shared_bytes: i64) -> Launch {
        let blocks = GridAxis { times: tiles.times * self.split, ..tiles };
        Launch { cluster: [self.split as u32, 1, 1], ..Launch::linear(blocks, self.threads() as u32, shared_bytes as u32) }
    }
}

/// What the blocks of a point do.
#[derive(Debug, Clone, Copy)]
pub struct Work {
    /// Blocks.
    pub grid: i64,
    /// Shared memory of one.
    pub shared: i64,
    /// Buffers of k that a block goes through, and steps of 32 bytes in one of a warp.
    pub rounds: i64,
    pub steps: i64,
    /// Bytes that a block reads of a and of b.
    pub a: i64,
    pub b: i64,
}

/// Blocks at once in clusters of `split` when `together` share a multiprocessor.
const fn slots(together: i64, split: i64) -> i64 {
    together * Gpu::H100.clustered[split as usize - 1]
}

/// About how many microseconds a point takes on an H100. The constants are fitted to measurements;
/// only the order of points matters.
fn microseconds(tile: &Tile, work: &Work) -> f64 {
    let [down, across] = tile.of_warp();
    let warps = tile.threads() / 32;
    let registers = (60 + 16 * down * across + 8 * down + 16 * across).min(255) * tile.threads();
    let Gpu { registers: all_registers, warps: all_warps, shared_of_block, shared_reserved, .. } = Gpu::H100;
    let fitting =
        (shared_of_block / (work.shared + shared_reserved)).min(all_registers / registers).min(all_warps / warps).max(1);
    let together = (1..fitting).find(|n| work.grid <= slots(*n, tile.split)).unwrap_or(fitting);
    let waves = div_up(work.grid, slots(together, tile.split)) as f64;
    let (rounds, steps) = (work.rounds as f64, work.steps as f64);
    let each = |n: i64| n as f64 * together as f64;

    // Cycles of what runs side by side: the tensor cores, shared memory, each warp's own chain of
    // steps.
    let products = down * across * 4;
    let multiply = rounds * steps * each(warps * products) * 7.8 / (warps * together).min(4) as f64;
    let shared = (rounds * steps * each(warps * (down * 512 + across * 1024)) + each(work.a + work.b)) / 111.0;
    let flight = if work.rounds >= tile.stages { 1014.0 / (tile.stages - 1) as f64 } else { 0.0 };
    let chain = rounds * flight.max(144.0 + steps * (products as f64 * 7.8).max(18.0));
    let mut cycles = [multiply, shared, chain];
    cycles.sort_by(|a, b| b.total_cmp(a));

    let mut time = 0.58 + waves * (cycles[0] + 0.38 * cycles[1]) / 1750.0 + (waves - 1.0) * 0.5;
    time += waves * div_up(2 * down * across, tile.parts()) as f64 * 0.22 * (tile.parts() as f64 / 4.0).max(1.0);
    if tile.split > 1 {
        time += 0.66 + waves * each(tile.fragments * 16 * tile.bn * 4 * tile.wk) / 23.0 / 1750.0;
    } else if tile.wk > 1 {
        time += 0.65;
    }
    let crowded = work.shared > ROOM || registers > all_registers / 2;
    time + if crowded { 0.39 } else { 0.0 }
}

/// The layouts of warps for a tile of `fragments` by `bn`, whose rows of k are `row` bytes: two to
/// eight warps of at most 128 sums a thread.
fn layouts(fragments: i64, bn: i64, row: i64) -> Vec<[i64; 3]> {
    let mut all = Vec::new();
    for wm in [1, 2, 4, 8] {
        for wn in [1, 2, 4] {
            for wk in [1, 2, 4] {
                let (down, across) = (div_up(fragments, wm), bn / 32 / wn);
                let idle = down * wm * 4 > fragments * 5;
                if bn % (32 * wn) == 0
                    && across <= 2
                    && down * across <= 8
                    && (2..=8).contains(&(wm * wn * wk))
                    && row >= 32 * wk
                    && !idle
                {
                    all.push([wm, wn, wk]);
                }
            }
        }
    }
    all
}

/// The points of one kind of tile: `rows` of it, `row` bytes of k in a row, `rounds` buffers of k
/// in all.
pub struct Space {
    pub machine: Gpu,
    pub channels: i64,
    pub rows: i64,
    pub row: i64,
    pub rounds: i64,
}

impl Space {
    /// Calls `visit` with each tile and what it costs. `work` is a tile's, given its rounds;
    /// `exact`: `wm` divides the rows.
    pub fn visit(&self, exact: bool, work: impl Fn(&Tile, i64) -> Work, mut visit: impl FnMut(f64, &Tile)) {
        let fragments = div_up(self.rows, 16);
        let limit = self.machine.shared_of_block;
        for bn in [32, 64, 128, 256] {
            if bn > div_up(self.channels, 32) * 32 || fragments * bn > 16 * 256 {
                continue;
            }
            for [wm, wn, wk] in layouts(fragments, bn, self.row) {
                if exact && fragments % wm != 0 {
                    continue;
                }
                for split in 1..=if self.machine.cluster > 1 { self.rounds.min(self.machine.cluster) } else { 1 } {
                    let rounds = div_up(self.rounds, split);
                    let tile = |stages| Tile { fragments, bn, wm, wn, wk, stages, split };
                    if split > 1 && work(&tile(2), rounds).grid > 270 {
                        break;
                    }
                    // Three buffers, as many as leave room for the next kernel, as many as there
                    // can be.
                    let mut known = Vec::new();
                    for (bytes, most) in [(limit, 3), (ROOM.min(limit), 10), (limit, 10)] {
                        let fitting = |stages: &i64| work(&tile(*stages), rounds).shared <= bytes;
                        if let Some(stages) = (2..=most.min((rounds + 1).max(2))).rev().find(fitting)
                            && !known.contains(&stages)
                        {
                            known.push(stages);
                            visit(microseconds(&tile(stages), &work(&tile(stages), rounds)), &tile(stages));
                        }
                    }
                }
            }
        }
    }
}

/// The cheapest points, few of them equal in the parameters `names`.
pub fn cheapest(mut points: Vec<(f64, Params)>, names: &[&str]) -> Vec<Params> {
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut counts = std::collections::HashMap::new();
    let new = |params: &Params| {
        let count: &mut usize = counts.entry(names.iter().map(|name| param(params, name)).collect::<Vec<_>>()).or_default();
        *count += 1;
        *count <= EQUAL_TILES
    };
    points.into_iter().map(|(_, params)| params).filter(new).take(POINTS).collect()
}
