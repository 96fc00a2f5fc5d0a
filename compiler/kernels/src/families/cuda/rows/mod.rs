//! `cuda_rows@1`: softmax and layer normalisation of contiguous rows, with many threads for a row.

use aotfarm_protocol::{Launch, Params};
use minijinja::context;

use super::shared::geometry::axis;
use super::shared::rows::Rowwise;
use crate::family::{CandidateFamily, FamilyId, KernelSource, Unsupported};
use crate::headers::{CUDA_MATH, CUDA_TYPES};
use crate::render::{self, Template, Unit};
use crate::task::TuningTask;
use aotfarm_plan::spec::Size;

const TEMPLATE: Template = Template { name: "cuda/rows.cu.j2", text: include_str!("template.cu.j2") };

/// Rows that fill a GPU with a warp for each.
const MANY: i64 = 2048;
/// The most elements of a row that a thread keeps in registers.
const KEPT: i64 = 32;

/// `lanes` of the `threads` of a block for a row, each with groups of `v` elements, of which it
/// keeps up to `kept` in registers.
pub struct Rows;

impl CandidateFamily for Rows {
    fn id(&self) -> FamilyId {
        "cuda_rows@1"
    }

    fn supports(&self, task: &TuningTask) -> Result<(), Unsupported> {
        Rowwise::of(task).map(|_| ())
    }

    fn enumerate(&self, task: &TuningTask) -> Vec<Params> {
        let Ok(rows) = Rowwise::of(task) else { return Vec::new() };
        let k = rows.k.at(&task.point);
        let operands = task.spec.inputs.iter().chain(&task.spec.outputs);
        let whole = operands.map(|t| 16 / t.dtype.size() as i64).max().unwrap_or(1);
        let fits = |v: &i64| *v == 1 || matches!(rows.k, Size::Const(n) if n % v == 0);
        let count: i64 = rows.leading.iter().map(|s| s.at(&task.point)).product();
        let mut points = Vec::new();
        for v in [8, 4, 2, 1].into_iter().filter(|v| *v <= whole).filter(fits) {
            for lanes in [32, 128, 256, 512, 1024].into_iter().filter(|lanes| *lanes == 32 || lanes * v < 2 * k) {
                let blocks: &[i64] = if lanes > 32 { &[lanes] } else { &[256, 128, 512] };
                points.extend(blocks.iter().enumerate().map(|(place, threads)| (place, lanes, *threads, v)));
            }
        }
        // A few elements for each thread and no thread idle; more of them if the rows alone keep
        // the GPU busy.
        let few = if count > MANY { 24 } else { 8 };
        let distance = |lanes: i64, v: i64| (k / lanes - few).abs() + if lanes * v > k { few } else { 0 };
        points.sort_by_key(|&(place, lanes, _, v)| (place, distance(lanes, v), -v));
        let params = |(_, lanes, threads, v): (usize, i64, i64, i64)| {
            // Sizes that are only known at run time are mostly like the one that is tuned for.
            let groups = (k + lanes * v - 1) / (lanes * v);
            let kept = if groups * v <= KEPT { groups } else { 0 };
            [("kept", kept), ("lanes", lanes), ("threads", threads), ("v", v)]
                .map(|(name, value)| (name.to_owned(), value))
                .into()
        };
        points.into_iter().map(params).collect()
    }

    fn render(&self, task: &TuningTask, params: &Params) -> KernelSource {
        let rows = Rowwise::of(task).unwrap_or_else(|e| panic!("{}: {e}", self.id()));
        let (lanes, v) = (params["lanes"], params["v"]);
        let unit = Unit { family: self.id(), template: TEMPLATE, headers: &[CUDA_MATH, CUDA_TYPES], task, params, packs: false };
        let own = context! { lanes, vector => v, threads => params["threads"], kept => params["kept"] };
        render::unit(&unit, context! { ..own, ..rows.context(task) })
    }

    fn launch(&self, task: &TuningTask, params: &Params) -> Option<Launch> {
        let rows = Rowwise::of(task).ok()?;
        let threads = params["threads"];
        Some(Launch::linear(axis(1, 1, rows.leading, threads / params["lanes"]), threads as u32, 0))
    }
}
