//! The profiling child: checks an artifact against the outputs that are expected of it and times it end to end.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aotfarm_protocol::{DType, Port, ProfileSpec, point_text};
use aotfarm_runtime::{Model, Session, Tensor, TensorRef, bench, compare};
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};

use super::operand::Random;
use super::talk::{read_job, say};

/// Runs before the clock starts.
const WARM_UP: u32 = 1;
/// The share of a point's budget that goes into timing the steps one by one.
const STEPS_SHARE: f64 = 0.2;
/// Timed runs of the steps, at least and at most.
const STEP_RUNS: std::ops::RangeInclusive<usize> = 2..=50;

/// What to profile.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ProfileJob {
    /// Points, budget and tolerance.
    pub(crate) spec: ProfileSpec,
    /// The shared object.
    pub(crate) artifact: PathBuf,
    /// The check case.
    pub(crate) check: PathBuf,
}

/// One point's times.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) point: BTreeMap<String, i64>,
    pub(crate) samples: Vec<f64>,
    pub(crate) steps: Vec<(String, f64)>,
}

/// How profiling ended.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum ProfileEvent {
    /// The artifact is right; `compiler` is its compiler's version.
    Profiled { error: f64, rows: Vec<Row>, compiler: String },
    /// It is not.
    Rejected { reason: String },
}

pub(super) fn run(job: &Path) -> Result<(), String> {
    let job: ProfileJob = read_job(job)?;
    let bytes = std::fs::read(&job.check).map_err(|e| format!("could not read the check case: {e}"))?;
    say(&profile(&job, &bytes).unwrap_or_else(|reason| ProfileEvent::Rejected { reason }))
}

fn profile(job: &ProfileJob, check: &[u8]) -> Result<ProfileEvent, String> {
    let spec = &job.spec;
    let case = SafeTensors::deserialize(check).map_err(|e| format!("the check case is no safetensors file: {e}"))?;
    let model = Model::load(&job.artifact).map_err(|e| e.to_string())?;
    let metadata = model.metadata().clone();
    let mut session = Session::new(&model, spec.threads).map_err(|e| e.to_string())?;
    let mut error = check_call(&mut session, &case, "", spec.tolerance())?;
    for call in (1..).map(|n| format!("{n}.")).take_while(|call| has_call(&case, call)) {
        error = error.max(check_call(&mut session, &case, &call, spec.tolerance())?);
    }
    let inputs = of_call(&case, "", "in", metadata.inputs.len())?;
    let mut rows = Vec::with_capacity(spec.points.len());
    for point in &spec.points {
        rows.push(time(&mut session, &metadata.inputs, &inputs, &metadata.steps, spec, point)?);
    }
    Ok(ProfileEvent::Profiled { error, rows, compiler: metadata.compiler })
}

/// The tensors `{call}{kind}.0` … of the case.
fn of_call(case: &SafeTensors<'_>, call: &str, kind: &str, n: usize) -> Result<Vec<Tensor>, String> {
    (0..n).map(|i| tensor(case, &format!("{call}{kind}.{i}"))).collect()
}

fn has_call(case: &SafeTensors<'_>, call: &str) -> bool {
    case.names().iter().any(|name| name.starts_with(call))
}

/// Makes the session's next call as the case has it, and compares what it leaves. Gives the largest error.
fn check_call(session: &mut Session, case: &SafeTensors<'_>, call: &str, tolerance: f64) -> Result<f64, String> {
    let metadata = session.model().metadata().clone();
    let written: Vec<usize> = (0..metadata.inputs.len()).filter(|i| metadata.inputs[*i].written).collect();
    let mut inputs = of_call(case, call, "in", metadata.inputs.len())?;
    let expected = of_call(case, call, "out", metadata.outputs.len())?;
    let expected_writes = of_call(case, call, "write", written.len())?;
    let of = call.strip_suffix('.').map_or_else(String::new, |n| format!("call {n}, "));
    let outputs = session.run_in_place(&mut inputs).map_err(|e| format!("{of}it cannot run the check case: {e}"))?;
    let (ins, outs) = (&metadata.inputs, &metadata.outputs);
    let writes = written.into_iter().map(|i| (format!("{of}input {i} (`{}`), as it is written", ins[i].name), &inputs[i]));
    let outputs = outputs.iter().enumerate().map(|(i, output)| (format!("{of}output {i} (`{}`)", outs[i].name), output));
    let mut error = 0f64;
    for ((place, got), expected) in outputs.chain(writes).zip(expected.iter().chain(&expected_writes)) {
        let difference = compare(got.view(), expected.view(), tolerance).map_err(|e| format!("{place} {e}"))?;
        if !difference.is_right() {
            return Err(format!("{place}: {difference}"));
        }
        error = error.max(difference.error);
    }
    Ok(error)
}

