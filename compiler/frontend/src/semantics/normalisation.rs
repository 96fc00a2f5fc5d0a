//! Normalisations.

use aotfarm_ir::{Expr, Op, ValueId};
use aotfarm_protocol::DType;

use super::{Emit, Result};

/// A vector or block of one value where an operand was left out.
fn given_or(e: &mut Emit<'_>, given: Option<ValueId>, value: f64, shape: &[Expr], dtype: DType) -> Result<ValueId> {
    match given {
        Some(id) => Ok(id),
        None => e.push(Op::Full { value: value.into(), shape: shape.to_vec(), dtype }, &[]),
    }
}

/// Inference-mode batch normalisation; without scale 1, without shift 0.
pub(crate) fn batch_norm(
    e: &mut Emit<'_>,
    x: ValueId,
    affine: [Option<ValueId>; 2],
    statistics: [ValueId; 2],
    eps: f64,
) -> Result<ValueId> {
    let [mean, variance] = statistics;
    let (dtype, channels) = (e.dtype(mean), e.shape(mean));
    let scale = given_or(e, affine[0], 1.0, &channels, dtype)?;
    let shift = given_or(e, affine[1], 0.0, &channels, dtype)?;
    e.push(Op::BatchNorm { eps }, &[x, scale, shift, mean, variance])
}

/// Normalisation over the last `shape.len()` axes, whose sizes are `shape`; `filled` is the type of a scale or shift that is left
/// out while the other is there.
pub(crate) fn layer_norm(
    e: &mut Emit<'_>,
    x: ValueId,
    shape: &[Expr],
    affine: [Option<ValueId>; 2],
    filled: DType,
    eps: f64,
) -> Result<ValueId> {
    let mut inputs = vec![x];
    if affine.iter().any(Option::is_some) {
        for (given, value) in affine.into_iter().zip([1.0, 0.0]) {
            inputs.push(given_or(e, given, value, shape, filled)?);
        }
    }
    e.push(Op::LayerNorm { axes: shape.len(), eps }, &inputs)
}

/// Along an axis; rank 0 is taken for a vector of one.
pub(crate) fn softmax(e: &mut Emit<'_>, x: ValueId, axis: usize) -> Result<ValueId> {
    let shape = e.shape(x);
    let x = if shape.is_empty() { e.reshape(x, vec![Expr::one()])? } else { x };
    let y = e.push(Op::Softmax { axis }, &[x])?;
    e.reshape(y, shape)
}
