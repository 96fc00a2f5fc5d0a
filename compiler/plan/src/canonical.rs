//! The canonical texts of kernel specs (see [`aotfarm_ir::canonical`]). Types whose names have changed keep the ones under
//! which their records are filed.

use aotfarm_ir::canonical::{Canonical, record, tuple};

use crate::spec::{
    AttentionSpec, Branch, ConvSpec, EpilogueStep, Index, KernelKind, KernelSpec, Layout, LoopNest, Mask, MatMulSpec, Math,
    PoolSpec, Reduction, RowSpec, Scalar, Size, TensorSpec, View,
};

/// A record that is named as its type, of all fields in this order.
macro_rules! canonical_record {
    ($type:ident { $($field:ident),* $(,)? }) => { canonical_record!($type as stringify!($type), { $($field),* }); };
    ($type:ident as $name:expr, { $($field:ident),* $(,)? }) => {
        impl Canonical for $type {
            fn write(&self, out: &mut String) {
                let Self { $($field),* } = self;
                record(out, $name, &[$((stringify!($field), $field)),*]);
            }
        }
    };
}

canonical_record!(KernelSpec as "TaskSpec", { kind, inputs, weights, outputs, dims, math });
canonical_record!(TensorSpec { dtype, shape, layout });
canonical_record!(ConvSpec { window, groups, epilogue, pool, branch, gate, mean });
canonical_record!(Branch { input, weight, window });
canonical_record!(MatMulSpec { b_is_weight, b_transposed, epilogue });
canonical_record!(PoolSpec { op, window });
canonical_record!(View { offset, strides });
canonical_record!(AttentionSpec { lead, rows, widths, scale, causal, views, mask });
canonical_record!(Mask { is_weight, view });
canonical_record!(Reduction { op, extents, element });
canonical_record!(LoopNest { extents, reduction, value, store });

impl Canonical for KernelKind {
    fn write(&self, out: &mut String) {
        match self {
            Self::Conv(spec) => tuple(out, "Conv", &[spec]),
            Self::MatMul(spec) => tuple(out, "MatMul", &[spec]),
            Self::Attention(spec) => tuple(out, "Attention", &[spec]),
            Self::Pool(spec) => tuple(out, "Pool", &[spec]),
            Self::Rows(spec) => tuple(out, "Rows", &[spec]),
            Self::Loops(nest) => tuple(out, "Loops", &[nest]),
        }
    }
}

impl Canonical for Size {
    fn write(&self, out: &mut String) {
        match self {
            Self::Const(n) => tuple(out, "Const", &[n]),
            Self::Dim(k) => tuple(out, "Dim", &[k]),
        }
    }
}

impl Canonical for Layout {
    fn write(&self, out: &mut String) {
        match self {
            Self::Plain => out.push_str("Plain"),
            Self::Image { block, halo } => record(out, "Image", &[("block", block), ("halo", halo)]),
        }
    }
}

impl Canonical for EpilogueStep {
    fn write(&self, out: &mut String) {
        match self {
            Self::Bias(weight) => tuple(out, "Bias", &[weight]),
            Self::Residual(op, input) => tuple(out, "Residual", &[op, input]),
            Self::Unary(op) => tuple(out, "Unary", &[op]),
        }
    }
}

impl Canonical for Math {
    fn write(&self, out: &mut String) {
        out.push_str(match self {
            Self::Exact => "Exact",
            Self::Tf32 => "Tf32",
        });
    }
}

impl Canonical for RowSpec {
    fn write(&self, out: &mut String) {
        match self {
            Self::Softmax => out.push_str("Softmax"),
            Self::LayerNorm { eps, affine } => record(out, "LayerNorm", &[("eps", eps), ("affine", affine)]),
        }
    }
}

impl Canonical for Index {
    fn write(&self, out: &mut String) {
        match self {
            Self::Const(n) => tuple(out, "Const", &[n]),
            Self::Loop(k) => tuple(out, "Loop", &[k]),
            Self::ReduceLoop(k) => tuple(out, "ReduceLoop", &[k]),
            Self::Dim(k) => tuple(out, "Dim", &[k]),
            Self::Add(a, b) => tuple(out, "Add", &[a, b]),
            Self::Mul(a, b) => tuple(out, "Mul", &[a, b]),
            Self::Div(a, b) => tuple(out, "Div", &[a, b]),
            Self::Mod(a, b) => tuple(out, "Mod", &[a, b]),
            Self::Value(value) => tuple(out, "Value", &[value]),
        }
    }
}

