//! What one user does on one machine, without a coordinator.

use aotfarm_protocol::{JobLogEntry, JobState, JobStatus, ModelInfo, VersionInfo, WorkKind};

use crate::farm::{BRIEFLY, Cli, Farm, UNTUNED, text, wait_for};
use crate::{has_compiler, model};

/// `(total, cached)` work items of a kind.
fn counts(job: &JobStatus, kind: WorkKind) -> (u32, u32) {
    job.items.get(&kind).map_or((0, 0), |count| (count.total, count.cached))
}

#[test]
fn a_model_is_tuned_published_pulled_and_run() {
    if !has_compiler() {
        return;
    }
    let cli = Cli::new();
    let graph = cli.write("tiny.graph", &model::tiny(1));
    let submit = |file: &str| cli.run(&[&["submit", file, "--name", "tiny"], &BRIEFLY[..]].concat());

    let first = submit(&graph);
    assert!(first.stderr.contains("AUTOTUNE convolution("), "{first:#?}");
    assert!(first.stdout.starts_with("tiny@v1 sha256:"), "{first:#?}");
    assert!(first.stdout.contains("batch=8"), "no latency is told: {first:#?}");
    assert!(!first.stderr.contains('\u{1b}') && !first.stdout.contains('\u{1b}'), "colours in a file");
    first.ok();
    let job = cli.last_job();
    assert_eq!(job.state, JobState::Published);
    for kind in [WorkKind::Build, WorkKind::Measure, WorkKind::Link, WorkKind::Profile] {
        assert!(matches!(counts(&job, kind), (1.., 0)), "{kind:?}: {job:#?}");
    }

    let artifact = cli.pull("tiny@v1", "clean");
    for batch in [1, 3, 8] {
        let case = cli.write("case.safetensors", &model::case(1, batch));
        let out = cli.run(&["run", &artifact, "--input", &case, "--check", "--output", &text(&cli.path("y.npy"))]).ok();
        assert!(out.contains("relative error"), "{out}");
        let npy = std::fs::read(cli.path("y.npy")).unwrap();
        assert_eq!(npy[..6], *b"\x93NUMPY");
        assert_eq!(npy.len() % 64, batch * 10 * 4 % 64, "a header of whole lines and {batch} rows of ten f32");
    }
    let wrong = cli.write("wrong.safetensors", &model::case(2, 3));
    cli.run(&["run", &artifact, "--input", &wrong, "--check"]).fails(1, &["relative L2 error"]);
    assert!(cli.run(&["bench", &artifact, "--at", "batch=1,8", "--json"]).json::<serde_json::Value>().len() >= 2);

    // The same file again: nothing is done, and the version is the same.
    let again: Vec<JobLogEntry> = cli.run(&[&["--json", "submit", &graph], &BRIEFLY[..]].concat()).json();
    let end = serde_json::to_value(again.last().unwrap()).unwrap();
    assert_eq!(
        (&end["event"], &end["published"]["version"], &end["published"]["existed"]),
        (&"published".into(), &1.into(), &true.into())
    );
    for (kind, count) in &cli.last_job().items {
        assert_eq!(count.cached, count.total, "{kind:?} was done again");
    }

    // Other weights: the kernels, what was measured of them, and the model race hold.
    let other = cli.write("other.graph", &model::tiny(2));
    assert!(submit(&other).ok().starts_with("tiny@v2 "));
    let job = cli.last_job();
    for kind in [WorkKind::Build, WorkKind::Measure, WorkKind::ModelRace] {
        let (total, cached) = counts(&job, kind);
        assert_eq!(total, cached, "{kind:?} was done again");
    }
    let (links, cached) = counts(&job, WorkKind::Link);
    assert_eq!(links - cached, 1, "only the artifact itself is linked");
    let case = cli.write("case.safetensors", &model::case(2, 5));
    cli.run(&["run", &cli.pull("tiny", "clean"), "--input", &case, "--check"]).ok();

    let compared: Vec<serde_json::Value> = cli.run(&["--json", "compare", "tiny@v1", "tiny@v2"]).json();
    assert!(!compared.is_empty());
    for point in &compared {
        assert!(point["ratio"].as_f64().unwrap() > 0.0 && !point["steps"].as_array().unwrap().is_empty(), "{point}");
    }
    let table = cli.run(&["compare", "tiny@v1", "tiny@v2", "--all"]).ok();
    assert!(["end to end", "VERDICT", "tiny@v1"].iter().all(|word| table.contains(word)), "{table}");
    let log = cli.run(&["logs", &job.id.to_string()]).ok();
    assert!(log.contains("published v2"), "{log}");
}

