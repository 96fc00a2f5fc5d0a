//! Which values are used as indices, and so have to be numbers that an axis has.

use aotfarm_protocol::DType;

use crate::graph::{Def, Graph, Node, ValueId};
use crate::ops::{BinaryOp, Op};
use crate::tensor::Tensor;

impl Op {
    /// The axis of the first operand that the operand in `slot` picks from, where its elements are indices.
    pub const fn picks_from(&self, slot: usize) -> Option<usize> {
        match self {
            Self::Take { axis } | Self::GatherElements { axis } if slot == 1 => Some(*axis),
            _ => None,
        }
    }

    /// Whether it is a view that leaves no element of an operand out; an [`Op::Expand`] only where its result is not empty.
    pub const fn keeps_all(&self) -> bool {
        matches!(self, Self::Reshape { .. } | Self::Permute { .. } | Self::Expand { .. } | Self::Concat { .. })
    }
}

/// For each input of the graph the least and the largest number that its elements may be, both of which belong to it; `None`
/// where they are not used as indices, or not of an axis of constant size. An index may count from the end.
///
/// An element outside makes [`crate::interp::run`] fail, whatever the other inputs are: a slice ends the way back, as
/// what it leaves out may be anything, and so does a computed choice. Only integers that a cast to i32 or an addition
/// would wrap into the range are taken to be outside.
pub fn index_ranges(graph: &Graph) -> Vec<Option<[i64; 2]>> {
    let mut allowed = vec![None; graph.values.len()];
    for node in graph.nodes.iter().rev() {
        let result = allowed[node.output.index()];
        for (slot, id) in node.inputs.iter().enumerate() {
            let Some([low, high]) = operand(graph, node, slot, result) else { continue };
            let [least, most] = allowed[id.index()].unwrap_or([i64::MIN, i64::MAX]);
            allowed[id.index()] = Some([low.max(least), high.min(most)]);
        }
    }
    graph.inputs.iter().map(|id| allowed[id.index()]).collect()
}

/// What an operand of a node may be, when the node's result may be what `result` says.
fn operand(graph: &Graph, node: &Node, slot: usize, result: Option<[i64; 2]>) -> Option<[i64; 2]> {
    if let Some(axis) = node.op.picks_from(slot) {
        let size = graph.ty(node.inputs[0]).shape[axis].as_const().filter(|size| *size > 0)?;
        return Some([-size, size - 1]);
    }
    let [low, high] = result?;
    let dtype = graph.ty(node.inputs[slot]).dtype;
    match &node.op {
        Op::Expand { .. } if graph.ty(node.output).shape.iter().any(|size| size.bounds(&graph.dims).0 < 1) => None,
        op if op.keeps_all() => result,
        Op::Cast(DType::I32 | DType::I64) if !dtype.is_float() && dtype != DType::Bool => result,
        // In narrower types sums wrap among numbers that occur.
        Op::Binary(BinaryOp::Add) if matches!(dtype, DType::I32 | DType::I64) => {
            let [least, most] = whole_ends(graph, node.inputs[1 - slot])?;
            Some([low.checked_sub(most)?, high.checked_sub(least)?])
        }
        Op::Binary(BinaryOp::Sub) if slot == 0 && matches!(dtype, DType::I32 | DType::I64) => {
            let [least, most] = whole_ends(graph, node.inputs[1])?;
            Some([low.checked_add(least)?, high.checked_add(most)?])
        }
        _ => None,
    }
}

/// [`constant_ends`] of integers that an f64 holds exactly.
fn whole_ends(graph: &Graph, id: ValueId) -> Option<[i64; 2]> {
    const EXACT: f64 = (1u64 << f64::MANTISSA_DIGITS) as f64;
    let (least, most) = constant_ends(graph, id)?;
    (least > -EXACT && most < EXACT).then_some([least as i64, most as i64])
}

