//! Build: one translation unit to an object, by a C compiler or by NVRTC.

use std::path::Path;

use aotfarm_protocol::{BuildSpec, Target, WorkResult};
use tokio_util::sync::CancellationToken;

use super::error::ExecError;
use super::executor::Executor;
use crate::toolchain::cc::{self, Invocation};
use crate::toolchain::nvrtc::{self, Unit};

pub(super) async fn build(
    cx: &Executor,
    spec: &BuildSpec,
    dir: &Path,
    cancel: &CancellationToken,
) -> Result<WorkResult, ExecError> {
    let (object, built) = match spec.target {
        Target::Cpu(_) => {
            let compiler = cx.compiler(&spec.toolchain, spec.target)?;
            if let Some(refused) = refuse(&spec.flags, cc::flag_is_allowed) {
                return Ok(refused);
            }
            cx.cache.fetch(spec.source, &dir.join("kernel.c"), cancel).await?;
            let mut args: Vec<_> = spec.flags.iter().map(Into::into).collect();
            args.extend(["-c", "kernel.c", "-o", "kernel.o"].map(Into::into));
            ("kernel.o", compiler.invoke(&Invocation { dir, target: spec.target, args }, cancel).await?)
        }
        Target::Cuda { sm } => {
            let compiler = cx.nvrtc(&spec.toolchain, spec.target)?;
            if let Some(refused) = refuse(&spec.flags, nvrtc::flag_is_allowed) {
                return Ok(refused);
            }
            cx.cache.fetch(spec.source, &dir.join("kernel.cu"), cancel).await?;
            let unit = Unit { dir, source: "kernel.cu", object: "kernel.cubin", sm, flags: &spec.flags };
            (unit.object, compiler.compile(&cx.child, &unit, cancel).await?)
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

fn refuse(flags: &[String], allowed: fn(&str) -> bool) -> Option<WorkResult> {
    let flag = flags.iter().find(|f| !allowed(f))?;
    Some(WorkResult::BuildFailed { log: format!("the flag `{flag}` is not allowed") })
}
