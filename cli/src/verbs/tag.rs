use std::process::ExitCode;

use aotfarm_protocol::endpoints::registry;
use aotfarm_protocol::{Reference, TagRequest};
use clap::Args;

use crate::cli::Cli;
use crate::failure::Failure;

/// Point a tag at a version, as in `aotfarm tag resnet18@v3 prod`
#[derive(Debug, Args)]
pub(crate) struct Tag {
    /// NAME[@vN|@TAG|@sha256:HEX]
    reference: Reference,
    /// The tag
    tag: String,
    /// Remove the tag instead
    #[arg(long)]
    delete: bool,
}

impl Tag {
    pub(crate) async fn run(self, cx: &Cli) -> anyhow::Result<ExitCode> {
        if !Reference::is_tag(&self.tag) {
            return Err(Failure::input(format!(
                "`{}` cannot be a tag (a-z, 0-9, `.`, `_`, `-`, and not like a version)",
                self.tag
            ))
            .into());
        }
        let farm = cx.farm().await?;
        let version = farm.resolve(&self.reference).await?;
        let path = (version.name, self.tag.clone());
        let version = if self.delete {
            farm.client.call(registry::UNTAG.request(path)).await?
        } else {
            farm.client.call(registry::TAG.request(path, &TagRequest { version: version.version })).await?
        };
        if cx.out.json {
            cx.out.json_line(&version);
        } else {
            let tags = if version.tags.is_empty() { "no tags".to_owned() } else { format!("tags {}", version.tags.join(" ")) };
            cx.out.data(format!("{}@v{}: {tags}", version.name, version.version));
        }
        Ok(ExitCode::SUCCESS)
    }
}
