//! Every convolution family against the oracle: sizes that fill tiles, miss them by one, and are
//! one; channels that do not fill blocks; batches, halos and all kinds of fused steps.

use aotfarm_protocol::{CpuIsa, DType, Target};

use crate::task::TuningTask;
use crate::testing::{Built, Host, check_points, random, run};
use crate::{Candidate, CandidateFamily, FAMILIES, candidates, transfer};
use aotfarm_ir::{BinaryOp, PoolOp, UnaryOp, Window};
use aotfarm_plan::spec::{ConvSpec, EpilogueStep, KernelKind, KernelSpec, Layout, Math, PoolSpec, Size, TensorSpec};

/// A convolution in words; `task` makes the task.
#[derive(Debug, Clone)]
struct Case {
    batch: i64,
    channels: i64,
    size: [i64; 2],
    out: i64,
    kernel: i64,
    stride: i64,
    pad: i64,
    dilation: i64,
    groups: i64,
    plain_input: bool,
    plain_output: bool,
    steps: Vec<EpilogueStep>,
    /// Zeros beyond what the padding needs.
    extra: u32,
    /// A max pooling of the result: window, stride, padding before and after.
    pool: Option<[i64; 4]>,
    /// Whether the input has a gate.
    gate: bool,
    /// Whether the means are a second output.
    mean: bool,
}

const BIAS: EpilogueStep = EpilogueStep::Bias(1);
const RELU: EpilogueStep = EpilogueStep::Unary(UnaryOp::Relu);
const ADD: EpilogueStep = EpilogueStep::Residual(BinaryOp::Add, 1);

fn case(channels: i64, size: [i64; 2], out: i64, kernel: i64, stride: i64, pad: i64) -> Case {
    Case {
        batch: 1,
        channels,
        size,
        out,
        kernel,
        stride,
        pad,
        dilation: 1,
        groups: 1,
        plain_input: false,
        plain_output: false,
        steps: vec![BIAS, RELU],
        extra: 0,
        pool: None,
        gate: false,
        mean: false,
    }
}

impl Case {
    fn batch(self, batch: i64) -> Self {
        Self { batch, ..self }
    }

    fn steps(self, steps: &[EpilogueStep]) -> Self {
        Self { steps: steps.to_vec(), ..self }
    }

    fn groups(self, groups: i64) -> Self {
        Self { groups, ..self }
    }

    fn dilation(self, dilation: i64) -> Self {
        Self { dilation, ..self }
    }

    fn plain_input(self) -> Self {
        Self { plain_input: true, ..self }
    }

    fn plain_output(self) -> Self {
        Self { plain_output: true, ..self }
    }

    fn extra(self, extra: u32) -> Self {
        Self { extra, ..self }
    }

    fn pool(self, kernel: i64, stride: i64, before: i64, after: i64) -> Self {
        Self { pool: Some([kernel, stride, before, after]), ..self }
    }

    fn gated(self) -> Self {
        Self { gate: true, ..self }
    }

    fn mean(self) -> Self {
        Self { mean: true, ..self }
    }

