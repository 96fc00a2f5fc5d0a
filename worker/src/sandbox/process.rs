//! Starting and ending programs, each in a process group of its own and with limits.

use std::ffi::OsStr;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio_util::sync::CancellationToken;

/// What to start: a program, its arguments, its environment and its folder. Only this room can
/// start it.
#[derive(Debug)]
pub(crate) struct Program(Command);

impl Program {
    /// A program without arguments, in the environment and the folder of this process.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that starts processes")]
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Self {
        Self(Command::new(program))
    }

    /// With more arguments.
    pub(crate) fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.0.args(args);
        self
    }

    /// With a variable in its environment.
    pub(crate) fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.0.env(name, value);
        self
    }

    /// Without the variables of this process and those that were set before.
    pub(crate) fn clear_env(mut self) -> Self {
        self.0.env_clear();
        self
    }

    /// In a folder.
    pub(crate) fn folder(mut self, dir: &Path) -> Self {
        self.0.current_dir(dir);
        self
    }

    fn name(&self) -> String {
        self.0.as_std().get_program().to_string_lossy().into_owned()
    }
}

/// What a child may use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Wall-clock time; past it the whole process group is killed.
    pub(crate) time: Duration,
    /// Address space in bytes; `None`: the child limits itself.
    pub(crate) memory: Option<u64>,
    /// Size of any file that it writes, in bytes.
    pub(crate) file: u64,
    /// Bytes of each output stream that are kept; the rest is read and thrown away.
    pub(crate) output: usize,
}

/// Why a child did not come to an end of its own.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProcessError {
    #[error("could not start `{program}`")]
    Start {
        program: String,
        #[source]
        source: io::Error,
    },
    #[error("could not talk to `{program}`")]
    Talk {
        program: String,
        #[source]
        source: io::Error,
    },
    #[error("cancelled")]
    Cancelled,
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// With this exit code.
    Exited(i32),
    /// By this signal.
    Killed(i32),
    /// It was killed because its time was up.
    TimedOut,
}

impl From<ExitStatus> for Ending {
    fn from(status: ExitStatus) -> Self {
        status.code().map_or_else(|| Self::Killed(status.signal().unwrap_or(0)), Self::Exited)
    }
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Self::Exited(code) => write!(f, "exit status {code}"),
            Self::TimedOut => f.write_str("time limit"),
            Self::Killed(signal) => match signal {
                libc::SIGSEGV => f.write_str("SIGSEGV"),
                libc::SIGBUS => f.write_str("SIGBUS"),
                libc::SIGILL => f.write_str("SIGILL"),
                libc::SIGFPE => f.write_str("SIGFPE"),
                libc::SIGABRT => f.write_str("SIGABRT"),
                libc::SIGKILL => f.write_str("SIGKILL"),
                libc::SIGTERM => f.write_str("SIGTERM"),
                libc::SIGXCPU => f.write_str("SIGXCPU"),
                libc::SIGXFSZ => f.write_str("SIGXFSZ"),
                libc::SIGTRAP => f.write_str("SIGTRAP"),
                libc::SIGSYS => f.write_str("SIGSYS"),
                other => write!(f, "signal {other}"),
            },
        }
    }
}

/// A finished child.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) ending: Ending,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Finished {
    pub(crate) fn success(&self) -> bool {
        self.ending == Ending::Exited(0)
    }
}

/// A running child; dropping it kills its process group.
pub(super) struct Process {
    child: Child,
    group: Option<libc::pid_t>,
}

impl Process {
    /// Kills the whole group and waits for the child.
    pub(super) async fn kill(&mut self) -> Ending {
        self.kill_group();
        self.wait().await
    }

    /// Waits for the child to end.
    pub(super) async fn wait(&mut self) -> Ending {
        let status = self.child.wait().await;
        self.group = None;
        status.map_or(Ending::Killed(0), Ending::from)
    }

    fn kill_group(&self) {
        if let Some(group) = self.group {
            // SAFETY: a system call on numbers alone. The leader has not been waited for, so the
            // number cannot have been reused.
            unsafe { libc::kill(-group, libc::SIGKILL) };
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill_group();
    }
}

type Start = (tokio::runtime::Handle, Command, tokio::sync::oneshot::Sender<io::Result<Child>>);

/// The thread that starts all children. `PR_SET_PDEATHSIG` fires when the *thread* that forked ends, and the threads of an
/// async runtime come and go; this one lives as long as the process.
fn starter() -> &'static mpsc::Sender<Start> {
    static STARTER: OnceLock<mpsc::Sender<Start>> = OnceLock::new();
    STARTER.get_or_init(|| {
        let (sender, receiver) = mpsc::channel::<Start>();
        let run = move || {
            for (runtime, mut command, answer) in receiver {
                let _entered = runtime.enter();
                // The asker may have been cancelled; dropping the child then kills it.
                drop(answer.send(command.spawn()));
            }
        };
        std::thread::Builder::new().name("aotfarm-children".into()).spawn(run).expect("a thread can be started");
        sender
    })
}

