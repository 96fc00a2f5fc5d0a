//! The harness of the CUDA tests: compiles units with NVRTC, and runs them where there is a GPU for the target. Both are found at run
//! time; what lacks them is skipped, with the reason. Not part of the library.

use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use aotfarm_protocol::{Launch, OperandRole, Target};
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

use super::offsets;
use crate::candidate::Candidate;
use crate::measure::operands;
use crate::task::TuningTask;
use crate::title::title;

/// A function of a library's documented API, whose type the caller gives.
fn function<T: Copy>(library: &Library, name: &str) -> T {
    // SAFETY: the callers name functions with their types.
    *unsafe { library.get::<T>(name.as_bytes()) }.unwrap_or_else(|e| panic!("{name}: {e}"))
}

type Pointer = *mut c_void;

/// NVIDIA's run-time compiler.
pub struct Nvrtc {
    library: Library,
}

impl Nvrtc {
    /// The library, or `None` after saying why the test is skipped. It is looked for where workers do: AOTFARM_NVRTC, CUDA_HOME, the loader's
    /// path, the active Python environment.
    pub fn find() -> Option<&'static Self> {
        static FOUND: OnceLock<Option<Nvrtc>> = OnceLock::new();
        let found = FOUND.get_or_init(|| {
            let found = Self::places().iter().find_map(|path| Self::open(path));
            if found.is_none() {
                eprintln!("skipped: no NVRTC (set AOTFARM_NVRTC to libnvrtc.so, or pip install nvidia-cuda-nvrtc)");
            }
            found
        });
        found.as_ref()
    }

    fn places() -> Vec<PathBuf> {
        let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        if let Some(only) = var("AOTFARM_NVRTC") {
            return vec![only];
        }
        let mut found: Vec<PathBuf> = var("CUDA_HOME").map(|home| home.join("lib64/libnvrtc.so")).into_iter().collect();
        found.extend(["libnvrtc.so.13", "libnvrtc.so.12"].map(PathBuf::from));
        let entries = |dir: PathBuf| std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path());
        for python in var("VIRTUAL_ENV").into_iter().flat_map(|env| entries(env.join("lib"))) {
            for lib in entries(python.join("site-packages/nvidia")).map(|package| package.join("lib")) {
                found.extend(["libnvrtc.so.13", "libnvrtc.so.12"].map(|name| lib.join(name)));
            }
        }
        found
    }

    fn open(path: &Path) -> Option<Self> {
        // NVRTC opens its built-in functions by name: the loader finds them if they are loaded already.
        for entry in path.parent().filter(|dir| dir.is_absolute()).into_iter().flat_map(std::fs::read_dir).flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with("libnvrtc-builtins.so") {
                // SAFETY: a library of the toolkit, which holds data.
                std::mem::forget(unsafe { Library::open(Some(entry.path()), RTLD_NOW | RTLD_LOCAL) });
            }
        }
        // SAFETY: NVRTC's initialisers are trivial.
        unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) }.ok().map(|library| Self { library })
    }

    /// The cubin of a unit, or the compiler's log.
    pub fn compile(&self, text: &str, sm: u32) -> Result<Vec<u8>, String> {
        type Program = Pointer;
        type Size = unsafe extern "C" fn(Program, *mut usize) -> c_int;
        type Copy = unsafe extern "C" fn(Program, *mut c_char) -> c_int;
        type Create = unsafe extern "C" fn(
            *mut Program,
            *const c_char,
            *const c_char,
            c_int,
            *const *const c_char,
            *const *const c_char,
        ) -> c_int;
        let library = &self.library;
        let create = function::<Create>(library, "nvrtcCreateProgram");
        let compile =
            function::<unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int>(library, "nvrtcCompileProgram");
        let destroy = function::<unsafe extern "C" fn(*mut Program) -> c_int>(library, "nvrtcDestroyProgram");
        let log = (function::<Size>(library, "nvrtcGetProgramLogSize"), function::<Copy>(library, "nvrtcGetProgramLog"));
        let cubin = (function::<Size>(library, "nvrtcGetCUBINSize"), function::<Copy>(library, "nvrtcGetCUBIN"));

        let own_features = if sm >= 90 { "a" } else { "" };
        let options = [format!("--gpu-architecture=sm_{sm}{own_features}"), "-std=c++17".into(), "--disable-warnings".into()];
        let options = options.map(|o| CString::new(o).expect("no NUL"));
        let pointers = options.each_ref().map(|o| o.as_ptr());
        let text = CString::new(text).expect("a unit has no NUL");
        let mut program: Program = std::ptr::null_mut();
        // SAFETY: the API's contract; all buffers are of the sizes that it asks for and outlive the calls.
        unsafe {
            assert_eq!(create(&raw mut program, text.as_ptr(), c"unit.cu".as_ptr(), 0, std::ptr::null(), std::ptr::null()), 0);
            let read = |(size, copy): (Size, Copy)| {
                let mut len = 0;
                assert_eq!(size(program, &raw mut len), 0);
                let mut bytes = vec![0u8; len];
                assert_eq!(copy(program, bytes.as_mut_ptr().cast()), 0);
                bytes
            };
            let status = compile(program, pointers.len() as c_int, pointers.as_ptr());
            let result = if status == 0 { Ok(read(cubin)) } else { Err(String::from_utf8_lossy(&read(log)).into_owned()) };
            destroy(&raw mut program);
            result
        }
    }
}

