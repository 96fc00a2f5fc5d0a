//! Convolutions, and the windows that they share with pooling.

use aotfarm_ir::{Expr, Op, ValueId, Window};

use super::{Emit, Result};

/// Where the padding of a window goes that keeps `ceil(size / stride)` outputs, if its total is odd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Same {
    /// The extra row or column comes last.
    Upper,
    /// It comes first.
    Lower,
}

impl Same {
    /// `total` before and after.
    pub(crate) fn split(self, total: i64) -> [i64; 2] {
        let small = total / 2;
        match self {
            Self::Upper => [small, total - small],
            Self::Lower => [total - small, small],
        }
    }
}

/// Checks that `x` is a batch of images, which is what windows slide over.
pub(crate) fn over_images(e: &Emit<'_>, x: ValueId) -> Result<()> {
    match e.rank(x) {
        4 => Ok(()),
        rank => Err(format!("only two spatial dimensions with a batch are supported, and its input has rank {rank}").into()),
    }
}

/// Height and width of a weight `[O, C/groups, KH, KW]`.
pub(crate) fn kernel_of(e: &Emit<'_>, weight: ValueId) -> Result<[i64; 2]> {
    match e.ty(weight).shape.iter().map(Expr::as_const).collect::<Option<Vec<_>>>().as_deref() {
        Some([_, _, h, w]) => Ok([*h, *w]),
        _ => Err("only two spatial dimensions with constant weights are supported".into()),
    }
}

pub(crate) fn conv(
    e: &mut Emit<'_>,
    x: ValueId,
    weight: ValueId,
    bias: Option<ValueId>,
    window: Window,
    groups: i64,
) -> Result<ValueId> {
    over_images(e, x)?;
    let inputs: Vec<ValueId> = [x, weight].into_iter().chain(bias).collect();
    e.push(Op::Conv { window, groups }, &inputs)
}
