//! Bad input and faults: each is told with the thing, the place and the remedy, by the documented exit code, and leaves
//! nothing half-written. Candidates that crash, hang or write wrong numbers are the worker's tests.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use aotfarm_protocol::DType;

use crate::farm::{BINARY, Cli, Running, UNTUNED, text};
use crate::{has_compiler, model};

/// Whether there is nothing at all in a folder, or no folder.
fn is_empty(folder: &Path) -> bool {
    folder.read_dir().map_or(true, |mut entries| entries.next().is_none())
}

/// The files below `folder` whose names contain `part`.
fn files(folder: &Path, part: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in folder.read_dir().expect("a folder").map(|e| e.expect("an entry").path()) {
        if entry.is_dir() {
            found.extend(files(&entry, part));
        } else if entry.to_string_lossy().contains(part) {
            found.push(entry);
        }
    }
    found
}

/// The content of a safetensors file with this header.
fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

/// The content of a `.npy` file with this header.
fn npy(header: &str, data: &[u8]) -> Vec<u8> {
    [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), data].concat()
}

#[test]
fn model_files_that_are_damaged_or_lie_are_refused() {
    let cli = Cli::new();
    let (graph, onnx) = (model::tiny(1), model::onnx(&[("Relu", "a")]));
    let mut too_long = graph.clone();
    too_long[..8].copy_from_slice(&(1u64 << 31).to_le_bytes());
    let mut not_utf8 = graph.clone();
    not_utf8[40] = 0xff;
    let cyclic = r#"{"__metadata__":{"aotfarm.format":"1","aotfarm.ir":"graph g\n%a = relu %b : f32[2]\n%b = relu %a : f32[2]\noutput %b\n"}}"#;
    let weightless = r#"{"__metadata__":{"aotfarm.format":"1","aotfarm.ir":"graph g\nweight %w : f32[2]\noutput %w\n"}}"#;
    let cases: [(&str, &[u8], &[&str]); 11] = [
        ("empty.graph", b"", &["the file is empty"]),
        ("text.pt2", b"not a model", &["is not a model", ".pt2", ".onnx"]),
        ("cut.graph", &graph[..graph.len() - 9], &["damaged", "safetensors header"]),
        ("long.graph", &too_long, &["damaged", "safetensors header"]),
        ("binary.graph", &not_utf8, &["damaged", "safetensors header"]),
        ("cyclic.graph", &safetensors(cyclic, b""), &["`%b` is not defined above", "line 2"]),
        ("weightless.graph", &safetensors(weightless, b""), &["weight `w`", "no such tensor"]),
        ("cut.onnx", &onnx[..onnx.len() - 5], &["damaged", "protobuf"]),
        ("cut.pt2", b"PK\x03\x04\x14\0\0\0and then nothing", &["damaged", "zip"]),
        ("elf.onnx", b"\x7fELF", &["is not a model"]),
        ("bad name!.graph", &graph, &["cannot name a model", "--name"]),
    ];
    for (name, content, words) in cases {
        let file = cli.write(name, content);
        cli.run(&["submit", &file]).fails(2, words);
    }
    let absent = text(&cli.path("absent.graph"));
    cli.run(&["submit", &absent]).fails(3, &[&absent]);
    cli.run(&["submit", &text(&cli.path("home"))]).fails(2, &["is a folder"]);
    let cut = text(&cli.path("cut.graph"));
    cli.run(&["import", &cut, "-o", &text(&cli.path("out.graph"))]).fails(2, &[&cut]);
    assert!(!cli.path("out.graph").exists() && is_empty(&cli.data()), "a refused file left something behind");
}

#[test]
fn every_unsupported_operator_of_a_file_is_listed() {
    let cli = Cli::new();
    let nodes = [("Fancy", "encoder/first"), ("Relu", "encoder/act"), ("Odd", "head/odd"), ("Fancy", "encoder/second")];
    let file = cli.write("m.onnx", &model::onnx(&nodes));
    let told = cli.run(&["submit", &file]).fails(2, &["Fancy", "encoder/first", "Odd", "head/odd"]);
    let line = told.lines().find(|l| l.contains("Fancy")).unwrap_or_default();
    assert!(line.contains('2'), "how often it occurs is not told: {told}");
}

