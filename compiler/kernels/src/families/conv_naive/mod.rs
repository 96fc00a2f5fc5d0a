//! `conv_naive@1`: any convolution in any layouts; the reference for the others.

use aotfarm_protocol::Params;
use minijinja::context;

use super::shared::conv::{Conv, Extra, Pool, place};
use crate::family::{CandidateFamily, FamilyId, KernelSource, Unsupported};
use crate::headers::SIMD;
use crate::printer::Width;
use crate::render::{self, Template, Unit};
use crate::task::TuningTask;
use aotfarm_ir::Window;
use aotfarm_plan::spec::{Size, TensorSpec};

const TEMPLATE: Template = Template { name: "cpu/conv_naive.c.j2", text: include_str!("template.c.j2") };

const ALL: [Extra; 3] = [Extra::Pool, Extra::Gate, Extra::Mean];

/// Plain loops over raw weights, with sums in double. No parameters.
pub struct ConvNaive;

impl CandidateFamily for ConvNaive {
    fn id(&self) -> FamilyId {
        "conv_naive@1"
    }

    fn supports(&self, task: &TuningTask) -> Result<(), Unsupported> {
        let conv = Conv::of(task, &ALL)?;
        match (conv.input.shape.len(), conv.output.shape.len()) {
            (4, 4) => Ok(()),
            (a, b) => Err(Unsupported(format!("operands of rank {a} and {b}, not 4"))),
        }
    }

    fn enumerate(&self, task: &TuningTask) -> Vec<Params> {
        if self.supports(task).is_ok() { vec![Params::new()] } else { Vec::new() }
    }

    fn render(&self, task: &TuningTask, params: &Params) -> KernelSource {
        let conv = Conv::of(task, &ALL).unwrap_or_else(|e| panic!("conv_naive was asked for a task that it refuses: {e}"));
        let size = |tensor: &TensorSpec, axis: usize| render::size(tensor.shape[axis]);
        // Each bias is read from the raw weights: the n-th bias step's index is what `biases`
        // lists.
        let biases = conv.biases();
        let epilogue = conv.epilogue_c(
            Width::Scalar,
            "value",
            |n| format!("((const float *)c->weight[{}])[o]", biases[n]),
            |k| format!("((const float *)c->in[{k}])[at]"),
        );
        // What the convolution gives; residuals are of this shape.
        let mut result = conv.output.clone();
        if let Some(pool) = conv.pool {
            for (size, pooled) in result.shape[2..].iter_mut().zip(pool.size) {
                *size = Size::Const(pooled);
            }
        }
        let pool = conv.pool.map(|Pool { window: Window { kernel, stride, pad, dilation }, .. }| {
            context! { kernel, stride, dilation, pad => pad.map(|[before, _]| before), span => dilation[1] * (kernel[1] - 1) + 1 }
        });
        let context = context! {
            input => place(conv.input),
            output => place(conv.output),
            result => place(&result),
            residuals => !conv.residuals().is_empty(),
            gate => conv.gate,
            mean => conv.mean,
            in_channels => size(conv.input, 1),
            in_size => [size(conv.input, 2), size(conv.input, 3)],
            conv_size => [size(&result, 2), size(&result, 3)],
            out_size => [size(conv.output, 2), size(conv.output, 3)],
            pool,
            out_channels => conv.weight[0],
            group_in => conv.weight[1],
            groups => conv.groups,
            kernel => conv.window.kernel,
            stride => conv.window.stride,
            dilation => conv.window.dilation,
            pad => conv.window.pad.map(|[before, _]| before),
            batch => render::size(conv.batch),
            epilogue,
        };
        render::unit(&Unit { family: self.id(), template: TEMPLATE, headers: &[SIMD], task, params, packs: false }, context)
    }
}
