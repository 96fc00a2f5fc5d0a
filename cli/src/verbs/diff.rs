use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use aotfarm_compiler::{Held, Trace, TraceError, check_case, import};
use aotfarm_protocol::Digest;
use aotfarm_runtime::{Difference, Model, Session, SessionOptions, Tensor, TensorRef, compare};
use clap::Args;

use crate::cli::Cli;
use crate::failure::Failure;
use crate::samples::{self, Side};
use crate::tensors;

/// Find the first step of an artifact whose result differs from the model's
#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// The model that the artifact was compiled from: .graph, .pt2 or .onnx
    model: PathBuf,
    /// The artifact, as `aotfarm pull` wrote it
    artifact: PathBuf,
    /// The inputs, a .safetensors file that holds them by name or as in.0, in.1 … [default: random]
    #[arg(long, value_name = "FILE")]
    samples: Option<PathBuf>,
    /// Compare with these values, by the names of the export's nodes, instead of the reference interpreter's: a .safetensors file
    #[arg(long, value_name = "FILE", requires = "samples")]
    against: Option<PathBuf>,
    /// Print every step, not only the first that differs
    #[arg(long)]
    all: bool,
    /// Threads [default: all cores]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    threads: u32,
    /// The GPU to run on, by the driver's number; for an artifact for GPUs
    #[arg(long, default_value_t = 0, value_name = "N")]
    device: i32,
}

/// A compared result of a step.
struct Compared<'a> {
    step: usize,
    label: &'a str,
    held: &'a Held,
    difference: Difference,
}

impl Diff {
    pub(crate) fn run(self, cx: &Cli) -> anyhow::Result<ExitCode> {
        let graph = tensors::load_graph(&self.model)?;
        let model = Model::load(&self.artifact)?;
        let metadata = model.metadata();
        if metadata.graph != Digest::of(import::graph::write(&graph)) {
            let (artifact, file) = (self.artifact.display(), self.model.display());
            cx.out.say(format!("note: {artifact} was compiled from another file than {file}, or by another release"));
        }
        let inputs = match &self.samples {
            Some(file) => samples::of_graph(&tensors::read(file)?, Side::Input, &graph)?,
            None => {
                let calls = check_case(&graph, None).map_err(|e| Failure::input(e.to_string()).hint_if(e.hint()))?;
                calls.into_iter().next().unwrap_or_default().inputs
            }
        };
        let trace = Trace::new(graph, metadata, &inputs).map_err(|e| untraced(&e))?;
        let results = self.results(&model, &trace, &inputs)?;
        let against = self.against.as_ref().map(|file| tensors::read(file)).transpose()?;
        let compared = compare_all(&trace, &results, against.as_deref(), metadata.precision.tolerance())?;
        if compared.is_empty() {
            let names: Vec<_> = (0..trace.len()).filter_map(|step| trace.held(step, 0)?.export.as_deref()).take(8).collect();
            return Err(Failure::input("none of the values is one that a step of the artifact holds")
                .hint(format!("name them as the export's nodes are named: {} …", names.join(", ")))
                .into());
        }
        self.tell(cx, &trace, &compared)
    }

    /// What each step of the artifact writes, by step and output.
    fn results(
        &self,
        model: &Model,
        trace: &Trace,
        inputs: &[aotfarm_compiler::interp::Tensor],
    ) -> anyhow::Result<BTreeMap<(usize, usize), Vec<u8>>> {
        let mut session = Session::with(model, SessionOptions { threads: self.threads, device: self.device })?;
        let inputs = inputs.iter().map(tensors::from_reference).collect::<anyhow::Result<Vec<_>>>()?;
        let views: Vec<TensorRef<'_>> = inputs.iter().map(Tensor::view).collect();
        let (mut results, mut failed) = (BTreeMap::<_, Vec<u8>>::new(), None);
        session.run_watched(&views, &mut |result| {
            let place = (result.step, result.output);
            let Some(held) = trace.held(result.step, result.output) else { return };
            match trace.elements(place, result.dims, result.bytes, held.reference.dtype) {
                // A step that is done for a few images at a time comes back for the next ones.
                Ok(elements) => results.entry(place).or_default().extend(elements),
                Err(error) => _ = failed.get_or_insert(error),
            }
        })?;
        match failed {
            Some(error) => Err(untraced(&error).into()),
            None => Ok(results),
        }
    }

