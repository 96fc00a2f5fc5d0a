//! The part of NVIDIA's driver that children use, with errors that say what was being done.

use std::ffi::{CStr, CString, c_void};
use std::fmt;
use std::marker::PhantomData;

use cudarc::driver::sys::{
    self, CUdevice, CUdevice_attribute, CUdeviceptr, CUevent, CUfunction, CUfunction_attribute, CUgraphExec, CUlaunchAttribute,
    CUlaunchAttributeID, CUlaunchAttributeValue, CUlaunchConfig, CUmodule, CUresult, CUstream,
};

use super::launch::Shape;

/// Dynamic shared memory that a kernel gets without asking, in bytes.
const SHARED_FOR_ALL: u32 = 48 << 10;
/// Blocks of a cluster that every device of compute capability 9.0 allows.
const PORTABLE_CLUSTER: u32 = 8;
/// The driver that can put programmatic dependencies into a graph: CUDA 12.3.
const PROGRAMMATIC_GRAPHS: i32 = 12_030;

/// What the driver refused.
#[derive(Debug)]
pub(super) struct Error {
    doing: &'static str,
    code: CUresult,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut name, mut text) = (std::ptr::null(), std::ptr::null());
        // SAFETY: the driver is there, for it has answered; the texts are static, and the pointers stay null for codes unknown to it.
        let (name, text) = unsafe {
            let _ = (sys::cuGetErrorName(self.code, &raw mut name), sys::cuGetErrorString(self.code, &raw mut text));
            let of = |p: *const std::ffi::c_char| {
                if p.is_null() { "unknown error".into() } else { CStr::from_ptr(p).to_string_lossy() }
            };
            (of(name), of(text))
        };
        write!(f, "could not {}: {text} ({name})", self.doing)
    }
}

impl Error {
    /// What a vendor's library did not do.
    pub(super) const fn unsupported(doing: &'static str) -> Self {
        Self { doing, code: CUresult::CUDA_ERROR_NOT_SUPPORTED }
    }

    /// Whether nothing can be done any more in this process.
    pub(super) fn is_fatal(&self) -> bool {
        use CUresult as R;
        matches!(
            self.code,
            R::CUDA_ERROR_ILLEGAL_ADDRESS
                | R::CUDA_ERROR_LAUNCH_TIMEOUT
                | R::CUDA_ERROR_ASSERT
                | R::CUDA_ERROR_HARDWARE_STACK_ERROR
                | R::CUDA_ERROR_ILLEGAL_INSTRUCTION
                | R::CUDA_ERROR_MISALIGNED_ADDRESS
                | R::CUDA_ERROR_INVALID_ADDRESS_SPACE
                | R::CUDA_ERROR_INVALID_PC
                | R::CUDA_ERROR_LAUNCH_FAILED
                | R::CUDA_ERROR_CONTEXT_IS_DESTROYED
                | R::CUDA_ERROR_ECC_UNCORRECTABLE
                | R::CUDA_ERROR_UNKNOWN
        )
    }
}

type Done<T = ()> = Result<T, Error>;

fn check(doing: &'static str, code: CUresult) -> Done {
    if code == CUresult::CUDA_SUCCESS { Ok(()) } else { Err(Error { doing, code }) }
}

/// The driver, started.
#[derive(Clone, Copy)]
pub(super) struct CudaDriver(());

impl CudaDriver {
    /// Loads and starts it. The error says why there is none, in words.
    pub(super) fn start() -> Result<Self, String> {
        // SAFETY: loading the system's driver library, in a process made for that.
        if !unsafe { sys::is_culib_present() } {
            return Err("no NVIDIA driver: libcuda.so.1 is not on the loader's path".to_owned());
        }
        // SAFETY: the first call of the API.
        check("start the NVIDIA driver", unsafe { sys::cuInit(0) }).map_err(|e| e.to_string())?;
        Ok(Self(()))
    }

