use std::path::{Path, PathBuf};
use std::process::ExitCode;

use aotfarm_client::pull::{self, PullError, PullOptions, Pulled};
use aotfarm_protocol::{ApiError, Reference, VersionInfo};
use aotfarm_runtime::{Difference, Model, Session};
use clap::Args;

use crate::cli::{Cli, Farm};
use crate::failure::Failure;
use crate::output::bytes;
use crate::samples::{self, Side};
use crate::tensors;

/// Fetch the best variant that this host can run
#[derive(Debug, Args)]
pub(crate) struct Pull {
    /// NAME[@vN|@TAG|@sha256:HEX][/TARGET]
    pub(crate) reference: Reference,
    /// Folder to write NAME.so and NAME.json to
    #[arg(short, long, default_value = ".", value_name = "DIR")]
    pub(crate) output: PathBuf,
    /// Also what this host cannot run: the variant that the reference names, else the first
    #[arg(long)]
    pub(crate) any_host: bool,
    /// Run the samples that are kept with the version on this host, and fail if an output differs from what they expect
    #[arg(long, conflicts_with = "any_host")]
    pub(crate) check: bool,
}

impl Pull {
    pub(crate) async fn run(self, cx: &Cli) -> anyhow::Result<ExitCode> {
        let farm = cx.farm().await?;
        let pulled = fetch(&farm, &self.reference, &self.output, self.any_host).await?;
        let differences = if self.check { check(&farm, &pulled).await? } else { Vec::new() };
        if cx.out.json {
            let errors: Vec<f64> = differences.iter().map(|(_, d)| d.error).collect();
            let Pulled { path, record_path, version, variant, downloaded, .. } = &pulled;
            let json = serde_json::json!({
                "path": path, "record": record_path, "name": version.name, "version": version.version, "target": variant.target,
                "artifact": variant.artifact, "bytes": variant.bytes, "downloaded": downloaded, "errors": errors,
            });
            cx.out.json_line(&json);
        } else {
            cx.out.data(pulled.path.display());
            cx.out.say(describe(&pulled));
            for (place, difference) in &differences {
                cx.out.say(format!("checked {place}: {difference}"));
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Pulls into `folder` the best variant that this host can run; with `any_host` one that it cannot, if there is no such.
pub(crate) async fn fetch(farm: &Farm, reference: &Reference, folder: &Path, any_host: bool) -> anyhow::Result<Pulled> {
    let options = PullOptions { any_host, why_not: Some(aotfarm_runtime::why_not), ..PullOptions::default() };
    let pulled = pull::pull(&farm.client, reference, &aotfarm_runtime::all_targets(), folder, options).await;
    pulled.map_err(|error| match error {
        // That nobody answered is no error of the API.
        PullError::Client(error) => error.into(),
        PullError::Unsupported(_) | PullError::Damaged(_) => ApiError::from(error).into(),
    })
}

/// Runs the samples of the version on this host; how what each call leaves differs from what is expected, when all is right.
async fn check(farm: &Farm, pulled: &Pulled) -> anyhow::Result<Vec<(String, Difference)>> {
    let Some(layer) = &pulled.samples else {
        let VersionInfo { name, version, .. } = &pulled.version;
        return Err(Failure::input(format!("no samples are kept with {name}@v{version}, which an earlier release published"))
            .hint(format!("submit the model again: aotfarm submit MODEL --name {name} --samples FILE"))
            .into());
    };
    let file = farm.client.blob(layer.digest).await?;
    let given = tensors::parse(&file, "the samples of the version")?;
    let model = Model::load(&pulled.path)?;
    let metadata = model.metadata();
    let mut session = Session::new(&model, 0)?;
    let mut checked = Vec::new();
    for (call, given) in samples::calls(given).iter().enumerate() {
        let of_call = |place: String| if call == 0 { place } else { format!("call {call}, {place}") };
        let places: Vec<String> = samples::places(metadata).into_iter().map(of_call).collect();
        let left = samples::run(&mut session, samples::of_ports(given, Side::Input, &metadata.inputs, false)?)?;
        let expected = samples::expected(given, metadata)?;
        let differences = samples::differences(&places, &left, &expected, metadata.precision.tolerance())?;
        samples::verdict(&places, &differences)?;
        checked.extend(places.into_iter().zip(differences));
    }
    Ok(checked)
}

/// `resnet18@v3 cpu-x86_64-v3, 46.8 MB`.
pub(crate) fn describe(pulled: &Pulled) -> String {
    let how = if pulled.downloaded { "" } else { " (already here)" };
    format!("{}@v{} {}, {}{how}", pulled.version.name, pulled.version.version, pulled.variant.target, bytes(pulled.variant.bytes))
}
