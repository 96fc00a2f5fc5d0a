//! What the poolings have in common.

use aotfarm_protocol::{DType, Target};
use minijinja::{Value, context};

use crate::family::Unsupported;
use crate::machine::Cpu;
use crate::render::size;
use crate::task::TuningTask;
use aotfarm_ir::PoolOp;
use aotfarm_plan::spec::{KernelKind, Layout, PoolSpec, TensorSpec};

/// The pooling that a task is.
pub struct Pool<'a> {
    /// What it runs on.
    pub machine: Cpu,
    /// The task's own words.
    pub spec: &'a PoolSpec,
    /// Of rank 4, like the output.
    pub input: &'a TensorSpec,
    /// What comes out.
    pub output: &'a TensorSpec,
}

impl<'a> Pool<'a> {
    /// The pooling that a task is; refuses what C kernels cannot do.
    pub fn of(task: &'a TuningTask) -> Result<Self, Unsupported> {
        let KernelKind::Pool(spec) = &task.spec.kind else { return Err(Unsupported("not a pooling".into())) };
        let Target::Cpu(isa) = task.target else { return Err(Unsupported(format!("no C code for {}", task.target))) };
        let (Some(input), Some(output)) = (task.spec.inputs.first(), task.spec.outputs.first()) else {
            return Err(Unsupported("a pooling without operands".into()));
        };
        if [input, output].iter().any(|t| t.dtype != DType::F32 || t.shape.len() != 4) {
            return Err(Unsupported("an operand is not an f32 tensor of rank 4".into()));
        }
        Ok(Self { machine: Cpu::of(isa), spec, input, output })
    }

    /// Variables of both templates.
    pub fn variables(&self) -> Value {
        let window = self.spec.window;
        context! {
            batch => size(self.output.shape[0]),
            channels => size(self.output.shape[1]),
            in_h => size(self.input.shape[2]),
            in_w => size(self.input.shape[3]),
            out_h => size(self.output.shape[2]),
            out_w => size(self.output.shape[3]),
            kernel => window.kernel.to_vec(),
            stride => window.stride.to_vec(),
            dilation => window.dilation.to_vec(),
            pad => vec![window.pad[0][0], window.pad[1][0]],
            max => self.spec.op == PoolOp::Max,
            include_pad => self.spec.op == PoolOp::Avg { count_include_pad: true },
        }
    }
}

/// The place of element (b, ch, y, x) of a tensor of rank 4, as a C expression in these variables.
pub fn place(tensor: &TensorSpec) -> String {
    let [c, h, w] = [1, 2, 3].map(|d| size(tensor.shape[d]));
    match tensor.layout {
        Layout::Plain => format!("((b * {c} + ch) * {h} + y) * {w} + x"),
        Layout::Image { block, halo: [top, bottom, left, right] } => format!(
            "(((b * (({c} + {}) / {block}) + ch / {block}) * ({h} + {}) + y + {top}) * ({w} + {}) + x + {left}) * {block} + ch % {block}",
            block - 1,
            top + bottom,
            left + right,
        ),
    }
}
