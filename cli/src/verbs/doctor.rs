use std::process::ExitCode;

use aotfarm_client::Client;
use aotfarm_protocol::endpoints::admin;
use aotfarm_protocol::{Device, Target, VendorLibrary};
use aotfarm_worker::{Gpus, Search, Toolchains, WorkerConfig, probe_cpu, probe_gpus};
use clap::Args;
use serde::Serialize;

use crate::cli::Cli;
use crate::output::table;

/// Say what this host can build and measure, and what is missing
#[derive(Debug, Args)]
pub(crate) struct Doctor {}

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// It works.
    Ok,
    /// It is not there; what needs it is not possible.
    Missing,
    /// It is there and does not work.
    Broken,
    /// It works, but.
    Note,
}

/// One finding.
#[derive(Debug, Serialize)]
struct Check {
    what: String,
    state: State,
    detail: String,
}

impl Check {
    fn new(what: impl Into<String>, state: State, detail: impl Into<String>) -> Self {
        Self { what: what.into(), state, detail: detail.into() }
    }
}

/// All findings.
#[derive(Debug, Serialize)]
struct Report {
    checks: Vec<Check>,
    /// Targets that it builds for.
    builds: Vec<Target>,
    /// Devices that it measures on.
    measures: Vec<Device>,
}

