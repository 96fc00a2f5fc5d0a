//! What the tests of executing share: a farm that has blobs only, and a `main` that is also that of the child processes.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;

use aotfarm_protocol::{
    Capabilities, ClaimRequest, ClaimResponse, Digest, Heartbeat, HeartbeatResponse, Registered, Report, WorkItemId, WorkResult,
    WorkSpec, WorkerId,
};
use aotfarm_worker::farm::{Farm, FarmError};
use aotfarm_worker::{ChildProgram, Worker, WorkerConfig};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// A test by name.
pub type Test<B> = (&'static str, fn(&B) -> BoxFuture<'_, ()>);

/// Runs the tests that the command line names, or the child process that it asks for. `bed` makes what they need, or says what is
/// missing: then they are skipped.
pub fn run<B>(tests: &[Test<B>], bed: impl AsyncFnOnce() -> Result<B, String>) -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    if args.first().is_some_and(|a| a == ChildProgram::SUBCOMMAND) {
        return aotfarm_worker::child::main(args.into_iter().skip(1));
    }
    let args: Vec<String> = args.into_iter().filter_map(|a| a.into_string().ok()).collect();
    let filters: Vec<&String> = args.iter().filter(|a| !a.starts_with('-')).collect();
    let exact = args.iter().any(|a| a == "--exact");
    let chosen =
        |name: &str| filters.is_empty() || filters.iter().any(|f| if exact { name == *f } else { name.contains(f.as_str()) });
    let tests: Vec<&Test<B>> = tests.iter().filter(|(name, _)| chosen(name)).collect();
    if args.iter().any(|a| a == "--list") {
        tests.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be started");
    let bed = match runtime.block_on(bed()) {
        Ok(bed) => bed,
        Err(missing) => {
            eprintln!("skipped: {missing}");
            return ExitCode::SUCCESS;
        }
    };
    let mut failed = 0;
    for (name, test) in &tests {
        let run = std::panic::AssertUnwindSafe(|| runtime.block_on(test(&bed)));
        let passed = std::panic::catch_unwind(run).is_ok();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        failed += u32::from(!passed);
    }
    println!("{} passed; {failed} failed", tests.len() as u32 - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
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
