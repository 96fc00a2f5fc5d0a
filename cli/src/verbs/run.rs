use std::path::PathBuf;
use std::process::ExitCode;

use aotfarm_runtime::{Model, Session, SessionOptions, Tensor};
use clap::Args;

use crate::cli::Cli;
use crate::failure::Failure;
use crate::inputs::random_inputs;
use crate::options::{SizeList, parse_sizes};
use crate::output::milliseconds;
use crate::tensors;

/// Run an artifact
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The artifact, as `aotfarm pull` wrote it
    artifact: PathBuf,
    /// Inputs: .npy files in order, or one .safetensors with the inputs by name or as in.0, in.1 …; none: random
    #[arg(short, long, value_name = "FILE")]
    input: Vec<PathBuf>,
    /// Sizes of random inputs, as in batch=8 [default: the smallest]
    #[arg(long, value_name = "NAME=N", value_parser = parse_sizes, conflicts_with = "input")]
    at: Vec<SizeList>,
    /// Where to write the outputs: .safetensors, or .npy for a single one
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Compare the outputs with out.0, out.1 … of the .safetensors input; fail above a relative L2 error of 1e-5 (in fp32)
    #[arg(long, requires = "input")]
    check: bool,
    /// Run so many times in one session, and show the last: a model with states goes on from what the run before left
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    calls: u32,
    /// Threads [default: all cores]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    threads: u32,
    /// The GPU to run on, by the driver's number; for an artifact for GPUs
    #[arg(long, default_value_t = 0, value_name = "N")]
    device: i32,
}

impl Run {
    pub(crate) fn run(self, cx: &Cli) -> anyhow::Result<ExitCode> {
        let model = Model::load(&self.artifact)?;
        let mut session = Session::with(&model, SessionOptions { threads: self.threads, device: self.device })?;
        let metadata = model.metadata();
        let mut given = Vec::new();
        for file in &self.input {
            given.extend(tensors::read(file)?);
        }
        let inputs = if self.input.is_empty() {
            let smallest = metadata.dims.iter().map(|d| (d.name.clone(), d.min));
            let chosen = self.at.iter().filter_map(|list| Some((list.name.clone(), *list.sizes.first()?)));
            random_inputs(metadata, &smallest.chain(chosen).collect())?
        } else {
            ordered(&given, metadata.inputs.iter().map(|p| p.name.as_str()), self.input.len())?
        };
        let start = std::time::Instant::now();
        let (mut changed, mut outputs) = (inputs.clone(), Vec::new());
        let mut seconds = 0.0;
        for call in 0..self.calls {
            changed.clone_from(&inputs);
            outputs = session.run_in_place(&mut changed)?;
            if call == 0 {
                seconds = start.elapsed().as_secs_f64();
            }
        }
        let names = metadata.outputs.iter().map(|p| p.name.clone());
        let mut named: Vec<(String, Tensor)> = names.zip(outputs).collect();
        let errors = if self.check { compare(&named, &given)? } else { Vec::new() };
        // What the model has written into its inputs.
        let written = metadata.inputs.iter().zip(changed).filter(|(port, _)| port.written);
        named.extend(written.map(|(port, tensor)| (port.name.clone(), tensor)));
        if let Some(file) = &self.output {
            tensors::write(file, &named)?;
        }
        if cx.out.json {
            let outputs: Vec<_> =
                named.iter().map(|(n, t)| serde_json::json!({ "name": n, "dtype": t.dtype(), "shape": t.shape() })).collect();
            cx.out.json_line(&serde_json::json!({ "outputs": outputs, "seconds": seconds, "errors": errors }));
        } else {
            for (i, (name, tensor)) in named.iter().enumerate() {
                let error = errors.get(i).map_or(String::new(), |e| format!("  relative error {e:.1e}"));
                cx.out.data(format!("{name}  {}{:?}  {}{error}", tensor.dtype(), tensor.shape(), glimpse(tensor)));
            }
            cx.out.say(format!("first run {}", milliseconds(seconds)));
        }
        let tolerance = metadata.precision.tolerance();
        match errors.iter().copied().find(|e| *e > tolerance) {
            Some(error) => {
                Err(Failure::failed(format!("an output differs from the expected one by a relative L2 error of {error:.2e}"))
                    .into())
            }
            None => Ok(ExitCode::SUCCESS),
        }
    }
}

/// The model's inputs among `given`: by name, as `in.<i>`, or by position.
fn ordered<'a>(
    given: &[(String, Tensor)],
    names: impl ExactSizeIterator<Item = &'a str>,
    files: usize,
) -> anyhow::Result<Vec<Tensor>> {
    let count = names.len();
    let by_position = files > 1 || (given.len() == 1 && count == 1);
    names
        .enumerate()
        .map(|(i, name)| {
            let named = given.iter().find(|(n, _)| n == name || *n == format!("in.{i}"));
            let found = named.or_else(|| given.get(i).filter(|_| by_position));
            found.map(|(_, t)| t.clone()).ok_or_else(|| {
                let mut have: Vec<_> = given.iter().map(|(n, _)| n.as_str()).collect();
                have.sort_unstable();
                Failure::input(format!("input {i} (`{name}`) is missing; the files hold {}", have.join(", ")))
                    .hint(format!("name the tensor `{name}` or `in.{i}`"))
                    .into()
            })
        })
        .collect()
}

/// The relative L2 error of each output against `out.<i>` among `given`.
fn compare(outputs: &[(String, Tensor)], given: &[(String, Tensor)]) -> anyhow::Result<Vec<f64>> {
    outputs
        .iter()
        .enumerate()
        .map(|(i, (name, ours))| {
            let expected = given.iter().find(|(n, _)| *n == format!("out.{i}") || n == name).map(|(_, t)| t);
            let expected = expected.ok_or_else(|| Failure::input(format!("--check needs `out.{i}` in the input file")))?;
            if expected.shape() != ours.shape() || expected.dtype() != ours.dtype() {
                let what = |t: &Tensor| format!("{}{:?}", t.dtype(), t.shape());
                return Err(Failure::failed(format!("output `{name}` is {}, expected {}", what(ours), what(expected))).into());
            }
            if ours.as_f32().is_none() {
                return Ok(if ours.bytes() == expected.bytes() { 0.0 } else { f64::INFINITY });
            }
            Ok(tensors::reference(ours).relative_error(&tensors::reference(expected)))
        })
        .collect()
}

fn glimpse(tensor: &Tensor) -> String {
    match tensor.as_f32() {
        Some(values) => {
            let shown: Vec<_> = values.iter().take(4).map(|v| format!("{v:.5}")).collect();
            format!("[{}{}]", shown.join(", "), if values.len() > 4 { ", …" } else { "" })
        }
        None => format!("{} bytes", tensor.bytes().len()),
    }
}
