//! The C ABI of artifacts: `include/aotfarm.h` as text and mirrored, and the C that artifacts carry.
//!
//! The header documents each type and function; here is only what it cannot say.

#![expect(missing_docs, reason = "the header documents each type and field")]

use std::ffi::{c_char, c_void};

/// The header that artifacts implement.
pub const AOTFARM_H: &str = include_str!("../include/aotfarm.h");

/// The sources of the code in every artifact. Each part expects those before it in its translation unit.
pub mod source {
    /// What artifacts for all targets share: checks of tensors, binding of sizes, error texts.
    pub const COMMON: &str = include_str!("../artifact/common.c");
    /// The team of threads that runs a CPU artifact.
    pub const TEAM: &str = include_str!("../artifact/team.c");
    /// Whether this CPU is of the level that a CPU artifact is made for; expects
    /// [`crate::isa::TABLE_C`].
    pub const ISA: &str = include_str!("../artifact/isa.c");
    /// Sessions of CPU artifacts.
    pub const CPU: &str = include_str!("../artifact/cpu.c");
    /// Sessions of GPU artifacts, over the driver's API.
    pub const CUDA: &str = include_str!("../artifact/cuda.c");
    /// Calls of NVIDIA's libraries from GPU artifacts; expects the constants of [`crate::vendor`].
    pub const VENDOR: &str = include_str!("../artifact/vendor.c");
}

pub const ABI_VERSION: u32 = 1;

pub const OK: i32 = 0;
pub const ERROR_ARGUMENT: i32 = 1;
pub const ERROR_MEMORY: i32 = 2;
pub const ERROR_BUSY: i32 = 3;
pub const ERROR_UNSUPPORTED: i32 = 5;

/// Host memory.
pub const DL_CPU: i32 = 1;
/// Memory of an NVIDIA GPU.
pub const DL_CUDA: i32 = 2;

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct DlDevice {
    pub device_type: i32,
    pub device_id: i32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct DlDataType {
    pub code: u8,
    pub bits: u8,
    pub lanes: u16,
}

#[repr(C)]
#[derive(Debug)]
pub struct DlTensor {
    pub data: *mut c_void,
    pub device: DlDevice,
    pub ndim: i32,
    pub dtype: DlDataType,
    pub shape: *mut i64,
    pub strides: *mut i64,
    pub byte_offset: u64,
}

/// `aotfarm_session`.
#[repr(C)]
pub struct RawSession {
    _private: [u8; 0],
}

#[repr(C)]
pub struct Options {
    pub struct_size: u64,
    pub threads: u32,
    pub reserved: u32,
    pub parallel: Option<ParallelFn>,
    pub parallel_context: *mut c_void,
    pub device: i32,
    pub may_write: u32,
    pub stream: *mut c_void,
}

pub type ParallelFn =
    unsafe extern "C" fn(context: *mut c_void, n: u32, task: unsafe extern "C" fn(*mut c_void, u32), arg: *mut c_void);

/// The table that `aotfarm_model` returns. What this crate does not read is opaque here. An artifact that is older than this crate has only the
/// first `struct_size` bytes of it, [`Api::OLDEST`] at least; all zeros are a value of the members after these.
#[repr(C)]
pub struct Api {
    pub abi_version: u32,
    pub struct_size: u32,
    pub metadata: *const c_char,
    pub target: *const c_char,
    pub n_dims: u32,
    pub n_inputs: u32,
    pub n_outputs: u32,
    pub n_steps: u32,
    pub dims: *const c_void,
    pub inputs: *const c_void,
    pub outputs: *const c_void,
    pub steps: *const *const c_char,
    pub last_error: unsafe extern "C" fn() -> *const c_char,
    pub session_create: unsafe extern "C" fn(options: *const Options, session: *mut *mut RawSession) -> i32,
    pub session_destroy: unsafe extern "C" fn(session: *mut RawSession),
    pub output_shapes: unsafe extern "C" fn(inputs: *const *const DlTensor, n_inputs: u32, sizes: *mut i64, capacity: u32) -> i32,
    pub run: unsafe extern "C" fn(
        session: *mut RawSession,
        inputs: *const *const DlTensor,
        n_inputs: u32,
        outputs: *const *mut DlTensor,
        n_outputs: u32,
    ) -> i32,
    pub run_timed: unsafe extern "C" fn(
        session: *mut RawSession,
        inputs: *const *const DlTensor,
        n_inputs: u32,
        outputs: *const *mut DlTensor,
        n_outputs: u32,
        step_seconds: *mut f64,
        n_steps: u32,
    ) -> i32,
    pub session_reset: Option<unsafe extern "C" fn(session: *mut RawSession) -> i32>,
    pub n_states: u32,
    pub n_writes: u32,
    pub states: *const c_void,
    pub writes: *const u32,
    pub run_watched: Option<
        unsafe extern "C" fn(
            session: *mut RawSession,
            inputs: *const *const DlTensor,
            n_inputs: u32,
            outputs: *const *mut DlTensor,
            n_outputs: u32,
            watch: WatchFn,
            context: *mut c_void,
        ) -> i32,
    >,
}

impl Api {
    /// Bytes of the smallest table of [`ABI_VERSION`].
    pub const OLDEST: usize = std::mem::offset_of!(Self, session_reset);
}

/// `aotfarm_result`.
#[repr(C)]
#[derive(Debug)]
pub struct StepResult {
    pub step: u32,
    pub output: u32,
    pub dims: *const i64,
    pub n_dims: u32,
    pub reserved: u32,
    pub data: *const c_void,
    pub bytes: u64,
}

pub type WatchFn = unsafe extern "C" fn(context: *mut c_void, result: *const StepResult);

pub type ModelFn = unsafe extern "C" fn(abi_version: u32) -> *const Api;
