//! A harness that runs the real binary: commands with their output, and farms of processes that can be killed.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use aotfarm_protocol::{HistoryEntry, ItemInfo, JobId, JobStatus, WorkerInfo};
use serde::de::DeserializeOwned;
use tempfile::TempDir;

use crate::model;

/// The binary under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_aotfarm");

/// How long anything may take before it counts as hanging. Generous: the tests must pass on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// Tunes little, at one size: enough for every kind of work item.
pub(crate) const BRIEFLY: [&str; 7] = ["--tune-at", "4", "--trials", "3", "--budget", "3s", "--threads=2"];
/// Measures nothing.
pub(crate) const UNTUNED: [&str; 3] = ["--tune", "none", "--threads=2"];

/// Looks again and again until there is something to see.
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What a command came to.
#[derive(Debug)]
pub(crate) struct Done {
    status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Done {
    /// Stdout of a command that must have succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.status.code(), Some(0), "{self:#?}");
        self.stdout
    }

    /// The objects, one per line of stdout, of a command that must have succeeded.
    #[track_caller]
    pub(crate) fn json<T: DeserializeOwned>(self) -> Vec<T> {
        let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in {line}"));
        self.ok().lines().map(parse).collect()
    }

    /// Stderr of a command that must have failed with `code`, say all of `words`, and print no data.
    #[track_caller]
    pub(crate) fn fails(self, code: i32, words: &[&str]) -> String {
        assert_eq!(self.status.code(), Some(code), "{self:#?}");
        assert!(self.stderr.starts_with("error: ") || self.stderr.contains("\nerror: "), "no error is told: {self:#?}");
        let missing: Vec<_> = words.iter().filter(|w| !self.stderr.contains(*w)).collect();
        assert!(missing.is_empty(), "{missing:?} is not in the message: {self:#?}");
        assert!(!self.stderr.contains("panicked"), "{self:#?}");
        self.stderr
    }
}

/// A command line in an environment of its own.
pub(crate) struct Cli {
    dir: TempDir,
    coordinator: Option<String>,
    environment: Vec<(String, String)>,
}

impl Cli {
    /// With an empty data folder.
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir_all(dir.path().join("home")).expect("a home");
        Self { dir, coordinator: None, environment: Vec::new() }
    }

    /// With `tiny@v1` published, from the seed 1, without tuning. It is compiled once per run of the tests.
    pub(crate) fn with_tiny() -> Self {
        static PUBLISHED: OnceLock<PathBuf> = OnceLock::new();
        let published = PUBLISHED.get_or_init(|| {
            let cli = Self::new();
            let graph = cli.write("tiny.graph", &model::tiny(1));
            cli.run(&[&["submit", &graph], &UNTUNED[..]].concat()).ok();
            let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("published");
            // What an earlier run left was made by another binary.
            let _ = std::fs::remove_dir_all(&kept);
            copy(&cli.data(), &kept);
            kept
        });
        let cli = Self::new();
        copy(published, &cli.data());
        cli
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A path in the command's own folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The data folder of the embedded farm.
    pub(crate) fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// Writes a file into the command's own folder; gives its path as an argument.
    pub(crate) fn write(&self, name: &str, content: &[u8]) -> String {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder for the file");
        std::fs::write(&path, content).expect("a file in a temporary folder");
        text(&path)
    }

    /// The command, ready to be started.
    pub(crate) fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        let inherited = std::env::vars_os().filter(|(name, _)| {
            let name = name.to_string_lossy();
            !name.starts_with("AOTFARM_") && !name.starts_with("XDG_") && !["NO_COLOR", "COLUMNS"].contains(&&*name)
        });
        command.args(args).env_clear().envs(inherited).env("HOME", self.path("home")).env("AOTFARM_DATA_DIR", self.data());
        if let Some(url) = &self.coordinator {
            command.env("AOTFARM_COORDINATOR", url);
        }
        command.envs(self.environment.iter().map(|(n, v)| (n, v))).current_dir(self.dir.path()).stdin(Stdio::null());
        command
    }

    /// Starts the binary with these arguments.
    pub(crate) fn start(&self, args: &[&str]) -> Running {
        Running::new(self.command(BINARY, args))
    }

    /// Runs the binary with these arguments to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Done {
        self.start(args).end()
    }

    /// The only or newest job.
    pub(crate) fn last_job(&self) -> JobStatus {
        self.run(&["--json", "jobs", "-n", "1"]).json().pop().expect("a job")
    }

    /// The versions of a model with their profiles.
    pub(crate) fn history(&self, name: &str) -> Vec<HistoryEntry> {
        self.run(&["--json", "history", name]).json()
    }

    /// Pulls `reference` into the folder `into`; gives the artifact's path.
    pub(crate) fn pull(&self, reference: &str, into: &str) -> String {
        self.run(&["pull", reference, "-o", &text(&self.path(into))]).ok().trim().to_owned()
    }
}

