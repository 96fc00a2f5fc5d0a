use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use aotfarm_client::Client;
use aotfarm_compiler::interp::Case;
use aotfarm_compiler::ir::Graph;
use aotfarm_compiler::{check_samples, with_ranges};
use aotfarm_coordinator::{CompilerPlanner, Planner as _};
use aotfarm_protocol::endpoints::client;
use aotfarm_protocol::{Accuracy, DeviceKind, Digest, DimRange, JobRequest, Precision, Reference, Target, TuneMode, WorkerState};
use bytes::Bytes;
use clap::{Args, ValueEnum};

use crate::cli::{Cli, Farm};
use crate::failure::Failure;
use crate::options::Dtype;
use crate::samples::{self, Side};
use crate::{tensors, watch};

/// How long `--device cuda` waits for a worker with a GPU to register.
const GPU_WAIT: Duration = Duration::from_secs(5);

/// Compile a model on the farm, tune it, and publish it as the next version
#[derive(Debug, Clone, Args)]
pub(crate) struct Submit {
    /// The model: .graph, .pt2 (torch.export.save) or .onnx
    pub(crate) file: PathBuf,
    /// The model's name in the registry [default: the file's name without ending]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// What to compile for: `cpu` is the best target of this host, `cuda` the GPUs of the farm
    #[arg(long, default_value = "cpu", value_name = "DEVICE")]
    pub(crate) device: String,
    /// Compile for these targets instead, as in cpu-x86_64-v3,cpu-x86_64-v4
    #[arg(long, value_delimiter = ',', value_name = "TARGET", conflicts_with = "device")]
    pub(crate) target: Vec<Target>,
    /// Allow other sizes of a symbolic dimension, as in batch=1..64
    #[arg(long, value_name = "NAME=MIN..MAX", value_parser = parse_dim)]
    pub(crate) dim: Vec<DimRange>,
    /// How much to tune
    #[arg(long, value_enum, default_value_t = Tune::Quick)]
    pub(crate) tune: Tune,
    /// Most candidates for one task [default: the tuning mode's]
    #[arg(long, value_name = "N")]
    pub(crate) trials: Option<u32>,
    /// Time that measuring may take in all, as in 60s or 5m [default: the tuning mode's]
    #[arg(long, value_name = "TIME")]
    pub(crate) budget: Option<humantime::Duration>,
    /// Sizes of the dynamic dimension to tune at [default: the ends of its range, the exporter's hint, and what lies far between]
    #[arg(long, value_delimiter = ',', value_name = "N")]
    pub(crate) tune_at: Vec<i64>,
    /// What a GPU computes in; inputs and outputs stay as the model has them
    #[arg(long, value_enum, default_value_t)]
    pub(crate) dtype: Dtype,
    /// How exact the kernels must be, each against sums in f64
    #[arg(long, value_enum, default_value_t = Exactness::Default)]
    pub(crate) accuracy: Exactness,
    /// Let cuDNN and cuBLASLt do what they are faster at: the artifact then needs them where it runs
    #[arg(long)]
    pub(crate) allow_vendor: bool,
    /// Inputs to check the artifacts with, a .safetensors file that holds them by name or as in.0, in.1 …; they are kept with the
    /// version [default: random ones]
    #[arg(long, value_name = "FILE")]
    pub(crate) samples: Option<PathBuf>,
    /// The outputs that the samples must lead to, by name or as out.0, out.1 … [default: those of the reference interpreter]
    #[arg(long, value_name = "FILE", requires = "samples")]
    pub(crate) expect: Option<PathBuf>,
    /// Threads to tune and profile with [default: the measuring device's cores]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<u32>,
    /// Return when the job is queued
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Do not print the AUTOTUNE tables
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// How much to tune.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Tune {
    /// Measure nothing: known records, else defaults.
    None,
    /// A bounded search.
    Quick,
    /// The whole space, as far as the budget goes.
    Full,
}

/// How exact the kernels must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Exactness {
    /// As a plain sum in the model's type: no large Winograd tiles.
    Strict,
    /// What rounding in the model's type explains.
    Default,
}

impl Submit {
    /// A submission of `file` as `name` with the defaults of the command line.
    pub(crate) fn of(file: &std::path::Path, name: &str, quiet: bool) -> Self {
        Self {
            file: file.to_owned(),
            name: Some(name.to_owned()),
            device: "cpu".to_owned(),
            target: Vec::new(),
            dim: Vec::new(),
            tune: Tune::Quick,
            trials: None,
            budget: None,
            tune_at: Vec::new(),
            dtype: Dtype::Fp32,
            accuracy: Exactness::Default,
            allow_vendor: false,
            samples: None,
            expect: None,
            threads: None,
            detach: false,
            quiet,
        }
    }