/// Starts a program under `limits`.
///
/// They are set from outside right after the start, not between fork and exec: a fork would copy
/// the page tables of a process that may hold gigabytes of weights, tens of milliseconds for each
/// child, while a spawn shares them. What matters to the microseconds that lie between (code that
/// nobody vouches for) limits itself before it begins, see [`crate::child`].
async fn start(program: Program, limits: Limits) -> Result<Process, ProcessError> {
    let name = program.name();
    let mut command = program.0;
    let failed = |source| ProcessError::Start { program: name.clone(), source };
    command.process_group(0).kill_on_drop(true);
    let (answer, started) = tokio::sync::oneshot::channel();
    starter().send((tokio::runtime::Handle::current(), command, answer)).expect("the starter thread never ends");
    let child = started.await.expect("the starter thread answers every request").map_err(failed)?;
    let group = child.id().map(|id| id as libc::pid_t);
    let process = Process { child, group };
    limit(group.and_then(Pid::from_raw), limits).map_err(|e| failed(e.into()))?;
    Ok(process)
}

/// Limits a child that runs; one that has ended already needs none.
fn limit(child: Option<Pid>, limits: Limits) -> rustix::io::Result<()> {
    // To the system, no number is this very process.
    let Some(child) = child else { return Ok(()) };
    // Should the worker die, a compiler still ends: processor time is limited as well, that of all cores together.
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let seconds = limits.time.as_secs().saturating_add(1).saturating_mul(cores);
    let all = [
        (Resource::Core, Some(0)),
        (Resource::Fsize, Some(limits.file)),
        (Resource::As, limits.memory),
        (Resource::Cpu, Some(seconds).filter(|_| limits.time != Duration::MAX)),
    ];
    for (what, most) in all.into_iter().filter(|(_, most)| most.is_some()) {
        match prlimit(Some(child), what, Rlimit { current: most, maximum: most }) {
            Ok(_) => {}
            Err(rustix::io::Errno::SRCH) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Starts a program that reads what is written to it and whose output is read; what it says to
/// stderr is lost.
pub(super) async fn start_with_pipes(
    mut program: Program,
    limits: Limits,
) -> Result<(Process, ChildStdin, ChildStdout), ProcessError> {
    program.0.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let name = program.name();
    let mut process = start(program, limits).await?;
    match (process.child.stdin.take(), process.child.stdout.take()) {
        (Some(stdin), Some(stdout)) => Ok((process, stdin, stdout)),
        _ => Err(ProcessError::Talk { program: name, source: io::Error::other("its pipes are missing") }),
    }
}

/// Runs a program to its end, without input, and returns what it printed.
pub(crate) async fn run(mut program: Program, limits: Limits, cancel: &CancellationToken) -> Result<Finished, ProcessError> {
    program.0.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let name = program.name();
    let mut process = start(program, limits).await?;
    let (stdout, stderr) = (process.child.stdout.take(), process.child.stderr.take());
    let talk = async {
        let (stdout, stderr, ending) =
            tokio::join!(read_some(stdout, limits.output), read_some(stderr, limits.output), process.wait());
        Ok::<_, io::Error>(Finished { ending, stdout: stdout?, stderr: stderr? })
    };
    let ended = tokio::select! {
        () = cancel.cancelled() => return Err(ProcessError::Cancelled),
        ended = tokio::time::timeout(limits.time, talk) => ended,
    };
    match ended {
        Ok(finished) => finished.map_err(|source| ProcessError::Talk { program: name, source }),
        Err(_) => {
            process.kill().await;
            Ok(Finished { ending: Ending::TimedOut, stdout: String::new(), stderr: String::new() })
        }
    }
}

async fn read_some(stream: Option<impl AsyncRead + Unpin>, keep: usize) -> io::Result<String> {
    let Some(mut stream) = stream else { return Ok(String::new()) };
    let (mut kept, mut chunk) = (Vec::new(), vec![0; 8192]);
    loop {
        match stream.read(&mut chunk).await? {
            0 => return Ok(String::from_utf8_lossy(&kept).into_owned()),
            n => kept.extend_from_slice(&chunk[..n.min(keep.saturating_sub(kept.len()))]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Program {
        Program::new("/bin/sh").args(["-c", script])
    }

    const LIMITS: Limits = Limits { time: Duration::from_secs(30), memory: Some(1 << 30), file: 4096, output: 1000 };

    #[tokio::test]
    async fn output_and_endings_are_reported() {
        let run = |script: &'static str| async move { run(shell(script), LIMITS, &CancellationToken::new()).await.unwrap() };
        let done = run("echo out; echo err >&2; exit 3").await;
        assert_eq!((done.ending, done.stdout.as_str(), done.stderr.as_str()), (Ending::Exited(3), "out\n", "err\n"));
        assert_eq!(run("kill -SEGV $$").await.ending.to_string(), "SIGSEGV");
        assert_eq!(run("head -c 300000 /dev/zero").await.stdout.len(), 1000);
        let missing = super::run(Program::new("/no/such/program"), LIMITS, &CancellationToken::new()).await.unwrap_err();
        assert!(missing.to_string().contains("/no/such/program"), "{missing}");
    }

    #[tokio::test]
    async fn a_child_that_outlives_its_time_is_killed_with_its_group() {
        let limits = Limits { time: Duration::from_millis(50), ..LIMITS };
        let done = run(shell("cat /dev/zero > /dev/null & wait"), limits, &CancellationToken::new()).await.unwrap();
        assert_eq!(done.ending, Ending::TimedOut);
        let cancel = CancellationToken::new();
        cancel.cancel();
        assert!(matches!(run(shell("sleep 60"), LIMITS, &cancel).await, Err(ProcessError::Cancelled)));
    }
}
