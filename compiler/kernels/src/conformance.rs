//! What holds for every family, over the tasks that each kind of kernel must get right.
#![cfg(test)]

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use aotfarm_protocol::{DType, Target, TuneMode};

use super::testing::{Built, Host, check_on, random};
use super::{Candidate, FAMILIES, candidates, reference, title};
use crate::task::TuningTask;
use aotfarm_plan::spec::{GPU_CHANNELS, KernelKind, KernelSpec, Layout, Math, Size, TensorSpec};

mod attention;
mod convolutions;
mod dtypes;
mod images;
mod loops;
mod models;
mod products;

/// A row-major tensor with constant sizes.
pub fn plain(dtype: DType, shape: &[i64]) -> TensorSpec {
    TensorSpec { dtype, shape: shape.iter().map(|n| Size::Const(*n)).collect(), layout: Layout::Plain }
}

/// The target of four lanes, which most hosts of these tests emulate.
pub const ARM: Target = Target::CPUS[2];
/// The GPU target of these tests.
const GPU: Target = Target::Cuda { sm: 90 };

/// The layout of an image on a target: blocked with a halo, or NHWC.
pub fn image_layout(target: Target, channels: i64, halo: [u32; 4]) -> Layout {
    match target {
        Target::Cpu(_) => Layout::Image { block: target.f32_lanes() as u32, halo },
        Target::Cuda { .. } => {
            let block = (channels + GPU_CHANNELS - 1) / GPU_CHANNELS * GPU_CHANNELS;
            Layout::Image { block: block as u32, halo: [0; 4] }
        }
    }
}

/// An image of f32 for a target, its first size dim 0.
pub fn image(target: Target, chw: [i64; 3], halo: [u32; 4]) -> TensorSpec {
    let shape = [Size::Dim(0)].into_iter().chain(chw.map(Size::Const)).collect();
    TensorSpec { dtype: DType::F32, shape, layout: image_layout(target, chw[0], halo) }
}

/// A task; the number of dims is the length of `point`.
pub fn task(
    target: Target,
    kind: KernelKind,
    inputs: Vec<TensorSpec>,
    weights: Vec<TensorSpec>,
    output: TensorSpec,
    point: &[i64],
) -> TuningTask {
    let spec = KernelSpec { kind, inputs, weights, outputs: vec![output], dims: point.len(), math: Math::Exact };
    TuningTask { spec, target, point: point.to_vec() }
}

/// Checks every family that supports a task against the oracle on it, and that at least the naive
/// one does.
pub fn conforms(tasks: &[TuningTask]) {
    let cases: Vec<_> = tasks.iter().enumerate().map(|(k, task)| (task.clone(), random(task, k as u64))).collect();
    conforms_on(&cases);
}

/// [`conforms`] on given operands.
pub fn conforms_on(cases: &[(TuningTask, Vec<Vec<u8>>)]) {
    let elsewhere = |target| cases.iter().filter_map(move |(task, raw)| on_target(target, task, raw));
    let others: Vec<_> = elsewhere(ARM).chain(elsewhere(GPU)).collect();
    let cases = [cases, &others].concat();
    for (task, _) in &cases {
        let _ = reference(task);
    }
    for family in FAMILIES {
        let supported: Vec<_> = cases.iter().filter(|(task, _)| family.supports(task).is_ok()).cloned().collect();
        if !supported.is_empty() {
            check_on(*family, &supported);
        }
    }
}

/// A task for the first CPU as one for another target. (The weights of convolutions differ; those
/// have examples of their own.)
fn on_target(target: Target, task: &TuningTask, raw: &[Vec<u8>]) -> Option<(TuningTask, Vec<Vec<u8>>)> {
    let mut task = TuningTask { target, ..(task.target == Target::CPUS[0]).then(|| task.clone())? };
    match task.spec.kind {
        KernelKind::Conv(_) | KernelKind::Attention(_) => None,
        KernelKind::MatMul(_) | KernelKind::Rows(_) | KernelKind::Loops(_) => Some((task, raw.to_vec())),
        KernelKind::Pool(_) => {
            let before = task.clone();
            for tensor in task.spec.inputs.iter_mut().chain(&mut task.spec.outputs) {
                if let (Layout::Image { halo, .. }, Size::Const(channels)) = (&tensor.layout, tensor.shape[1]) {
                    tensor.layout = image_layout(target, channels, *halo);
                }
            }
            let raw = if task == before { raw.to_vec() } else { random(&task, 1) };
            Some((task, raw))
        }
    }
}

/// A task for a GPU with its activations, and the weights that it multiplies, stored in a type.
fn stored_as(mut task: TuningTask, dtype: DType) -> TuningTask {
    let multiplied = match &mut task.spec.kind {
        KernelKind::Conv(conv) => 1 + usize::from(conv.branch.is_some()),
        KernelKind::MatMul(matmul) => usize::from(matmul.b_is_weight),
        KernelKind::Attention(_) | KernelKind::Pool(_) | KernelKind::Rows(_) => 0,
        // Loop nests say themselves what is converted: see their examples.
        KernelKind::Loops(_) => return task,
    };
    let spec = &mut task.spec;
    let weights = spec.weights.iter_mut().take(multiplied);
    let stored = spec.inputs.iter_mut().chain(weights).chain(&mut spec.outputs);
    stored.filter(|tensor| tensor.dtype == DType::F32).for_each(|tensor| tensor.dtype = dtype);
    task
}

