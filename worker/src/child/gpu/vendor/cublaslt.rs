//! cuBLASLt (<https://docs.nvidia.com/cuda/cublas/#using-the-cublaslt-api>), as its versions 12 and 13 have it.
//!
//! It takes column-major matrices, so what is row-major here is transposed there: `Dᵀ = Bᵀ Aᵀ`. Its first factor is our b, of n columns.

use std::ffi::{c_char, c_int, c_void};
use std::path::Path;
use std::ptr::{self, null_mut};

use aotfarm_abi::vendor::cublaslt::*;
use aotfarm_protocol::{Activation, DType, Extent, VendorMatMul};
use cudarc::driver::sys::CUstream;

use super::library::{Descriptor, Handle, Operands, Status, Way, api, convert, fastest};
use crate::child::gpu::driver::{Gpu, Memory, Region};

/// `cublasLtMatmulAlgo_t`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Algorithm([u64; 8]);

/// `cublasLtMatmulHeuristicResult_t`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Heuristic {
    algorithm: Algorithm,
    workspace: usize,
    status: Status,
    waves: f32,
    reserved: [c_int; 4],
}

/// Sets an attribute of a descriptor.
type Set = unsafe extern "C" fn(Descriptor, c_int, *const c_void, usize) -> Status;

api! {
    CublasLt: text = "cublasLtGetStatusString";
    create = "cublasLtCreate": fn(*mut Handle);
    create_product = "cublasLtMatmulDescCreate": fn(*mut Descriptor, c_int, c_int);
    set_product = "cublasLtMatmulDescSetAttribute": fn(Descriptor, c_int, *const c_void, usize);
    create_layout = "cublasLtMatrixLayoutCreate": fn(*mut Descriptor, c_int, u64, u64, i64);
    set_layout = "cublasLtMatrixLayoutSetAttribute": fn(Descriptor, c_int, *const c_void, usize);
    create_preference = "cublasLtMatmulPreferenceCreate": fn(*mut Descriptor);
    set_preference = "cublasLtMatmulPreferenceSetAttribute": fn(Descriptor, c_int, *const c_void, usize);
    choose = "cublasLtMatmulAlgoGetHeuristic": fn(
        Handle, Descriptor, Descriptor, Descriptor, Descriptor, Descriptor, Descriptor, c_int, *mut Heuristic, *mut c_int
    );
    matmul = "cublasLtMatmul": fn(
        Handle, Descriptor, *const f32, *const c_void, Descriptor, *const c_void, Descriptor, *const f32, *const c_void, Descriptor,
        *mut c_void, Descriptor, *const Algorithm, *mut c_void, usize, CUstream
    );
}

impl Api {
    /// Sets an attribute of a descriptor.
    ///
    /// # Safety
    /// The descriptor is of the kind that `set` is for, and `T` is the attribute's type.
    unsafe fn set<T>(&self, set: Set, descriptor: Descriptor, attribute: c_int, value: &T) -> Result<(), String> {
        // SAFETY: the caller's promise; the value is read during the call.
        let done = unsafe { set(descriptor, attribute, ptr::from_ref(value).cast(), size_of::<T>()) };
        self.check("describe the product to cuBLASLt", done)
    }
}

/// cuBLASLt, opened.
pub(super) struct CublasLt {
    api: Api,
    handle: Handle,
}

/// A described product.
struct Described<'h> {
    cublaslt: &'h CublasLt,
    stream: CUstream,
    product: Descriptor,
    a: Descriptor,
    b: Descriptor,
    /// Of the residual and the result.
    d: Descriptor,
    /// The bias in the type of the result, to which `product` points.
    _bias: Option<Memory>,
}

/// A product with the fastest algorithm of those that were tried.
pub(in crate::child::gpu) struct Plan<'h> {
    described: Described<'h>,
    best: Way<(usize, Algorithm)>,
}

impl Plan<'_> {
    /// The algorithm's place among the proposals: it has no other name.
    pub(super) fn algorithm(&self) -> i64 {
        self.best.algorithm.0 as i64
    }

    pub(super) const fn seconds(&self) -> f64 {
        self.best.seconds
    }

    pub(super) fn run(&self, at: Operands<'_>) -> Result<(), String> {
        self.described.run(&self.best.algorithm.1, &self.best.workspace, at)
    }
}

