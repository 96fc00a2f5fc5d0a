//! What executing needs of the worker.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;

use aotfarm_protocol::{Device, Target, VendorLibrary};

use super::error::ExecError;
use crate::cache::BlobCache;
use crate::gpu::Gpu;
use crate::sandbox::{ChildProgram, ServingChild};
use crate::toolchain::{Compiler, Nvrtc, Toolchains};

/// Does work items with what this worker has: compilers, blobs, a device.
pub(crate) struct Executor {
    pub(crate) toolchains: Toolchains,
    pub(crate) cache: BlobCache,
    /// Where each item gets a folder of its own.
    pub(crate) dir: PathBuf,
    pub(crate) child: ChildProgram,
    pub(crate) device: Option<Device>,
    /// NVIDIA's libraries, on a GPU.
    pub(crate) vendors: BTreeMap<VendorLibrary, PathBuf>,
    /// The device, if it is a GPU.
    pub(crate) gpu: Option<Gpu>,
    /// The GPU's measuring child between two items.
    pub(crate) idle: Mutex<Option<ServingChild>>,
}

impl Executor {
    /// The NVRTC that an item names.
    pub(super) fn nvrtc(&self, id: &str, target: Target) -> Result<&Nvrtc, ExecError> {
        let found = self.toolchains.nvrtc().filter(|n| n.id == id && n.targets.contains(&target));
        found.ok_or_else(|| ExecError::NoToolchain { toolchain: id.to_owned(), target })
    }

    /// The C compiler that an item names.
    pub(super) fn compiler(&self, id: &str, target: Target) -> Result<&Compiler, ExecError> {
        let found = self.toolchains.by_id(id).filter(|c| c.targets.contains(&target));
        found.ok_or_else(|| ExecError::NoToolchain { toolchain: id.to_owned(), target })
    }
}
