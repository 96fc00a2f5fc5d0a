//! Arrays in `.npy` files: those of tests/fixtures/npy are taken if their name begins with `ok`; the others are refused, with a reason.

use std::fs;
use std::path::Path;

use crate::farm::text;
use crate::old_data::{RELEASES, open, runs_v3};

#[test]
fn arrays_are_taken_or_refused_as_their_names_say() {
    if !runs_v3() {
        return;
    }
    let cli = open(RELEASES[0]);
    // It takes f32[batch, 8].
    let artifact = cli.pull("mlp", "out");
    let run = |file: &str| cli.run(&["run", &artifact, "--input", file]);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/npy");
    let mut taken = 0;
    for file in folder.read_dir().expect("a folder").map(|entry| entry.expect("an entry").path()) {
        let done = run(&text(&file));
        if file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("ok")) {
            done.ok();
            taken += 1;
        } else {
            done.fails(2, &[]);
        }
    }
    assert_eq!(taken, 2);

    let whole = fs::read(folder.join("ok_version_1.npy")).expect("an array");
    for length in (0..whole.len()).step_by(16) {
        run(&cli.write("cut.npy", &whole[..length])).fails(2, &["cut.npy"]);
    }
}