    /// The CUDA version that it supports: 13000 for 13.0.
    pub(super) fn version(self) -> Done<i32> {
        let mut version = 0;
        // SAFETY: an out-parameter on the stack.
        check("read the driver's version", unsafe { sys::cuDriverGetVersion(&raw mut version) }).map(|()| version)
    }

    /// How many devices this process may use.
    pub(super) fn devices(self) -> Done<i32> {
        let mut count = 0;
        // SAFETY: an out-parameter on the stack.
        check("count the GPUs", unsafe { sys::cuDeviceGetCount(&raw mut count) }).map(|()| count)
    }

    /// Device number `ordinal`.
    pub(super) fn device(self, ordinal: i32) -> Done<CudaDevice> {
        let mut device = 0;
        // SAFETY: an out-parameter on the stack.
        check("find the GPU", unsafe { sys::cuDeviceGet(&raw mut device, ordinal) }).map(|()| CudaDevice(device))
    }
}

/// A device that nothing runs on yet.
#[derive(Clone, Copy)]
pub(super) struct CudaDevice(CUdevice);

impl CudaDevice {
    pub(super) fn attribute(self, attribute: CUdevice_attribute) -> Done<u32> {
        let mut value = 0;
        // SAFETY: an out-parameter on the stack.
        let read = unsafe { sys::cuDeviceGetAttribute(&raw mut value, attribute, self.0) };
        check("read an attribute of the GPU", read).map(|()| u32::try_from(value).unwrap_or(0))
    }

    /// Compute capability: 90 for 9.0.
    pub(super) fn sm(self) -> Done<u32> {
        let major = self.attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        Ok(10 * major + self.attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?)
    }

    pub(super) fn name(self) -> Done<String> {
        let mut name = [0u8; 256];
        // SAFETY: room for as many bytes as are told, the last one a zero.
        check("read the GPU's name", unsafe { sys::cuDeviceGetName(name.as_mut_ptr().cast(), 255, self.0) })?;
        Ok(CStr::from_bytes_until_nul(&name).unwrap_or_default().to_string_lossy().into_owned())
    }

    /// Bytes of memory.
    pub(super) fn memory(self) -> Done<u64> {
        let mut bytes = 0;
        // SAFETY: an out-parameter on the stack.
        check("read the GPU's memory", unsafe { sys::cuDeviceTotalMem_v2(&raw mut bytes, self.0) }).map(|()| bytes as u64)
    }

