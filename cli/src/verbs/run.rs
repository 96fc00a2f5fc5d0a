use std::path::PathBuf;
use std::process::ExitCode;

use aotfarm_runtime::{Model, Session, SessionOptions, Tensor};
use clap::Args;

use crate::cli::Cli;
use crate::inputs::random_inputs;
use crate::options::{SizeList, parse_sizes};
use crate::output::milliseconds;
use crate::samples::{self, Side};
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
    /// Compare the outputs with those of the .safetensors input, by name or as out.0, out.1 …; fail above a relative L2 error of 1e-5 (in fp32)
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
            samples::of_ports(&given, Side::Input, &metadata.inputs, self.input.len() > 1)?
        };
        let start = std::time::Instant::now();
        let (mut left, mut seconds) = (Vec::new(), 0.0);
        for call in 0..self.calls {
            left = samples::run(&mut session, inputs.clone())?;
            if call == 0 {
                seconds = start.elapsed().as_secs_f64();
            }
        }
        let places = samples::places(metadata);
        let differences = if self.check {
            let expected = samples::expected(&given, metadata)?;
            samples::differences(&places, &left, &expected, metadata.precision.tolerance())?
        } else {
            Vec::new()
        };
        let named: Vec<(String, Tensor)> = samples::file_names(metadata).into_iter().zip(left).collect();
        if let Some(file) = &self.output {
            tensors::write(file, &named)?;
        }
        if cx.out.json {
            let outputs: Vec<_> =
                named.iter().map(|(n, t)| serde_json::json!({ "name": n, "dtype": t.dtype(), "shape": t.shape() })).collect();
            let errors: Vec<f64> = differences.iter().map(|d| d.error).collect();
            cx.out.json_line(&serde_json::json!({ "outputs": outputs, "seconds": seconds, "errors": errors }));
        } else {
            for (i, (name, tensor)) in named.iter().enumerate() {
                let error = differences.get(i).map_or(String::new(), |d| format!("  relative error {:.1e}", d.error));
                cx.out.data(format!("{name}  {}{:?}  {}{error}", tensor.dtype(), tensor.shape(), glimpse(tensor)));
            }
            cx.out.say(format!("first run {}", milliseconds(seconds)));
        }
        samples::verdict(&places, &differences)?;
        Ok(ExitCode::SUCCESS)
    }
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
