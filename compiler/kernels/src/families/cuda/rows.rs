//! Softmax and layer normalisation of contiguous rows: `cuda_rows_naive@1` in double, `cuda_rows@1` with many threads for a row.

use aotfarm_protocol::{Launch, Params};
use minijinja::{Value, context};

use super::geometry::{MATH, axis, element, size, sm};
use crate::render::{self, Template, Unit};
use crate::scalar::CUDA_TYPES;
use crate::task::TuningTask;
use crate::{CandidateFamily, FamilyId, KernelSource, Unsupported};
use aotfarm_plan::spec::{KernelKind, Layout, RowSpec, Size, TensorSpec};

const NAIVE: Template = Template { name: "cuda/rows_naive.cu.j2", text: include_str!("../../../cuda/rows_naive.cu.j2") };
const ROWS: Template = Template { name: "cuda/rows.cu.j2", text: include_str!("../../../cuda/rows.cu.j2") };

/// Threads of a block of the naive kernel.
const NAIVE_THREADS: u32 = 32;
/// Rows that fill a GPU with a warp for each.
const MANY: i64 = 2048;
/// The most elements of a row that a thread keeps in registers.
const KEPT: i64 = 32;

/// One thread for each row, in double. No parameters.
pub(crate) struct RowsNaive;

/// `lanes` of the `threads` of a block for a row, each with groups of `v` elements, of which it keeps up to `kept` in registers.
pub(crate) struct Rows;

/// The normalisation that a task is.
struct Rowwise<'a> {
    spec: &'a RowSpec,
    x: &'a TensorSpec,
    leading: &'a [Size],
    k: Size,
}

impl<'a> Rowwise<'a> {
    fn of(task: &'a TuningTask) -> Result<Self, Unsupported> {
        let KernelKind::Rows(spec) = &task.spec.kind else { return Err(Unsupported("not a normalisation of rows".into())) };
        sm(task)?;
        for tensor in task.spec.inputs.iter().chain(&task.spec.weights).chain(&task.spec.outputs) {
            element(tensor.dtype)?;
            if tensor.layout != Layout::Plain {
                return Err(Unsupported("an operand is not row-major".into()));
            }
        }
        let x = task.spec.inputs.first().ok_or_else(|| Unsupported("there is no input".into()))?;
        let (k, leading) = x.shape.split_last().ok_or_else(|| Unsupported("there are no rows".into()))?;
        Ok(Self { spec, x, leading, k: *k })
    }

    /// Variables of both templates. The types of operands that there are none of are empty.
    fn context(&self, task: &TuningTask) -> Value {
        let spec = &task.spec;
        let (softmax, eps) = match self.spec {
            RowSpec::Softmax => (true, 0.0),
            RowSpec::LayerNorm { eps, .. } => (false, *eps),
        };
        let affine = matches!(self.spec, RowSpec::LayerNorm { affine: true, .. });
        let name = |tensor: Option<&TensorSpec>| tensor.and_then(|t| element(t.dtype).ok()).unwrap_or_default();
        let rows: Vec<_> = self.leading.iter().map(|s| size(*s)).collect();
        context! {
            k => size(self.k),
            rows => if rows.is_empty() { "1".to_owned() } else { rows.join(" * ") },
            softmax,
            eps => format!("{eps:e}"),
            in_t => name(Some(self.x)),
            out_t => name(spec.outputs.first()),
            mask_t => name(spec.inputs.get(1).filter(|_| softmax)),
            scale_t => name(spec.weights.first().filter(|_| affine)),
            shift_t => name(spec.weights.get(1).filter(|_| affine)),
        }
    }
}

impl CandidateFamily for RowsNaive {
    fn id(&self) -> FamilyId {
        "cuda_rows_naive@1"
    }

    fn supports(&self, task: &TuningTask) -> Result<(), Unsupported> {
        Rowwise::of(task).map(|_| ())
    }

    fn enumerate(&self, _: &TuningTask) -> Vec<Params> {
        vec![Params::new()]
    }

    fn render(&self, task: &TuningTask, params: &Params) -> KernelSource {
        let rows = Rowwise::of(task).unwrap_or_else(|e| panic!("{}: {e}", self.id()));
        let unit = Unit { family: self.id(), template: NAIVE, headers: &[], task, params, packs: false };
        render::unit(&unit, rows.context(task))
    }

    fn launch(&self, task: &TuningTask, _: &Params) -> Option<Launch> {
        let rows = Rowwise::of(task).ok()?;
        Some(Launch::linear(axis(1, 1, rows.leading, i64::from(NAIVE_THREADS)), NAIVE_THREADS, 0))
    }
}

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
        // A few elements for each thread and no thread idle; more of them if the rows alone keep the GPU busy.
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
        let unit = Unit { family: self.id(), template: ROWS, headers: &[MATH, CUDA_TYPES], task, params, packs: false };
        let own = context! { lanes, vector => v, threads => params["threads"], kept => params["kept"] };
        render::unit(&unit, context! { ..own, ..rows.context(task) })
    }

    fn launch(&self, task: &TuningTask, params: &Params) -> Option<Launch> {
        let rows = Rowwise::of(task).ok()?;
        let threads = params["threads"];
        Some(Launch::linear(axis(1, 1, rows.leading, threads / params["lanes"]), threads as u32, 0))
    }
}
