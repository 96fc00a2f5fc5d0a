//! NVIDIA's run-time compiler as a toolchain: where it is, what it builds for, and how it is called.
//!
//! It needs neither toolkit, nor headers, nor driver, nor GPU. Each unit is compiled in a child of its own: loading the library takes
//! 10 ms, a kernel 30 to 300, and a compiler that crashes or never ends costs one unit.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aotfarm_protocol::{KeyHasher, Target, VendorLibrary};
use tokio_util::sync::CancellationToken;

use crate::child::nvrtc::{Compile, NvrtcEvent, NvrtcJob};
use crate::sandbox::{ChildError, ChildProgram, Limits, chain, shorten};

/// Options of every compilation; the target adds its architecture.
const COMMON: &[&str] = &["-std=c++17", "--disable-warnings"];
/// A compilation may take this long and this much address space.
const LIMITS: Limits = Limits { time: Duration::from_secs(120), memory: Some(8 << 30), file: 1 << 30, output: 256 << 10 };
/// The oldest version that knows what kernels are written with: parameters that stay in constant memory, and clusters.
const OLDEST: (i32, i32) = (12, 0);
/// Names under which the loader may know it.
const LOADER_NAMES: [&str; 2] = ["libnvrtc.so.13", "libnvrtc.so.12"];

/// There is no usable NVRTC.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoNvrtc {
    /// It is in none of the places.
    #[error(
        "NVRTC not found: install it, e.g. `pip install nvidia-cuda-nvrtc`, and set AOTFARM_NVRTC to libnvrtc.so if it is in an unusual place"
    )]
    NotFound,
    /// It is there, but it does not work.
    #[error("NVRTC at {} cannot be used: {reason}", library.display())]
    Broken {
        /// The last one that was tried.
        library: PathBuf,
        /// Why.
        reason: String,
    },
}

/// Where NVRTC is looked for, in this order: the variable, toolkits, the loader's path, Python packages, `/usr/local`.
#[derive(Debug, Clone, Default)]
pub struct NvrtcSearch {
    /// The library or its folder; nothing else is tried then.
    pub only: Option<PathBuf>,
    /// Folders of CUDA toolkits.
    pub toolkits: Vec<PathBuf>,
    /// Whether to ask the loader.
    pub loader: bool,
    /// Prefixes of Python installations, under which packages lie in `lib/python3*/site-packages`.
    pub prefixes: Vec<PathBuf>,
    /// A folder with toolkits that are called `cuda*`.
    pub versions: Option<PathBuf>,
}

impl NvrtcSearch {
    /// `AOTFARM_NVRTC`, `CUDA_HOME`, `CUDA_PATH`, `VIRTUAL_ENV`, `CONDA_PREFIX`, every `python3` of `path`, and the usual places.
    pub(crate) fn from_env(path: &OsStr) -> Self {
        let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let mut prefixes: Vec<PathBuf> = ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(var).collect();
        for bin in std::env::split_paths(path).filter(|dir| dir.join("python3").exists()) {
            prefixes.extend(bin.parent().map(Path::to_owned));
        }
        prefixes.extend(var("HOME").map(|home| home.join(".local")));
        prefixes.extend(["/usr/local", "/usr"].map(PathBuf::from));
        let mut seen = std::collections::HashSet::new();
        prefixes.retain(|p| seen.insert(p.clone()));
        Self {
            only: var("AOTFARM_NVRTC"),
            toolkits: ["CUDA_HOME", "CUDA_PATH", "CONDA_PREFIX"].into_iter().filter_map(var).collect(),
            loader: true,
            prefixes,
            versions: Some(PathBuf::from("/usr/local")),
        }
    }

    /// Libraries to try, the preferred first.
    fn candidates(&self) -> Vec<PathBuf> {
        if let Some(only) = &self.only {
            return if only.is_dir() { newest(only).into_iter().collect() } else { vec![only.clone()] };
        }
        let toolkit =
            |home: &PathBuf| ["lib64", "lib", "targets/x86_64-linux/lib", "targets/sbsa-linux/lib"].map(|d| home.join(d));
        let mut found: Vec<PathBuf> = self.toolkits.iter().flat_map(toolkit).filter_map(|dir| newest(&dir)).collect();
        if self.loader {
            found.extend(LOADER_NAMES.map(PathBuf::from));
        }
        found.extend(self.packages().iter().filter_map(|dir| newest(dir)));
        let mut versions = self.versions.as_deref().map_or_else(Vec::new, |dir| entries(dir, "cuda"));
        versions.reverse();
        found.extend(versions.iter().filter_map(|home| newest(&home.join("lib64"))));
        found
    }

