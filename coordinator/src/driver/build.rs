//! Build items.

use std::sync::Arc;

use aotfarm_protocol::{BuildSpec, Digest, Target, WorkSpec};

use super::attempt::{Attempt, Drive};
use crate::error::Error;
use crate::items::Want;
use crate::planner::Blueprint;
use aotfarm_store::Pin;

/// A Build item, its source put into the store.
pub(super) async fn build_item(
    attempt: &Attempt,
    blueprint: &Arc<dyn Blueprint>,
    unit: Digest,
    target: Target,
    pin: &Pin,
    label: String,
) -> Drive<Want> {
    let blobs = &attempt.core.blobs;
    if !blobs.contains(unit).await.map_err(Error::from)? {
        blobs.put_expected(unit, blueprint.source(unit).into()).await.map_err(Error::from)?;
    }
    let spec = BuildSpec { source: unit, target, flags: Vec::new(), toolchain: pin.toolchain.clone() };
    Ok(Want { spec: WorkSpec::Build(spec), label, context: None })
}
