//! The probing child: which GPUs there are. A driver that crashes or hangs while it is asked costs a child, not the worker.

use aotfarm_protocol::{Device, DeviceKind, Target};
use cudarc::driver::sys::CUdevice_attribute as Attribute;
use serde::{Deserialize, Serialize};

use super::driver::{self, CudaDriver};
use super::nvml;
use crate::child::talk::say;

/// The answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum DevicesEvent {
    /// The driver is there. `cuda` is the version that it supports, 13000 for 13.0; each GPU comes with its identity.
    Found { cuda: i32, driver: Option<String>, gpus: Vec<(String, Device)> },
    /// It is not, or it cannot be used.
    None { reason: String },
}

pub(crate) fn run() -> Result<(), String> {
    say(&find().unwrap_or_else(|reason| DevicesEvent::None { reason }))
}

fn find() -> Result<DevicesEvent, String> {
    let started = CudaDriver::start()?;
    let cuda = started.version().map_err(|e| e.to_string())?;
    let driver = driver_version();
    let count = started.devices().map_err(|e| e.to_string())?;
    let gpu = |k| describe(started.device(k)?, cuda, driver.as_deref());
    let gpus = (0..count).map(gpu).collect::<Result<_, driver::Error>>().map_err(|e| e.to_string())?;
    Ok(DevicesEvent::Found { cuda, driver, gpus })
}

fn driver_version() -> Option<String> {
    let module = || std::fs::read_to_string("/sys/module/nvidia/version").ok().map(|text| text.trim().to_owned());
    nvml::driver_version().or_else(module)
}

fn describe(device: driver::CudaDevice, cuda: i32, driver: Option<&str>) -> Result<(String, Device), driver::Error> {
    let sm = device.sm()?;
    let megahertz = |attribute| device.attribute(attribute).map(|khz| khz / 1000);
    let detail = format!(
        "sm_{sm}, {} MiB, driver {} (CUDA {}.{}), {} MHz, memory {} MHz, L2 {} MiB",
        device.memory()? >> 20,
        driver.unwrap_or("unknown"),
        cuda / 1000,
        cuda % 1000 / 10,
        megahertz(Attribute::CU_DEVICE_ATTRIBUTE_CLOCK_RATE)?,
        megahertz(Attribute::CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE)?,
        device.attribute(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)? >> 20,
    );
    let cores = device.attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
    let device_of = Device { kind: DeviceKind::Cuda, name: device.name()?, cores, detail, targets: Target::of_gpu(sm) };
    Ok((device.uuid()?, device_of))
}
