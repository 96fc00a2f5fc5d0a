//! C compilers: which there are, what they build for, and how they are called.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aotfarm_abi::cc;
use aotfarm_protocol::{CpuIsa, KeyHasher, Target};
use tokio_util::sync::CancellationToken;

use super::search::Search;
use crate::sandbox::{self, Ending, Limits, ProcessError, Program, shorten};

/// The cross compiler that is looked for beside the host's own.
const CROSS: (&str, Target) = ("aarch64-linux-gnu-gcc", Target::Cpu(CpuIsa::Aarch64));

/// A compilation may take this long and this much address space.
const COMPILE_LIMITS: Limits = Limits { time: Duration::from_secs(60), memory: Some(4 << 30), file: 4 << 30, output: 64 << 10 };

/// What every probe must compile and link: a vector loop and the headers that artifacts need.
const PROBE: &str = "#include <pthread.h>\n#include <stdint.h>\n#include <math.h>\n\
    float aotfarm_probe(const float *a, int n) { float s = 0; for (int i = 0; i < n; i++) s += a[i]; return sqrtf(s); }\n";

/// There is no usable C compiler.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoCompiler {
    /// None of the names is a program on the path.
    #[error("no C compiler found (tried {tried}): install one, e.g. `apt-get install gcc libc6-dev`")]
    NotFound {
        /// The names.
        tried: String,
    },
    /// There is one, but it builds for no known target.
    #[error(
        "`{driver}` cannot build a shared object for any CPU target: install its headers and linker, e.g. `apt-get install gcc libc6-dev`; it said: {log}"
    )]
    Broken {
        /// The compiler.
        driver: String,
        /// What it printed.
        log: String,
    },
}

/// A compiler that works.
#[derive(Debug, Clone)]
pub struct Compiler {
    driver: PathBuf,
    /// `gcc-12.2.0-1f3a9c02`.
    pub id: String,
    /// Targets that it was seen to build for.
    pub targets: Vec<Target>,
}

/// What a compiler is asked to do, in a folder of its own so that no path of this host gets into the output.
#[derive(Debug)]
pub(crate) struct Invocation<'a> {
    /// The working folder; all file names are relative to it.
    pub(crate) dir: &'a Path,
    /// What to compile for.
    pub(crate) target: Target,
    /// Everything but the flags of the target: `-c x.c -o x.o` …
    pub(crate) args: Vec<OsString>,
}

/// Finds and probes the C compilers, the host's own first.
pub(super) async fn detect(search: &Search) -> Result<Vec<Compiler>, NoCompiler> {
    let names: Vec<OsString> =
        search.cc.clone().map_or_else(|| ["cc", "gcc", "clang"].map(OsString::from).to_vec(), |cc| vec![cc]);
    let tried = || names.iter().map(|n| n.to_string_lossy()).collect::<Vec<_>>().join(", ");
    let driver = names.iter().find_map(|n| search.find(n)).ok_or_else(|| NoCompiler::NotFound { tried: tried() })?;
    let mut compilers = vec![Compiler::probe(driver, None).await?];
    if let Some(cross) = search.find(OsStr::new(CROSS.0)) {
        // A half-installed cross compiler is no reason to do without the host's own.
        match Compiler::probe(cross, Some(CROSS.1)).await {
            Ok(cross) => compilers.push(cross),
            Err(error) => tracing::info!(%error, "the cross compiler is not used"),
        }
    }
    Ok(compilers)
}

impl Compiler {
    /// The program.
    pub fn driver(&self) -> &Path {
        &self.driver
    }

