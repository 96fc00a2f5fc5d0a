//! Linear layers of few rows: raw weights are streamed once, each of their rows against all rows of
//! a.

use aotfarm_protocol::Params;
use minijinja::context;

use super::shared::matmul::MatMul;
use crate::family::{CandidateFamily, FamilyId, KernelSource, Unsupported};
use crate::headers::SIMD;
use crate::printer::Width;
use crate::render::{self, Template, Unit};
use crate::task::TuningTask;
use aotfarm_plan::spec::Size;

const TEMPLATE: Template = Template { name: "cpu/matmul_gemv.c.j2", text: include_str!("template.c.j2") };

/// Rows of a above which reading b once is no longer what takes the time.
const MOST_ROWS: i64 = 4;

/// The family: `mr` rows of a and `nb` rows of b at once, asking for b `pf` elements ahead.
pub struct MatMulGemv;

impl CandidateFamily for MatMulGemv {
    fn id(&self) -> FamilyId {
        "matmul_gemv@1"
    }

    fn supports(&self, task: &TuningTask) -> Result<(), Unsupported> {
        let matmul = MatMul::of(task)?;
        if !(matmul.spec.b_is_weight && matmul.spec.b_transposed && matmul.batch.is_empty()) {
            return Err(Unsupported("b is not a weight of shape [n, k]".into()));
        }
        if !matches!((matmul.n, matmul.k), (Size::Const(_), Size::Const(_))) {
            return Err(Unsupported("the size of b is not known".into()));
        }
        // Right for any number of rows, but of use for few.
        match matmul.m.at(&task.point) {
            m if m <= MOST_ROWS => Ok(()),
            m => Err(Unsupported(format!("{m} rows are more than {MOST_ROWS}"))),
        }
    }

    fn enumerate(&self, task: &TuningTask) -> Vec<Params> {
        let rows = MatMul::of(task).map_or(1, |matmul| matmul.m.at(&task.point));
        let mr = if rows >= 3 { 4 } else { rows.max(1) };
        let mut points = Vec::new();
        for prefetch in [128, 0] {
            for nb in if mr == 4 { [2, 3] } else { [4, 2] } {
                points.push(Params::from([("mr".to_owned(), mr), ("nb".to_owned(), nb), ("pf".to_owned(), prefetch)]));
            }
        }
        points
    }

    fn render(&self, task: &TuningTask, params: &Params) -> KernelSource {
        let matmul = MatMul::of(task).unwrap_or_else(|e| panic!("{}: {e}", self.id()));
        let [m, n, k] = matmul.sizes_c();
        let unit = Unit { family: self.id(), template: TEMPLATE, headers: &[SIMD], task, params, packs: false };
        let variables = context! {
            mr => params["mr"],
            nb => params["nb"],
            prefetch => params["pf"],
            m,
            n,
            k,
            declarations => matmul.declarations(|k| format!("c->weight[{k}]")),
            epilogue => matmul.epilogue(Width::Scalar),
        };
        render::unit(&unit, variables)
    }
}