/// A path as an argument.
pub(crate) fn text(path: &Path) -> String {
    path.to_str().expect("temporary paths are UTF-8").to_owned()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in from.read_dir().expect("a folder").map(|e| e.expect("an entry")) {
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("a copy");
        }
    }
}

/// A process with its output in files; it is killed when it is dropped.
pub(crate) struct Running {
    child: Child,
    output: TempDir,
}

impl Running {
    pub(crate) fn new(mut command: Command) -> Self {
        let output = tempfile::tempdir().expect("a temporary folder");
        let file = |name| File::create(output.path().join(name)).expect("a file in a temporary folder");
        let child = command.stdout(file("stdout")).stderr(file("stderr")).spawn();
        Self { child: child.unwrap_or_else(|e| panic!("{command:?}: {e}")), output }
    }

    pub(crate) fn stdout(&self) -> String {
        std::fs::read_to_string(self.output.path().join("stdout")).expect("UTF-8 on stdout")
    }

    pub(crate) fn stderr(&self) -> String {
        std::fs::read_to_string(self.output.path().join("stderr")).expect("UTF-8 on stderr")
    }

    /// Waits for the end.
    pub(crate) fn end(mut self) -> Done {
        let start = Instant::now();
        let status = loop {
            match self.child.try_wait().expect("a child of this process") {
                Some(status) => break status,
                None if start.elapsed() > PATIENCE => panic!("hangs: {} {}", self.stdout(), self.stderr()),
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        Done { status, stdout: self.stdout(), stderr: self.stderr() }
    }

    /// SIGKILL: the process has no chance to tell anybody.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("a child of this process");
        let status = self.child.wait().expect("a child of this process");
        assert_eq!(status.signal(), Some(9), "it had ended before: {} {}", self.stdout(), self.stderr());
    }

    /// Sends a signal by the name that `kill` knows.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().expect("kill");
        assert!(sent.success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A coordinator process and the command line of its users. Workers are added.
pub(crate) struct Farm {
    pub(crate) cli: Cli,
    /// Host and port of the coordinator.
    pub(crate) address: String,
    coordinator: Option<Running>,
}

impl Farm {
    /// A coordinator without workers.
    pub(crate) fn new() -> Self {
        Self::over(Cli::new())
    }

    /// A coordinator without workers over the data folder of `cli`.
    pub(crate) fn over(cli: Cli) -> Self {
        let mut farm = Self { cli, address: "127.0.0.1:0".to_owned(), coordinator: None };
        farm.start_coordinator();
        farm.cli.coordinator = Some(format!("http://{}", farm.address));
        farm
    }

    /// Starts the coordinator: the first time on any port, then on the same again.
    pub(crate) fn start_coordinator(&mut self) {
        let process = self.cli.start(&["coordinator", "--listen", &self.address]);
        self.address = wait_for("the coordinator", || {
            let said = process.stderr();
            assert!(!said.contains("error: "), "{said}");
            Some(said.split_once("coordinator on http://")?.1.split_once(',')?.0.to_owned())
        });
        self.coordinator = Some(process);
    }

    pub(crate) fn kill_coordinator(&mut self) {
        self.coordinator.take().expect("a running coordinator").kill();
    }

    /// A worker process that is known by `label`, with one build slot.
    pub(crate) fn worker(&self, label: &str) -> Running {
        let folder = text(&self.cli.path(&format!("worker-{label}")));
        let process = self.cli.start(&["worker", "--slots", "1", "--label", label, "--work-dir", &folder]);
        wait_for("the worker to register", || self.find(label));
        process
    }

    fn find(&self, label: &str) -> Option<WorkerInfo> {
        self.workers().into_iter().find(|w| w.capabilities.labels == [label])
    }

    pub(crate) fn workers(&self) -> Vec<WorkerInfo> {
        self.cli.run(&["--json", "workers"]).json()
    }

    pub(crate) fn items(&self, job: JobId) -> Vec<ItemInfo> {
        self.cli.run(&["--json", "logs", &job.to_string(), "--items"]).json()
    }

    pub(crate) fn job(&self, job: JobId) -> JobStatus {
        self.cli.run(&["--json", "job", &job.to_string()]).json().pop().expect("a job")
    }

    /// Submits without waiting.
    pub(crate) fn submit(&self, args: &[&str]) -> JobId {
        let job: Vec<JobStatus> = self.cli.run(&[&["--json", "submit", "--detach"], args].concat()).json();
        job[0].id
    }
}
