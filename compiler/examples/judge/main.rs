//! Judges models by what others computed of them: read, run by the interpreter, compiled into an artifact with the naive kernels, run.
//!
//!     cargo run -p aotfarm-compiler --example judge -- [--jobs N] [--json FILE] [--objects FOLDER] [--interpret] [--rtol X] FOLDER ... | @LISTING
//!
//! With `--interpret` no artifacts are made. With `--rtol` a float is right within that part of what it should be, plus 1e-7.
//!
//! A folder holds a model (`model.pt2`, `model.onnx` or `model.graph`) and one or more `case*.safetensors` with `in.<i>` and `out.<i>`;
//! `exact*.safetensors` beside a case holds the same outputs, computed in float64. A listing names a folder in each line. A folder
//! without a model stands for the folders in it.
//!
//! A verdict is *right*; *refused*, by the importer or by the lowering, with their reason; or *wrong*, with the place of the first
//! wrong element, or with how the run failed. Many models are joined into one artifact, because that takes hardly longer than one.
//! They are judged in child processes, so that a crash costs one model: a child that fails is started again with half of its models.

mod artifact;
mod join;
mod pair;

use std::collections::{BTreeMap, VecDeque};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Mutex, PoisonError};
use std::{env, fs, io};

use serde_json::{Value, json};

use self::pair::{Judged, Pair, Verdict};

/// Models that are joined into one artifact.
const TOGETHER: usize = 50;

/// The first argument of a child, which judges the pairs that its input lists.
const CHILD: &str = "--child";

struct Options {
    jobs: usize,
    json: Option<PathBuf>,
    pairs: Vec<PathBuf>,
    how: How,
}

/// How each pair is judged; a child is told by its arguments.
#[derive(Debug, Clone)]
struct How {
    /// Where compiled kernels are kept.
    objects: PathBuf,
    /// Whether the interpreter alone runs.
    interpret: bool,
    /// The relative error that is allowed, where others than ours decide it.
    rtol: Option<f64>,
}

impl How {
    fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["--objects".to_owned(), self.objects.to_string_lossy().into_owned()];
        if self.interpret {
            arguments.push("--interpret".to_owned());
        }
        if let Some(rtol) = self.rtol {
            arguments.extend(["--rtol".to_owned(), rtol.to_string()]);
        }
        arguments
    }
}

impl Options {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let how = How { objects: env::temp_dir().join("aotfarm-judge"), interpret: false, rtol: None };
        let mut options = Self { jobs: 2, json: None, pairs: Vec::new(), how };
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("`{arg}` needs a value"));
            match arg.as_str() {
                "--jobs" => options.jobs = value()?.parse().map_err(|e| format!("`--jobs`: {e}"))?,
                "--json" => options.json = Some(value()?.into()),
                "--objects" => options.how.objects = value()?.into(),
                "--interpret" => options.how.interpret = true,
                "--rtol" => options.how.rtol = Some(value()?.parse().map_err(|e| format!("`--rtol`: {e}"))?),
                _ => options.add(&arg)?,
            }
        }
        Ok(options)
    }

    fn add(&mut self, arg: &str) -> Result<(), String> {
        let folders = match arg.strip_prefix('@') {
            Some(listing) => {
                let text = fs::read_to_string(listing).map_err(|e| format!("cannot read `{listing}`: {e}"))?;
                text.lines().map(PathBuf::from).collect()
            }
            None => vec![PathBuf::from(arg)],
        };
        for folder in folders {
            if pair::model(&folder).is_some() {
                self.pairs.push(folder);
                continue;
            }
            let entries = fs::read_dir(&folder).map_err(|e| format!("cannot read `{}`: {e}", folder.display()))?;
            let mut found: Vec<PathBuf> =
                entries.filter_map(|e| Some(e.ok()?.path())).filter(|p| pair::model(p).is_some()).collect();
            found.sort();
            self.pairs.append(&mut found);
        }
        Ok(())
    }
}