/// Compiles the distinct units of candidates, some at once; cubins in the order of the candidates.
///
/// # Panics
/// When one does not compile.
pub fn cubins(nvrtc: &Nvrtc, sm: u32, candidates: &[&Candidate]) -> Vec<Vec<u8>> {
    use rayon::prelude::*;
    let compile = |c: &&Candidate| {
        let cubin = nvrtc.compile(&c.source.text, sm);
        cubin.unwrap_or_else(|log| panic!("{}:\n{log}\n{}", c.label(), c.source.text))
    };
    candidates.par_iter().map(compile).collect()
}

/// The GPU that tests run on.
pub struct Gpu {
    library: Library,
    context: Pointer,
    /// The compute capability.
    sm: u32,
    /// One test at a time.
    turn: Mutex<()>,
}

// SAFETY: a context may be current in any thread, and the driver's functions are thread-safe.
unsafe impl Send for Gpu {}
// SAFETY: as above.
unsafe impl Sync for Gpu {}

#[repr(C)]
struct LaunchConfig {
    grid: [c_uint; 3],
    block: [c_uint; 3],
    shared: c_uint,
    stream: Pointer,
    attributes: *const Attribute,
    count: c_uint,
}

/// `CUlaunchAttribute`: an id, padding, and a union of 64 bytes.
#[repr(C)]
struct Attribute {
    id: c_uint,
    padding: c_uint,
    value: [c_uint; 16],
}

impl Gpu {
    const CLUSTER: c_uint = 4;
    const OVERLAP: c_uint = 6;