impl Doctor {
    pub(crate) async fn run(self, cx: &Cli) -> anyhow::Result<ExitCode> {
        let config = WorkerConfig::new(std::env::temp_dir())?;
        let (toolchains, gpus) = tokio::join!(Toolchains::detect(&config.search, &config.child), probe_gpus(&config.child));
        let cpu = probe_cpu();
        let mut checks = compilers(&toolchains);
        checks.push(Check::new("CPU", State::Ok, format!("{}, {} cores: {}", cpu.name, cpu.cores, list(&cpu.targets))));
        checks.extend(graphics(&toolchains, &gpus));
        checks.extend(VendorLibrary::ALL.map(|library| vendor(&config.search, library)));
        checks.push(data_folder(cx));
        checks.push(coordinator(cx).await);

        let builds: Vec<Target> = toolchains.advertised().into_iter().flat_map(|t| t.targets).collect();
        let mut measures = if toolchains.native().is_some() { vec![cpu] } else { Vec::new() };
        measures.extend(gpus.into_iter().flat_map(|found| found.gpus).map(|gpu| gpu.device));
        let works = !builds.is_empty() || !measures.is_empty();
        let report = Report { checks, builds, measures };
        if cx.out.json {
            cx.out.json_line(&report);
        } else {
            print(&report, cx);
        }
        Ok(if works { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn compilers(toolchains: &Toolchains) -> Vec<Check> {
    let found = toolchains
        .compilers()
        .iter()
        .map(|c| Check::new("C compiler", State::Ok, format!("{} ({}) for {}", c.id, c.driver().display(), list(&c.targets))));
    let mut checks: Vec<Check> = found.collect();
    if let Some(missing) = toolchains.no_compiler() {
        checks.push(Check::new("C compiler", State::Missing, format!("{missing}; without one nothing can be linked")));
    } else if toolchains.compilers().len() == 1 && std::env::consts::ARCH != "aarch64" {
        let detail = "aarch64-linux-gnu-gcc is not found or does not work; it builds for cpu-aarch64: \
                      `apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross`";
        checks.push(Check::new("cross compiler", State::Missing, detail));
    }
    checks.push(match (toolchains.nvrtc(), toolchains.no_nvrtc()) {
        (Some(n), _) => Check::new("NVRTC", State::Ok, format!("{} ({}) for {}", n.id, n.library.display(), list(&n.targets))),
        (None, missing) => {
            let reason = missing.map_or_else(|| "not found".to_owned(), ToString::to_string);
            Check::new("NVRTC", State::Missing, format!("{reason}; it builds for NVIDIA GPUs"))
        }
    });
    checks
}

fn graphics(toolchains: &Toolchains, gpus: &Result<Gpus, String>) -> Vec<Check> {
    let found = match gpus {
        Ok(found) => found,
        Err(reason) => return vec![Check::new("NVIDIA driver", State::Missing, reason)],
    };
    let (major, minor) = found.cuda;
    let driver = found.driver.as_deref().unwrap_or("of unknown version");
    let mut checks = vec![Check::new("NVIDIA driver", State::Ok, format!("{driver}, CUDA {major}.{minor}"))];
    if let Some(nvrtc) = toolchains.nvrtc().filter(|n| n.version.0 > major) {
        let detail = format!("code of NVRTC {}.{} may be too new for this driver: update it", nvrtc.version.0, nvrtc.version.1);
        checks.push(Check::new("NVIDIA driver", State::Note, detail));
    }
    if found.gpus.is_empty() {
        checks.push(Check::new("GPU", State::Missing, "the driver knows none"));
    }
    for gpu in &found.gpus {
        let device = &gpu.device;
        let known = device.targets.iter().any(|t| toolchains.nvrtc().is_none_or(|n| n.targets.contains(t)));
        let detail = format!("{}, {} multiprocessors, {}", device.name, device.cores, device.detail);
        let name = format!("cuda:{}", gpu.ordinal);
        checks.push(if known {
            Check::new(name, State::Ok, detail)
        } else {
            Check::new(name, State::Note, format!("{detail}; this NVRTC does not build for it"))
        });
    }
    checks
}

fn vendor(search: &Search, library: VendorLibrary) -> Check {
    let work = match library {
        VendorLibrary::Cudnn => "convolutions",
        VendorLibrary::CublasLt => "matrix products",
    };
    match search.nvrtc.vendor(library) {
        Some(path) => Check::new(library.name(), State::Ok, path.display().to_string()),
        None => {
            let missing = format!("not found; with it the tables say what its {work} would take");
            Check::new(library.name(), State::Missing, missing)
        }
    }
}

fn data_folder(cx: &Cli) -> Check {
    let written = cx.data_dir().and_then(|dir| {
        std::fs::create_dir_all(&dir)?;
        tempfile::tempfile_in(&dir)?;
        Ok(dir)
    });
    match written {
        Ok(dir) => Check::new("data folder", State::Ok, dir.display().to_string()),
        Err(error) => Check::new("data folder", State::Broken, format!("{error:#}; choose a writable one with --data-dir")),
    }
}

async fn coordinator(cx: &Cli) -> Check {
    let Some(url) = &cx.global.coordinator else {
        return Check::new("coordinator", State::Ok, "none is set: jobs run embedded");
    };
    let asked = async {
        let client = Client::new(url).map_err(|e| e.to_string())?;
        client.call(admin::HEALTH.request()).await.map_err(|e| e.to_string())
    };
    match tokio::time::timeout(std::time::Duration::from_secs(5), asked).await {
        Ok(Ok(_)) => Check::new("coordinator", State::Ok, url),
        Ok(Err(reason)) => Check::new("coordinator", State::Broken, format!("{url}: {reason}")),
        Err(_) => Check::new("coordinator", State::Broken, format!("{url} does not answer")),
    }
}

fn list(targets: &[Target]) -> String {
    targets.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn print(report: &Report, cx: &Cli) {
    let word = |state| match state {
        State::Ok => "ok",
        State::Missing => "missing",
        State::Broken => "broken",
        State::Note => "note",
    };
    let rows: Vec<_> = report.checks.iter().map(|c| vec![c.what.clone(), word(c.state).to_owned(), c.detail.clone()]).collect();
    cx.out.data(table(&["WHAT", "STATE", "DETAIL"], &rows, &[]));
    let none = |text: String| if text.is_empty() { "nothing".to_owned() } else { text };
    cx.out.data(format!("\nbuilds for: {}", none(list(&report.builds))));
    let names: Vec<&str> = report.measures.iter().map(|d| d.name.as_str()).collect();
    cx.out.data(format!("measures on: {}", none(names.join(", "))));
}
