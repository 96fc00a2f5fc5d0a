//! What the binary says about itself.

use crate::farm::Cli;

fn help(args: &[&str]) -> String {
    // Help shows the values of the environment.
    Cli::new().env("COLUMNS", "100").env("AOTFARM_DATA_DIR", "").run(&[args, &["--help"]].concat()).ok()
}

#[test]
fn help_of_the_program() {
    insta::assert_snapshot!(help(&[]));
}

#[test]
fn help_of_submit() {
    insta::assert_snapshot!(help(&["submit"]));
}
