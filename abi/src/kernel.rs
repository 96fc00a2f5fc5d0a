//! The ABI of kernels: the headers that open their translation units, and the mirror of a CPU kernel's call.

use std::ffi::c_void;

/// The kernel ABI of CPUs; part of every unit for one.
pub const AOTK_H: &str = include_str!("../include/aotk.h");
/// The kernel ABI of GPUs; part of every unit for one.
pub const AOTK_CUH: &str = include_str!("../include/aotk.cuh");

/// `aotk_call`: one kernel call as seen by one thread of the team. The header documents each field.
#[repr(C)]
#[derive(Debug)]
#[expect(missing_docs, reason = "the header documents each field")]
pub struct Call {
    pub inputs: *const *const c_void,
    pub weights: *const *const c_void,
    pub packed: *const c_void,
    pub outputs: *const *mut c_void,
    pub shared: *mut c_void,
    pub scratch: *mut c_void,
    pub dim: *const i64,
    pub tune: *const i64,
    pub thread: i32,
    pub threads: i32,
    pub team: *mut c_void,
    pub barrier: unsafe extern "C" fn(*mut c_void, i32),
}

/// `void SYMBOL(const aotk_call *)`.
pub type Kernel = unsafe extern "C" fn(*const Call);
/// `void SYMBOL_pack(const void *const *weight, void *packed, const int64_t *tune)`.
pub type Pack = unsafe extern "C" fn(*const *const c_void, *mut c_void, *const i64);

/// What follows a kernel's symbol in the name of its pack function.
pub const PACK_SUFFIX: &str = "_pack";
/// Defined when only the pack function of a unit is compiled, for a host of any architecture.
pub const PACK_ONLY: &str = "-DAOTK_PACK_ONLY";
