//! Link: objects, glue and packed weights to one artifact. The recipe is that of `LinkSpec`.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use aotfarm_abi::cc;
use aotfarm_abi::link::{GLUE_FLAGS, LINK_FLAGS, LINK_LIBRARIES, VERSION_SCRIPT, cubins_assembly, weights_assembly};
use aotfarm_protocol::{Digest, LinkSpec, Target, WorkResult};
use futures_util::future::try_join_all;
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio_util::sync::CancellationToken;

use super::error::ExecError;
use super::executor::Executor;
use crate::child::pack::{PackEvent, PackJob};
use crate::sandbox::Limits;
use crate::toolchain::cc::{Compiler, Invocation};

/// A weight section may have this many bytes: what 32-bit relocations reach.
const MAX_SECTION: u64 = 1 << 31;
/// Packing may take this long.
const PACK_TIME: Duration = Duration::from_secs(300);

pub(super) async fn link(
    cx: &Executor,
    spec: &LinkSpec,
    dir: &Path,
    cancel: &CancellationToken,
) -> Result<WorkResult, ExecError> {
    if spec.recipe.is_some_and(|recipe| recipe != Digest::from_sha256(aotfarm_abi::link::digest())) {
        return Err(ExecError::Lacks("link recipe of the coordinator's program: run the same release on both"));
    }
    // The artifact of a GPU is for this host's architecture; the weakest CPU of it will do for what runs there.
    let target = match spec.target {
        Target::Cpu(_) => spec.target,
        Target::Cuda { .. } => {
            cx.toolchains.native().ok_or(ExecError::Lacks("compiler for its own CPU, which links"))?.targets[0]
        }
    };
    let compiler = cx.compiler(&spec.toolchain, target)?;
    let rejected = |reason: String| Ok(WorkResult::Rejected { reason });
    // Folders of their own, so that only the recipe's names meet the linker.
    let (recipe, packing) = (dir.join("link"), dir.join("pack"));
    for folder in [&recipe, &packing] {
        fs::create_dir(folder).map_err(ExecError::disk(format!("make {}", folder.display())))?;
    }
    let raw = packing.join("raw.bin");
    cx.cache.fetch(spec.weights, &raw, cancel).await?;
    let raw_bytes = fs::metadata(&raw).map_err(ExecError::disk(format!("read {}", raw.display())))?.len();
    if let Err(reason) = check_steps(spec, raw_bytes) {
        return rejected(reason);
    }
    let section = recipe.join("weights.bin");
    let sized = File::create(&section).and_then(|f| f.set_len(spec.section_bytes));
    sized.map_err(ExecError::disk(format!("write {}", section.display())))?;
    let library = match pack_functions(cx, spec, &packing, cancel).await? {
        Ok(library) => library.then(|| packing.join("pack.so")),
        Err(log) => return rejected(format!("the pack functions cannot be built: {log}")),
    };
    let job = PackJob { library, weights: raw, section, packs: spec.packs.clone(), copies: spec.copies.clone() };
    let memory = (4u64 << 30) + 4 * spec.section_bytes + 2 * raw_bytes;
    let limits = Limits { time: PACK_TIME, memory: Some(memory), file: spec.section_bytes.max(1 << 20), output: 64 << 10 };
    match cx.child.run("pack", dir, &job, limits, cancel).await? {
        Ok(PackEvent::Packed) => {}
        Ok(PackEvent::Refused { reason }) => return rejected(format!("packing the weights failed: {reason}")),
        Err(death) => return rejected(format!("packing the weights failed: {death}")),
    }
    match assemble(cx, compiler, spec, target, &recipe, cancel).await? {
        Err(log) => rejected(format!("the artifact cannot be linked: {log}")),
        Ok(()) => {
            let (artifact, bytes) = cx.cache.put(&recipe.join("artifact.so"), cancel).await?;
            Ok(WorkResult::Linked { artifact, bytes })
        }
    }
}

/// Every step must lie within the blob and the section, and no two may write the same byte.
fn check_steps(spec: &LinkSpec, raw_bytes: u64) -> Result<(), String> {
    if spec.section_bytes > MAX_SECTION {
        return Err(format!("a weight section of {} bytes is too large: at most {MAX_SECTION}", spec.section_bytes));
    }
    let within = |what: &str, from: u64, bytes: u64, limit: u64| match from.checked_add(bytes) {
        Some(end) if end <= limit => Ok((from, end)),
        _ => Err(format!("{what} at {from} of {bytes} bytes reaches past the end at {limit}")),
    };
    let mut written = Vec::with_capacity(spec.packs.len() + spec.copies.len());
    for copy in &spec.copies {
        within("a copy reads weights", copy.from, copy.bytes, raw_bytes)?;
        written.push(within("a copy writes the section", copy.to, copy.bytes, spec.section_bytes)?);
    }
    for pack in &spec.packs {
        for &(from, bytes) in &pack.inputs {
            within(&format!("`{}_pack` reads weights", pack.symbol), from, bytes, raw_bytes)?;
        }
        written.push(within(&format!("`{}_pack` writes the section", pack.symbol), pack.offset, pack.bytes, spec.section_bytes)?);
    }
    written.retain(|(from, to)| from < to);
    written.sort_unstable();
    match written.windows(2).find(|w| w[1].0 < w[0].1) {
        Some(w) => Err(format!("two steps write the section at {}", w[1].0)),
        None => Ok(()),
    }
}

