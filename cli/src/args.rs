//! The command line.

use clap::Parser;

use crate::options::Global;
use crate::verbs::Verb;

/// Ahead-of-time compile farm for ML models, with an artifact registry.
///
/// Without --coordinator everything runs embedded: coordinator and worker inside this command, over SQLite and files
/// in the data folder.
#[derive(Debug, Parser)]
#[command(
    name = "aotfarm",
    version,
    max_term_width = 110,
    after_help = "Exit codes: 0 done; 1 the job or check failed; 2 bad usage or input; 3 not found; 4 coordinator unreachable; 5 this host cannot run it; 6 storage; 70 a defect; 130 interrupted."
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Parses the command line; prints usage errors and exits with 2, as clap does.
pub(crate) fn parse() -> Arguments {
    Arguments::parse()
}