    /// Where another of NVIDIA's libraries lies, one whose name begins so: `libcudnn.so`.
    pub fn library(&self, name: &str) -> Option<PathBuf> {
        let loader = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
        let system = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/local/cuda/lib64"];
        let places = std::env::split_paths(&loader)
            .chain(self.toolkits.iter().map(|home| home.join("lib64")))
            .chain(self.packages())
            .chain(system.map(PathBuf::from));
        places.filter_map(|dir| entries(&dir, name).pop()).next()
    }

    /// A library to compare with: what its variable names, else where NVIDIA's libraries lie.
    pub fn vendor(&self, library: VendorLibrary) -> Option<PathBuf> {
        match std::env::var_os(library.variable()) {
            Some(path) => Some(PathBuf::from(path)).filter(|path| !path.as_os_str().is_empty()),
            None => self.library(library.file()),
        }
    }

    /// All that are found.
    pub(crate) fn vendors(&self) -> BTreeMap<VendorLibrary, PathBuf> {
        VendorLibrary::ALL.into_iter().filter_map(|library| Some((library, self.vendor(library)?))).collect()
    }

    /// Library folders of NVIDIA's Python packages.
    fn packages(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for lib in self.prefixes.iter().flat_map(|prefix| ["lib", "lib64"].map(|lib| prefix.join(lib))) {
            for python in entries(&lib, "python3") {
                for nvidia in ["site-packages", "dist-packages"].map(|site| python.join(site).join("nvidia")) {
                    found.extend(entries(&nvidia, "").into_iter().map(|package| package.join("lib")));
                }
            }
        }
        found
    }
}

/// What a folder holds whose name begins with `prefix`, in order of their names.
fn entries(dir: &Path, prefix: &str) -> Vec<PathBuf> {
    let named = |e: &fs::DirEntry| e.file_name().to_string_lossy().starts_with(prefix);
    let mut found: Vec<PathBuf> = fs::read_dir(dir).into_iter().flatten().flatten().filter(named).map(|e| e.path()).collect();
    found.sort();
    found
}

/// The library with the highest version in a folder.
fn newest(dir: &Path) -> Option<PathBuf> {
    let version = |path: &PathBuf| -> Vec<u32> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.trim_start_matches("libnvrtc.so").split('.').filter_map(|n| n.parse().ok()).collect()
    };
    entries(dir, "libnvrtc.so").into_iter().max_by_key(version)
}

/// An NVRTC that works.
#[derive(Debug, Clone)]
pub struct Nvrtc {
    /// Where it is.
    pub library: PathBuf,
    /// Major and minor.
    pub version: (i32, i32),
    /// `nvrtc-13.0-1f3a9c02`.
    pub id: String,
    /// What it builds for.
    pub targets: Vec<Target>,
}

impl Nvrtc {
    /// Finds and probes it.
    pub(crate) async fn detect(search: &NvrtcSearch, child: &ChildProgram) -> Result<Self, NoNvrtc> {
        let mut missing = NoNvrtc::NotFound;
        for library in search.candidates() {
            match Self::probe(&library, child).await {
                Ok(found) => return Ok(found),
                // Names that the loader does not know are no news.
                Err(_) if library.components().count() == 1 => {}
                Err(reason) => missing = NoNvrtc::Broken { library, reason },
            }
        }
        Err(missing)
    }

    async fn probe(library: &Path, child: &ChildProgram) -> Result<Self, String> {
        let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
        let job = NvrtcJob { library: library.to_owned(), compile: None };
        match child.run("nvrtc", dir.path(), &job, LIMITS, &CancellationToken::new()).await {
            Ok(Ok(NvrtcEvent::Found { version, .. })) if version < OLDEST => {
                Err(format!("version {}.{} is older than {}.{}", version.0, version.1, OLDEST.0, OLDEST.1))
            }
            Ok(Ok(NvrtcEvent::Found { library, digest, version, archs })) => {
                // The options are part of the identity: a worker that calls the same library otherwise makes other objects.
                let key = KeyHasher::new("toolchain").field(digest).list(COMMON).finish();
                let id = format!("nvrtc-{}.{}-{}", version.0, version.1, &key.hex()[..8]);
                let targets = archs.into_iter().map(|sm| Target::Cuda { sm }).collect();
                Ok(Self { library, version, id, targets })
            }
            Ok(Ok(NvrtcEvent::Unusable { reason }) | Err(reason)) => Err(reason),
            Ok(Ok(NvrtcEvent::Compiled | NvrtcEvent::Refused { .. })) => Err("an answer out of turn".to_owned()),
            Err(error) => Err(chain(&error)),
        }
    }

