//! The type of a tensor, and the sizes that are allowed.

use std::fmt;

use aotfarm_protocol::DType;

use super::{Expr, GraphDim, MAX_SIZE};

/// Most dimensions of a tensor.
pub const MAX_RANK: usize = 16;
/// Most elements of a tensor at the largest sizes of its dimensions.
pub const MAX_ELEMENTS: i64 = 1 << 44;

/// Element type and shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorType {
    /// Element type.
    pub dtype: DType,
    /// Size of each dimension.
    pub shape: Vec<Expr>,
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.dtype, shape_text(&self.shape))
    }
}

impl TensorType {
    /// A type; sizes may be integers or expressions.
    pub fn new<D: Into<Expr>>(dtype: DType, shape: impl IntoIterator<Item = D>) -> Self {
        Self { dtype, shape: shape.into_iter().map(Into::into).collect() }
    }

    /// The number of elements.
    pub fn elements(&self) -> Expr {
        self.shape.iter().product()
    }

    /// The sizes, when all are constant.
    pub fn const_shape(&self) -> Option<Vec<i64>> {
        self.shape.iter().map(Expr::as_const).collect()
    }
}

pub(crate) fn shape_text(shape: &[Expr]) -> String {
    format!("[{}]", shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
}

/// Checks that every size is between 0 and [`MAX_SIZE`], and their product at most [`MAX_ELEMENTS`], for all allowed sizes of the
/// symbols. The error says what to change.
pub fn check_sizes(ty: &TensorType, dims: &[GraphDim]) -> Result<(), String> {
    let mut elements = 1i64;
    for size in &ty.shape {
        if let Some(unknown) = size.symbols().into_iter().find(|s| !dims.iter().any(|d| d.sym == *s)) {
            return Err(format!("the size `{size}` uses `{unknown}`, which is not a dimension of the graph"));
        }
        let (low, high) = size.bounds(dims);
        if low < 0 {
            let ranges = if low == i64::MIN { String::new() } else { format!(" (as low as {low})") };
            return Err(format!(
                "the size `{size}` may be negative{ranges} for allowed sizes of its symbols; raise their lower ends"
            ));
        }
        if high > MAX_SIZE {
            return Err(format!("the size `{size}` may exceed {MAX_SIZE}; lower the upper ends of its symbols"));
        }
        elements = elements.checked_mul(high.max(1)).filter(|&n| n <= MAX_ELEMENTS).ok_or_else(|| {
            format!("a result of type {ty} may have more than {MAX_ELEMENTS} elements; lower the upper ends of its symbols")
        })?;
    }
    Ok(())
}

/// Checks that a weight's shape is constant, and that its data of so many `bytes` are its elements. The error says what is wrong.
pub(crate) fn check_weight(ty: &TensorType, bytes: usize) -> Result<(), String> {
    if let Some(size) = ty.shape.iter().find(|size| size.as_const().is_none()) {
        return Err(format!("a weight must have a constant shape, but has the size `{size}`"));
    }
    check_sizes(ty, &[])?;
    let elements: i64 = ty.shape.iter().filter_map(Expr::as_const).product();
    let wanted = u128::from(elements.unsigned_abs()) * ty.dtype.size() as u128;
    if wanted != bytes as u128 {
        return Err(format!("{ty} takes {wanted} bytes, but the data has {bytes}"));
    }
    Ok(())
}
