//! Checks and chores of this repository: `cargo xtask ci` is what continuous integration runs.
#![forbid(unsafe_code)]

mod ci;
mod lines;
mod structure;

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "xtask", about = "Checks and chores of this repository")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Everything: structure, format, lints, dependencies, tests
    Ci,
    /// Rules that no other tool checks: who imports whom, no circles, the words
    Structure,
    /// Lines by crate, the longest files and functions
    Lines {
        /// The workspace to look at, if not this one
        root: Option<PathBuf>,
    },
}

fn main() -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the workspace")?;
    match Arguments::parse().chore {
        Chore::Structure => structure::check(root),
        Chore::Ci => ci::run(root),
        Chore::Lines { root: other } => lines::print(other.as_deref().unwrap_or(root)),
    }
}
