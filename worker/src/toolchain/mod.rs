//! Compilers: which there are on this host, and what they build for.

pub(crate) mod cc;
pub(crate) mod nvrtc;
mod search;

use aotfarm_protocol::Toolchain;

use crate::sandbox::ChildProgram;

pub use self::cc::{Compiler, NoCompiler};
pub use self::nvrtc::{NoNvrtc, Nvrtc, NvrtcSearch};
pub use self::search::Search;

/// The compilers of this host, and why there is not more.
#[derive(Debug, Clone, Default)]
pub struct Toolchains {
    compilers: Vec<Compiler>,
    nvrtc: Option<Nvrtc>,
    no_compiler: Option<NoCompiler>,
    no_nvrtc: Option<NoNvrtc>,
}

impl Toolchains {
    /// Finds and probes the compilers; `child` is how children are started.
    pub async fn detect(search: &Search, child: &ChildProgram) -> Self {
        let (compilers, nvrtc) = tokio::join!(cc::detect(search), Nvrtc::detect(&search.nvrtc, child));
        let (compilers, no_compiler) = match compilers {
            Ok(compilers) => (compilers, None),
            Err(error) => (Vec::new(), Some(error)),
        };
        let (nvrtc, no_nvrtc) = match nvrtc {
            Ok(nvrtc) => (Some(nvrtc), None),
            Err(error) => (None, Some(error)),
        };
        Self { compilers, nvrtc, no_compiler, no_nvrtc }
    }

    /// What is advertised to the coordinator.
    pub fn advertised(&self) -> Vec<Toolchain> {
        let compilers = self.compilers.iter().map(|c| Toolchain { id: c.id.clone(), targets: c.targets.clone() });
        compilers.chain(self.nvrtc.iter().map(|n| Toolchain { id: n.id.clone(), targets: n.targets.clone() })).collect()
    }

    /// The C compilers, the host's own first.
    pub fn compilers(&self) -> &[Compiler] {
        &self.compilers
    }

    /// The C compiler with the given identity.
    pub fn by_id(&self, id: &str) -> Option<&Compiler> {
        self.compilers.iter().find(|c| c.id == id)
    }

    /// The C compiler that builds what this host runs.
    pub fn native(&self) -> Option<&Compiler> {
        self.compilers.iter().find(|c| c.targets.iter().any(|t| t.architecture() == Some(std::env::consts::ARCH)))
    }

    /// NVIDIA's compiler.
    pub fn nvrtc(&self) -> Option<&Nvrtc> {
        self.nvrtc.as_ref()
    }

    /// Why there is no C compiler, if there is none.
    pub fn no_compiler(&self) -> Option<&NoCompiler> {
        self.no_compiler.as_ref()
    }

    /// Why there is no NVRTC, if there is none.
    pub fn no_nvrtc(&self) -> Option<&NoNvrtc> {
        self.no_nvrtc.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_hosts_compiler_is_identified_and_probed() {
        let Ok(compilers) = cc::detect(&Search::from_env()).await else {
            return eprintln!("skipped: no C compiler");
        };
        let found = Toolchains { compilers, ..Toolchains::default() };
        let native = found.native().expect("the host's own compiler comes first");
        assert!(native.targets.iter().all(|t| t.architecture() == Some(std::env::consts::ARCH)), "{native:?}");
        assert!(native.id.starts_with("gcc-") || native.id.starts_with("clang-"), "{}", native.id);
        assert_eq!(native.id.rsplit('-').next().unwrap().len(), 8);
        assert_eq!(found.by_id(&native.id).unwrap().id, native.id);
        assert!(found.by_id("gcc-0").is_none());
    }
}
