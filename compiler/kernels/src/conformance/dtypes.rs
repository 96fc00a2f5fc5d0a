//! Which element types which operators compute in: the tables of `docs/dtypes.md`.
#![cfg(test)]

use std::collections::HashMap;
use std::path::Path;

use aotfarm_ir::{Graph, text};
use aotfarm_plan::{self as plan, passes};
use aotfarm_protocol::{DType, Precision, Target, TuneMode};

use super::GPU;
use crate::testing::gpu::{Nvrtc, cubins};
use crate::{Candidate, candidates};

/// Operators of one kind, by example: `T` is the element type, `N` a symbolic size.
const KINDS: [(&str, &str); 16] = [
    ("copies, views", "%p = permute %x {axes=[1, 0]} : T[8, N]\n%y = concat %p, %p {axis=0} : T[16, N]"),
    ("arithmetic", "%a = add %x, %x : T[N, 8]\n%y = mul %a, %x : T[N, 8]"),
    ("functions", "%a = exp %x : T[N, 8]\n%y = tanh %a : T[N, 8]"),
    ("comparisons", "%c = le %x, %x : bool[N, 8]\n%y = where %c, %x, %x : T[N, 8]"),
    ("casts", "%c = cast %x : f32[N, 8]\n%y = cast %c : T[N, 8]"),
    ("gathers", "input %i : i64[N, 3]\nweight %t : T[10, 8]\n%y = take %t, %i {axis=0} : T[N, 3, 8]"),
    ("sum", "%y = reduce_sum %x {axes=[1]} : T[N]"),
    ("mean", "%y = reduce_mean %x {axes=[1]} : T[N]"),
    ("max, min", "%y = reduce_max %x {axes=[1]} : T[N]"),
    ("matmul", "weight %b : T[8, 5]\n%y = matmul %x, %b : T[N, 5]"),
    ("linear", "weight %w : T[5, 8]\nweight %b : T[5]\n%y = linear %x, %w, %b : T[N, 5]"),
    ("convolution", "input %i : T[N, 3, 8, 8]\nweight %w : T[4, 3, 3, 3]\n%y = conv %i, %w : T[N, 4, 6, 6]"),
    ("max pool", "input %i : T[N, 3, 8, 8]\n%y = max_pool %i {kernel=[3, 3], pad=[[1, 1], [1, 1]]} : T[N, 3, 8, 8]"),
    ("average pool", "input %i : T[N, 3, 8, 8]\n%y = avg_pool %i {kernel=[3, 3], pad=[[1, 1], [1, 1]]} : T[N, 3, 8, 8]"),
    ("attention", "input %q : T[N, 2, 5, 8]\n%y = attention %q, %q, %q {scale=0.5, causal} : T[N, 2, 5, 8]"),
    (
        "norms, softmax",
        "weight %s : T[8]\n%n = layer_norm %x, %s, %s {axes=1, eps=1e-5} : T[N, 8]\n%y = softmax %n {axis=1} : T[N, 8]",
    ),
];

/// What becomes of a kind in a type: `yes` where there is a kernel, else the command that refuses it.
fn verdict(kind: &str, dtype: DType, target: Target, units: &mut HashMap<String, Candidate>) -> &'static str {
    let source = format!("graph g\ndim n = 1..4\ninput %x : T[N, 8]\n{kind}\noutput %y");
    let source = source.replace(" T[", &format!(" {dtype}[")).replace("[N", "[n").replace(", N]", ", n]");
    // Where the IR has no such operator, there is none that an importer could map to.
    let Ok(graph) = text::parse(&source) else { return "import" };
    match planned(graph, target) {
        Some(found) => {
            units.extend(found.into_iter().map(|c| (c.source.symbol.clone(), c)));
            "yes"
        }
        None => "submit",
    }
}

/// The first candidate of each task, if there is a plan and all have one.
fn planned(graph: Graph, target: Target) -> Option<Vec<Candidate>> {
    let plan = plan::lower(passes::run(graph, None).expect("passes"), target, Precision::Fp32).ok()?;
    let point = plan.tune_points(&[]).remove(0);
    let tasks = crate::tasks(&plan, &point).expect("sizes within the range");
    tasks.iter().map(|t| candidates(&t.task, TuneMode::Quick, Some(1)).into_iter().next()).collect()
}

fn table(target: Target, units: &mut HashMap<String, Candidate>) -> String {
    let mut text =
        format!("| | {} |\n|---|{}\n", DType::ALL.map(|dtype| format!("`{dtype}`")).join(" | "), "---|".repeat(DType::ALL.len()));
    for (name, kind) in KINDS {
        let cells = DType::ALL.map(|dtype| verdict(kind, dtype, target, units));
        text += &format!("| {name} | {} |\n", cells.join(" | "));
    }
    text
}

#[test]
fn the_tables_of_the_documentation_are_true() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/dtypes.md");
    let recorded = std::fs::read_to_string(&file).expect("the documentation is there");
    let (mut text, mut units) = (recorded.clone(), HashMap::new());
    for (heading, target) in [("## CPU\n\n", Target::CPUS[0]), ("## CUDA\n\n", GPU)] {
        let from = text.find(heading).expect("a heading for each kind of target") + heading.len();
        let to = text[from..].find("\n\n").map_or(text.len(), |at| from + at + 1);
        text.replace_range(from..to, &table(target, &mut units));
    }
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&file, &text).expect("the documentation can be written");
    } else {
        assert!(text == recorded, "{} is out of date; BLESS=1 rewrites its tables:\n{text}", file.display());
    }
    units.retain(|_, unit| unit.launch.is_some());
    if let Some(nvrtc) = Nvrtc::find() {
        cubins(nvrtc, 90, &units.values().collect::<Vec<_>>());
    }
}