#[test]
fn a_model_with_states_is_checked_over_several_calls_and_goes_on_from_the_last() {
    if !has_compiler() {
        return;
    }
    let cli = Cli::new();
    let graph = cli.write("running.graph", &model::running());
    let summary = cli.run(&["inspect", &graph, "--summary"]).ok();
    assert!(summary.contains("state       total: f32[4]\n") && summary.contains("writes      x\n"), "{summary}");
    cli.run(&[&["submit", &graph, "--name", "running"], &UNTUNED[..]].concat()).ok();
    let artifact = cli.pull("running@v1", "clean");
    for calls in [1, 2, 3] {
        let case = cli.write("case.safetensors", &model::running_case(calls));
        let run = |calls: usize| cli.run(&["run", &artifact, "--input", &case, "--check", "--calls", &calls.to_string()]);
        let out = run(calls).ok();
        assert!(out.contains("y  f32[3, 4]") && out.contains("x  f32[3, 4]"), "the input as it is written is shown: {out}");
        run(calls + 1).fails(1, &["relative L2 error"]);
    }
}

#[test]
fn versions_are_listed_shown_tagged_and_told_apart() {
    if !has_compiler() {
        return;
    }
    let cli = Cli::with_tiny();
    let second = cli.write("tiny.graph", &model::tiny(2));
    cli.run(&[&["submit", &second], &UNTUNED[..]].concat()).ok();

    let models: Vec<ModelInfo> = cli.run(&["--json", "ls"]).json();
    assert_eq!(models.iter().map(|m| (m.name.as_str(), m.versions, m.latest.version)).collect::<Vec<_>>(), [("tiny", 2, 2)]);
    assert!(cli.run(&["ls"]).ok().contains("tiny   v2"));

    let tagged: Vec<VersionInfo> = cli.run(&["--json", "tag", "tiny@v1", "prod"]).json();
    assert_eq!((tagged[0].version, tagged[0].tags.as_slice()), (1, &["prod".to_owned()][..]));
    let pulled: Vec<serde_json::Value> = cli.run(&["--json", "pull", "tiny@prod", "-o", &text(&cli.path("prod"))]).json();
    assert_eq!((&pulled[0]["version"], &pulled[0]["downloaded"]), (&1.into(), &true.into()));
    let again: Vec<serde_json::Value> = cli.run(&["--json", "pull", "tiny@prod", "-o", &text(&cli.path("prod"))]).json();
    assert_eq!(again[0]["downloaded"], false, "a file that is here is not fetched again");
    cli.run(&["tag", "tiny@v2", "prod"]).ok();
    assert!(cli.run(&["show", "tiny@prod"]).ok().starts_with("tiny@v2\n"), "the tag has moved");
    assert_eq!(cli.run(&["tag", "tiny@v2", "prod", "--delete"]).ok(), "tiny@v2: no tags\n");
    cli.run(&["show", "tiny@prod"]).fails(3, &["prod", "tiny"]);
    cli.run(&["tag", "tiny@v2", "v9"]).fails(2, &["`v9` cannot be a tag"]);

    let history = cli.history("tiny");
    assert_eq!(history.iter().map(|e| e.version.version).collect::<Vec<_>>(), [1, 2]);
    for entry in &history {
        assert!(entry.profiles.iter().all(|p| p.threads == 2 && p.samples.len() > 1 && !p.steps.is_empty()), "{entry:#?}");
        let by_digest = format!("tiny@{}", entry.version.index);
        let shown = cli.run(&["show", &by_digest]).ok();
        assert!(shown.starts_with(&format!("tiny@v{}\n", entry.version.version)) && shown.contains("p50"), "{shown}");
    }
    let table = cli.run(&["history", "tiny"]).ok();
    assert!(table.lines().count() > 2 && table.starts_with("VERSION"), "{table}");
}

