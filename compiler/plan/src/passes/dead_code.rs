//! Removes nodes and weights that no result depends on.

use aotfarm_ir::{BuildError, Def, Graph};

use super::rewrite::rewrite;

pub(super) fn run(graph: &Graph) -> Result<Graph, BuildError> {
    let mut alive = vec![false; graph.values.len()];
    for id in graph.results() {
        alive[id.index()] = true;
    }
    for node in graph.nodes.iter().rev() {
        if alive[node.output.index()] {
            for id in &node.inputs {
                alive[id.index()] = true;
            }
        }
    }
    let nodes = graph.nodes.iter().filter(|node| alive[node.output.index()]).cloned().collect();
    let mut kept = Graph { nodes, ..graph.clone() };
    for (n, node) in kept.nodes.iter().enumerate() {
        kept.values[node.output.index()].def = Def::Node(n);
    }
    // Rebuilding leaves out the values that nothing refers to.
    rewrite(&kept, |_, _, _| Ok(None))
}
