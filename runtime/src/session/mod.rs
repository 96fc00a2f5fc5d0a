//! Sessions: one caller's use of a model.

#[cfg(feature = "cuda")]
mod on_device;

use std::ffi::{CStr, c_void};
use std::fmt;
use std::ptr;

use aotfarm_protocol::{DType, MAX_THREADS, Port};

use crate::ffi::{self, DlDevice, DlTensor, Options, RawSession};
use crate::model::Model;
use crate::tensor::{Tensor, TensorRef};

/// What kind of failure a [`RunError`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunErrorKind {
    /// A tensor or option is not what the artifact takes.
    Argument,
    /// The system or the GPU refused memory.
    Memory,
    /// The session cannot run here, because it was made before a fork.
    Busy,
    /// The system or the GPU's driver refused something else, such as a thread.
    System,
    /// This host lacks what the artifact needs: instructions, a GPU, its driver.
    Unsupported,
}

/// Why a session could not be made or run, in the artifact's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RunError {
    /// What to branch on.
    pub kind: RunErrorKind,
    /// What to show.
    pub message: String,
}

/// How a session runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SessionOptions {
    /// Threads, the caller's included; 0 takes as many as this process may use. For a CPU artifact.
    pub threads: u32,
    /// The driver's number of the GPU. For a GPU artifact.
    pub device: i32,
}

/// What a step of the plan has written.
#[derive(Debug, Clone, Copy)]
pub struct StepResult<'a> {
    /// Which step, in the order of the metadata's `steps`.
    pub step: usize,
    /// Which of its outputs.
    pub output: usize,
    /// The sizes that its kernel was called with, as the plan orders them.
    pub dims: &'a [i64],
    /// The buffer, as the plan lays it out.
    pub bytes: &'a [u8],
}

/// One caller's use of a [`Model`]: its threads or its GPU, its working memory, and its states, which each run that succeeds advances. Sessions of one model
/// run in parallel and share the weights.
pub struct Session {
    model: Model,
    raw: *mut RawSession,
    #[cfg(feature = "cuda")]
    device: i32,
}

// SAFETY: the ABI allows a session to be used from any thread, one at a time, which `&mut self` ensures.
unsafe impl Send for Session {}

impl Session {
    /// Makes a session with `threads` threads, the caller's included; 0 takes as many as this process may use. An artifact for a GPU runs on the first one.
    pub fn new(model: &Model, threads: u32) -> Result<Self, RunError> {
        Self::with(model, SessionOptions { threads, ..SessionOptions::default() })
    }

