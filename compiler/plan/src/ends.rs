//! What a run is given and leaves, as one list of inputs and one of outputs: states and writes into inputs are ends like the caller's, so that nothing
//! but their places tells them apart.

use aotfarm_ir::{Def, Graph, ValueId};

use crate::plan::Place;

/// Where the inputs and outputs of a graph of [`flatten`] lie.
pub(super) struct Ends {
    /// Of each input.
    pub(super) inputs: Vec<Place>,
    /// Of each output.
    pub(super) outputs: Vec<Place>,
}

/// Makes the states of a graph inputs after its own, and what they and the inputs hold after a run outputs after its own.
pub(super) fn flatten(mut graph: Graph) -> (Graph, Ends) {
    let (states, writes) = (std::mem::take(&mut graph.states), std::mem::take(&mut graph.writes));
    let inputs = (0..graph.inputs.len()).map(Place::Input).chain((0..states.len()).map(Place::State)).collect();
    let outputs = (0..graph.outputs.len()).map(Place::Output);
    let outputs = outputs.chain((0..states.len()).map(Place::Next)).chain((0..writes.len()).map(Place::Back)).collect();
    for state in &states {
        graph.values[state.value.index()].def = Def::Input(graph.inputs.len());
        graph.inputs.push(state.value);
    }
    let left: Vec<ValueId> = states.iter().map(|state| state.next).chain(writes.iter().map(|write| write.value)).collect();
    graph.outputs.extend(left);
    (graph, Ends { inputs, outputs })
}
