//! This program as a child of itself: how it is started, what it is told, and what it answers.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{ChildStdin, ChildStdout};
use tokio_util::sync::CancellationToken;

use super::process::{self, Ending, Limits, Process, ProcessError, Program};
use super::report::shorten;

/// A child is waited for at most this much longer than its own limits add up to.
pub(crate) const GRACE: Duration = Duration::from_secs(60);

/// How to start a child: a program that hands the arguments after `args` to [`crate::child::main`].
#[derive(Debug, Clone)]
pub struct ChildProgram {
    /// The program.
    pub program: PathBuf,
    /// Its first arguments.
    pub args: Vec<OsString>,
    /// Variables of its environment, besides those of this process.
    pub env: Vec<(OsString, OsString)>,
}

/// Why a child gave no answer, if that says nothing about the work item.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChildError {
    /// It could not be started or talked to.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// Its job file could not be written.
    #[error("could not write {}", path.display())]
    JobFile {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// It failed, or answers what makes no sense.
    #[error("the {kind} child failed: {reason}")]
    Failed { kind: &'static str, reason: String },
}

impl ChildProgram {
    /// The hidden subcommand by which this program is told to be a child.
    pub const SUBCOMMAND: &str = "__child";

    /// This very program with the hidden subcommand.
    ///
    /// # Errors
    /// If the system does not tell where the program lies.
    pub fn this_program() -> io::Result<Self> {
        // The link under /proc stays valid when the file is replaced by a newer one; what it points
        // to does not.
        let exe = PathBuf::from("/proc/self/exe");
        let program = if exe.exists() { exe } else { std::env::current_exe()? };
        Ok(Self { program, args: vec![Self::SUBCOMMAND.into()], env: Vec::new() })
    }

    fn program(&self, kind: &str, job: Option<&Path>) -> Program {
        let program = Program::new(&self.program).args(&self.args).args([kind]).args(job);
        self.env.iter().fold(program, |program, (name, value)| program.env(name, value))
    }

    /// Runs a child job that answers with one JSON line; the job file lies in `dir`. The outer
    /// error is the worker's; the inner one says how the child died, which for code under test is
    /// the item's.
    pub(crate) async fn run<J, E>(
        &self,
        kind: &'static str,
        dir: &Path,
        job: &J,
        limits: Limits,
        cancel: &CancellationToken,
    ) -> Result<Result<E, String>, ChildError>
    where
        J: serde::Serialize,
        E: serde::de::DeserializeOwned,
    {
        let path = dir.join(format!("{kind}.json"));
        write_job(&path, job)?;
        answer_of(kind, self.program(kind, Some(&path)), limits, cancel).await
    }

    /// Runs a child that needs no job; errors as of [`ChildProgram::run`].
    pub(crate) async fn ask<E: serde::de::DeserializeOwned>(
        &self,
        kind: &'static str,
        limits: Limits,
    ) -> Result<Result<E, String>, ChildError> {
        answer_of(kind, self.program(kind, None), limits, &CancellationToken::new()).await
    }

    /// Starts a child that takes orders until it is dropped.
    pub(crate) async fn serve(&self, kind: &'static str, job: Option<&Path>, limits: Limits) -> Result<ServingChild, ChildError> {
        let (process, orders, answers) = process::start_with_pipes(self.program(kind, job), limits).await?;
        Ok(ServingChild { process, orders, answers: BufReader::new(answers).lines() })
    }
}

/// A child that takes orders and answers them, one JSON line each; dropping it kills it.
pub(crate) struct ServingChild {
    process: Process,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl ServingChild {
    /// Gives the child an order. One that is dead already is noticed when its answer is awaited.
    pub(crate) async fn tell(&mut self, order: &impl serde::Serialize) -> Result<(), serde_json::Error> {
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        drop(self.orders.write_all(&line).await);
        Ok(())
    }

    /// The child's next line; `None` when it has closed its output or printed what is no text.
    pub(crate) async fn line(&mut self) -> Option<String> {
        self.answers.next_line().await.ok().flatten()
    }

    /// Waits for the child to end.
    pub(crate) async fn wait(&mut self) -> Ending {
        self.process.wait().await
    }

    /// Kills the child and waits for its end.
    pub(crate) async fn kill(&mut self) -> Ending {
        self.process.kill().await
    }
}

/// The one JSON line that a child answers.
async fn answer_of<E: serde::de::DeserializeOwned>(
    kind: &'static str,
    program: Program,
    limits: Limits,
    cancel: &CancellationToken,
) -> Result<Result<E, String>, ChildError> {
    let done = process::run(program, limits, cancel).await?;
    match done.ending {
        // The code under test may have printed something before.
        Ending::Exited(0) => serde_json::from_str(done.stdout.lines().last().unwrap_or_default()).map(Ok).map_err(|e| {
            let reason = format!("its answer cannot be read ({e}): {}", shorten(&done.stdout));
            ChildError::Failed { kind, reason }
        }),
        Ending::Exited(_) => Err(ChildError::Failed { kind, reason: format!("{}: {}", done.ending, shorten(&done.stderr)) }),
        Ending::TimedOut => Ok(Err(format!("it took longer than {} s", limits.time.as_secs()))),
        Ending::Killed(_) => Ok(Err(format!("it was ended by {}", done.ending))),
    }
}

/// Writes a child's job file.
pub(crate) fn write_job(path: &Path, job: &impl serde::Serialize) -> Result<(), ChildError> {
    let bytes = serde_json::to_vec(job).map_err(io::Error::other);
    let written = bytes.and_then(|bytes| std::fs::write(path, bytes));
    written.map_err(|source| ChildError::JobFile { path: path.to_owned(), source })
}
