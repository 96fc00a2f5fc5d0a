//! `rows_naive@1`: softmax and layer normalisation of contiguous rows in double.

use aotfarm_protocol::Params;

use super::shared::rows::{rows, variables};
use crate::family::{CandidateFamily, FamilyId, KernelSource, Unsupported};
use crate::render::{self, Template, Unit};
use crate::task::TuningTask;

const TEMPLATE: Template = Template { name: "cpu/rows_naive.c.j2", text: include_str!("template.c.j2") };

/// One element at a time, in double.
pub struct RowsNaive;

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
        let unit = Unit { family: self.id(), template: TEMPLATE, headers: &[], task, params, packs: false };
        render::unit(&unit, variables(task))
    }
}
