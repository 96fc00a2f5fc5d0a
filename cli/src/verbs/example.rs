use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, builder::PossibleValuesParser};

use crate::cli::Cli;
use crate::output::bytes;
use crate::tensors;

/// The models that `example` builds.
pub(crate) const EXAMPLES: [&str; 3] = ["resnet18", "resnet50", "mobilenet_v2"];

/// Build a full-size example model with seeded random weights, without torch
#[derive(Debug, Args)]
pub(crate) struct Example {
    /// Which model
    #[arg(value_parser = PossibleValuesParser::new(EXAMPLES))]
    model: String,
    /// Where to write [default: MODEL.graph]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Example {
    pub(crate) fn run(self, cx: &Cli) -> anyhow::Result<ExitCode> {
        let output = self.output.unwrap_or_else(|| format!("{}.graph", self.model).into());
        let size = write(&self.model, &output)?;
        if cx.out.json {
            cx.out.json_line(&serde_json::json!({ "file": output, "bytes": size }));
        } else {
            cx.out.data(output.display());
            cx.out.say(format!("{}: {}", self.model, bytes(size)));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Writes the example `model` to `file`; returns its size.
pub(crate) fn write(model: &str, file: &std::path::Path) -> anyhow::Result<u64> {
    let graph = aotfarm_compiler::ir::example(model).expect("the argument parser knows the models");
    let data = aotfarm_compiler::import::graph::write(&graph);
    tensors::write_file(file, &data)?;
    Ok(data.len() as u64)
}