    /// Makes a session.
    pub fn with(model: &Model, SessionOptions { threads, device }: SessionOptions) -> Result<Self, RunError> {
        let threads = match threads {
            // Unlike the artifact's own count this one respects CPU quotas of containers.
            0 => std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX)).min(MAX_THREADS),
            n => n,
        };
        let options = Options {
            struct_size: size_of::<Options>() as u64,
            threads,
            reserved: 0,
            parallel: None,
            parallel_context: ptr::null_mut(),
            device,
            // Shared tensors are not changed all the same: see `call_on_host`.
            may_write: u32::from(model.metadata().inputs.iter().any(|port| port.written)),
            stream: ptr::null_mut(),
        };
        let mut raw = ptr::null_mut();
        // SAFETY: both pointers are valid for the call.
        let status = unsafe { (model.api().session_create)(&raw const options, &raw mut raw) };
        check(model, status)?;
        Ok(Self {
            model: model.clone(),
            raw,
            #[cfg(feature = "cuda")]
            device,
        })
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Lets the states of the model hold what they do in a fresh session. On a GPU it returns when that is under way, before all later runs.
    pub fn reset(&mut self) -> Result<(), RunError> {
        match self.model.api().session_reset {
            Some(reset) if !self.model.metadata().states.is_empty() => {
                // SAFETY: the session is not running.
                let status = unsafe { reset(self.raw) };
                check(&self.model, status)
            }
            _ => Ok(()),
        }
    }

    /// Runs the model. What it writes into inputs is lost; [`Session::run_in_place`] keeps it.
    pub fn run(&mut self, inputs: &[TensorRef<'_>]) -> Result<Vec<Tensor>, RunError> {
        let mut outputs = self.outputs_for(inputs)?;
        self.run_into(inputs, &mut outputs)?;
        Ok(outputs)
    }

    /// Runs the model, which writes into those inputs whose ports say [`written`](Port::written).
    pub fn run_in_place(&mut self, inputs: &mut [Tensor]) -> Result<Vec<Tensor>, RunError> {
        let mut outputs = self.outputs_for(&inputs.iter().map(Tensor::view).collect::<Vec<_>>())?;
        let (ins, outs) = (Tensors::new(inputs.iter_mut().map(to_write)), Tensors::new(outputs.iter_mut().map(to_write)));
        self.call(&ins, &outs, None)?;
        Ok(outputs)
    }

    /// Runs the model, and gives the seconds of each step of the plan, in the order of the metadata's `steps`.
    pub fn run_timed(&mut self, inputs: &[TensorRef<'_>]) -> Result<(Vec<Tensor>, Vec<f64>), RunError> {
        let mut outputs = self.outputs_for(inputs)?;
        let mut seconds = vec![0.0; self.model.api().n_steps as usize];
        self.call_on_host(inputs, &mut outputs, Some(&mut seconds))?;
        Ok((outputs, seconds))
    }

    /// Runs the model and tells `watch` each result of each step of the plan, in order; the calls of a step that is done for a few images at
    /// a time follow each other.
    ///
    /// # Errors
    /// As [`Session::run`], and when the artifact is of a release that could not be watched.
    pub fn run_watched(
        &mut self,
        inputs: &[TensorRef<'_>],
        watch: &mut dyn FnMut(StepResult<'_>),
    ) -> Result<Vec<Tensor>, RunError> {
        let Some(run_watched) = self.model.api().run_watched else {
            let message =
                "the artifact is of an earlier release, which tells no results of steps: compile the model again".to_owned();
            return Err(RunError { kind: RunErrorKind::Unsupported, message });
        };
        let mut outputs = self.outputs_for(inputs)?;
        let mut copies = self.copies(inputs)?;
        let (ins, outs) = (self.shared(inputs, &mut copies), Tensors::new(outputs.iter_mut().map(to_write)));
        // A pointer to the fat pointer, which fits the one that C passes on.
        let mut watch: &mut dyn FnMut(StepResult<'_>) = watch;
        let context = ptr::from_mut(&mut watch).cast::<c_void>();
        // SAFETY: as in `call`; `told` gets the context back while `watch` lives, from one thread at a time.
        let status = unsafe { run_watched(self.raw, ins.as_const(), ins.len(), outs.as_mut(), outs.len(), told, context) };
        check(&self.model, status)?;
        Ok(outputs)
    }

    /// Runs the model into existing outputs, of the shapes that [`Session::outputs_for`] gives.
    pub fn run_into(&mut self, inputs: &[TensorRef<'_>], outputs: &mut [Tensor]) -> Result<(), RunError> {
        self.call_on_host(inputs, outputs, None)
    }

    /// Zeroed outputs of the shapes that these inputs lead to.
    pub fn outputs_for(&self, inputs: &[TensorRef<'_>]) -> Result<Vec<Tensor>, RunError> {
        let new = |port: &Port, shape| Tensor::zeros(port.dtype, shape).map_err(|e| memory("output", port, &e));
        self.shapes(&Tensors::new(inputs.iter().map(input)), new)
    }

    /// What `new` makes of each output's shape.
    fn shapes<T>(&self, ins: &Tensors, new: impl Fn(&Port, Vec<i64>) -> Result<T, RunError>) -> Result<Vec<T>, RunError> {
        let ports = &self.model.metadata().outputs;
        let mut sizes = vec![0i64; ports.iter().map(|port| port.dims.len()).sum()];
        // SAFETY: `ins` and `sizes` are valid for the lengths given.
        let status = unsafe {
            (self.model.api().output_shapes)(
                ins.as_const(),
                ins.len(),
                sizes.as_mut_ptr(),
                u32::try_from(sizes.len()).unwrap_or(u32::MAX),
            )
        };
        check(&self.model, status)?;
        let mut rest = sizes.as_slice();
        ports
            .iter()
            .map(|port| {
                let (shape, tail) = rest.split_at(port.dims.len());
                rest = tail;
                new(port, shape.to_vec())
            })
            .collect()
    }

    fn call_on_host(
        &mut self,
        inputs: &[TensorRef<'_>],
        outputs: &mut [Tensor],
        seconds: Option<&mut [f64]>,
    ) -> Result<(), RunError> {
        let mut copies = self.copies(inputs)?;
        let (ins, outs) = (self.shared(inputs, &mut copies), Tensors::new(outputs.iter_mut().map(to_write)));
        self.call(&ins, &outs, seconds)
    }

    /// Copies of those inputs that the model writes into.
    fn copies(&self, inputs: &[TensorRef<'_>]) -> Result<Vec<Tensor>, RunError> {
        let written = self.model.metadata().inputs.iter().zip(inputs).filter(|(port, _)| port.written);
        let copy = |(port, t): (&Port, &TensorRef<'_>)| {
            Tensor::new(t.dtype(), t.shape().to_vec(), t.bytes()).map_err(|e| memory("input", port, &e))
        };
        written.map(copy).collect()
    }

    /// Shared inputs, of which those that the model writes into are their `copies`.
    fn shared(&self, inputs: &[TensorRef<'_>], copies: &mut [Tensor]) -> Tensors {
        let ports = &self.model.metadata().inputs;
        let mut copies = copies.iter_mut();
        let is_written = |i: usize| ports.get(i).is_some_and(|port| port.written);
        let tensor = |(i, t)| if is_written(i) { copies.next().map_or_else(|| input(t), to_write) } else { input(t) };
        Tensors::new(inputs.iter().enumerate().map(tensor))
    }

    fn call(&mut self, ins: &Tensors, outs: &Tensors, seconds: Option<&mut [f64]>) -> Result<(), RunError> {
        let (times, n_times) = seconds.map_or((ptr::null_mut(), 0), |s| (s.as_mut_ptr(), s.len() as u32));
        // SAFETY: all tensors are borrowed for the call, those that are written mutably and so without overlap; the artifact checks their sizes.
        let status = unsafe {
            (self.model.api().run_timed)(self.raw, ins.as_const(), ins.len(), outs.as_mut(), outs.len(), times, n_times)
        };
        check(&self.model, status)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // SAFETY: made by session_create, and not used any more.
        unsafe { (self.model.api().session_destroy)(self.raw) }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({:?})", self.model)
    }
}

const HOST: DlDevice = DlDevice { device_type: ffi::DL_CPU, device_id: 0 };

/// DLPack tensors and pointers to them.
struct Tensors {
    // Boxed so that the pointers hold when the struct moves.
    _tensors: Box<[DlTensor]>,
    pointers: Vec<*mut DlTensor>,
}

impl Tensors {
    fn new(tensors: impl Iterator<Item = DlTensor>) -> Self {
        let mut tensors: Box<[DlTensor]> = tensors.collect();
        let pointers = tensors.iter_mut().map(ptr::from_mut).collect();
        Self { _tensors: tensors, pointers }
    }

    fn len(&self) -> u32 {
        u32::try_from(self.pointers.len()).unwrap_or(u32::MAX)
    }

    fn as_const(&self) -> *const *const DlTensor {
        self.pointers.as_ptr().cast()
    }

    fn as_mut(&self) -> *const *mut DlTensor {
        self.pointers.as_ptr()
    }
}

/// The artifact reads through `shape` and, for an input that its port does not call written, through `data`, and writes neither.
fn dl_tensor(dtype: DType, shape: &[i64], device: DlDevice, data: *mut u8) -> DlTensor {
    DlTensor {
        data: data.cast::<c_void>(),
        device,
        ndim: i32::try_from(shape.len()).unwrap_or(i32::MAX),
        dtype: ffi::dl_dtype(dtype),
        shape: shape.as_ptr().cast_mut(),
        strides: ptr::null_mut(),
        byte_offset: 0,
    }
}

fn input(t: &TensorRef<'_>) -> DlTensor {
    dl_tensor(t.dtype(), t.shape(), HOST, t.bytes().as_ptr().cast_mut())
}

fn to_write(t: &mut Tensor) -> DlTensor {
    let data = t.bytes_mut().as_mut_ptr();
    dl_tensor(t.dtype(), t.shape(), HOST, data)
}

/// Passes a result on to the closure behind `context`.
///
/// # Safety
/// `context` points to the closure of a watched run, and `result` to what the artifact tells.
unsafe extern "C" fn told(context: *mut c_void, result: *const ffi::StepResult) {
    // SAFETY: as above.
    let (watch, result) = unsafe { (&mut *context.cast::<&mut dyn FnMut(StepResult<'_>)>(), &*result) };
    // SAFETY: the artifact's memory, of these sizes, until this returns.
    let (dims, bytes) =
        unsafe { (slice(result.dims, result.n_dims as usize), slice(result.data.cast::<u8>(), result.bytes as usize)) };
    watch(StepResult { step: result.step as usize, output: result.output as usize, dims, bytes });
}

/// `len` elements from `start`, which may be anything where there are none.
///
/// # Safety
/// As of [`std::slice::from_raw_parts`], if there are any.
unsafe fn slice<'a, T>(start: *const T, len: usize) -> &'a [T] {
    if len == 0 {
        return &[];
    }
    // SAFETY: as above.
    unsafe { std::slice::from_raw_parts(start, len) }
}

fn memory(kind: &str, port: &Port, error: &dyn fmt::Display) -> RunError {
    RunError { kind: RunErrorKind::Memory, message: format!("{kind} `{}`: {error}", port.name) }
}

fn check(model: &Model, status: i32) -> Result<(), RunError> {
    let kind = match status {
        ffi::OK => return Ok(()),
        ffi::ERROR_ARGUMENT => RunErrorKind::Argument,
        ffi::ERROR_MEMORY => RunErrorKind::Memory,
        ffi::ERROR_BUSY => RunErrorKind::Busy,
        ffi::ERROR_UNSUPPORTED => RunErrorKind::Unsupported,
        _ => RunErrorKind::System,
    };
    // SAFETY: the text is this thread's and lives until its next failure.
    let message = unsafe { CStr::from_ptr((model.api().last_error)()) }.to_string_lossy().into_owned();
    Err(RunError { kind, message })
}
