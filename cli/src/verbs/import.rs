use std::path::PathBuf;
use std::process::ExitCode;

use aotfarm_compiler::ir;
use clap::Args;

use crate::cli::Cli;
use crate::output::bytes;
use crate::tensors;

/// Convert a .pt2 (torch.export.save) or .onnx file to a .graph file
#[derive(Debug, Args)]
pub(crate) struct Import {
    /// The model: .pt2, .onnx or .graph
    file: PathBuf,
    /// Where to write [default: the file with the ending .graph]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Import {
    pub(crate) fn run(self, cx: &Cli) -> anyhow::Result<ExitCode> {
        let graph = tensors::load_graph(&self.file)?;
        let output = self.output.unwrap_or_else(|| self.file.with_extension("graph"));
        let file = aotfarm_compiler::import::graph::write(&graph);
        tensors::write_file(&output, &file)?;
        let summary = ir::stats(&graph);
        if cx.out.json {
            cx.out.json_line(&serde_json::json!({
                "file": output, "bytes": file.len(), "nodes": graph.nodes.len(), "parameters": summary.parameters,
            }));
        } else {
            cx.out.data(output.display());
            cx.out.say(format!(
                "{}: {} nodes, {} parameters, {}",
                graph.name,
                graph.nodes.len(),
                summary.parameters,
                bytes(file.len() as u64)
            ));
        }
        Ok(ExitCode::SUCCESS)
    }
}
