//! Transposed convolutions.

use aotfarm_ir::{Expr, Number, Op, ValueId, Window};
use aotfarm_protocol::DType;

use super::{Emit, Result, conv, gather, view};

/// An axis from its other end.
pub(crate) fn flip(e: &mut Emit<'_>, x: ValueId, axis: usize) -> Result<ValueId> {
    let size = e.shape(x)[axis].as_const().ok_or("turning an axis of symbolic size around is not supported")?;
    if size < 2 {
        return Ok(x);
    }
    let places = e.push(Op::Iota { length: Expr::from(size), start: size - 1, step: -1, dtype: DType::I64 }, &[])?;
    gather::take(e, x, places, axis)
}

/// What a transposed convolution of `x [N,C,H,W]` by `weight [C,O/groups,KH,KW]` gives: that of the image with zeros between its
/// elements by the weight turned around. `window` is that of the convolution whose gradient it is; `more` is added after the result.
pub(crate) fn conv_transpose(
    e: &mut Emit<'_>,
    x: ValueId,
    weight: ValueId,
    bias: Option<ValueId>,
    window: Window,
    groups: i64,
    more: [i64; 2],
) -> Result<ValueId> {
    conv::over_images(e, x)?;
    let sizes: Option<Vec<i64>> = e.shape(weight).iter().map(Expr::as_const).collect();
    let Some(&[channels, outputs, height, width]) = sizes.as_deref() else {
        return Err("a transposed convolution needs a weight of constant size and two spatial dimensions".into());
    };
    if groups < 1 || channels % groups != 0 {
        return Err(format!("{channels} channels are not {groups} groups").into());
    }
    let exprs = |sizes: &[i64]| sizes.iter().map(|n| Expr::from(*n)).collect::<Vec<_>>();
    let mut kernel = e.reshape(weight, exprs(&[groups, channels / groups, outputs, height, width]))?;
    kernel = view::permute(e, kernel, vec![0, 2, 1, 3, 4])?;
    kernel = e.reshape(kernel, exprs(&[groups * outputs, channels / groups, height, width]))?;
    for axis in 2..4 {
        kernel = flip(e, kernel, axis)?;
    }
    let mut image = x;
    for (i, &stride) in window.stride.iter().enumerate().filter(|(_, stride)| **stride > 1) {
        let axis = i + 2;
        let mut shape = e.shape(image);
        image = view::unsqueeze(e, image, vec![axis + 1])?;
        let mut pads = vec![[0, 0]; shape.len() + 1];
        pads[axis + 1] = [0, stride - 1];
        image = view::pad(e, image, pads, Number::ZERO)?;
        shape[axis] = &shape[axis] * &Expr::from(stride);
        image = e.reshape(image, shape)?;
    }
    // What lies around the spread image, less the zeros after its last element.
    let mut around = vec![[0, 0]; 4];
    for i in 0..2 {
        let reach = window.dilation[i] * (window.kernel[i] - 1);
        let [before, after] = window.pad[i];
        around[i + 2] = [reach - before, reach - after + more[i] - (window.stride[i] - 1)];
    }
    let image = view::pad(e, image, around, Number::ZERO)?;
    let plain = Window { kernel: window.kernel, stride: [1, 1], pad: [[0; 2]; 2], dilation: window.dilation };
    conv::conv(e, image, kernel, bias, plain, groups)
}
