//! What holds for every family, over the tasks that each kind of kernel must get right.
#![cfg(test)]

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use aotfarm_protocol::{DType, Target, TuneMode};

use super::testing::{check_on, compiler, random, runs};
use super::{Candidate, FAMILIES, candidates, reference, title};
use crate::task::{Layout, Math, Size, TaskKind, TaskSpec, TensorSpec, TuningTask};

mod convolutions;
mod images;
mod loops;
mod products;

/// A row-major tensor with constant sizes.
pub fn plain(dtype: DType, shape: &[i64]) -> TensorSpec {
    TensorSpec { dtype, shape: shape.iter().map(|n| Size::Const(*n)).collect(), layout: Layout::Plain }
}

/// A blocked image of f32 for a target, its first size dim 0.
pub fn image(target: Target, chw: [i64; 3], halo: [u32; 4]) -> TensorSpec {
    let block = target.f32_lanes() as u32;
    let shape = [Size::Dim(0)].into_iter().chain(chw.map(Size::Const)).collect();
    TensorSpec { dtype: DType::F32, shape, layout: Layout::Image { block, halo } }
}

/// A task; the number of dims is the length of `point`.
pub fn task(
    target: Target,
    kind: TaskKind,
    inputs: Vec<TensorSpec>,
    weights: Vec<TensorSpec>,
    output: TensorSpec,
    point: &[i64],
) -> TuningTask {
    let spec = TaskSpec { kind, inputs, weights, outputs: vec![output], dims: point.len(), math: Math::Exact };
    TuningTask { spec, target, point: point.to_vec() }
}

/// Checks every family that supports a task against the oracle on it, and that at least the naive one does.
pub fn conforms(tasks: &[TuningTask]) {
    let cases: Vec<_> = tasks.iter().enumerate().map(|(k, task)| (task.clone(), random(task, k as u64))).collect();
    conforms_on(&cases);
}

/// [`conforms`] on given operands.
pub fn conforms_on(cases: &[(TuningTask, Vec<Vec<u8>>)]) {
    for (task, _) in cases {
        let _ = reference(task);
    }
    for family in FAMILIES {
        let supported: Vec<_> = cases.iter().filter(|(task, _)| family.supports(task).is_ok()).cloned().collect();
        if !supported.is_empty() {
            check_on(*family, &supported);
        }
    }
}

/// One small task of each shape of space that families distinguish, on a target.
fn examples(target: Target) -> Vec<TuningTask> {
    let loops_and_products = [loops::examples(target), products::examples(target)];
    let images = [images::examples(target), convolutions::examples(target)];
    loops_and_products.into_iter().chain(images).flatten().collect()
}

#[test]
fn enumeration_is_stable_and_ids_and_symbols_are_unique() {
    for target in Target::CPUS {
        let mut ids = HashSet::new();
        let mut symbols: HashMap<String, String> = HashMap::new();
        for task in examples(target) {
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
    for task in examples(Target::CPUS[0]) {
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
fn no_family_makes_c_for_a_gpu() {
    for mut task in examples(Target::CPUS[0]) {
        task.target = Target::Cuda { sm: 90 };
        assert!(candidates(&task, TuneMode::Quick, None).is_empty());
    }
}

fn golden_folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden")
}

/// Compares with a file below tests/golden, or writes it when BLESS is set.
fn golden(name: &str, text: &str) {
    let path = golden_folder().join(name);
    if std::env::var_os("BLESS").is_some() {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("the folder can be made");
        std::fs::write(&path, text).expect("the golden file can be written");
    }
    let want = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        want == text,
        "{} is not what is made now; if that is meant, run again with BLESS=1 and look at the difference",
        path.display()
    );
}

/// The source without the headers, which have files of their own, and without the digest in the symbol, which they are part of.
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

#[test]
fn every_family_and_template_has_a_golden_source() {
    let target = Target::CPUS[0];
    let mut templates: HashSet<String> = std::fs::read_dir(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("kernels/cpu"))
        .expect("the templates are there")
        .map(|entry| entry.expect("a readable folder").file_name().to_string_lossy().into_owned())
        .filter(|name| name.ends_with(".c.j2"))
        .collect();
    for family in FAMILIES {
        let first = examples(target).into_iter().find(|task| family.supports(task).is_ok());
        let task = first.unwrap_or_else(|| panic!("no example for {}", family.id()));
        let params = family.enumerate(&task).into_iter().next().expect("a point");
        let candidate = Candidate::new(*family, &task, params);
        let name = family.id().split('@').next().expect("a name");
        golden(&format!("kernels/{name}.c"), &body(&candidate));
        // The first line says what it was rendered from.
        templates
            .retain(|template| !candidate.source.text.lines().next().is_some_and(|line| line.contains(&format!("/{template} "))));
    }
    assert!(templates.is_empty(), "templates that no family renders: {templates:?}");
}

#[test]
fn task_keys_change_only_on_purpose() {
    let mut text = String::new();
    for task in examples(Target::CPUS[0]) {
        text.push_str(&format!("{} {}\n", task.key(), title(&task)));
    }
    golden("task_keys.txt", &text);
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
    let Some(compiler) = compiler() else { return };
    for target in Target::CPUS.into_iter().filter(|t| runs(*t)) {
        let naive: Vec<Candidate> = examples(target).iter().map(reference).collect();
        let _ = super::testing::Built::new(&compiler, target, &naive.iter().collect::<Vec<_>>());
    }
}
