//! The packing child: assembles the weight section of an artifact.

use std::ffi::{CString, c_void};
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use aotfarm_abi::kernel::{PACK_SUFFIX, Pack};
use aotfarm_protocol::{CopyStep, PackStep};
use serde::{Deserialize, Serialize};

use super::bench::load;
use super::buffer::Buffer;
use super::talk::{read_job, say};

/// What to assemble; offsets have been checked against both sizes.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PackJob {
    /// The shared object with all pack functions, if there are any.
    pub(crate) library: Option<PathBuf>,
    /// The raw weights.
    pub(crate) weights: PathBuf,
    /// The section, a file of the right size, all zero.
    pub(crate) section: PathBuf,
    /// See `LinkSpec`.
    pub(crate) packs: Vec<PackStep>,
    /// See `LinkSpec`.
    pub(crate) copies: Vec<CopyStep>,
}

/// How packing ended.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum PackEvent {
    /// The section is complete.
    Packed,
    /// A pack function is missing or writes where it should not.
    Refused { reason: String },
}

pub(super) fn run(job: &Path) -> Result<(), String> {
    let job: PackJob = read_job(job)?;
    say(&match assemble(&job) {
        Ok(()) => PackEvent::Packed,
        Err(Failure::Step(reason)) => PackEvent::Refused { reason },
        Err(Failure::Host(reason)) => return Err(reason),
    })
}

enum Failure {
    /// The item is at fault.
    Step(String),
    /// This host is at fault.
    Host(String),
}

fn assemble(job: &PackJob) -> Result<(), Failure> {
    let host = |what: &Path| {
        let what = what.display().to_string();
        move |e: std::io::Error| Failure::Host(format!("could not map {what}: {e}"))
    };
    let weights_file = File::open(&job.weights).map_err(host(&job.weights))?;
    // A mapping may not be empty.
    let empty = weights_file.metadata().map_err(host(&job.weights))?.len() == 0;
    // SAFETY: the files lie in the worker's folder for this item and nobody else changes their size.
    let weights = if empty { None } else { Some(unsafe { memmap2::Mmap::map(&weights_file) }.map_err(host(&job.weights))?) };
    let weights: &[u8] = weights.as_deref().unwrap_or_default();
    let section_file = OpenOptions::new().read(true).write(true).open(&job.section).map_err(host(&job.section))?;
    if section_file.metadata().map_err(host(&job.section))?.len() == 0 {
        return Ok(());
    }
    // SAFETY: as above.
    let mut section = unsafe { memmap2::MmapMut::map_mut(&section_file) }.map_err(host(&job.section))?;
    let slice = |from: u64, bytes: u64| {
        let range = usize::try_from(from).ok().zip(usize::try_from(bytes).ok()).and_then(|(f, b)| Some(f..f.checked_add(b)?));
        range.and_then(|r| weights.get(r)).ok_or_else(|| Failure::Step("a step reads past the end of the weights".to_owned()))
    };
    for copy in &job.copies {
        let from = slice(copy.from, copy.bytes)?;
        let to = section.get_mut(copy.to as usize..(copy.to + copy.bytes) as usize);
        to.ok_or_else(|| Failure::Step("a copy writes past the end of the section".to_owned()))?.copy_from_slice(from);
    }
    let Some(library) = &job.library else { return Ok(()) };
    let library = load(library).map_err(|e| Failure::Step(format!("the pack functions {e}")))?;
    let (next, section) = (AtomicUsize::new(0), Mutex::new(&mut section));
    let worker = || {
        while let Some(step) = job.packs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let packed = pack(&library, step, &slice)?;
            let mut section = section.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let to = section.get_mut(step.offset as usize..(step.offset + step.bytes) as usize);
            to.ok_or_else(|| Failure::Step("a pack step writes past the end of the section".to_owned()))?
                .copy_from_slice(packed.bytes());
        }
        Ok(())
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(job.packs.len());
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        running
            .into_iter()
            .try_for_each(|t| t.join().unwrap_or_else(|_| Err(Failure::Host("a packing thread panicked".to_owned()))))
    })
}

/// Runs one pack function on a buffer of its own, so that what it writes beside is seen.
fn pack<'w>(
    library: &libloading::os::unix::Library,
    step: &PackStep,
    slice: &impl Fn(u64, u64) -> Result<&'w [u8], Failure>,
) -> Result<Buffer, Failure> {
    let symbol = format!("{}{PACK_SUFFIX}", step.symbol);
    let name = CString::new(symbol.as_str()).map_err(|_| Failure::Step("a symbol holds a zero byte".to_owned()))?;
    // SAFETY: the object promises the type of the kernel ABI under this name.
    let function = unsafe { library.get::<Pack>(name.to_bytes_with_nul()) };
    let function = function.map_err(|_| Failure::Step(format!("no object defines `{symbol}`")))?;
    // Kernels may rely on aligned weights, and read a little past their end; a slice of the file promises neither.
    let host = |e| Failure::Host(format!("could not allocate weights: {e}"));
    let mut inputs = Vec::with_capacity(step.inputs.len());
    for &(from, bytes) in &step.inputs {
        let mut buffer = Buffer::new(bytes).map_err(host)?;
        buffer.bytes_mut().copy_from_slice(slice(from, bytes)?);
        inputs.push(buffer);
    }
    let pointers: Vec<*const c_void> = inputs.iter().map(|b| b.as_ptr().cast_const().cast()).collect();
    let packed = Buffer::new(step.bytes).map_err(host)?;
    // SAFETY: the pointers are valid for what the step says; the process is confined in case the function goes beyond.
    unsafe { function(pointers.as_ptr(), packed.as_ptr().cast(), step.tune.as_ptr()) };
    let damage = inputs.iter().chain([&packed]).find_map(Buffer::damage);
    match damage {
        Some(place) => Err(Failure::Step(format!("`{symbol}` writes {place} of a buffer"))),
        None => Ok(packed),
    }
}
