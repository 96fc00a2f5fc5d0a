//! The GPUs of this host, as the driver tells a child process.

use std::time::Duration;

use aotfarm_protocol::Device;

use crate::child::gpu::devices::DevicesEvent;
use crate::sandbox::{ChildProgram, Limits, chain};

/// A first look at sleeping devices can take some seconds.
const LIMITS: Limits = Limits { time: Duration::from_secs(60), memory: None, file: 1 << 20, output: 256 << 10 };

/// A GPU that can be measured on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// Its number among those that this process may use, as in `cuda:0`.
    pub ordinal: u32,
    /// `GPU-8a56a4bc-…`.
    pub uuid: String,
    /// What it is.
    pub device: Device,
    /// What `CUDA_VISIBLE_DEVICES` must be for a child to see it alone.
    pub(crate) visible_as: String,
}

/// NVIDIA's driver and devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpus {
    /// NVIDIA's version of the driver, `580.159.04`, if known.
    pub driver: Option<String>,
    /// Major and minor CUDA version that the driver supports.
    pub cuda: (i32, i32),
    /// The devices.
    pub gpus: Vec<Gpu>,
}

/// Asks the driver for its devices. The error says why there are none, in words; most often there is no driver.
///
/// # Errors
/// In words.
pub async fn probe_gpus(child: &ChildProgram) -> Result<Gpus, String> {
    match child.ask("devices", LIMITS).await {
        Ok(Ok(DevicesEvent::Found { cuda, driver, gpus })) => {
            let visible = std::env::var("CUDA_VISIBLE_DEVICES").ok();
            let gpu = |(n, (uuid, device)): (usize, (String, Device))| Gpu {
                ordinal: n as u32,
                uuid,
                device,
                visible_as: visible_as(visible.as_deref(), n),
            };
            let gpus = gpus.into_iter().enumerate().map(gpu).collect();
            Ok(Gpus { driver, cuda: (cuda / 1000, cuda % 1000 / 10), gpus })
        }
        Ok(Ok(DevicesEvent::None { reason })) => Err(reason),
        Ok(Err(death)) => Err(format!("the NVIDIA driver failed while it was asked for its devices: {death}")),
        Err(error) => Err(chain(&error)),
    }
}

/// How device number `n` of a process with this `CUDA_VISIBLE_DEVICES` is called.
fn visible_as(variable: Option<&str>, n: usize) -> String {
    let named = variable.and_then(|list| list.split(',').map(str::trim).nth(n)).filter(|name| !name.is_empty());
    named.map_or_else(|| n.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_passed_on_by_the_name_that_they_have_here() {
        assert_eq!(visible_as(None, 1), "1");
        assert_eq!(visible_as(Some("3, GPU-ab"), 0), "3");
        assert_eq!(visible_as(Some("3, GPU-ab"), 1), "GPU-ab");
    }
}
