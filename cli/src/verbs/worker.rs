use std::path::PathBuf;
use std::process::ExitCode;

use std::str::FromStr;

use aotfarm_worker::{ChildProgram, Exit, Measures, Worker, WorkerConfig, probe_gpus};
use clap::Args;
use futures_util::future::try_join_all;
use tokio_util::sync::CancellationToken;

use crate::cli::Cli;
use crate::failure::Failure;
use crate::shutdown::stop_on_signal;

/// Run a worker: builds for any target its compilers know, measures on this host
#[derive(Debug, Args)]
#[command(name = "worker")]
pub(crate) struct Work {
    /// Build items at once [default: the cores]
    #[arg(long, value_name = "N")]
    slots: Option<u32>,
    /// What to measure on: cpu, cuda:N or cuda for all GPUs (may be repeated) [default: all there is]
    #[arg(long, value_name = "DEVICE")]
    device: Vec<Choice>,
    /// Only build; do not measure on this host
    #[arg(long, conflicts_with = "device")]
    no_device: bool,
    /// A label, for people (may be repeated)
    #[arg(long, value_name = "TEXT")]
    label: Vec<String>,
    /// Leave when there has been nothing to do for this long, as in 60s
    #[arg(long, value_name = "TIME")]
    idle_exit: Option<humantime::Duration>,
    /// Where to keep blobs and build files [default: a temporary folder]
    #[arg(long, value_name = "DIR")]
    work_dir: Option<PathBuf>,
}

impl Work {
    pub(crate) async fn run(self, cx: &Cli) -> anyhow::Result<ExitCode> {
        let Some(url) = &cx.global.coordinator else {
            return Err(Failure::input("a worker needs a coordinator")
                .hint("pass --coordinator URL or set AOTFARM_COORDINATOR")
                .into());
        };
        let defaults = WorkerConfig::new(self.work_dir.unwrap_or_else(|| std::env::temp_dir().join("aotfarm-worker")))?;
        let config = WorkerConfig {
            slots: self.slots.unwrap_or(defaults.slots),
            labels: self.label,
            idle_exit: self.idle_exit.map(Into::into),
            ..defaults
        };
        let devices = if self.no_device { vec![Measures::Nothing] } else { chosen(&self.device, &config.child).await? };
        let stop = CancellationToken::new();
        stop_on_signal(stop.clone());
        cx.out.say(format!("worker for {url} with {} build slots; measures on {}", config.slots, describe(&devices)));
        let mut workers = Vec::with_capacity(devices.len());
        for config in config.for_each(devices) {
            workers.push(Worker::connect(config, url).await?);
        }
        if let Some(first) = workers.first() {
            let found = first.toolchains();
            let missing = [found.no_compiler().map(ToString::to_string), found.no_nvrtc().map(ToString::to_string)];
            missing.iter().flatten().for_each(|missing| cx.out.say(format!("note: {missing}")));
        }
        let exits = try_join_all(workers.into_iter().map(|worker| worker.run(stop.clone()))).await?;
        cx.out.say(match exits.first().unwrap_or(&Exit::Shutdown) {
            Exit::Shutdown => "worker stopped",
            Exit::Idle => "worker left: there was no work for as long as --idle-exit says",
            Exit::Drained => "worker left: the coordinator drained it",
        });
        Ok(ExitCode::SUCCESS)
    }
}

/// A device as the user names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    Cpu,
    /// All of them, or the one with this number.
    Cuda(Option<u32>),
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "cpu" => Ok(Self::Cpu),
            None if text == "cuda" => Ok(Self::Cuda(None)),
            Some(("cuda", n)) if n.parse::<u32>().is_ok() => Ok(Self::Cuda(n.parse().ok())),
            _ => Err(format!("`{text}` is not a device: expected cpu, cuda or cuda:N")),
        }
    }
}

/// The devices that were asked for, each once; all that there are when none was.
async fn chosen(choices: &[Choice], child: &ChildProgram) -> anyhow::Result<Vec<Measures>> {
    if choices.is_empty() {
        return Ok(Measures::all(child).await);
    }
    let mut devices = Vec::new();
    if choices.contains(&Choice::Cpu) {
        devices.push(Measures::Cpu);
    }
    if choices.iter().all(|c| *c == Choice::Cpu) {
        return Ok(devices);
    }
    let hint = "`aotfarm doctor` says what this host has";
    let found = probe_gpus(child).await.map_err(|reason| Failure::failed(reason).hint(hint))?;
    for n in choices.iter().filter_map(|c| if let Choice::Cuda(Some(n)) = c { Some(*n) } else { None }) {
        if n as usize >= found.gpus.len() {
            let reason = format!("there is no cuda:{n}: the driver knows {} GPU(s)", found.gpus.len());
            return Err(Failure::failed(reason).hint(hint).into());
        }
    }
    let wanted = |n: u32| choices.contains(&Choice::Cuda(None)) || choices.contains(&Choice::Cuda(Some(n)));
    devices.extend(found.gpus.into_iter().filter(|gpu| wanted(gpu.ordinal)).map(Measures::Gpu));
    if devices.is_empty() {
        return Err(Failure::failed("the NVIDIA driver knows no GPU").hint(hint).into());
    }
    Ok(devices)
}

/// `its CPU, cuda:0 (NVIDIA H100)`.
fn describe(devices: &[Measures]) -> String {
    let name = |device: &Measures| match device {
        Measures::Nothing => "nothing".to_owned(),
        Measures::Cpu => "its CPU".to_owned(),
        Measures::Gpu(gpu) => format!("cuda:{} ({})", gpu.ordinal, gpu.device.name),
    };
    devices.iter().map(name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_have_names() {
        assert_eq!("cpu".parse(), Ok(Choice::Cpu));
        assert_eq!("cuda".parse(), Ok(Choice::Cuda(None)));
        assert_eq!("cuda:3".parse(), Ok(Choice::Cuda(Some(3))));
        for bad in ["gpu", "cuda:", "cuda:x", "cpu:0", ""] {
            assert!(bad.parse::<Choice>().is_err(), "{bad}");
        }
    }
}
