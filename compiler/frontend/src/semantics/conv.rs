//! Convolutions, and the windows that they share with pooling.

use aotfarm_ir::{Expr, Number, Op, ValueId, Window};

use super::{Emit, Result, view};

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

/// The geometry of a transposed convolution.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Transposed {
    pub(crate) stride: [i64; 2],
    /// What the convolution that it transposes pads on each side.
    pub(crate) pad: [i64; 2],
    /// More rows and columns at the end.
    pub(crate) output_pad: [i64; 2],
    pub(crate) dilation: [i64; 2],
}

/// A transposed convolution with the weight `[C, O/groups, KH, KW]`: zeros between the elements of the image, then a convolution with the
/// kernel turned round.
pub(crate) fn transposed(
    e: &mut Emit<'_>,
    x: ValueId,
    weight: ValueId,
    bias: Option<ValueId>,
    geometry: Transposed,
    groups: i64,
) -> Result<ValueId> {
    over_images(e, x)?;
    let kernel = kernel_of(e, weight)?;
    let Transposed { stride, pad, output_pad, dilation } = geometry;
    let (shape, [channels, each]) = (e.shape(x), [0, 1].map(|axis| e.shape(weight)[axis].clone()));
    let of_group = channels.div_exact(&Expr::from(groups)).ok_or("its channels are no multiple of its groups")?;
    let mut spread = x;
    if stride != [1, 1] {
        let [n, c, h, w] = [0, 1, 2, 3].map(|axis| shape[axis].clone());
        spread = e.reshape(x, vec![n.clone(), c.clone(), h.clone(), Expr::one(), w.clone(), Expr::one()])?;
        let gaps = vec![[0, 0], [0, 0], [0, 0], [0, stride[0] - 1], [0, 0], [0, stride[1] - 1]];
        spread = view::pad(e, spread, gaps, Number::ZERO)?;
        spread = e.reshape(spread, vec![n, c, &h * &Expr::from(stride[0]), &w * &Expr::from(stride[1])])?;
    }
    let edges = [0, 1].map(|axis| {
        let around = dilation[axis] * (kernel[axis] - 1) - pad[axis];
        [around, around + output_pad[axis] - (stride[axis] - 1)]
    });
    spread = view::pad(e, spread, vec![[0, 0], [0, 0], edges[0], edges[1]], Number::ZERO)?;
    let [kh, kw] = kernel.map(Expr::from);
    let mut turned = weight;
    for axis in 0..2 {
        turned = view::flip(e, turned, axis + 2)?;
    }
    let turned = e.reshape(turned, vec![Expr::from(groups), of_group.clone(), each.clone(), kh.clone(), kw.clone()])?;
    let turned = view::permute(e, turned, vec![0, 2, 1, 3, 4])?;
    let turned = e.reshape(turned, vec![&each * &Expr::from(groups), of_group, kh, kw])?;
    conv(e, spread, turned, bias, Window { kernel, stride: [1, 1], pad: [[0; 2]; 2], dilation }, groups)
}
