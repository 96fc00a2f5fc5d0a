use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use aotfarm_compiler::interp;
use aotfarm_protocol::{Precision, Quantiles, Reference};
use aotfarm_runtime::{Model, Session, Tensor, TensorRef};
use clap::{Args, builder::PossibleValuesParser};

use crate::cli::{Cli, Farm};
use crate::inputs::random_inputs;
use crate::output::{bytes, milliseconds, table};
use crate::verbs::example::{self, EXAMPLES};
use crate::verbs::pull;
use crate::verbs::submit::Submit;
use crate::{samples, tensors, watch};

/// Show the whole flow: build an example model, submit, pull, verify, bench, history
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Which example
    #[arg(value_parser = PossibleValuesParser::new(EXAMPLES), default_value = "resnet18")]
    model: String,
    /// Print every AUTOTUNE table
    #[arg(short, long)]
    tables: bool,
}

impl Demo {
    pub(crate) async fn run(self, cx: &Cli) -> anyhow::Result<ExitCode> {
        let farm = cx.working_farm().await?;
        let done = self.steps(cx, &farm).await;
        if let Some(embedded) = farm.embedded.and_then(Arc::into_inner) {
            embedded.finish(&cx.out).await?;
        }
        done
    }

    async fn steps(&self, cx: &Cli, farm: &Farm) -> anyhow::Result<ExitCode> {
        let folder = tempfile::Builder::new().prefix("aotfarm-demo-").tempdir()?;
        let out = &cx.out;
        let title = |n: u32, text: &str| out.say(format!("\n{}", out.bold(format!("{n}. {text}"))));

        title(1, "Build the model: a graph with seeded random weights");
        let graph_file = folder.path().join(format!("{}.graph", self.model));
        let size = example::write(&self.model, &graph_file)?;
        out.say(format!("aotfarm example {}: {}", self.model, bytes(size)));

        title(2, "Submit it: plan, build, measure, link, profile, publish");
        let start = Instant::now();
        let submit = Submit::of(&graph_file, &self.model, !self.tables);
        submit.submit(cx, farm, submit.prepare()?).await?;
        out.say(format!("submit took {:.1} s", start.elapsed().as_secs_f64()));

        title(3, "Pull it into a clean folder, as a deployment host does");
        let reference: Reference = self.model.parse()?;
        let clean = folder.path().join("host");
        std::fs::create_dir(&clean)?;
        let pulled = pull::fetch(farm, &reference, &clean, false).await?;
        out.say(pull::describe(&pulled));

        title(4, "Verify it against the reference interpreter");
        let start = Instant::now();
        let model = Model::load(&pulled.path)?;
        let mut session = Session::new(&model, 0)?;
        let loaded = start.elapsed().as_secs_f64();
        let graph = tensors::load_graph(&graph_file)?;
        for batch in [1, 3] {
            let sizes = BTreeMap::from([("batch".to_owned(), batch)]);
            let inputs = random_inputs(model.metadata(), &sizes)?;
            let views: Vec<TensorRef<'_>> = inputs.iter().map(Tensor::view).collect();
            let start = Instant::now();
            let ours = session.run(&views)?;
            let first = start.elapsed().as_secs_f64();
            let expected = interp::run(&graph, &inputs.iter().map(tensors::reference).collect::<Vec<_>>())?;
            let expected = expected.iter().map(tensors::from_reference).collect::<anyhow::Result<Vec<_>>>()?;
            let places = samples::places(model.metadata());
            let differences = samples::differences(&places, &ours, &expected, Precision::Fp32.tolerance())?;
            let note = if batch == 1 {
                format!("  (load {}, first inference {})", milliseconds(loaded), milliseconds(first))
            } else {
                String::new()
            };
            out.say(format!("batch {batch}: {}{note}", differences[0]));
            samples::verdict(&places, &differences)?;
        }

        title(5, "Bench it");
        let mut rows = Vec::new();
        for batch in [1, 8] {
            let inputs = random_inputs(model.metadata(), &BTreeMap::from([("batch".to_owned(), batch)]))?;
            let views: Vec<TensorRef<'_>> = inputs.iter().map(Tensor::view).collect();
            let samples = aotfarm_runtime::bench(&mut session, &views, 2, std::time::Duration::from_secs(2))?;
            if let Some(q) = Quantiles::of(&samples) {
                let per_image = milliseconds(q.p50 / batch as f64);
                rows.push(vec![
                    batch.to_string(),
                    milliseconds(q.min),
                    milliseconds(q.p50),
                    milliseconds(q.p90),
                    per_image,
                    samples.len().to_string(),
                ]);
            }
        }
        out.data(table(&["BATCH", "MIN", "P50", "P90", "P50 PER IMAGE", "N"], &rows, &[0, 1, 2, 3, 4, 5]));

        title(6, "The performance history of the model");
        for entry in farm.history(&self.model).await? {
            for p in &entry.profiles {
                out.data(format!(
                    "v{}  {}  {:8}  {} threads  p50 {}",
                    entry.version.version,
                    p.target,
                    watch::point(p),
                    p.threads,
                    milliseconds(p.latency.p50)
                ));
            }
        }
        out.say(format!(
            "\nnext: aotfarm ls; aotfarm show {0}; aotfarm pull {0}; aotfarm bench {0}.so --at batch=1,8",
            self.model
        ));
        Ok(ExitCode::SUCCESS)
    }
}
