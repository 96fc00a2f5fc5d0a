//! The verbs, one file each.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Subcommand;

use crate::cli::Cli;
use crate::options::Global;
use crate::output::Output;
use crate::shutdown::interrupted;

mod bench;
mod cancel;
mod compare;
mod coordinator;
mod demo;
mod diff;
mod doctor;
mod example;
mod history;
mod import;
mod inspect;
mod job;
mod jobs;
mod logs;
mod ls;
mod pull;
mod run;
mod show;
mod submit;
mod tag;
mod worker;
mod workers;

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    Import(import::Import),
    Inspect(inspect::Inspect),
    Example(example::Example),
    Submit(submit::Submit),
    Pull(pull::Pull),
    Run(run::Run),
    Bench(bench::Bench),
    Diff(diff::Diff),
    Ls(ls::Ls),
    Show(show::Show),
    History(history::History),
    Compare(compare::Compare),
    Tag(tag::Tag),
    Job(job::Job),
    Jobs(jobs::Jobs),
    Logs(logs::Logs),
    Cancel(cancel::Cancel),
    Workers(workers::Workers),
    Coordinator(coordinator::Serve),
    Worker(worker::Work),
    Demo(demo::Demo),
    Doctor(doctor::Doctor),
}

/// Runs the verb.
pub(crate) fn run(verb: Verb, global: &Global, out: &Output) -> anyhow::Result<ExitCode> {
    start_logging(global.verbose, matches!(verb, Verb::Coordinator(_) | Verb::Worker(_)));
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("failed to start the async runtime")?;
    let done = runtime.block_on(async {
        let cx = Cli::new(global, *out);
        tokio::select! {
            done = dispatch(verb, &cx) => done,
            () = interrupted() => Ok(ExitCode::from(130)),
        }
    });
    // Blocking work that an interrupt left behind (a plan being made) must not hold the prompt.
    runtime.shutdown_timeout(std::time::Duration::from_millis(200));
    done
}

async fn dispatch(verb: Verb, cx: &Cli) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Import(v) => v.run(cx),
        Verb::Inspect(v) => v.run(cx),
        Verb::Example(v) => v.run(cx),
        Verb::Submit(v) => v.run(cx).await,
        Verb::Pull(v) => v.run(cx).await,
        Verb::Run(v) => v.run(cx),
        Verb::Bench(v) => v.run(cx),
        Verb::Diff(v) => v.run(cx),
        Verb::Ls(v) => v.run(cx).await,
        Verb::Show(v) => v.run(cx).await,
        Verb::History(v) => v.run(cx).await,
        Verb::Compare(v) => v.run(cx).await,
        Verb::Tag(v) => v.run(cx).await,
        Verb::Job(v) => v.run(cx).await,
        Verb::Jobs(v) => v.run(cx).await,
        Verb::Logs(v) => v.run(cx).await,
        Verb::Cancel(v) => v.run(cx).await,
        Verb::Workers(v) => v.run(cx).await,
        Verb::Coordinator(v) => v.run(cx).await,
        Verb::Worker(v) => v.run(cx).await,
        Verb::Demo(v) => v.run(cx).await,
        Verb::Doctor(v) => v.run(cx).await,
    }
}

/// `role`: the process is a coordinator or a worker, whose log is its only voice.
fn start_logging(verbose: u8, role: bool) {
    let default = match verbose {
        // A verb tells its own failure; what the embedded roles log of it would say it twice.
        0 if !role => "off",
        // sqlx reports slow statements; on a busy machine that is no news for a user.
        0 => "warn,sqlx=error",
        1 => "info",
        _ => "debug",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("AOTFARM_LOG").unwrap_or_else(|_| default.into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_target(false)
        .init();
}