#[test]
fn the_same_graph_from_scratch_is_the_same_artifact() {
    if !has_compiler() {
        return;
    }
    let (one, other) = (Cli::with_tiny(), Cli::new());
    let graph = other.write("elsewhere/tiny.graph", &model::tiny(1));
    other.run(&[&["submit", &graph], &UNTUNED[..]].concat()).ok();
    let artifacts = |cli: &Cli| {
        let version = cli.history("tiny").remove(0).version;
        version.variants.iter().map(|v| (v.target, v.artifact, v.bytes)).collect::<Vec<_>>()
    };
    assert_eq!(artifacts(&one), artifacts(&other));
    let read = |cli: &Cli| std::fs::read(cli.pull("tiny", "out")).unwrap();
    assert!(read(&one) == read(&other), "the files differ");
}

#[test]
fn two_processes_share_the_embedded_farm() {
    if !has_compiler() {
        return;
    }
    let cli = Cli::new();
    let graph = cli.write("tiny.graph", &model::tiny(1));
    let submit = [&["submit", graph.as_str()], &UNTUNED[..]].concat();
    let both = [cli.start(&submit), cli.start(&submit)];
    for done in both.map(crate::farm::Running::end) {
        assert!(done.stdout.starts_with("tiny@v1 "), "{done:#?}");
        done.ok();
    }
    assert_eq!(cli.history("tiny").len(), 1);
}

#[test]
fn models_are_converted_and_inspected() {
    let cli = Cli::new();
    let onnx = cli.write("m.onnx", &model::onnx(&[("Relu", "a"), ("Tanh", "b")]));
    assert_eq!(cli.run(&["import", &onnx]).ok().trim(), text(&cli.path("m.graph")));
    let seen = cli.run(&["inspect", &text(&cli.path("m.graph"))]).ok();
    assert!(["relu", "tanh", "f32[1, 4]", "parameters  0"].iter().all(|word| seen.contains(word)), "{seen}");
    let tiny = cli.write("tiny.graph", &model::tiny(1));
    let seen: Vec<serde_json::Value> = cli.run(&["--json", "inspect", &tiny]).json();
    // Two convolutions with their norms, and the classifier.
    assert_eq!(seen[0]["parameters"], 16 * 27 + 16 * 144 + 2 * 4 * 16 + 170);
}

#[test]
fn a_job_is_detached_watched_and_cancelled() {
    let farm = Farm::new();
    let graph = farm.cli.write("tiny.graph", &model::tiny(1));
    let job = farm.submit(&[&graph]);
    let id = job.to_string();
    assert!(farm.cli.run(&["jobs"]).ok().contains(&id));
    let watching = farm.cli.start(&["job", &id, "--follow"]);
    // There is no worker, and the job says what it waits for.
    let log = || farm.cli.run(&["logs", &id]).ok();
    let noted = wait_for("a note", || Some(log()).filter(|log| log.contains("note: ")));
    assert!(noted.contains("worker"), "{noted}");
    assert_eq!(farm.cli.run(&["cancel", &id]).ok(), format!("{id} cancelled\n"));
    watching.end().fails(1, &["was cancelled"]);
    assert_eq!(farm.job(job).state, JobState::Cancelled);
    // Cancelling is idempotent, and what is unknown is said to be.
    assert_eq!(farm.cli.run(&["cancel", &id]).ok(), format!("{id} cancelled\n"));
    let unknown = "01890000-0000-7000-8000-000000000000";
    for verb in ["cancel", "job", "logs"] {
        farm.cli.run(&[verb, unknown]).fails(3, &[unknown]);
    }
    Cli::new().run(&["submit", &graph, "--detach"]).fails(2, &["--detach needs a coordinator", "aotfarm coordinator"]);
}
