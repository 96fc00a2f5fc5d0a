//! Many graphs as one, which shares nothing among them but the symbolic dimensions.

use aotfarm_compiler::ir::{Def, Graph, State, ValueId, VerifyError, WriteBack, verify};

/// The graphs one after the other. All have the same symbolic dimensions.
pub fn join(graphs: &[&Graph]) -> Result<Graph, VerifyError> {
    let mut joined = Graph { name: "joined".to_owned(), ..Graph::default() };
    for (number, graph) in graphs.iter().enumerate() {
        let shift = joined.values.len() as u32;
        let moved = |id: &ValueId| ValueId(id.0 + shift);
        for value in &graph.values {
            let mut value = value.clone();
            value.name = format!("m{number}.{}", value.name);
            value.def = match value.def {
                Def::Input(at) => Def::Input(at + joined.inputs.len()),
                Def::Node(at) => Def::Node(at + joined.nodes.len()),
                Def::State(at) => Def::State(at + joined.states.len()),
                weight @ Def::Weight(_) => weight,
            };
            joined.values.push(value);
        }
        for node in &graph.nodes {
            let mut node = node.clone();
            node.inputs = node.inputs.iter().map(moved).collect();
            node.output = moved(&node.output);
            node.source = format!("m{number}.{}", node.source);
            joined.nodes.push(node);
        }
        let states =
            graph.states.iter().map(|state| State { value: moved(&state.value), next: moved(&state.next), ..state.clone() });
        joined.states.extend(states);
        let writes = graph.writes.iter();
        let writes = writes.map(|write| WriteBack { input: write.input + joined.inputs.len(), value: moved(&write.value) });
        joined.writes.extend(writes);
        joined.inputs.extend(graph.inputs.iter().map(moved));
        joined.outputs.extend(graph.outputs.iter().map(moved));
        joined.output_names.extend(graph.output_names.iter().map(|name| format!("m{number}.{name}")));
        joined.dims.clone_from(&graph.dims);
    }
    verify(&joined).map(|()| joined)
}
