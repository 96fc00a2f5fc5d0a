//! No family: what NVIDIA's libraries would do, the baseline of the AUTOTUNE tables. It has no code
//! of ours, and enters an artifact only where the job allows that.

use aotfarm_protocol::{Activation, DType, Extent, Params, VendorCall, VendorConv, VendorLibrary, VendorMatMul};

use super::shared::geometry::{Conv, Image, Product};
use crate::candidate::Candidate;
use crate::family::{FamilyId, KernelSource, Needs};
use crate::task::TuningTask;
use aotfarm_ir::{BinaryOp, UnaryOp};
use aotfarm_plan::spec::{EpilogueStep, KernelKind, Math, Size};

/// Names a library in tables and records.
const fn family(library: VendorLibrary) -> FamilyId {
    match library {
        VendorLibrary::Cudnn => "cudnn@2",
        VendorLibrary::CublasLt => "cublaslt@1",
    }
}

/// The baseline of a task, if a vendor's library computes it in one call: a convolution of NHWC
/// images of one type, with at most a bias, a residual and a ReLU after it; a matrix product of one
/// type, with at most these or a GELU.
pub fn baseline(task: &TuningTask) -> Option<Candidate> {
    let call = conv(task).map(VendorCall::Conv).or_else(|| product(task).map(VendorCall::MatMul))?;
    let family = family(call.library());
    // The object that goes with it is never run, nor linked.
    let symbol = format!("aot_{}", family.split('@').next().unwrap_or(family));
    let text = format!("/* {family}: called by the worker */\nextern \"C\" __global__ void {symbol}() {{}}\n");
    let source = KernelSource { text, symbol, packs: false };
    Some(Candidate { vendor: Some(call), ..Candidate::foreign(family, task, Params::new(), source, Needs::NONE) })
}

/// The fused steps that a library can do in the same call, in this order.
struct Fused {
    bias: Option<usize>,
    residual: Option<usize>,
    activation: Option<UnaryOp>,
}

impl Fused {
    fn of(steps: &[EpilogueStep]) -> Option<Self> {
        let mut fused = Self { bias: None, residual: None, activation: None };
        for step in steps {
            if fused.activation.is_some() {
                return None;
            }
            match step {
                EpilogueStep::Bias(k) if fused.bias.is_none() => fused.bias = Some(*k),
                EpilogueStep::Residual(BinaryOp::Add, k) if fused.residual.is_none() => fused.residual = Some(*k),
                EpilogueStep::Unary(op) => fused.activation = Some(*op),
                _ => return None,
            }
        }
        Some(fused)
    }
}

fn conv(task: &TuningTask) -> Option<VendorConv> {
    let conv = Conv::of(task).ok()?;
    let KernelKind::Conv(spec) = &task.spec.kind else { return None };
    let nhwc = |image: &Image| image.block == Some(image.c) && image.dtype == conv.weight_dtype;
    let symmetric = conv.window.pad.iter().all(|[before, after]| before == after);
    if conv.pool.is_some() || conv.groups != 1 || !nhwc(&conv.input) || !nhwc(&conv.output) || !symmetric {
        return None;
    }
    let fused = Fused::of(&spec.epilogue)?;
    let relu = match fused.activation {
        None => false,
        Some(UnaryOp::Relu) => true,
        Some(_) => return None,
    };
    Some(VendorConv {
        dtype: conv.weight_dtype,
        batch: extent(&[conv.batch]),
        input: [conv.input.c, conv.input.h, conv.input.w],
        output: [conv.output.c, conv.output.h, conv.output.w],
        kernel: conv.window.kernel,
        stride: conv.window.stride,
        pad: conv.window.pad.map(|[before, _]| before),
        dilation: conv.window.dilation,
        tf32: conv.math == Math::Tf32,
        bias: fused.bias?,
        residual: fused.residual,
        relu,
    })
}

fn product(task: &TuningTask) -> Option<VendorMatMul> {
    let product = Product::of(task).ok()?;
    let KernelKind::MatMul(spec) = &task.spec.kind else { return None };
    let [a, b, result] = product.dtypes;
    let fused = Fused::of(&spec.epilogue)?;
    let residual_fits = fused.residual.is_none_or(|k| task.spec.inputs.get(k).is_some_and(|t| t.dtype == result));
    // Of b as an activation there is one matrix for each of a's.
    let paired = product.b_is_weight || matches!(&task.spec.inputs[1].shape[..], [batch @ .., _, _] if *batch == product.batch);
    // A bias lies along the rows of every matrix, which cuBLASLt takes to be one for each.
    let biased = fused.bias.is_none() || product.batch.is_empty();
    if a != b || !residual_fits || !paired || !biased {
        return None;
    }
    let tf32 = product.math == Math::Tf32;
    let activation = match fused.activation {
        None => Activation::None,
        Some(UnaryOp::Relu) => Activation::Relu,
        Some(UnaryOp::GeluTanh) => Activation::Gelu,
        // The tanh form is off by 5e-4 at most, which only f32 is exact enough to show. The check
        // has the last word.
        Some(UnaryOp::Gelu) if tf32 || a != DType::F32 => Activation::Gelu,
        Some(_) => return None,
    };
    Some(VendorMatMul {
        dtypes: [a, result],
        batch: extent(&product.batch),
        m: extent(&[product.m]),
        n: extent(&[product.n]),
        k: extent(&[product.k]),
        b_is_weight: product.b_is_weight,
        b_transposed: product.b_transposed,
        tf32,
        bias: fused.bias,
        residual: fused.residual,
        activation,
    })
}