/// The smallest and the largest element of a constant, through views and conversions; `None` of what is not constant or
/// has no elements.
pub fn constant_ends(graph: &Graph, id: ValueId) -> Option<(f64, f64)> {
    match &graph.value(id).def {
        Def::Input(_) | Def::State(_) => None,
        Def::Weight(data) => {
            let tensor = Tensor { dtype: graph.ty(id).dtype, shape: Vec::new(), data: data.bytes().to_vec() };
            let ends = |(low, high): (f64, f64), x: &f64| (low.min(*x), high.max(*x));
            let (low, high) = tensor.to_f64().iter().fold((f64::INFINITY, f64::NEG_INFINITY), ends);
            (low <= high).then_some((low, high))
        }
        Def::Node(n) => match &graph.nodes[*n].op {
            Op::Full { value, .. } => Some((value.to_f64(), value.to_f64())),
            Op::Reshape { .. } | Op::Expand { .. } | Op::Permute { .. } | Op::Cast(_) => {
                constant_ends(graph, graph.nodes[*n].inputs[0])
            }
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TensorData;
    use crate::interp;
    use crate::text;

    /// A graph of an input `x` of a type, in which these lines make indices `i` of it, which pick from a table of 4 rows.
    fn model(ty: &str, lines: &str) -> Graph {
        let source = format!(
            "graph g
             dim n = 0..9
             input %x : {ty}
             weight %table : f32[4, 1]
             weight %two : i64[]
             weight %offsets : i64[3]
             {lines}"
        );
        let mut weights = |name: &str, ty: &crate::TensorType| {
            let numbers: &[i64] = if name == "offsets" { &[0, 10, 20] } else { &[2] };
            let bytes = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
            Ok(TensorData::new(if ty.dtype == DType::F32 { vec![0; 16] } else { bytes }))
        };
        text::parse_with(&source, &mut weights).unwrap_or_else(|e| panic!("{e}\n{source}"))
    }

    /// The range of `x`, of which the interpreter takes the ends and what lies next to them fails.
    fn checked(ty: &str, lines: &str) -> Option<[i64; 2]> {
        let graph = model(ty, lines);
        let [range] = index_ranges(&graph)[..] else { panic!("one input") };
        let [low, high] = range?;
        let dtype = graph.ty(graph.inputs[0]).dtype;
        let runs = |number: i64| {
            let data = number.to_le_bytes()[..dtype.size()].repeat(3);
            interp::run(&graph, &[Tensor { dtype, shape: vec![3], data }]).is_ok()
        };
        let outside = if dtype == DType::U8 { vec![high + 1] } else { vec![low - 1, high + 1] };
        assert!(runs(high) && (dtype == DType::U8 || runs(low)) && !outside.into_iter().any(runs), "{lines}\n{range:?}");
        range
    }

    #[test]
    fn indices_are_followed_back_to_the_inputs_that_they_are_made_of() {
        let rows = "%y = take %table, %i {axis=0} : f32[3, 1]\noutput %y";
        assert_eq!(checked("i64[3]", "%y = take %table, %x {axis=0} : f32[3, 1]\noutput %y"), Some([-4, 3]));
        for dtype in ["i8", "u8", "i16", "i32"] {
            assert_eq!(checked(&format!("{dtype}[3]"), &format!("%i = cast %x : i64[3]\n{rows}")), Some([-4, 3]), "{dtype}");
        }
        assert_eq!(checked("i64[3]", &format!("%i = add %two, %x : i64[3]\n{rows}")), Some([-6, 1]));
        assert_eq!(checked("i64[3]", &format!("%i = sub %x, %two : i64[3]\n{rows}")), Some([-2, 5]));
        assert_eq!(checked("i64[3]", &format!("%i = sub %two, %x : i64[3]\n{rows}")), None);
        let views = "%a = reshape %x : i64[3, 1]
             %b = permute %a {axes=[1, 0]} : i64[1, 3]
             %c = expand %b : i64[2, 3]
             %i = concat %c, %c {axis=0} : i64[4, 3]
             %y = gather_elements %e, %i {axis=0} : f32[4, 3]
             output %y";
        let views = format!("%e = expand %table : f32[4, 3]\n{views}");
        assert_eq!(checked("i64[3]", &views), Some([-4, 3]));
        // All uses together.
        let both = format!("%i = add %x, %two : i64[3]\n%z = take %table, %x {{axis=0}} : f32[3, 1]\noutput %z\n{rows}");
        assert_eq!(checked("i64[3]", &both), Some([-4, 1]));
    }

    #[test]
    fn what_may_be_anything_has_no_range() {
        let range = |ty: &str, lines: &str| index_ranges(&model(ty, lines))[0];
        let rows = "%y = take %table, %i {axis=0}";
        // Each column has a table of its own.
        assert_eq!(
            range("i64[2]", &format!("%i = slice %x {{axis=0, start=0, end=1}} : i64[1]\n{rows} : f32[1, 1]\noutput %y")),
            None
        );
        // What is added to an element is known only to lie between two ends.
        assert_eq!(range("i64[3]", &format!("%i = add %x, %offsets : i64[3]\n{rows} : f32[3, 1]\noutput %y")), Some([-24, 3]));
        assert_eq!(range("i64[3]", &format!("%i = maximum %x, %two : i64[3]\n{rows} : f32[3, 1]\noutput %y")), None);
        assert_eq!(range("f32[3]", &format!("%i = cast %x : i64[3]\n{rows} : f32[3, 1]\noutput %y")), None);
        // Of an empty result no element is looked at.
        assert_eq!(range("i64[1]", &format!("%i = expand %x : i64[n]\n{rows} : f32[n, 1]\noutput %y")), None);
    }
}
