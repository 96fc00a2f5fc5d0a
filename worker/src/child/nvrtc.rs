//! The compiling child: NVIDIA's run-time compiler, which is a library and may crash like one.

use std::ffi::{CStr, CString, c_char, c_int};
use std::path::{Path, PathBuf};

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use serde::{Deserialize, Serialize};

use super::talk::{read_job, say};
use crate::cache::digest_of_file;

/// What to do with which library: a path, or a name for the loader to find.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct NvrtcJob {
    /// The library.
    pub(crate) library: PathBuf,
    /// What to compile; `None`: only tell what the library is.
    pub(crate) compile: Option<Compile>,
}

/// One unit.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Compile {
    pub(crate) source: PathBuf,
    /// Where the cubin goes.
    pub(crate) output: PathBuf,
    pub(crate) options: Vec<String>,
}

/// The answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum NvrtcEvent {
    /// What the library is, and the compute capabilities that it compiles for.
    Found { library: PathBuf, digest: String, version: (i32, i32), archs: Vec<u32> },
    /// The cubin is written.
    Compiled,
    /// The source was refused.
    Refused { log: String },
    /// The library cannot be used.
    Unusable { reason: String },
}

type Program = *mut std::ffi::c_void;
type Status = c_int;

/// The functions of the library that are used.
struct Api {
    version: unsafe extern "C" fn(*mut c_int, *mut c_int) -> Status,
    arch_count: unsafe extern "C" fn(*mut c_int) -> Status,
    archs: unsafe extern "C" fn(*mut c_int) -> Status,
    create: unsafe extern "C" fn(
        *mut Program,
        *const c_char,
        *const c_char,
        c_int,
        *const *const c_char,
        *const *const c_char,
    ) -> Status,
    compile: unsafe extern "C" fn(Program, c_int, *const *const c_char) -> Status,
    log_size: unsafe extern "C" fn(Program, *mut usize) -> Status,
    log: unsafe extern "C" fn(Program, *mut c_char) -> Status,
    cubin_size: unsafe extern "C" fn(Program, *mut usize) -> Status,
    cubin: unsafe extern "C" fn(Program, *mut c_char) -> Status,
    text: unsafe extern "C" fn(Status) -> *const c_char,
    /// Last, so that it outlives the functions.
    _library: Library,
}

pub(super) fn run(job: &Path) -> Result<(), String> {
    let job: NvrtcJob = read_job(job)?;
    say(&answer(&job).unwrap_or_else(|reason| NvrtcEvent::Unusable { reason }))
}

fn answer(job: &NvrtcJob) -> Result<NvrtcEvent, String> {
    let api = Api::load(&job.library)?;
    match &job.compile {
        None => api.describe(&job.library),
        Some(unit) => api.build(unit),
    }
}