/// The product of sizes.
fn extent(sizes: &[Size]) -> Extent {
    let mut extent = Extent::fixed(1);
    for size in sizes {
        match size {
            Size::Const(n) => extent.factor = extent.factor.saturating_mul(*n),
            Size::Dim(k) => extent.dims.push(*k),
        }
    }
    extent
}

#[cfg(test)]
mod tests {
    use aotfarm_protocol::Target;

    use super::*;
    use crate::conformance::{plain, task};
    use aotfarm_plan::spec::{Layout, MatMulSpec, TensorSpec};

    const GPU: Target = Target::Cuda { sm: 90 };

    /// A linear layer from 24 to 40, of `dim[0]` rows, that stores `types`: of its factors, and of
    /// its result.
    fn linear(types: [DType; 2], math: Math, epilogue: &[EpilogueStep]) -> TuningTask {
        let rows = |dtype, columns| TensorSpec { dtype, shape: vec![Size::Dim(0), Size::Const(columns)], layout: Layout::Plain };
        let kind = KernelKind::MatMul(MatMulSpec { b_is_weight: true, b_transposed: true, epilogue: epilogue.to_vec() });
        let inputs = vec![rows(types[0], 24), rows(types[1], 40)];
        let weights = vec![plain(types[0], &[40, 24]), plain(DType::F32, &[40])];
        let mut task = task(GPU, kind, inputs, weights, rows(types[1], 40), &[7]);
        task.spec.math = math;
        task
    }

    fn call(task: &TuningTask) -> Option<VendorCall> {
        baseline(task)?.vendor
    }

    const BIAS: EpilogueStep = EpilogueStep::Bias(1);
    const RESIDUAL: EpilogueStep = EpilogueStep::Residual(BinaryOp::Add, 1);

    #[test]
    fn a_linear_layer_is_one_call_of_cublaslt() {
        let layer = linear([DType::Bf16; 2], Math::Exact, &[BIAS, RESIDUAL, EpilogueStep::Unary(UnaryOp::Relu)]);
        let expected = VendorMatMul {
            dtypes: [DType::Bf16; 2],
            batch: Extent::fixed(1),
            m: Extent { factor: 1, dims: vec![0] },
            n: Extent::fixed(40),
            k: Extent::fixed(24),
            b_is_weight: true,
            b_transposed: true,
            tf32: false,
            bias: Some(1),
            residual: Some(1),
            activation: Activation::Relu,
        };
        assert_eq!(call(&layer), Some(VendorCall::MatMul(expected)));
        let candidate = baseline(&layer).unwrap();
        assert_eq!((candidate.family, aotfarm_protocol::params_text(&candidate.params).as_str()), ("cublaslt@1", "-"));
    }

    #[test]
    fn products_of_activations_are_strided_batches() {
        let tensor = |shape: [i64; 3]| plain(DType::F32, &shape);
        let kind = |epilogue| KernelKind::MatMul(MatMulSpec { b_is_weight: false, b_transposed: false, epilogue });
        let product = |b, epilogue: &[EpilogueStep]| {
            let weights = vec![plain(DType::F32, &[8]), plain(DType::F32, &[8])];
            task(GPU, kind(epilogue.to_vec()), vec![tensor([6, 5, 4]), tensor(b)], weights, tensor([6, 5, 8]), &[])
        };
        let Some(VendorCall::MatMul(found)) = call(&product([6, 4, 8], &[])) else { panic!("a call") };
        assert_eq!([found.batch, found.m, found.n, found.k], [6, 5, 8, 4].map(Extent::fixed));
        assert!(!found.b_is_weight && !found.b_transposed && found.bias.is_none());
        assert_eq!(call(&product([1, 4, 8], &[])), None, "one matrix for all");
        assert_eq!(call(&product([6, 4, 8], &[BIAS])), None, "a bias for each matrix");
    }

    #[test]
    fn what_is_more_than_one_call_has_no_baseline() {
        let f32s = [DType::F32; 2];
        let unary = EpilogueStep::Unary;
        let refused: [&[EpilogueStep]; 5] = [
            &[unary(UnaryOp::Relu), RESIDUAL],
            &[BIAS, BIAS],
            &[BIAS, EpilogueStep::Residual(BinaryOp::Mul, 1)],
            &[unary(UnaryOp::Sigmoid)],
            &[unary(UnaryOp::Gelu)],
        ];
        for epilogue in refused {
            assert_eq!(call(&linear(f32s, Math::Exact, epilogue)), None, "{epilogue:?}");
        }
        // What is less exact than f32 does not tell the two forms of GELU apart.
        let activation = |types, math, op| match call(&linear(types, math, &[unary(op)])) {
            Some(VendorCall::MatMul(product)) => Some(product.activation),
            _ => None,
        };
        assert_eq!(activation(f32s, Math::Exact, UnaryOp::GeluTanh), Some(Activation::Gelu));
        assert_eq!(activation(f32s, Math::Tf32, UnaryOp::Gelu), Some(Activation::Gelu));
        assert_eq!(activation([DType::F16; 2], Math::Exact, UnaryOp::Gelu), Some(Activation::Gelu));
        // Factors of two types.
        let mut mixed = linear([DType::Bf16, DType::F32], Math::Exact, &[BIAS]);
        assert!(call(&mixed).is_some());
        mixed.spec.inputs[0].dtype = DType::F32;
        assert_eq!(call(&mixed), None);
    }
}
