//! Attention as products and a softmax, for targets that have no kernel for it.

use aotfarm_ir::{Graph, Node, Op, verify};

use super::attention::attention;
use super::rewrite::rewrite;
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
