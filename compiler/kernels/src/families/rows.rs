//! Softmax and layer normalisation of contiguous rows: `rows_naive@1` in double, `rows_vec@1` in vectors.

use aotfarm_protocol::{DType, Params, Target};
use minijinja::{Value, context};

use crate::printer::SIMD;
use crate::render::{self, Template, Unit, product, size};
use crate::task::TuningTask;
use crate::{CandidateFamily, FamilyId, KernelSource, Needs, Unsupported};
use aotfarm_plan::spec::{KernelKind, Layout, RowSpec, TensorSpec};

const NAIVE: Template = Template { name: "cpu/rows_naive.c.j2", text: include_str!("../../cpu/rows_naive.c.j2") };
const VECTORS: Template = Template { name: "cpu/rows_vec.c.j2", text: include_str!("../../cpu/rows_vec.c.j2") };

/// One element at a time, in double.
pub struct RowsNaive;

/// Vectors along the row; `u` of them are summed side by side.
pub struct RowsVec;

fn rows(task: &TuningTask) -> Result<(&RowSpec, &TensorSpec), Unsupported> {
    let KernelKind::Rows(spec) = &task.spec.kind else { return Err(Unsupported("not a normalisation of rows".into())) };
    let Target::Cpu(_) = task.target else { return Err(Unsupported(format!("no C code for {}", task.target))) };
    let mut operands = task.spec.inputs.iter().chain(&task.spec.weights).chain(&task.spec.outputs);
    if operands.any(|t| t.dtype != DType::F32 || t.layout != Layout::Plain) {
        return Err(Unsupported("an operand is not a row-major f32 tensor".into()));
    }
    match task.spec.inputs.first() {
        Some(x) if !x.shape.is_empty() => Ok((spec, x)),
        _ => Err(Unsupported("there are no rows".into())),
    }
}

/// Variables of both templates.
fn variables(task: &TuningTask) -> Value {
    let (spec, x) = rows(task).unwrap_or_else(|e| panic!("{e}"));
    let (k, leading) = x.shape.split_last().unwrap_or_else(|| panic!("a row has a length"));
    let (softmax, eps, affine) = match spec {
        RowSpec::Softmax => (true, 0.0, false),
        RowSpec::LayerNorm { eps, affine } => (false, *eps, *affine),
    };
    context! {
        k => size(*k),
        rows => product(leading),
        softmax,
        mask => softmax && task.spec.inputs.len() > 1,
        affine,
        eps => format!("{eps:e}"),
    }
}

impl CandidateFamily for RowsNaive {
    fn id(&self) -> FamilyId {
        "rows_naive@1"
    }

    fn supports(&self, task: &TuningTask) -> Result<(), Unsupported> {
        rows(task).map(|_| ())
    }

    fn enumerate(&self, _: &TuningTask) -> Vec<Params> {
        vec![Params::new()]
    }

    fn render(&self, task: &TuningTask, params: &Params) -> KernelSource {
        let unit = Unit { family: self.id(), template: NAIVE, headers: &[], task, params, packs: false };
        render::unit(&unit, variables(task))
    }

    fn tune(&self, _: &TuningTask, _: &Params) -> Vec<i64> {
        Vec::new()
    }

    fn needs(&self, _: &TuningTask, _: &Params, _: &[i64]) -> Needs {
        Needs { packed: 0, shared: 0, thread: 0 }
    }
}

impl CandidateFamily for RowsVec {
    fn id(&self) -> FamilyId {
        "rows_vec@1"
    }

    fn supports(&self, task: &TuningTask) -> Result<(), Unsupported> {
        rows(task).map(|_| ())
    }

    fn enumerate(&self, _: &TuningTask) -> Vec<Params> {
        [2, 1, 4].into_iter().map(|unroll| Params::from([("u".to_owned(), unroll)])).collect()
    }

    fn render(&self, task: &TuningTask, params: &Params) -> KernelSource {
        let unit = Unit { family: self.id(), template: VECTORS, headers: &[SIMD], task, params, packs: false };
        render::unit(&unit, context! { unroll => params["u"], ..variables(task) })
    }

    fn tune(&self, _: &TuningTask, _: &Params) -> Vec<i64> {
        Vec::new()
    }

    fn needs(&self, _: &TuningTask, _: &Params, _: &[i64]) -> Needs {
        Needs { packed: 0, shared: 0, thread: 0 }
    }
}
