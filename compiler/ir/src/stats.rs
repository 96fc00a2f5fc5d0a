//! Figures of a graph for people: what `aotfarm inspect` prints above the IR.

use std::collections::BTreeMap;
use std::fmt;

use super::{Bindings, Def, Expr, Graph, Node, Sym, TensorType, ValueId};

/// Figures of a graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    /// Elements of all floating-point weights.
    pub parameters: u64,
    /// Bytes of all weights and constants.
    pub weight_bytes: u64,
    /// Floating-point operations for one image (or sequence): twice the multiply-adds of convolutions, linear layers, matrix products and
    /// attention, at [`Stats::point`].
    pub flops: u64,
    /// The sizes that [`Stats::flops`] is for: 1 for a leading dimension of an input (the batch), else the typical size, or the largest.
    pub point: Bindings,
    /// How often each operator occurs, by name.
    pub ops: BTreeMap<&'static str, usize>,
    /// `name: type` of the inputs.
    pub inputs: Vec<String>,
    /// `name: type` of the outputs.
    pub outputs: Vec<String>,
    /// `name: type` of the states.
    pub states: Vec<String>,
    /// Names of the inputs that a run changes.
    pub written: Vec<String>,
    /// `name = min..max` of the symbolic dimensions.
    pub dims: Vec<String>,
}

/// The figures of a verified graph.
pub fn stats(graph: &Graph) -> Stats {
    let weights = || {
        graph.values.iter().filter_map(|value| match &value.def {
            Def::Weight(data) => Some((&value.ty, data.bytes().len() as u64)),
            Def::Input(_) | Def::State(_) | Def::Node(_) => None,
        })
    };
    let batch: Vec<&Sym> = graph.inputs.iter().filter_map(|&id| graph.ty(id).shape.first()?.as_sym()).collect();
    let point: Bindings = graph
        .dims
        .iter()
        .map(|dim| (dim.sym.clone(), if batch.contains(&&dim.sym) { 1 } else { dim.hint.unwrap_or(dim.max) }))
        .collect();
    let mut ops = BTreeMap::new();
    for node in &graph.nodes {
        *ops.entry(node.op.name()).or_insert(0) += 1;
    }
    let named = |id: ValueId| format!("{}: {}", graph.value(id).name, graph.ty(id));
    let ports = |ids: &[ValueId]| ids.iter().map(|&id| named(id)).collect();
    Stats {
        parameters: weights().filter(|(ty, _)| ty.dtype.is_float()).map(|(ty, bytes)| bytes / ty.dtype.size() as u64).sum(),
        weight_bytes: weights().map(|(_, bytes)| bytes).sum(),
        flops: graph.nodes.iter().map(|node| 2 * multiply_adds(graph, node).eval(&point).map_or(0, |n| n.max(0) as u64)).sum(),
        ops,
        inputs: ports(&graph.inputs),
        outputs: graph.output_names.iter().zip(&graph.outputs).map(|(name, &id)| format!("{name}: {}", graph.ty(id))).collect(),
        states: graph.states.iter().map(|state| named(state.value)).collect(),
        written: graph.writes.iter().map(|write| graph.value(graph.inputs[write.input]).name.clone()).collect(),
        dims: graph.dims.iter().map(ToString::to_string).collect(),
        point,
    }
}

/// The multiply-adds of a node; 0 for operators that are not products.
pub fn multiply_adds(graph: &Graph, node: &Node) -> Expr {
    let operands: Vec<&TensorType> = node.inputs.iter().map(|&id| graph.ty(id)).collect();
    node.op.multiply_adds(&operands, graph.ty(node.output))
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for input in &self.inputs {
            writeln!(f, "input       {input}")?;
        }
        for output in &self.outputs {
            writeln!(f, "output      {output}")?;
        }
        for state in &self.states {
            writeln!(f, "state       {state}")?;
        }
        for input in &self.written {
            writeln!(f, "writes      {input}")?;
        }
        for dim in &self.dims {
            writeln!(f, "dimension   {dim}")?;
        }
        writeln!(f, "parameters  {} ({} weights and constants)", count(self.parameters), bytes(self.weight_bytes))?;
        let point: Vec<String> = self.point.iter().map(|(sym, value)| format!("{sym} = {value}")).collect();
        let at = if point.is_empty() { String::new() } else { format!(" at {}", point.join(", ")) };
        writeln!(f, "compute     {} FLOP{at}", count(self.flops))?;
        let ops: Vec<String> = self.ops.iter().map(|(name, times)| format!("{name} {times}")).collect();
        writeln!(f, "operators   {} ({})", self.ops.values().sum::<usize>(), ops.join(", "))
    }
}

fn scaled(value: u64, base: f64, units: &[&str]) -> String {
    let (mut scaled, mut unit) = (value as f64, 0);
    while scaled >= base && unit + 1 < units.len() {
        scaled /= base;
        unit += 1;
    }
    if unit == 0 { format!("{value}{}", units[0]) } else { format!("{scaled:.2}{}", units[unit]) }
}

fn count(value: u64) -> String {
    scaled(value, 1e3, &["", " k", " M", " G", " T"])
}

fn bytes(value: u64) -> String {
    scaled(value, 1024.0, &[" B", " KiB", " MiB", " GiB", " TiB"])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::example::{EXAMPLES, example};
    use crate::text;

    #[test]
    fn the_examples_have_the_published_sizes() {
        // torchvision's documentation: parameters, and multiply-adds of 1.81, 4.09 and 0.30 G.
        let published = [("resnet18", 11_689_512, 3.63), ("resnet50", 25_557_032, 8.18), ("mobilenet_v2", 3_504_872, 0.60)];
        assert_eq!(published.map(|(name, ..)| name), EXAMPLES);
        for (name, parameters, gflop) in published {
            let graph = example(name).unwrap();
            // The running statistics of batch norms are buffers, not parameters.
            let statistics: u64 = graph
                .values
                .iter()
                .filter(|v| v.name.contains("running_"))
                .map(|v| v.ty.elements().as_const().unwrap() as u64)
                .sum();
            let stats = stats(&graph);
            assert_eq!(stats.parameters - statistics, parameters, "{name}");
            assert!((stats.flops as f64 / 1e9 - gflop).abs() < 0.015, "{name}: {} FLOP", stats.flops);
            assert_eq!(stats.inputs, ["x: f32[batch, 3, 224, 224]"]);
        }
        assert!(example("alexnet").is_none());
    }

    #[test]
    fn products_count_twice_their_multiply_adds() {
        let graph = text::parse(
            "graph g\ndim n = 2..8\ndim s = 1..16 hint 10\ninput %q : f32[n, s, 4]\nweight %w : f32[3, 4]\n\
             %a = attention %q, %q, %q {scale=1.0} : f32[n, s, 4]\n%l = linear %a, %w : f32[n, s, 3]\noutput %l\n",
        )
        .unwrap();
        let stats = stats(&graph);
        assert_eq!(stats.flops, 2 * (10 * 10 * (4 + 4) + 10 * 3 * 4));
        let text = stats.to_string();
        assert!(
            text.contains("compute     1.84 k FLOP at n = 1, s = 10") && text.contains("dimension   s = 1..16 hint 10"),
            "{text}"
        );
        assert!(text.contains("parameters  12 (48 B weights and constants)"), "{text}");
    }
}
