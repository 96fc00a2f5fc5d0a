//! Rebuilding a graph node by node, with views that do nothing removed on the way.

use aotfarm_ir::{BuildError, Builder, Def, Expr, Graph, Node, Number, Op, TensorData, TensorType, ValueId};

use super::constant::uniform;

/// Builds the new graph of a pass. Values of the old graph are mapped as their nodes are visited.
pub(super) struct Rewriter<'a> {
    old: &'a Graph,
    builder: Builder,
    map: Vec<Option<ValueId>>,
}

/// Rebuilds `graph`: for every node, `f` gives its replacement in the new graph, or `None` to keep it.
pub(super) fn rewrite(
    graph: &Graph,
    mut f: impl FnMut(&mut Rewriter<'_>, &Node, &[ValueId]) -> Result<Option<ValueId>, BuildError>,
) -> Result<Graph, BuildError> {
    let mut builder = Builder::new(&graph.name);
    for dim in &graph.dims {
        builder.dim(dim.sym.clone(), dim.min, dim.max, dim.hint)?;
    }
    let mut map = vec![None; graph.values.len()];
    for id in &graph.inputs {
        map[id.index()] = Some(builder.input(&graph.value(*id).name, graph.ty(*id).clone())?);
    }
    for state in &graph.states {
        let value = graph.value(state.value);
        map[state.value.index()] = Some(builder.state(&value.name, value.ty.clone(), state.initial.clone())?);
    }
    let mut rewriter = Rewriter { old: graph, builder, map };
    for node in &graph.nodes {
        let inputs = node.inputs.iter().map(|id| rewriter.get(*id)).collect::<Result<Vec<_>, _>>()?;
        let output = match f(&mut rewriter, node, &inputs)? {
            Some(replacement) => replacement,
            None => rewriter.push(&graph.value(node.output).name, node.op.clone(), &inputs, &node.source)?,
        };
        rewriter.map[node.output.index()] = Some(output);
    }
    for (id, name) in graph.outputs.iter().zip(&graph.output_names) {
        let (mut output, value) = (rewriter.get(*id)?, graph.value(*id));
        // An output keeps its type, whatever it is computed in.
        if rewriter.ty(output).dtype != value.ty.dtype {
            output = rewriter.push(&value.name, Op::Cast(value.ty.dtype), &[output], "output")?;
            rewriter.map[id.index()] = Some(output);
        }
        rewriter.builder.output_named(name, output);
    }
    for state in &graph.states {
        let (value, next) = (rewriter.get(state.value)?, rewriter.get(state.next)?);
        rewriter.builder.next(value, next);
    }
    for write in &graph.writes {
        let (input, value) = (rewriter.get(graph.inputs[write.input])?, rewriter.get(write.value)?);
        rewriter.builder.write_back(input, value);
    }
    if let Some(signature) = &graph.signature {
        rewriter.builder.signature(signature.clone());
    }
    rewriter.builder.finish()
}

impl Rewriter<'_> {
    /// The new value of an old one.
    pub(super) fn get(&mut self, old: ValueId) -> Result<ValueId, BuildError> {
        if let Some(new) = self.map[old.index()] {
            return Ok(new);
        }
        let value = self.old.value(old);
        let Def::Weight(data) = &value.def else {
            unreachable!("`{}` is used before its node: the verifier checks the order of nodes", value.name)
        };
        let new = self.builder.weight(&value.name, value.ty.clone(), data.clone())?;
        self.map[old.index()] = Some(new);
        Ok(new)
    }

    /// The name of an old node's result.
    pub(super) fn name_of(&self, node: &Node) -> String {
        self.old.value(node.output).name.clone()
    }

    /// The new graph so far.
    pub(super) const fn graph(&self) -> &Graph {
        self.builder.graph()
    }

    /// The type of a new value.
    pub(super) fn ty(&self, id: ValueId) -> &TensorType {
        self.builder.ty(id)
    }

    /// The new node that computes a new value.
    pub(super) fn producer(&self, id: ValueId) -> Option<&Node> {
        match self.graph().value(id).def {
            Def::Node(n) => Some(&self.graph().nodes[n]),
            _ => None,
        }
    }

    /// Adds a constant.
    pub(super) fn weight(&mut self, name: &str, (ty, data): (TensorType, TensorData)) -> Result<ValueId, BuildError> {
        self.builder.weight(name, ty, data)
    }

    /// A tensor of one value everywhere.
    pub(super) fn full(
        &mut self,
        name: &str,
        value: impl Into<Number>,
        like: &TensorType,
        source: &str,
    ) -> Result<ValueId, BuildError> {
        let op = Op::Full { value: value.into(), shape: like.shape.clone(), dtype: like.dtype };
        self.builder.push_named(name, op, &[], source)
    }

    /// Adds a node, unless it does nothing or merges with the one before it.
    pub(super) fn push(&mut self, name: &str, op: Op, inputs: &[ValueId], source: &str) -> Result<ValueId, BuildError> {
        let x = inputs.first().copied();
        let before = x.and_then(|x| self.producer(x)).map(|node| (node.op.clone(), node.inputs.clone()));
        let same_shape = |shape: &[Expr]| x.filter(|x| self.ty(*x).shape == shape);
        match (&op, before) {
            (Op::Reshape { shape } | Op::Expand { shape }, _) if same_shape(shape).is_some() => return Ok(inputs[0]),
            (Op::Cast(dtype), _) if x.is_some_and(|x| self.ty(x).dtype == *dtype) => return Ok(inputs[0]),
            (Op::Permute { axes }, _) if axes.iter().enumerate().all(|(i, axis)| i == *axis) => return Ok(inputs[0]),
            (Op::Slice { axis, start, end, step: 1 }, _)
                if start.as_const() == Some(0) && self.ty(inputs[0]).shape.get(*axis) == Some(end) =>
            {
                return Ok(inputs[0]);
            }
            (Op::Pad { pads, .. }, _) if pads.iter().all(|pad| *pad == [0, 0]) => return Ok(inputs[0]),
            (Op::Concat { .. }, _) if inputs.len() == 1 => return Ok(inputs[0]),
            (Op::Reshape { .. }, Some((Op::Reshape { .. }, from))) | (Op::Expand { .. }, Some((Op::Expand { .. }, from))) => {
                return self.push(name, op, &from, source);
            }
            (Op::Permute { axes }, Some((Op::Permute { axes: first }, from))) if axes.iter().all(|a| *a < first.len()) => {
                let axes = axes.iter().map(|axis| first[*axis]).collect();
                return self.push(name, Op::Permute { axes }, &from, source);
            }
            // A function of a reshaped value is the reshaped function of the value, which can ride on what computes it.
            (Op::Unary(_), Some((Op::Reshape { shape }, from))) => {
                let inner = self.push(name, op.clone(), &from, source)?;
                return self.push(name, Op::Reshape { shape }, &[inner], source);
            }
            (Op::Conv { window, groups }, Some((Op::Pad { pads, value }, from))) if value == 0.0 => {
                if let [[0, 0], [0, 0], height, width] = pads.as_slice()
                    && height.iter().chain(width).all(|pad| *pad >= 0)
                {
                    let mut window = *window;
                    for (total, extra) in window.pad.iter_mut().zip([height, width]) {
                        *total = [total[0] + extra[0], total[1] + extra[1]];
                    }
                    let padded: Vec<ValueId> = from.iter().chain(&inputs[1..]).copied().collect();
                    return self.push(name, Op::Conv { window, groups: *groups }, &padded, source);
                }
            }
            _ => {}
        }
        self.builder.push_named(name, op, inputs, source)
    }

    /// The number that every element of a new value is, when that is known.
    pub(super) fn uniform(&self, id: ValueId) -> Option<Number> {
        uniform(self.graph(), id)
    }
}
