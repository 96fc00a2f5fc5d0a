//! cuDNN's legacy API (<https://docs.nvidia.com/deeplearning/cudnn/backend/latest/api/cudnn-cnn-library.html>).

use std::ffi::{c_char, c_int, c_void};
use std::path::Path;
use std::ptr::null_mut;

use aotfarm_abi::vendor::cudnn::{
    BFLOAT16, CROSS_CORRELATION, FLOAT, FMA_MATH, HALF, IDENTITY, IMPLICIT_PRECOMP_GEMM, NHWC, RELU, TENSOR_OP_MATH,
};
use aotfarm_protocol::{DType, VendorConv};

use super::library::{Descriptor, Handle, Operands, Status, Way, api, convert, fastest};
use crate::child::gpu::driver::{Gpu, Memory, Region};

const ALGORITHMS: usize = 8;
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

api! {
    Cudnn: text = "cudnnGetErrorString";
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

/// cuDNN, opened.
pub(super) struct Cudnn {
    api: Api,
    handle: Handle,
}

/// A described convolution.
struct Described<'h> {
    cudnn: &'h Cudnn,
    x: Descriptor,
    filter: Descriptor,
    convolution: Descriptor,
    activation: Descriptor,
    bias: Descriptor,
    y: Descriptor,
    /// The bias in the type of the images.
    converted: Memory,
}

/// A convolution with the fastest algorithm of those that were tried.
pub(in crate::child::gpu) struct Plan<'h> {
    described: Described<'h>,
    best: Way<c_int>,
}

impl Plan<'_> {
    /// cuDNN's number of the algorithm.
    pub(super) fn algorithm(&self) -> i64 {
        i64::from(self.best.algorithm)
    }

    pub(super) const fn seconds(&self) -> f64 {
        self.best.seconds
    }

    pub(super) fn run(&self, at: Operands<'_>) -> Result<(), String> {
        self.described.run(self.best.algorithm, &self.best.workspace, at)
    }
}

impl Cudnn {
    /// Opens the library for the GPU's stream.
    pub(super) fn open(path: &Path, gpu: &Gpu) -> Result<Self, String> {
        let api = Api::open(path)?;
        let mut handle = null_mut();
        // SAFETY: an out-parameter on the stack; the stream is the GPU's.
        unsafe {
            api.check("start cuDNN", (api.create)(&raw mut handle))?;
            api.check("give cuDNN the stream", (api.set_stream)(handle, gpu.raw_stream().cast()))?;
        }
        Ok(Self { api, handle })
    }

    /// Describes the convolution and finds a fast algorithm. `bias` holds the bias in f32 on the device.
    pub(super) fn plan<'h>(
        &'h self,
        gpu: &Gpu,
        conv: &VendorConv,
        dims: &[i64],
        at: Operands<'_>,
        bias: Option<Region<'_>>,
    ) -> Result<Plan<'h>, String> {
        let bias = bias.ok_or("a convolution without a bias is none of cuDNN's")?;
        let described = self.describe(conv, dims, convert(gpu, bias, conv.output[0], conv.dtype)?)?;
        let algorithms = described.algorithms(conv.relu)?;
        let with_workspace = algorithms.into_iter().filter_map(|a| Some((a, described.workspace(a).ok()?)));
        let best = fastest(gpu, with_workspace, |algorithm, workspace| described.run(*algorithm, workspace, at));
        Ok(Plan { best: best.ok_or("cuDNN has no algorithm for it")?, described })
    }

    fn describe(&self, conv: &VendorConv, dims: &[i64], converted: Memory) -> Result<Described<'_>, String> {
        let small = |n: i64| c_int::try_from(n).map_err(|_| format!("a size of {n} is too large for cuDNN"));
        let kind = match conv.dtype {
            DType::F32 => FLOAT,
            DType::F16 => HALF,
            DType::Bf16 => BFLOAT16,
            other => return Err(format!("cuDNN does not convolve {other}")),
        };
        let api = &self.api;
        let tensor = |[c, h, w]: [i64; 3], n: i64| -> Result<Descriptor, String> {
            let descriptor = api.descriptor(api.create_tensor)?;
            // SAFETY: a descriptor that was just made.
            let set = unsafe { (api.set_tensor)(descriptor, NHWC, kind, small(n)?, small(c)?, small(h)?, small(w)?) };
            api.check("describe a tensor", set).map(|()| descriptor)
        };
        let batch = conv.batch.at(dims).ok_or("its batch has no size")?;
        let (x, y) = (tensor(conv.input, batch)?, tensor(conv.output, batch)?);
        let bias = tensor([conv.output[0], 1, 1], 1)?;
        let (filter, convolution, activation) =
            (api.descriptor(api.create_filter)?, api.descriptor(api.create_convolution)?, api.descriptor(api.create_activation)?);
        let [kh, kw] = conv.kernel;
        let numbers = [conv.pad, conv.stride, conv.dilation].concat().into_iter().map(small).collect::<Result<Vec<_>, _>>()?;
        let &[ph, pw, sh, sw, dh, dw] = numbers.as_slice() else { return Err("a convolution has two axes".to_owned()) };
        // SAFETY: descriptors that were just made.
        unsafe {
            let filters =
                (api.set_filter)(filter, kind, NHWC, small(conv.output[0])?, small(conv.input[0])?, small(kh)?, small(kw)?);
            api.check("describe the filters", filters)?;
            let set = (api.set_convolution)(convolution, ph, pw, sh, sw, dh, dw, CROSS_CORRELATION, FLOAT);
            api.check("describe the convolution", set)?;
            let math = if conv.dtype == DType::F32 && !conv.tf32 { FMA_MATH } else { TENSOR_OP_MATH };
            api.check("choose how to multiply", (api.set_math)(convolution, math))?;
            let set = (api.set_activation)(activation, if conv.relu { RELU } else { IDENTITY }, 0, 0.0);
            api.check("describe the activation", set)?;
        }
        Ok(Described { cudnn: self, x, filter, convolution, activation, bias, y, converted })
    }
}