#[test]
fn requests_that_cannot_be_are_refused() {
    let cli = Cli::new();
    let graph = cli.write("tiny.graph", &model::tiny(1));
    cli.run(&["submit", &graph, "--dim", "batch=4..1"]).fails(2, &["batch=4..1", "NAME=MIN..MAX"]);
    cli.run(&["submit", &graph, "--target", "cpu-pdp11"]).fails(2, &["cpu-pdp11"]);
    cli.run(&["submit", &graph, "--device", "toaster"]).fails(2, &["`toaster` is not a device"]);
    cli.run(&["worker"]).fails(2, &["a worker needs a coordinator", "--coordinator"]);
    cli.run(&["ls", "--coordinator", "nonsense"])
        .fails(2, &["`nonsense` is not the address of a coordinator", "http://HOST:PORT"]);
    assert!(is_empty(&cli.data()), "a refused request left something behind");
}

#[test]
fn an_artifact_checks_what_it_is_given() {
    if !has_compiler() {
        return;
    }
    let cli = Cli::with_tiny();
    let artifact = cli.pull("tiny", "out");
    let cases: [(DType, &[usize], &[&str]); 5] = [
        (DType::F32, &[9, 3, 16, 16], &["batch", "9", "1", "8"]),
        (DType::F32, &[0, 3, 16, 16], &["batch", "0", "1", "8"]),
        (DType::F64, &[1, 3, 16, 16], &["`x`", "f64", "f32"]),
        (DType::F32, &[1, 3, 15, 16], &["`x`", "15", "16"]),
        (DType::F32, &[3, 16, 16], &["`x`", "4", "3"]),
    ];
    let output = text(&cli.path("y.npy"));
    for (dtype, shape, words) in cases {
        let input = cli.write("x.safetensors", &model::input(dtype, shape));
        cli.run(&["run", &artifact, "--input", &input, "--output", &output]).fails(2, words);
    }
    let header = |kind: &str, shape: &str| format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({shape}), }}\n");
    let whole = [0u8; 3072];
    let right = npy(&header("<f4", "1, 3, 16, 16"), &whole);
    let files: [(&str, Vec<u8>, &[&str]); 9] = [
        ("cut.npy", right[..right.len() - 1].to_vec(), &[]),
        ("magic.npy", b"not numpy".to_vec(), &[]),
        ("lie.npy", npy(&header("<f4", "1099511627776, 3, 16, 16"), &whole), &[]),
        ("overflow.npy", npy(&header("<f4", "4294967296, 4294967296, 4294967296"), &whole), &[]),
        ("objects.npy", npy(&header("|O", "1, 3, 16, 16"), &whole), &[]),
        (
            "fortran.npy",
            npy("{'descr': '<f4', 'fortran_order': True, 'shape': (1, 3, 16, 16), }\n", &whole),
            &["Fortran order", "ascontiguousarray"],
        ),
        (
            "lie.safetensors",
            safetensors(r#"{"x":{"dtype":"F32","shape":[1,3,16,16],"data_offsets":[0,3072]}}"#, &whole[..9]),
            &[],
        ),
        (
            "other.safetensors",
            safetensors(
                r#"{"y":{"dtype":"F32","shape":[768],"data_offsets":[0,3072]},"z":{"dtype":"U8","shape":[0],"data_offsets":[3072,3072]}}"#,
                &whole,
            ),
            &["`x`", "y, z", "in.0"],
        ),
        ("x.txt", whole.to_vec(), &[".npy", ".safetensors"]),
    ];
    for (name, content, words) in files {
        let file = cli.write(name, &content);
        let words = if words.is_empty() { &[name] } else { words };
        cli.run(&["run", &artifact, "--input", &file, "--output", &output]).fails(2, words);
    }
    let good = cli.write("x.npy", &right);
    assert!(!cli.path("y.npy").exists(), "a refused run left outputs");
    cli.run(&["run", &artifact, "--input", &good, "--output", &output]).ok();
    let text_file = cli.write("fake.so", b"#!/bin/sh");
    cli.run(&["run", &text_file]).fails(2, &["fake.so", "is not an artifact"]);
    cli.run(&["run", &text(&cli.path("absent.so"))]).fails(3, &["absent.so"]);
}

