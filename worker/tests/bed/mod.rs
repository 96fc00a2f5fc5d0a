//! What the tests of executing share: a farm that has blobs only, and a `main` that is also that of the child processes.

use std::collections::HashMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, OnceLock};

use aotfarm_protocol::{
    Capabilities, ClaimRequest, ClaimResponse, Digest, Heartbeat, HeartbeatResponse, Registered, Report, WorkItemId, WorkResult,
    WorkSpec, WorkerId,
};
use aotfarm_worker::farm::{Farm, FarmError};
use aotfarm_worker::{ChildProgram, Worker, WorkerConfig};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use libtest_mimic::{Arguments, Completion, Trial};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// A test by name.
pub type Test<B> = (&'static str, fn(&B) -> BoxFuture<'_, ()>);

/// Makes what tests need, or says what is missing.
pub type MakeBed<B> = fn() -> BoxFuture<'static, Result<B, String>>;

/// Runs the tests that the command line names, one at a time, or the child process that it asks
/// for. They are skipped where something that they need is missing.
pub fn run<B: Send + Sync + 'static>(tests: &'static [Test<B>], make: MakeBed<B>) -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    if words.next().is_some_and(|word| word == ChildProgram::SUBCOMMAND) {
        return aotfarm_worker::child::main(words);
    }
    let args = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be started");
    let shared = Arc::new((runtime, OnceLock::new()));
    let trial = |(name, test): &'static Test<B>| {
        let shared = shared.clone();
        Trial::ignorable_test(*name, move || {
            let (runtime, bed) = &*shared;
            match bed.get_or_init(|| runtime.block_on(make())) {
                Ok(bed) => {
                    runtime.block_on(test(bed));
                    Ok(Completion::Completed)
                }
                Err(missing) => Ok(Completion::ignored_with(format!("skipped: {missing}"))),
            }
        })
    };
    libtest_mimic::run(&args, tests.iter().map(trial).collect()).exit_code()
}

/// A set-up whose children are this very program, and the folder that it needs.
pub fn config() -> (WorkerConfig, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let mut config = WorkerConfig::new(dir.path().to_owned()).unwrap();
    config.child =
        ChildProgram { program: std::env::current_exe().unwrap(), args: vec![ChildProgram::SUBCOMMAND.into()], env: Vec::new() };
    (config, dir)
}

/// Does an item that must be possible.
pub async fn execute(worker: &Worker, spec: &WorkSpec) -> WorkResult {
    worker.execute(spec, &CancellationToken::new()).await.unwrap()
}

/// A blob store in memory, which is all of a coordinator that executing needs.
#[derive(Default)]
pub struct Blobs(Mutex<HashMap<Digest, Vec<u8>>>);

impl Blobs {
    pub fn put(&self, content: impl Into<Vec<u8>>) -> Digest {
        let content = content.into();
        let digest = Digest::of(&content);
        self.0.lock().unwrap().insert(digest, content);
        digest
    }

    pub fn get(&self, digest: Digest) -> Vec<u8> {
        self.0.lock().unwrap()[&digest].clone()
    }
}

fn nobody<T: Send + 'static>() -> BoxFuture<'static, Result<T, FarmError>> {
    async { Err(FarmError::Away("this farm has blobs only".to_owned())) }.boxed()
}

impl Farm for Blobs {
    fn register<'a>(&'a self, _: &'a Capabilities) -> BoxFuture<'a, Result<Registered, FarmError>> {
        nobody()
    }
    fn claim<'a>(&'a self, _: WorkerId, _: &'a ClaimRequest) -> BoxFuture<'a, Result<ClaimResponse, FarmError>> {
        nobody()
    }
    fn heartbeat<'a>(&'a self, _: WorkerId, _: &'a Heartbeat) -> BoxFuture<'a, Result<HeartbeatResponse, FarmError>> {
        nobody()
    }
    fn report<'a>(&'a self, _: WorkItemId, _: &'a Report) -> BoxFuture<'a, Result<(), FarmError>> {
        nobody()
    }
    fn leave(&self, _: WorkerId) -> BoxFuture<'_, Result<(), FarmError>> {
        nobody()
    }
    fn download<'a>(&'a self, digest: Digest, to: &'a Path) -> BoxFuture<'a, Result<(), FarmError>> {
        async move { std::fs::write(to, self.get(digest)).map_err(|e| FarmError::Away(e.to_string())) }.boxed()
    }
    fn upload<'a>(&'a self, digest: Digest, from: &'a Path) -> BoxFuture<'a, Result<(), FarmError>> {
        async move {
            assert_eq!(self.put(std::fs::read(from).unwrap()), digest);
            Ok(())
        }
        .boxed()
    }
}
