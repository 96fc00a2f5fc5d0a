//! `cuda_attention_flash@1`: attention in one pass on tensor cores; see `template.cu.j2`.

use aotfarm_protocol::{Launch, Params};
use minijinja::context;

use super::shared::attention::Attention;
use super::shared::geometry::axis;
use super::shared::mma;
use super::shared::tiles::pitch;
use crate::families::shared::points::{div_up, param, point};
use crate::family::{CandidateFamily, FamilyId, KernelSource, Unsupported};
use crate::headers::{CUDA_MMA, CUDA_TILES};
use crate::machine::Gpu;
use crate::render::{self, Template, Unit};
use crate::task::TuningTask;
use aotfarm_plan::spec::{AttentionSpec, Size, View};

const TEMPLATE: Template = Template { name: "cuda/attention_flash.cu.j2", text: include_str!("template.cu.j2") };

/// Blocks of `warps` with `mt` fragments of 16 rows of query each; `bk` keys in each of `stages`
/// buffers.
pub struct AttentionFlash;

/// Attention that tensor cores can do.
struct Flash<'a> {
    attention: Attention<'a>,
    bytes: i64,
}

impl<'a> Flash<'a> {
    fn of(task: &'a TuningTask) -> Result<Self, Unsupported> {
        let attention = Attention::of(task)?;
        if !attention.machine.copies_beside {
            return Err(Unsupported("cp.async is of sm_80".into()));
        }
        let AttentionSpec { widths, views, .. } = attention.spec;
        if widths.iter().any(|width| width % 8 != 0 || !(8..=256).contains(width)) {
            return Err(Unsupported("heads are not whole eights, or wider than 256".into()));
        }
        // Strides of what is written must be even: those of whole heads are.
        let even =
            |view: &View| view.strides[..3].iter().chain([&view.offset]).all(|s| !matches!(s, Size::Const(n) if n % 2 != 0));
        if views.iter().any(|view| view.strides[3] != Size::Const(1)) || !even(&views[3]) {
            return Err(Unsupported("rows are not contiguous".into()));
        }
        let dtype = attention.task.inputs[0].dtype;
        if attention.task.inputs[..3].iter().any(|input| input.dtype != dtype) {
            return Err(Unsupported("query, key and value are of different types".into()));
        }
        let bytes = mma::element_bytes(dtype, attention.task.math)?;
        Ok(Self { attention, bytes })
    }

    /// Steps of query times key, and fragments of value in pairs.
    fn steps(&self) -> [i64; 2] {
        let [width, values] = self.attention.spec.widths;
        [div_up(width, 32 / self.bytes), div_up(values, 16)]
    }

    /// Shared memory of a block.
    fn shared(&self, queries: i64, bk: i64, stages: i64) -> i64 {
        let [steps, pairs] = self.steps();
        let [of_key, of_value] = [pitch(steps * 32), pitch(pairs * 16 * self.bytes)];
        queries * of_key + stages * bk * (of_key + of_value)
    }

    fn points(&self, at: &[i64]) -> Vec<Params> {
        let AttentionSpec { lead, rows: [rows, keys], .. } = self.attention.spec;
        let heads: i64 = lead.iter().map(|size| size.at(at)).product();
        let (rows, keys) = (rows.at(at), keys.at(at));
        let [steps, pairs] = self.steps();
        let Gpu { processors, registers: all_registers, warps: all_warps, shared_of_block: limit, .. } = self.attention.machine;
        let mut points = Vec::new();
        for (warps, mt) in [(4, 1), (8, 1), (4, 2), (2, 1), (2, 2), (8, 2)] {
            for (bk, stages) in [(64, 2), (32, 2), (128, 2), (16, 2), (64, 3), (32, 3)] {
                let queries = 16 * mt * warps;
                let kept = if steps * mt <= 8 { 4 * steps * mt } else { 4 * mt };
                // Sums, scores, rows of query, and what else there is.
                let registers = mt * (8 * pairs + bk / 2) + kept + 48;
                let shared = self.shared(queries, bk, stages);
                if registers > 248 || shared > limit {
                    continue;
                }
                let together = (limit / shared).min(all_registers / (registers * 32 * warps)).clamp(1, all_warps / warps);
                let blocks = heads * div_up(rows, queries);
                let waves = div_up(blocks, processors * together);
                // Each fragment of key and value serves mt fragments of query; a block waits a
                // little at each buffer.
                let busy = (blocks.min(processors * together) as f64 / processors as f64).max(1.0);
                let work = (div_up(keys, bk) * bk * queries) as f64 * (1.0 + 0.5 / mt as f64) * busy;
                let waits = (div_up(keys, bk) * 512 + 4096) as f64;
                let cost = waves as f64 * (work + waits);
                points.push((cost, point([("warps", warps), ("mt", mt), ("bk", bk), ("stages", stages)])));
            }
        }
        mma::cheapest(points, &["warps", "mt", "bk"])
    }
}

impl CandidateFamily for AttentionFlash {
    fn id(&self) -> FamilyId {
        "cuda_attention_flash@1"
    }

    fn supports(&self, task: &TuningTask) -> Result<(), Unsupported> {
        Flash::of(task).map(|_| ())
    }

    fn enumerate(&self, task: &TuningTask) -> Vec<Params> {
        Flash::of(task).map_or_else(|_| Vec::new(), |flash| flash.points(&task.point))
    }

    fn render(&self, task: &TuningTask, params: &Params) -> KernelSource {
        let Flash { attention, .. } = Flash::of(task).unwrap_or_else(|e| panic!("{}: {e}", self.id()));
        let unit = Unit { family: self.id(), template: TEMPLATE, headers: &[CUDA_MMA, CUDA_TILES], task, params, packs: false };
        let [warps, mt, bk, stages] = ["warps", "mt", "bk", "stages"].map(|name| param(params, name));
        render::unit(&unit, context! { warps, mt, bk, stages, ..attention.context() })
    }

    fn launch(&self, task: &TuningTask, params: &Params) -> Option<Launch> {
        let flash = Flash::of(task).ok()?;
        let [warps, mt, bk, stages] = ["warps", "mt", "bk", "stages"].map(|name| param(params, name));
        let (spec, queries) = (flash.attention.spec, 16 * mt * warps);
        let shared = flash.shared(queries, bk, stages);
        let mut launch = Launch::linear(axis(1, 1, &spec.lead, 1), (32 * warps) as u32, shared as u32);
        launch.grid[1] = axis(1, 1, &spec.rows[..1], queries);
        Some(launch)
    }
}
