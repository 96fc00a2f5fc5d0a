//! A user's own inputs and outputs: given with a submission, kept with the version, run where it is pulled; and what differs where.

use aotfarm_compiler::interp::{Case, Tensor};

use crate::farm::{Cli, UNTUNED, text};
use crate::{has_compiler, model};

/// A file with one tensor.
fn tensor(cli: &Cli, file: &str, name: &str, tensor: &Tensor) -> String {
    let mut case = Case { inputs: vec![tensor.clone()], ..Case::default() }.write();
    // The names have the same length, so that the header stays what it is.
    assert_eq!(name.len(), 4);
    let at = case.windows(4).position(|bytes| bytes == b"in.0").unwrap();
    case[at..at + 4].copy_from_slice(name.as_bytes());
    cli.write(file, &case)
}

#[test]
fn samples_are_checked_kept_and_run_where_the_version_is_pulled() {
    if !has_compiler() {
        return;
    }
    let cli = Cli::new();
    let graph = cli.write("tiny.graph", &model::tiny(1));
    let submit = |more: &[&str]| cli.run(&[&["submit", &graph], &UNTUNED[..], more].concat());
    let case = cli.write("case.safetensors", &model::case(1, 3));
    submit(&["--samples", &case, "--expect", &case]).ok();
    let artifact = {
        let out = text(&cli.path("host"));
        let pulled = cli.run(&["pull", "tiny", "--check", "-o", &out]);
        assert!(pulled.stderr.contains("checked output 0 (`fc`): relative L2 error "), "{pulled:#?}");
        pulled.ok().trim().to_owned()
    };
    let report: Vec<serde_json::Value> = cli.run(&["--json", "pull", "tiny", "--check", "-o", &text(&cli.path("host"))]).json();
    assert!(report[0]["errors"][0].as_f64().unwrap() < 1e-5, "{report:?}");

    // Outputs of other weights are not those of this model: which, where and by how much.
    let Case { inputs, outputs, .. } = Case::read(&model::case(2, 3)).unwrap();
    let wrong = tensor(&cli, "wrong.safetensors", "fc.0", &outputs[0]);
    submit(&["--samples", &case, "--expect", &wrong])
        .fails(70, &["output 0 (`fc`): relative L2 error ", " exceeds 1.0e-5; at [", "expected "]);
    // What does not fit is told before there is a farm.
    let elsewhere = Cli::new();
    let refused = |samples: &str, words: &[&str]| {
        elsewhere.run(&["submit", &graph, "--samples", samples, "--expect", &wrong]).fails(2, words);
        assert!(!elsewhere.data().exists(), "nothing was started");
    };
    let large = Tensor::from_f32(&[9, 3, 16, 16], &vec![0.5; 9 * 768]);
    refused(&tensor(&cli, "large.safetensors", "in.0", &large), &["the samples do not fit", "input `x`", "batch from 1 to 8"]);
    let one = Tensor::from_f32(&[1, 3, 16, 16], &inputs[0].to_f32()[..768]);
    refused(&tensor(&cli, "one.safetensors", "in.0", &one), &["output 0 (`fc`) is f32[1, 10], and f32[3, 10] is expected"]);

    let diff = |more: &[&str]| cli.run(&[&["diff", &graph, &artifact], more].concat());
    assert!(diff(&[]).ok().is_empty());
    assert!(diff(&["--all"]).ok().lines().count() >= 5);
    assert!(diff(&["--samples", &case]).stderr.contains("no step differs: "));
    // One step alone, against a value that differs in one place.
    let kept = tensor(&cli, "kept.safetensors", "mean", &Tensor::from_f32(&[3, 16, 1, 1], &[0.25; 48]));
    let said = diff(&["--samples", &case, "--against", &kept]);
    for words in ["differs first", "value     mean f32[3, 16, 1, 1]", "operator  mean: adaptive_avg_pool2d", "expected  0.25"] {
        assert!(said.stdout.contains(words), "{said:#?}");
    }
    said.fails(1, &["relative L2 error", "exceeds 1.0e-5; at ["]);
    let unknown = tensor(&cli, "unknown.safetensors", "else", &one);
    diff(&["--samples", &case, "--against", &unknown]).fails(2, &["none of the values", "stem_relu"]);
    let other = cli.write("heavy.graph", &model::heavy());
    cli.run(&["diff", &other, &artifact]).fails(2, &["cannot be compared with the model", "no symbolic dimension `batch`"]);
}
