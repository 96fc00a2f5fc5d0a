//! `pool_naive@1`: max and average pooling for any layout.

use aotfarm_protocol::Params;
use minijinja::context;

use super::shared::pool::{Pool, place};
use crate::family::{CandidateFamily, FamilyId, KernelSource, Unsupported};
use crate::render::{self, Template, Unit};
use crate::task::TuningTask;

const TEMPLATE: Template = Template { name: "cpu/pool_naive.c.j2", text: include_str!("template.c.j2") };

/// Every element is a loop over its window.
pub struct PoolNaive;

impl CandidateFamily for PoolNaive {
    fn id(&self) -> FamilyId {
        "pool_naive@1"
    }

    fn supports(&self, task: &TuningTask) -> Result<(), Unsupported> {
        Pool::of(task).map(|_| ())
    }

    fn enumerate(&self, _: &TuningTask) -> Vec<Params> {
        vec![Params::new()]
    }

    fn render(&self, task: &TuningTask, params: &Params) -> KernelSource {
        let pool = Pool::of(task).unwrap_or_else(|e| panic!("{}: {e}", self.id()));
        let unit = Unit { family: self.id(), template: TEMPLATE, headers: &[], task, params, packs: false };
        render::unit(&unit, context! { in_at => place(pool.input), out_at => place(pool.output), ..pool.variables() })
    }
}
