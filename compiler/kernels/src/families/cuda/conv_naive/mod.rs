//! `cuda_conv_naive@1`: any convolution in any layouts; the reference for the others.

use aotfarm_protocol::{Launch, Params};
use minijinja::context;

use super::shared::geometry::{Conv, NAIVE_THREADS, axis};
use crate::family::{CandidateFamily, FamilyId, KernelSource, Unsupported};
use crate::headers::CUDA_MATH;
use crate::render::{self, Template, Unit};
use crate::task::TuningTask;
use aotfarm_ir::PoolOp;

const TEMPLATE: Template = Template { name: "cuda/conv_naive.cu.j2", text: include_str!("template.cu.j2") };

/// One thread for each output, sums in double. No parameters.
pub struct ConvNaive;

impl CandidateFamily for ConvNaive {
    fn id(&self) -> FamilyId {
        "cuda_conv_naive@1"
    }

    fn supports(&self, task: &TuningTask) -> Result<(), Unsupported> {
        let conv = Conv::with_branch(task)?;
        match conv.pool {
            Some((pool, _)) if pool.op != PoolOp::Max => Err(Unsupported("only a maximum is fused".into())),
            _ => Ok(()),
        }
    }

    fn enumerate(&self, task: &TuningTask) -> Vec<Params> {
        if self.supports(task).is_ok() { vec![Params::new()] } else { Vec::new() }
    }

    fn render(&self, task: &TuningTask, params: &Params) -> KernelSource {
        let conv = Conv::with_branch(task).unwrap_or_else(|e| panic!("conv_naive was asked for a task that it refuses: {e}"));
        let (pool, stored) = conv.pool.map_or((None, conv.output), |(pool, stored)| (Some(pool.window), stored));
        let context = context! {
            output => stored.place(),
            residual => conv.output.place(),
            stored => [stored.h, stored.w],
            pool => pool.map(|w| context! { kernel => w.kernel, stride => w.stride, dilation => w.dilation, pad => w.pad.map(|p| p[0]) }),
            ..conv.context()
        };
        render::unit(&Unit { family: self.id(), template: TEMPLATE, headers: &[CUDA_MATH], task, params, packs: false }, context)
    }

    fn launch(&self, task: &TuningTask, _: &Params) -> Option<Launch> {
        let conv = Conv::with_branch(task).ok()?;
        let stored = conv.pool.map_or(conv.output, |(_, stored)| stored);
        Some(Launch::linear(axis(1, stored.c * stored.h * stored.w, &[conv.batch], i64::from(NAIVE_THREADS)), NAIVE_THREADS, 0))
    }
}
