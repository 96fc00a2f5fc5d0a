//! The data folder of an earlier release: what was published is there, and what was built and measured is used.
//!
//! `tests/fixtures/data_folder/make.py` writes the archives and says what is in them. One stays for each release whose folders must open.

use std::collections::HashSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use aotfarm_protocol::{CpuIsa, Digest, HistoryEntry, JobStatus, Target, WorkKind};
use serde_json::{Value, json};

use crate::farm::{Cli, Farm, text, wait_for};
use crate::has_compiler;
use crate::old_worker::OldWorker;

pub(crate) const RELEASES: [&str; 1] = ["v0.1.0"];
/// As the models of the archives were submitted.
const AS_THEN: [&str; 10] = ["--target", "cpu-x86_64-v3", "--tune-at", "4", "--trials", "3", "--budget", "2s", "--threads", "2"];

/// A command line over the data folder of a release; beside it lie the other contents of the archive.
pub(crate) fn open(release: &str) -> Cli {
    let cli = Cli::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/data_folder");
    let packed = File::open(folder.join(format!("{release}.tar.zst"))).expect("the archive of the release");
    let unpacked = zstd::Decoder::new(packed).expect("an archive that is compressed with zstd");
    tar::Archive::new(unpacked).unpack(cli.path(".")).expect("a whole archive");
    for raw in files(&cli.data().join("blobs")).into_iter().filter(|file| file.extension().is_some_and(|e| e == "raw")) {
        let content = fs::read(&raw).expect("a blob");
        fs::write(raw.with_extension("zst"), zstd::encode_all(&content[..], 3).expect("memory")).expect("a blob");
        fs::remove_file(&raw).expect("a blob");
    }
    cli
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = folder.read_dir().expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn read_json(cli: &Cli, file: &str) -> Value {
    serde_json::from_slice(&fs::read(cli.path(file)).expect(file)).expect("JSON")
}

/// Whether this host runs code for x86-64-v3; the reason is printed when it does not.
pub(crate) fn runs_v3() -> bool {
    let why = aotfarm_runtime::why_not(Target::Cpu(CpuIsa::X86_64V3));
    if let Some(why) = &why {
        eprintln!("skipped: this host {why}");
    }
    why.is_none()
}

/// What of `then` is missing or different in `now`, which may say more.
fn lost(then: &Value, now: &Value, place: &str) -> Vec<String> {
    match (then, now) {
        (Value::Object(then), Value::Object(now)) => then
            .iter()
            .flat_map(|(key, value)| lost(value, now.get(key).unwrap_or(&Value::Null), &format!("{place}.{key}")))
            .collect(),
        (Value::Array(then), Value::Array(now)) if then.len() == now.len() => {
            then.iter().zip(now).enumerate().flat_map(|(i, (then, now))| lost(then, now, &format!("{place}[{i}]"))).collect()
        }
        _ if then == now => vec![],
        _ => vec![format!("{place}: {then} was there, now {now}")],
    }
}

#[test]
fn what_was_published_and_asked_for_is_told_as_then() {
    for release in RELEASES {
        let cli = open(release);
        let said = files(&cli.path("said"));
        assert_eq!(said.len(), 5, "{said:?}");
        for file in said {
            let verb = file.file_stem().and_then(|stem| stem.to_str()).expect("a name");
            let command: Vec<&str> = verb.splitn(2, '-').collect();
            let then = fs::read_to_string(&file).expect("lines of JSON");
            let then: Vec<Value> = then.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
            let now: Vec<Value> = cli.run(&[&["--json"], &command[..]].concat()).json();
            assert!(!then.is_empty());
            let lost = lost(&then.into(), &now.into(), verb);
            assert!(lost.is_empty(), "of {release}: {lost:#?}");
        }
        let shown: Vec<HistoryEntry> = cli.run(&["--json", "show", "mlp@prod"]).json();
        assert_eq!(shown[0].version.version, 1);
        assert!(cli.run(&["show", "convnet-gpu"]).ok().contains("its kernels were not measured"));
        let jobs: Vec<JobStatus> = cli.run(&["--json", "jobs"]).json();
        for job in &jobs {
            cli.run(&["logs", &job.id.to_string()]).ok();
        }
        assert!(!cli.run(&["--json", "compare", "mlp@v1", "mlp@v2"]).json::<Value>().is_empty());
    }
}

#[test]
fn what_was_published_is_pulled_and_run() {
    for release in RELEASES {
        let cli = open(release);
        for (reference, case) in [("mlp@prod", "mlp_1"), ("mlp", "mlp_2"), ("convnet", "convnet"), ("convnet-gpu", "")] {
            let version: Vec<HistoryEntry> = cli.run(&["--json", "show", reference]).json();
            let out = text(&cli.path("out"));
            let artifact = cli.run(&["pull", reference, "--any-host", "-o", &out]).ok().trim().to_owned();
            assert_eq!(Digest::of(fs::read(&artifact).expect("the artifact")), version[0].version.variants[0].artifact);
            if !case.is_empty() && runs_v3() {
                let case = text(&cli.path(&format!("models/{case}.case.safetensors")));
                cli.run(&["run", &artifact, "--input", &case, "--check"]).ok();
            }
        }
    }
}

#[test]
fn a_model_is_submitted_to_an_old_folder() {
    if !has_compiler() || !runs_v3() {
        return;
    }
    for release in RELEASES {
        let cli = open(release);
        let graph = text(&cli.path("models/mlp_3.graph"));
        let submit = ["submit", &graph, "--name", "mlp", "--target", "cpu-x86_64-v3", "--tune", "none", "--threads", "2"];
        assert!(cli.run(&submit).ok().starts_with("mlp@v3 "));
        let case = text(&cli.path("models/mlp_3.case.safetensors"));
        cli.run(&["run", &cli.pull("mlp", "out"), "--input", &case, "--check"]).ok();
        assert_eq!(cli.history("mlp").len(), 3);
    }
}

/// The worker that measured then is there again, and a model of the same kernels with other weights is submitted. A unit whose source is
/// not what it was may be built again; nothing else.
#[test]
fn what_was_built_and_measured_is_not_done_again() {
    for release in RELEASES {
        let farm = Farm::over(open(release));
        let worker = OldWorker::register(&farm.address, &read_json(&farm.cli, "worker.json"));
        let sources: HashSet<String> = serde_json::from_value(read_json(&farm.cli, "sources.json")).expect("a list of digests");
        let graph = text(&farm.cli.path("models/mlp_3.graph"));
        let job = farm.submit(&[&[graph.as_str(), "--name", "mlp"], &AS_THEN[..]].concat());
        let mut other_sources = 0;
        let kind = wait_for("the first lease that is no build", || {
            let state = farm.job(job);
            assert!(!state.state.is_final(), "the job ended before anything was left to do: {state:#?}");
            let lease = worker.claim()?;
            let spec = &lease["spec"];
            if spec["work"] == "build" {
                let source = spec["source"].as_str().expect("a digest");
                assert!(!sources.contains(source), "of {release}: {source} is built again: {lease:#}");
                other_sources += 1;
                worker.report(&lease, &json!({"result": "build_failed", "log": "this worker builds nothing"}));
                return None;
            }
            Some(spec["work"].clone())
        });
        if other_sources > 0 {
            eprintln!("not compared further: {other_sources} kernels have another source than in {release}");
            continue;
        }
        assert_eq!(kind, "link", "of {release}: done again, though nothing was built");
        let items = farm.job(job).items;
        let built = items[&WorkKind::Build];
        assert!(built.total > 0 && built.cached == built.total, "of {release}: {built:?}");
        // What the records answer is not even asked for.
        assert!(items.get(&WorkKind::Measure).is_none_or(|count| count.cached == count.total), "of {release}: {items:?}");
        farm.cli.run(&["cancel", &job.to_string()]).ok();
    }
}
