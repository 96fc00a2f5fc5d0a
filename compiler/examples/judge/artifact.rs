//! Graphs as an artifact with the naive kernels: lowered, compiled by the machine's C compiler, linked by the recipe of workers, run.
#![expect(clippy::disallowed_methods, reason = "a tool for the developers of the compiler, no part of the product")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use aotfarm_abi::cc;
use aotfarm_abi::link::{GLUE_FLAGS, LINK_FLAGS, LINK_LIBRARIES, VERSION_SCRIPT, weights_assembly};
use aotfarm_compiler::interp;
use aotfarm_compiler::ir::Graph;
use aotfarm_compiler::link::{ArtifactInfo, Linkage, SpecChoice, link};
use aotfarm_compiler::plan::{self, Plan};
use aotfarm_compiler::{candidate, passes};
use aotfarm_protocol::{Digest, Precision, Target};
use aotfarm_runtime::{Model, Session, Tensor, host_targets};

use crate::join::join;
use crate::pair::{Pair, Verdict};

type Result<T> = std::result::Result<T, String>;

/// The verdicts of pairs that the interpreter runs right, on what their artifact computes. An error is about all of them together.
pub fn judge(pairs: &[Pair], objects: &Path) -> Result<Vec<Verdict>> {
    let target = host_targets().into_iter().next().ok_or("this host runs no target")?;
    let mut verdicts: Vec<Verdict> = pairs
        .iter()
        .map(|pair| {
            lower(pair.graph.clone(), target).map_or_else(|e| Verdict::Refused(format!("lowering: {e}")), |_| Verdict::Right)
        })
        .collect();
    let lowered: Vec<usize> = (0..pairs.len()).filter(|&at| verdicts[at] == Verdict::Right).collect();
    if lowered.is_empty() {
        return Ok(verdicts);
    }
    let graphs: Vec<&Graph> = lowered.iter().map(|&at| &pairs[at].graph).collect();
    let joined = join(&graphs).map_err(|e| e.to_string())?;
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    let model = Model::load(&compile(&lower(joined, target)?, folder.path(), objects)?).map_err(|e| e.to_string())?;
    let mut session = Session::new(&model, 2).map_err(|e| e.to_string())?;
    let cases = lowered.iter().map(|&at| pairs[at].expectations.len()).max().unwrap_or(0);
    for case in 0..cases {
        let expectation = |at: usize| &pairs[at].expectations[case.min(pairs[at].expectations.len() - 1)];
        let inputs = lowered.iter().flat_map(|&at| &expectation(at).case.inputs);
        let inputs = inputs.map(to_runtime).collect::<Result<Vec<Tensor>>>()?;
        let views: Vec<_> = inputs.iter().map(Tensor::view).collect();
        let mut outputs =
            session.run(&views).map_err(|e| e.to_string())?.iter().map(from_runtime).collect::<Vec<_>>().into_iter();
        for &at in &lowered {
            let own: Vec<interp::Tensor> = outputs.by_ref().take(pairs[at].graph.outputs.len()).collect();
            if let Err(what) = expectation(at).compare(&own) {
                verdicts[at] = Verdict::Wrong(format!("artifact: {what}"));
            }
        }
    }
    Ok(verdicts)
}

fn lower(graph: Graph, target: Target) -> Result<Plan> {
    let graph = passes::run(graph, None).map_err(|e| e.to_string())?;
    plan::lower(graph, target, Precision::Fp32).map_err(|e| e.to_string())
}

fn to_runtime(tensor: &interp::Tensor) -> Result<Tensor> {
    let shape = tensor.shape.iter().map(|n| *n as i64).collect();
    Tensor::new(tensor.dtype, shape, &tensor.data).map_err(|e| e.to_string())
}

fn from_runtime(tensor: &Tensor) -> interp::Tensor {
    let shape = tensor.shape().iter().map(|n| *n as usize).collect();
    interp::Tensor { dtype: tensor.dtype(), shape, data: tensor.bytes().to_vec() }
}