    /// `GPU-8a56a4bc-…`, as `CUDA_VISIBLE_DEVICES` and NVML take it.
    pub(super) fn uuid(self) -> Done<String> {
        let mut uuid = sys::CUuuid { bytes: [0; 16] };
        // SAFETY: an out-parameter on the stack.
        check("read the GPU's identity", unsafe { sys::cuDeviceGetUuid_v2(&raw mut uuid, self.0) })?;
        let hex: String = uuid.bytes.iter().map(|b| format!("{b:02x}")).collect();
        Ok(format!("GPU-{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]))
    }
}

/// A device in use: a context, current to this thread for good, and a stream.
pub(super) struct Gpu {
    stream: CUstream,
    before: CUevent,
    after: CUevent,
    /// Whether kernels follow each other by programmatic dependent launch, as in artifacts.
    programmatic: bool,
    /// The context belongs to this thread.
    _thread: PhantomData<*const ()>,
}

impl Gpu {
    pub(super) fn open(driver: CudaDriver, device: CudaDevice) -> Done<Self> {
        let (mut context, mut stream) = (std::ptr::null_mut(), std::ptr::null_mut());
        let (mut before, mut after) = (std::ptr::null_mut(), std::ptr::null_mut());
        let (stream_flags, event_flags) =
            (sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32, sys::CUevent_flags::CU_EVENT_DEFAULT as u32);
        // SAFETY: out-parameters on the stack; the context is current when stream and events are made.
        unsafe {
            check("make a context on the GPU", sys::cuDevicePrimaryCtxRetain(&raw mut context, device.0))?;
            check("use the GPU's context", sys::cuCtxSetCurrent(context))?;
            check("make a stream", sys::cuStreamCreate(&raw mut stream, stream_flags))?;
            check("make an event", sys::cuEventCreate(&raw mut before, event_flags))?;
            check("make an event", sys::cuEventCreate(&raw mut after, event_flags))?;
        }
        let sm = device.sm()?;
        let programmatic = sm >= 90 && driver.version()? >= PROGRAMMATIC_GRAPHS;
        Ok(Self { stream, before, after, programmatic, _thread: PhantomData })
    }

    /// Bytes that are free.
    pub(super) fn free(&self) -> Done<u64> {
        let (mut free, mut total) = (0, 0);
        // SAFETY: out-parameters on the stack.
        check("read how much memory is free", unsafe { sys::cuMemGetInfo_v2(&raw mut free, &raw mut total) })?;
        Ok(free as u64)
    }

    /// Memory of so many bytes.
    pub(super) fn allocate(&self, bytes: u64) -> Done<Memory> {
        let mut at = 0;
        // SAFETY: an out-parameter on the stack.
        check("allocate memory on the GPU", unsafe { sys::cuMemAlloc_v2(&raw mut at, bytes.max(1) as usize) })?;
        Ok(Memory { at, bytes })
    }

    /// Sets bytes, in order with everything else on the stream; so do all methods below.
    pub(super) fn set(&self, region: Region<'_>, byte: u8) -> Done {
        // SAFETY: the region is memory of the device that is allocated, and freeing it waits for
        // the stream.
        let set = unsafe { sys::cuMemsetD8Async(region.at, byte, region.bytes as usize, self.stream) };
        check("set memory on the GPU", set)
    }

    /// Sets words of 32 bits; bytes at the end that make no word stay.
    pub(super) fn set_words(&self, region: Region<'_>, word: u32) -> Done {
        // SAFETY: as in `set`; the words lie within the region.
        let set = unsafe { sys::cuMemsetD32Async(region.at, word, (region.bytes / 4) as usize, self.stream) };
        check("set memory on the GPU", set)
    }

    /// Copies a region to another one of the same length.
    pub(super) fn copy(&self, to: Region<'_>, from: Region<'_>) -> Done {
        assert_eq!(to.bytes, from.bytes, "a copy is as long as what is copied");
        // SAFETY: as in `set`, for both regions, which have this length.
        let copied = unsafe { sys::cuMemcpyDtoDAsync_v2(to.at, from.at, to.bytes as usize, self.stream) };
        check("copy on the GPU", copied)
    }

    /// The stream, for a vendor's library.
    pub(super) const fn raw_stream(&self) -> CUstream {
        self.stream
    }

    /// Writes bytes that fill the region, and waits until they are there.
    pub(super) fn write(&self, to: Region<'_>, bytes: &[u8]) -> Done {
        assert_eq!(to.bytes, bytes.len() as u64, "what is written fills the region");
        // SAFETY: as in `set`; both have this length, and the slice lives until the stream has been
        // waited for.
        let copied = unsafe { sys::cuMemcpyHtoDAsync_v2(to.at, bytes.as_ptr().cast(), bytes.len(), self.stream) };
        let waited = self.wait();
        check("write to the GPU", copied).and(waited)
    }

    /// Reads a region back, after everything that was asked for before.
    pub(super) fn read(&self, from: Region<'_>) -> Done<Vec<u8>> {
        let mut bytes = vec![0u8; from.bytes as usize];
        // SAFETY: as in `set`; both have this length, and the vector lives until the stream has
        // been waited for.
        let copied = unsafe { sys::cuMemcpyDtoHAsync_v2(bytes.as_mut_ptr().cast(), from.at, bytes.len(), self.stream) };
        let waited = self.wait();
        check("read from the GPU", copied).and(waited).map(|()| bytes)
    }

    /// Waits for the stream. An error is that of a kernel, and the context is lost.
    pub(super) fn wait(&self) -> Done {
        // SAFETY: the stream is ours.
        check("run the kernel", unsafe { sys::cuStreamSynchronize(self.stream) })
    }

    /// Notes the time on the device before (`false`) or after (`true`) something.
    pub(super) fn mark(&self, after: bool) -> Done {
        // SAFETY: event and stream are ours.
        check("record an event", unsafe { sys::cuEventRecord(if after { self.after } else { self.before }, self.stream) })
    }

    /// Seconds between the two marks, when the stream has been waited for.
    pub(super) fn elapsed(&self) -> Done<f64> {
        let mut milliseconds = 0f32;
        // SAFETY: an out-parameter on the stack; both events have been recorded.
        let read = unsafe { sys::cuEventElapsedTime(&raw mut milliseconds, self.before, self.after) };
        check("read the time", read).map(|()| f64::from(milliseconds) * 1e-3)
    }

    /// Puts a kernel with its `parameters` (a pointer to each) on the stream.
    ///
    /// # Safety
    /// The pointers are to values of the types that the kernel's parameters have. The memory that
    /// these values name is allocated until the stream has been waited for.
    pub(super) unsafe fn launch(&self, function: &Function, shape: &Shape, parameters: &mut [*mut c_void]) -> Done {
        let mut attributes = Vec::with_capacity(2);
        let mut add = |id, set: &dyn Fn(&mut CUlaunchAttributeValue)| {
            let mut value = CUlaunchAttributeValue { pad: [0; 64] };
            set(&mut value);
            attributes.push(CUlaunchAttribute { id, pad: [0; 4], value });
        };
        if shape.cluster != [1; 3] {
            add(CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION, &|value| {
                let [x, y, z] = shape.cluster;
                value.clusterDim = sys::CUlaunchAttributeValue_union__bindgen_ty_1 { x, y, z };
            });
        }
        if shape.programmatic && self.programmatic {
            add(CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION, &|value| {
                value.programmaticStreamSerializationAllowed = 1;
            });
        }
        let config = CUlaunchConfig {
            gridDimX: shape.grid[0],
            gridDimY: shape.grid[1],
            gridDimZ: shape.grid[2],
            blockDimX: shape.threads,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: shape.shared_bytes,
            hStream: self.stream,
            attrs: attributes.as_mut_ptr(),
            numAttrs: attributes.len() as u32,
        };
        // SAFETY: promised by the caller; the driver copies the values before it returns.
        let launched =
            unsafe { sys::cuLaunchKernelEx(&raw const config, function.0, parameters.as_mut_ptr(), std::ptr::null_mut()) };
        check("launch the kernel", launched)
    }

    /// Records what `work` puts on the stream instead of doing it.
    pub(super) fn capture(&self, work: impl FnOnce() -> Done) -> Done<Graph> {
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: the stream is ours and is not being captured.
        check("begin a graph", unsafe { sys::cuStreamBeginCapture_v2(self.stream, mode) })?;
        let worked = work();
        let (mut graph, mut exec) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: ends what was begun above; out-parameters on the stack.
        let ended = check("end a graph", unsafe { sys::cuStreamEndCapture(self.stream, &raw mut graph) });
        worked.and(ended)?;
        // SAFETY: the graph was just made; the executable does not need it any more.
        let made = unsafe {
            let made = sys::cuGraphInstantiateWithFlags(&raw mut exec, graph, 0);
            let _ = sys::cuGraphDestroy(graph);
            made
        };
        check("make a graph executable", made)?;
        Ok(Graph(exec))
    }

    /// Puts what a graph recorded on the stream.
    ///
    /// # Safety
    /// The memory that was named to what it recorded, and its code, are there until the stream has
    /// been waited for.
    pub(super) unsafe fn replay(&self, graph: &Graph) -> Done {
        // SAFETY: promised by the caller; the graph is executable and not being destroyed.
        check("run a graph", unsafe { sys::cuGraphLaunch(graph.0, self.stream) })
    }
}

/// Memory on the device.
pub(super) struct Memory {
    at: CUdeviceptr,
    bytes: u64,
}

impl Memory {
    /// Its length.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// All of it.
    pub(super) const fn region(&self) -> Region<'_> {
        Region { at: self.at, bytes: self.bytes, memory: PhantomData }
    }
}

/// Part of some [`Memory`], which lives at least as long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Region<'m> {
    at: CUdeviceptr,
    bytes: u64,
    memory: PhantomData<&'m Memory>,
}