#[test]
fn what_does_not_exist_is_said_with_what_does() {
    if !has_compiler() {
        return;
    }
    let cli = Cli::with_tiny();
    let out = text(&cli.path("out"));
    cli.run(&["pull", "other", "-o", &out]).fails(3, &["`other`", "tiny"]);
    cli.run(&["pull", "tiny@v7", "-o", &out]).fails(3, &["tiny", "v7", "v1"]);
    cli.run(&["pull", "tiny@prod", "-o", &out]).fails(3, &["tiny", "prod"]);
    cli.run(&["show", "tiny@sha256:0000000000000000000000000000000000000000000000000000000000000000"])
        .fails(3, &["tiny", "sha256:0000"]);
    cli.run(&["pull", "Not A Name", "-o", &out]).fails(2, &["Not A Name", "NAME[@vN|@TAG|@sha256:HEX]"]);
    cli.run(&["history", "other"]).fails(3, &["`other`"]);
    cli.run(&["compare", "tiny@v1", "tiny@v2"]).fails(3, &["v2"]);
    assert!(is_empty(&cli.path("out")), "a refused pull left something behind");
    // A variant that there is not.
    let foreign = if cfg!(target_arch = "aarch64") { "cpu-x86_64-v3" } else { "cpu-aarch64" };
    cli.run(&["pull", &format!("tiny/{foreign}"), "-o", &out]).fails(3, &[foreign, "tiny@v1", "--target"]);
    assert!(is_empty(&cli.path("out")), "a refused pull left something behind");
}

#[test]
fn a_damaged_blob_is_found_named_and_made_anew() {
    if !has_compiler() {
        return;
    }
    let cli = Cli::with_tiny();
    let digest = cli.history("tiny")[0].version.variants[0].artifact.to_string();
    let hex = digest.strip_prefix("sha256:").unwrap();
    let [blob] = &files(&cli.data().join("blobs"), hex)[..] else { panic!("one file holds {hex}") };
    let mut bytes = std::fs::read(blob).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 16].iter_mut().for_each(|b| *b ^= 0x5a);
    std::fs::write(blob, bytes).unwrap();
    cli.run(&["pull", "tiny", "-o", &text(&cli.path("out"))]).fails(6, &[hex, "damaged", "submit the model again"]);
    assert!(is_empty(&cli.path("out")), "a failed pull left something behind");
    // The remedy that the message names works, and gives the same version.
    let graph = cli.write("tiny.graph", &model::tiny(1));
    let again = cli.run(&[&["submit", graph.as_str()], &UNTUNED[..]].concat()).ok();
    assert!(again.starts_with("tiny@v1 "), "{again}");
    let artifact = cli.pull("tiny", "out");
    let case = cli.write("case.safetensors", &model::case(1, 2));
    cli.run(&["run", &artifact, "--input", &case, "--check"]).ok();
}

#[test]
fn without_a_compiler_the_package_is_named() {
    let graph = model::tiny(1);
    let empty = tempfile::tempdir().unwrap();
    for (name, value) in [("AOTFARM_CC", "/nonexistent/cc"), ("PATH", &text(empty.path()))] {
        let cli = Cli::new().env(name, value).env("AOTFARM_NVRTC", "/nonexistent/libnvrtc.so");
        let file = cli.write("tiny.graph", &graph);
        cli.run(&["submit", &file]).fails(1, &["no C compiler", "apt-get install gcc libc6-dev"]);
        cli.run(&["worker", "--no-device", "--coordinator", "http://127.0.0.1:1"]).fails(1, &["apt-get install gcc libc6-dev"]);
    }
    // A compiler that is there but does not work.
    let cli = Cli::new().env("AOTFARM_CC", "/bin/false");
    let file = cli.write("tiny.graph", &graph);
    cli.run(&["submit", &file]).fails(1, &["/bin/false", "apt-get install gcc libc6-dev"]);
}

