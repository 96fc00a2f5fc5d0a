use std::time::{Duration, Instant};

use crate::{DeviceTensor, GpuError, RunError, RunErrorKind, Session, TensorRef};

/// Runs whose times are kept, at least and at most.
const RUNS: std::ops::RangeInclusive<usize> = 3..=1_000_000;

/// Runs the model `warmup` times, and then again and again until `budget` has passed, but at least three times. Gives the wall time of each timed
/// run in seconds, in order. Output memory is allocated once, and for a GPU inputs and outputs lie there, so that what is timed is the model.
pub fn bench(session: &mut Session, inputs: &[TensorRef<'_>], warmup: u32, budget: Duration) -> Result<Vec<f64>, RunError> {
    let refused = |e: GpuError| RunError { kind: RunErrorKind::System, message: e.to_string() };
    match session.gpu().map_err(refused)? {
        None => {
            let mut outputs = session.outputs_for(inputs)?;
            time(warmup, budget, || session.run_into(inputs, &mut outputs))
        }
        Some(gpu) => {
            let inputs: Result<Vec<_>, _> = inputs.iter().map(|tensor| DeviceTensor::new(&gpu, *tensor)).collect();
            let inputs = inputs.map_err(refused)?;
            let mut outputs = session.device_outputs_for(&inputs)?;
            time(warmup, budget, || session.run_on_device(&inputs, &mut outputs))
        }
    }
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