    /// The first GPU if it runs code for a target, or `None` after saying why the test is skipped.
    pub fn find(target: Target) -> Option<&'static Self> {
        static FOUND: OnceLock<Option<Gpu>> = OnceLock::new();
        let found = FOUND.get_or_init(|| {
            let found = Self::open();
            match &found {
                None => eprintln!("skipped: no GPU"),
                Some(gpu) if target != (Target::Cuda { sm: gpu.sm }) => {
                    eprintln!("skipped: the GPU runs sm_{}, not {target}", gpu.sm);
                }
                Some(_) => {}
            }
            found
        });
        found.as_ref().filter(|gpu| target == Target::Cuda { sm: gpu.sm })
    }

    fn open() -> Option<Self> {
        // SAFETY: the driver's library, opened as its API says; a machine without it or without a GPU gives an error, not a crash.
        unsafe {
            let library = Library::open(Some("libcuda.so.1"), RTLD_NOW | RTLD_LOCAL).ok()?;
            if function::<unsafe extern "C" fn(c_uint) -> c_int>(&library, "cuInit")(0) != 0 {
                return None;
            }
            let mut context: Pointer = std::ptr::null_mut();
            let retain = function::<unsafe extern "C" fn(*mut Pointer, c_int) -> c_int>(&library, "cuDevicePrimaryCtxRetain");
            if retain(&raw mut context, 0) != 0 {
                return None;
            }
            let attribute = |id| {
                let mut value = 0;
                let get = function::<unsafe extern "C" fn(*mut c_int, c_int, c_int) -> c_int>(&library, "cuDeviceGetAttribute");
                assert_eq!(get(&raw mut value, id, 0), 0);
                value as u32
            };
            let sm = attribute(75) * 10 + attribute(76);
            Some(Self { library, context, sm, turn: Mutex::new(()) })
        }
    }

    fn check(status: c_int, what: &str) {
        assert_eq!(status, 0, "{what} failed with CUDA error {status}");
    }

    /// Runs a candidate on raw operands and returns its outputs.
    ///
    /// # Panics
    /// When it writes outside an output, or changes an input.
    pub fn run(&self, cubin: &[u8], task: &TuningTask, candidate: &Candidate, raw: &[Vec<u8>]) -> Vec<Vec<u8>> {
        const FENCE: usize = 256;
        type Device = u64;
        let _turn = self.turn.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let library = &self.library;
        let name = candidate.label();
        let launch = candidate.launch.as_ref().expect("a CUDA kernel has a launch");
        let set_current = function::<unsafe extern "C" fn(Pointer) -> c_int>(library, "cuCtxSetCurrent");
        let allocate = function::<unsafe extern "C" fn(*mut Device, usize) -> c_int>(library, "cuMemAlloc_v2");
        let free = function::<unsafe extern "C" fn(Device) -> c_int>(library, "cuMemFree_v2");
        let upload = function::<unsafe extern "C" fn(Device, *const c_void, usize) -> c_int>(library, "cuMemcpyHtoD_v2");
        let download = function::<unsafe extern "C" fn(*mut c_void, Device, usize) -> c_int>(library, "cuMemcpyDtoH_v2");
        let synchronize = function::<unsafe extern "C" fn() -> c_int>(library, "cuCtxSynchronize");
        let load = function::<unsafe extern "C" fn(*mut Pointer, *const c_void) -> c_int>(library, "cuModuleLoadData");
        let unload = function::<unsafe extern "C" fn(Pointer) -> c_int>(library, "cuModuleUnload");
        let get = function::<unsafe extern "C" fn(*mut Pointer, Pointer, *const c_char) -> c_int>(library, "cuModuleGetFunction");

        // All operands between fences; outputs are zero where nothing may be written, NaN where everything must be.
        let operands = operands(task);
        let needs = candidate.needs_at(task, &task.point);
        let mut images: Vec<Vec<u8>> = operands
            .iter()
            .zip(raw)
            .map(|(operand, bytes)| {
                let mut image = vec![0xff; FENCE + bytes.len().next_multiple_of(FENCE) + FENCE];
                let inside = &mut image[FENCE..FENCE + bytes.len()];
                inside.copy_from_slice(bytes);
                if operand.role == OperandRole::Output {
                    let size = operand.dtype.size();
                    for at in operand.lattices.iter().flat_map(offsets) {
                        inside[at * size..(at + 1) * size].fill(0xff);
                    }
                }
                image
            })
            .collect();
        images.push(vec![0xff; FENCE + (needs.shared as usize).next_multiple_of(FENCE) + FENCE]);
        // SAFETY: the driver API's contract; the kernel's own reads and writes are what the test is about.
        unsafe {
            Self::check(set_current(self.context), "cuCtxSetCurrent");
            let mut buffers: Vec<Device> = Vec::new();
            for image in &images {
                let mut buffer = 0;
                Self::check(allocate(&raw mut buffer, image.len()), "cuMemAlloc");
                Self::check(upload(buffer, image.as_ptr().cast(), image.len()), "cuMemcpyHtoD");
                buffers.push(buffer);
            }
            let mut words: Vec<u64> = buffers.iter().map(|b| b + FENCE as u64).collect();
            words.extend(task.point.iter().map(|n| *n as u64));
            let mut module: Pointer = std::ptr::null_mut();
            Self::check(load(&raw mut module, cubin.as_ptr().cast()), "cuModuleLoadData");
            let mut kernel: Pointer = std::ptr::null_mut();
            let symbol = CString::new(candidate.source.symbol.clone()).expect("no NUL");
            Self::check(get(&raw mut kernel, module, symbol.as_ptr()), "cuModuleGetFunction");
            self.launch(kernel, launch, &task.point, &words);
            let status = synchronize();
            assert_eq!(status, 0, "{name} for {} fails with CUDA error {status}", title(task));
            let mut outputs = Vec::new();
            for (k, (image, buffer)) in images.iter().zip(&buffers).enumerate() {
                let mut after = vec![0u8; image.len()];
                Self::check(download(after.as_mut_ptr().cast(), *buffer, after.len()), "cuMemcpyDtoH");
                Self::check(free(*buffer), "cuMemFree");
                let Some(operand) = operands.get(k) else { continue };
                let end = FENCE + raw[k].len();
                assert!(after[..FENCE] == image[..FENCE] && after[end..] == image[end..], "{name} writes outside operand {k}");
                if operand.role == OperandRole::Output {
                    outputs.push(after[FENCE..end].to_vec());
                } else {
                    assert!(after == *image, "{name} changes operand {k}");
                }
            }
            Self::check(unload(module), "cuModuleUnload");
            outputs
        }
    }

    /// Launches as artifacts do: with overlap of kernels, and in clusters.
    ///
    /// # Safety
    /// `words` are what the kernel expects.
    unsafe fn launch(&self, kernel: Pointer, launch: &Launch, dims: &[i64], words: &[u64]) {
        type Set = unsafe extern "C" fn(Pointer, c_int, c_int) -> c_int;
        type Run = unsafe extern "C" fn(*const LaunchConfig, Pointer, *const *const c_void, *const *const c_void) -> c_int;
        let set = function::<Set>(&self.library, "cuFuncSetAttribute");
        let run = function::<Run>(&self.library, "cuLaunchKernelEx");
        let mut attributes = vec![Attribute { id: Self::OVERLAP, padding: 0, value: [0; 16] }];
        attributes[0].value[0] = 1;
        if launch.cluster != [1; 3] {
            let mut value = [0; 16];
            value[..3].copy_from_slice(&launch.cluster);
            attributes.push(Attribute { id: Self::CLUSTER, padding: 0, value });
        }
        let config = LaunchConfig {
            grid: launch.grid_at(dims).map(|n| c_uint::try_from(n).expect("a grid of 32 bits")),
            block: [launch.threads, 1, 1],
            shared: launch.shared_bytes,
            stream: std::ptr::null_mut(),
            attributes: attributes.as_ptr(),
            count: attributes.len() as c_uint,
        };
        let parameters = [words.as_ptr().cast::<c_void>()];
        // SAFETY: the configuration and its attributes outlive the call; attribute 8 is the limit of dynamic shared memory, 14 allows
        // clusters of more than 8 blocks.
        unsafe {
            Self::check(set(kernel, 8, launch.shared_bytes as c_int), "the limit of shared memory");
            if launch.cluster.iter().product::<u32>() > 8 {
                Self::check(set(kernel, 14, 1), "large clusters");
            }
            Self::check(run(&raw const config, kernel, parameters.as_ptr(), std::ptr::null()), "cuLaunchKernelEx");
        }
    }
}
