//! A task with candidates, for tests of what is made of them.

use aotfarm_plan::spec::{EpilogueStep, KernelKind, KernelSpec, Layout, MatMulSpec, Math, Size, TensorSpec};
use aotfarm_protocol::{DType, Target, TuneMode};

use crate::candidate::Candidate;
use crate::enumerate::candidates;
use crate::task::TuningTask;

/// A linear layer of 64 rows, from 100 to 50 features.
pub fn linear() -> TuningTask {
    let plain = |shape: &[i64]| TensorSpec {
        dtype: DType::F32,
        shape: shape.iter().map(|n| Size::Const(*n)).collect(),
        layout: Layout::Plain,
    };
    let kind = KernelKind::MatMul(MatMulSpec { b_is_weight: true, b_transposed: true, epilogue: vec![EpilogueStep::Bias(1)] });
    let spec = KernelSpec {
        kind,
        inputs: vec![plain(&[64, 100])],
        weights: vec![plain(&[50, 100]), plain(&[50])],
        outputs: vec![plain(&[64, 50])],
        dims: 0,
        math: Math::Exact,
    };
    TuningTask { spec, target: Target::CPUS[0], point: vec![] }
}

/// So many candidates of a task, the naive one first.
pub fn first_candidates(task: &TuningTask, n: usize) -> Vec<Candidate> {
    let all = candidates(task, TuneMode::Full, None);
    assert!(all.len() >= n, "the test needs {n} candidates");
    all.into_iter().take(n).collect()
}
