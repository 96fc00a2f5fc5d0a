use std::path::PathBuf;
use std::process::ExitCode;

use aotfarm_compiler::{ir, passes};
use clap::Args;

use crate::cli::Cli;
use crate::failure::Failure;
use crate::options::Dtype;
use crate::tensors;

/// Print a model: IR, inputs with ranges, parameters, FLOPs
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// The model: .graph, .pt2 or .onnx
    file: PathBuf,
    /// Print only the summary, not the IR
    #[arg(long)]
    summary: bool,
    /// Run the graph passes up to this one and print what it leaves (`list` names them)
    #[arg(long, value_name = "PASS")]
    stop_after: Option<String>,
    /// Print the plan for this target instead of the IR
    #[arg(long, value_name = "TARGET", conflicts_with = "stop_after")]
    plan: Option<aotfarm_protocol::Target>,
    /// With --plan for a GPU: what it computes in
    #[arg(long, value_enum, default_value_t, requires = "plan")]
    dtype: Dtype,
}

impl Inspect {
    pub(crate) fn run(self, cx: &Cli) -> anyhow::Result<ExitCode> {
        if self.stop_after.as_deref() == Some("list") {
            passes::PASSES.iter().for_each(|p| cx.out.data(p.name));
            return Ok(ExitCode::SUCCESS);
        }
        let mut graph = tensors::load_graph(&self.file)?;
        let summary = ir::stats(&graph);
        let text = if let Some(target) = self.plan {
            aotfarm_compiler::plan::lower(passes::run(graph, None)?, target, self.dtype.into())?.print()
        } else {
            if let Some(pass) = &self.stop_after {
                if !passes::PASSES.iter().any(|p| p.name == pass) {
                    return Err(Failure::input(format!("there is no pass `{pass}`"))
                        .hint("`--stop-after list` names them")
                        .into());
                }
                graph = passes::run(graph, Some(pass))?;
            }
            ir::text::print(&graph)
        };
        if cx.out.json {
            cx.out.json_line(&serde_json::json!({ "parameters": summary.parameters, "flops_per_image": summary.flops, "inputs": summary.inputs, "dims": summary.dims, "outputs": summary.outputs, "states": summary.states, "writes": summary.written, "ops": summary.ops, "ir": text }));
            return Ok(ExitCode::SUCCESS);
        }
        if !self.summary {
            cx.out.data(text.trim_end());
            cx.out.data("");
        }
        for input in &summary.inputs {
            cx.out.data(format!("input       {input}"));
        }
        for output in &summary.outputs {
            cx.out.data(format!("output      {output}"));
        }
        for state in &summary.states {
            cx.out.data(format!("state       {state}"));
        }
        for input in &summary.written {
            cx.out.data(format!("writes      {input}"));
        }
        for dim in &summary.dims {
            cx.out.data(format!("dimension   {dim}"));
        }
        cx.out.data(format!("parameters  {}", summary.parameters));
        cx.out.data(format!("FLOPs       {:.3} G per image (two per multiply-add)", summary.flops as f64 / 1e9));
        Ok(ExitCode::SUCCESS)
    }
}
