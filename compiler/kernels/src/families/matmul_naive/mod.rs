//! The plain matrix product.

use aotfarm_protocol::Params;
use minijinja::context;

use super::shared::matmul::MatMul;
use crate::family::{CandidateFamily, FamilyId, KernelSource, Unsupported};
use crate::headers::SIMD;
use crate::printer::Width;
use crate::render::{self, Template, Unit};
use crate::task::TuningTask;

const TEMPLATE: Template = Template { name: "cpu/matmul_naive.c.j2", text: include_str!("template.c.j2") };

/// Every element is a sum in double over raw operands.
pub struct MatMulNaive;

impl CandidateFamily for MatMulNaive {
    fn id(&self) -> FamilyId {
        "matmul_naive@1"
    }

    fn supports(&self, task: &TuningTask) -> Result<(), Unsupported> {
        MatMul::of(task).map(|_| ())
    }

    fn enumerate(&self, _: &TuningTask) -> Vec<Params> {
        vec![Params::new()]
    }

    fn render(&self, task: &TuningTask, params: &Params) -> KernelSource {
        let matmul = MatMul::of(task).unwrap_or_else(|e| panic!("{}: {e}", self.id()));
        let [m, n, k] = matmul.sizes_c();
        let unit = Unit { family: self.id(), template: TEMPLATE, headers: &[SIMD], task, params, packs: false };
        let variables = context! {
            batch => matmul.batch_c(),
            m,
            n,
            k,
            b => if matmul.spec.b_is_weight { "c->weight[0]" } else { "c->in[1]" },
            b_at => matmul.b_at("p", "n0 + j", "n", "k"),
            declarations => matmul.declarations(|k| format!("c->weight[{k}]")),
            epilogue => matmul.epilogue(Width::Scalar),
        };
        render::unit(&unit, variables)
    }
}
