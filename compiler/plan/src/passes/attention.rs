//! What attention is made of: products and a softmax.

use aotfarm_ir::{BinaryOp, BuildError, Def, Expr, Node, Number, Op, ReduceOp, TensorType, ValueId};
use aotfarm_protocol::DType;

use super::rewrite::Rewriter;

/// `softmax(scale * query keyᵀ + mask) value`.
pub(super) fn attention(
    r: &mut Rewriter<'_>,
    node: &Node,
    inputs: &[ValueId],
    scale: f64,
    causal: bool,
) -> Result<ValueId, BuildError> {
    let (name, source) = (r.name_of(node), node.source.as_str());
    let (mut query, key, value) = (inputs[0], inputs[1], inputs[2]);
    let dtype = r.ty(query).dtype;
    let constant = TensorType { dtype, shape: vec![] };
    if scale != 1.0 {
        let factor = r.full(&format!("{name}.scale"), scale, &constant, source)?;
        query = r.push(&format!("{name}.query"), Op::Binary(BinaryOp::Mul), &[query, factor], source)?;
    }
    let rank = r.ty(key).shape.len();
    let mut axes: Vec<usize> = (0..rank).collect();
    axes.swap(rank - 2, rank - 1);
    let key = r.push(&format!("{name}.key"), Op::Permute { axes }, &[key], source)?;
    let mut scores = r.push(&format!("{name}.scores"), Op::MatMul, &[query, key], source)?;
    if let Some(mask) = inputs.get(3) {
        scores = if r.ty(*mask).dtype == DType::Bool {
            let never = r.full(&format!("{name}.never"), f64::NEG_INFINITY, &constant, source)?;
            r.push(&format!("{name}.masked"), Op::Where, &[*mask, scores, never], source)?
        } else {
            r.push(&format!("{name}.masked"), Op::Binary(BinaryOp::Add), &[scores, *mask], source)?
        };
    }
    // Without a mask every row sees the first key.
    let blinding = inputs.get(3).copied().filter(|mask| may_hide_all(r, *mask, causal));
    let mut visible = blinding;
    if causal {
        let shape = r.ty(scores).shape.clone();
        let (rows, columns) = (shape[shape.len() - 2].clone(), shape[shape.len() - 1].clone());
        let mut iota = |what: &str, length: Expr| {
            let op = Op::Iota { length, start: 0, step: 1, dtype: DType::I64 };
            r.push(&format!("{name}.{what}"), op, &[], source)
        };
        let (row, column) = (iota("row", rows.clone())?, iota("column", columns)?);
        let row = r.push(&format!("{name}.rows"), Op::Reshape { shape: vec![rows, Expr::one()] }, &[row], source)?;
        let seen = r.push(&format!("{name}.seen"), Op::Binary(BinaryOp::Le), &[column, row], source)?;
        let never = r.full(&format!("{name}.future"), f64::NEG_INFINITY, &constant, source)?;
        scores = r.push(&format!("{name}.causal"), Op::Where, &[seen, scores, never], source)?;
        if let Some(mask) = blinding {
            let constant = TensorType { dtype: r.ty(mask).dtype, shape: vec![] };
            let nothing = r.full(&format!("{name}.nothing"), nothing(constant.dtype), &constant, source)?;
            visible = Some(r.push(&format!("{name}.visible"), Op::Where, &[seen, mask, nothing], source)?);
        }
    }
    let axis = r.ty(scores).shape.len() - 1;
    let weights = r.push(&format!("{name}.weights"), Op::Softmax { axis }, &[scores], source)?;
    let Some(mask) = visible else { return r.push(&name, Op::MatMul, &[weights, value], source) };
    // A row that sees nothing gives zeros, as torch's does; a softmax of it is NaN.
    let mixed = r.push(&format!("{name}.mixed"), Op::MatMul, &[weights, value], source)?;
    let TensorType { dtype: masks, shape } = r.ty(mask).clone();
    let reduce = |op| Op::Reduce { op, axes: shape.len().checked_sub(1).into_iter().collect(), keepdim: true };
    let sees = if masks == DType::Bool {
        r.push(&format!("{name}.sees"), reduce(ReduceOp::Any), &[mask], source)?
    } else {
        let most = r.push(&format!("{name}.most"), reduce(ReduceOp::Max), &[mask], source)?;
        let constant = TensorType { dtype: masks, shape: vec![] };
        let blind = r.full(&format!("{name}.blind"), nothing(masks), &constant, source)?;
        r.push(&format!("{name}.sees"), Op::Binary(BinaryOp::Ne), &[most, blind], source)?
    };
    let zero = r.full(&format!("{name}.zero"), 0.0, &constant, source)?;
    r.push(&name, Op::Where, &[sees, mixed, zero], source)
}

/// Whether a mask may leave a row nothing to see, as far as the graph tells.
fn may_hide_all(r: &Rewriter<'_>, mask: ValueId, causal: bool) -> bool {
    let value = r.graph().value(mask);
    let (Def::Weight(data), dtype) = (&value.def, value.ty.dtype) else { return may_hide(r, mask) };
    let row = value.ty.shape.last().and_then(Expr::as_const).map_or(1, |n| n.unsigned_abs() as usize);
    let mut rows = data.bytes().chunks_exact((row * dtype.size()).max(1));
    // A causal row may see no column but the first.
    let seen = if causal { 1 } else { row };
    rows.any(|row| row.chunks_exact(dtype.size()).take(seen).all(|element| hides(dtype, element)))
}

/// Whether an element of a mask may hide a score.
fn may_hide(r: &Rewriter<'_>, mask: ValueId) -> bool {
    let (value, dtype) = (r.graph().value(mask), r.ty(mask).dtype);
    if let Def::Weight(data) = &value.def {
        return data.bytes().chunks_exact(dtype.size()).any(|element| hides(dtype, element));
    }
    match r.producer(mask).map(|node| (&node.op, &node.inputs)) {
        Some((Op::Full { value, .. }, _)) => *value == nothing(dtype),
        Some((Op::Where, inputs)) => inputs[1..].iter().any(|id| may_hide(r, *id)),
        Some((Op::Reshape { .. } | Op::Permute { .. } | Op::Expand { .. } | Op::Slice { .. }, inputs)) => may_hide(r, inputs[0]),
        _ => true,
    }
}

fn hides(dtype: DType, element: &[u8]) -> bool {
    Number::read(dtype, element).is_some_and(|number| number == nothing(dtype))
}

/// What an element of a mask is where a score does not count.
const fn nothing(dtype: DType) -> f64 {
    if let DType::Bool = dtype { 0.0 } else { f64::NEG_INFINITY }
}