impl Described<'_> {
    /// What is worth trying: the one that takes any activation, and those that cuDNN believes fastest. (Trying all takes longer than tuning the
    /// task.)
    fn algorithms(&self, relu: bool) -> Result<Vec<c_int>, String> {
        let mut algorithms = vec![IMPLICIT_PRECOMP_GEMM];
        if relu {
            let api = &self.cudnn.api;
            let nothing =
                Performance { algorithm: 0, status: -1, time: 0.0, memory: 0, determinism: 0, math: 0, reserved: [0; 3] };
            let (mut found, mut tried) = (0, [nothing; ALGORITHMS]);
            let Self { x, filter, convolution, y, .. } = *self;
            // SAFETY: room for as many results as are asked for.
            let chosen = unsafe {
                let room = ALGORITHMS as c_int;
                (api.choose)(self.cudnn.handle, x, filter, convolution, y, room, &raw mut found, tried.as_mut_ptr())
            };
            api.check("choose cuDNN's algorithm", chosen)?;
            let fits = |p: &&Performance| p.status == 0 && p.memory <= MAX_WORKSPACE;
            let believed = tried[..(found.max(0) as usize).min(ALGORITHMS)].iter().filter(fits).map(|p| p.algorithm).take(2);
            algorithms.extend(believed.filter(|a| *a != IMPLICIT_PRECOMP_GEMM));
        }
        Ok(algorithms)
    }

    /// Bytes of workspace that an algorithm asks for.
    fn workspace(&self, algorithm: c_int) -> Result<u64, String> {
        let (api, mut bytes) = (&self.cudnn.api, 0);
        // SAFETY: descriptors that belong together; an out-parameter on the stack.
        let asked = unsafe {
            let Self { x, filter, convolution, y, .. } = *self;
            (api.workspace)(self.cudnn.handle, x, filter, convolution, y, algorithm, &raw mut bytes)
        };
        api.check("ask for cuDNN's workspace", asked).map(|()| bytes as u64)
    }

    /// Puts the convolution on the stream.
    fn run(&self, algorithm: c_int, workspace: &Memory, at: Operands<'_>) -> Result<(), String> {
        let (one, z_scale) = (1f32, if at.residual.is_some() { 1f32 } else { 0f32 });
        let api = &self.cudnn.api;
        // SAFETY: descriptors and handle live as long as `self`, and the workspace has as many
        // bytes as are told. The operands are memory of the device until the run is over; whether
        // they have the shape that is described is the work item's promise, and a wrong one an
        // error of the device, in a process made for that.
        let run = unsafe {
            (api.forward)(
                self.cudnn.handle,
                &raw const one,
                self.x,
                at.left.as_ptr(),
                self.filter,
                at.right.as_ptr(),
                self.convolution,
                algorithm,
                workspace.region().as_mut_ptr(),
                workspace.bytes() as usize,
                &raw const z_scale,
                self.y,
                at.residual.unwrap_or(at.result).as_ptr(),
                self.bias,
                self.converted.region().as_ptr(),
                self.activation,
                self.y,
                at.result.as_mut_ptr(),
            )
        };
        api.check("run cuDNN's convolution", run)
    }
}
