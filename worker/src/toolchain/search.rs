//! Where compilers are looked for.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::nvrtc::NvrtcSearch;

/// Where compilers are looked for.
#[derive(Debug, Clone)]
pub struct Search {
    /// The one compiler to use instead of `cc`, `gcc` or `clang`.
    pub cc: Option<OsString>,
    /// Folders, as in `PATH`.
    pub path: OsString,
    /// Where to look for NVRTC.
    pub nvrtc: NvrtcSearch,
}

impl Search {
    /// `AOTFARM_CC` and `PATH` of this process, and for NVRTC what [`NvrtcSearch`] says.
    pub fn from_env() -> Self {
        let cc = std::env::var_os("AOTFARM_CC").filter(|cc| !cc.is_empty());
        let path = std::env::var_os("PATH").unwrap_or_default();
        Self { cc, nvrtc: NvrtcSearch::from_env(&path), path }
    }

    /// The program of this name, or at this path.
    pub(super) fn find(&self, name: &OsStr) -> Option<PathBuf> {
        let executable = |p: &Path| p.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
        if Path::new(name).components().count() > 1 {
            return Some(PathBuf::from(name)).filter(|p| executable(p));
        }
        std::env::split_paths(&self.path).map(|dir| dir.join(name)).find(|p| executable(p))
    }
}