    fn task(&self, isa: CpuIsa) -> TuningTask {
        let target = Target::Cpu(isa);
        let block = target.f32_lanes() as u32;
        let tensor = |shape: &[i64], layout| TensorSpec {
            dtype: DType::F32,
            shape: std::iter::once(Size::Dim(0)).chain(shape.iter().map(|n| Size::Const(*n))).collect(),
            layout,
        };
        let constant = |shape: &[i64]| TensorSpec {
            dtype: DType::F32,
            shape: shape.iter().map(|n| Size::Const(*n)).collect(),
            layout: Layout::Plain,
        };
        let out = self.size.map(|n| (n + 2 * self.pad - self.dilation * (self.kernel - 1) - 1) / self.stride + 1);
        // As the plan does it: whole tiles of four outputs for 3x3 kernels.
        let after = |axis: usize| {
            let mut read = (out[axis] - 1) * self.stride + (self.kernel - 1) * self.dilation + 1;
            if self.kernel == 3 {
                let tiles = (out[axis] + 3) / 4;
                read = read.max(if self.stride == 1 { tiles * 4 + 2 } else { tiles * 8 + 1 });
            }
            u32::try_from((read - self.pad - self.size[axis]).max(0)).expect("small") + self.extra
        };
        let before = self.pad as u32 + self.extra;
        let input = match self.plain_input {
            true => Layout::Plain,
            false => Layout::Image { block, halo: [before, after(0), before, after(1)] },
        };
        let output = match self.plain_output {
            true => Layout::Plain,
            false => Layout::Image { block, halo: [1, 2, 3, 0] },
        };
        let mut inputs = vec![tensor(&[self.channels, self.size[0], self.size[1]], input)];
        let mut weights = vec![constant(&[self.out, self.channels / self.groups, self.kernel, self.kernel])];
        for step in &self.steps {
            match step {
                EpilogueStep::Bias(_) => weights.push(constant(&[self.out])),
                EpilogueStep::Residual(..) => inputs.push(tensor(&[self.out, out[0], out[1]], output.clone())),
                EpilogueStep::Unary(_) => {}
            }
        }
        // After the residuals, whose numbers the cases give.
        let gate = self.gate.then(|| {
            inputs.push(tensor(&[self.channels], Layout::Plain));
            inputs.len() - 1
        });
        let window =
            Window { kernel: [self.kernel; 2], stride: [self.stride; 2], pad: [[self.pad; 2]; 2], dilation: [self.dilation; 2] };
        let (mut pool, mut stored) = (None, out);
        if let Some([kernel, stride, before, after]) = self.pool {
            let window = Window { kernel: [kernel; 2], stride: [stride; 2], pad: [[before, after]; 2], dilation: [1; 2] };
            pool = Some(PoolSpec { op: PoolOp::Max, window });
            stored = out.map(|n| (n + before + after - kernel) / stride + 1);
        }
        let conv =
            ConvSpec { window, groups: self.groups, epilogue: self.steps.clone(), pool, branch: None, gate, mean: self.mean };
        let mut outputs = vec![tensor(&[self.out, stored[0], stored[1]], output)];
        outputs.extend(self.mean.then(|| tensor(&[self.out], Layout::Plain)));
        TuningTask {
            spec: KernelSpec { kind: KernelKind::Conv(conv), inputs, weights, outputs, dims: 1, math: Math::Exact },
            target,
            point: vec![self.batch],
        }
    }
}

/// The ISAs for the case of a number: one of those of x86-64 in turn, and the one whose vectors are
/// shorter.
fn isas(k: usize) -> [CpuIsa; 2] {
    [[CpuIsa::X86_64V3, CpuIsa::X86_64V4][k % 2], CpuIsa::Aarch64]
}

fn family(id: &str) -> &'static dyn CandidateFamily {
    *FAMILIES.iter().find(|f| f.id() == id).expect("the family is listed")
}

/// Checks the family on all cases, each for its [`isas`]: `points` of each of `shapes`, and one of
/// each kind of fused steps on `fused`.
fn check_all(id: &str, points: usize, shapes: &[Case], fused: &Case) {
    let cases = |from: usize, cases: &[Case]| -> Vec<_> {
        let tasks = cases.iter().enumerate().flat_map(|(k, case)| isas(from + k).map(|isa| (k, case.task(isa))));
        tasks.map(|(k, task)| (task.clone(), random(&task, k as u64))).collect()
    };
    check_points(family(id), &cases(0, shapes), points);
    check_points(family(id), &cases(shapes.len(), &epilogues(fused)), 1);
}

/// One case for every kind of fused step; the last ones do not keep zero, so the lanes past the
/// channels would show.
fn epilogues(base: &Case) -> Vec<Case> {
    let unary = EpilogueStep::Unary;
    let chains: Vec<Vec<EpilogueStep>> = vec![
        vec![],
        vec![BIAS, ADD, RELU],
        vec![EpilogueStep::Residual(BinaryOp::Mul, 1), BIAS],
        vec![BIAS, unary(UnaryOp::Clamp { low: 0.5, high: 6.0 })],
        vec![BIAS, EpilogueStep::Residual(BinaryOp::Sub, 1), unary(UnaryOp::Sigmoid)],
        vec![BIAS, unary(UnaryOp::Silu), EpilogueStep::Residual(BinaryOp::Max, 1), EpilogueStep::Bias(2)],
        vec![unary(UnaryOp::Hardsigmoid), ADD, unary(UnaryOp::Gelu)],
        vec![BIAS, ADD, EpilogueStep::Residual(BinaryOp::Mul, 2), unary(UnaryOp::Cos)],
    ];
    chains.iter().map(|steps| base.clone().steps(steps)).collect()
}

