//! The tables of the steps that a library of NVIDIA's does, as `abi/artifact/vendor.c` reads them.

use std::collections::BTreeSet;

use aotfarm_protocol::{Activation, DType, Extent, VendorCall, VendorConv, VendorLibrary, VendorMatMul};
use indexmap::IndexSet;

use super::arrays::{Pool, array};
use super::error::LinkError;

/// A call, and by which of its library's algorithms.
pub(super) struct VendorStep {
    pub(super) call: VendorCall,
    pub(super) algorithm: i64,
}

/// Rows under construction; equal ones are stored once.
#[derive(Default)]
pub(super) struct VendorTables {
    libraries: BTreeSet<VendorLibrary>,
    convs: IndexSet<String>,
    products: IndexSet<String>,
    calls: IndexSet<String>,
}

impl VendorTables {
    /// A C expression that points to a call of a step with so many inputs.
    pub(super) fn add(&mut self, step: &VendorStep, inputs: usize, u32s: &mut Pool<u32>) -> Result<String, LinkError> {
        let VendorStep { call, algorithm } = step;
        self.libraries.insert(call.library());
        let number = |k: Option<usize>| k.map_or("RT_NONE".to_owned(), |k| k.to_string());
        let right = if call.multiplies_weight() { inputs } else { 1 };
        let (batch, geometry) = match call {
            VendorCall::Conv(conv) => {
                let (at, _) = self.convs.insert_full(row_of_conv(conv)?);
                (&conv.batch, format!("glue_convs + {at}, NULL"))
            }
            VendorCall::MatMul(product) => {
                let (at, _) = self.products.insert_full(row_of_product(product, u32s)?);
                (&product.batch, format!("NULL, glue_products + {at}"))
            }
        };
        let (residual, bias, batch) = (number(call.residual()), number(call.bias()), extent(batch, u32s));
        let (at, _) = self.calls.insert_full(format!("{{{algorithm}, {right}, {residual}, {bias}, {batch}, {geometry}}}"));
        Ok(format!("glue_vendors + {at}"))
    }

    /// Tells the runtime which libraries there are; before the runtime.
    pub(super) fn definition(&self) -> String {
        let name = |library: &VendorLibrary| match library {
            VendorLibrary::Cudnn => "RT_CUDNN",
            VendorLibrary::CublasLt => "RT_CUBLASLT",
        };
        format!("#define RT_VENDOR ({})\n", self.libraries.iter().map(name).collect::<Vec<_>>().join(" | "))
    }

    /// The arrays that [`Self::add`] points into.
    pub(super) fn print(self) -> String {
        array("rt_conv", "glue_convs", self.convs.into_iter())
            + &array("rt_product", "glue_products", self.products.into_iter())
            + &array("rt_vendor", "glue_vendors", self.calls.into_iter())
    }
}

fn row_of_conv(conv: &VendorConv) -> Result<String, LinkError> {
    let list = |sizes: &[i64]| format!("{{{}}}", sizes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "));
    let VendorConv { dtype, input, output, kernel, stride, pad, dilation, tf32, relu, .. } = conv;
    let numbers = [list(input), list(output), list(kernel), list(stride), list(pad), list(dilation)].join(", ");
    Ok(format!("{{{}, {tf32}, {relu}, {numbers}}}", element(*dtype)?))
}

fn row_of_product(product: &VendorMatMul, u32s: &mut Pool<u32>) -> Result<String, LinkError> {
    let VendorMatMul { dtypes: [factors, result], m, n, k, b_transposed, tf32, activation, .. } = product;
    let epilogue = match activation {
        Activation::None => "RT_EPILOGUE_DEFAULT",
        Activation::Relu => "RT_EPILOGUE_RELU",
        Activation::Gelu => "RT_EPILOGUE_GELU",
    };
    let sizes = [m, n, k].map(|size| extent(size, u32s)).join(", ");
    Ok(format!("{{{}, {}, {tf32}, {b_transposed}, {epilogue}, {sizes}}}", element(*factors)?, element(*result)?))
}

fn extent(extent: &Extent, u32s: &mut Pool<u32>) -> String {
    let dims: Vec<u32> = extent.dims.iter().map(|k| *k as u32).collect();
    format!("{{{}, {}, {}}}", extent.factor, u32s.add(&dims), dims.len())
}

fn element(dtype: DType) -> Result<&'static str, LinkError> {
    match dtype {
        DType::F32 => Ok("RT_F32"),
        DType::F16 => Ok("RT_F16"),
        DType::Bf16 => Ok("RT_BF16"),
        other => Err(LinkError::Plan(format!("NVIDIA's libraries do not multiply {other}"))),
    }
}
