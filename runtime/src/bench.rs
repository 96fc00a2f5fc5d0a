use std::time::{Duration, Instant};

#[cfg(feature = "cuda")]
use crate::gpu::{DeviceTensor, Gpu, GpuError};
#[cfg(feature = "cuda")]
use crate::session::RunErrorKind;
use crate::session::{RunError, Session};
use crate::tensor::TensorRef;

/// Runs whose times are kept, at least and at most.
const RUNS: std::ops::RangeInclusive<usize> = 3..=1_000_000;

/// Runs the model `warmup` times, and then again and again until `budget` has passed, but at least
/// three times. Gives the wall time of each timed run in seconds, in order. Output memory is
/// allocated once, and with the feature `cuda` inputs and outputs of an artifact for a GPU lie
/// there, so that what is timed is the model.
pub fn bench(session: &mut Session, inputs: &[TensorRef<'_>], warmup: u32, budget: Duration) -> Result<Vec<f64>, RunError> {
    #[cfg(feature = "cuda")]
    if let Some(gpu) = session.gpu().map_err(|e| refused(&e))? {
        return on_gpu(session, &gpu, inputs, warmup, budget);
    }
    let mut outputs = session.outputs_for(inputs)?;
    time(warmup, budget, || session.run_into(inputs, &mut outputs))
}

#[cfg(feature = "cuda")]
fn on_gpu(
    session: &mut Session,
    gpu: &Gpu,
    inputs: &[TensorRef<'_>],
    warmup: u32,
    budget: Duration,
) -> Result<Vec<f64>, RunError> {
    let inputs: Result<Vec<_>, _> = inputs.iter().map(|tensor| DeviceTensor::new(gpu, *tensor)).collect();
    let inputs = inputs.map_err(|e| refused(&e))?;
    let mut outputs = session.device_outputs_for(&inputs)?;
    time(warmup, budget, || session.run_on_device(&inputs, &mut outputs))
}

#[cfg(feature = "cuda")]
fn refused(error: &GpuError) -> RunError {
    RunError { kind: RunErrorKind::System, message: error.to_string() }
}

fn time(warmup: u32, budget: Duration, mut run: impl FnMut() -> Result<(), RunError>) -> Result<Vec<f64>, RunError> {
    for _ in 0..warmup {
        run()?;
    }
    let mut samples = Vec::new();
    let start = Instant::now();
    while samples.len() < *RUNS.start() || (start.elapsed() < budget && samples.len() < *RUNS.end()) {
        let before = Instant::now();
        run()?;
        samples.push(before.elapsed().as_secs_f64());
    }
    Ok(samples)
}
