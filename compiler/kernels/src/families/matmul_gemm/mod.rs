//! Tiled matrix product: packed panels of b, a register-blocked vector micro-kernel, blocks of
//! rows, panels and depth.

use aotfarm_protocol::{CpuIsa, Params, Target};
use minijinja::context;

use super::shared::matmul::MatMul;
use crate::family::{CandidateFamily, FamilyId, KernelSource, Needs, Unsupported, only};
use crate::headers::SIMD;
use crate::machine::Cpu;
use crate::printer::Width;
use crate::render::{self, Template, Unit};
use crate::task::TuningTask;
use aotfarm_plan::spec::Size;

const TEMPLATE: Template = Template { name: "cpu/matmul_gemm.c.j2", text: include_str!("template.c.j2") };

/// The parameters that are compiled in.
const COMPILE_TIME: [&str; 3] = ["mr", "nv", "pf"];

/// The family; `mr`, `nv` and `pf` (rows of b that are asked for ahead) are compiled in, `rows`,
/// `panels` and `depth` are passed in.
pub struct MatMulGemm;

#[derive(Debug, Clone, Copy)]
struct Point {
    mr: i64,
    nv: i64,
    prefetch: i64,
    rows: i64,
    panels: i64,
    depth: i64,
}

impl Point {
    fn of(params: &Params) -> Self {
        let [mr, nv, prefetch, rows, panels, depth] = ["mr", "nv", "pf", "rows", "panels", "depth"].map(|name| params[name]);
        Self { mr, nv, prefetch, rows, panels, depth }
    }

    fn params(self) -> Params {
        let Self { mr, nv, prefetch, rows, panels, depth } = self;
        let all = [("mr", mr), ("nv", nv), ("pf", prefetch), ("rows", rows), ("panels", panels), ("depth", depth)];
        all.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// Register blocks that fit the registers of a target, best first for many rows.
fn tiles(target: Target) -> &'static [(i64, i64)] {
    match target {
        Target::Cpu(CpuIsa::X86_64V3) => &[(6, 2), (4, 3), (4, 2), (2, 4), (1, 8)],
        Target::Cpu(CpuIsa::X86_64V4) => &[(8, 3), (14, 2), (6, 4), (4, 4), (2, 6), (1, 8)],
        Target::Cpu(CpuIsa::Aarch64) => &[(8, 3), (6, 4), (4, 4), (2, 6), (1, 8)],
        Target::Cuda { .. } => &[],
    }
}

impl CandidateFamily for MatMulGemm {
    fn id(&self) -> FamilyId {
        "matmul_gemm@1"
    }

    fn supports(&self, task: &TuningTask) -> Result<(), Unsupported> {
        let matmul = MatMul::of(task)?;
        let (known, rank) = (matches!((matmul.n, matmul.k), (Size::Const(_), Size::Const(_))), matmul.batch.len());
        if matmul.spec.b_is_weight && (!known || rank > 0) {
            return Err(Unsupported("b is a weight, but its size is not known or a has leading sizes".into()));
        }
        Ok(())
    }

