//! The text form of a Graph: one line per declaration, weights and the first contents of states by name only.
//!
//! ```text
//! graph resnet18
//! dim batch = 1..32 hint 8
//! input %x : f32[batch, 3, 224, 224]
//! state %calls : i64[]
//! weight %one : i64[]
//! weight %conv1.weight : f32[64, 3, 7, 7]
//! %conv1 = conv %x, %conv1.weight {stride=[2, 2], pad=[[3, 3], [3, 3]]} : f32[batch, 64, 112, 112]  ; conv2d: aten.conv2d.default
//! %more = add %calls, %one : i64[]
//! output %conv1
//! next %calls = %more
//! ```
//!
//! An output that callers know by another name than its value's is `output %conv1 as %logits`. What a state holds after a run is a line `next`, unless it is what it held before; what an input does, a line `write`.
//! A line that starts with `;` is a comment. Attributes at their default (stride 1, no padding …) are left out; what the type of the
//! result says (the shape of a `reshape`, the element type of a `cast`) is not repeated. `parse(print(g))` is `g` but for the numbering of
//! its values: inputs, then states, then weights, then nodes.

mod parse;

use std::fmt::{self, Write};

use super::syntax::is_plain;
use super::{Def, Graph, ValueId};

pub use super::syntax::TextError;
pub use parse::{parse, parse_with};

/// A name, in quotes unless it is plain.
struct Name<'a>(&'a str);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.0.is_empty() && self.0.chars().all(is_plain) { f.write_str(self.0) } else { write!(f, "{:?}", self.0) }
    }
}

/// The text form of a graph.
pub fn print(graph: &Graph) -> String {
    let mut text = String::new();
    write_graph(&mut text, graph).expect("writing to a String cannot fail");
    text
}

fn write_graph(out: &mut String, graph: &Graph) -> fmt::Result {
    let name = |id: &ValueId| Name(&graph.value(*id).name);
    writeln!(out, "graph {}", Name(&graph.name))?;
    for dim in &graph.dims {
        writeln!(out, "dim {dim}")?;
    }
    for id in &graph.inputs {
        writeln!(out, "input %{} : {}", name(id), graph.ty(*id))?;
    }
    for state in &graph.states {
        writeln!(out, "state %{} : {}", name(&state.value), graph.ty(state.value))?;
    }
    for value in graph.values.iter().filter(|v| matches!(v.def, Def::Weight(_))) {
        writeln!(out, "weight %{} : {}", Name(&value.name), value.ty)?;
    }
    for node in &graph.nodes {
        write!(out, "%{} = {}", name(&node.output), node.op.name())?;
        for (i, id) in node.inputs.iter().enumerate() {
            write!(out, "{} %{}", if i == 0 { "" } else { "," }, name(id))?;
        }
        let attributes = node.op.attributes();
        if !attributes.is_empty() {
            write!(out, " {{{}}}", attributes.join(", "))?;
        }
        write!(out, " : {}", graph.ty(node.output))?;
        let source = &node.source;
        if source.trim() != source || source.starts_with('"') || source.chars().any(char::is_control) {
            write!(out, "  ; {source:?}")?;
        } else if !source.is_empty() {
            write!(out, "  ; {source}")?;
        }
        out.push('\n');
    }
    for (id, known_by) in graph.outputs.iter().zip(&graph.output_names) {
        write!(out, "output %{}", name(id))?;
        if *known_by != graph.value(*id).name {
            write!(out, " as %{}", Name(known_by))?;
        }
        writeln!(out)?;
    }
    for state in graph.states.iter().filter(|state| state.next != state.value) {
        writeln!(out, "next %{} = %{}", name(&state.value), name(&state.next))?;
    }
    for write in &graph.writes {
        writeln!(out, "write %{} = %{}", name(&graph.inputs[write.input]), name(&write.value))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