impl Api {
    fn load(path: &Path) -> Result<Self, String> {
        // The library opens its built-in functions by name, which the loader finds only among what is loaded already, unless
        // somebody has put the folder on its path.
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            for builtins in std::fs::read_dir(dir).into_iter().flatten().flatten() {
                if builtins.file_name().to_string_lossy().starts_with("libnvrtc-builtins.so") {
                    // SAFETY: it holds data and trivial initialisers.
                    std::mem::forget(unsafe { Library::open(Some(builtins.path()), RTLD_NOW | RTLD_LOCAL) });
                }
            }
        }
        // SAFETY: loading a library of the system's or the user's choice, in a process made for that.
        let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) }.map_err(|e| e.to_string())?;
        macro_rules! symbol {
            ($name:literal) => {
                // SAFETY: these are the types of the documented API, unchanged since CUDA 11.
                *unsafe { library.get(concat!($name, "\0").as_bytes()) }.map_err(|_| concat!("it has no ", $name))?
            };
        }
        Ok(Self {
            version: symbol!("nvrtcVersion"),
            arch_count: symbol!("nvrtcGetNumSupportedArchs"),
            archs: symbol!("nvrtcGetSupportedArchs"),
            create: symbol!("nvrtcCreateProgram"),
            compile: symbol!("nvrtcCompileProgram"),
            log_size: symbol!("nvrtcGetProgramLogSize"),
            log: symbol!("nvrtcGetProgramLog"),
            cubin_size: symbol!("nvrtcGetCUBINSize"),
            cubin: symbol!("nvrtcGetCUBIN"),
            text: symbol!("nvrtcGetErrorString"),
            _library: library,
        })
    }

    fn check(&self, status: Status) -> Result<(), String> {
        if status == 0 {
            return Ok(());
        }
        // SAFETY: it returns a static text for every number.
        let text = unsafe { CStr::from_ptr((self.text)(status)) };
        Err(text.to_string_lossy().into_owned())
    }

    fn describe(&self, path: &Path) -> Result<NvrtcEvent, String> {
        let (mut version, mut count) = ((0, 0), 0);
        // SAFETY: out-parameters on the stack.
        unsafe {
            self.check((self.version)(&raw mut version.0, &raw mut version.1))?;
            self.check((self.arch_count)(&raw mut count))?;
        }
        let mut archs = vec![0; count.max(0) as usize];
        // SAFETY: room for as many as it said.
        self.check(unsafe { (self.archs)(archs.as_mut_ptr()) })?;
        let library = loaded_from(path);
        let (digest, _) = digest_of_file(&library).map_err(|e| format!("could not read {}: {e}", library.display()))?;
        let archs = archs.into_iter().filter_map(|arch| u32::try_from(arch).ok()).collect();
        Ok(NvrtcEvent::Found { library, digest: digest.hex(), version, archs })
    }

    fn build(&self, unit: &Compile) -> Result<NvrtcEvent, String> {
        let source = std::fs::read(&unit.source).map_err(|e| format!("could not read {}: {e}", unit.source.display()))?;
        let Ok(source) = CString::new(source) else {
            return Ok(NvrtcEvent::Refused { log: "the source holds a zero byte".to_owned() });
        };
        let options: Vec<CString> =
            unit.options.iter().map(|o| CString::new(o.as_str())).collect::<Result<_, _>>().map_err(|e| e.to_string())?;
        let options: Vec<*const c_char> = options.iter().map(|o| o.as_ptr()).collect();
        let (mut program, none) = (std::ptr::null_mut(), std::ptr::null());
        // SAFETY: the texts end with zero and outlive the call, which copies them.
        self.check(unsafe { (self.create)(&raw mut program, source.as_ptr(), c"kernel.cu".as_ptr(), 0, none, none) })?;
        // SAFETY: as above. The process ends after this one program, so it is never destroyed.
        let status = unsafe { (self.compile)(program, options.len() as c_int, options.as_ptr()) };
        if let Err(error) = self.check(status) {
            let log = self.fetch(program, self.log_size, self.log)?;
            let log = String::from_utf8_lossy(&log).trim_matches(['\0', '\n']).to_owned();
            // Without a word it is not about the source: memory or threads were short.
            return if log.is_empty() { Err(error) } else { Ok(NvrtcEvent::Refused { log }) };
        }
        let cubin = self.fetch(program, self.cubin_size, self.cubin)?;
        std::fs::write(&unit.output, cubin).map_err(|e| format!("could not write {}: {e}", unit.output.display()))?;
        Ok(NvrtcEvent::Compiled)
    }

    /// Something of the program's whose size is asked for first.
    fn fetch(
        &self,
        program: Program,
        size: unsafe extern "C" fn(Program, *mut usize) -> Status,
        get: unsafe extern "C" fn(Program, *mut c_char) -> Status,
    ) -> Result<Vec<u8>, String> {
        let mut bytes = 0;
        // SAFETY: an out-parameter on the stack.
        self.check(unsafe { size(program, &raw mut bytes) })?;
        let mut content = vec![0u8; bytes];
        // SAFETY: room for as many bytes as it said.
        self.check(unsafe { get(program, content.as_mut_ptr().cast()) })?;
        Ok(content)
    }
}

/// The file behind a name that the loader resolved.
fn loaded_from(name: &Path) -> PathBuf {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let file = |line: &str| line.split_once('/').map(|(_, path)| PathBuf::from(format!("/{path}")));
    let loaded = |path: &PathBuf| path.file_name().is_some_and(|f| f.to_string_lossy().starts_with("libnvrtc.so"));
    maps.lines().filter_map(file).find(loaded).unwrap_or_else(|| name.to_owned())
}
