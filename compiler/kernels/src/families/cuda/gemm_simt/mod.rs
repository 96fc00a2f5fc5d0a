//! `cuda_conv_simt@1` and `cuda_matmul_simt@1`: products of f32 in full, for which there are no
//! tensor cores; see `template.cu.j2`.

use aotfarm_protocol::{DType, Launch, Params};
use minijinja::{Value, context};

use super::shared::geometry::{Conv, Product, axis, size};
use crate::families::shared::points::{div_up, param, point};
use crate::family::{CandidateFamily, FamilyId, KernelSource, Unsupported};
use crate::headers::CUDA_MATH;
use crate::machine::Gpu;
use crate::render::{self, Template, Unit};
use crate::task::TuningTask;
use aotfarm_plan::spec::{Math, Size};

const TEMPLATE: Template = Template { name: "cuda/gemm_simt.cu.j2", text: include_str!("template.cu.j2") };

/// Rows and columns of a block, rows and columns of a thread.
const TILES: [[i64; 4]; 8] = [
    [128, 128, 8, 8],
    [128, 64, 8, 8],
    [64, 128, 8, 8],
    [64, 64, 8, 4],
    [64, 64, 4, 4],
    [128, 32, 8, 4],
    [64, 32, 4, 4],
    [32, 32, 4, 4],
];
/// Threads that keep a multiprocessor busy.
const BUSY: i64 = 512;

/// A convolution of NHWC as a product.
pub struct ConvSimt;

/// A product with a weight.
pub struct MatMulSimt;

/// What is multiplied: `rows` times sizes that are known at run time, by `columns`, summed over
/// `depth`.
struct Gemm {
    machine: Gpu,
    rows: i64,
    dims: Vec<Size>,
    columns: i64,
    depth: i64,
    /// What a step must divide.
    run: i64,
    /// Variables of the template besides the tile.
    context: Value,
}

impl Gemm {
    fn of_conv(task: &TuningTask) -> Result<Self, Unsupported> {
        let refuse = |why: &str| Err(Unsupported(why.to_owned()));
        let conv = Conv::of(task)?;
        let [o, kh, kw, wc] = conv.weight;
        let (Some(cp), Some(op)) = (conv.input.block, conv.output.block) else { return refuse("an operand is not NHWC") };
        if conv.groups != 1 || conv.pool.is_some() {
            return refuse("groups, or a pool that follows");
        }
        if conv.math != Math::Exact || conv.input.dtype != DType::F32 || conv.weight_dtype != DType::F32 {
            return refuse("an operand is not f32, or may be rounded");
        }
        let image = conv.output.h * conv.output.w;
        let context = context! {
            conv => true, n => o, depth => kh * kw * wc, pitch => op,
            m => format!("({}) * {image}", size(conv.batch)),
            ..conv.context()
        };
        Ok(Self { machine: conv.machine, rows: image, dims: vec![conv.batch], columns: o, depth: kh * kw * wc, run: cp, context })
    }

    fn of_product(task: &TuningTask) -> Result<Self, Unsupported> {
        let refuse = |why: &str| Err(Unsupported(why.to_owned()));
        let product = Product::of(task)?;
        if !(product.b_is_weight && product.b_transposed && product.batch.is_empty()) {
            return refuse("b is not a weight [N, K]");
        }
        if product.math != Math::Exact || product.dtypes[..2] != [DType::F32; 2] {
            return refuse("an operand is not f32, or may be rounded");
        }
        let (Size::Const(columns), Size::Const(depth)) = (product.n, product.k) else {
            return refuse("N or K is not constant");
        };
        if depth % 4 != 0 {
            return refuse("rows do not begin at 16 bytes");
        }
        let context = context! { conv => false, n => columns, depth, pitch => columns, ..product.context() };
        Ok(Self { machine: product.machine, rows: 1, dims: vec![product.m], columns, depth, run: 0, context })
    }