impl Region<'_> {
    /// Its length.
    pub(super) const fn bytes(self) -> u64 {
        self.bytes
    }

    /// `bytes` of it from `offset` on; `None` if it does not hold so many.
    pub(super) fn part(self, offset: u64, bytes: u64) -> Option<Self> {
        let end = offset.checked_add(bytes)?;
        (end <= self.bytes).then(|| Self { at: self.at + offset, bytes, ..self })
    }

    /// Where it begins, as kernels take it.
    pub(super) const fn address(self) -> CUdeviceptr {
        self.at
    }

    /// Where it begins, as libraries of the host take it, which pass it on to kernels.
    pub(super) const fn as_ptr(self) -> *const c_void {
        std::ptr::without_provenance(self.at as usize)
    }

    /// [`Region::as_ptr`] of what is written.
    pub(super) const fn as_mut_ptr(self) -> *mut c_void {
        std::ptr::without_provenance_mut(self.at as usize)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated by `Gpu::allocate`, and no region of it is left. A lost context cannot
        // free it any more, which matters to nobody.
        let _ = unsafe { sys::cuMemFree_v2(self.at) };
    }
}

/// Code on the device.
pub(super) struct Module(CUmodule);

impl Module {
    /// Loads a cubin.
    pub(super) fn load(_: &Gpu, cubin: &[u8]) -> Done<Self> {
        let mut module = std::ptr::null_mut();
        // SAFETY: a cubin says how long it is; the driver checks what it is given, and this process exists to find out how well.
        check("load the code", unsafe { sys::cuModuleLoadData(&raw mut module, cubin.as_ptr().cast()) })?;
        Ok(Self(module))
    }