    fn enumerate(&self, task: &TuningTask) -> Vec<Params> {
        let Ok(matmul) = MatMul::of(task) else { return Vec::new() };
        let Cpu { lanes, l2, .. } = matmul.machine;
        let [m, n, k] = [matmul.m, matmul.n, matmul.k].map(|s| s.at(&task.point).max(1));
        let batch = matmul.batch_at(&task.point).max(1);
        // Least wasted multiplications first; among equals, the listed order.
        let padded = |&(mr, nv): &(i64, i64)| (m + mr - 1) / mr * mr * ((n + nv * lanes - 1) / (nv * lanes) * nv * lanes);
        let mut tiles: Vec<(i64, i64)> = tiles(task.target).iter().copied().filter(|(mr, _)| *mr < 2 * m).collect();
        // Small blocks of registers are slower on matrices that large ones fit.
        tiles.sort_by_key(|tile| {
            let (waste, work) = (padded(tile), m * n);
            (waste * 4 / work.max(1), std::cmp::Reverse((tile.0 * tile.1).min(12)))
        });
        tiles.truncate(3);

        let mut points = Vec::new();
        for blocking in 0..5 {
            for &(mr, nv) in &tiles {
                let panels_all = (n + nv * lanes - 1) / (nv * lanes);
                // What of b a unit of work comes back to takes half of L2.
                let fitting = (l2 / 2 / (k * nv * lanes * 4)).clamp(1, panels_all);
                let rows_all = (m + mr - 1) / mr * mr;
                // Blocks: enough of them for a few threads, b's group in the second level of cache.
                let (rows, panels, depth, prefetch) = match blocking {
                    0 => (mr * 8, fitting, k, 0),
                    1 => (rows_all, 1, k, 8),
                    2 => (mr * 16, fitting, 256, 0),
                    3 => (mr * 2, panels_all, 512, 0),
                    _ => (mr * 4, (fitting / 4).max(1), k, 8),
                };
                let (rows, panels, depth) = (rows.min(rows_all), panels.min(panels_all), depth.min(k));
                let units = batch * ((m + rows - 1) / rows) * ((panels_all + panels - 1) / panels);
                // With fewer than two units a second thread has nothing to do, unless the product
                // is tiny.
                let (rows, panels) = if units < 8 && panels_all > 1 { (rows, (panels_all / 8).max(1)) } else { (rows, panels) };
                points.push(Point { mr, nv, prefetch, rows, panels, depth }.params());
            }
        }
        let mut seen = std::collections::HashSet::new();
        points.retain(|p| seen.insert(p.clone()));
        points
    }

    fn compile_time(&self) -> Option<&'static [&'static str]> {
        Some(&COMPILE_TIME)
    }

    fn render(&self, task: &TuningTask, params: &Params) -> KernelSource {
        let matmul = MatMul::of(task).unwrap_or_else(|e| panic!("{}: {e}", self.id()));
        let point = Point::of(params);
        let packs = matmul.spec.b_is_weight;
        let [m, n, k] = matmul.sizes_c();
        let biases = matmul.biases();
        let bias_at = |weight: usize| {
            let place = biases.iter().position(|b| *b == weight).unwrap_or(0);
            if packs { format!("c->packed + PANELS * NR * (DEPTH + {place})") } else { format!("c->weight[{weight}]") }
        };
        // Arithmetic is on floats, not on the untyped pointer.
        let bias_at = |weight: usize| bias_at(weight).replace("c->packed", "(const float *)c->packed");
        let compiled = COMPILE_TIME.map(|name| (name.to_owned(), params[name]));
        let shown = Params::from(compiled);
        let unit = Unit { family: self.id(), template: TEMPLATE, headers: &[SIMD], task, params: &shown, packs };
        let variables = context! {
            mr => point.mr,
            nv => point.nv,
            prefetch => point.prefetch,
            lanes => matmul.machine.lanes,
            packs,
            batch => matmul.batch_c(),
            m,
            n,
            k,
            b_transposed => matmul.spec.b_transposed,
            b_at_const => matmul.b_at("p", "j", "COLUMNS", "DEPTH"),
            declarations => matmul.declarations(bias_at),
            epilogue => matmul.epilogue(Width::Vector),
            biases,
        };
        render::unit(&unit, variables)
    }

    fn tune(&self, _: &TuningTask, params: &Params) -> Vec<i64> {
        let point = Point::of(params);
        vec![point.rows, point.panels, point.depth]
    }

    fn packing(&self, params: &Params) -> Params {
        only(params, &["nv"])
    }

    fn needs(&self, task: &TuningTask, params: &Params, dims: &[i64]) -> Needs {
        let Ok(matmul) = MatMul::of(task) else { return Needs::NONE };
        let width = Point::of(params).nv * matmul.machine.lanes;
        let columns = (matmul.n.at(dims) + width - 1) / width * width;
        let panels = (columns * matmul.k.at(dims) * 4).unsigned_abs();
        if matmul.spec.b_is_weight {
            let biases = matmul.biases().len() as u64 * columns.unsigned_abs() * 4;
            Needs { packed: panels + biases, shared: 0, thread: 0 }
        } else {
            Needs { packed: 0, shared: panels * matmul.batch_at(dims).unsigned_abs(), thread: 0 }
        }
    }
}
