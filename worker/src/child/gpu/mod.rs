//! The measuring child of a GPU. Unlike that of a CPU it does one job after the other: making a context takes a third of a second, a
//! hundred times what a candidate takes. It ends with the first candidate that breaks the context.

mod bench;
pub(crate) mod devices;
mod driver;
mod launch;
mod nvml;
mod tools;
mod vendor;

use std::io::BufRead;
use std::path::Path;

use bench::Bench;
use driver::{CudaDriver, Gpu, Memory};
use nvml::Nvml;
use vendor::Libraries;

use super::measuring::obey;
use super::messages::{Event, MeasureJob, Order};
use super::talk::{read_job, say};
use super::watch::Watch;

/// Bytes of device memory that are kept between jobs.
const KEEP: u64 = 2 << 30;

/// What outlives a job.
struct Host {
    gpu: Gpu,
    nvml: Option<Nvml>,
    /// Each is opened by the first job that compares with it.
    vendors: Libraries,
}

impl Host {
    /// The only GPU that the worker lets this process see.
    fn new() -> Result<Self, String> {
        let driver = CudaDriver::start()?;
        let device = driver.device(0).map_err(|e| e.to_string())?;
        let gpu = Gpu::open(driver, device).map_err(|e| e.to_string())?;
        Ok(Self { gpu, nvml: device.uuid().ok().and_then(|uuid| Nvml::open(&uuid)), vendors: Libraries::default() })
    }
}

pub(super) fn run() -> Result<(), String> {
    let host = Host::new();
    let (mut bench, mut spare) = (None::<Bench<'_>>, None::<Memory>);
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|e| format!("could not read from the worker: {e}"))?;
        let order: Order = serde_json::from_str(&line).map_err(|e| format!("`{line}` is no order: {e}"))?;
        match order {
            Order::Open { job } => {
                spare = bench.take().map(Bench::close).or(spare);
                match open(&host, &mut spare, &job) {
                    Ok((opened, seconds)) => {
                        bench = Some(opened);
                        say(&Event::Ready { reference_seconds: Some(seconds) })?;
                    }
                    Err(event) => say(&event)?,
                }
            }
            Order::Close => spare = bench.take().map(Bench::close).or(spare).filter(|memory| memory.bytes() <= KEEP),
            Order::Check { .. } | Order::Round { .. } => {
                let bench = bench.as_mut().ok_or_else(|| format!("`{line}` comes before any job"))?;
                let event = obey(bench, &order)?;
                say(&event)?;
                if matches!(event, Event::Crashed { .. }) {
                    // The context is lost; the worker starts another child.
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

/// Begins a job; returns also the seconds that the reference took. The error is the answer to the worker.
fn open<'h>(host: &'h Result<Host, String>, spare: &mut Option<Memory>, path: &Path) -> Result<(Bench<'h>, f64), Event> {
    let broken = |reason: String| Event::Broken { reason };
    let host = host.as_ref().map_err(|reason| broken(reason.clone()))?;
    let job: MeasureJob = read_job(path).map_err(broken)?;
    let watch = Watch::open(&job.progress).map_err(|e| broken(format!("could not open the progress file: {e}")))?;
    // Opening takes a good part of a second, which is not the race's.
    for call in job.spec.candidates.iter().filter_map(|c| c.vendor.as_ref()) {
        host.vendors.open(&host.gpu, &job.vendors, call);
    }
    let mut bench = Bench::new(&host.gpu, host.nvml.as_ref(), &host.vendors, spare.take(), job, watch)?;
    let seconds = bench.make_reference()?;
    Ok((bench, seconds))
}