/// [`examples`], for a GPU in every precision.
fn all_examples(target: Target) -> Vec<TuningTask> {
    let mut all = examples(target);
    if let Target::Cuda { .. } = target {
        let stored = all.iter().filter(|t| !matches!(t.spec.kind, KernelKind::Loops(_)));
        let narrow: Vec<_> =
            stored.flat_map(|task| [DType::Bf16, DType::F16].map(|dtype| stored_as(task.clone(), dtype))).collect();
        let multiplies =
            |task: &&TuningTask| matches!(task.spec.kind, KernelKind::Conv(_) | KernelKind::MatMul(_) | KernelKind::Attention(_));
        let mut tf32: Vec<_> = all.iter().filter(multiplies).cloned().collect();
        tf32.iter_mut().for_each(|task| task.spec.math = Math::Tf32);
        all.extend(narrow);
        all.extend(tf32);
    }
    all
}

/// One small task of each shape of space that families distinguish, on a target.
fn examples(target: Target) -> Vec<TuningTask> {
    let loops_and_products = [loops::examples(target), products::examples(target)];
    let images = [images::examples(target), convolutions::examples(target), attention::examples(target)];
    loops_and_products.into_iter().chain(images).flatten().collect()
}

#[test]
fn enumeration_is_stable_and_ids_and_symbols_are_unique() {
    for target in Target::CPUS.into_iter().chain([GPU]) {
        let mut ids = HashSet::new();
        let mut symbols: HashMap<String, String> = HashMap::new();
        for task in all_examples(target) {
            let all = candidates(&task, TuneMode::Full, None);
            let again: Vec<_> = candidates(&task, TuneMode::Full, None).iter().map(|c| c.id).collect();
            assert_eq!(all.iter().map(|c| c.id).collect::<Vec<_>>(), again, "{}", title(&task));
            assert_eq!(all[0].id, reference(&task).id, "the naive candidate leads");
            for candidate in all {
                assert!(ids.insert(candidate.id), "{} twice for {}", candidate.label(), title(&task));
                let text = symbols.entry(candidate.source.symbol.clone()).or_insert_with(|| candidate.source.text.clone());
                assert_eq!(*text, candidate.source.text, "one symbol for two texts");
            }
        }
    }
}

#[test]
fn only_compile_time_parameters_show_in_the_source() {
    for task in all_examples(Target::CPUS[0]).into_iter().chain(all_examples(GPU)) {
        for family in FAMILIES.iter().filter(|f| f.supports(&task).is_ok()) {
            let mut texts = HashMap::new();
            for params in family.enumerate(&task) {
                let text = family.render(&task, &params).text;
                let mut compiled = params.clone();
                compiled.retain(|name, _| family.compile_time().is_none_or(|names| names.contains(&name.as_str())));
                let known = texts.entry(compiled).or_insert_with(|| text.clone());
                assert!(*known == text, "{} renders {params:?} unlike an equal unit for {}", family.id(), title(&task));
            }
        }
    }
}

#[test]
fn a_limit_keeps_the_best_guesses_of_every_family() {
    for task in examples(Target::CPUS[0]) {
        let all = candidates(&task, TuneMode::Full, None);
        let few = candidates(&task, TuneMode::Full, Some(3));
        assert_eq!(few.len(), all.len().min(4));
        assert!(few.iter().zip(&all).all(|(a, b)| a.id == b.id), "a limit takes a prefix");
    }
}

#[test]
fn no_family_is_for_both_cpus_and_gpus() {
    let (on_cpu, on_gpu) = (Target::CPUS.map(all_examples).concat(), all_examples(GPU));
    for family in FAMILIES {
        let supports = |tasks: &[TuningTask]| tasks.iter().any(|task| family.supports(task).is_ok());
        assert_ne!(supports(&on_cpu), supports(&on_gpu), "{} supports tasks of both or of neither", family.id());
    }
}

#[test]
fn cuda_kernels_are_right_in_every_precision() {
    conforms(&all_examples(GPU));
}

#[test]
fn the_last_layer_gives_f32() {
    let mut tasks = Vec::new();
    for task in examples(GPU) {
        // A residual is what the arena stores.
        let mut task = stored_as(task, DType::Bf16);
        task.spec.outputs[0].dtype = DType::F32;
        tasks.push(task);
    }
    conforms(&tasks);
}

/// Compares with a file, or writes it when BLESS is set.
fn golden(path: &Path, text: &str) {
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, text).expect("the golden file can be written");
    }
    let want = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        want == text,
        "{} is not what is made now; if that is meant, run again with BLESS=1 and look at the difference",
        path.display()
    );
}

