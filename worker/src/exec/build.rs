//! Build: one translation unit to an object.

use std::path::Path;

use aotfarm_protocol::{BuildSpec, WorkResult};
use tokio_util::sync::CancellationToken;

use super::{Context, ExecError};
use crate::toolchain::{Invocation, flag_is_allowed};

pub(super) async fn build(
    cx: &Context,
    spec: &BuildSpec,
    dir: &Path,
    cancel: &CancellationToken,
) -> Result<WorkResult, ExecError> {
    let compiler = cx.compiler(&spec.toolchain, spec.target)?;
    if let Some(flag) = spec.flags.iter().find(|f| !flag_is_allowed(f)) {
        return Ok(WorkResult::BuildFailed { log: format!("the flag `{flag}` is not allowed") });
    }
    cx.cache.fetch(spec.source, &dir.join("kernel.c"), cancel).await?;
    let mut args: Vec<_> = spec.flags.iter().map(Into::into).collect();
    args.extend(["-c", "kernel.c", "-o", "kernel.o"].map(Into::into));
    match compiler.invoke(&Invocation { dir, target: spec.target, args }, cancel).await? {
        Err(log) => Ok(WorkResult::BuildFailed { log }),
        Ok(()) => {
            let (object, _) = cx.cache.put(&dir.join("kernel.o"), cancel).await?;
            Ok(WorkResult::Built { object })
        }
    }
}
