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
/// there, so that what is timed is the model. Each run is the first of a session as far as states
/// go: one that counts its runs, and reads where the count says, has an end.
pub fn bench(session: &mut Session, inputs: &[TensorRef<'_>], warmup: u32, budget: Duration) -> Result<Vec<f64>, RunError> {
    #[cfg(feature = "cuda")]
    if let Some(gpu) = session.gpu().map_err(|e| refused(&e))? {
        return on_gpu(session, &gpu, inputs, warmup, budget);
    }
    let mut outputs = session.outputs_for(inputs)?;
    time(session, warmup, budget, |session| session.run_into(inputs, &mut outputs))
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
    time(session, warmup, budget, |session| session.run_on_device(&inputs, &mut outputs))
}

#[cfg(feature = "cuda")]
fn refused(error: &GpuError) -> RunError {
    RunError { kind: RunErrorKind::System, message: error.to_string() }
}

fn time(
    session: &mut Session,
    warmup: u32,
    budget: Duration,
    mut run: impl FnMut(&mut Session) -> Result<(), RunError>,
) -> Result<Vec<f64>, RunError> {
    for _ in 0..warmup {
        session.reset()?;
        run(session)?;
    }
    let mut samples = Vec::new();
    let start = Instant::now();
    while samples.len() < *RUNS.start() || (start.elapsed() < budget && samples.len() < *RUNS.end()) {
        session.reset()?;
        let before = Instant::now();
        run(session)?;
        samples.push(before.elapsed().as_secs_f64());
    }
    Ok(samples)
}
