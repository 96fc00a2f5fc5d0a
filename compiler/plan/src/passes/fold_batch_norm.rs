//! Folds batch normalisations into the convolution or product before them; others become a factor and a summand per channel.

use aotfarm_protocol::DType;

use aotfarm_ir::{BinaryOp, BuildError, Expr, Graph, Node, Op, TensorType, UnaryOp, ValueId};

use super::constant::{f32_tensor, f32_weight};
use super::rewrite::{Rewriter, rewrite};

pub(super) fn run(graph: &Graph) -> Result<Graph, BuildError> {
    let mut uses = vec![0u32; graph.values.len()];
    for id in graph.nodes.iter().flat_map(|node| node.inputs.iter().copied()).chain(graph.results()) {
        uses[id.index()] += 1;
    }
    rewrite(graph, |r, node, inputs| {
        let Op::BatchNorm { eps } = node.op else { return Ok(None) };
        let constants: Option<Vec<Vec<f32>>> = inputs[1..].iter().map(|id| f32_weight(r.graph(), *id)).collect();
        let Some(constants) = constants else { return general(r, node, inputs, eps).map(Some) };
        let [scale, shift, mean, variance] = constants.as_slice() else { return Ok(None) };
        // y = factor * x + summand, in f64 because the folded weights are rounded only once.
        let factor: Vec<f64> = scale.iter().zip(variance).map(|(s, v)| f64::from(*s) / (f64::from(*v) + eps).sqrt()).collect();
        let summand: Vec<f64> =
            factor.iter().zip(mean.iter().zip(shift)).map(|(f, (m, s))| f64::from(*s) - f64::from(*m) * f).collect();
        if uses[node.inputs[0].index()] == 1
            && let Some(folded) = fold(r, node, inputs[0], &factor, &summand)?
        {
            return Ok(Some(folded));
        }
        affine(r, node, inputs[0], &factor, &summand).map(Some)
    })
}

/// The convolution or product before, with other weights.
fn fold(r: &mut Rewriter<'_>, node: &Node, x: ValueId, factor: &[f64], summand: &[f64]) -> Result<Option<ValueId>, BuildError> {
    let Some(producer) = r.producer(x).cloned() else { return Ok(None) };
    let folds = match producer.op {
        Op::Conv { .. } => true,
        // Channels are dimension 1 of the normalisation and the last one of the product.
        Op::Linear => r.ty(x).shape.len() == 2,
        _ => false,
    };
    let (graph, weight_id) = (r.graph(), producer.inputs.get(1).copied());
    let bias = match producer.inputs.get(2) {
        None => Some(vec![0.0; factor.len()]),
        Some(id) => f32_weight(graph, *id),
    };
    let weight = weight_id.and_then(|id| f32_weight(graph, id).zip(graph.ty(id).const_shape()));
    let (true, Some((weight, shape)), Some(bias)) = (folds, weight, bias) else { return Ok(None) };
    let per_channel = weight.len() / factor.len().max(1);
    let scaled: Vec<f32> =
        weight.iter().enumerate().map(|(i, w)| (f64::from(*w) * factor[i / per_channel.max(1)]) as f32).collect();
    let shifted: Vec<f32> =
        bias.iter().zip(factor.iter().zip(summand)).map(|(b, (f, s))| (f64::from(*b) * f + s) as f32).collect();
    let name = r.graph().value(producer.inputs[1]).name.clone();
    let weight = r.weight(&format!("{name}.folded"), f32_tensor(&shape, &scaled))?;
    let bias = r.weight(&format!("{name}.bias"), f32_tensor(&[shifted.len() as i64], &shifted))?;
    let result = r.name_of(node);
    r.push(&result, producer.op.clone(), &[producer.inputs[0], weight, bias], &producer.source).map(Some)
}

/// `x * factor + summand`.
fn affine(r: &mut Rewriter<'_>, node: &Node, x: ValueId, factor: &[f64], summand: &[f64]) -> Result<ValueId, BuildError> {
    let (name, source) = (r.name_of(node), node.source.as_str());
    let mut shape = vec![factor.len() as i64];
    shape.resize(r.ty(x).shape.len() - 1, 1);
    let vector = |values: &[f64]| f32_tensor(&shape, &values.iter().map(|v| *v as f32).collect::<Vec<_>>());
    let factor = r.weight(&format!("{name}.factor"), vector(factor))?;
    let summand = r.weight(&format!("{name}.summand"), vector(summand))?;
    let scaled = r.push(&format!("{name}.scaled"), Op::Binary(BinaryOp::Mul), &[x, factor], source)?;
    r.push(&name, Op::Binary(BinaryOp::Add), &[scaled, summand], source)
}

/// Statistics that are computed by the model, or not f32.
fn general(r: &mut Rewriter<'_>, node: &Node, inputs: &[ValueId], eps: f64) -> Result<ValueId, BuildError> {
    let (name, source) = (r.name_of(node), node.source.as_str());
    let ty = r.ty(inputs[0]).clone();
    let mut shape = vec![ty.shape[1].clone()];
    shape.resize(ty.shape.len() - 1, Expr::one());
    let mut columns = Vec::new();
    for (id, what) in inputs[1..].iter().zip(["scale", "shift", "mean", "variance"]) {
        columns.push(r.push(&format!("{name}.{what}"), Op::Reshape { shape: shape.clone() }, &[*id], source)?);
    }
    let [scale, shift, mean, variance] = columns[..] else { unreachable!("the shape rule gives a batch norm five operands") };
    let dtype: DType = ty.dtype;
    let eps = r.full(&format!("{name}.eps"), eps, &TensorType { dtype, shape: vec![] }, source)?;
    let steps: [(&str, Op, [ValueId; 2]); 2] = [
        ("centred", Op::Binary(BinaryOp::Sub), [inputs[0], mean]),
        ("shifted_variance", Op::Binary(BinaryOp::Add), [variance, eps]),
    ];
    let [centred, variance] = steps.map(|(what, op, operands)| r.push(&format!("{name}.{what}"), op, &operands, source));
    let inverse = r.push(&format!("{name}.inverse"), Op::Unary(UnaryOp::Rsqrt), &[variance?], source)?;
    let factor = r.push(&format!("{name}.factor"), Op::Binary(BinaryOp::Mul), &[inverse, scale], source)?;
    let scaled = r.push(&format!("{name}.scaled"), Op::Binary(BinaryOp::Mul), &[centred?, factor], source)?;
    r.push(&name, Op::Binary(BinaryOp::Add), &[scaled, shift], source)
}
