//! Kernels of another architecture than the host's: built by a cross compiler, and run under an emulator by `emulated.c`, which
//! does what [`super::testing`] does with those of the host. Not part of the library.
#![expect(clippy::disallowed_methods, reason = "these tests call a C compiler and an emulator")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use aotfarm_protocol::{CpuIsa, OperandRole, Target};

use super::{Built, prepared};
use crate::candidate::Candidate;
use crate::measure::operands;
use crate::task::TuningTask;
use crate::title::title;

/// The target that can be emulated. (QEMU's user mode knows AVX2 but not AVX-512.)
pub const EMULATED: Target = Target::Cpu(CpuIsa::Aarch64);

/// The cross compiler, which is there when [`Emulator::find`] finds the rest.
pub const CC: &str = "aarch64-linux-gnu-gcc";
/// The names of the emulator: of Debian's package qemu-user, and of qemu-user-static.
const QEMU: [&str; 2] = ["qemu-aarch64", "qemu-aarch64-static"];

/// The teams that the runner makes of each kernel, by number of threads.
pub const TEAMS: [usize; 2] = [1, 3];

/// What each team made of the outputs.
pub type Outputs = [Vec<Vec<u8>>; TEAMS.len()];

/// A cross compiler and an emulator that work.
pub struct Emulator {
    qemu: &'static str,
    /// Where the emulated program finds its C library.
    root: PathBuf,
    /// The built runner: a program that is written anew for each run, since nothing removes files when a test program ends.
    runner: Vec<u8>,
}

impl Emulator {
    /// The emulator, or `None` after saying why the test is skipped.
    pub fn find() -> Option<&'static Self> {
        static FOUND: OnceLock<Result<Emulator, String>> = OnceLock::new();
        match FOUND.get_or_init(Self::new) {
            Ok(found) => Some(found),
            Err(reason) => {
                eprintln!("skipped: this machine does not run {EMULATED}: {reason}");
                None
            }
        }
    }

    fn new() -> Result<Self, String> {
        let works = |program: &str| Command::new(program).arg("--version").output().is_ok_and(|o| o.status.success());
        let qemu = QEMU.into_iter().find(|name| works(name)).ok_or("there is no qemu-aarch64 (package qemu-user)")?;
        let library = Command::new(CC).arg("-print-file-name=libc.so.6").output();
        let library = library.map_err(|_| format!("there is no {CC} (package gcc-aarch64-linux-gnu)"))?;
        let library = PathBuf::from(String::from_utf8_lossy(&library.stdout).trim());
        // …/lib/libc.so.6; a name without folder says that there is none.
        let root = library.canonicalize().ok().and_then(|path| Some(path.parent()?.parent()?.to_owned()));
        let root = root.ok_or_else(|| format!("{CC} has no C library (package libc6-dev-arm64-cross)"))?;
        let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
        let runner = folder.path().join("runner");
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let built = Command::new(CC)
            .args(["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-I"])
            .args([here.join("../../abi/include"), here.join("src/testing/emulated.c"), "-o".into(), runner.clone()])
            .args(["-ldl", "-lpthread"])
            .output()
            .map_err(|e| e.to_string())?;
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        let runner = std::fs::read(&runner).map_err(|e| e.to_string())?;
        Ok(Self { qemu, root, runner })
    }

    /// Runs candidates on raw operands, each as the teams of [`TEAMS`]. The result has the outputs of each, in this order.
    ///
    /// The error names the candidate that crashes, writes outside an output, or changes an input.
    pub fn run(&self, built: &Built, cases: &[(&TuningTask, &Candidate, &[Vec<u8>])]) -> Result<Vec<Outputs>, String> {
        let mut file = Words(Vec::new());
        file.number(cases.len() as u64);
        for (task, candidate, raw) in cases {
            file.case(built.library(&candidate.source.symbol), task, candidate, raw);
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        let [runner, input, output] = ["runner", "cases", "outputs"].map(|name| folder.path().join(name));
        std::fs::write(&runner, &self.runner).expect("the folder is writable");
        std::fs::set_permissions(&runner, std::fs::Permissions::from_mode(0o700)).expect("the file is ours");
        std::fs::write(&input, file.0).expect("the folder is writable");
        let done = Command::new(self.qemu).arg("-L").arg(&self.root).args([&runner, &input, &output]).output();
        let done = done.expect("the emulator starts");
        if !done.status.success() {
            return Err(format!("{}: {}", done.status, String::from_utf8_lossy(&done.stderr)));
        }
        let bytes = std::fs::read(&output).expect("the runner writes outputs");
        let mut rest = bytes.as_slice();
        let outputs = cases.iter().map(|(task, _, raw)| {
            let all: Vec<_> = operands(task).into_iter().zip(*raw).filter(|(o, _)| o.role == OperandRole::Output).collect();
            let mut next = |len: usize| {
                let (this, others) = rest.split_at(len);
                rest = others;
                this.to_vec()
            };
            TEAMS.map(|_| all.iter().map(|(_, raw)| next(raw.len())).collect())
        });
        let outputs = outputs.collect();
        assert!(rest.is_empty(), "the runner wrote more than was asked for");
        Ok(outputs)
    }
}

