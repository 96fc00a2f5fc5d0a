//! What NVIDIA's libraries have in common: how they are opened, called and timed.

use std::ffi::{CStr, c_char, c_int, c_void};

use aotfarm_protocol::DType;

use crate::child::gpu::driver::{self, Gpu, Memory, Region};

/// A library, opened.
pub(super) type Handle = *mut c_void;
/// Something described to a library.
pub(super) type Descriptor = *mut c_void;
/// What a call came to; 0 is success.
pub(super) type Status = c_int;

/// Runs by which an algorithm is timed.
const ATTEMPTS: u32 = 10;

/// Declares the functions of a library that are used, and `open`, which finds them. `text` puts a
/// status into words.
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
                $crate::child::gpu::vendor::library::check(doing, status, self.text)
            }

            fn descriptor(&self, make: unsafe extern "C" fn(*mut Descriptor) -> Status) -> Result<Descriptor, String> {
                let mut descriptor = std::ptr::null_mut();
                // SAFETY: an out-parameter on the stack.
                self.check("make a descriptor", unsafe { make(&raw mut descriptor) }).map(|()| descriptor)
            }
        }
    };
}
pub(super) use api;

/// The words of a status that is no success.
pub(super) fn check(doing: &str, status: Status, text: unsafe extern "C" fn(Status) -> *const c_char) -> Result<(), String> {
    if status == 0 {
        return Ok(());
    }
    // SAFETY: the text is static.
    let text = unsafe { CStr::from_ptr(text(status)) };
    Err(format!("could not {doing}: {}", text.to_string_lossy()))
}

/// What one call reads and writes.
#[derive(Clone, Copy)]
pub(in crate::child::gpu) struct Operands<'m> {
    pub(in crate::child::gpu) left: Region<'m>,
    pub(in crate::child::gpu) right: Region<'m>,
    pub(in crate::child::gpu) residual: Option<Region<'m>>,
    pub(in crate::child::gpu) result: Region<'m>,
}

/// An algorithm with its workspace, and how long it takes.
pub(super) struct Way<A> {
    pub(super) algorithm: A,
    pub(super) workspace: Memory,
    pub(super) seconds: f64,
}

/// The fastest of some algorithms, given with the bytes of workspace that each asks for; `None` if
/// `run` works with none of them.
pub(super) fn fastest<A>(
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
    // SAFETY: `run` holds what it named to the graph, and the stream is waited for below, also
    // after an error: the memory is freed then, which waits.
    let replay = || unsafe { gpu.replay(&graph) }.map_err(told);
    replay()?;
    gpu.mark(false).map_err(told)?;
    replay()?;
    gpu.mark(true).map_err(told)?;
    gpu.wait().map_err(told)?;
    Ok(gpu.elapsed().map_err(told)? / f64::from(ATTEMPTS))
}

#[expect(clippy::needless_pass_by_value, reason = "it maps errors")]
fn told(error: driver::Error) -> String {
    error.to_string()
}

/// `count` values of f32 on the device in another type.
pub(super) fn convert(gpu: &Gpu, from: Region<'_>, count: i64, dtype: DType) -> Result<Memory, String> {
    let count = u64::try_from(count).map_err(|_| "a bias of a negative size".to_owned())?;
    let values = count.checked_mul(4).and_then(|bytes| from.part(0, bytes));
    let values = values.ok_or_else(|| format!("the bias has fewer than {count} values"))?;
    let values = gpu.read(values).map_err(told)?;
    let values = values.as_chunks::<4>().0.iter().map(|word| f32::from_ne_bytes(*word));
    let bytes: Vec<u8> = match dtype {
        DType::F16 => values.flat_map(|x| half::f16::from_f32(x).to_le_bytes()).collect(),
        DType::Bf16 => values.flat_map(|x| half::bf16::from_f32(x).to_le_bytes()).collect(),
        _ => values.flat_map(f32::to_le_bytes).collect(),
    };
    let memory = gpu.allocate(bytes.len() as u64).map_err(told)?;
    gpu.write(memory.region(), &bytes).map_err(told)?;
    Ok(memory)
}
