//! What a target has no kernel for: attention as products and a softmax, other operators as loop nests. Passes are the same for all
//! targets; which nodes stay is known when a plan is made for one.

use aotfarm_ir::{BuildError, Graph, Node, Op, verify};

use super::attention::attention;
use super::rewrite::rewrite;
use super::spell_out::spelled;
use super::{PassError, dead_code, fold_constants};

/// Replaces every `Attention` but those that `keeps` names by products and a softmax.
pub fn decompose_attention(graph: Graph, keeps: impl Fn(&Graph, &Node) -> bool) -> Result<Graph, PassError> {
    let goes = |node: &Node| matches!(node.op, Op::Attention { .. }) && !keeps(&graph, node);
    if !graph.nodes.iter().any(goes) {
        return Ok(graph);
    }
    let split = rewrite(&graph, |rewriter, node, inputs| match node.op {
        Op::Attention { scale, causal } if goes(node) => attention(rewriter, node, inputs, scale, causal).map(Some),
        _ => Ok(None),
    });
    // Masks of known sizes are constants.
    checked("decompose_attention", split.and_then(|graph| fold_constants::run(&graph)))
}

/// Replaces those products, pools and normalisations that `goes` names by views, element-wise functions and reductions.
pub fn spell_out(graph: Graph, goes: impl Fn(&Graph, &Node) -> bool) -> Result<Graph, PassError> {
    if !graph.nodes.iter().any(|node| goes(&graph, node)) {
        return Ok(graph);
    }
    checked("spell_out", spelled(&graph, goes))
}

fn checked(pass: &'static str, graph: Result<Graph, BuildError>) -> Result<Graph, PassError> {
    let graph = graph.and_then(|graph| dead_code::run(&graph)).map_err(|source| PassError::Rewrite { pass, source })?;
    verify(&graph).map_err(|source| PassError::Inconsistent { pass, source })?;
    Ok(graph)
}
