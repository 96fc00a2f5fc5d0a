//! Evaluates what is known at compile time: nodes of constants only, tensors of one value everywhere, and operations that such a
//! tensor turns into nothing (an all-true mask, a zero that is added).

use aotfarm_protocol::DType;

use aotfarm_ir::interp;
use aotfarm_ir::{
    BinaryOp, BuildError, Builder, Class, Def, Graph, Node, Number, Op, ReduceOp, TensorData, TensorType, ValueId, infer,
};

use super::rewrite::{Rewriter, rewrite};

/// A result may be this large whatever it is made of …
const SMALL_BYTES: i64 = 1 << 20;
/// … or this many times as large as the constants it is made of.
const MAX_GROWTH: i64 = 2;

pub(super) fn run(graph: &Graph) -> Result<Graph, BuildError> {
    rewrite(graph, |r, node, inputs| {
        let types: Vec<&TensorType> = inputs.iter().map(|id| r.ty(*id)).collect();
        // The rule has held for the old node; if it does not hold for the new operands, `push` reports it.
        let Ok(ty) = infer(&node.op, &types) else { return Ok(None) };
        if let Some(value) = uniform_result(r, node, inputs, &ty) {
            let name = r.name_of(node);
            return r.full(&name, value, &ty, &node.source).map(Some);
        }
        if let Some(same) = identity(r, node, inputs, &ty) {
            let name = r.name_of(node);
            return r.push(&name, Op::Expand { shape: ty.shape }, &[same], &node.source).map(Some);
        }
        evaluate(r, node, inputs, &ty)
    })
}

/// The value of a result that is the same everywhere.
fn uniform_result(r: &Rewriter<'_>, node: &Node, inputs: &[ValueId], ty: &TensorType) -> Option<Number> {
    if inputs.is_empty() {
        return None;
    }
    let values: Vec<Option<Number>> = inputs.iter().map(|id| r.uniform(*id)).collect();
    let first = values[0]?;
    match &node.op {
        Op::Reshape { .. }
        | Op::Permute { .. }
        | Op::Expand { .. }
        | Op::Slice { .. }
        | Op::Take { .. }
        | Op::GatherElements { .. }
        | Op::Reduce { op: ReduceOp::Max | ReduceOp::Min | ReduceOp::Any | ReduceOp::All, .. } => Some(first),
        Op::Pad { value, .. } => (*value == first).then_some(first),
        Op::Concat { .. } => values.iter().all(|v| *v == Some(first)).then_some(first),
        op if op.class() == Class::Pointwise => {
            let operands: Option<Vec<(DType, Number)>> =
                inputs.iter().zip(values).map(|(id, value)| Some((r.ty(*id).dtype, value?))).collect();
            scalar_result(&node.op, &operands?, ty.dtype)
        }
        _ => None,
    }
}

/// Evaluates an element-wise operator for one element.
fn scalar_result(op: &Op, operands: &[(DType, Number)], dtype: DType) -> Option<Number> {
    let mut builder = Builder::new("scalar");
    let mut inputs = Vec::new();
    for (dtype, value) in operands {
        let full = Op::Full { value: *value, shape: vec![], dtype: *dtype };
        inputs.push(builder.push(full, &[], "operand").ok()?);
    }
    let result = builder.push(op.clone(), &inputs, "result").ok()?;
    builder.output(result);
    let outputs = interp::run(&builder.finish().ok()?, &[]).ok()?;
    let value = Number::read(dtype, &outputs.first()?.data)?;
    // A NaN compares unequal to itself, so it would never be found to be uniform again; it is left to the run.
    (!value.is_nan()).then_some(value)
}

/// The operand that an operation passes on unchanged, but for broadcasting.
fn identity(r: &Rewriter<'_>, node: &Node, inputs: &[ValueId], ty: &TensorType) -> Option<ValueId> {
    match node.op {
        Op::Binary(op) => {
            let neutral = |side: usize, value: Number| match op {
                BinaryOp::Add | BinaryOp::Or => value == 0.0,
                BinaryOp::Sub => side == 1 && value == 0.0,
                BinaryOp::Mul => value == 1.0,
                BinaryOp::And => value == 1.0 && ty.dtype == DType::Bool,
                BinaryOp::Div | BinaryOp::Pow => side == 1 && value == 1.0,
                BinaryOp::Max => value == f64::NEG_INFINITY,
                BinaryOp::Min => value == f64::INFINITY,
                _ => false,
            };
            (0..2).find(|&side| r.uniform(inputs[side]).is_some_and(|value| neutral(side, value))).map(|side| inputs[1 - side])
        }
        Op::Where => r.uniform(inputs[0]).map(|condition| if condition == 0.0 { inputs[2] } else { inputs[1] }),
        _ => None,
    }
}

/// Evaluates a node whose operands are all known.
fn evaluate(r: &mut Rewriter<'_>, node: &Node, inputs: &[ValueId], ty: &TensorType) -> Result<Option<ValueId>, BuildError> {
    let weights = inputs.iter().filter(|id| matches!(r.graph().value(**id).def, Def::Weight(_))).count();
    let known = |id: &ValueId| match r.graph().value(*id).def {
        Def::Weight(_) => true,
        Def::Node(n) => {
            r.graph().nodes[n].op.class() == Class::Source && bytes_of(r.ty(*id)).is_some_and(|bytes| bytes <= SMALL_BYTES)
        }
        Def::Input(_) | Def::State(_) => false,
    };
    let (Some(shape), Some(bytes)) = (ty.const_shape(), bytes_of(ty)) else { return Ok(None) };
    if inputs.is_empty() || !inputs.iter().all(known) {
        return Ok(None);
    }
    let name = r.name_of(node);
    if let (Op::Reshape { .. }, Def::Weight(data)) = (&node.op, &r.graph().value(inputs[0]).def) {
        let data = data.clone();
        return r.weight(&name, (ty.clone(), data)).map(Some);
    }
    let from: i64 = inputs.iter().filter_map(|id| bytes_of(r.ty(*id))).sum();
    if bytes > SMALL_BYTES && (weights == 0 || bytes > from.saturating_mul(MAX_GROWTH)) {
        return Ok(None);
    }
    let mut builder = Builder::new("constant");
    let mut operands = Vec::new();
    for id in inputs {
        let value = r.graph().value(*id);
        operands.push(match &value.def {
            Def::Weight(data) => builder.weight(&value.name, value.ty.clone(), data.clone())?,
            Def::Node(n) => builder.push(r.graph().nodes[*n].op.clone(), &[], &value.name)?,
            Def::Input(_) | Def::State(_) => return Ok(None),
        });
    }
    let result = builder.push(node.op.clone(), &operands, &node.source)?;
    builder.output(result);
    // What fails to evaluate (an index out of range) fails when the model runs, if it is ever reached.
    let Ok(outputs) = interp::run(&builder.finish()?, &[]) else { return Ok(None) };
    let Some(tensor) = outputs.into_iter().next() else { return Ok(None) };
    let ty = TensorType::new(tensor.dtype, shape);
    r.weight(&name, (ty, TensorData::new(tensor.data))).map(Some)
}

fn bytes_of(ty: &TensorType) -> Option<i64> {
    ty.elements().as_const()?.checked_mul(ty.dtype.size() as i64)
}
