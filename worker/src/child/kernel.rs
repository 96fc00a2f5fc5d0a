//! The kernel ABI of `aotk.h`, mirrored.

use std::ffi::c_void;

/// `aotk_call`: one kernel call as seen by one thread of the team.
#[repr(C)]
pub(super) struct Call {
    pub(super) inputs: *const *const c_void,
    pub(super) weights: *const *const c_void,
    pub(super) packed: *const c_void,
    pub(super) outputs: *const *mut c_void,
    pub(super) shared: *mut c_void,
    pub(super) scratch: *mut c_void,
    pub(super) dim: *const i64,
    pub(super) tune: *const i64,
    pub(super) thread: i32,
    pub(super) threads: i32,
    pub(super) team: *mut c_void,
    pub(super) barrier: unsafe extern "C" fn(*mut c_void, i32),
}

/// `void SYMBOL(const aotk_call *)`.
pub(super) type Kernel = unsafe extern "C" fn(*const Call);
/// `void SYMBOL_pack(const void *const *weight, void *packed, const int64_t *tune)`.
pub(super) type Pack = unsafe extern "C" fn(*const *const c_void, *mut c_void, *const i64);

#[cfg(test)]
mod tests {
    use std::mem::{offset_of, size_of};
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test of the compiler's view of the header")]
    fn the_mirror_agrees_with_the_header() {
        let header = concat!(env!("CARGO_MANIFEST_DIR"), "/../compiler/kernels/cpu/aotk.h");
        let fields = [
            ("in", offset_of!(Call, inputs)),
            ("weight", offset_of!(Call, weights)),
            ("packed", offset_of!(Call, packed)),
            ("out", offset_of!(Call, outputs)),
            ("shared", offset_of!(Call, shared)),
            ("scratch", offset_of!(Call, scratch)),
            ("dim", offset_of!(Call, dim)),
            ("tune", offset_of!(Call, tune)),
            ("thread", offset_of!(Call, thread)),
            ("threads", offset_of!(Call, threads)),
            ("team", offset_of!(Call, team)),
            ("barrier", offset_of!(Call, barrier)),
        ];
        let mut source =
            format!("#include \"{header}\"\n_Static_assert(sizeof(aotk_call) == {}, \"size\");\n", size_of::<Call>());
        for (field, offset) in fields {
            source += &format!("_Static_assert(__builtin_offsetof(aotk_call, {field}) == {offset}, \"{field}\");\n");
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("t.c"), source).unwrap();
        let cc =
            Command::new("cc").args(["-std=gnu11", "-fsyntax-only", "t.c"]).current_dir(dir.path()).stdin(Stdio::null()).output();
        let Ok(cc) = cc else { return eprintln!("skipped: no C compiler") };
        assert!(cc.status.success(), "{}", String::from_utf8_lossy(&cc.stderr));
    }
}