/// The artifact of a plan in an empty folder. Objects of kernels are kept by the digests of their sources.
fn compile(plan: &Plan, folder: &Path, objects: &Path) -> Result<PathBuf> {
    let mut choices: BTreeMap<usize, SpecChoice> = BTreeMap::new();
    let mut sources = BTreeMap::new();
    for point in plan.tune_points(&[]) {
        for planned in candidate::tasks(plan, &point).map_err(|e| e.to_string())? {
            let naive = candidate::reference(&planned.task);
            sources.insert(naive.unit, naive.source.text.clone());
            let choice = choices.entry(planned.spec).or_insert_with(|| SpecChoice { spec: planned.spec, by_point: Vec::new() });
            choice.by_point.push((point.clone(), naive));
        }
    }
    let info = ArtifactInfo { graph: Digest::of("joined"), compiler: "judge".to_owned(), untested: None };
    let linkage = link(plan, &choices.into_values().collect::<Vec<_>>(), &info).map_err(|e| e.to_string())?;
    let mut kernels = Vec::new();
    for unit in &linkage.units {
        kernels.push(object(*unit, &sources[unit], plan.target, objects)?);
    }
    assemble(&linkage, folder, &kernels)
}

fn object(unit: Digest, source: &str, target: Target, objects: &Path) -> Result<PathBuf> {
    let failed = |e: std::io::Error| e.to_string();
    let name = format!("{target}-{}", unit.to_string().replace(':', "-"));
    let object = objects.join(format!("{name}.o"));
    if object.exists() {
        return Ok(object);
    }
    fs::create_dir_all(objects).map_err(failed)?;
    let folder = tempfile::tempdir_in(objects).map_err(failed)?;
    fs::write(folder.path().join("kernel.c"), source).map_err(failed)?;
    let flags = cc::COMMON.iter().chain(cc::target_flags(&target.to_string()));
    run_cc(folder.path(), flags.copied().chain(["-c", "kernel.c", "-o", "kernel.o"]))?;
    fs::rename(folder.path().join("kernel.o"), &object).map_err(failed)?;
    Ok(object)
}

fn assemble(linkage: &Linkage, folder: &Path, kernels: &[PathBuf]) -> Result<PathBuf> {
    if !linkage.packs.is_empty() {
        return Err("a naive kernel reads packed weights, which this tool does not make".to_owned());
    }
    let mut section = vec![0; linkage.section_bytes as usize];
    for copy in &linkage.copies {
        let (from, to, n) = (copy.from as usize, copy.to as usize, copy.bytes as usize);
        section[to..to + n].copy_from_slice(&linkage.weights[from..from + n]);
    }
    let assembly = weights_assembly(section.len() as u64);
    let files: [(&str, &[u8]); 4] = [
        ("weights.bin", &section),
        ("weights.S", assembly.as_bytes()),
        ("artifact.map", VERSION_SCRIPT.as_bytes()),
        ("glue.c", linkage.glue.as_bytes()),
    ];
    for (name, bytes) in files {
        fs::write(folder.join(name), bytes).map_err(|e| e.to_string())?;
    }
    let glue_flags = GLUE_FLAGS.iter().find(|(arch, _)| *arch == env::consts::ARCH).ok_or("no flags for this architecture")?.1;
    run_cc(folder, ["-std=gnu11", "-w"].iter().chain(glue_flags).copied().chain(["-c", "glue.c", "-o", "glue.o"]))?;
    run_cc(folder, ["-c", "weights.S", "-o", "weights.o"])?;
    let kernels: Vec<&str> = kernels.iter().filter_map(|path| path.to_str()).collect();
    run_cc(folder, [LINK_FLAGS, &["glue.o"], &kernels, &["weights.o"], LINK_LIBRARIES, &["-o", "artifact.so"]].concat())?;
    Ok(folder.join("artifact.so"))
}

fn run_cc<'a>(folder: &Path, args: impl IntoIterator<Item = &'a str>) -> Result<()> {
    let compiler = env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let output = Command::new(&compiler).current_dir(folder).args(args).output();
    let output = output.map_err(|e| format!("`{compiler}` does not start: {e}"))?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}