/// The source without the headers, which have files of their own, and without the digest in the
/// symbol, which they are part of.
fn body(candidate: &Candidate) -> String {
    let symbol = &candidate.source.symbol;
    let named = symbol.rsplit_once('_').expect("a digest ends the symbol").0;
    let text = candidate.source.text.replace(symbol, &format!("{named}_DIGEST"));
    let lines: Vec<&str> = text.lines().collect();
    let end_of_headers = lines.iter().position(|l| *l == "/* end of the headers */").expect("every unit has headers");
    let mut kept: Vec<&str> = lines[..3].to_vec();
    kept.extend(&lines[end_of_headers..]);
    kept.join("\n") + "\n"
}

/// A folder of `families/` with a template, and what it holds.
struct FamilyFolder {
    path: PathBuf,
    /// Names of files that begin with `golden`.
    goldens: Vec<String>,
}

/// All folders with a template.
fn family_folders() -> Vec<FamilyFolder> {
    let families = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/families");
    let entries = |folder: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).expect("the folder of families is there");
        entries.map(|entry| entry.expect("a readable folder").path()).collect()
    };
    let folders = entries(&families).into_iter().chain(entries(&families.join("cuda"))).filter(|path| path.is_dir());
    let mut all = Vec::new();
    for path in folders {
        let names: Vec<String> =
            entries(&path).iter().filter_map(|file| Some(file.file_name()?.to_string_lossy().into_owned())).collect();
        if names.iter().any(|name| name.ends_with(".j2")) {
            let goldens = names.into_iter().filter(|name| name.starts_with("golden")).collect();
            all.push(FamilyFolder { path, goldens });
        }
    }
    all
}

/// The golden file of a family: `golden.c` in the folder of its name, or `golden_<family>.c` in one
/// that it shares.
fn golden_of(family: &str, target: Target, folders: &[FamilyFolder]) -> PathBuf {
    let (extension, own) = match target {
        Target::Cpu(_) => ("c", family),
        Target::Cuda { .. } => ("cu", family.strip_prefix("cuda_").unwrap_or(family)),
    };
    let shared = format!("golden_{family}.{extension}");
    if let Some(folder) = folders.iter().find(|folder| folder.goldens.contains(&shared)) {
        return folder.path.join(shared);
    }
    let on_gpu = |folder: &FamilyFolder| folder.path.parent().is_some_and(|parent| parent.ends_with("cuda"));
    let is_own = |folder: &&FamilyFolder| folder.path.ends_with(own) && on_gpu(folder) == (extension == "cu");
    let folder = folders.iter().find(is_own);
    let folder = folder.unwrap_or_else(|| panic!("{family} has no folder `{own}`, and none with an (empty) {shared}"));
    folder.path.join(format!("golden.{extension}"))
}

#[test]
fn every_family_and_template_has_a_golden_source() {
    let folders = family_folders();
    let mut unread: HashSet<PathBuf> =
        folders.iter().flat_map(|folder| folder.goldens.iter().map(|name| folder.path.join(name))).collect();
    let mut unrendered: HashSet<&Path> = folders.iter().map(|folder| folder.path.as_path()).collect();
    for family in FAMILIES {
        let mut tasks = examples(Target::CPUS[0]).into_iter().chain(all_examples(GPU));
        let first = tasks.find(|task| family.supports(task).is_ok());
        let task = first.unwrap_or_else(|| panic!("no example for {}", family.id()));
        let params = family.enumerate(&task).into_iter().next().expect("a point");
        let candidate = Candidate::new(*family, &task, params);
        let name = family.id().split('@').next().expect("a name");
        let path = golden_of(name, task.target, &folders);
        golden(&path, &body(&candidate));
        unread.remove(&path);
        unrendered.remove(path.parent().expect("a folder"));
    }
    assert!(unrendered.is_empty(), "templates that no family renders: {unrendered:?}");
    assert!(unread.is_empty(), "golden files of no family: {unread:?}");
}

#[test]
fn task_keys_change_only_on_purpose() {
    let mut text = String::new();
    for task in examples(Target::CPUS[0]) {
        text.push_str(&format!("{} {}\n", task.key(), title(&task)));
    }
    golden(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/task_keys.txt"), &text);
}

#[test]
fn every_field_is_part_of_the_key() {
    let base = examples(Target::CPUS[0]).swap_remove(0);
    let mut others = vec![base.clone(); 4];
    others[0].target = Target::CPUS[1];
    others[1].point.push(3);
    others[2].spec.dims += 1;
    others[3].spec.outputs[0].dtype = DType::F64;
    for other in others {
        assert_ne!(base.key(), other.key());
    }
}

#[test]
fn all_units_compile_for_every_target_that_runs_here() {
    for target in Target::CPUS {
        let Some(host) = Host::find(target) else { continue };
        let naive: Vec<Candidate> = examples(target).iter().map(reference).collect();
        let _ = Built::new(&host, target, &naive.iter().collect::<Vec<_>>());
    }
}
