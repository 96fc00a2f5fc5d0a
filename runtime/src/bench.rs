use std::time::{Duration, Instant};

use crate::{RunError, Session, TensorRef};

/// Runs whose times are kept, at least and at most.
const RUNS: std::ops::RangeInclusive<usize> = 3..=1_000_000;

/// Runs the model `warmup` times, and then again and again until `budget` has passed, but at least three times. Gives the wall time of each timed
/// run in seconds, in order. Output memory is allocated once, so that what is timed is the model.
pub fn bench(session: &mut Session, inputs: &[TensorRef<'_>], warmup: u32, budget: Duration) -> Result<Vec<f64>, RunError> {
    let mut outputs = session.outputs_for(inputs)?;
    for _ in 0..warmup {
        session.run_into(inputs, &mut outputs)?;
    }
    let mut samples = Vec::new();
    let start = Instant::now();
    while samples.len() < *RUNS.start() || (start.elapsed() < budget && samples.len() < *RUNS.end()) {
        let before = Instant::now();
        session.run_into(inputs, &mut outputs)?;
        samples.push(before.elapsed().as_secs_f64());
    }
    Ok(samples)
}
