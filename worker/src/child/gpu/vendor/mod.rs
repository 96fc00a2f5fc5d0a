//! NVIDIA's libraries, where the host has them: what they take stands in the AUTOTUNE tables for comparison. They are opened at run time.
//!
//! A library has several algorithms for a call, and its own belief which is the fastest is often wrong. Those it believes in are tried, in graphs,
//! because making a call takes the host longer than a small one takes the GPU; the fastest stands for the library.

mod cublaslt;
mod cudnn;

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::PathBuf;
use std::ptr::{null, null_mut};

use aotfarm_protocol::{DType, VendorCall, VendorLibrary};
use cudarc::driver::sys::CUdeviceptr;

use self::cublaslt::CublasLt;
use self::cudnn::Cudnn;
use super::driver::{self, Gpu, Memory};

type Handle = *mut c_void;
type Descriptor = *mut c_void;
type Status = c_int;

/// Runs by which an algorithm is timed.
const ATTEMPTS: u32 = 10;

/// Declares the functions of a library that are used, and `open`, which finds them. `text` puts a status into words.
macro_rules! api {
    ($library:ident: text = $text:literal; $($field:ident = $name:literal: fn($($arg:ty),* $(,)?);)*) => {
        struct Api {
            $($field: unsafe extern "C" fn($($arg),*) -> Status,)*
            text: unsafe extern "C" fn(Status) -> *const c_char,
            _library: libloading::Library,
        }

        impl Api {
            fn open(path: &std::path::Path) -> Result<Self, String> {
                // SAFETY: NVIDIA's library, in a process made for code that nobody vouches for.
                let library = unsafe { libloading::Library::new(path) };
                let library = library.map_err(|e| format!("could not open {}: {e}", path.display()))?;
                let name = aotfarm_protocol::VendorLibrary::$library.name();
                // SAFETY: the types are those of the API's documentation.
                unsafe {
                    let missing = |e: libloading::Error| format!("{} is not the {name} that is known here: {e}", path.display());
                    Ok(Self {
                        $($field: *library.get(concat!($name, "\0").as_bytes()).map_err(missing)?,)*
                        text: *library.get(concat!($text, "\0").as_bytes()).map_err(missing)?,
                        _library: library,
                    })
                }
            }

            fn check(&self, doing: &str, status: Status) -> Result<(), String> {
                super::check(doing, status, self.text)
            }

            fn descriptor(&self, make: unsafe extern "C" fn(*mut Descriptor) -> Status) -> Result<Descriptor, String> {
                let mut descriptor = std::ptr::null_mut();
                // SAFETY: an out-parameter on the stack.
                self.check("make a descriptor", unsafe { make(&raw mut descriptor) }).map(|()| descriptor)
            }
        }
    };
}
use api;

fn check(doing: &str, status: Status, text: unsafe extern "C" fn(Status) -> *const c_char) -> Result<(), String> {
    if status == 0 {
        return Ok(());
    }
    // SAFETY: the text is static.
    let text = unsafe { CStr::from_ptr(text(status)) };
    Err(format!("could not {doing}: {}", text.to_string_lossy()))
}

/// The libraries that this process has opened; they and their descriptors live as long as it does.
#[derive(Default)]
pub(super) struct Libraries {
    cudnn: OnceCell<Result<Cudnn, String>>,
    cublaslt: OnceCell<Result<CublasLt, String>>,
}

impl Libraries {
    /// Opens the library of a call, if no job did before. It takes a good part of a second.
    pub(super) fn open(&self, gpu: &Gpu, paths: &BTreeMap<VendorLibrary, PathBuf>, call: &VendorCall) {
        let library = call.library();
        let path = || paths.get(&library).ok_or_else(|| format!("this host has no {}", library.name()));
        match library {
            VendorLibrary::Cudnn => drop(self.cudnn.get_or_init(|| Cudnn::open(path()?, gpu)).as_ref()),
            VendorLibrary::CublasLt => drop(self.cublaslt.get_or_init(|| CublasLt::open(path()?)).as_ref()),
        }
    }

    /// Describes a call at sizes `dims` and finds the fastest algorithm. `bias` holds the bias in f32.
    pub(super) fn plan<'h>(
        &'h self,
        gpu: &'h Gpu,
        call: &VendorCall,
        dims: &[i64],
        at: Operands,
        bias: Option<CUdeviceptr>,
    ) -> Result<Plan<'h>, String> {
        fn opened<T>(library: &OnceCell<Result<T, String>>) -> Result<&T, String> {
            library.get().ok_or("it was not opened for this job")?.as_ref().map_err(Clone::clone)
        }
        match call {
            VendorCall::Conv(conv) => opened(&self.cudnn)?.plan(gpu, conv, dims, at, bias).map(Plan::Conv),
            VendorCall::MatMul(product) => opened(&self.cublaslt)?.plan(gpu, product, dims, at, bias).map(Plan::MatMul),
        }
    }
}

