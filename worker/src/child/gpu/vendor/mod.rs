//! NVIDIA's libraries, where the host has them: what they take stands in the AUTOTUNE tables for comparison. They are opened at run time.
//!
//! A library has several algorithms for a call, and its own belief which is the fastest is often wrong. Those it believes in are tried, in graphs,
//! because making a call takes the host longer than a small one takes the GPU; the fastest stands for the library.

mod cublaslt;
mod cudnn;
mod library;

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::path::PathBuf;

use aotfarm_protocol::{VendorCall, VendorLibrary};

use self::cublaslt::CublasLt;
use self::cudnn::Cudnn;
pub(super) use self::library::Operands;
use super::driver::{Gpu, Region};

/// The libraries that this process has opened; they and their descriptors live as long as it does.
#[derive(Default)]
pub(super) struct Libraries {
    cudnn: OnceCell<Result<Cudnn, String>>,
    cublaslt: OnceCell<Result<CublasLt, String>>,
}

impl Libraries {
    /// Opens the library of a call, if no job did before. It takes a good part of a second.
    pub(super) fn open(&self, gpu: &Gpu, paths: &BTreeMap<VendorLibrary, PathBuf>, call: &VendorCall) {
        let library = call.library();
        let path = || paths.get(&library).ok_or_else(|| format!("this host has no {}", library.name()));
        match library {
            VendorLibrary::Cudnn => drop(self.cudnn.get_or_init(|| Cudnn::open(path()?, gpu)).as_ref()),
            VendorLibrary::CublasLt => drop(self.cublaslt.get_or_init(|| CublasLt::open(path()?)).as_ref()),
        }
    }

    /// Describes a call at sizes `dims` and finds the fastest algorithm. `bias` holds the bias in f32.
    pub(super) fn plan<'h>(
        &'h self,
        gpu: &'h Gpu,
        call: &VendorCall,
        dims: &[i64],
        at: Operands<'_>,
        bias: Option<Region<'_>>,
    ) -> Result<Plan<'h>, String> {
        fn opened<T>(library: &OnceCell<Result<T, String>>) -> Result<&T, String> {
            library.get().ok_or("it was not opened for this job")?.as_ref().map_err(Clone::clone)
        }
        match call {
            VendorCall::Conv(conv) => opened(&self.cudnn)?.plan(gpu, conv, dims, at, bias).map(Plan::Conv),
            VendorCall::MatMul(product) => opened(&self.cublaslt)?.plan(gpu, product, dims, at, bias).map(Plan::MatMul),
        }
    }
}

/// A call with the fastest algorithm of those that were tried.
pub(super) enum Plan<'h> {
    Conv(cudnn::Plan<'h>),
    MatMul(cublaslt::Plan<'h>),
}

impl Plan<'_> {
    /// Seconds of a run, one of several in a graph on warm operands.
    pub(super) const fn seconds(&self) -> f64 {
        match self {
            Self::Conv(plan) => plan.seconds(),
            Self::MatMul(plan) => plan.seconds(),
        }
    }

    /// Which algorithm that is, as artifacts name it.
    pub(super) fn algorithm(&self) -> i64 {
        match self {
            Self::Conv(plan) => plan.algorithm(),
            Self::MatMul(plan) => plan.algorithm(),
        }
    }

    /// Puts the call on the stream.
    pub(super) fn run(&self, at: Operands<'_>) -> Result<(), String> {
        match self {
            Self::Conv(plan) => plan.run(at),
            Self::MatMul(plan) => plan.run(at),
        }
    }
}
