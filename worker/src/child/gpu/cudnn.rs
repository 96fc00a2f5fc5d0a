//! cuDNN, where the host has it: what a convolution takes there stands in the AUTOTUNE tables for comparison.
//! The legacy API (<https://docs.nvidia.com/deeplearning/cudnn/backend/latest/api/cudnn-cnn-library.html>), opened at run time.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::Path;
use std::ptr::{null, null_mut};

use aotfarm_protocol::{DType, VendorConv};
use cudarc::driver::sys::CUdeviceptr;
use libloading::Library;

use super::driver::{self, Gpu, Memory};

type Handle = *mut c_void;
type Descriptor = *mut c_void;
type Status = c_int;

const NHWC: c_int = 1;
const CROSS_CORRELATION: c_int = 1;
const FLOAT: c_int = 0;
const HALF: c_int = 2;
const BFLOAT16: c_int = 9;
const TENSOR_OP_MATH: c_int = 1;
const FMA_MATH: c_int = 3;
const RELU: c_int = 1;
const IDENTITY: c_int = 5;
/// The only algorithm that takes an identity for its activation.
const IMPLICIT_PRECOMP_GEMM: c_int = 1;
const ALGORITHMS: usize = 8;
/// Runs by which an algorithm is timed.
const ATTEMPTS: u32 = 10;
/// Memory that an algorithm may ask for.
const MAX_WORKSPACE: usize = 1 << 30;

/// `cudnnConvolutionFwdAlgoPerf_t`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Performance {
    algorithm: c_int,
    status: Status,
    time: f32,
    memory: usize,
    determinism: c_int,
    math: c_int,
    reserved: [c_int; 3],
}

macro_rules! api {
    ($($field:ident = $name:literal: fn($($arg:ty),*);)*) => {
        /// The functions that are used.
        struct Api { $($field: unsafe extern "C" fn($($arg),*) -> Status,)* text: unsafe extern "C" fn(Status) -> *const c_char, _library: Library }

        impl Api {
            fn open(path: &Path) -> Result<Self, String> {
                // SAFETY: NVIDIA's library, in a process made for code that nobody vouches for.
                let library = unsafe { Library::new(path) }.map_err(|e| format!("could not open {}: {e}", path.display()))?;
                // SAFETY: the types are those of the API's documentation.
                unsafe {
                    let missing = |e: libloading::Error| format!("{} is not the cuDNN that is known here: {e}", path.display());
                    Ok(Self {
                        $($field: *library.get(concat!($name, "\0").as_bytes()).map_err(missing)?,)*
                        text: *library.get(b"cudnnGetErrorString\0").map_err(missing)?,
                        _library: library,
                    })
                }
            }
        }
    };
}

api! {
    create = "cudnnCreate": fn(*mut Handle);
    set_stream = "cudnnSetStream": fn(Handle, *mut c_void);
    create_tensor = "cudnnCreateTensorDescriptor": fn(*mut Descriptor);
    set_tensor = "cudnnSetTensor4dDescriptor": fn(Descriptor, c_int, c_int, c_int, c_int, c_int, c_int);
    create_filter = "cudnnCreateFilterDescriptor": fn(*mut Descriptor);
    set_filter = "cudnnSetFilter4dDescriptor": fn(Descriptor, c_int, c_int, c_int, c_int, c_int, c_int);
    create_convolution = "cudnnCreateConvolutionDescriptor": fn(*mut Descriptor);
    set_convolution = "cudnnSetConvolution2dDescriptor": fn(Descriptor, c_int, c_int, c_int, c_int, c_int, c_int, c_int, c_int);
    set_math = "cudnnSetConvolutionMathType": fn(Descriptor, c_int);
    create_activation = "cudnnCreateActivationDescriptor": fn(*mut Descriptor);
    set_activation = "cudnnSetActivationDescriptor": fn(Descriptor, c_int, c_int, f64);
    choose = "cudnnGetConvolutionForwardAlgorithm_v7": fn(
        Handle, Descriptor, Descriptor, Descriptor, Descriptor, c_int, *mut c_int, *mut Performance
    );
    workspace = "cudnnGetConvolutionForwardWorkspaceSize": fn(Handle, Descriptor, Descriptor, Descriptor, Descriptor, c_int, *mut usize);
    forward = "cudnnConvolutionBiasActivationForward": fn(
        Handle, *const f32, Descriptor, *const c_void, Descriptor, *const c_void, Descriptor, c_int, *mut c_void, usize, *const f32,
        Descriptor, *const c_void, Descriptor, *const c_void, Descriptor, Descriptor, *mut c_void
    );
}

/// cuDNN, opened; its descriptors live as long as the process.
pub(super) struct Cudnn {
    api: Api,
    handle: Handle,
}

/// Device addresses of one call.
#[derive(Clone, Copy)]
pub(super) struct Operands {
    pub(super) x: CUdeviceptr,
    pub(super) filter: CUdeviceptr,
    pub(super) residual: Option<CUdeviceptr>,
    pub(super) y: CUdeviceptr,
}

