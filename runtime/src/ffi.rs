//! The types of `include/aotfarm.h`. A test compares their layout with the header's.

use std::ffi::{c_char, c_void};

use aotfarm_protocol::DType;

pub(crate) const ABI_VERSION: u32 = 1;

pub(crate) const OK: i32 = 0;
pub(crate) const ERROR_ARGUMENT: i32 = 1;
pub(crate) const ERROR_MEMORY: i32 = 2;
pub(crate) const ERROR_BUSY: i32 = 3;
pub(crate) const ERROR_UNSUPPORTED: i32 = 5;

/// Host memory.
pub(crate) const DL_CPU: i32 = 1;
/// Memory of an NVIDIA GPU.
pub(crate) const DL_CUDA: i32 = 2;

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct DlDevice {
    pub(crate) device_type: i32,
    pub(crate) device_id: i32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct DlDataType {
    pub(crate) code: u8,
    pub(crate) bits: u8,
    pub(crate) lanes: u16,
}

#[repr(C)]
#[derive(Debug)]
pub(crate) struct DlTensor {
    pub(crate) data: *mut c_void,
    pub(crate) device: DlDevice,
    pub(crate) ndim: i32,
    pub(crate) dtype: DlDataType,
    pub(crate) shape: *mut i64,
    pub(crate) strides: *mut i64,
    pub(crate) byte_offset: u64,
}

/// `aotfarm_session`.
#[repr(C)]
pub(crate) struct RawSession {
    _private: [u8; 0],
}

#[repr(C)]
pub(crate) struct Options {
    pub(crate) struct_size: u64,
    pub(crate) threads: u32,
    pub(crate) reserved: u32,
    pub(crate) parallel: Option<ParallelFn>,
    pub(crate) parallel_context: *mut c_void,
    pub(crate) device: i32,
    pub(crate) reserved2: u32,
    pub(crate) stream: *mut c_void,
}

pub(crate) type ParallelFn =
    unsafe extern "C" fn(context: *mut c_void, n: u32, task: unsafe extern "C" fn(*mut c_void, u32), arg: *mut c_void);

/// The table that `aotfarm_model` returns. What this crate does not read is opaque here.
#[repr(C)]
pub(crate) struct Api {
    pub(crate) abi_version: u32,
    pub(crate) struct_size: u32,
    pub(crate) metadata: *const c_char,
    pub(crate) target: *const c_char,
    pub(crate) n_dims: u32,
    pub(crate) n_inputs: u32,
    pub(crate) n_outputs: u32,
    pub(crate) n_steps: u32,
    pub(crate) dims: *const c_void,
    pub(crate) inputs: *const c_void,
    pub(crate) outputs: *const c_void,
    pub(crate) steps: *const *const c_char,
    pub(crate) last_error: unsafe extern "C" fn() -> *const c_char,
    pub(crate) session_create: unsafe extern "C" fn(options: *const Options, session: *mut *mut RawSession) -> i32,
    pub(crate) session_destroy: unsafe extern "C" fn(session: *mut RawSession),
    pub(crate) output_shapes:
        unsafe extern "C" fn(inputs: *const *const DlTensor, n_inputs: u32, sizes: *mut i64, capacity: u32) -> i32,
    pub(crate) run: unsafe extern "C" fn(
        session: *mut RawSession,
        inputs: *const *const DlTensor,
        n_inputs: u32,
        outputs: *const *mut DlTensor,
        n_outputs: u32,
    ) -> i32,
    pub(crate) run_timed: unsafe extern "C" fn(
        session: *mut RawSession,
        inputs: *const *const DlTensor,
        n_inputs: u32,
        outputs: *const *mut DlTensor,
        n_outputs: u32,
        step_seconds: *mut f64,
        n_steps: u32,
    ) -> i32,
}

pub(crate) type ModelFn = unsafe extern "C" fn(abi_version: u32) -> *const Api;

/// DLPack's spelling of an element type.
pub(crate) const fn dl_dtype(dtype: DType) -> DlDataType {
    let code = match dtype {
        DType::I8 | DType::I16 | DType::I32 | DType::I64 => 0,
        DType::U8 => 1,
        DType::F16 | DType::F32 | DType::F64 => 2,
        DType::Bf16 => 4,
        DType::Bool => 6,
    };
    DlDataType { code, bits: dtype.size() as u8 * 8, lanes: 1 }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the test asks the C compiler")]
mod tests {
    use std::io::Write as _;
    use std::mem::{offset_of, size_of};
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn the_layout_is_that_of_the_header() {
        let mut text = format!("{}\n#include <stddef.h>\n", crate::AOTFARM_H);
        let mut same = |c: &str, rust: usize| text += &format!("_Static_assert({c} == {rust}, \"{c} is not {rust}\");\n");
        same("AOTFARM_ABI_VERSION", ABI_VERSION as usize);
        same("sizeof(DLTensor)", size_of::<DlTensor>());
        same("offsetof(DLTensor, dtype)", offset_of!(DlTensor, dtype));
        same("offsetof(DLTensor, byte_offset)", offset_of!(DlTensor, byte_offset));
        same("sizeof(aotfarm_options)", size_of::<Options>());
        same("offsetof(aotfarm_options, parallel)", offset_of!(Options, parallel));
        same("offsetof(aotfarm_options, device)", offset_of!(Options, device));
        same("offsetof(aotfarm_options, stream)", offset_of!(Options, stream));
        same("sizeof(aotfarm_api)", size_of::<Api>());
        same("offsetof(aotfarm_api, n_steps)", offset_of!(Api, n_steps));
        same("offsetof(aotfarm_api, last_error)", offset_of!(Api, last_error));
        same("offsetof(aotfarm_api, run_timed)", offset_of!(Api, run_timed));
        same("AOTFARM_ERROR_ARGUMENT", ERROR_ARGUMENT as usize);
        same("AOTFARM_ERROR_MEMORY", ERROR_MEMORY as usize);
        same("AOTFARM_ERROR_BUSY", ERROR_BUSY as usize);
        same("AOTFARM_ERROR_UNSUPPORTED", ERROR_UNSUPPORTED as usize);
        same("kDLCPU", DL_CPU as usize);
        same("kDLCUDA", DL_CUDA as usize);
        for (dtype, code) in [
            (DType::I64, "kDLInt"),
            (DType::U8, "kDLUInt"),
            (DType::F16, "kDLFloat"),
            (DType::Bf16, "kDLBfloat"),
            (DType::Bool, "kDLBool"),
        ] {
            same(code, dl_dtype(dtype).code.into());
        }
        // Both as C and as C++, when there is a compiler for it.
        for language in ["c", "c++"] {
            let text = if language == "c" { text.clone() } else { text.replace("_Static_assert", "static_assert") };
            let child = Command::new("cc")
                .args(["-x", language, "-fsyntax-only", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-"])
                .stdin(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn();
            let Ok(mut child) = child else {
                println!("skipped: there is no `cc` here");
                return;
            };
            child.stdin.take().expect("stdin is piped").write_all(text.as_bytes()).expect("cc reads its input");
            let output = child.wait_with_output().expect("cc ends");
            let log = String::from_utf8_lossy(&output.stderr);
            if log.contains("cc1plus") && log.contains("cannot exec") || log.contains("language c++ not recognized") {
                println!("skipped C++: {log}");
                continue;
            }
            assert!(output.status.success(), "{language}: {log}");
        }
    }
}
