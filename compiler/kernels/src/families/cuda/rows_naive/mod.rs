//! `cuda_rows_naive@1`: softmax and layer normalisation of contiguous rows in double.

use aotfarm_protocol::{Launch, Params};

use super::shared::geometry::axis;
use super::shared::rows::Rowwise;
use crate::family::{CandidateFamily, FamilyId, KernelSource, Unsupported};
use crate::render::{self, Template, Unit};
use crate::task::TuningTask;

const TEMPLATE: Template = Template { name: "cuda/rows_naive.cu.j2", text: include_str!("template.cu.j2") };

/// Threads of a block: few, as there are few rows.
const THREADS: u32 = 32;

/// One thread for each row, in double. No parameters.
pub struct RowsNaive;

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
        let unit = Unit { family: self.id(), template: TEMPLATE, headers: &[], task, params, packs: false };
        render::unit(&unit, rows.context(task))
    }

    fn launch(&self, task: &TuningTask, _: &Params) -> Option<Launch> {
        let rows = Rowwise::of(task).ok()?;
        Some(Launch::linear(axis(1, 1, rows.leading, i64::from(THREADS)), THREADS, 0))
    }
}
