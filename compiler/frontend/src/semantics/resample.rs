//! Images of other sizes.

use aotfarm_ir::{BinaryOp, Expr, TensorData, TensorType, ValueId};
use aotfarm_protocol::DType;

use super::{Emit, Result, gather};

/// What an element of a resampled axis is made of: places of the axis, each with its weight.
pub(crate) type Taps = Vec<(i64, f64)>;

/// An axis on which element i is the sum that `taps[i]` says; all have as many. Places beyond the ends are taken for these.
pub(crate) fn interpolate(e: &mut Emit<'_>, x: ValueId, axis: usize, size: i64, taps: &[Taps]) -> Result<ValueId> {
    let count = taps.first().map_or(0, Vec::len);
    let length = Expr::from(taps.len() as i64);
    let dtype = e.dtype(x);
    let mut sum: Option<ValueId> = None;
    for tap in 0..count {
        let places = taps.iter().flat_map(|taps| taps[tap].0.clamp(0, size - 1).to_le_bytes()).collect();
        let ty = TensorType { dtype: DType::I64, shape: vec![length.clone()] };
        let places = e.builder.weight(&format!("{}.places", e.source), ty, TensorData::new(places))?;
        let mut part = gather::take(e, x, places, axis)?;
        if taps.iter().any(|taps| taps[tap].1 != 1.0) {
            let weights: Vec<f32> = taps.iter().map(|taps| taps[tap].1 as f32).collect();
            let mut shape = vec![Expr::one(); e.rank(x)];
            shape[axis] = length.clone();
            let ty = TensorType { dtype: DType::F32, shape };
            let weights = e.builder.weight(&format!("{}.weights", e.source), ty, TensorData::from_f32(&weights))?;
            let weights = e.cast(weights, dtype)?;
            part = e.binary(BinaryOp::Mul, part, weights)?;
        }
        sum = Some(match sum {
            None => part,
            Some(sum) => e.binary(BinaryOp::Add, sum, part)?,
        });
    }
    sum.ok_or_else(|| "an axis resized to nothing is not supported".into())
}