    pub(crate) async fn run(self, cx: &Cli) -> anyhow::Result<ExitCode> {
        if self.detach && cx.global.coordinator.is_none() {
            return Err(Failure::input("--detach needs a coordinator that outlives this command")
                .hint("start `aotfarm coordinator` and a worker, and pass --coordinator URL")
                .into());
        }
        let prepared = self.prepare()?;
        let farm = cx.working_farm().await?;
        let done = self.submit(cx, &farm, prepared).await;
        if let Some(embedded) = farm.embedded.and_then(std::sync::Arc::into_inner) {
            embedded.finish(&cx.out).await?;
        }
        done
    }

    /// Reads and checks everything before anything is started or sent.
    pub(crate) fn prepare(&self) -> anyhow::Result<Prepared> {
        let name = match &self.name {
            Some(name) => name.clone(),
            None => self.file.file_stem().unwrap_or_default().to_string_lossy().to_ascii_lowercase(),
        };
        if !Reference::is_name(&name) {
            return Err(Failure::input(format!("`{name}` cannot name a model (a-z, 0-9, `.`, `_`, `-`; at most 128)"))
                .hint("choose one with --name")
                .into());
        }
        let targets = match (self.target.as_slice(), self.device.as_str()) {
            ([], "cpu") => vec![host_target()?],
            // Which GPUs there are, the farm knows.
            ([], "cuda") => Vec::new(),
            ([], other) => {
                return Err(Failure::input(format!("`{other}` is not a device that can be compiled for: expected cpu or cuda"))
                    .hint("--target takes exact targets, as in cuda-sm_90")
                    .into());
            }
            (targets, _) => targets.to_vec(),
        };
        if self.dtype != Dtype::Fp32 && targets.iter().any(|t| matches!(t, Target::Cpu(_))) {
            return Err(Failure::input(format!("CPUs compute in fp32 only, not in {}", Precision::from(self.dtype)))
                .hint("choose a GPU with --device cuda or --target cuda-sm_NN")
                .into());
        }
        if self.allow_vendor && !targets.is_empty() && targets.iter().all(|t| matches!(t, Target::Cpu(_))) {
            return Err(Failure::input("--allow-vendor is about NVIDIA's libraries, and none of the targets is a GPU of theirs")
                .hint("choose a GPU with --device cuda or --target cuda-sm_NN")
                .into());
        }
        let graph = tensors::load_graph(&self.file)?;
        let file = Bytes::from(aotfarm_compiler::import::graph::write(&graph));
        let samples = match &self.samples {
            Some(samples) => Some(Bytes::from(Case::write_calls(&self.case(graph, samples)?))),
            None => None,
        };
        let budget_s = self.budget.map(|b| u32::try_from(b.as_secs().max(1)).unwrap_or(u32::MAX));
        let tune = match self.tune {
            Tune::None => TuneMode::None,
            Tune::Quick => TuneMode::Quick,
            Tune::Full => TuneMode::Full,
        };
        let request = JobRequest {
            name,
            graph: Digest::of(&file),
            targets,
            dims: self.dim.clone(),
            tune,
            trials: self.trials,
            budget_s,
            tune_at: self.tune_at.clone(),
            accuracy: match self.accuracy {
                Exactness::Strict => Accuracy::Strict,
                Exactness::Default => Accuracy::Default,
            },
            precision: self.dtype.into(),
            threads: self.threads,
            allow_vendor: self.allow_vendor,
            samples: samples.as_ref().map(Digest::of),
        };
        let prepared = Prepared { request, graph: file, samples };
        if !prepared.request.targets.is_empty() {
            prepared.check()?;
        }
        Ok(prepared)
    }

    /// The user's inputs and outputs, call by call, which fit the graph.
    fn case(&self, graph: Graph, samples: &Path) -> anyhow::Result<Vec<Case>> {
        let mut calls = Vec::new();
        for given in samples::calls(tensors::read(samples)?) {
            calls.push(Case { inputs: samples::of_graph(&given, Side::Input, &graph)?, ..Case::default() });
        }
        if let Some(expected) = &self.expect {
            let expected = samples::calls(tensors::read(expected)?);
            if expected.len() != calls.len() {
                let (of, samples) = (expected.len(), calls.len());
                return Err(
                    Failure::input(format!("the outputs of {of} calls are expected, and the samples are of {samples}")).into()
                );
            }
            for (case, given) in calls.iter_mut().zip(&expected) {
                case.outputs = samples::of_graph(given, Side::Output, &graph)?;
                case.writes = samples::writes(given).iter().map(tensors::reference).collect();
            }
        }
        let graph = with_ranges(graph, &self.dim).map_err(|e| Failure::input(e.to_string()).hint_if(e.hint()))?;
        let fits = check_samples(&graph, &calls);
        fits.map_err(|e| Failure::input(format!("the samples do not fit {}: {e}", self.file.display())))?;
        Ok(calls)
    }