/// A convolution with the fastest algorithm of those that were tried.
pub(super) struct Plan {
    x: Descriptor,
    filter: Descriptor,
    convolution: Descriptor,
    activation: Descriptor,
    bias: Descriptor,
    y: Descriptor,
    algorithm: c_int,
    /// Seconds of a run, one of several in a graph on warm operands.
    pub(super) seconds: f64,
    /// The bias in the type of the images.
    converted: Memory,
    workspace: Memory,
}

impl Cudnn {
    /// Opens the library for the GPU's stream.
    pub(super) fn open(path: &Path, gpu: &Gpu) -> Result<Self, String> {
        let api = Api::open(path)?;
        let mut handle = null_mut();
        // SAFETY: an out-parameter on the stack; the stream is the GPU's.
        unsafe {
            let made = (api.create)(&raw mut handle);
            let cudnn = Self { api, handle };
            cudnn.check("start cuDNN", made)?;
            cudnn.check("give cuDNN the stream", (cudnn.api.set_stream)(handle, gpu.raw_stream().cast()))?;
            Ok(cudnn)
        }
    }

    fn check(&self, doing: &str, status: Status) -> Result<(), String> {
        if status == 0 {
            return Ok(());
        }
        // SAFETY: the text is static.
        let text = unsafe { CStr::from_ptr((self.api.text)(status)) };
        Err(format!("could not {doing}: {}", text.to_string_lossy()))
    }

    fn descriptor(&self, make: unsafe extern "C" fn(*mut Descriptor) -> Status) -> Result<Descriptor, String> {
        let mut descriptor = null_mut();
        // SAFETY: an out-parameter on the stack.
        self.check("make a descriptor", unsafe { make(&raw mut descriptor) }).map(|()| descriptor)
    }

    /// Describes the convolution and finds a fast algorithm. `bias` holds the bias in f32 on the device.
    pub(super) fn plan(
        &self,
        gpu: &Gpu,
        conv: &VendorConv,
        dtype: DType,
        at: Operands,
        bias: CUdeviceptr,
    ) -> Result<Plan, String> {
        let small = |n: i64| c_int::try_from(n).map_err(|_| format!("a size of {n} is too large for cuDNN"));
        let kind = match dtype {
            DType::F32 => FLOAT,
            DType::F16 => HALF,
            DType::Bf16 => BFLOAT16,
            other => return Err(format!("cuDNN does not convolve {other}")),
        };
        let api = &self.api;
        let tensor = |[c, h, w]: [i64; 3], n: i64| -> Result<Descriptor, String> {
            let descriptor = self.descriptor(api.create_tensor)?;
            // SAFETY: a descriptor that was just made.
            let set = unsafe { (api.set_tensor)(descriptor, NHWC, kind, small(n)?, small(c)?, small(h)?, small(w)?) };
            self.check("describe a tensor", set).map(|()| descriptor)
        };
        let (x, y) = (tensor(conv.input, conv.batch)?, tensor(conv.output, conv.batch)?);
        let bias_descriptor = tensor([conv.output[0], 1, 1], 1)?;
        let (filter, convolution, activation) = (
            self.descriptor(api.create_filter)?,
            self.descriptor(api.create_convolution)?,
            self.descriptor(api.create_activation)?,
        );
        let [kh, kw] = conv.kernel;
        let numbers = [conv.pad, conv.stride, conv.dilation].concat().into_iter().map(small).collect::<Result<Vec<_>, _>>()?;
        let &[ph, pw, sh, sw, dh, dw] = numbers.as_slice() else { return Err("a convolution has two axes".to_owned()) };
        // SAFETY: descriptors that were just made.
        unsafe {
            let filters =
                (api.set_filter)(filter, kind, NHWC, small(conv.output[0])?, small(conv.input[0])?, small(kh)?, small(kw)?);
            self.check("describe the filters", filters)?;
            let set = (api.set_convolution)(convolution, ph, pw, sh, sw, dh, dw, CROSS_CORRELATION, FLOAT);
            self.check("describe the convolution", set)?;
            let math = if dtype == DType::F32 && !conv.tf32 { FMA_MATH } else { TENSOR_OP_MATH };
            self.check("choose how to multiply", (api.set_math)(convolution, math))?;
            let set = (api.set_activation)(activation, if conv.relu { RELU } else { IDENTITY }, 0, 0.0);
            self.check("describe the activation", set)?;
        }
        let told = |e: driver::Error| e.to_string();
        let converted = convert(gpu, bias, conv.output[0].unsigned_abs(), dtype)?;
        let mut plan = Plan {
            x,
            filter,
            convolution,
            activation,
            bias: bias_descriptor,
            y,
            algorithm: IMPLICIT_PRECOMP_GEMM,
            seconds: f64::INFINITY,
            converted,
            workspace: gpu.allocate(1).map_err(told)?,
        };
        let mut fastest = f64::INFINITY;
        let mut best = None;
        for algorithm in self.algorithms(&plan, conv.relu)? {
            plan.algorithm = algorithm;
            // One that does not work for these types is none.
            if let Ok(seconds) = self.attempt(gpu, &mut plan, at)
                && seconds < fastest
            {
                (fastest, best) = (seconds, Some(algorithm));
            }
        }
        plan.algorithm = best.ok_or("cuDNN has no algorithm for it")?;
        plan.seconds = self.attempt(gpu, &mut plan, at)?;
        Ok(plan)
    }

