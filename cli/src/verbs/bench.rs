use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use aotfarm_protocol::{ArtifactMetadata, Quantiles};
use aotfarm_runtime::{Model, Session, SessionOptions, Tensor, TensorRef};
use clap::Args;

use crate::cli::Cli;
use crate::failure::Failure;
use crate::inputs::random_inputs;
use crate::options::{SizeList, parse_sizes};
use crate::output::{milliseconds, table};

/// Time an artifact end to end
#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// The artifact, as `aotfarm pull` wrote it
    artifact: PathBuf,
    /// Sizes of a symbolic dimension, as in batch=1,8,32 [default: the smallest]
    #[arg(long, value_name = "NAME=N,…", value_parser = parse_sizes)]
    at: Vec<SizeList>,
    /// Numbers of threads [default: all cores]
    #[arg(long, value_delimiter = ',', value_name = "N,…", default_values_t = [0])]
    threads: Vec<u32>,
    /// The GPU to run on, by the driver's number; for an artifact for GPUs
    #[arg(long, default_value_t = 0, value_name = "N")]
    device: i32,
    /// Runs before the clock starts
    #[arg(long, default_value_t = 3, value_name = "N")]
    warmup: u32,
    /// Time for each combination
    #[arg(long, default_value = "2s", value_name = "TIME")]
    time: humantime::Duration,
    /// Print the median of each step, too
    #[arg(long)]
    steps: bool,
}

impl Bench {
    pub(crate) fn run(self, cx: &Cli) -> anyhow::Result<ExitCode> {
        let model = Model::load(&self.artifact)?;
        let metadata = model.metadata();
        let mut rows = Vec::new();
        for &threads in &self.threads {
            let mut session = Session::with(&model, SessionOptions { threads, device: self.device })?;
            for point in points(metadata, &self.at)? {
                let inputs = random_inputs(metadata, &point)?;
                let views: Vec<TensorRef<'_>> = inputs.iter().map(Tensor::view).collect();
                let samples = aotfarm_runtime::bench(&mut session, &views, self.warmup, self.time.into())?;
                let Some(q) = Quantiles::of(&samples) else { continue };
                let name = point.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" ");
                let steps = if self.steps { step_medians(&mut session, &views, self.time.into())? } else { Vec::new() };
                if cx.out.json {
                    cx.out.json_line(&serde_json::json!({ "point": point, "threads": threads, "latency": q, "samples": samples, "steps": steps }));
                }
                let threads = if threads == 0 { "all".to_owned() } else { threads.to_string() };
                rows.push(vec![
                    name,
                    threads,
                    milliseconds(q.min),
                    milliseconds(q.p10),
                    milliseconds(q.p50),
                    milliseconds(q.p90),
                    samples.len().to_string(),
                ]);
                for (label, seconds) in steps {
                    rows.push(vec![
                        format!("  {label}"),
                        String::new(),
                        String::new(),
                        String::new(),
                        milliseconds(seconds),
                        String::new(),
                        String::new(),
                    ]);
                }
            }
        }
        if !cx.out.json {
            cx.out.data(table(&["POINT", "THREADS", "MIN", "P10", "P50", "P90", "N"], &rows, &[1, 2, 3, 4, 5, 6]));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Median seconds of each step, by label.
fn step_medians(session: &mut Session, inputs: &[TensorRef<'_>], budget: Duration) -> anyhow::Result<Vec<(String, f64)>> {
    let labels: Vec<String> = session.model().metadata().steps.iter().map(|s| s.label.clone()).collect();
    let mut samples: Vec<Vec<f64>> = vec![Vec::new(); labels.len()];
    let start = std::time::Instant::now();
    while samples.first().is_some_and(Vec::is_empty) || start.elapsed() < budget {
        session.reset()?;
        let (_, seconds) = session.run_timed(inputs)?;
        samples.iter_mut().zip(seconds).for_each(|(s, t)| s.push(t));
        if labels.is_empty() {
            break;
        }
    }
    Ok(labels.into_iter().zip(samples.iter().filter_map(|s| Some(Quantiles::of(s)?.p50))).collect())
}

/// Every combination of the wanted sizes; dimensions that are not named take their smallest.
fn points(metadata: &ArtifactMetadata, at: &[SizeList]) -> anyhow::Result<Vec<BTreeMap<String, i64>>> {
    if let Some(unknown) = at.iter().find(|l| !metadata.dims.iter().any(|d| d.name == l.name)) {
        let names: Vec<_> = metadata.dims.iter().map(|d| format!("{} ({}..{})", d.name, d.min, d.max)).collect();
        return Err(Failure::input(format!("the artifact has no dimension `{}`", unknown.name))
            .hint(format!("its dimensions are: {}", names.join(", ")))
            .into());
    }
    let mut points = vec![BTreeMap::new()];
    for dim in &metadata.dims {
        let smallest = [dim.min];
        let sizes = at.iter().find(|l| l.name == dim.name).map_or(&smallest[..], |l| &l.sizes);
        points = points
            .iter()
            .flat_map(|p| {
                sizes.iter().map(|&n| p.iter().map(|(k, v)| (String::clone(k), *v)).chain([(dim.name.clone(), n)]).collect())
            })
            .collect();
    }
    Ok(points)
}