    /// Sends the job and follows it.
    pub(crate) async fn submit(&self, cx: &Cli, farm: &Farm, mut prepared: Prepared) -> anyhow::Result<ExitCode> {
        if prepared.request.targets.is_empty() {
            prepared.request.targets = gpu_targets(&farm.client).await?;
            prepared.check()?;
        }
        let Prepared { request, graph, samples } = prepared;
        farm.client.put_blob(graph).await.context("failed to upload the graph")?;
        if let Some(samples) = samples {
            farm.client.put_blob(samples).await.context("failed to upload the samples")?;
        }
        let job = farm.client.call(client::SUBMIT.request(&request)).await?;
        if self.detach {
            if cx.out.json {
                cx.out.json_line(&job);
            } else {
                cx.out.data(job.id);
                cx.out.say(format!("follow it with `aotfarm job {}`", job.id));
            }
            return Ok(ExitCode::SUCCESS);
        }
        let published = watch::Watch::new(&cx.out, !self.quiet).follow(&farm.client, job.id).await?;
        if !cx.out.json {
            cx.out.data(watch::outcome(&request.name, &published, &cx.out));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// A submission that was read and checked.
pub(crate) struct Prepared {
    request: JobRequest,
    /// The `.graph` file.
    graph: Bytes,
    /// The user's case.
    samples: Option<Bytes>,
}

impl Prepared {
    /// That the graph can be compiled for the targets: all that cannot is told here, before anything is sent.
    fn check(&self) -> Result<(), Failure> {
        let planned = CompilerPlanner.plan(self.graph.clone(), &self.request);
        planned.map(|_| ()).map_err(|refusal| Failure::input(refusal.message).hint_if(refusal.hint))
    }
}

fn host_target() -> anyhow::Result<Target> {
    aotfarm_runtime::host_targets().first().copied().ok_or_else(|| {
        let here = |target: &Target| target.architecture() == Some(std::env::consts::ARCH);
        let why = Target::CPUS.into_iter().find(here).and_then(aotfarm_runtime::why_not);
        let why = why.unwrap_or_else(|| format!("is {}", std::env::consts::ARCH));
        Failure::input(format!("this host {why}, and runs no target of a CPU")).hint("name one with --target").into()
    })
}

/// The best target of each kind of GPU that a worker of the farm has. Workers may be registering at this moment.
async fn gpu_targets(farm: &Client) -> anyhow::Result<Vec<Target>> {
    let until = tokio::time::Instant::now() + GPU_WAIT;
    loop {
        let workers = farm.call(client::WORKERS.request()).await?;
        let devices = workers.iter().filter(|w| w.state != WorkerState::Stale).filter_map(|w| w.capabilities.device.as_ref());
        let gpus = devices.filter(|d| d.kind == DeviceKind::Cuda);
        let targets: BTreeSet<Target> = gpus.filter_map(|d| d.targets.first().copied()).collect();
        if !targets.is_empty() {
            return Ok(targets.into_iter().collect());
        }
        if tokio::time::Instant::now() >= until {
            return Err(Failure::input("no worker of the farm has a GPU")
                .hint("`aotfarm doctor` tells what this host lacks; --target cuda-sm_90 compiles without a GPU, unmeasured")
                .into());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn parse_dim(text: &str) -> Result<DimRange, String> {
    let parse = || {
        let (name, range) = text.split_once('=')?;
        let (min, max) = range.split_once("..")?;
        let (min, max) = (min.trim().parse::<i64>().ok()?, max.trim().parse::<i64>().ok()?);
        (0 <= min && min <= max && 1 <= max && !name.is_empty()).then(|| DimRange { name: name.to_owned(), min, max })
    };
    parse().ok_or_else(|| "expected NAME=MIN..MAX with 0 ≤ MIN ≤ MAX and 1 ≤ MAX, as in batch=1..32".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dims_parse_and_refuse_empty_ranges() {
        assert_eq!(parse_dim("batch=1..32"), Ok(DimRange { name: "batch".into(), min: 1, max: 32 }));
        assert_eq!(parse_dim("past=0..64"), Ok(DimRange { name: "past".into(), min: 0, max: 64 }));
        for bad in ["", "batch", "batch=", "batch=3", "batch=3..1", "batch=0..0", "batch=-1..4", "=1..2", "b=1..x"] {
            assert!(parse_dim(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn vendors_libraries_are_for_gpus_and_only_when_allowed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("m.graph");
        let graph = aotfarm_compiler::ir::example("resnet18").unwrap();
        std::fs::write(&file, aotfarm_compiler::import::graph::write(&graph)).unwrap();
        let submit = |device: &str, allow_vendor| {
            let defaults = Submit::of(&file, "m", true);
            Submit { device: device.to_owned(), allow_vendor, ..defaults }.prepare()
        };
        assert!(submit("cuda", true).unwrap().request.allow_vendor);
        let request = submit("cuda", false).unwrap().request;
        // The key of a job is made of this text.
        assert!(!request.allow_vendor && !serde_json::to_string(&request).unwrap().contains("vendor"));
        let refused = submit("cpu", true).err().unwrap().to_string();
        assert!(refused.contains("--allow-vendor is about NVIDIA's libraries"), "{refused}");
    }
}
