//! NVIDIA GPUs of this host, and tensors in their memory.

use std::fmt;
use std::sync::Arc;

use aotfarm_protocol::{DType, Target};
use cudarc::driver::sys::CUdevice_attribute as Attribute;
use cudarc::driver::{CudaContext, DriverError, result, sys};

use crate::tensor::{Tensor, TensorError, TensorRef, byte_len};

/// Kernels may read, not write, this many bytes past the end of a tensor.
const PAST: usize = 64;

/// What a GPU or its driver refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GpuError {
    /// The driver's library is not there.
    #[error("this host has no NVIDIA driver (libcuda.so.1 cannot be loaded)")]
    NoDriver,
    /// The driver refused something.
    #[error("cannot {what}: {reason}")]
    Driver {
        /// Completes "cannot …".
        what: String,
        /// What the driver said.
        reason: String,
    },
    /// The shape of a tensor is impossible, or another than that of the memory.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

fn refused(what: impl Into<String>) -> impl FnOnce(DriverError) -> GpuError {
    let what = what.into();
    move |error| GpuError::Driver { what, reason: error.to_string() }
}

/// An opened GPU. Cheap to clone.
#[derive(Clone)]
pub struct Gpu {
    index: i32,
    context: Arc<CudaContext>,
}

impl Gpu {
    /// Opens the GPU with the driver's number `index`: its primary context, which artifacts use as well.
    pub fn open(index: i32) -> Result<Self, GpuError> {
        driver()?;
        let ordinal = usize::try_from(index)
            .map_err(|_| GpuError::Driver { what: format!("open GPU {index}"), reason: "their numbers start at 0".to_owned() })?;
        Ok(Self { index, context: CudaContext::new(ordinal).map_err(refused(format!("open GPU {index}")))? })
    }

    /// The driver's number of it.
    pub fn index(&self) -> i32 {
        self.index
    }

    /// Makes the GPU the one that the driver's functions mean on this thread.
    fn bind(&self) -> Result<(), GpuError> {
        self.context.bind_to_thread().map_err(refused(format!("use GPU {}", self.index)))
    }
}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gpu({})", self.index)
    }
}

/// Loads the driver's library.
fn driver() -> Result<(), GpuError> {
    // SAFETY: loading the driver's library runs its initialisers only.
    if unsafe { sys::is_culib_present() } { Ok(()) } else { Err(GpuError::NoDriver) }
}

