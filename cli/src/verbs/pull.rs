use std::path::{Path, PathBuf};
use std::process::ExitCode;

use aotfarm_client::pull::{self, PullError, PullOptions, Pulled};
use aotfarm_protocol::{ApiError, Reference};
use clap::Args;

use crate::cli::{Cli, Farm};
use crate::output::bytes;

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
}

impl Pull {
    pub(crate) async fn run(self, cx: &Cli) -> anyhow::Result<ExitCode> {
        let farm = cx.farm().await?;
        let pulled = fetch(&farm, &self.reference, &self.output, self.any_host).await?;
        if cx.out.json {
            let Pulled { path, record_path, version, variant, downloaded, .. } = &pulled;
            let json = serde_json::json!({
                "path": path, "record": record_path, "name": version.name, "version": version.version, "target": variant.target,
                "artifact": variant.artifact, "bytes": variant.bytes, "downloaded": downloaded,
            });
            cx.out.json_line(&json);
        } else {
            cx.out.data(pulled.path.display());
            cx.out.say(describe(&pulled));
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

/// `resnet18@v3 cpu-x86_64-v3, 46.8 MB`.
pub(crate) fn describe(pulled: &Pulled) -> String {
    let how = if pulled.downloaded { "" } else { " (already here)" };
    format!("{}@v{} {}, {}{how}", pulled.version.name, pulled.version.version, pulled.variant.target, bytes(pulled.variant.bytes))
}