#[test]
fn naive() {
    let shapes = [
        case(3, [9, 11], 5, 3, 2, 1).plain_input(),
        case(3, [9, 70], 5, 3, 1, 2).plain_input().plain_output(),
        case(20, [6, 5], 10, 3, 1, 1).plain_output().batch(2).dilation(2),
        case(12, [7, 7], 12, 5, 1, 2).groups(12),
        case(12, [7, 7], 18, 1, 1, 0).groups(6).plain_input().plain_output(),
        case(1, [1, 1], 1, 1, 1, 0),
        case(2, [1, 1], 3, 3, 1, 3).batch(3),
        case(3, [9, 160], 5, 3, 1, 1).pool(3, 2, 1, 1).batch(2),
        case(2, [6, 4], 3, 3, 1, 1).steps(&[BIAS, ADD]).pool(2, 3, 0, 2).plain_output(),
        case(20, [6, 5], 10, 3, 1, 1).batch(2).gated(),
        case(20, [6, 70], 20, 3, 1, 1).groups(20).batch(2).mean(),
        case(3, [9, 9], 5, 3, 1, 1).pool(3, 2, 1, 1).mean(),
    ];
    check_all("conv_naive@1", 1, &shapes, &case(5, [4, 6], 7, 3, 1, 1));
}

#[test]
fn direct() {
    let shapes = [
        case(32, [14, 14], 64, 3, 1, 1),
        case(32, [13, 15], 64, 3, 1, 1).batch(2).extra(2),
        case(33, [7, 7], 31, 3, 2, 1).batch(3),
        case(16, [5, 29], 48, 1, 1, 0),
        case(16, [6, 6], 80, 1, 2, 0).batch(2),
        case(20, [9, 9], 24, 5, 1, 2),
        case(8, [12, 12], 8, 3, 1, 2).dilation(2),
        case(64, [4, 3], 96, 3, 1, 1).groups(2).batch(2),
        case(1, [1, 1], 1, 1, 1, 0),
        case(17, [1, 1], 40, 1, 1, 0).batch(3),
        case(16, [2, 56], 16, 3, 1, 1),
        case(40, [5, 7], 72, 1, 1, 0).batch(3).gated(),
        case(21, [7, 7], 19, 1, 1, 0).batch(2).steps(&[BIAS, ADD]).gated(),
        case(96, [6, 6], 16, 1, 2, 0).batch(2).gated(),
    ];
    check_all("conv_direct@1", 3, &shapes, &case(9, [5, 6], 21, 3, 1, 1).batch(2));
}

#[test]
fn winograd() {
    let shapes = [
        case(32, [14, 14], 64, 3, 1, 1),
        case(16, [13, 8], 48, 3, 1, 1).batch(2).extra(1),
        case(20, [7, 7], 31, 3, 1, 1).batch(3),
        case(16, [9, 6], 16, 3, 1, 0).batch(2),
        case(32, [14, 14], 64, 3, 2, 1),
        case(20, [13, 30], 24, 3, 2, 1).batch(2),
        case(1, [1, 1], 1, 3, 1, 1),
        case(1, [2, 3], 17, 3, 2, 1).batch(3),
    ];
    check_all("conv_winograd@1", 3, &shapes, &case(9, [6, 5], 21, 3, 1, 1).batch(2));
}

#[test]
fn depthwise() {
    let shapes = [
        case(32, [14, 14], 32, 3, 1, 1).groups(32),
        case(20, [13, 15], 20, 3, 2, 1).groups(20).batch(2).extra(1),
        case(16, [7, 7], 16, 5, 1, 2).groups(16).batch(3),
        case(8, [9, 9], 8, 3, 1, 2).groups(8).dilation(2),
        case(40, [1, 1], 40, 1, 1, 0).groups(40),
        case(1, [1, 1], 1, 7, 1, 3),
        case(3, [5, 57], 3, 7, 1, 3).groups(3),
        case(32, [14, 14], 32, 3, 1, 1).groups(32).mean(),
        case(21, [13, 15], 21, 3, 2, 1).groups(21).batch(2).mean(),
        case(48, [7, 7], 48, 5, 1, 2).groups(48).batch(3).mean(),
        case(9, [15, 28], 9, 5, 2, 2).groups(9).batch(5).steps(&[BIAS, ADD]).mean(),
        case(5, [1, 1], 5, 1, 1, 0).groups(5).mean(),
    ];
    check_all("conv_depthwise@1", 2, &shapes, &case(21, [6, 5], 21, 3, 1, 1).groups(21).batch(2));
    let fused = case(21, [6, 5], 21, 3, 1, 1).groups(21).batch(2).mean();
    check_all("conv_depthwise@1", 2, &[], &fused);
}