    /// Identifies `driver` and finds out what it builds for, of `only` or of all targets of its own architecture.
    async fn probe(driver: PathBuf, only: Option<Target>) -> Result<Self, NoCompiler> {
        let broken = |log: String| NoCompiler::Broken { driver: driver.display().to_string(), log };
        // `cc` is most often a chain of links; the identity is that of the program behind it.
        let real = driver.canonicalize().map_err(|e| broken(e.to_string()))?;
        let bytes = std::fs::read(&real).map_err(|e| broken(e.to_string()))?;
        let banner = ask(&driver, &["--version"]).await.map_err(broken)?;
        let version = ask(&driver, &["-dumpfullversion", "-dumpversion"]).await.map_err(broken)?;
        let machine = ask(&driver, &["-dumpmachine"]).await.map_err(broken)?;
        let name = if banner.contains("clang") { "clang" } else { "gcc" };
        let version: String = version.trim().chars().filter(|c| c.is_ascii_alphanumeric() || *c == '.').take(32).collect();
        // The flags are part of the identity: a worker that calls the same program otherwise makes other objects.
        let flags = cc::BY_TARGET
            .iter()
            .fold(KeyHasher::new("toolchain").field(bytes).list(cc::COMMON), |key, (_, flags)| key.list(*flags));
        let id = format!("{name}-{version}-{}", &flags.finish().hex()[..8]);
        let architecture = machine.split('-').next().unwrap_or_default().trim().to_owned();
        let mut compiler = Self { driver: driver.clone(), id, targets: Vec::new() };
        let dir = tempfile::tempdir().map_err(|e| broken(e.to_string()))?;
        std::fs::write(dir.path().join("probe.c"), PROBE).map_err(|e| broken(e.to_string()))?;
        let mut said = format!("it makes code for `{architecture}`, which is no target");
        for target in Target::CPUS {
            if target.architecture() != Some(architecture.as_str()) || only.is_some_and(|o| o != target) {
                continue;
            }
            let args = ["-shared", "probe.c", "-o", "probe.so", "-lm", "-lpthread"].map(OsString::from).to_vec();
            let probe = Invocation { dir: dir.path(), target, args };
            match compiler.invoke(&probe, &CancellationToken::new()).await {
                Ok(Ok(())) => compiler.targets.push(target),
                Ok(Err(log)) => said = log,
                Err(error) => said = error.to_string(),
            }
        }
        if compiler.targets.is_empty() { Err(broken(said)) } else { Ok(compiler) }
    }

    /// Calls the compiler. The inner error is what it printed when it refused, shortened.
    pub(crate) async fn invoke(
        &self,
        what: &Invocation<'_>,
        cancel: &CancellationToken,
    ) -> Result<Result<(), String>, ProcessError> {
        let program = Program::new(&self.driver).folder(what.dir);
        let program = program.args(cc::COMMON).args(cc::target_flags(&what.target.to_string())).args(&what.args);
        let program = program.clear_env().env("LC_ALL", "C").env("SOURCE_DATE_EPOCH", "0").env("TMPDIR", what.dir);
        let program = match std::env::var_os("PATH") {
            Some(path) => program.env("PATH", path),
            None => program,
        };
        let done = sandbox::run(program, COMPILE_LIMITS, cancel).await?;
        Ok(match done.ending {
            Ending::Exited(0) => Ok(()),
            Ending::Exited(_) => Err(shorten(&done.stderr)),
            Ending::TimedOut => Err(format!("the compiler took longer than {} s", COMPILE_LIMITS.time.as_secs())),
            Ending::Killed(_) => Err(format!("the compiler was ended by {}: {}", done.ending, shorten(&done.stderr))),
        })
    }
}

/// The one line or word that the compiler answers.
async fn ask(driver: &Path, args: &[&str]) -> Result<String, String> {
    let program = Program::new(driver).args(args).env("LC_ALL", "C");
    let done = sandbox::run(program, COMPILE_LIMITS, &CancellationToken::new()).await.map_err(|e| e.to_string())?;
    if done.success() { Ok(done.stdout) } else { Err(format!("`{}` failed: {}", args.join(" "), shorten(&done.stderr))) }
}

/// Whether a flag from a work item may be passed on: code generation and definitions only, nothing that loads files.
pub(crate) fn flag_is_allowed(flag: &str) -> bool {
    let plain = flag.bytes().all(|b| b.is_ascii_graphic());
    let known = ["-f", "-m", "-O", "-D", "-U"].iter().any(|p| flag.len() > p.len() && flag.starts_with(p));
    plain && known && !["-fplugin", "-fprofile", "-fsanitize", "-fdump", "-fpass-plugin"].iter().any(|p| flag.starts_with(p))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toolchain::nvrtc::NvrtcSearch;

    #[tokio::test]
    async fn a_host_without_compiler_is_told_what_to_install() {
        let empty = tempfile::tempdir().unwrap();
        let search = Search { cc: None, path: empty.path().into(), nvrtc: NvrtcSearch::default() };
        let error = detect(&search).await.unwrap_err().to_string();
        assert_eq!(error, "no C compiler found (tried cc, gcc, clang): install one, e.g. `apt-get install gcc libc6-dev`");
        let search = Search { cc: Some("/bin/false".into()), ..search };
        let error = detect(&search).await.unwrap_err();
        assert!(matches!(error, NoCompiler::Broken { .. }), "{error}");
    }

    #[test]
    fn flags_are_restricted() {
        for good in ["-O2", "-fno-inline", "-mavx2", "-DX=1"] {
            assert!(flag_is_allowed(good), "{good}");
        }
        for bad in ["x.c", "-o/etc/passwd", "-fplugin=x.so", "@file", "-Wl,x", "-f", "-I/", "-D a"] {
            assert!(!flag_is_allowed(bad), "{bad}");
        }
    }
}