/// Device addresses of one call.
#[derive(Clone, Copy)]
pub(super) struct Operands {
    pub(super) left: CUdeviceptr,
    pub(super) right: CUdeviceptr,
    pub(super) residual: Option<CUdeviceptr>,
    pub(super) result: CUdeviceptr,
}

/// A call with the fastest algorithm of those that were tried.
pub(super) enum Plan<'h> {
    Conv(cudnn::Plan<'h>),
    MatMul(cublaslt::Plan<'h>),
}

impl Plan<'_> {
    /// Seconds of a run, one of several in a graph on warm operands.
    pub(super) const fn seconds(&self) -> f64 {
        match self {
            Self::Conv(plan) => plan.seconds(),
            Self::MatMul(plan) => plan.seconds(),
        }
    }

    /// Which algorithm that is, as artifacts name it.
    pub(super) fn algorithm(&self) -> i64 {
        match self {
            Self::Conv(plan) => plan.algorithm(),
            Self::MatMul(plan) => plan.algorithm(),
        }
    }

    /// Puts the call on the stream.
    pub(super) fn run(&self, at: Operands) -> Result<(), String> {
        match self {
            Self::Conv(plan) => plan.run(at),
            Self::MatMul(plan) => plan.run(at),
        }
    }
}

/// An algorithm with its workspace, and how long it takes.
struct Way<A> {
    algorithm: A,
    workspace: Memory,
    seconds: f64,
}

/// The fastest of some algorithms, given with the bytes of workspace that each asks for; `None` if `run` works with none of them.
fn fastest<A>(
    gpu: &Gpu,
    algorithms: impl IntoIterator<Item = (A, u64)>,
    run: impl Fn(&A, &Memory) -> Result<(), String>,
) -> Option<Way<A>> {
    let attempt = |(algorithm, bytes): (A, u64)| {
        let workspace = gpu.allocate(bytes).map_err(told).ok()?;
        let seconds = time(gpu, || run(&algorithm, &workspace)).ok()?;
        Some(Way { algorithm, workspace, seconds })
    };
    algorithms.into_iter().filter_map(attempt).min_by(|a, b| a.seconds.total_cmp(&b.seconds))
}

/// Seconds of a run in a graph.
fn time(gpu: &Gpu, run: impl Fn() -> Result<(), String>) -> Result<f64, String> {
    run()?;
    let mut failed = None;
    let runs = || {
        failed = (0..ATTEMPTS).find_map(|_| run().err());
        Ok(())
    };
    let graph = gpu.capture(runs).map_err(told)?;
    if let Some(reason) = failed {
        return Err(reason);
    }
    gpu.replay(&graph).map_err(told)?;
    gpu.mark(false).map_err(told)?;
    gpu.replay(&graph).map_err(told)?;
    gpu.mark(true).map_err(told)?;
    gpu.wait().map_err(told)?;
    Ok(gpu.elapsed().map_err(told)? / f64::from(ATTEMPTS))
}

#[expect(clippy::needless_pass_by_value, reason = "it maps errors")]
fn told(error: driver::Error) -> String {
    error.to_string()
}

const fn pointer(at: CUdeviceptr) -> *const c_void {
    if at == 0 { null() } else { at as *const c_void }
}

const fn pointer_mut(at: CUdeviceptr) -> *mut c_void {
    if at == 0 { null_mut() } else { at as *mut c_void }
}

/// `count` values of f32 on the device in another type.
fn convert(gpu: &Gpu, from: CUdeviceptr, count: i64, dtype: DType) -> Result<Memory, String> {
    let count = usize::try_from(count).map_err(|_| "a bias of a negative size".to_owned())?;
    let mut words = vec![0u64; count.div_ceil(2)];
    gpu.read(from, &mut words).map_err(told)?;
    let values = words.iter().flat_map(|w| [*w as u32, (*w >> 32) as u32]).take(count).map(f32::from_bits);
    let bytes: Vec<u8> = match dtype {
        DType::F16 => values.flat_map(|x| half::f16::from_f32(x).to_le_bytes()).collect(),
        DType::Bf16 => values.flat_map(|x| half::bf16::from_f32(x).to_le_bytes()).collect(),
        _ => values.flat_map(f32::to_le_bytes).collect(),
    };
    let memory = gpu.allocate(bytes.len() as u64).map_err(told)?;
    gpu.write(memory.at, &bytes).map_err(told)?;
    Ok(memory)
}