/// Who sums which rows must not show: planes that no thread has to itself, some that one has, and
/// more threads than rows.
#[test]
fn means_are_the_same_for_any_number_of_threads() {
    let task = case(40, [9, 11], 40, 3, 1, 1).groups(40).batch(3).mean().task(CpuIsa::X86_64V3);
    let Some(host) = Host::find(task.target) else { return };
    let depthwise = family("conv_depthwise@1");
    let candidate = Candidate::new(depthwise, &task, depthwise.enumerate(&task)[0].clone());
    let built = Built::new(&host, task.target, &[&candidate]);
    let raw = random(&task, 5);
    let alone = run(&built, &task, &candidate, &raw, 1);
    for threads in [2, 3, 4, 7, 200] {
        assert!(run(&built, &task, &candidate, &raw, threads) == alone, "{threads} threads");
    }
}

#[test]
fn stem() {
    let shapes = [
        case(3, [30, 34], 64, 7, 2, 3),
        case(3, [15, 17], 24, 3, 2, 1).batch(3),
        case(1, [28, 28], 20, 5, 1, 0).batch(2),
        case(4, [9, 13], 48, 3, 1, 2).dilation(2),
        case(2, [1, 1], 5, 3, 1, 3),
        case(20, [6, 5], 16, 1, 1, 0).batch(2),
        case(3, [16, 16], 40, 4, 4, 0),
    ];
    let fused = case(3, [6, 9], 21, 3, 2, 1).batch(2).plain_input();
    check_all("conv_stem@1", 2, &shapes.map(Case::plain_input), &fused);
}

#[test]
fn stem_winograd() {
    let shapes = [
        case(3, [30, 34], 64, 7, 2, 3),
        case(3, [15, 17], 24, 3, 2, 1).batch(3),
        case(1, [28, 27], 20, 5, 2, 0).batch(2),
        case(4, [9, 13], 48, 4, 2, 2),
        case(8, [21, 37], 32, 8, 2, 3).batch(2),
        case(2, [1, 1], 5, 3, 2, 3),
        case(3, [16, 80], 40, 6, 2, 1),
        case(3, [17, 224], 128, 7, 2, 3),
    ];
    let fused = case(3, [6, 9], 21, 3, 2, 1).batch(2).plain_input();
    check_all("conv_stem_winograd@1", 4, &shapes.map(Case::plain_input), &fused);
    let pooled = [
        case(3, [30, 34], 64, 7, 2, 3).pool(3, 2, 1, 1),
        case(3, [15, 17], 24, 3, 2, 1).batch(3).pool(3, 2, 1, 1),
        case(1, [28, 27], 20, 5, 2, 0).batch(2).pool(3, 2, 0, 0),
        case(4, [9, 13], 48, 4, 2, 2).pool(3, 2, 0, 1),
        case(2, [1, 1], 5, 3, 2, 3).pool(3, 2, 2, 0),
        case(1, [1, 1], 1, 3, 2, 1).batch(3).pool(3, 2, 1, 1),
        case(3, [16, 16], 40, 6, 2, 2).batch(2).pool(3, 2, 2, 2),
        case(3, [61, 224], 64, 7, 2, 3).pool(3, 2, 1, 1),
    ];
    let fused = case(3, [13, 12], 21, 5, 2, 2).batch(2).pool(3, 2, 1, 1);
    let unary = EpilogueStep::Unary;
    let chains = [
        vec![],
        vec![unary(UnaryOp::Clamp { low: 0.5, high: 6.0 }), BIAS],
        vec![unary(UnaryOp::Cos), BIAS],
        vec![BIAS, unary(UnaryOp::Neg), unary(UnaryOp::Gelu)],
    ];
    let cases = pooled.into_iter().chain(chains.map(|steps| fused.clone().steps(&steps)));
    let tasks = cases.map(Case::plain_input).enumerate();
    let tasks = tasks.flat_map(|(k, case)| isas(k).map(|isa| (case.task(isa), k as u64)));
    let cases: Vec<_> = tasks.map(|(task, k)| (task.clone(), random(&task, k))).collect();
    check_points(family("conv_stem_winograd@1"), &cases, 4);
}