fn main() -> ExitCode {
    let is_child = env::args().nth(1).as_deref() == Some(CHILD);
    let options = match Options::parse(env::args().skip(1 + usize::from(is_child))) {
        Ok(options) if is_child => return child(&options.how),
        Ok(options) if options.pairs.is_empty() => {
            eprintln!("error: no folder with models is given");
            return ExitCode::from(2);
        }
        Ok(options) => options,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    let judged = judge_all(&options);
    let mut counts = BTreeMap::new();
    for Judged { folder, verdict } in &judged {
        *counts.entry(verdict.word()).or_insert(0) += 1;
        if *verdict != Verdict::Right {
            println!("{}: {}: {}", verdict.word(), folder.display(), verdict.what());
        }
    }
    println!("{} models: {counts:?}", judged.len());
    if let Some(path) = &options.json
        && let Err(error) = fs::write(path, Value::from_iter(judged.iter().map(Judged::to_json)).to_string())
    {
        eprintln!("error: cannot write `{}`: {error}", path.display());
        return ExitCode::from(2);
    }
    ExitCode::SUCCESS
}

/// The verdicts of all pairs, in their order.
fn judge_all(options: &Options) -> Vec<Judged> {
    let queue = Mutex::new(options.pairs.chunks(TOGETHER).map(<[PathBuf]>::to_vec).collect::<VecDeque<_>>());
    let verdicts = Mutex::new(BTreeMap::new());
    let work = || {
        loop {
            let Some(group) = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front() else { return };
            let judged = judge_group(&group, &options.how);
            let mut verdicts = verdicts.lock().unwrap_or_else(PoisonError::into_inner);
            verdicts.extend(judged.into_iter().map(|judged| (judged.folder, judged.verdict)));
            eprint!("\r{} of {}", verdicts.len(), options.pairs.len());
        }
    };
    std::thread::scope(|scope| (0..options.jobs.max(1)).for_each(|_| drop(scope.spawn(work))));
    eprintln!();
    let mut verdicts = verdicts.into_inner().unwrap_or_else(PoisonError::into_inner);
    let judged = |folder: &PathBuf| Some(Judged { verdict: verdicts.remove(folder)?, folder: folder.clone() });
    options.pairs.iter().filter_map(judged).collect()
}

/// The verdicts of a group; one that a child cannot give is sought in each half of the group.
fn judge_group(group: &[PathBuf], how: &How) -> Vec<Judged> {
    match start_child(group, how) {
        Ok(judged) => judged,
        Err(what) if group.len() < 2 => {
            group.iter().map(|folder| Judged { folder: folder.clone(), verdict: Verdict::Wrong(what.clone()) }).collect()
        }
        Err(_) => {
            let (left, right) = group.split_at(group.len() / 2);
            [judge_group(left, how), judge_group(right, how)].concat()
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a tool for the developers of the compiler, no part of the product")]
fn start_child(group: &[PathBuf], how: &How) -> Result<Vec<Judged>, String> {
    let failed = |e: io::Error| format!("the child process cannot be used: {e}");
    let program = env::current_exe().map_err(failed)?;
    let mut child = Command::new(program)
        .arg(CHILD)
        .args(how.arguments())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let listing: String = group.iter().map(|folder| format!("{}\n", folder.display())).collect();
    child.stdin.take().expect("it is piped").write_all(listing.as_bytes()).map_err(failed)?;
    let output = child.wait_with_output().map_err(failed)?;
    let judged: Vec<Judged> = output.stdout.split(|b| *b == b'\n').filter_map(Judged::read).collect();
    if output.status.success() && judged.len() == group.len() {
        return Ok(judged);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("it ends the process ({}): {}", output.status, said.trim().lines().take(3).collect::<Vec<_>>().join(" ")))
}

/// Judges the pairs that the input lists, and prints each verdict as a line of JSON.
fn child(how: &How) -> ExitCode {
    let folders = io::stdin().lines().map_while(Result::ok).map(PathBuf::from);
    let mut runnable: Vec<Pair> = Vec::new();
    for folder in folders {
        match Pair::read(&folder, how.rtol).and_then(Pair::interpreted) {
            Ok(pair) if how.interpret => println!("{}", Judged { folder: pair.folder, verdict: Verdict::Right }.to_json()),
            Ok(pair) => runnable.push(pair),
            Err(verdict) => println!("{}", Judged { folder, verdict }.to_json()),
        }
    }
    let mut together: BTreeMap<String, Vec<Pair>> = BTreeMap::new();
    for pair in runnable {
        together.entry(pair.sizes()).or_default().push(pair);
    }
    for pairs in together.into_values() {
        match artifact::judge(&pairs, &how.objects) {
            Ok(verdicts) => {
                for (pair, verdict) in pairs.into_iter().zip(verdicts) {
                    println!("{}", Judged { folder: pair.folder, verdict }.to_json());
                }
            }
            Err(error) => {
                eprintln!("{error}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

impl Judged {
    fn to_json(&self) -> Value {
        json!({ "pair": self.folder, "verdict": self.verdict.word(), "what": self.verdict.what() })
    }

    fn read(line: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(line).ok()?;
        let text = |key: &str| Some(value.get(key)?.as_str()?.to_owned());
        let verdict = match text("verdict")?.as_str() {
            "right" => Verdict::Right,
            "refused" => Verdict::Refused(text("what")?),
            _ => Verdict::Wrong(text("what")?),
        };
        Some(Self { folder: text("pair")?.into(), verdict })
    }
}
