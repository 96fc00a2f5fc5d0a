//! `cuda_matmul_naive@1`: any matrix product; the reference for the others.

use aotfarm_protocol::{Launch, Params};
use minijinja::context;

use super::shared::geometry::{NAIVE_THREADS, Product, axis, size};
use crate::family::{CandidateFamily, FamilyId, KernelSource, Unsupported};
use crate::headers::CUDA_MATH;
use crate::render::{self, Template, Unit};
use crate::task::TuningTask;

const TEMPLATE: Template = Template { name: "cuda/matmul_naive.cu.j2", text: include_str!("template.cu.j2") };

/// One thread for each element, sums in double. No parameters.
pub struct MatMulNaive;

impl CandidateFamily for MatMulNaive {
    fn id(&self) -> FamilyId {
        "cuda_matmul_naive@1"
    }

    fn supports(&self, task: &TuningTask) -> Result<(), Unsupported> {
        Product::of(task).map(|_| ())
    }

    fn enumerate(&self, task: &TuningTask) -> Vec<Params> {
        if self.supports(task).is_ok() { vec![Params::new()] } else { Vec::new() }
    }

    fn render(&self, task: &TuningTask, params: &Params) -> KernelSource {
        let product = Product::of(task).unwrap_or_else(|e| panic!("{}: {e}", self.id()));
        let unit = Unit { family: self.id(), template: TEMPLATE, headers: &[CUDA_MATH], task, params, packs: false };
        let batch: Vec<_> = product.batch.iter().map(|s| size(*s)).collect();
        let batch = if batch.is_empty() { "1".to_owned() } else { batch.join(" * ") };
        render::unit(&unit, context! { batch, ..product.context() })
    }

    fn launch(&self, task: &TuningTask, _: &Params) -> Option<Launch> {
        let product = Product::of(task).ok()?;
        let sizes = [product.batch.as_slice(), &[product.m, product.n]].concat();
        Some(Launch::linear(axis(1, 1, &sizes, i64::from(NAIVE_THREADS)), NAIVE_THREADS, 0))
    }
}
