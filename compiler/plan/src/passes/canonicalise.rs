//! Replaces composite operators by what the kernels are made of.

use aotfarm_ir::{BuildError, Expr, Graph, Node, Op, PoolOp, ReduceOp, TensorData, TensorType, ValueId, Window};
use aotfarm_protocol::DType;

use super::constant::f32_tensor;
use super::rewrite::{Rewriter, rewrite};

pub(super) fn run(graph: &Graph) -> Result<Graph, BuildError> {
    rewrite(graph, |rewriter, node, inputs| match node.op {
        Op::AdaptiveAvgPool { output } => adaptive_pool(rewriter, node, inputs[0], output),
        Op::Softmax { axis } => softmax(rewriter, node, inputs[0], axis),
        Op::Conv { window, groups: 1 } => pointwise_on_vectors(rewriter, node, inputs, &window),
        _ => Ok(None),
    })
}

fn adaptive_pool(r: &mut Rewriter<'_>, node: &Node, x: ValueId, output: [i64; 2]) -> Result<Option<ValueId>, BuildError> {
    let (name, source) = (r.name_of(node), node.source.as_str());
    let shape = r.ty(x).shape.clone();
    let [_, _, h, w] = shape.as_slice() else { return Ok(None) };
    if output == [1, 1] {
        let op = Op::Reduce { op: ReduceOp::Mean, axes: vec![2, 3], keepdim: true };
        return r.push(&name, op, &[x], source).map(Some);
    }
    // The windows of an axis whose size varies cannot be listed; lowering reports it.
    let (Some(h), Some(w)) = (h.as_const(), w.as_const()) else { return Ok(None) };
    if [h, w] == output {
        return Ok(Some(x));
    }
    if h % output[0] == 0 && w % output[1] == 0 {
        let kernel = [h / output[0], w / output[1]];
        let window = Window { kernel, stride: kernel, pad: [[0; 2]; 2], dilation: [1; 2] };
        let op = Op::Pool { op: PoolOp::Avg { count_include_pad: false }, window };
        return r.push(&name, op, &[x], source).map(Some);
    }
    // Uneven windows: a product with the matrix of means along each axis.
    let dtype = r.ty(x).dtype;
    let swap = || Op::Permute { axes: vec![0, 1, 3, 2] };
    let columns = r.weight(&format!("{name}.columns"), means(w, output[1], dtype))?;
    let rows = r.weight(&format!("{name}.rows"), means(h, output[0], dtype))?;
    let narrow = r.push(&format!("{name}.narrow"), Op::MatMul, &[x, columns], source)?;
    let turned = r.push(&format!("{name}.turned"), swap(), &[narrow], source)?;
    let pooled = r.push(&format!("{name}.pooled"), Op::MatMul, &[turned, rows], source)?;
    r.push(&name, swap(), &[pooled], source).map(Some)
}

/// `[size, out]`: column i averages the positions from `⌊i size / out⌋` to `⌈(i+1) size / out⌉`.
fn means(size: i64, out: i64, dtype: DType) -> (TensorType, TensorData) {
    let mut matrix = vec![0f64; usize::try_from(size * out).unwrap_or(0)];
    for i in 0..out {
        let (from, to) = (i * size / out, ((i + 1) * size + out - 1) / out);
        for k in from..to {
            matrix[usize::try_from(k * out + i).unwrap_or(0)] = 1.0 / (to - from) as f64;
        }
    }
    if dtype == DType::F64 {
        let bytes = matrix.iter().flat_map(|mean| mean.to_le_bytes()).collect();
        return (TensorType::new(dtype, [size, out]), TensorData::new(bytes));
    }
    f32_tensor(&[size, out], &matrix.iter().map(|mean| *mean as f32).collect::<Vec<_>>())
}

/// The kernels normalise contiguous rows: another axis is moved last and back.
fn softmax(r: &mut Rewriter<'_>, node: &Node, x: ValueId, axis: usize) -> Result<Option<ValueId>, BuildError> {
    let rank = r.ty(x).shape.len();
    if axis + 1 == rank {
        return Ok(None);
    }
    let (name, source) = (r.name_of(node), node.source.as_str());
    let mut axes: Vec<usize> = (0..rank).collect();
    axes.swap(axis, rank - 1);
    let turned = r.push(&format!("{name}.turned"), Op::Permute { axes: axes.clone() }, &[x], source)?;
    let soft = r.push(&format!("{name}.rows"), Op::Softmax { axis: rank - 1 }, &[turned], source)?;
    r.push(&name, Op::Permute { axes }, &[soft], source).map(Some)
}

/// A 1x1 convolution of 1x1 images, as in squeeze-and-excitation, is a matrix product over the batch.
fn pointwise_on_vectors(
    r: &mut Rewriter<'_>,
    node: &Node,
    inputs: &[ValueId],
    window: &Window,
) -> Result<Option<ValueId>, BuildError> {
    let (x, weight) = (r.ty(inputs[0]).shape.clone(), r.ty(inputs[1]).shape.clone());
    let one = |size: &Expr| size.as_const() == Some(1);
    let ([n, c, h, w], [o, ..]) = (x.as_slice(), weight.as_slice()) else { return Ok(None) };
    if !(one(h) && one(w) && window.kernel == [1, 1] && window.pad == [[0; 2]; 2]) {
        return Ok(None);
    }
    let (name, source) = (r.name_of(node), node.source.as_str());
    let shape = vec![n.clone(), o.clone(), Expr::one(), Expr::one()];
    let rows = r.push(&format!("{name}.rows"), Op::Reshape { shape: vec![n.clone(), c.clone()] }, &inputs[..1], source)?;
    let matrix = r.push(&format!("{name}.matrix"), Op::Reshape { shape: vec![o.clone(), c.clone()] }, &inputs[1..2], source)?;
    let operands: Vec<ValueId> = [rows, matrix].into_iter().chain(inputs.get(2).copied()).collect();
    let product = r.push(&format!("{name}.product"), Op::Linear, &operands, source)?;
    r.push(&name, Op::Reshape { shape }, &[product], source).map(Some)
}
