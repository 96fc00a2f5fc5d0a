//! `rows_vec@1`: softmax and layer normalisation of contiguous rows in vectors.

use aotfarm_protocol::Params;
use minijinja::context;

use super::shared::rows::{rows, variables};
use crate::family::{CandidateFamily, FamilyId, KernelSource, Unsupported};
use crate::headers::SIMD;
use crate::render::{self, Template, Unit};
use crate::task::TuningTask;

const TEMPLATE: Template = Template { name: "cpu/rows_vec.c.j2", text: include_str!("template.c.j2") };

/// Vectors along the row; `u` of them are summed side by side.
pub struct RowsVec;

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
        let unit = Unit { family: self.id(), template: TEMPLATE, headers: &[SIMD], task, params, packs: false };
        render::unit(&unit, context! { unroll => params["u"], ..variables(task) })
    }
}
