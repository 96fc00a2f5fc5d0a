//! Attention: `cuda_attention_naive@1` in double, `cuda_attention_flash@1` in one pass on tensor cores; see
//! `kernels/cuda/attention_flash.cu.j2`.

use aotfarm_protocol::{DType, Launch, Params};
use minijinja::{Value, context};

use super::bmm_mma::{TILES, pitch};
use super::geometry::{axis, element, size, sm};
use super::mma::{self, shared_limit};
use crate::families::conv_geometry::{div_up, param, point};
use crate::render::{self, Template, Unit};
use crate::task::TuningTask;
use crate::{CandidateFamily, FamilyId, KernelSource, Unsupported};
use aotfarm_plan::spec::{AttentionSpec, KernelKind, KernelSpec, Layout, Size, View};

const NAIVE: Template =
    Template { name: "cuda/attention_naive.cu.j2", text: include_str!("../../../cuda/attention_naive.cu.j2") };
const FLASH: Template =
    Template { name: "cuda/attention_flash.cu.j2", text: include_str!("../../../cuda/attention_flash.cu.j2") };

/// Threads of a block of the naive kernel.
const NAIVE_THREADS: u32 = 128;
/// Multiprocessors of an H100.
const PROCESSORS: i64 = 132;

/// A block for each row of query, in double. No parameters.
pub(crate) struct AttentionNaive;

/// Blocks of `warps` with `mt` fragments of 16 rows of query each; `bk` keys in each of `stages` buffers.
pub(crate) struct AttentionFlash;

/// The attention that a task is.
struct Attention<'a> {
    spec: &'a AttentionSpec,
    task: &'a KernelSpec,
    sm: u32,
}

impl<'a> Attention<'a> {
    fn of(task: &'a TuningTask) -> Result<Self, Unsupported> {
        let KernelKind::Attention(spec) = &task.spec.kind else { return Err(Unsupported("not attention".into())) };
        let sm = sm(task)?;
        let task = &task.spec;
        if task.inputs.len() < 3 || task.inputs.iter().chain(&task.outputs).any(|tensor| tensor.layout != Layout::Plain) {
            return Err(Unsupported("an operand is missing or not row-major".into()));
        }
        for tensor in task.inputs[..3].iter().chain(&task.outputs) {
            element(tensor.dtype)?;
        }
        let attention = Self { spec, task, sm };
        attention.mask_type()?;
        Ok(attention)
    }

    /// The C++ type of the mask, if there is one.
    fn mask_type(&self) -> Result<Option<&'static str>, Unsupported> {
        let Some(mask) = self.spec.mask else { return Ok(None) };
        let tensor = if mask.is_weight { self.task.weights.first() } else { self.task.inputs.get(3) };
        match tensor.map(|tensor| tensor.dtype) {
            None => Err(Unsupported("the mask is missing".into())),
            Some(DType::Bool) => Ok(Some("bool")),
            Some(dtype) => element(dtype).map(Some),
        }
    }

    /// What both templates take.
    fn context(&self) -> Value {
        let AttentionSpec { lead: [_, heads], rows: [rows, keys], widths: [width, values], scale, causal, views, mask } =
            self.spec;
        let view = |name: &str, view: &View| {
            let [batch, head, row, column] = view.strides.map(size);
            context! { type => name, offset => size(view.offset), batch, head, row, column }
        };
        let name = |dtype: DType| element(dtype).unwrap_or("float");
        let [q, k, v] = [0, 1, 2].map(|k| view(name(self.task.inputs[k].dtype), &views[k]));
        let mask = mask.map(|mask| {
            let operand = if mask.is_weight { "AOTK_WEIGHT(0)" } else { "AOTK_IN(3)" };
            context! { operand, ..view(self.mask_type().ok().flatten().unwrap_or("float"), &mask.view) }
        });
        context! {
            heads => size(*heads), rows => size(*rows), keys => size(*keys), width, values, causal, q, k, v, mask,
            out => view(name(self.task.outputs[0].dtype), &views[3]),
            scale => format!("{scale:?}"),
            scale_log2 => format!("{:?}f", (scale * std::f64::consts::LOG2_E) as f32),
        }
    }
}

/// Attention that tensor cores can do.
struct Flash<'a> {
    attention: Attention<'a>,
    bytes: i64,
}

impl<'a> Flash<'a> {
    fn of(task: &'a TuningTask) -> Result<Self, Unsupported> {
        let attention = Attention::of(task)?;
        if attention.sm < 80 {
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
        let limit = shared_limit(self.attention.sm);
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
                let together = (limit / shared).min(65536 / (registers * 32 * warps)).clamp(1, 64 / warps);
                let blocks = heads * div_up(rows, queries);
                let waves = div_up(blocks, PROCESSORS * together);
                // Each fragment of key and value serves mt fragments of query; a block waits a little at each buffer.
                let busy = (blocks.min(PROCESSORS * together) as f64 / PROCESSORS as f64).max(1.0);
                let work = (div_up(keys, bk) * bk * queries) as f64 * (1.0 + 0.5 / mt as f64) * busy;
                let waits = (div_up(keys, bk) * 512 + 4096) as f64;
                let cost = waves as f64 * (work + waits);
                points.push((cost, point([("warps", warps), ("mt", mt), ("bk", bk), ("stages", stages)])));
            }
        }
        mma::cheapest(points, &["warps", "mt", "bk"])
    }
}

impl CandidateFamily for AttentionNaive {
    fn id(&self) -> FamilyId {
        "cuda_attention_naive@1"
    }

    fn supports(&self, task: &TuningTask) -> Result<(), Unsupported> {
        Attention::of(task).map(|_| ())
    }

    fn enumerate(&self, _: &TuningTask) -> Vec<Params> {
        vec![Params::new()]
    }

    fn render(&self, task: &TuningTask, params: &Params) -> KernelSource {
        let attention = Attention::of(task).unwrap_or_else(|e| panic!("{}: {e}", self.id()));
        let unit = Unit { family: self.id(), template: NAIVE, headers: &[], task, params, packs: false };
        render::unit(&unit, attention.context())
    }

    fn launch(&self, task: &TuningTask, _: &Params) -> Option<Launch> {
        let Attention { spec, .. } = Attention::of(task).ok()?;
        let [batch, heads] = spec.lead;
        Some(Launch::linear(axis(1, 1, &[batch, heads, spec.rows[0]], 1), NAIVE_THREADS, 0))
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
        let unit = Unit { family: self.id(), template: FLASH, headers: &[mma::HEADER, TILES], task, params, packs: false };
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
