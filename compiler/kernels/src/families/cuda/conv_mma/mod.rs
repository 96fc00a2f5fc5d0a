//! `conv_mma@1` and `matmul_mma@1`: convolutions and products with a weight as implicit matrix
//! products on tensor cores; see `template.cu.j2`.

use aotfarm_protocol::{Launch, Params};
use minijinja::{Value, context};

use super::shared::geometry::{Conv, Product, axis, element, size};
use super::shared::mma::{self, Space, Tile, Work};
use crate::families::shared::points::{div_up, param};
use crate::family::{CandidateFamily, FamilyId, KernelSource, Unsupported};
use crate::headers::{CUDA_MATH, CUDA_MMA};
use crate::machine::Gpu;
use crate::render::{self, Template, Unit};
use crate::task::TuningTask;
use aotfarm_plan::spec::{Math, Size};

const TEMPLATE: Template = Template { name: "cuda/conv_mma.cu.j2", text: include_str!("template.cu.j2") };

/// Tiles of `bm` output pixels by `bn` channels, `bk` elements of k in each of `stages` buffers;
/// rows are gathered tap by tap, and after those of the convolution come those of its branch. `wm`,
/// `wn`, `wk`, `split`: see [`Tile`].
pub struct ConvMma;

/// The same for a product with a weight `[N, K]`: pixels are rows.
pub struct MatMulMma;

/// The matrix product behind a task.
struct Gemm {
    machine: Gpu,
    bytes: i64,
    /// Rows: pixels of an image, and images.
    pixels: i64,
    images: Size,
    channels: i64,
    /// Terms of a sum, of each source.
    depths: Vec<i64>,
    biases: usize,
    context: Value,
}

impl Gemm {
    fn of_conv(task: &TuningTask) -> Result<Self, Unsupported> {
        let conv = Conv::with_branch(task)?;
        let bytes = mma::convolution_bytes(&conv)?;
        Ok(Self {
            machine: conv.machine,
            bytes,
            pixels: conv.output.h * conv.output.w,
            images: conv.batch,
            channels: conv.weight[0],
            depths: conv.sources().iter().map(|s| s.weight[1..].iter().product()).collect(),
            biases: conv.epilogue.biases.len(),
            context: context! { round_in => false, ..conv.context() },
        })
    }

    fn of_product(task: &TuningTask) -> Result<Self, Unsupported> {
        let product = Product::of(task)?;
        let (Size::Const(n), Size::Const(k)) = (product.n, product.k) else {
            return Err(Unsupported("n or k is not constant".into()));
        };
        let [a, b, output] = product.dtypes;
        if !product.machine.copies_beside
            || !product.b_is_weight
            || !product.b_transposed
            || k % 8 != 0
            || a != b
            || !product.batch.is_empty()
        {
            return Err(Unsupported("not a product of one type with a weight of whole eights".into()));
        }
        let source = context! {
            input => 0, weight => 0, h => 1, w => 1, cp => k, kh => 1, kw => 1, sh => 1, sw => 1, dh => 1, dw => 1, ph => 0, pw => 0,
        };
        mma::same_residuals(&product.epilogue.residuals, &product.input_types, output)?;
        let epilogue = &product.epilogue;
        Ok(Self {
            machine: product.machine,
            bytes: mma::element_bytes(a, product.math)?,
            pixels: 1,
            images: product.m,
            channels: n,
            depths: vec![k],
            biases: epilogue.biases.len(),
            context: context! {
                in_t => element(a)?, out_t => element(output)?, batch => size(product.m),
                oh => 1, ow => 1, o => n, op => n, sources => [source],
                epilogue => &epilogue.text, biases => &epilogue.biases, residuals => &epilogue.residuals,
                round_in => product.math == Math::Tf32, round_out => false,
            },
        })
    }

    fn work(&self, bm: i64, bk: i64, tile: &Tile, rounds: i64, point: &[i64]) -> Work {
        let row = bk * self.bytes;
        Work {
            grid: div_up(self.images.at(point) * self.pixels, bm) * div_up(self.channels, tile.bn) * tile.split,
            shared: tile.stages * (bm + tile.bn) * row + tile.extra_bytes(self.biases),
            rounds,
            steps: row / 32 / tile.wk,
            a: rounds * bm * row,
            b: rounds * tile.bn * row,
        }
    }

    fn enumerate(&self, point: &[i64]) -> Vec<Params> {
        let mut points = Vec::new();
        for bm in [16, 32, 48, 64, 96, 112, 128, 192, 256] {
            for row in [64, 128, 256] {
                let bk = row / self.bytes;
                let rounds = self.depths.iter().map(|depth| div_up(*depth, bk)).sum();
                let space = Space { machine: self.machine, channels: self.channels, rows: bm, row, rounds };
                let work = |tile: &Tile, rounds| self.work(bm, bk, tile, rounds, point);
                space.visit(true, work, |cost, tile| points.push((cost, tile.params([("bm", bm), ("bk", bk)]))));
            }
        }
        mma::cheapest(points, &["bm", "bn", "split"])
    }

    fn render(&self, family: FamilyId, task: &TuningTask, params: &Params) -> KernelSource {
        let unit = Unit { family, template: TEMPLATE, headers: &[CUDA_MATH, CUDA_MMA], task, params, packs: false };
        render::unit(&unit, context! { ..Value::from_pairs(params.clone()), ..self.context.clone() })
    }

    fn launch(&self, params: &Params) -> Launch {
        let (bm, bk) = (param(params, "bm"), param(params, "bk"));
        let tile = Tile::of(bm, params);
        let tiles = axis(div_up(self.channels, tile.bn), self.pixels, &[self.images], bm);
        tile.launch(tiles, self.work(bm, bk, &tile, 1, &[1; 8]).shared)
    }
}

macro_rules! family {
    ($family:ty, $id:literal, $of:path) => {
        impl CandidateFamily for $family {
            fn id(&self) -> FamilyId {
                $id
            }

            fn supports(&self, task: &TuningTask) -> Result<(), Unsupported> {
                $of(task).map(|_| ())
            }

            fn enumerate(&self, task: &TuningTask) -> Vec<Params> {
                $of(task).map(|gemm| gemm.enumerate(&task.point)).unwrap_or_default()
            }

            fn render(&self, task: &TuningTask, params: &Params) -> KernelSource {
                let gemm = $of(task).unwrap_or_else(|e| panic!("{}: {e}", self.id()));
                gemm.render(self.id(), task, params)
            }

            fn launch(&self, task: &TuningTask, params: &Params) -> Option<Launch> {
                $of(task).ok().map(|gemm| gemm.launch(params))
            }
        }
    };
}

family!(ConvMma, "conv_mma@1", Gemm::of_conv);
family!(MatMulMma, "matmul_mma@1", Gemm::of_product);