    /// Finds a kernel.
    pub(super) fn function(&self, name: &str) -> Done<Function> {
        let mut function = std::ptr::null_mut();
        let name = CString::new(name).unwrap_or_default();
        // SAFETY: an out-parameter on the stack.
        check("find the kernel", unsafe { sys::cuModuleGetFunction(&raw mut function, self.0, name.as_ptr()) })?;
        Ok(Function(function))
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        // SAFETY: nothing of it runs: every run is waited for.
        let _ = unsafe { sys::cuModuleUnload(self.0) };
    }
}

/// A kernel, valid as long as its module.
#[derive(Clone, Copy)]
pub(super) struct Function(CUfunction);

impl Function {
    /// Lets the kernel have what its shape asks for.
    pub(super) fn allow(self, shape: &Shape) -> Done {
        let set = |attribute, value: u32| {
            // SAFETY: a plain call on a function that lives.
            check("allow the kernel its shared memory or cluster", unsafe {
                sys::cuFuncSetAttribute(self.0, attribute, value as i32)
            })
        };
        if shape.shared_bytes > SHARED_FOR_ALL {
            set(CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, shape.shared_bytes)?;
        }
        if shape.cluster.iter().product::<u32>() > PORTABLE_CLUSTER {
            set(CUfunction_attribute::CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED, 1)?;
        }
        Ok(())
    }
}

/// A graph that can be launched.
pub(super) struct Graph(CUgraphExec);

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: it is ours and does not run: every run is waited for.
        let _ = unsafe { sys::cuGraphExecDestroy(self.0) };
    }
}
