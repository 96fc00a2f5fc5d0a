//! What a step computes, in words.

use aotfarm_ir::{BinaryOp, Expr, Node, PoolOp, UnaryOp};

use crate::spec::{AttentionSpec, EpilogueStep, KernelKind, KernelSpec, RowSpec, Size, TensorSpec};

/// `conv 3x3/2 16x28x28 -> 32x14x14 +bias +relu (conv2d_3: …)`, without the batch.
pub(super) fn label(spec: &KernelSpec, dims: &[Expr], node: &Node) -> String {
    let shape = |tensor: &TensorSpec| {
        let symbolic = |size: &Size| match size {
            Size::Const(n) => n.to_string(),
            Size::Dim(k) => dims.get(*k).map_or_else(|| format!("dim{k}"), ToString::to_string),
        };
        let skip = usize::from(tensor.shape.len() == 4);
        tensor.shape[skip..].iter().map(symbolic).collect::<Vec<_>>().join("x")
    };
    let tail = |steps: &[EpilogueStep]| {
        steps
            .iter()
            .map(|step| match step {
                EpilogueStep::Bias(_) => " +bias".into(),
                EpilogueStep::Residual(BinaryOp::Add, _) => " +residual".into(),
                EpilogueStep::Residual(op, _) => format!(" +{}(residual)", op.name()),
                EpilogueStep::Unary(UnaryOp::Clamp { low, high }) => format!(" +clamp({low}, {high})"),
                EpilogueStep::Unary(op) => format!(" +{}", op.name()),
            })
            .collect::<String>()
    };
    let operands = |tensors: &[TensorSpec]| tensors.iter().map(&shape).collect::<Vec<_>>().join(", ");
    let result = shape(&spec.outputs[0]);
    let what = match &spec.kind {
        KernelKind::Conv(conv) => {
            let [kh, kw] = conv.window.kernel;
            let [sh, sw] = conv.window.stride;
            let stride = if [sh, sw] == [1, 1] {
                String::new()
            } else if sh == sw {
                format!("/{sh}")
            } else {
                format!("/{sh}x{sw}")
            };
            let groups = if conv.groups == 1 { String::new() } else { format!(" groups {}", conv.groups) };
            let pool = conv.pool.map_or(String::new(), |p| format!(" +max pool {}x{}", p.window.kernel[0], p.window.kernel[1]));
            let branch = conv.branch.map_or(String::new(), |b| {
                format!(" +conv {}x{} of {}", b.window.kernel[0], b.window.kernel[1], shape(&spec.inputs[b.input]))
            });
            let gate = if conv.gate.is_some() { " gated" } else { "" };
            let mean = if conv.mean { " +mean" } else { "" };
            let (x, tail) = (shape(&spec.inputs[0]), tail(&conv.epilogue));
            format!("conv {kh}x{kw}{stride}{groups} {x}{gate} -> {result}{branch}{tail}{pool}{mean}")
        }
        KernelKind::MatMul(product) => {
            let b = if product.b_is_weight { &spec.weights[0] } else { &spec.inputs[1] };
            let t = if product.b_transposed { "ᵀ" } else { "" };
            format!("matmul {} * {}{t}{}", shape(&spec.inputs[0]), shape(b), tail(&product.epilogue))
        }
        KernelKind::Attention(attention) => {
            let size = |size: Size| match size {
                Size::Const(n) => n.to_string(),
                Size::Dim(k) => dims.get(k).map_or_else(|| format!("dim{k}"), ToString::to_string),
            };
            let AttentionSpec { lead: [_, heads], rows: [rows, keys], widths: [width, values], causal, mask, .. } = attention;
            let extra = [(*causal, " causal"), (mask.is_some(), " masked")].map(|(is, word)| if is { word } else { "" }).concat();
            format!("attention {}x{}x{width} over {}x{values}{extra}", size(*heads), size(*rows), size(*keys))
        }
        KernelKind::Pool(pool) => {
            let [kh, kw] = pool.window.kernel;
            let op = if pool.op == PoolOp::Max { "max pool" } else { "average pool" };
            format!("{op} {kh}x{kw} {} -> {result}", shape(&spec.inputs[0]))
        }
        KernelKind::Rows(RowSpec::Softmax) => format!("softmax {result}"),
        KernelKind::Rows(RowSpec::LayerNorm { .. }) => format!("layer norm {result}"),
        KernelKind::Loops(nest) => {
            let kind = if nest.reduction.is_some() { "reduction" } else { "loops" };
            format!("{kind} {} -> {result}", operands(&spec.inputs))
        }
    };
    format!("{what} ({})", node.source)
}