    /// What is worth trying: the one that takes any activation, and those that cuDNN believes fastest. (It is often wrong, and trying all takes
    /// longer than tuning the task.)
    fn algorithms(&self, plan: &Plan, relu: bool) -> Result<Vec<c_int>, String> {
        let mut algorithms = vec![IMPLICIT_PRECOMP_GEMM];
        if relu {
            let nothing =
                Performance { algorithm: 0, status: -1, time: 0.0, memory: 0, determinism: 0, math: 0, reserved: [0; 3] };
            let (mut found, mut tried) = (0, [nothing; ALGORITHMS]);
            let Plan { x, filter, convolution, y, .. } = *plan;
            // SAFETY: room for as many results as are asked for.
            let chosen = unsafe {
                let room = ALGORITHMS as c_int;
                (self.api.choose)(self.handle, x, filter, convolution, y, room, &raw mut found, tried.as_mut_ptr())
            };
            self.check("choose cuDNN's algorithm", chosen)?;
            let fits = |p: &&Performance| p.status == 0 && p.memory <= MAX_WORKSPACE;
            algorithms.extend(tried[..(found.max(0) as usize).min(ALGORITHMS)].iter().filter(fits).map(|p| p.algorithm).take(2));
        }
        Ok(algorithms)
    }

    /// Gives a plan the workspace of its algorithm and runs it; returns seconds of a run in a graph, since making a call takes the host
    /// longer than a small one takes the GPU.
    fn attempt(&self, gpu: &Gpu, plan: &mut Plan, at: Operands) -> Result<f64, String> {
        let told = |e: driver::Error| e.to_string();
        let mut bytes = 0;
        // SAFETY: descriptors that belong together; an out-parameter on the stack.
        let asked = unsafe {
            (self.api.workspace)(self.handle, plan.x, plan.filter, plan.convolution, plan.y, plan.algorithm, &raw mut bytes)
        };
        self.check("ask for cuDNN's workspace", asked)?;
        plan.workspace = gpu.allocate(bytes as u64).map_err(told)?;
        self.run(plan, at)?;
        let mut failed = None;
        let runs = || {
            failed = (0..ATTEMPTS).find_map(|_| self.run(plan, at).err());
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

    /// Puts the convolution on the stream.
    pub(super) fn run(&self, plan: &Plan, at: Operands) -> Result<(), String> {
        let (one, z_scale) = (1f32, if at.residual.is_some() { 1f32 } else { 0f32 });
        let workspace = plan.workspace.bytes as usize;
        // SAFETY: the plan was made for operands of this shape.
        let run = unsafe {
            (self.api.forward)(
                self.handle,
                &raw const one,
                plan.x,
                pointer(at.x),
                plan.filter,
                pointer(at.filter),
                plan.convolution,
                plan.algorithm,
                pointer(plan.workspace.at).cast_mut(),
                workspace,
                &raw const z_scale,
                plan.y,
                pointer(at.residual.unwrap_or(at.y)),
                plan.bias,
                pointer(plan.converted.at),
                plan.activation,
                plan.y,
                pointer(at.y).cast_mut(),
            )
        };
        self.check("run cuDNN's convolution", run)
    }
}

const fn pointer(at: CUdeviceptr) -> *const c_void {
    if at == 0 { null() } else { at as *const c_void }
}

/// `count` values of f32 on the device in another type.
fn convert(gpu: &Gpu, from: CUdeviceptr, count: u64, dtype: DType) -> Result<Memory, String> {
    let told = |e: driver::Error| e.to_string();
    let mut words = vec![0u64; count.div_ceil(2) as usize];
    gpu.read(from, &mut words).map_err(told)?;
    let values = words.iter().flat_map(|w| [*w as u32, (*w >> 32) as u32]).take(count as usize).map(f32::from_bits);
    let bytes: Vec<u8> = match dtype {
        DType::F16 => values.flat_map(|x| half::f16::from_f32(x).to_le_bytes()).collect(),
        DType::Bf16 => values.flat_map(|x| half::bf16::from_f32(x).to_le_bytes()).collect(),
        _ => values.flat_map(f32::to_le_bytes).collect(),
    };
    let memory = gpu.allocate(bytes.len() as u64).map_err(told)?;
    gpu.write(memory.at, &bytes).map_err(told)?;
    Ok(memory)
}