    /// Says what differs first; fails if anything does.
    fn tell(&self, cx: &Cli, trace: &Trace, compared: &[Compared<'_>]) -> anyhow::Result<ExitCode> {
        let wrong = compared.iter().find(|c| !c.difference.is_right());
        let bytes: import::SharedBytes = Arc::new(tensors::map(&self.model)?);
        let lines = import::source_lines(&bytes);
        let line = |held: &Held| held.source.split_once(':').and_then(|(node, _)| lines.get(node));
        if cx.out.json {
            for c in compared.iter().filter(|c| self.all || wrong.is_some_and(|wrong| std::ptr::eq(wrong, *c))) {
                let worst = c.difference.worst.as_ref();
                cx.out.json_line(&serde_json::json!({
                    "step": c.step, "label": c.label, "value": c.held.name, "node": c.held.source, "line": line(c.held),
                    "error": c.difference.error, "tolerance": c.difference.tolerance, "right": c.difference.is_right(),
                    "index": worst.map(|w| &w.index), "artifact": worst.map(|w| &w.got), "expected": worst.map(|w| &w.expected),
                }));
            }
        } else if self.all {
            for c in compared {
                let mark = if c.difference.is_right() { ' ' } else { '!' };
                cx.out.data(format!("{mark} {:4}  {:8.1e}  {}  {}", c.step, c.difference.error, c.held.name, c.label));
            }
        }
        let Some(Compared { step, label, held, difference }) = wrong else {
            let worst = compared.iter().map(|c| c.difference.error).fold(0.0, f64::max);
            let (n, of) = (compared.len(), trace.len());
            cx.out
                .say(format!("no step differs: {n} values of {of} steps compared, the largest relative L2 error is {worst:.1e}"));
            return Ok(ExitCode::SUCCESS);
        };
        if !cx.out.json {
            cx.out.data(format!("step {step} of {} differs first", trace.len()));
            cx.out.data(format!("  step      {label}"));
            cx.out.data(format!("  value     {} {}{:?}", held.name, held.reference.dtype, held.reference.shape));
            cx.out.data(format!("  operator  {}", held.source));
            if let Some(line) = line(held) {
                cx.out.data(format!("  source    {line}"));
            }
            if let Some(worst) = &difference.worst {
                cx.out.data(format!("  artifact  {} at {:?}", worst.got, worst.index));
                cx.out.data(format!("  expected  {}", worst.expected));
            }
        }
        Err(Failure::failed(format!("step {step} (`{label}`): {difference}")).into())
    }
}

/// The results that can be compared, in the order of the steps.
fn compare_all<'a>(
    trace: &'a Trace,
    results: &BTreeMap<(usize, usize), Vec<u8>>,
    against: Option<&[(String, Tensor)]>,
    tolerance: f64,
) -> anyhow::Result<Vec<Compared<'a>>> {
    let mut compared = Vec::new();
    for (&(step, output), bytes) in results {
        let Some(held) = trace.held(step, output) else { continue };
        let expected = match against {
            None => tensors::from_reference(&held.reference)?,
            Some(given) => {
                let found = given.iter().find(|(name, _)| Some(name) == held.export.as_ref());
                let Some((_, tensor)) = found else { continue };
                tensor.clone()
            }
        };
        // A step may hold a value in another shape of the same elements.
        let Ok(got) = Tensor::new(held.reference.dtype, expected.shape().to_vec(), bytes) else { continue };
        let difference = compare(got.view(), expected.view(), tolerance)
            .map_err(|e| Failure::input(format!("`{}` {e}", held.export.as_ref().unwrap_or(&held.name))))?;
        compared.push(Compared { step, label: trace.label(step), held, difference });
    }
    Ok(compared)
}

fn untraced(error: &TraceError) -> Failure {
    let failure = Failure::input(format!("the artifact cannot be compared with the model: {error}"));
    match error {
        TraceError::OtherPlan { .. } | TraceError::Bytes { .. } => {
            failure.hint("give the model that it was compiled from, and the release of aotfarm that compiled it")
        }
        _ => failure,
    }
}