/// The architectures of this host's GPUs, as in `sm_90`, by the driver's number. None when the driver finds none.
pub fn gpu_architectures() -> Result<Vec<u32>, GpuError> {
    driver()?;
    match result::init() {
        Err(DriverError(sys::CUresult::CUDA_ERROR_NO_DEVICE)) => return Ok(Vec::new()),
        other => other.map_err(refused("start the NVIDIA driver"))?,
    }
    let count = result::device::get_count().map_err(refused("count the GPUs"))?;
    let architecture = |index| {
        let device = result::device::get(index)?;
        let ask = |attribute| {
            // SAFETY: the device is one of the driver's.
            unsafe { result::device::get_attribute(device, attribute) }
        };
        let major = ask(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = ask(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        Ok(u32::try_from(10 * major + minor).unwrap_or(0))
    };
    (0..count).map(|index| architecture(index).map_err(refused(format!("ask what GPU {index} is")))).collect()
}

/// The CUDA targets whose code this host's GPUs can run, best first; none without a GPU or a driver.
pub fn gpu_targets() -> Vec<Target> {
    let mut targets: Vec<Target> = gpu_architectures().unwrap_or_default().into_iter().flat_map(Target::of_gpu).collect();
    targets.sort_unstable_by(|a, b| b.cmp(a));
    targets.dedup();
    targets
}

/// Why no GPU of this host runs code made for `sm`; completes "this host …".
pub(crate) fn why_not(sm: u32) -> Option<String> {
    let capability = |sm: u32| format!("{}.{}", sm / 10, sm % 10);
    match gpu_architectures() {
        Err(GpuError::NoDriver) => Some("has no NVIDIA driver (libcuda.so.1 cannot be loaded)".to_owned()),
        Err(error) => Some(format!("has an NVIDIA driver that does not work: {error}")),
        Ok(found) if found.is_empty() => Some("has no NVIDIA GPU".to_owned()),
        Ok(found) if found.iter().any(|&gpu| Target::of_gpu(gpu).contains(&Target::Cuda { sm })) => None,
        Ok(mut found) => {
            found.sort_unstable();
            found.dedup();
            let found: Vec<String> = found.into_iter().map(capability).collect();
            Some(format!("has GPUs of compute capability {}, not {}", found.join(", "), capability(sm)))
        }
    }
}

/// Bytes in the memory of a GPU, and [`PAST`] more.
struct DeviceMemory {
    gpu: Gpu,
    address: sys::CUdeviceptr,
    len: usize,
}

impl DeviceMemory {
    /// So many bytes of zeros.
    fn zeros(gpu: &Gpu, len: usize) -> Result<Self, GpuError> {
        gpu.bind()?;
        // SAFETY: the GPU's context is current.
        let address = unsafe { result::malloc_sync(len + PAST) };
        let address = address.map_err(refused(format!("allocate {len} bytes on GPU {}", gpu.index)))?;
        let memory = Self { gpu: gpu.clone(), address, len };
        // SAFETY: the memory was just allocated, and has this length; the GPU's context is current.
        unsafe { result::memset_d8_sync(address, 0, len + PAST) }
            .map_err(refused(format!("clear memory of GPU {}", gpu.index)))?;
        Ok(memory)
    }

    /// Writes all of it.
    fn write(&mut self, bytes: &[u8]) -> Result<(), GpuError> {
        assert_eq!(bytes.len(), self.len, "what is written fills the memory");
        self.gpu.bind()?;
        // SAFETY: both have this length, and the GPU's context is current; the call returns when
        // the bytes are copied.
        unsafe { result::memcpy_htod_sync(self.address, bytes) }
            .map_err(refused(format!("copy {} bytes to GPU {}", self.len, self.gpu.index)))
    }

    /// Reads all of it.
    fn read(&self, bytes: &mut [u8]) -> Result<(), GpuError> {
        assert_eq!(bytes.len(), self.len, "what is read is all of the memory");
        self.gpu.bind()?;
        // SAFETY: as in `write`.
        unsafe { result::memcpy_dtoh_sync(bytes, self.address) }
            .map_err(refused(format!("copy {} bytes from GPU {}", self.len, self.gpu.index)))
    }
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        if self.gpu.bind().is_ok() {
            // SAFETY: allocated by this, and not used any more: runs have returned, and the driver
            // waits for what it has started itself.
            let _ = unsafe { result::free_sync(self.address) };
        }
    }
}

/// An owned tensor in the memory of a GPU: row-major and contiguous.
pub struct DeviceTensor {
    memory: DeviceMemory,
    dtype: DType,
    shape: Vec<i64>,
}

impl DeviceTensor {
    /// A tensor of zeros.
    pub fn zeros(gpu: &Gpu, dtype: DType, shape: Vec<i64>) -> Result<Self, GpuError> {
        Ok(Self { memory: DeviceMemory::zeros(gpu, byte_len(dtype, &shape)?)?, dtype, shape })
    }

    /// A copy of a tensor of the host.
    pub fn new(gpu: &Gpu, tensor: TensorRef<'_>) -> Result<Self, GpuError> {
        let mut copy = Self::zeros(gpu, tensor.dtype(), tensor.shape().to_vec())?;
        copy.memory.write(tensor.bytes())?;
        Ok(copy)
    }

    /// A copy on the host, made when all that was started on the GPU's default stream, and all runs
    /// that have returned, are done.
    pub fn to_host(&self) -> Result<Tensor, GpuError> {
        let mut tensor = Tensor::zeros(self.dtype, self.shape.clone())?;
        self.memory.read(tensor.bytes_mut())?;
        Ok(tensor)
    }

    /// The GPU.
    pub fn gpu(&self) -> &Gpu {
        &self.memory.gpu
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Size of each dimension.
    pub fn shape(&self) -> &[i64] {
        &self.shape
    }

    /// Where the elements begin, for the artifact's DLPack tensors: valid as long as the tensor.
    pub(crate) fn address(&self) -> u64 {
        self.memory.address
    }
}

impl fmt::Debug for DeviceTensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?} on {:?}", self.dtype, self.shape, self.memory.gpu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_go_to_the_gpu_and_back() {
        let gpu = match Gpu::open(0) {
            Ok(gpu) => gpu,
            Err(why) => {
                println!("skipped: {why}");
                return;
            }
        };
        let tensor = Tensor::from_f32(vec![2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
        assert_eq!(DeviceTensor::new(&gpu, tensor.view()).unwrap().to_host().unwrap(), tensor);
        assert!(DeviceTensor::zeros(&gpu, DType::F32, vec![0]).unwrap().to_host().unwrap().bytes().is_empty());
        assert!(!gpu_targets().is_empty());
    }
}
