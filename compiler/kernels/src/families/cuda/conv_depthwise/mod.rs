//! `cuda_conv_depthwise@1`: one filter for each channel of NHWC; see `template.cu.j2`.

use aotfarm_protocol::{DType, Launch, Params};
use minijinja::context;

use super::shared::geometry::{Conv, axis};
use crate::families::shared::points::{div_up, param, point};
use crate::family::{CandidateFamily, FamilyId, KernelSource, Unsupported};
use crate::headers::CUDA_MATH;
use crate::render::{self, Template, Unit};
use crate::task::TuningTask;

const TEMPLATE: Template = Template { name: "cuda/conv_depthwise.cu.j2", text: include_str!("template.cu.j2") };
const THREADS: i64 = 128;

/// Depthwise convolution on the plain cores. A thread has `columns` neighbouring outputs, a block
/// `vectors` vectors of channels.
pub struct ConvDepthwise;

struct Depthwise {
    conv: Conv,
    /// Channels in memory.
    block: i64,
    bytes: i64,
}

impl Depthwise {
    fn of(task: &TuningTask) -> Result<Self, Unsupported> {
        let refuse = |why: &str| Err(Unsupported(why.to_owned()));
        let conv = Conv::of(task)?;
        if !conv.is_depthwise() {
            return refuse("not one filter for each channel");
        }
        if conv.pool.is_some() {
            return refuse("a pooling follows");
        }
        let (Some(block), Some(out_block)) = (conv.input.block, conv.output.block) else {
            return refuse("an operand is not NHWC");
        };
        if block != out_block || conv.input.dtype != conv.output.dtype {
            return refuse("input and output differ in type or padding");
        }
        let others = conv.epilogue.residuals.iter().any(|k| conv.input_types[*k] != conv.input_types[0]);
        if others {
            return refuse("a residual differs in type");
        }
        let bytes = if conv.input.dtype == DType::F32 { 4 } else { 2 };
        Ok(Self { conv, block, bytes })
    }

    /// Vectors of 16 bytes of a pixel.
    fn vectors(&self) -> i64 {
        self.block * self.bytes / 16
    }
}

impl CandidateFamily for ConvDepthwise {
    fn id(&self) -> FamilyId {
        "cuda_conv_depthwise@1"
    }

    fn supports(&self, task: &TuningTask) -> Result<(), Unsupported> {
        let depthwise = Depthwise::of(task)?;
        if self.enumerate(task).is_empty() {
            return Err(Unsupported(format!("weights of {:?} do not fit in shared memory", depthwise.conv.weight)));
        }
        Ok(())
    }

    fn enumerate(&self, task: &TuningTask) -> Vec<Params> {
        let Ok(depthwise) = Depthwise::of(task) else { return Vec::new() };
        let [_, kh, kw, _] = depthwise.conv.weight;
        // Few pixels need many threads, many need fewer loads.
        let output = depthwise.conv.output;
        let little = depthwise.conv.batch.at(&task.point) * output.h * output.w * depthwise.vectors() < 256 * 1024;
        let columns = if little { [1, 4, 2, 7] } else { [7, 4, 2, 1] };
        let mut points = Vec::new();
        for columns in columns {
            for vectors in [4, 8, 16, 32] {
                // The weights of a block lie in shared memory, as floats.
                let fits = kh * kw * vectors * (16 / depthwise.bytes) * 4 <= depthwise.conv.machine.shared_unasked;
                if fits && columns <= output.w.max(1) && (vectors == 4 || vectors < 2 * depthwise.vectors()) {
                    points.push(point([("columns", columns), ("vectors", vectors)]));
                }
            }
        }
        points
    }

    fn render(&self, task: &TuningTask, params: &Params) -> KernelSource {
        let depthwise =
            Depthwise::of(task).unwrap_or_else(|e| panic!("conv_depthwise was asked for a task that it refuses: {e}"));
        let unit = Unit { family: self.id(), template: TEMPLATE, headers: &[CUDA_MATH], task, params, packs: false };
        let context = context! {
            columns => param(params, "columns"),
            vectors => param(params, "vectors"),
            threads => THREADS,
            bytes => depthwise.bytes,
            ..depthwise.conv.context()
        };
        render::unit(&unit, context)
    }

    fn launch(&self, task: &TuningTask, params: &Params) -> Option<Launch> {
        let depthwise = Depthwise::of(task).ok()?;
        let vectors = param(params, "vectors");
        let output = depthwise.conv.output;
        let work = output.h * div_up(output.w, param(params, "columns"));
        let parts = div_up(depthwise.vectors(), vectors);
        Some(Launch::linear(axis(parts, work, &[depthwise.conv.batch], THREADS / vectors), THREADS as u32, 0))
    }
}
