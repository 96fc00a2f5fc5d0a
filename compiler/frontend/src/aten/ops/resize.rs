//! Images, signals and volumes of another size, and pixels moved between channels and places.

use aotfarm_ir::{Expr, ValueId};

use super::row::{Row, row, tensor};
use crate::aten::call::Call;
use crate::aten::scope::Val;
use crate::semantics::resize::{self, Kind, Resized};
use crate::semantics::{Result, view};

pub(super) static ROWS: &[Row] = &[
    row("aten.upsample_nearest1d.vec", |c| upsample(c, Kind::Nearest)),
    row("aten.upsample_nearest2d.vec", |c| upsample(c, Kind::Nearest)),
    row("aten.upsample_nearest3d.vec", |c| upsample(c, Kind::Nearest)),
    row("aten.upsample_nearest1d.default", |c| upsample(c, Kind::Nearest)),
    row("aten.upsample_nearest2d.default", |c| upsample(c, Kind::Nearest)),
    row("aten.upsample_nearest3d.default", |c| upsample(c, Kind::Nearest)),
    row("aten._upsample_nearest_exact1d.vec", |c| upsample(c, Kind::NearestMiddle)),
    row("aten._upsample_nearest_exact2d.vec", |c| upsample(c, Kind::NearestMiddle)),
    row("aten.upsample_linear1d.vec", |c| upsample(c, Kind::Linear)),
    row("aten.upsample_bilinear2d.vec", |c| upsample(c, Kind::Linear)),
    row("aten.upsample_trilinear3d.vec", |c| upsample(c, Kind::Linear)),
    row("aten.upsample_linear1d.default", |c| upsample(c, Kind::Linear)),
    row("aten.upsample_bilinear2d.default", |c| upsample(c, Kind::Linear)),
    row("aten.upsample_bicubic2d.vec", |c| upsample(c, Kind::Cubic)),
    row("aten.upsample_bicubic2d.default", |c| upsample(c, Kind::Cubic)),
    row("aten._upsample_bilinear2d_aa.vec", |c| antialiased(c, Kind::Linear)),
    row("aten._upsample_bilinear2d_aa.default", |c| antialiased(c, Kind::Linear)),
    row("aten._upsample_bicubic2d_aa.vec", |c| antialiased(c, Kind::Cubic)),
    row("aten._upsample_bicubic2d_aa.default", |c| antialiased(c, Kind::Cubic)),
    row("aten.pixel_shuffle.default", pixel_shuffle),
    row("aten.pixel_unshuffle.default", pixel_unshuffle),
];

/// The operand, and what each axis from the third becomes.
fn resized(c: &mut Call) -> Result<(ValueId, Vec<Resized>)> {
    let x = if c.has("input") { c.tensor("input")? } else { c.tensor("self")? };
    let old = c.shape(x);
    let old = old.get(2..).ok_or("its input has no spatial axes")?;
    let factor = |name: &str| c.opt_float(name);
    // Forms without lists of factors have one of their own for each axis.
    let own = match old.len() {
        1 => vec![factor("scales")?],
        2 => vec![factor("scales_h")?, factor("scales_w")?],
        _ => vec![factor("scales_d")?, factor("scales_h")?, factor("scales_w")?],
    };
    let axes = match (c.opt_sizes("output_size")?, c.opt_floats("scale_factors")?) {
        (Some(sizes), None) if sizes.len() == old.len() => {
            sizes.into_iter().zip(own).map(|(size, factor)| Resized { size, factor }).collect()
        }
        (None, Some(factors)) if factors.len() == old.len() => {
            old.iter().zip(factors).map(|(size, factor)| Resized::by(size, factor)).collect::<Result<_>>()?
        }
        _ => return Err("it needs a size or a factor for each spatial axis".into()),
    };
    Ok((x, axes))
}

fn upsample(c: &mut Call, kind: Kind) -> Result<Val> {
    let (mut x, axes) = resized(c)?;
    let align_corners = c.flag("align_corners", false)?;
    // The last axis first: the next ones then have fewer elements to read.
    for (at, to) in axes.iter().enumerate().rev() {
        x = resize::resize(&mut c.emit(), kind, x, at + 2, to, align_corners)?;
    }
    tensor(x)
}

fn antialiased(c: &mut Call, kind: Kind) -> Result<Val> {
    let (mut x, axes) = resized(c)?;
    let align_corners = c.flag("align_corners", false)?;
    for (at, to) in axes.iter().enumerate().rev() {
        x = resize::antialiased(&mut c.emit(), kind, x, at + 2, to, align_corners)?;
    }
    tensor(x)
}

/// The leading axes, and `[C, H, W]`.
fn image(c: &Call, x: ValueId) -> Result<(Vec<Expr>, [Expr; 3])> {
    let mut shape = c.shape(x);
    let Some(at) = shape.len().checked_sub(3) else { return Err("its input has no channels, rows and columns".into()) };
    let tail = shape.split_off(at);
    Ok((shape, [tail[0].clone(), tail[1].clone(), tail[2].clone()]))
}

/// `[…, C r², H, W]` to `[…, C, H r, W r]`.
fn pixel_shuffle(c: &mut Call) -> Result<Val> {
    let (x, r) = (c.tensor("self")?, Expr::from(c.int("upscale_factor", None)?));
    let (lead, [channels, h, w]) = image(c, x)?;
    let channels = channels.div_exact(&(&r * &r)).ok_or("its channels are no multiple of the squared factor")?;
    let parts = [channels.clone(), r.clone(), r.clone(), h.clone(), w.clone()];
    rearranged(c, x, &lead, &parts, [0, 3, 1, 4, 2], &[channels, &h * &r, &w * &r])
}

/// `[…, C, H r, W r]` to `[…, C r², H, W]`.
fn pixel_unshuffle(c: &mut Call) -> Result<Val> {
    let (x, r) = (c.tensor("self")?, Expr::from(c.int("downscale_factor", None)?));
    let (lead, [channels, h, w]) = image(c, x)?;
    let part = |size: Expr| size.div_exact(&r).ok_or("its rows or columns are no multiple of the factor");
    let (h, w) = (part(h)?, part(w)?);
    let parts = [channels.clone(), h.clone(), r.clone(), w.clone(), r.clone()];
    rearranged(c, x, &lead, &parts, [0, 2, 4, 1, 3], &[&channels * &(&r * &r), h, w])
}

fn rearranged(c: &mut Call, x: ValueId, lead: &[Expr], parts: &[Expr], order: [usize; 5], shape: &[Expr; 3]) -> Result<Val> {
    let mut e = c.emit();
    let x = e.reshape(x, [lead, parts].concat())?;
    let axes = (0..lead.len()).chain(order.map(|axis| axis + lead.len())).collect();
    let x = view::permute(&mut e, x, axes)?;
    tensor(e.reshape(x, [lead, shape].concat())?)
}