/// What the runner reads: see `emulated.c`.
struct Words(Vec<u8>);

impl Words {
    fn number(&mut self, n: u64) {
        self.0.extend(n.to_ne_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend(bytes);
    }

    fn case(&mut self, library: &Path, task: &TuningTask, candidate: &Candidate, raw: &[Vec<u8>]) {
        let needs = candidate.needs_at(task, &task.point);
        self.bytes(library.as_os_str().as_encoded_bytes());
        self.bytes(candidate.source.symbol.as_bytes());
        self.bytes(format!("{} for {}", candidate.label(), title(task)).as_bytes());
        self.number(u64::from(candidate.source.packs));
        [needs.packed, needs.shared, needs.thread].into_iter().for_each(|n| self.number(n));
        self.bytes(bytemuck::cast_slice(&candidate.tune));
        self.bytes(bytemuck::cast_slice(&task.point));
        let operands = operands(task);
        self.number(operands.len() as u64);
        for (operand, raw) in operands.iter().zip(raw) {
            self.number(match operand.role {
                OperandRole::Input => 0,
                OperandRole::Weight => 1,
                OperandRole::Output => 2,
            });
            self.bytes(&prepared(operand, raw));
        }
    }
}

#[cfg(test)]
mod tests {
    use aotfarm_abi::kernel::AOTK_H;
    use aotfarm_plan::spec::{Index, KernelKind, LoopNest, Scalar, Size};
    use aotfarm_protocol::DType;

    use super::super::{Host, random};
    use super::*;
    use crate::conformance::{plain, task};
    use crate::{KernelSource, reference};

    #[test]
    fn the_runner_finds_what_kernels_do_wrong() {
        let Some(emulator) = Emulator::find() else { return };
        let nest = LoopNest {
            extents: vec![Size::Const(8)],
            reduction: None,
            value: Scalar::Input(0, Index::Loop(0)),
            store: Index::Loop(0),
        };
        let tensor = || plain(DType::F32, &[8]);
        let task = task(EMULATED, KernelKind::Loops(nest), vec![tensor()], vec![], tensor(), &[]);
        let raw = random(&task, 0);
        let host = Host::find(EMULATED).expect("the emulator was found");
        let run = |statement: &str| {
            let text = format!(
                "{}\nvoid kernel(const aotk_call *c) {{ const float *in = c->in[0]; float *out = c->out[0];\n\
                 aotk_barrier(c); int64_t from, to; aotk_share(c, 8, &from, &to);\n\
                 for (int64_t i = from; i < to; i++) out[i] = in[i];\n{statement} }}\n",
                AOTK_H
            );
            let source = KernelSource { text, symbol: "kernel".to_owned(), packs: false };
            let candidate = Candidate { source, ..reference(&task) };
            let built = Built::new(&host, EMULATED, &[&candidate]);
            emulator.run(&built, &[(&task, &candidate, &raw)])
        };
        assert_eq!(run(""), Ok(vec![[vec![raw[0].clone()], vec![raw[0].clone()]]]));
        let wrong = [
            ("out[8] = 0;", "writes outside an operand"),
            ("((float *)in)[1] = 0;", "changes an input"),
            ("*(float *)c->scratch = 0;", "writes outside a thread's workspace"),
            ("*(float *)c->shared = 0;", "writes outside the team's workspace"),
            ("*(volatile int64_t *)(from + 8) = 1;", "crashes with signal 11"),
        ];
        for (statement, message) in wrong {
            let error = run(statement).expect_err(statement);
            assert!(error.contains(message), "{statement}: {error}");
        }
    }
}