impl CublasLt {
    /// Opens the library for the current context.
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let api = Api::open(path)?;
        let mut handle = null_mut();
        // SAFETY: an out-parameter on the stack.
        api.check("start cuBLASLt", unsafe { (api.create)(&raw mut handle) })?;
        Ok(Self { api, handle })
    }

    /// Describes the product and finds a fast algorithm. `bias` holds the bias in f32 on the device.
    pub(super) fn plan<'h>(
        &'h self,
        gpu: &Gpu,
        product: &VendorMatMul,
        dims: &[i64],
        at: Operands<'_>,
        bias: Option<Region<'_>>,
    ) -> Result<Plan<'h>, String> {
        let n = product.n.at(dims).ok_or("its result has no size")?;
        let bias = bias.map(|bias| convert(gpu, bias, n, product.dtypes[1])).transpose()?;
        let described = self.describe(gpu, product, dims, bias)?;
        let found = described.algorithms()?;
        let usable = found.into_iter().enumerate().filter(|(_, proposal)| proposal.status == 0);
        let algorithms = usable.map(|(place, proposal)| ((place, proposal.algorithm), proposal.workspace as u64));
        let best = fastest(gpu, algorithms, |(_, algorithm), workspace| described.run(algorithm, workspace, at));
        Ok(Plan { best: best.ok_or("cuBLASLt has no algorithm for it")?, described })
    }

    fn describe(&self, gpu: &Gpu, product: &VendorMatMul, dims: &[i64], bias: Option<Memory>) -> Result<Described<'_>, String> {
        let api = &self.api;
        let size = |extent: &Extent| extent.at(dims).filter(|n| *n > 0).ok_or("it has a size that is not positive");
        let (batch, m, n, k) = (size(&product.batch)?, size(&product.m)?, size(&product.n)?, size(&product.k)?);
        let count = c_int::try_from(batch).map_err(|_| format!("{batch} matrices are too many for cuBLASLt"))?;
        let [factors, result] = product.dtypes;
        let layout = |dtype: DType, rows: i64, columns: i64| -> Result<Descriptor, String> {
            let (mut layout, stride) = (null_mut(), rows.saturating_mul(columns));
            // SAFETY: an out-parameter on the stack; attributes with the types of the documentation.
            unsafe {
                let made = (api.create_layout)(&raw mut layout, data_type(dtype)?, rows as u64, columns as u64, rows);
                api.check("describe a matrix", made)?;
                api.set(api.set_layout, layout, MATRIX_BATCH, &count)?;
                api.set(api.set_layout, layout, MATRIX_STRIDE, &stride)?;
            }
            Ok(layout)
        };
        let a = if product.b_transposed { layout(factors, k, n)? } else { layout(factors, n, k)? };
        let (b, d) = (layout(factors, k, m)?, layout(result, n, m)?);
        let compute = if product.tf32 { COMPUTE_32F_FAST_TF32 } else { COMPUTE_32F };
        let mut epilogue = match product.activation {
            Activation::None => EPILOGUE_DEFAULT,
            Activation::Relu => EPILOGUE_RELU,
            Activation::Gelu => EPILOGUE_GELU,
        };
        if bias.is_some() {
            // "Default" is the lowest bit, which no other has.
            epilogue = epilogue & !EPILOGUE_DEFAULT | EPILOGUE_BIAS;
        }
        let mut descriptor = null_mut();
        // SAFETY: as above.
        unsafe {
            api.check("describe the product", (api.create_product)(&raw mut descriptor, compute, R_32F))?;
            if product.b_transposed {
                api.set(api.set_product, descriptor, PRODUCT_TRANSA, &TRANSPOSE)?;
            }
            api.set(api.set_product, descriptor, PRODUCT_EPILOGUE, &epilogue)?;
            if let Some(bias) = &bias {
                api.set(api.set_product, descriptor, PRODUCT_BIAS, &bias.region().address())?;
            }
        }
        Ok(Described { cublaslt: self, stream: gpu.raw_stream(), product: descriptor, a, b, d, _bias: bias })
    }
}

fn data_type(dtype: DType) -> Result<c_int, String> {
    match dtype {
        DType::F32 => Ok(R_32F),
        DType::F16 => Ok(R_16F),
        DType::Bf16 => Ok(R_16BF),
        other => Err(format!("cuBLASLt does not multiply {other}")),
    }
}

impl Described<'_> {
    /// The algorithms that cuBLASLt believes fastest, best first.
    fn algorithms(&self) -> Result<Vec<Heuristic>, String> {
        let api = &self.cublaslt.api;
        let preference = api.descriptor(api.create_preference)?;
        let nothing = Heuristic { algorithm: Algorithm([0; 8]), workspace: 0, status: -1, waves: 0.0, reserved: [0; 4] };
        let (mut found, mut tried) = (0, [nothing; PROPOSALS]);
        // SAFETY: attributes with the types of the documentation; room for as many results as are asked for.
        unsafe {
            api.set(api.set_preference, preference, PREFER_WORKSPACE, &PROPOSAL_BYTES)?;
            for attribute in (PREFER_ALIGNMENT..).take(4) {
                api.set(api.set_preference, preference, attribute, &PROPOSAL_ALIGN)?;
            }
            let Self { product, a, b, d, .. } = *self;
            let (handle, room) = (self.cublaslt.handle, PROPOSALS as c_int);
            let chosen = (api.choose)(handle, product, a, b, d, d, preference, room, tried.as_mut_ptr(), &raw mut found);
            api.check("choose cuBLASLt's algorithm", chosen)?;
        }
        let found = (found.max(0) as usize).min(PROPOSALS);
        Ok(tried[..found].to_vec())
    }

    /// Puts the product on the stream.
    fn run(&self, algorithm: &Algorithm, workspace: &Memory, at: Operands<'_>) -> Result<(), String> {
        let (one, beta) = (1f32, if at.residual.is_some() { 1f32 } else { 0f32 });
        let api = &self.cublaslt.api;
        // SAFETY: descriptors and handle live as long as `self`, and the workspace has as many
        // bytes as are told. The operands are memory of the device until the run is over; whether
        // they have the shape that is described is the work item's promise, and a wrong one an
        // error of the device, in a process made for that.
        let run = unsafe {
            (api.matmul)(
                self.cublaslt.handle,
                self.product,
                &raw const one,
                at.right.as_ptr(),
                self.a,
                at.left.as_ptr(),
                self.b,
                &raw const beta,
                at.residual.unwrap_or(at.result).as_ptr(),
                self.d,
                at.result.as_mut_ptr(),
                self.d,
                algorithm,
                workspace.region().as_mut_ptr(),
                workspace.bytes() as usize,
                self.stream,
            )
        };
        api.check("run cuBLASLt's product", run)
    }
}
