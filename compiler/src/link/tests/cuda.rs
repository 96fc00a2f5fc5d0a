//! The tests' model as an artifact for a GPU. It runs on a libcuda.so.1 of the tests' own (`runtime/tests/fake_cuda.c`), and on a GPU where there is
//! one.

use aotfarm_protocol::{GridAxis, Launch};
use aotfarm_runtime::{DeviceTensor, SessionOptions};

use super::*;
use aotfarm_abi::kernel::AOTK_CUH;
use aotfarm_kernels::testing::gpu::Nvrtc;

const GPU_KERNELS: &str = include_str!("../../../../tests/golden/link/kernels.cu");

/// Counts of inputs, weights and dims, for the ABI's macros.
const UNITS: [(&str, [usize; 3]); 4] =
    [("LINEAR_SMALL", [1, 1, 1]), ("LINEAR_LARGE", [1, 1, 1]), ("ADD", [2, 1, 1]), ("SPREAD", [1, 0, 2])];

fn gpu_unit(name: &str) -> String {
    let [inputs, weights, dims] = UNITS.iter().find(|(unit, _)| *unit == name).unwrap().1;
    format!(
        "#define UNIT_{name}\n#define AOTK_SM 90\n#define AOTK_INPUTS {inputs}\n#define AOTK_WEIGHTS {weights}\n#define AOTK_OUTPUTS 1\n\
         #define AOTK_DIMS {dims}\n{AOTK_CUH}\n{GPU_KERNELS}"
    )
}

fn gpu_plan() -> Plan {
    let mut plan = plan();
    plan.target = Target::Cuda { sm: 90 };
    // More sizes than a session keeps graphs of.
    plan.dims[0].max = 64;
    plan
}

/// One thread for each of `mul * batch` elements, or the spread kernel's pairs of blocks.
fn launch(unit: &str) -> Launch {
    let axis = |times, mul, div| GridAxis { times, mul, dims: vec![0], div };
    match unit {
        "SPREAD" => Launch { cluster: [2, 1, 1], ..Launch::linear(axis(2, 1, 8), 128, 51_200) },
        _ => Launch::linear(axis(1, 4, 128), 128, 0),
    }
}

pub(super) fn gpu_candidate(unit: &str) -> Candidate {
    let text = gpu_unit(unit);
    let symbol = format!("test_{}", unit.to_lowercase());
    Candidate {
        launch: Some(launch(unit)),
        unit: Digest::of(&text),
        source: KernelSource { text, symbol: symbol.clone(), packs: false },
        ..candidate("ADD", &symbol, 0, &[])
    }
}

fn gpu_choices() -> Vec<SpecChoice> {
    vec![
        SpecChoice { spec: 0, by_point: vec![(at(1), gpu_candidate("LINEAR_SMALL")), (at(16), gpu_candidate("LINEAR_LARGE"))] },
        SpecChoice { spec: 1, by_point: vec![(at(8), gpu_candidate("ADD"))] },
        SpecChoice { spec: 2, by_point: vec![(at(1), gpu_candidate("SPREAD")), (at(16), gpu_candidate("SPREAD"))] },
    ]
}

pub(super) fn gpu_linkage() -> Linkage {
    let needs = |_: &TuningTask, candidate: &Candidate, _: &[i64]| {
        let workspace = if candidate.source.symbol == "test_spread" { 4096 } else { 0 };
        Some(Needs { packed: 0, shared: workspace, thread: 0 })
    };
    link_with(&gpu_plan(), &gpu_choices(), &info(), &needs).unwrap()
}

/// Links with what `cubin` makes of each unit.
pub(super) fn gpu_build(linkage: &Linkage, dir: &Path, cubin: &dyn Fn(&str) -> Vec<u8>) -> Option<PathBuf> {
    gpu_build_of(linkage, &UNITS.map(|(name, _)| gpu_unit(name)), dir, cubin)
}

/// Likewise, of units among `texts`.
pub(super) fn gpu_build_of(linkage: &Linkage, texts: &[String], dir: &Path, cubin: &dyn Fn(&str) -> Vec<u8>) -> Option<PathBuf> {
    let write = |name: &str, bytes: &[u8]| std::fs::write(dir.join(name), bytes).unwrap();
    for (n, unit) in linkage.units.iter().enumerate() {
        let text = texts.iter().find(|text| Digest::of(text) == *unit).unwrap();
        write(&format!("k{n:04}.cubin"), &cubin(text));
    }
    write("cubins.S", cubins_assembly(linkage.units.len()).as_bytes());
    cc(dir, &["-c", "cubins.S", "-o", "cubins.o"])?;
    assemble(linkage, dir, &["cubins.o".to_owned()])
}

pub(super) fn fake_cubin(text: &str) -> Vec<u8> {
    format!("code of {}", Digest::of(text)).into_bytes()
}

/// An artifact without real kernels; `None` when there is no compiler.
fn fake_artifact() -> Option<(tempfile::TempDir, PathBuf)> {
    let dir = tempfile::tempdir().unwrap();
    let path = gpu_build(&gpu_linkage(), dir.path(), &fake_cubin)?;
    Some((dir, path))
}

#[test]
fn the_tables_of_a_gpu_are_those_on_record() {
    let linkage = gpu_linkage();
    check_recorded("cuda_tables.c", linkage.glue.split_once(glue::TABLES).unwrap().1);
    assert_eq!(linkage.units, UNITS.map(|(name, _)| Digest::of(gpu_unit(name))));
    assert!(linkage.packs.is_empty());
    // Two weights on multiples of 256 bytes, and as much to read past the last.
    assert_eq!(linkage.copies.iter().map(|copy| copy.to).collect::<Vec<_>>(), [0, 512]);
    assert_eq!(linkage.section_bytes, 1024);
}

