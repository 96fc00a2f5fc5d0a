//! Small models that other compilers got wrong once: their artifacts compute what torch or ONNX Runtime does. They lie beside the
//! checkout where there are any; each folder's README tells where the model comes from.

use std::path::{Path, PathBuf};

use crate::farm::{Cli, UNTUNED, text};
use crate::has_compiler;

/// What `submit` is told beside the model.
fn options(case: &str) -> &'static [&'static str] {
    if case == "onnx-past-length-zero" { &["--dim", "past=0..64"] } else { &[] }
}

/// How many calls of a session the recorded one is the last of.
fn calls(case: &str) -> &'static str {
    if case.starts_with("buffer-mutated") { "2" } else { "1" }
}

#[test]
fn models_that_others_got_wrong_come_out_right() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/cases");
    let Ok(list) = folder.read_dir() else {
        println!("skipped: no cases at {}", folder.display());
        return;
    };
    if !has_compiler() {
        return;
    }
    let mut cases: Vec<PathBuf> = list.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_dir()).collect();
    cases.sort();
    let cli = Cli::new();
    for folder in cases {
        let name = folder.file_name().expect("a name").to_string_lossy().into_owned();
        let model = ["model.pt2", "model.onnx"].map(|file| folder.join(file)).into_iter().find(|file| file.exists());
        let model = text(&model.unwrap_or_else(|| panic!("{name} has no model")));
        cli.run(&[&["submit", &model, "--name", &name], &UNTUNED[..], options(&name)].concat()).ok();
        let artifact = cli.pull(&name, "cases");
        let case = text(&folder.join("case.safetensors"));
        cli.run(&["run", &artifact, "--input", &case, "--check", "--calls", calls(&name)]).ok();
    }
}