#[test]
fn pooled_stem() {
    let shapes = [
        case(3, [30, 34], 64, 7, 2, 3).pool(3, 2, 1, 1),
        case(3, [15, 17], 24, 3, 2, 1).batch(3).pool(3, 2, 1, 1),
        case(1, [28, 27], 20, 5, 1, 0).batch(2).pool(3, 2, 0, 0),
        case(4, [9, 13], 48, 3, 1, 2).dilation(2).pool(3, 2, 0, 1),
        case(2, [1, 1], 5, 3, 1, 3).pool(3, 2, 2, 0),
        case(1, [1, 1], 1, 1, 1, 0).batch(3).pool(3, 2, 1, 1),
        case(3, [16, 16], 40, 4, 4, 0).batch(2).pool(3, 2, 2, 2),
    ];
    let fused = case(3, [9, 8], 21, 3, 1, 1).batch(2).plain_input().pool(3, 2, 1, 1);
    let unary = EpilogueStep::Unary;
    let chains = [vec![], vec![BIAS], vec![unary(UnaryOp::Cos), BIAS], vec![BIAS, unary(UnaryOp::Neg), unary(UnaryOp::Gelu)]];
    let shapes = shapes.map(Case::plain_input).into_iter().chain(chains.map(|steps| fused.clone().steps(&steps)));
    let tasks: Vec<_> = shapes.enumerate().flat_map(|(k, case)| isas(k).map(|isa| (case.task(isa), k as u64))).collect();
    let mut cases: Vec<_> = tasks.iter().map(|(task, k)| (task.clone(), random(task, *k))).collect();
    check_points(family("conv_stem@1"), &cases, 4);
    // A value that is no number shows in every window that has it; of infinities the largest wins.
    for (_, raw) in &mut cases {
        let input: &mut [f32] = bytemuck::cast_slice_mut(&mut raw[0]);
        for (k, special) in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY].into_iter().enumerate() {
            let at = (k + 1) * input.len() / 4;
            input[at] = special;
        }
    }
    check_points(family("conv_stem@1"), &cases, 2);
    check_points(family("conv_naive@1"), &cases, 1);
}

#[test]
fn im2col() {
    let shapes = [
        case(3, [30, 34], 64, 7, 2, 3).plain_input(),
        case(32, [9, 7], 32, 3, 1, 1).groups(8).plain_input().batch(2),
        case(12, [9, 13], 30, 3, 1, 2).groups(6).dilation(2),
        case(20, [6, 5], 16, 1, 1, 0).batch(3),
        case(2, [1, 1], 5, 3, 1, 3).plain_input(),
        case(5, [8, 4], 1, 3, 2, 1).extra(1),
    ];
    let fused = case(5, [6, 9], 21, 3, 2, 1).batch(2).plain_output();
    check_all("conv_im2col@1", 2, &shapes.map(Case::plain_output), &fused);
}

/// A point is transferred from a task to a similar one: the same point where it is legal, else the
/// best guess of the same compile-time parameters.
#[test]
fn points_stand_for_those_of_similar_tasks_and_units_for_their_points() {
    let task = |batch: i64, channels: i64| {
        let mut task = case(channels, [14, 14], 64, 3, 1, 1).task(CpuIsa::X86_64V3);
        task.point = vec![batch];
        task
    };
    let (small, large) = (task(1, 32), task(8, 64));
    assert_eq!(small.likeness().unwrap().distance(&large.likeness().unwrap()), Some(3.0 + 1.0 + 1.0 + 3.0));
    assert_eq!(
        small.likeness().unwrap().distance(&case(32, [14, 14], 64, 3, 2, 1).task(CpuIsa::X86_64V3).likeness().unwrap()),
        None
    );

    let all = candidates(&small, aotfarm_protocol::TuneMode::Full, None);
    let winograd: Vec<_> = all.iter().filter(|c| c.family == "conv_winograd@1").collect();
    let mut moved = 0;
    for own in &winograd {
        assert_eq!(transfer(&small, own.family, &own.params).unwrap().id, own.id);
        let there = transfer(&large, own.family, &own.params).unwrap();
        moved += usize::from(there.params != own.params);
        for name in ["mr", "nv", "out", "pf"] {
            assert_eq!(there.params[name], own.params[name]);
        }
        let same = own.same_unit(&small);
        assert!(same.iter().any(|s| s.id == own.id) && same.iter().all(|s| s.unit == own.unit));
        assert_eq!(same.len(), winograd.iter().filter(|c| c.unit == own.unit).count());
    }
    assert!(moved > 0, "chunks of the larger task are other ones");
    assert!(
        transfer(&small, "conv_depthwise@1", &winograd[0].params).is_none()
            && transfer(&small, "gone@1", &winograd[0].params).is_none()
    );
}