#[test]
fn a_data_folder_that_cannot_be_is_told_with_the_remedy() {
    let cli = Cli::new();
    let file = cli.write("file", b"in the way");
    for folder in [file.clone(), format!("{file}/below")] {
        cli.run(&["ls", "--data-dir", &folder]).fails(6, &[&folder, "--data-dir"]);
        cli.run(&["coordinator", "--listen", "127.0.0.1:0", "--data-dir", &folder]).fails(6, &[&folder, "--data-dir"]);
    }
    let graph = cli.write("tiny.graph", &model::tiny(1));
    cli.run(&["submit", &graph, "--data-dir", &file]).fails(6, &[&file, "--data-dir"]);
    cli.run(&["import", &graph, "-o", &format!("{file}/m.graph")]).fails(6, &[&format!("{file}/m.graph")]);
    std::fs::write(cli.path("data.db"), b"").unwrap();
    let broken = cli.write("broken/aotfarm.db", &[7; 8192]);
    cli.run(&["ls", "--data-dir", &text(&cli.path("broken"))]).fails(6, &[&broken]);
}

/// Runs the binary where `data` below the command's folder is mounted as `mount` says; `None`, with the reason printed, where this
/// user cannot mount.
fn mounted(cli: &Cli, mount: &str, args: &[&str]) -> Option<Running> {
    std::fs::create_dir_all(cli.data()).expect("a data folder");
    let script = format!("set -e; {mount}; shift; exec \"$@\"");
    let data = text(&cli.data());
    let wrap = ["-rm", "sh", "-c", &script, "sh", &data];
    let possible = Command::new("unshare").args(wrap).arg("true").output();
    if !possible.as_ref().is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: cannot mount in a namespace: {possible:?}");
        return None;
    }
    Some(Running::new(cli.command("unshare", &[&wrap[..], &[BINARY], args].concat())))
}

#[test]
fn a_full_disk_is_said_to_be_full() {
    if !has_compiler() {
        return;
    }
    let cli = Cli::new();
    let graph = cli.write("heavy.graph", &model::heavy());
    let Some(run) = mounted(&cli, "mount -t tmpfs -o size=1m tmpfs \"$1\"", &["submit", &graph]) else { return };
    run.end().fails(6, &["no space left", &text(&cli.data()), "free space"]);
}

#[test]
fn a_read_only_data_folder_is_said_to_be_read_only() {
    if !has_compiler() {
        return;
    }
    let cli = Cli::with_tiny();
    let graph = cli.write("tiny.graph", &model::tiny(1));
    let read_only = "mount --bind \"$1\" \"$1\" && mount -o remount,bind,ro \"$1\"";
    for args in [&["submit", graph.as_str()][..], &["coordinator", "--listen", "127.0.0.1:0"]] {
        let Some(run) = mounted(&cli, read_only, args) else { return };
        run.end().fails(6, &[&text(&cli.data()), "--data-dir"]);
    }
}

#[test]
fn a_taken_port_is_told() {
    let cli = Cli::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    cli.run(&["coordinator", "--listen", &address]).fails(1, &[&address, "in use", "--listen ADDR:PORT"]);
    assert!(is_empty(&cli.data()), "a coordinator that did not start left something behind");
}

#[test]
fn an_unreachable_coordinator_is_tried_again_then_told() {
    let cli = Cli::new();
    // A port that was free a moment ago.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{address}");
    let graph = cli.write("tiny.graph", &model::tiny(1));
    let out = text(&cli.path("out"));
    let commands: [&[&str]; 3] = [&["ls"], &["submit", &graph], &["pull", "tiny", "-o", &out]];
    let running = commands.map(|args| cli.start(&[args, &["--coordinator", &url]].concat()));
    for run in running {
        run.end().fails(4, &[&url, "after 7 tries", "is the coordinator running there"]);
    }
    assert!(is_empty(&cli.data()) && is_empty(&cli.path("out")), "a failed request left something behind");
}