impl Canonical for Scalar {
    fn write(&self, out: &mut String) {
        match self {
            Self::Input(k, index) => tuple(out, "Input", &[k, index]),
            Self::Weight(k, index) => tuple(out, "Weight", &[k, index]),
            Self::Const(value, dtype) => tuple(out, "Const", &[value, dtype]),
            Self::Index(index, dtype) => tuple(out, "Index", &[index, dtype]),
            Self::Reduced => out.push_str("Reduced"),
            Self::Unary(op, x) => tuple(out, "Unary", &[op, x]),
            Self::Binary(op, a, b) => tuple(out, "Binary", &[op, a, b]),
            Self::Select(condition, then, otherwise) => tuple(out, "Select", &[condition, then, otherwise]),
            Self::Cast(dtype, x) => tuple(out, "Cast", &[dtype, x]),
            Self::InRange(index, low, high) => tuple(out, "InRange", &[index, low, high]),
        }
    }
}

#[cfg(test)]
mod tests {
    use aotfarm_ir::{Graph, UnaryOp, example};
    use aotfarm_protocol::{CpuIsa, Precision, Target};

    use super::*;
    use crate::{lower, passes};

    /// What the key of a spec was made of before [`Canonical`] was: its `Debug` text, with the names of those days.
    fn debug_text(spec: &KernelSpec) -> String {
        format!("{spec:?}").replacen("KernelSpec {", "TaskSpec {", 1)
    }

    #[test]
    fn the_specs_of_real_models_keep_the_texts_that_their_records_have() {
        let mut kinds = 0;
        for name in aotfarm_ir::EXAMPLES {
            for (target, precision) in
                [(Target::Cpu(CpuIsa::X86_64V3), Precision::Fp32), (Target::Cuda { sm: 90 }, Precision::Tf32)]
            {
                let graph: Graph = passes::run(example(name).expect("an example"), None).expect("passes");
                for spec in &lower(graph, target, precision).expect("a plan").specs {
                    assert_eq!(spec.canonical(), debug_text(spec));
                    kinds |= match spec.kind {
                        KernelKind::Conv(_) => 1,
                        KernelKind::MatMul(_) => 2,
                        KernelKind::Loops(_) => 4,
                        _ => 0,
                    };
                }
            }
        }
        assert_eq!(kinds, 7, "convolutions, products and loops were among them");
    }

    #[test]
    fn every_other_variant_keeps_its_text() {
        let index = Index::Add(
            Box::new(Index::Mul(Box::new(Index::Loop(0)), Box::new(Index::Const(-3)))),
            Box::new(Index::Mod(
                Box::new(Index::Div(Box::new(Index::ReduceLoop(1)), Box::new(Index::Dim(2)))),
                Box::new(Index::Value(Box::new(Scalar::Weight(0, Index::Const(1))))),
            )),
        );
        let dtype = aotfarm_protocol::DType::I64;
        let scalar = Scalar::Select(
            Box::new(Scalar::InRange(index.clone(), 0, Size::Dim(0))),
            Box::new(Scalar::Cast(dtype, Box::new(Scalar::Unary(UnaryOp::Relu, Box::new(Scalar::Reduced))))),
            Box::new(Scalar::Binary(
                aotfarm_ir::BinaryOp::Max,
                Box::new(Scalar::Const(1e-7.into(), dtype)),
                Box::new(Scalar::Index(index.clone(), dtype)),
            )),
        );
        assert_eq!(scalar.canonical(), format!("{scalar:?}"));
        let view = View { offset: Size::Const(0), strides: [Size::Dim(1); 4] };
        let attention = AttentionSpec {
            lead: [Size::Dim(0), Size::Const(12)],
            rows: [Size::Const(197); 2],
            widths: [64, 64],
            scale: 0.125,
            causal: false,
            views: [view; 4],
            mask: Some(Mask { is_weight: true, view }),
        };
        let norm = KernelKind::Rows(RowSpec::LayerNorm { eps: 1e-6, affine: true });
        for kind in [KernelKind::Attention(attention), norm, KernelKind::Rows(RowSpec::Softmax)] {
            assert_eq!(kind.canonical(), format!("{kind:?}"));
        }
    }
}
