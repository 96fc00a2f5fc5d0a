//! `cuda_pool_image@1`: pooling of NHWC in vectors of 16 bytes; see `template.cu.j2`.

use aotfarm_protocol::{DType, Launch, Params};
use minijinja::context;

use super::shared::geometry::{axis, element, size};
use super::shared::pool::pool;
use crate::families::shared::points::{div_up, param, point};
use crate::family::{CandidateFamily, FamilyId, KernelSource, Unsupported};
use crate::render::{self, Template, Unit};
use crate::task::TuningTask;
use aotfarm_ir::{PoolOp, Window};
use aotfarm_plan::spec::{Layout, PoolSpec, Size, TensorSpec};

const TEMPLATE: Template = Template { name: "cuda/pool_image.cu.j2", text: include_str!("template.cu.j2") };
const THREADS: i64 = 128;

/// A thread has `columns` neighbouring outputs; `parts` threads share the rows of a window.
pub struct PoolImage;

struct Image<'a> {
    pool: &'a PoolSpec,
    batch: Size,
    dtype: DType,
    /// Channels in memory.
    block: i64,
    /// Heights and widths.
    input: [i64; 2],
    output: [i64; 2],
}

impl<'a> Image<'a> {
    fn of(task: &'a TuningTask) -> Result<Self, Unsupported> {
        let (pool, input, output) = pool(task)?;
        let nhwc = |tensor: &TensorSpec| match (&tensor.shape[..], &tensor.layout) {
            ([_, Size::Const(_), Size::Const(h), Size::Const(w)], Layout::Image { block, .. }) => {
                Ok((i64::from(*block), [*h, *w]))
            }
            _ => Err(Unsupported("an operand is not NHWC of constant size".into())),
        };
        let ((block, input_size), (out_block, output_size)) = (nhwc(input)?, nhwc(output)?);
        if input.dtype != output.dtype || block != out_block {
            return Err(Unsupported("the operands differ in type or padding".into()));
        }
        let image = Self { pool, batch: output.shape[0], dtype: input.dtype, block, input: input_size, output: output_size };
        // The result of an empty window (infinite or NaN) must not get into the lanes past the last
        // channel.
        if (0..2).any(|axis| image.has_empty_window(axis)) {
            return Err(Unsupported("a window lies outside the picture".into()));
        }
        Ok(image)
    }

    fn has_empty_window(&self, axis: usize) -> bool {
        let Window { kernel, stride, pad, dilation } = self.pool.window;
        (0..self.output[axis]).any(|o| {
            let start = o * stride[axis] - pad[axis][0];
            !(0..kernel[axis]).any(|i| (0..self.input[axis]).contains(&(start + i * dilation[axis])))
        })
    }

    fn bytes(&self) -> i64 {
        if self.dtype == DType::F32 { 4 } else { 2 }
    }

    /// Vectors of 16 bytes of a pixel.
    fn vectors(&self) -> i64 {
        self.block * self.bytes() / 16
    }
}

impl CandidateFamily for PoolImage {
    fn id(&self) -> FamilyId {
        "cuda_pool_image@1"
    }

    fn supports(&self, task: &TuningTask) -> Result<(), Unsupported> {
        Image::of(task).map(|_| ())
    }

    fn enumerate(&self, task: &TuningTask) -> Vec<Params> {
        let Ok(image) = Image::of(task) else { return Vec::new() };
        let [rows, width] = [image.pool.window.kernel[0], image.output[1]];
        // Little work needs more threads for a window, much work fewer loads.
        let little = image.batch.at(&task.point) * image.output[0] * width * image.vectors() < 64 * 1024;
        let points: [(i64, i64); 6] = [(1, 1), (2, 1), (1, 2), (4, 1), (1, 4), (1, 8)];
        let mut all: Vec<_> = points
            .into_iter()
            .filter(|(columns, parts)| (*columns == 1 || *columns <= width) && (*parts == 1 || *parts <= rows))
            .map(|(columns, parts)| point([("columns", columns), ("parts", parts)]))
            .collect();
        if little {
            all.sort_by_key(|p| -param(p, "parts"));
        }
        all
    }

    fn render(&self, task: &TuningTask, params: &Params) -> KernelSource {
        let image = Image::of(task).unwrap_or_else(|e| panic!("{}: {e}", self.id()));
        let Window { kernel, stride, pad, dilation } = image.pool.window;
        let unit = Unit { family: self.id(), template: TEMPLATE, headers: &[], task, params, packs: false };
        let context = context! {
            max => image.pool.op == PoolOp::Max,
            include_pad => image.pool.op == PoolOp::Avg { count_include_pad: true },
            columns => param(params, "columns"),
            parts => param(params, "parts"),
            threads => THREADS,
            t => element(image.dtype).unwrap_or("float"),
            bytes => image.bytes(),
            batch => size(image.batch),
            cp => image.block,
            h => image.input[0], w => image.input[1],
            oh => image.output[0], ow => image.output[1],
            kh => kernel[0], kw => kernel[1],
            sh => stride[0], sw => stride[1],
            dh => dilation[0], dw => dilation[1],
            ph => pad[0][0], pw => pad[1][0],
        };
        render::unit(&unit, context)
    }

    fn launch(&self, task: &TuningTask, params: &Params) -> Option<Launch> {
        let image = Image::of(task).ok()?;
        let work = image.output[0] * div_up(image.output[1], param(params, "columns")) * image.vectors();
        let blocks = axis(1, work, &[image.batch], THREADS / param(params, "parts"));
        Some(Launch::linear(blocks, THREADS as u32, 0))
    }
}
