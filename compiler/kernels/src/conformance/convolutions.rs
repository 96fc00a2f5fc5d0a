//! Example convolutions; their own tests are beside their families.
#![cfg(test)]

use aotfarm_protocol::{DType, Target};

use super::{image, plain, task};
use crate::task::TuningTask;
use aotfarm_ir::{PoolOp, UnaryOp, Window};
use aotfarm_plan::spec::{Branch, ConvSpec, EpilogueStep, GPU_CHANNELS, KernelKind, Layout, PoolSpec, TensorSpec};

/// A convolution of two images of `size` x `size` with bias and ReLU, padded so that the picture keeps its size at stride 1.
fn convolution(target: Target, channels: [i64; 2], size: i64, kernel: i64, stride: i64, groups: i64) -> TuningTask {
    let [from, to] = channels;
    let pad = kernel / 2;
    let window = Window { kernel: [kernel; 2], stride: [stride; 2], pad: [[pad; 2]; 2], dilation: [1; 2] };
    let epilogue = vec![EpilogueStep::Bias(1), EpilogueStep::Unary(UnaryOp::Relu)];
    let out = (size + 2 * pad - kernel) / stride + 1;
    let weight = match target {
        Target::Cpu(_) => [to, from / groups, kernel, kernel],
        Target::Cuda { .. } if groups == 1 => [to, kernel, kernel, (from + GPU_CHANNELS - 1) / GPU_CHANNELS * GPU_CHANNELS],
        Target::Cuda { .. } => [to, kernel, kernel, from / groups],
    };
    let weights = vec![plain(DType::F32, &weight), plain(DType::F32, &[to])];
    let halo = [pad as u32; 4];
    let kind = KernelKind::Conv(ConvSpec { window, groups, epilogue, pool: None, branch: None, gate: None, mean: false });
    task(target, kind, vec![image(target, [from, size, size], halo)], weights, image(target, [to, out, out], [1; 4]), &[2])
}

/// The first convolution of a network: from row-major pictures of three channels.
fn stem(target: Target) -> TuningTask {
    let mut task = convolution(target, [3, 32], 20, 7, 2, 1);
    task.spec.inputs[0].layout = Layout::Plain;
    if let Target::Cuda { .. } = target {
        // Channels are padded only where images are.
        task.spec.weights[0] = plain(DType::F32, &[32, 7, 7, 3]);
    }
    task
}

/// The same with the pool that follows, which the kernel takes along.
fn pooled_stem(target: Target) -> TuningTask {
    let mut task = stem(target);
    let window = Window { kernel: [3; 2], stride: [2; 2], pad: [[1; 2]; 2], dilation: [1; 2] };
    let KernelKind::Conv(conv) = &mut task.spec.kind else { return task };
    conv.pool = Some(PoolSpec { op: PoolOp::Max, window });
    task.spec.outputs[0] = image(target, [32, 5, 5], [1; 4]);
    task
}

/// The end of a squeeze-and-excitation block.
fn gated(target: Target) -> TuningTask {
    let mut task = convolution(target, [40, 24], 9, 1, 1, 1);
    let KernelKind::Conv(conv) = &mut task.spec.kind else { return task };
    conv.gate = Some(1);
    task.spec.inputs.push(TensorSpec {
        shape: task.spec.inputs[0].shape[..2].to_vec(),
        layout: Layout::Plain,
        ..task.spec.inputs[0].clone()
    });
    task
}

/// The beginning of a squeeze-and-excitation block.
fn with_mean(target: Target) -> TuningTask {
    let mut task = convolution(target, [40, 40], 9, 3, 2, 40);
    let KernelKind::Conv(conv) = &mut task.spec.kind else { return task };
    conv.mean = true;
    task.spec.outputs.push(TensorSpec {
        shape: task.spec.outputs[0].shape[..2].to_vec(),
        layout: Layout::Plain,
        ..task.spec.outputs[0].clone()
    });
    task
}

/// The end of a residual block: a shortcut of another size and of so many channels is added before bias and ReLU.
fn with_branch(target: Target, channels: i64, kernel: i64) -> TuningTask {
    let mut task = convolution(target, [32, 48], 7, 3, 1, 1);
    let shortcut = convolution(target, [channels, 48], 14, kernel, 2, 1).spec;
    let KernelKind::Conv(other) = shortcut.kind else { return task };
    let KernelKind::Conv(conv) = &mut task.spec.kind else { return task };
    conv.branch = Some(Branch { input: 1, weight: 1, window: other.window });
    conv.epilogue[0] = EpilogueStep::Bias(2);
    task.spec.inputs.extend(shortcut.inputs);
    task.spec.weights.splice(1..1, shortcut.weights.into_iter().take(1));
    task
}

/// A 1x1 convolution of a picture that stays row-major, as in excitation blocks and heads.
fn row_major(target: Target) -> TuningTask {
    let mut task = convolution(target, [32, 20], 5, 1, 1, 1);
    task.spec.inputs[0].layout = Layout::Plain;
    task.spec.outputs[0].layout = Layout::Plain;
    task
}

pub(super) fn examples(target: Target) -> Vec<TuningTask> {
    let mut all = vec![
        stem(target),
        row_major(target),
        convolution(target, [32, 32], 12, 3, 1, 1),
        convolution(target, [32, 48], 12, 3, 2, 1),
        convolution(target, [32, 16], 7, 1, 1, 1),
        convolution(target, [32, 32], 9, 3, 1, 32),
        convolution(target, [20, 24], 6, 5, 1, 4),
        pooled_stem(target),
    ];
    if let Target::Cpu(_) = target {
        all.extend([gated(target), with_mean(target)]);
    } else {
        all.extend([(64, 1), (20, 3)].map(|(channels, kernel)| with_branch(target, channels, kernel)));
    }
    all
}
