//! Attention as products and a softmax, for targets that have no kernel for it.

use aotfarm_protocol::DType;

use aotfarm_ir::{BinaryOp, BuildError, Expr, Graph, Node, Op, TensorType, ValueId, verify};

use super::rewrite::{Rewriter, rewrite};
use super::{PassError, dead_code, fold_constants};

const NAME: &str = "decompose_attention";

/// Replaces every `Attention` but those that `keeps` names by products and a softmax. Passes are the same for all targets; which nodes
/// stay is known when a plan is made for one.
pub fn decompose_attention(graph: Graph, keeps: impl Fn(&Graph, &Node) -> bool) -> Result<Graph, PassError> {
    let goes = |node: &Node| matches!(node.op, Op::Attention { .. }) && !keeps(&graph, node);
    if !graph.nodes.iter().any(goes) {
        return Ok(graph);
    }
    let wrap = |source| PassError::Rewrite { pass: NAME, source };
    let split = rewrite(&graph, |rewriter, node, inputs| match node.op {
        Op::Attention { scale, causal } if goes(node) => attention(rewriter, node, inputs, scale, causal).map(Some),
        _ => Ok(None),
    });
    // Masks of known sizes are constants.
    let folded = split.and_then(|graph| fold_constants::run(&graph)).and_then(|graph| dead_code::run(&graph)).map_err(wrap)?;
    verify(&folded).map_err(|source| PassError::Inconsistent { pass: NAME, source })?;
    Ok(folded)
}

/// `softmax(scale * query keyᵀ + mask) value`.
fn attention(r: &mut Rewriter<'_>, node: &Node, inputs: &[ValueId], scale: f64, causal: bool) -> Result<ValueId, BuildError> {
    let (name, source) = (r.name_of(node), node.source.as_str());
    let (mut query, key, value) = (inputs[0], inputs[1], inputs[2]);
    let dtype = r.ty(query).dtype;
    let constant = TensorType { dtype, shape: vec![] };
    if scale != 1.0 {
        let factor = r.full(&format!("{name}.scale"), scale, &constant, source)?;
        query = r.push(&format!("{name}.query"), Op::Binary(BinaryOp::Mul), &[query, factor], source)?;
    }
    let rank = r.ty(key).shape.len();
    let mut axes: Vec<usize> = (0..rank).collect();
    axes.swap(rank - 2, rank - 1);
    let key = r.push(&format!("{name}.key"), Op::Permute { axes }, &[key], source)?;
    let mut scores = r.push(&format!("{name}.scores"), Op::MatMul, &[query, key], source)?;
    if let Some(mask) = inputs.get(3) {
        scores = if r.ty(*mask).dtype == DType::Bool {
            let never = r.full(&format!("{name}.never"), f64::NEG_INFINITY, &constant, source)?;
            r.push(&format!("{name}.masked"), Op::Where, &[*mask, scores, never], source)?
        } else {
            r.push(&format!("{name}.masked"), Op::Binary(BinaryOp::Add), &[scores, *mask], source)?
        };
    }
    if causal {
        let shape = r.ty(scores).shape.clone();
        let (rows, columns) = (shape[shape.len() - 2].clone(), shape[shape.len() - 1].clone());
        let mut iota = |what: &str, length: Expr| {
            let op = Op::Iota { length, start: 0, step: 1, dtype: DType::I64 };
            r.push(&format!("{name}.{what}"), op, &[], source)
        };
        let (row, column) = (iota("row", rows.clone())?, iota("column", columns)?);
        let row = r.push(&format!("{name}.rows"), Op::Reshape { shape: vec![rows, Expr::one()] }, &[row], source)?;
        let seen = r.push(&format!("{name}.seen"), Op::Binary(BinaryOp::Le), &[column, row], source)?;
        let never = r.full(&format!("{name}.future"), f64::NEG_INFINITY, &constant, source)?;
        scores = r.push(&format!("{name}.causal"), Op::Where, &[seen, scores, never], source)?;
    }
    let axis = r.ty(scores).shape.len() - 1;
    let weights = r.push(&format!("{name}.weights"), Op::Softmax { axis }, &[scores], source)?;
    r.push(&name, Op::MatMul, &[weights, value], source)
}