    fn points(&self, point_of_task: &[i64]) -> Vec<Params> {
        let rows = self.dims.iter().fold(self.rows, |rows, size| rows * size.at(point_of_task));
        let mut points = Vec::new();
        for [bm, bn, tm, tn] in TILES {
            let threads = bm / tm * (bn / tn);
            for (bk, stages) in [(16, 3), (8, 4), (16, 2), (8, 3), (16, 4)] {
                let whole = self.run % bk == 0 && bm * bk / 4 % threads == 0 && bn * bk / 4 % threads == 0;
                if whole && bk <= self.depth.max(8) && shared(bm, bn, bk, stages) <= self.machine.shared_of_block {
                    points.push(point([("bm", bm), ("bn", bn), ("tm", tm), ("tn", tn), ("bk", bk), ("stages", stages)]));
                }
            }
        }
        points.sort_by_key(|p| {
            let [bm, bn, tm, tn] = ["bm", "bn", "tm", "tn"].map(|name| param(p, name));
            let resident = BUSY / (bm / tm * (bn / tn));
            let rounds = div_up(div_up(rows, bm) * div_up(self.columns, bn), self.machine.processors * resident);
            // A thread loads tm + tn values for tm * tn products.
            rounds * resident * bm * bn * (tm * tn + 2 * (tm + tn)) / (tm * tn)
        });
        points
    }

    fn render(&self, family: FamilyId, task: &TuningTask, params: &Params) -> KernelSource {
        let unit = Unit { family, template: TEMPLATE, headers: &[CUDA_MATH], task, params, packs: false };
        let [bm, bn, bk, tm, tn, stages] = ["bm", "bn", "bk", "tm", "tn", "stages"].map(|name| param(params, name));
        render::unit(&unit, context! { bm, bn, bk, tm, tn, stages, ..self.context.clone() })
    }

    fn launch(&self, params: &Params) -> Launch {
        let [bm, bn, bk, tm, tn, stages] = ["bm", "bn", "bk", "tm", "tn", "stages"].map(|name| param(params, name));
        let blocks = axis(div_up(self.columns, bn), self.rows, &self.dims, bm);
        Launch::linear(blocks, (bm / tm * (bn / tn)) as u32, shared(bm, bn, bk, stages) as u32)
    }
}

/// Bytes of shared memory: pieces of both operands, padded by a quad a row.
const fn shared(bm: i64, bn: i64, bk: i64, stages: i64) -> i64 {
    stages * (bm + bn) * (bk + 4) * 4
}

impl CandidateFamily for ConvSimt {
    fn id(&self) -> FamilyId {
        "cuda_conv_simt@1"
    }

    fn supports(&self, task: &TuningTask) -> Result<(), Unsupported> {
        Gemm::of_conv(task).map(|_| ())
    }

    fn enumerate(&self, task: &TuningTask) -> Vec<Params> {
        Gemm::of_conv(task).map_or_else(|_| Vec::new(), |gemm| gemm.points(&task.point))
    }

    fn render(&self, task: &TuningTask, params: &Params) -> KernelSource {
        let gemm = Gemm::of_conv(task).unwrap_or_else(|e| panic!("conv_simt was asked for a task that it refuses: {e}"));
        gemm.render(self.id(), task, params)
    }

    fn launch(&self, task: &TuningTask, params: &Params) -> Option<Launch> {
        Gemm::of_conv(task).ok().map(|gemm| gemm.launch(params))
    }
}

impl CandidateFamily for MatMulSimt {
    fn id(&self) -> FamilyId {
        "cuda_matmul_simt@1"
    }

    fn supports(&self, task: &TuningTask) -> Result<(), Unsupported> {
        Gemm::of_product(task).map(|_| ())
    }

    fn enumerate(&self, task: &TuningTask) -> Vec<Params> {
        Gemm::of_product(task).map_or_else(|_| Vec::new(), |gemm| gemm.points(&task.point))
    }

    fn render(&self, task: &TuningTask, params: &Params) -> KernelSource {
        let gemm = Gemm::of_product(task).unwrap_or_else(|e| panic!("matmul_simt was asked for a task that it refuses: {e}"));
        gemm.render(self.id(), task, params)
    }

    fn launch(&self, task: &TuningTask, params: &Params) -> Option<Launch> {
        Gemm::of_product(task).ok().map(|gemm| gemm.launch(params))
    }
}
