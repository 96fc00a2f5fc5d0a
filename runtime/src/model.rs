use std::ffi::CStr;
use std::fmt;
use std::mem::MaybeUninit;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::Arc;

use aotfarm_protocol::{ArtifactMetadata, Target};
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use object::read::elf::{ElfFile64, FileHeader as _, ProgramHeader as _};
use object::{Architecture, Endianness, Object as _, ObjectSymbol as _, ReadCache, elf};

use crate::ffi::{ABI_VERSION, Api, ModelFn};
use crate::host::why_not;

/// The symbol that every artifact exports.
const ENTRY: &str = "aotfarm_model";

/// Why a file could not be loaded as an artifact.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is no shared object, or a damaged one.
    #[error("{} is not an artifact: {reason}", path.display())]
    NotArtifact {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file is for another kind of machine.
    #[error("{} is made for {made_for}, and this host {why}", path.display())]
    Host {
        /// The file.
        path: PathBuf,
        /// Target or architecture.
        made_for: String,
        /// What the host lacks; completes "this host …".
        why: String,
    },
    /// The system's loader refused it.
    #[error("cannot load {}: {reason}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The loader's message.
        reason: String,
    },
    /// It speaks another version of the ABI.
    #[error("{} does not speak version {ABI_VERSION} of the artifact ABI: compile the model again with this release", path.display())]
    Abi {
        /// The file.
        path: PathBuf,
    },
}

struct Inner {
    path: PathBuf,
    metadata: ArtifactMetadata,
    /// A copy: the table of an artifact of an earlier release is shorter than ours.
    api: Api,
    // Keeps what `api` points to alive; dropped last.
    _library: Library,
}

/// A loaded artifact. Cheap to clone; it stays loaded until the last clone and the last [`crate::Session`] are gone.
#[derive(Clone)]
pub struct Model(Arc<Inner>);

// SAFETY: the table behind `api` is constant, and its functions may be called from any thread; see docs/abi.md.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl Model {
    /// Loads an artifact. What can be told from the file alone (format, architecture, truncation, the exported symbol) is checked before any
    /// code of it runs; the code itself is trusted, as that of any shared library is.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        // An absolute path, because the loader searches bare names elsewhere.
        let path = path.canonicalize().map_err(|source| LoadError::Read { path: path.to_owned(), source })?;
        inspect(&path)?;
        let not_artifact = |reason: String| LoadError::NotArtifact { path: path.clone(), reason };
        // SAFETY: the file exports the symbol of an artifact; its initialisers are the C runtime's only.
        let library = unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_LOCAL) }
            .map_err(|e| LoadError::Open { path: path.clone(), reason: e.to_string() })?;
        // SAFETY: `aotfarm_model` has this type in every version of the ABI.
        let entry = unsafe { library.get::<ModelFn>(ENTRY) }.map_err(|e| not_artifact(e.to_string()))?;
        // SAFETY: as above.
        let table = unsafe { entry(ABI_VERSION) };
        // SAFETY: as above.
        let Some(api) = (unsafe { read(table) }) else { return Err(LoadError::Abi { path }) };
        // SAFETY: the metadata is a constant text that ends in a null byte.
        let json = unsafe { CStr::from_ptr(api.metadata) };
        let metadata: ArtifactMetadata =
            serde_json::from_slice(json.to_bytes()).map_err(|e| not_artifact(format!("its metadata does not parse: {e}")))?;
        // What an artifact for a GPU says about itself can be read anywhere; a session names what is missing.
        if matches!(metadata.target, Target::Cpu(_))
            && let Some(why) = why_not(metadata.target)
        {
            return Err(LoadError::Host { path, made_for: metadata.target.to_string(), why });
        }
        Ok(Self(Arc::new(Inner { path, metadata, api, _library: library })))
    }

    /// What the artifact says about itself.
    pub fn metadata(&self) -> &ArtifactMetadata {
        &self.0.metadata
    }

    /// The file that it was loaded from.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    pub(crate) fn api(&self) -> &Api {
        &self.0.api
    }
}

/// A copy of the table, in which what an older artifact lacks is zero; `None` for a table of another version of the ABI.
///
/// # Safety
/// `table` is null or what `aotfarm_model` of a loaded artifact returned.
unsafe fn read(table: *const Api) -> Option<Api> {
    if table.is_null() {
        return None;
    }
    // SAFETY: every table is constant and starts with these two numbers.
    let (version, size) = unsafe { ((*table).abi_version, (*table).struct_size as usize) };
    if version != ABI_VERSION || size < Api::OLDEST {
        return None;
    }
    let mut api = MaybeUninit::<Api>::zeroed();
    // SAFETY: the table has `size` bytes. It fills all members that zeros are no value of.
    unsafe {
        ptr::copy_nonoverlapping(table.cast::<u8>(), api.as_mut_ptr().cast(), size.min(size_of::<Api>()));
        Some(api.assume_init())
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Model({}, {})", self.0.path.display(), self.0.metadata.target)
    }
}

/// Checks what the file alone tells. The loader maps what the program headers say, and touching a mapping past the end of a truncated file
/// would kill the process.
fn inspect(path: &Path) -> Result<(), LoadError> {
    let read_error = |source| LoadError::Read { path: path.to_owned(), source };
    let not_artifact = |reason: &str| LoadError::NotArtifact { path: path.to_owned(), reason: reason.to_owned() };
    let file = std::fs::File::open(path).map_err(read_error)?;
    let status = file.metadata().map_err(read_error)?;
    if !status.is_file() {
        return Err(not_artifact("it is not a file"));
    }
    // Magic number, 64 bits, little endian.
    let mut start = [0; 6];
    if file.read_exact_at(&mut start, 0).is_err() || start != *b"\x7fELF\x02\x01" {
        return Err(not_artifact("it is no shared object (64-bit little-endian ELF)"));
    }
    let cache = ReadCache::new(file);
    let elf = ElfFile64::<Endianness, _>::parse(&cache).map_err(|e| not_artifact(&format!("it is damaged: {e}")))?;
    let endian = elf.endian();
    if elf.elf_header().e_type(endian) != elf::ET_DYN {
        return Err(not_artifact("it is an ELF file, but no shared object"));
    }
    let here = match std::env::consts::ARCH {
        "x86_64" => Architecture::X86_64,
        "aarch64" => Architecture::Aarch64,
        _ => Architecture::Unknown,
    };
    if elf.architecture() != here {
        let made_for = match elf.architecture() {
            Architecture::X86_64 => "x86_64".to_owned(),
            Architecture::Aarch64 => "aarch64".to_owned(),
            other => format!("{other:?}"),
        };
        return Err(LoadError::Host { path: path.to_owned(), made_for, why: format!("is {}", std::env::consts::ARCH) });
    }
    for segment in elf.elf_program_headers() {
        let (start, bytes) = segment.file_range(endian);
        if start.checked_add(bytes).is_none_or(|end| end > status.len()) {
            return Err(not_artifact(&format!(
                "it is truncated: a segment ends at byte {}, but the file has {}",
                start.saturating_add(bytes),
                status.len()
            )));
        }
    }
    if !elf.dynamic_symbols().any(|symbol| symbol.is_definition() && symbol.name() == Ok(ENTRY)) {
        return Err(not_artifact("it does not export `aotfarm_model`"));
    }
    Ok(())
}
