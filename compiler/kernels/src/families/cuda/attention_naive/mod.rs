//! `cuda_attention_naive@1`: attention in double; the reference for the other.

use aotfarm_protocol::{Launch, Params};

use super::shared::attention::Attention;
use super::shared::geometry::{NAIVE_THREADS, axis};
use crate::family::{CandidateFamily, FamilyId, KernelSource, Unsupported};
use crate::render::{self, Template, Unit};
use crate::task::TuningTask;

const TEMPLATE: Template = Template { name: "cuda/attention_naive.cu.j2", text: include_str!("template.cu.j2") };

/// A block for each row of query, in double. No parameters.
pub struct AttentionNaive;

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
        let unit = Unit { family: self.id(), template: TEMPLATE, headers: &[], task, params, packs: false };
        render::unit(&unit, attention.context())
    }

    fn launch(&self, task: &TuningTask, _: &Params) -> Option<Launch> {
        let Attention { spec, .. } = Attention::of(task).ok()?;
        let [batch, heads] = spec.lead;
        Some(Launch::linear(axis(1, 1, &[batch, heads, spec.rows[0]], 1), NAIVE_THREADS, 0))
    }
}
