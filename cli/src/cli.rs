//! What a verb has at hand: options, output, and a connection to a coordinator.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use aotfarm_client::Client;
use aotfarm_protocol::endpoints::registry;
use aotfarm_protocol::{HistoryEntry, Reference, VersionInfo};
use etcetera::BaseStrategy as _;

use crate::embedded::{Embedded, Role};
use crate::options::Global;
use crate::output::Output;

/// What a verb has at hand.
pub(crate) struct Cli {
    pub(crate) out: Output,
    pub(crate) global: Global,
}

/// A connection; the embedded farm, if there is one, lives as long as it.
pub(crate) struct Farm {
    pub(crate) client: Client,
    pub(crate) embedded: Option<Arc<Embedded>>,
}

impl Cli {
    pub(crate) fn new(global: &Global, out: Output) -> Self {
        Self { out, global: global.clone() }
    }

    /// Where the embedded coordinator keeps its files.
    pub(crate) fn data_dir(&self) -> anyhow::Result<PathBuf> {
        match &self.global.data_dir {
            Some(dir) => Ok(dir.clone()),
            None => {
                let base = etcetera::choose_base_strategy().context("failed to find the home folder (set HOME or --data-dir)")?;
                Ok(base.data_dir().join("aotfarm"))
            }
        }
    }

    /// Connects to the configured coordinator, or to an embedded one that serves what is stored.
    pub(crate) async fn farm(&self) -> anyhow::Result<Farm> {
        self.connect(Role::Store).await
    }

    /// Connects to the configured coordinator, or to an embedded one that drives jobs with a worker of its own.
    pub(crate) async fn working_farm(&self) -> anyhow::Result<Farm> {
        self.connect(Role::Farm).await
    }

    async fn connect(&self, role: Role) -> anyhow::Result<Farm> {
        if let Some(url) = &self.global.coordinator {
            return Ok(Farm { client: Client::new(url)?, embedded: None });
        }
        let embedded = Embedded::start(&self.data_dir()?, role, &self.out).await?;
        Ok(Farm { client: Client::new(&embedded.url)?, embedded: Some(Arc::new(embedded)) })
    }
}

impl Farm {
    /// What `reference` means.
    pub(crate) async fn resolve(&self, reference: &Reference) -> anyhow::Result<VersionInfo> {
        Ok(self.client.call(registry::RESOLVE.request(&reference.into())).await?)
    }

    /// All versions of a model, oldest first, with their profiles.
    pub(crate) async fn history(&self, name: &str) -> anyhow::Result<Vec<HistoryEntry>> {
        Ok(self.client.call(registry::HISTORY.request(name.to_owned())).await?)
    }
}