/// Times the model at one point with random inputs.
fn time(
    session: &mut Session,
    ports: &[Port],
    examples: &[Tensor],
    steps: &[aotfarm_protocol::StepInfo],
    spec: &ProfileSpec,
    point: &BTreeMap<String, i64>,
) -> Result<Row, String> {
    let at = |e: String| format!("at {}: {e}", point_text(point));
    let mut random = Random::new(0x5EED);
    let inputs = ports.iter().zip(examples).map(|(port, example)| random_like(port, example, point, &mut random));
    let inputs = inputs.collect::<Result<Vec<_>, _>>().map_err(at)?;
    let views: Vec<TensorRef<'_>> = inputs.iter().map(Tensor::view).collect();
    let budget = Duration::from_millis(spec.budget_ms);
    let samples = bench(session, &views, WARM_UP, budget.mul_f64(1.0 - STEPS_SHARE)).map_err(|e| at(e.to_string()))?;
    let (start, mut times) = (Instant::now(), vec![Vec::new(); steps.len()]);
    for run in 0..*STEP_RUNS.end() {
        if run >= *STEP_RUNS.start() && start.elapsed() > budget.mul_f64(STEPS_SHARE) {
            break;
        }
        session.reset().map_err(|e| at(e.to_string()))?;
        let (_, seconds) = session.run_timed(&views).map_err(|e| at(e.to_string()))?;
        for (step, seconds) in times.iter_mut().zip(seconds) {
            step.push(seconds);
        }
    }
    let median = |mut s: Vec<f64>| {
        s.sort_by(f64::total_cmp);
        s.get(s.len() / 2).copied().unwrap_or(0.0)
    };
    let steps = steps.iter().zip(times).map(|(step, times)| (step.label.clone(), median(times))).collect();
    Ok(Row { point: point.clone(), samples, steps })
}

/// An input of the port's shape at `point`, each of its elements one of the check case's: what the model takes there, as an index or a
/// divisor, it takes here.
fn random_like(port: &Port, example: &Tensor, point: &BTreeMap<String, i64>, random: &mut Random) -> Result<Tensor, String> {
    let shape = port.shape_at(point).map_err(|e| format!("input `{}`: {e}", port.name))?;
    let mut tensor = Tensor::zeros(port.dtype, shape).map_err(|e| format!("input `{}`: {e}", port.name))?;
    let size = port.dtype.size();
    let values = example.bytes().chunks_exact(size).collect::<Vec<_>>();
    if !values.is_empty() {
        for element in tensor.bytes_mut().chunks_exact_mut(size) {
            element.copy_from_slice(values[(random.next() % values.len() as u64) as usize]);
        }
    }
    Ok(tensor)
}

fn tensor(case: &SafeTensors<'_>, name: &str) -> Result<Tensor, String> {
    let view = case.tensor(name).map_err(|_| format!("the check case has no tensor `{name}`"))?;
    let dtype = match view.dtype() {
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::Bf16,
        Dtype::F32 => DType::F32,
        Dtype::F64 => DType::F64,
        Dtype::I8 => DType::I8,
        Dtype::I16 => DType::I16,
        Dtype::I32 => DType::I32,
        Dtype::I64 => DType::I64,
        Dtype::U8 => DType::U8,
        Dtype::BOOL => DType::Bool,
        other => return Err(format!("tensor `{name}` of the check case has the unsupported type {other:?}")),
    };
    let shape = view.shape().iter().map(|n| *n as i64).collect();
    Tensor::new(dtype, shape, view.data()).map_err(|e| format!("tensor `{name}` of the check case: {e}"))
}
