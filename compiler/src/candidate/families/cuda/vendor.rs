//! What NVIDIA's libraries would do: the baseline of the AUTOTUNE tables. It has no code of ours, and never wins.

use aotfarm_protocol::{Params, VendorConv};

use super::geometry::{Conv, Image};
use crate::candidate::{Candidate, KernelSource, Needs};
use crate::ir::{BinaryOp, UnaryOp};
use crate::task::{EpilogueStep, Math, TaskKind, TuningTask};

/// Names cuDNN in tables and records.
const CUDNN: &str = "cudnn@1";

/// The baseline of a task, if a vendor's library computes it in one call: a convolution of NHWC images of one type, with at most a bias, a
/// residual and a ReLU after it.
pub(crate) fn baseline(task: &TuningTask) -> Option<Candidate> {
    let conv = conv(task)?;
    // The object that goes with it is never run.
    let text = format!("/* {CUDNN}: called by the worker, for comparison */\nextern \"C\" __global__ void aot_cudnn() {{}}\n");
    let source = KernelSource { text, symbol: "aot_cudnn".to_owned(), packs: false };
    Some(Candidate { vendor: Some(conv), ..Candidate::foreign(CUDNN, task, Params::new(), source, Needs::NONE) })
}

fn conv(task: &TuningTask) -> Option<VendorConv> {
    let conv = Conv::of(task).ok()?;
    let TaskKind::Conv(spec) = &task.spec.kind else { return None };
    let nhwc = |image: &Image| image.block == Some(image.c) && image.dtype == conv.weight_dtype;
    let symmetric = conv.window.pad.iter().all(|[before, after]| before == after);
    if conv.pool.is_some() || conv.groups != 1 || !nhwc(&conv.input) || !nhwc(&conv.output) || !symmetric {
        return None;
    }
    let (mut bias, mut residual, mut relu) = (None, None, false);
    for step in &spec.epilogue {
        match step {
            EpilogueStep::Bias(k) if bias.is_none() && residual.is_none() && !relu => bias = Some(*k),
            EpilogueStep::Residual(BinaryOp::Add, k) if residual.is_none() && !relu => residual = Some(*k),
            EpilogueStep::Unary(UnaryOp::Relu) if !relu => relu = true,
            _ => return None,
        }
    }
    Some(VendorConv {
        batch: conv.batch.at(&task.point),
        input: [conv.input.c, conv.input.h, conv.input.w],
        output: [conv.output.c, conv.output.h, conv.output.w],
        kernel: conv.window.kernel,
        stride: conv.window.stride,
        pad: conv.window.pad.map(|[before, _]| before),
        dilation: conv.window.dilation,
        tf32: conv.math == Math::Tf32,
        bias: bias?,
        residual,
        relu,
    })
}
