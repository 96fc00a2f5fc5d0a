//! Artifacts for CPUs of another architecture: built here by a cross compiler, run here by an emulator.

use std::path::Path;
use std::process::Command;

use aotfarm_compiler::interp::{self, Tensor};
use aotfarm_protocol::{JobState, WorkKind};

use crate::farm::{BRIEFLY, Cli, Running, text};
use crate::{has_compiler, model};

/// Whether this host builds and runs programs for aarch64 by these; the reason is printed when it does not.
fn emulates_aarch64() -> bool {
    if cfg!(target_arch = "aarch64") {
        eprintln!("skipped: this host is aarch64 itself");
        return false;
    }
    let lacking = ["aarch64-linux-gnu-gcc", "qemu-aarch64"]
        .into_iter()
        .find(|name| !Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success()));
    if let Some(name) = lacking {
        eprintln!("skipped: there is no {name} (packages gcc-aarch64-linux-gnu, libc6-dev-arm64-cross and qemu-user)");
    }
    lacking.is_none()
}

#[test]
fn a_model_for_aarch64_is_compiled_here_and_runs_under_an_emulator() {
    if !has_compiler() || !emulates_aarch64() {
        return;
    }
    let cli = Cli::new();
    let graph = cli.write("tiny.graph", &model::tiny(1));
    // Asked to tune, on a host that cannot: it says so, and takes the best guesses.
    let done = cli.run(&[&["submit", graph.as_str(), "--target", "cpu-aarch64"], &BRIEFLY[..]].concat());
    let untested = "no connected worker has a device that runs cpu-aarch64: its kernels are not measured";
    assert!(done.stderr.contains(untested), "{done:#?}");
    assert!(done.ok().starts_with("tiny@v1 "));
    let job = cli.last_job();
    assert_eq!(job.state, JobState::Published);
    assert!(job.items.get(&WorkKind::Measure).is_none_or(|count| count.total == 0), "{job:#?}");
    let shown = cli.run(&["show", "tiny"]).ok();
    assert!(shown.contains("its kernels were not measured: no device that runs cpu-aarch64"), "{shown}");

    // This host does not run it, but may have it.
    let out = text(&cli.path("out"));
    cli.run(&["pull", "tiny", "-o", &out]).fails(5, &["cpu-aarch64 needs an aarch64 CPU"]);
    let artifact = cli.run(&["pull", "tiny/cpu-aarch64", "--any-host", "-o", &out]).ok().trim().to_owned();

    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let example = text(&repository.join("docs/examples/run.c"));
    let include = format!("-I{}", text(&repository.join("abi/include")));
    let cc = |args: &[&str]| Running::new(cli.command("aarch64-linux-gnu-gcc", args)).end().ok();
    cc(&["-Wall", "-Wextra", "-Werror", &include, &example, "-o", "run", "-ldl"]);
    let library = cc(&["-print-file-name=libc.so.6"]);
    let root = Path::new(library.trim()).canonicalize().expect("the C library of the cross compiler");
    let root = text(root.parent().and_then(Path::parent).expect("a folder lib in the root"));
    for batch in [1, 3, 8] {
        let run = ["-L", &root, "./run", &artifact, &batch.to_string()];
        let said = Running::new(cli.command("qemu-aarch64", &run)).end().ok();
        let (header, output) = said.trim().split_once('\n').expect("two lines");
        assert!(header.starts_with("cpu-aarch64, "), "{said}");
        let (shape, numbers) = output.split_once("] ").expect("a shape and numbers");
        assert!(shape.ends_with(&format!("[{batch}, 10")), "{said}");
        // The example gives ones, and prints the first five numbers with six digits.
        let ones = Tensor::from_f32(&[batch, 3, 16, 16], &vec![1.0; batch * 768]);
        let expected = interp::run(&model::tiny_graph(1), &[ones]).expect("the interpreter runs it").swap_remove(0);
        let got: Vec<f64> = numbers.split(' ').map(|n| n.parse().expect("a number")).collect();
        assert_eq!(got.len(), 5, "{said}");
        for (got, expected) in got.iter().zip(numbers_of(&expected)) {
            assert!((got - expected).abs() <= 1e-4 * expected.abs().max(0.1), "batch {batch}: {got} instead of {expected}");
        }
    }
}

/// The numbers of a tensor of f32.
fn numbers_of(tensor: &Tensor) -> Vec<f64> {
    tensor.data.chunks_exact(4).map(|b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]]))).collect()
}