#[test]
fn kernels_without_a_launch_or_with_packed_weights_are_refused() {
    let check = |change: &dyn Fn(&mut Candidate), expected: &str| {
        let mut choices = gpu_choices();
        change(&mut choices[1].by_point[0].1);
        let needs = |_: &TuningTask, c: &Candidate, _: &[i64]| Some(c.needs.clone());
        assert_eq!(link_with(&gpu_plan(), &choices, &info(), &needs).unwrap_err().to_string(), expected);
    };
    check(&|c| c.launch = None, "defect in the plan: the kernel `test_add` is for a GPU and has no launch");
    check(&|c| c.source.packs = true, "defect in the plan: the kernel `test_add` packs weights, which kernels for GPUs do not");
}

#[test]
fn an_artifact_for_a_gpu_loads_anywhere_and_says_what_is_missing() {
    let Some((_dir, path)) = fake_artifact() else { return };
    let model = Model::load(&path).unwrap();
    assert_eq!(*model.metadata(), gpu_linkage().metadata);
    let Some(why) = aotfarm_runtime::why_not(model.metadata().target) else {
        println!("skipped: this host has such a GPU");
        return;
    };
    let error = Session::new(&model, 0).unwrap_err();
    assert_eq!(error.kind, RunErrorKind::Unsupported);
    if why.contains("no NVIDIA driver") {
        assert!(error.message.starts_with("no NVIDIA driver: libcuda.so.1: "), "{error}");
        let needed = "; this artifact is made for cuda-sm_90 and needs a driver for CUDA 12.0 or newer";
        assert!(error.message.ends_with(needed), "{error}");
    }
}

#[test]
fn building_for_a_gpu_twice_gives_the_same_bytes_that_need_only_the_c_library() {
    let (Some((_first, a)), Some((_second, b))) = (fake_artifact(), fake_artifact()) else { return };
    check_reproducible(&a, &b);
}

/// The whole session, on a driver that checks and counts its calls.
#[test]
fn a_session_calls_the_driver_as_it_should() {
    let Some((dir, path)) = fake_artifact() else { return };
    build_fake_driver(dir.path());
    run_gpu_test(dir.path(), &path, Some(dir.path()));

    // The example of the documentation does for a GPU as well.
    let include = format!("-I{}", repository().join("abi/include").display());
    let source = repository().join("docs/examples/run.c");
    cc(dir.path(), &[&include, source.to_str().unwrap(), "-o", "run", "-ldl"]).unwrap();
    let output = Command::new(dir.path().join("run")).arg(&path).arg("2").env("LD_LIBRARY_PATH", dir.path()).output().unwrap();
    let expected = "cuda-sm_90, 3 steps\nz [2, 4] 4 17 30 43 4\ns [5] 0 188 376 564 752\n";
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{}", String::from_utf8_lossy(&output.stderr));
}

/// Compiles the tests' own driver into `dir`.
pub(super) fn build_fake_driver(dir: &Path) {
    let fake = repository().join("runtime/tests/fake_cuda.c");
    cc(dir, &["-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", fake.to_str().unwrap(), "-o", "libcuda.so.1"]).unwrap();
}

/// Compiles `runtime/tests/gpu.c`, and runs it on the artifact, with the driver in `driver` or the host's own.
fn run_gpu_test(dir: &Path, artifact: &Path, driver: Option<&Path>) {
    let include = format!("-I{}", repository().join("abi/include").display());
    let source = repository().join("runtime/tests/gpu.c");
    let flags = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O1", &include];
    cc(dir, &[flags.as_slice(), &[source.to_str().unwrap(), "-o", "gpu", "-ldl", "-lpthread"]].concat()).unwrap();
    let mut command = Command::new(dir.join("gpu"));
    command.arg(artifact);
    if let Some(driver) = driver {
        command.env("LD_LIBRARY_PATH", driver);
    }
    let output = command.output().unwrap();
    println!("{}", String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_gpu_runs_the_artifact() {
    let Some(nvrtc) = Nvrtc::find() else { return };
    let dir = tempfile::tempdir().unwrap();
    let Some(path) = gpu_build(&gpu_linkage(), dir.path(), &|text| nvrtc.compile(text, 90).unwrap()) else { return };
    if let Some(why) = aotfarm_runtime::why_not(Target::Cuda { sm: 90 }) {
        println!("skipped: this host {why}");
        return;
    }
    let model = Model::load(&path).unwrap();
    let mut session = Session::with(&model, SessionOptions::default()).unwrap();
    for batch in [1, 32, 3, 4, 5, 64, 1, 31, 2] {
        check_run(&mut session, batch);
    }
    let [x, y] = inputs(6);
    let views = [x.view(), y.view()];
    let (outputs, seconds) = session.run_timed(&views).unwrap();
    assert!(seconds.len() == 3 && seconds.iter().all(|s| (0.0..1.0).contains(s)), "{seconds:?}");
    let gpu = session.gpu().unwrap().unwrap();
    let on_gpu = views.map(|view| DeviceTensor::new(&gpu, view).unwrap());
    let mut results = session.device_outputs_for(&on_gpu).unwrap();
    session.run_on_device(&on_gpu, &mut results).unwrap();
    assert_eq!(results.iter().map(|r| r.to_host().unwrap()).collect::<Vec<_>>(), outputs);
    let samples = aotfarm_runtime::bench(&mut session, &views, 100, Duration::from_millis(200)).unwrap();
    let (n, total) = (samples.len(), samples.iter().sum::<f64>());
    println!("{n} runs of 3 kernels, {:.2} µs each", 1e6 * total / n as f64);
    run_gpu_test(dir.path(), &path, None);
}
