//! The child of a model race: times the steps of several artifacts of one model, in turn, so that
//! what disturbs the host disturbs all of them equally.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aotfarm_protocol::{ModelRaceSpec, RANK_QUANTILE, point_text, quantile};
use aotfarm_runtime::{Model, Session, Tensor, TensorRef};
use serde::{Deserialize, Serialize};

use super::talk::{read_job, say};

/// Timed runs of each artifact, at least and at most.
const ROUNDS: std::ops::RangeInclusive<usize> = 3..=100;

/// What to time.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ModelRaceJob {
    /// Points and budget.
    pub(crate) spec: ModelRaceSpec,
    /// The shared objects.
    pub(crate) artifacts: Vec<PathBuf>,
}

/// How it ended.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum ModelRaceEvent {
    /// Seconds of each step: for each point, for each artifact.
    Timed { seconds: Vec<Vec<Vec<f64>>> },
    /// An artifact cannot be run.
    Rejected { reason: String },
}

pub(super) fn run(job: &Path) -> Result<(), String> {
    let job: ModelRaceJob = read_job(job)?;
    let event = match race(&job) {
        Ok(seconds) => ModelRaceEvent::Timed { seconds },
        Err(reason) => ModelRaceEvent::Rejected { reason },
    };
    say(&event)
}

fn race(job: &ModelRaceJob) -> Result<Vec<Vec<Vec<f64>>>, String> {
    let spec = &job.spec;
    let models = job.artifacts.iter().map(|file| Model::load(file)).collect::<Result<Vec<_>, _>>().map_err(|e| e.to_string())?;
    let sessions = models.iter().map(|model| Session::new(model, spec.threads)).collect::<Result<Vec<_>, _>>();
    let mut sessions = sessions.map_err(|e| e.to_string())?;
    let Some(first) = models.first() else { return Ok(vec![Vec::new(); spec.points.len()]) };
    let time = |point| {
        time(&mut sessions, first, Duration::from_millis(spec.budget_ms), point)
            .map_err(|e| format!("at {}: {e}", point_text(point)))
    };
    spec.points.iter().map(time).collect()
}

/// Times all sessions at one point. The inputs are zeros: what they hold does not change how long it takes.
fn time(
    sessions: &mut [Session],
    model: &Model,
    budget: Duration,
    point: &BTreeMap<String, i64>,
) -> Result<Vec<Vec<f64>>, String> {
    let zeros = |port: &aotfarm_protocol::Port| {
        let shape = port.shape_at(point).map_err(|e| format!("input `{}`: {e}", port.name))?;
        Tensor::zeros(port.dtype, shape).map_err(|e| format!("input `{}`: {e}", port.name))
    };
    let inputs = model.metadata().inputs.iter().map(zeros).collect::<Result<Vec<_>, _>>()?;
    let views: Vec<TensorRef<'_>> = inputs.iter().map(Tensor::view).collect();
    let mut samples = vec![Vec::new(); sessions.len()];
    let start = Instant::now();
    for round in 0..*ROUNDS.end() {
        if round >= *ROUNDS.start() && start.elapsed() > budget {
            break;
        }
        for k in 0..sessions.len() {
            // Whoever begins a round is not always the same.
            let k = (k + round) % sessions.len();
            let mut run = || sessions[k].reset().and_then(|()| sessions[k].run_timed(&views)).map_err(|e| e.to_string());
            // The run before the timed one takes the caches from the others, as the model's last run would have.
            run()?;
            let (_, seconds) = run()?;
            samples[k].push(seconds);
        }
    }
    Ok(samples.iter().map(|runs| by_step(runs)).collect())
}

/// The time of each step by its [`RANK_QUANTILE`] over the runs.
fn by_step(runs: &[Vec<f64>]) -> Vec<f64> {
    let steps = runs.first().map_or(0, Vec::len);
    let of_step = |step: usize| {
        let seconds: Vec<f64> = runs.iter().map(|run| run[step]).collect();
        quantile(&seconds, RANK_QUANTILE).unwrap_or(f64::INFINITY)
    };
    (0..steps).map(of_step).collect()
}

#[cfg(test)]
mod tests {
    use super::by_step;

    #[test]
    fn a_step_takes_what_a_fifth_of_its_runs_stay_below() {
        let runs: Vec<Vec<f64>> = [5.0, 1.0, 2.0, 9.0, 3.0, 4.0].iter().map(|s| vec![*s, 10.0 * s]).collect();
        assert_eq!(by_step(&runs), [2.0, 20.0]);
        assert_eq!(by_step(&[]), [0.0; 0]);
    }
}
