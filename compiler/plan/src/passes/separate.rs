//! Gives nodes of their own to operands that kernels take only as constants and that are none: scales, shifts and biases that the
//! model computes. Those that are one number everywhere become constants.

use aotfarm_ir::{BinaryOp, BuildError, Def, Expr, Graph, Node, Op, ValueId};
use aotfarm_protocol::DType;

use super::constant::f32_tensor;
use super::rewrite::{Rewriter, rewrite};

pub(super) fn run(graph: &Graph) -> Result<Graph, BuildError> {
    rewrite(graph, |r, node, inputs| {
        let (kept, rest) = match node.op {
            Op::LayerNorm { .. } => inputs.split_at(1),
            Op::Linear | Op::Conv { .. } => inputs.split_at(2),
            _ => return Ok(None),
        };
        if graph.ty(node.output).dtype != DType::F32 || inputs[1..].iter().all(|id| is_weight(r, *id)) {
            return Ok(None);
        }
        // The weight of a product may be computed; that of a convolution may not, which lowering reports.
        let weights = kept[1..].iter().map(|id| Ok(constant(r, *id)?.unwrap_or(*id))).collect::<Result<Vec<_>, BuildError>>()?;
        let kept = [&kept[..1], &weights].concat();
        let constants = rest.iter().map(|id| constant(r, *id)).collect::<Result<Option<Vec<_>>, _>>()?;
        let name = r.name_of(node);
        match constants {
            Some(constants) => r.push(&name, node.op.clone(), &[kept, constants].concat(), &node.source).map(Some),
            None => separated(r, node, &kept, rest).map(Some),
        }
    })
}

fn is_weight(r: &Rewriter<'_>, id: ValueId) -> bool {
    matches!(r.graph().value(id).def, Def::Weight(_))
}

/// The operand as a weight, if it is one or one number everywhere.
fn constant(r: &mut Rewriter<'_>, id: ValueId) -> Result<Option<ValueId>, BuildError> {
    if is_weight(r, id) {
        return Ok(Some(id));
    }
    let (Some(value), Some(shape)) = (r.uniform(id), r.ty(id).const_shape()) else { return Ok(None) };
    let elements = shape.iter().product::<i64>().unsigned_abs() as usize;
    let name = r.graph().value(id).name.clone();
    r.weight(&name, f32_tensor(&shape, &vec![value.to_f64() as f32; elements])).map(Some)
}

/// The node without those operands, and what they do after it.
fn separated(r: &mut Rewriter<'_>, node: &Node, kept: &[ValueId], rest: &[ValueId]) -> Result<ValueId, BuildError> {
    let (name, source) = (r.name_of(node), node.source.as_str());
    let plain = r.push(&format!("{name}.plain"), node.op.clone(), kept, source)?;
    match (&node.op, rest) {
        (Op::LayerNorm { .. }, [scale, shift]) => {
            let scaled = r.push(&format!("{name}.scaled"), Op::Binary(BinaryOp::Mul), &[plain, *scale], source)?;
            r.push(&name, Op::Binary(BinaryOp::Add), &[scaled, *shift], source)
        }
        (Op::Conv { .. }, [bias]) => {
            let shape = vec![r.ty(*bias).shape[0].clone(), Expr::one(), Expr::one()];
            let bias = r.push(&format!("{name}.bias"), Op::Reshape { shape }, &[*bias], source)?;
            r.push(&name, Op::Binary(BinaryOp::Add), &[plain, bias], source)
        }
        (_, [bias]) => r.push(&name, Op::Binary(BinaryOp::Add), &[plain, *bias], source),
        _ => unreachable!("`{}` with {} operands", node.op.name(), kept.len() + rest.len()),
    }
}