/// Builds `pack.so` with all pack functions for this host; `false` if there are none.
async fn pack_functions(
    cx: &Executor,
    spec: &LinkSpec,
    dir: &Path,
    cancel: &CancellationToken,
) -> Result<Result<bool, String>, ExecError> {
    let mut sources: Vec<_> = spec.packs.iter().map(|p| p.source).collect();
    sources.sort_unstable();
    sources.dedup();
    if sources.is_empty() {
        return Ok(Ok(false));
    }
    let compiler = cx.toolchains.native().ok_or(ExecError::Lacks("compiler for its own CPU, which packs the weights"))?;
    // The weakest target of the host: packing is memory-bound, and the result must not depend on where it ran.
    let target = compiler.targets[0];
    let parallel = std::thread::available_parallelism().map_or(1, usize::from);
    let compile = |(n, source)| async move {
        let (name, object) = (format!("p{n:04}.c"), OsString::from(format!("p{n:04}.o")));
        cx.cache.fetch(source, &dir.join(&name), cancel).await?;
        let args = cc::PACK.iter().copied().chain(["-c", &name, "-o"]).map(OsString::from);
        let args = args.chain([object.clone()]).collect();
        Ok::<_, ExecError>(compiler.invoke(&Invocation { dir, target, args }, cancel).await?.map(|()| object))
    };
    let built: Vec<Result<OsString, String>> =
        stream::iter(sources.into_iter().enumerate().map(compile)).buffered(parallel).try_collect().await?;
    let mut args: Vec<OsString> = ["-shared", "-o", "pack.so"].map(Into::into).to_vec();
    for object in built {
        match object {
            Ok(object) => args.push(object),
            Err(log) => return Ok(Err(log)),
        }
    }
    args.push("-lm".into());
    Ok(compiler.invoke(&Invocation { dir, target, args }, cancel).await?.map(|()| true))
}

/// Compiles the glue and links everything; the inner error is what the tools printed. `target` is that of the CPU.
async fn assemble(
    cx: &Executor,
    compiler: &Compiler,
    spec: &LinkSpec,
    target: Target,
    dir: &Path,
    cancel: &CancellationToken,
) -> Result<Result<(), String>, ExecError> {
    let write = |name: &str, text: &str| {
        fs::write(dir.join(name), text).map_err(ExecError::disk(format!("write {name} in {}", dir.display())))
    };
    cx.cache.fetch(spec.glue, &dir.join("glue.c"), cancel).await?;
    write("weights.S", &weights_assembly(spec.section_bytes))?;
    write("artifact.map", VERSION_SCRIPT)?;
    let cubins = matches!(spec.target, Target::Cuda { .. });
    let mut objects = vec!["glue.o".to_owned()];
    for (n, object) in spec.objects.iter().enumerate() {
        let name = format!("k{n:04}.{}", if cubins { "cubin" } else { "o" });
        cx.cache.fetch(*object, &dir.join(&name), cancel).await?;
        if !cubins {
            objects.push(name);
        }
    }
    let mut assemblies = vec!["weights"];
    if cubins {
        write("cubins.S", &cubins_assembly(spec.objects.len()))?;
        assemblies.push("cubins");
        objects.push("cubins.o".to_owned());
    }
    objects.push("weights.o".to_owned());
    let glue_flags = GLUE_FLAGS.iter().find(|(arch, _)| Some(*arch) == target.architecture()).map_or(&[][..], |(_, flags)| flags);
    let compile = |flags: &[&str], from: String, to: String| {
        let args = flags.iter().map(OsString::from).chain(["-c".into(), from.into(), "-o".into(), to.into()]).collect();
        Invocation { dir, target, args }
    };
    let mut units = vec![compile(glue_flags, "glue.c".into(), "glue.o".into())];
    units.extend(assemblies.iter().map(|name| compile(&[], format!("{name}.S"), format!("{name}.o"))));
    for log in try_join_all(units.iter().map(|unit| compiler.invoke(unit, cancel))).await? {
        if let Err(log) = log {
            return Ok(Err(log));
        }
    }
    let flags = LINK_FLAGS.iter().map(OsString::from).chain(["-o", "artifact.so"].map(OsString::from));
    let args = flags.chain(objects.iter().map(OsString::from)).chain(LINK_LIBRARIES.iter().map(OsString::from)).collect();
    Ok(compiler.invoke(&Invocation { dir, target, args }, cancel).await?)
}