    /// Compiles a unit to a cubin. The inner error is what the compiler said when it refused, shortened.
    pub(crate) async fn compile(
        &self,
        child: &ChildProgram,
        unit: &Unit<'_>,
        cancel: &CancellationToken,
    ) -> Result<Result<(), String>, ChildError> {
        let mut options = vec![format!("--gpu-architecture={}", architecture(unit.sm))];
        options.extend(COMMON.iter().map(ToString::to_string).chain(unit.flags.iter().cloned()));
        let compile = Compile { source: unit.dir.join(unit.source), output: unit.dir.join(unit.object), options };
        let job = NvrtcJob { library: self.library.clone(), compile: Some(compile) };
        match child.run("nvrtc", unit.dir, &job, LIMITS, cancel).await? {
            Ok(NvrtcEvent::Compiled) => Ok(Ok(())),
            Ok(NvrtcEvent::Refused { log }) => Ok(Err(shorten(&log))),
            Ok(NvrtcEvent::Unusable { reason }) => Err(ChildError::Failed { kind: "nvrtc", reason }),
            Ok(NvrtcEvent::Found { .. }) => Err(ChildError::Failed { kind: "nvrtc", reason: "an answer out of turn".to_owned() }),
            Err(death) => Ok(Err(format!("NVRTC failed: {death}"))),
        }
    }
}

/// What NVRTC is asked to compile.
#[derive(Debug)]
pub(crate) struct Unit<'a> {
    /// The folder of both files.
    pub(crate) dir: &'a Path,
    /// CUDA C++.
    pub(crate) source: &'a str,
    /// The cubin to write.
    pub(crate) object: &'a str,
    /// The compute capability.
    pub(crate) sm: u32,
    /// Options beyond the usual ones.
    pub(crate) flags: &'a [String],
}

/// The architecture to compile for: from 9.0 on the one with the instructions that no later GPU has, tensor cores above all.
fn architecture(sm: u32) -> String {
    format!("sm_{sm}{}", if sm >= 90 { "a" } else { "" })
}

/// Whether an option from a work item may be passed on: definitions and code generation, nothing that reads files.
pub(crate) fn flag_is_allowed(flag: &str) -> bool {
    let plain = flag.bytes().all(|b| b.is_ascii_graphic());
    let known = ["-D", "-U", "--maxrregcount=", "--use_fast_math", "--fmad=", "--ftz=", "--prec-"];
    plain && known.iter().any(|p| flag.starts_with(p) && (flag.len() > p.len() || *p == "--use_fast_math"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_found_where_toolkits_and_packages_put_them() {
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "").unwrap();
            path
        };
        let toolkit = put("home/lib64/libnvrtc.so.13.0.88");
        put("home/lib64/libnvrtc.so.12");
        put("home/lib64/libnvrtc.so");
        put("home/lib64/libnvrtc-builtins.so.13.0");
        let package = put("venv/lib/python3.12/site-packages/nvidia/cu13/lib/libnvrtc.so.13");
        let older = put("venv/lib/python3.9/site-packages/nvidia/cuda_nvrtc/lib/libnvrtc.so.12");
        let local = put("local/cuda-12.8/lib64/libnvrtc.so.12");
        let search = NvrtcSearch {
            toolkits: vec![root.path().join("home")],
            prefixes: vec![root.path().join("venv")],
            versions: Some(root.path().join("local")),
            ..NvrtcSearch::default()
        };
        assert_eq!(search.candidates(), [toolkit.clone(), package, older, local]);
        let only = NvrtcSearch { only: Some(root.path().join("home/lib64")), ..search };
        assert_eq!(only.candidates(), [toolkit]);
    }

    #[test]
    fn architectures_and_options() {
        assert_eq!([80, 89, 90, 100, 120].map(architecture), ["sm_80", "sm_89", "sm_90a", "sm_100a", "sm_120a"]);
        for good in ["-DX=1", "--maxrregcount=64", "--use_fast_math", "--ftz=true"] {
            assert!(flag_is_allowed(good), "{good}");
        }
        for bad in ["-I/etc", "--include-path=/", "-D", "-D a", "--pre-include=/etc/passwd", "--gpu-architecture=sm_50", "x.cu"] {
            assert!(!flag_is_allowed(bad), "{bad}");
        }
    }
}
