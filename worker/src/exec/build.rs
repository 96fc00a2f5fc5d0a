//! Build: one translation unit to an object, by a C compiler or by NVRTC.

use std::path::Path;

use aotfarm_protocol::{BuildSpec, Target, WorkResult};
use tokio_util::sync::CancellationToken;

use super::{Context, ExecError};
use crate::nvrtc;
use crate::toolchain::{Invocation, flag_is_allowed};

pub(super) async fn build(
    cx: &Context,
    spec: &BuildSpec,
    dir: &Path,
    cancel: &CancellationToken,
) -> Result<WorkResult, ExecError> {
    let allowed = match spec.target {
        Target::Cpu(_) => flag_is_allowed,
        Target::Cuda { .. } => nvrtc::flag_is_allowed,
    };
    if let Some(flag) = spec.flags.iter().find(|f| !allowed(f)) {
        return Ok(WorkResult::BuildFailed { log: format!("the flag `{flag}` is not allowed") });
    }
    let (source, object) = match spec.target {
        Target::Cpu(_) => ("kernel.c", "kernel.o"),
        Target::Cuda { .. } => ("kernel.cu", "kernel.cubin"),
    };
    let built = match spec.target {
        Target::Cpu(_) => {
            let compiler = cx.compiler(&spec.toolchain, spec.target)?;
            cx.cache.fetch(spec.source, &dir.join(source), cancel).await?;
            let mut args: Vec<_> = spec.flags.iter().map(Into::into).collect();
            args.extend(["-c", source, "-o", object].map(Into::into));
            compiler.invoke(&Invocation { dir, target: spec.target, args }, cancel).await?
        }
        Target::Cuda { sm } => {
            let nvrtc = cx.nvrtc(&spec.toolchain, spec.target)?;
            cx.cache.fetch(spec.source, &dir.join(source), cancel).await?;
            let unit = nvrtc::Unit { dir, source, object, sm, flags: &spec.flags };
            nvrtc.compile(&cx.child, &unit, cancel).await?
        }
    };
    match built {
        Err(log) => Ok(WorkResult::BuildFailed { log }),
        Ok(()) => {
            let (object, _) = cx.cache.put(&dir.join(object), cancel).await?;
            Ok(WorkResult::Built { object })
        }
    }
}
