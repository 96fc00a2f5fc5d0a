//! What the matrix products have in common.

use aotfarm_protocol::{DType, Target};

use crate::family::Unsupported;
use crate::machine::Cpu;
use crate::printer::{Width, epilogue_c, epilogue_supported};
use crate::render::{product, size};
use crate::task::TuningTask;
use aotfarm_plan::spec::{EpilogueStep, KernelKind, KernelSpec, Layout, MatMulSpec, Size, TensorSpec};

/// A product of f32 matrices, `[batch][m][k]` times `[batch][k][n]`.
pub struct MatMul<'a> {
    /// What it runs on.
    pub machine: Cpu,
    /// The task's own words.
    pub spec: &'a MatMulSpec,
    /// Leading sizes; none when b is a weight.
    pub batch: &'a [Size],
    /// Rows of a.
    pub m: Size,
    /// Columns of b.
    pub n: Size,
    /// Columns of a, rows of b.
    pub k: Size,
}

impl<'a> MatMul<'a> {
    /// The product that a task is; refuses what C kernels cannot do.
    pub fn of(task: &'a TuningTask) -> Result<Self, Unsupported> {
        let KernelKind::MatMul(spec) = &task.spec.kind else { return Err(Unsupported("not a matrix product".into())) };
        let Target::Cpu(isa) = task.target else { return Err(Unsupported(format!("no C code for {}", task.target))) };
        let KernelSpec { inputs, weights, outputs, .. } = &task.spec;
        let mut operands = inputs.iter().chain(weights).chain(outputs);
        if operands.any(|t: &TensorSpec| t.dtype != DType::F32 || t.layout != Layout::Plain) {
            return Err(Unsupported("an operand is not a row-major f32 tensor".into()));
        }
        epilogue_supported(&spec.epilogue)?;
        let (Some(a), Some(output)) = (inputs.first(), outputs.first()) else {
            return Err(Unsupported("a product without operands".into()));
        };
        match (&a.shape[..], &output.shape[..]) {
            ([batch @ .., m, k], [.., n]) => Ok(Self { machine: Cpu::of(isa), spec, batch, m: *m, n: *n, k: *k }),
            _ => Err(Unsupported("a is not a matrix".into())),
        }
    }

    /// How many matrices, as a C expression.
    pub fn batch_c(&self) -> String {
        product(self.batch)
    }

    /// How many matrices at given dims.
    pub fn batch_at(&self, dims: &[i64]) -> i64 {
        self.batch.iter().map(|s| s.at(dims)).product()
    }

    /// The place in one matrix b of row `p` and column `j`, as a C expression.
    pub fn b_at(&self, p: &str, j: &str, n: &str, k: &str) -> String {
        if self.spec.b_transposed { format!("({j}) * {k} + {p}") } else { format!("{p} * {n} + {j}") }
    }

    /// The weights that are biases, in the order of the steps.
    pub fn biases(&self) -> Vec<usize> {
        let bias = |s: &EpilogueStep| if let EpilogueStep::Bias(k) = s { Some(*k) } else { None };
        self.spec.epilogue.iter().filter_map(bias).collect()
    }

    /// C declarations of what the epilogue reads: `residual<k>`, and `bias<k>` if `biases` says
    /// where they are.
    pub fn declarations(&self, bias_at: impl Fn(usize) -> String) -> Vec<String> {
        let mut lines = Vec::new();
        let mut declare = |line: String| {
            if !lines.contains(&line) {
                lines.push(line);
            }
        };
        for step in &self.spec.epilogue {
            match step {
                EpilogueStep::Bias(k) => {
                    declare(format!("const float *restrict const bias{k} = (const float *){};", bias_at(*k)));
                }
                EpilogueStep::Residual(_, k) => declare(format!("const float *const residual{k} = (const float *)c->in[{k}];")),
                EpilogueStep::Unary(_) => {}
            }
        }
        lines
    }

    /// The fused steps on `x`, for the element or vector of the result at `at` in column `column`.
    pub fn epilogue(&self, width: Width) -> String {
        let load = |array: &str, at: &str| match width {
            Width::Vector => format!("v_loadu({array} + {at})"),
            Width::Scalar => format!("{array}[{at}]"),
        };
        epilogue_c(
            &self.spec.epilogue,
            width,
            "x",
            |k| load(&format!("bias{k}"), "column"),
            |k| load(&format!("residual{k}"), "at"),
        )
    }

    /// m, n and k as C expressions.
    pub fn sizes_c(&self) -> [String; 3] {
        [self.m, self.n, self.k].map(size)
    }
}
