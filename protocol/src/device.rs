use serde::{Deserialize, Serialize};

use crate::{Digest, KeyHasher, Target};

/// What kind of hardware a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "each variant is its own name")]
pub enum DeviceKind {
    Cpu,
    Cuda,
}

/// A concrete piece of hardware that can measure. Two machines with equal fields are the same device to the
/// TuningRecords: what was measured on one holds for the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Device {
    /// CPU or GPU.
    pub kind: DeviceKind,
    /// The vendor's name: "AMD EPYC 9354", "NVIDIA H100 80GB HBM3".
    pub name: String,
    /// Usable cores of a CPU; multiprocessors of a GPU.
    pub cores: u32,
    /// What tells otherwise equal names apart: CPU family/model/stepping and cache sizes, or sm, memory and driver.
    pub detail: String,
    /// Every target whose code this device can run, best first.
    pub targets: Vec<Target>,
}

impl Device {
    /// The fingerprint that TuningRecords and Profiles are filed under.
    pub fn fingerprint(&self) -> Digest {
        KeyHasher::new("device")
            .field(match self.kind {
                DeviceKind::Cpu => "Cpu",
                DeviceKind::Cuda => "Cuda",
            })
            .field(&self.name)
            .field(self.cores.to_le_bytes())
            .field(&self.detail)
            .finish()
    }

    /// Whether this device runs code made for `target`.
    pub fn runs(&self, target: Target) -> bool {
        self.targets.contains(&target)
    }
}
