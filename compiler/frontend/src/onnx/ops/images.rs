//! Windows over images, and images of other sizes. A row of numbers is taken for an image of one row.

use aotfarm_ir::{BinaryOp, PoolOp, ReduceOp, UnaryOp, ValueId, Window};

use super::super::node::{NodeCall, one};
use super::super::scope::Known;
use super::Map;
use super::functions::composed;
use crate::semantics::activation::with_number;
use crate::semantics::conv::{self, Same};
use crate::semantics::resample::{Taps, interpolate};
use crate::semantics::{Emit, Result, pooling, reduction, transposed, view};

pub(super) static ROWS: &[(&str, Map)] = &[
    ("Conv", convolution),
    ("ConvTranspose", conv_transpose),
    ("MaxPool", |c| pooling(c, PoolOp::Max)),
    ("AveragePool", |c| {
        let count_include_pad = c.int("count_include_pad", 0) != 0;
        pooling(c, PoolOp::Avg { count_include_pad })
    }),
    ("LpPool", lp_pool),
    ("GlobalAveragePool", |c| composed(c, pooling::global_average)),
    ("GlobalMaxPool", |c| {
        composed(c, |e, x| {
            let axes = (2..e.rank(x)).collect();
            reduction::reduce(e, ReduceOp::Max, x, axes, true)
        })
    }),
    ("GlobalLpPool", |c| {
        let p = c.int("p", 2) as f64;
        composed(c, |e, x| {
            let axes = (2..e.rank(x)).collect();
            let x = powers(e, x, p)?;
            let sum = reduction::reduce(e, ReduceOp::Sum, x, axes, true)?;
            root(e, sum, p)
        })
    }),
    ("Resize", resize),
    ("Upsample", resize),
];

/// A tensor of any number of spatial axes as an image: one axis lies along the rows.
fn as_image(c: &mut NodeCall, x: ValueId) -> Result<ValueId> {
    match c.rank(x) {
        3 => view::unsqueeze(&mut c.emit(), x, vec![2]),
        _ => {
            conv::over_images(&c.emit(), x)?;
            Ok(x)
        }
    }
}

/// What [`as_image`] made of a tensor of that rank, with its rank again.
fn as_before(c: &mut NodeCall, y: ValueId, rank: usize) -> Result<ValueId> {
    if rank == 3 { view::without(&mut c.emit(), y, &[2]) } else { Ok(y) }
}

/// The numbers for height and width; for one spatial axis, `default` for the height.
fn pair(c: &NodeCall, name: &str, default: i64, rank: usize) -> Result<[i64; 2]> {
    match (rank, c.list(name).unwrap_or_default()) {
        (_, []) => Ok([default; 2]),
        (3, [w]) => Ok([default, *w]),
        (4, [h, w]) => Ok([*h, *w]),
        (_, other) => {
            Err(format!("`{name}` has {} numbers for {} spatial dimensions", other.len(), rank.saturating_sub(2)).into())
        }
    }
}

/// Padding from `pads`, `[top, left, bottom, right]`, or what `auto_pad` stands for; `x` is an image, of a tensor of `rank`.
fn window(c: &mut NodeCall, x: ValueId, kernel: [i64; 2], rank: usize) -> Result<Window> {
    let (stride, dilation) = (pair(c, "strides", 1, rank)?, pair(c, "dilations", 1, rank)?);
    let mut pad = match (rank, c.list("pads").unwrap_or_default()) {
        (_, []) => [[0; 2]; 2],
        (3, [left, right]) => [[0; 2], [*left, *right]],
        (4, [top, left, bottom, right]) => [[*top, *bottom], [*left, *right]],
        (_, other) => return Err(format!("`pads` has {} numbers for {} spatial dimensions", other.len(), rank - 2).into()),
    };
    let same = match c.text("auto_pad") {
        "" | "NOTSET" => None,
        "VALID" => {
            pad = [[0; 2]; 2];
            None
        }
        "SAME_UPPER" => Some(Same::Upper),
        "SAME_LOWER" => Some(Same::Lower),
        other => return Err(format!("auto_pad `{other}` is not supported").into()),
    };
    if let Some(same) = same {
        for axis in 0..2 {
            let size = c.shape(x)[axis + 2].as_const().ok_or("auto_pad needs constant spatial sizes")?;
            let step = stride[axis].max(1); // the shape rule refuses one that is not positive
            let outputs = (size + step - 1).div_euclid(step);
            let total = ((outputs - 1) * step + dilation[axis] * (kernel[axis] - 1) + 1 - size).max(0);
            pad[axis] = same.split(total);
        }
    }
    Ok(Window { kernel, stride, pad, dilation })
}

/// Image, weight and bias of a convolution, and the image's rank in the file.
fn operands(c: &mut NodeCall) -> Result<(ValueId, ValueId, Option<ValueId>, usize)> {
    let (x, weight, bias) = (c.tensor(0)?, c.tensor(1)?, c.opt_tensor(2)?);
    let rank = c.rank(x);
    let image = as_image(c, x)?;
    let weight = if rank == 3 && c.rank(weight) == 3 { view::unsqueeze(&mut c.emit(), weight, vec![2])? } else { weight };
    Ok((image, weight, bias, rank))
}

fn convolution(c: &mut NodeCall) -> Result<Vec<Known>> {
    let (x, weight, bias, rank) = operands(c)?;
    let kernel = conv::kernel_of(&c.emit(), weight)?;
    let (window, groups) = (window(c, x, kernel, rank)?, c.int("group", 1));
    let y = conv::conv(&mut c.emit(), x, weight, bias, window, groups)?;
    one(as_before(c, y, rank)?)
}

fn conv_transpose(c: &mut NodeCall) -> Result<Vec<Known>> {
    let (x, weight, bias, rank) = operands(c)?;
    let kernel = conv::kernel_of(&c.emit(), weight)?;
    let mut window = Window { pad: [[0; 2]; 2], ..window_without_same(c, x, kernel, rank)? };
    let mut more = pair(c, "output_padding", 0, rank)?;
    let wanted = c.list("output_shape").map(<[i64]>::to_vec);
    let same = match c.text("auto_pad") {
        "SAME_UPPER" => Some(Same::Upper),
        "SAME_LOWER" => Some(Same::Lower),
        _ => None,
    };
    if wanted.is_none() && same.is_none() {
        window = window_without_same(c, x, kernel, rank)?;
    } else {
        for axis in 0..2 {
            let size = c.shape(x)[axis + 2].as_const().ok_or("output_shape and auto_pad need constant spatial sizes")?;
            let output = match wanted.as_deref() {
                // The spatial sizes alone, or all.
                Some(list) if rank == 3 && axis == 0 => list.first().map(|_| 1),
                Some(list) => (list.len() + axis).checked_sub(2).and_then(|at| list.get(at)).copied(),
                None => Some(size * window.stride[axis]),
            };
            let output = output.ok_or("its output_shape lacks a size")?;
            let full = window.stride[axis] * (size - 1) + more[axis] + window.dilation[axis] * (kernel[axis] - 1) + 1;
            let total = full - output;
            if total < 0 {
                more[axis] -= total;
            } else {
                // The standard's halves: what is left over comes first unless it is SAME_UPPER.
                window.pad[axis] = same.unwrap_or(Same::Lower).split(total);
            }
        }
    }
    let groups = c.int("group", 1);
    let y = transposed::conv_transpose(&mut c.emit(), x, weight, bias, window, groups, more)?;
    one(as_before(c, y, rank)?)
}

/// [`window`], whatever `auto_pad` says of the result.
fn window_without_same(c: &mut NodeCall, x: ValueId, kernel: [i64; 2], rank: usize) -> Result<Window> {
    if c.text("auto_pad").starts_with("SAME") {
        let (stride, dilation) = (pair(c, "strides", 1, rank)?, pair(c, "dilations", 1, rank)?);
        return Ok(Window { kernel, stride, pad: [[0; 2]; 2], dilation });
    }
    window(c, x, kernel, rank)
}

fn pooling(c: &mut NodeCall, op: PoolOp) -> Result<Vec<Known>> {
    let x = c.tensor(0)?;
    let rank = c.rank(x);
    let (image, kernel) = (as_image(c, x)?, pair(c, "kernel_shape", 1, rank)?);
    if c.list("kernel_shape").is_none_or(<[i64]>::is_empty) {
        return Err("its kernel_shape is missing".into());
    }
    let (window, ceil_mode) = (window(c, image, kernel, rank)?, c.int("ceil_mode", 0) != 0);
    let y = pooling::pool(&mut c.emit(), op, image, window, ceil_mode)?;
    let mut results = one(as_before(c, y, rank)?)?;
    if op == PoolOp::Max && c.gives(1) {
        if c.int("storage_order", 0) != 0 {
            return Err("indices in column-major order (`storage_order` 1) are not supported; export it with 0".into());
        }
        let places = pooling::places_of_largest(&mut c.emit(), image, window, ceil_mode)?;
        results.extend(one(as_before(c, places, rank)?)?);
    }
    Ok(results)
}

/// `|x|^p`.
pub(super) fn powers(e: &mut Emit<'_>, x: ValueId, p: f64) -> Result<ValueId> {
    let size = e.unary(UnaryOp::Abs, x)?;
    match p {
        1.0 => Ok(size),
        2.0 => e.binary(BinaryOp::Mul, x, x),
        _ => with_number(e, BinaryOp::Pow, size, p),
    }
}

/// `x^(1/p)`.
pub(super) fn root(e: &mut Emit<'_>, x: ValueId, p: f64) -> Result<ValueId> {
    match p {
        1.0 => Ok(x),
        2.0 => e.unary(UnaryOp::Sqrt, x),
        _ => with_number(e, BinaryOp::Pow, x, 1.0 / p),
    }
}

fn lp_pool(c: &mut NodeCall) -> Result<Vec<Known>> {
    let x = c.tensor(0)?;
    let (rank, p) = (c.rank(x), c.int("p", 2) as f64);
    let (image, kernel) = (as_image(c, x)?, pair(c, "kernel_shape", 1, rank)?);
    let (window, ceil_mode) = (window(c, image, kernel, rank)?, c.int("ceil_mode", 0) != 0);
    let mut e = c.emit();
    let image = powers(&mut e, image, p)?;
    let sum = pooling::sum_over(&mut e, image, window, ceil_mode, 1.0)?;
    let y = root(&mut e, sum, p)?;
    one(as_before(c, y, rank)?)
}

/// How positions of a resized axis become positions of the axis.
struct Axis<'a> {
    mode: &'a str,
    size: f64,
    scale: f64,
    outputs: i64,
}

impl Axis<'_> {
    fn position(&self, i: i64) -> Result<f64> {
        let (i, wide) = (i as f64, self.scale * self.size);
        let half_pixel = (i + 0.5) / self.scale - 0.5;
        Ok(match self.mode {
            "half_pixel" => half_pixel,
            "pytorch_half_pixel" => {
                if wide == 1.0 {
                    -0.5
                } else {
                    half_pixel
                }
            }
            "align_corners" => {
                if wide == 1.0 {
                    0.0
                } else {
                    i * (self.size - 1.0) / (wide - 1.0)
                }
            }
            "asymmetric" => i / self.scale,
            "half_pixel_symmetric" => self.size / 2.0 * (1.0 - self.outputs as f64 / wide) + half_pixel,
            other => return Err(format!("coordinate_transformation_mode `{other}` is not supported").into()),
        })
    }
}

/// Resize; Upsample is what it was before opset 10.
fn resize(c: &mut NodeCall) -> Result<Vec<Known>> {
    let mut x = c.tensor(0)?;
    let shape = c.shape(x);
    let is_upsample = c.node.op_type == "Upsample";
    let is_old = c.opset() < 11 || is_upsample;
    let (at_scales, at_sizes) = if is_old { (1, usize::MAX) } else { (2, 3) };
    let axes = match c.list("axes") {
        Some(list) => list.iter().map(|axis| crate::semantics::axis(*axis, shape.len())).collect::<Result<Vec<_>>>()?,
        None => (0..shape.len()).collect(),
    };
    let mut scales = match c.attribute("scales") {
        Some(attribute) => Some(attribute.floats.iter().map(|v| f64::from(*v)).collect()),
        None => c.floats(at_scales)?,
    };
    scales = scales.filter(|scales: &Vec<f64>| !scales.is_empty());
    let sizes = if at_sizes < usize::MAX && c.name(at_sizes).is_some() { Some(c.sizes(at_sizes)?) } else { None };
    if scales.as_ref().map(Vec::len).or(sizes.as_ref().map(Vec::len)) != Some(axes.len()) {
        return Err("its scales or sizes are no constants of one number for each axis".into());
    }
    let mode = match c.text("coordinate_transformation_mode") {
        _ if is_old => "asymmetric",
        "" => "half_pixel",
        given => given,
    }
    .to_owned();
    let kind = match c.text("mode") {
        "" => "nearest",
        given => given,
    }
    .to_owned();
    let rounding = match c.text("nearest_mode") {
        _ if is_old => "floor",
        "" => "round_prefer_floor",
        given => given,
    }
    .to_owned();
    let policy = c.text("keep_aspect_ratio_policy");
    if !matches!(policy, "" | "stretch") {
        return Err(format!("keep_aspect_ratio_policy `{policy}` is not supported").into());
    }
    let (antialias, exclude) = (c.int("antialias", 0) != 0, c.int("exclude_outside", 0) != 0);
    let cubic = c.float("cubic_coeff_a", -0.75);
    for (i, &axis) in axes.iter().enumerate() {
        let same = match (&scales, &sizes) {
            (Some(scales), _) => scales[i] == 1.0,
            (None, Some(sizes)) => sizes[i] == shape[axis],
            _ => false,
        };
        if same {
            continue;
        }
        let Some(size) = shape[axis].as_const() else {
            // Each element as often, whatever the size.
            match (&scales, kind.as_str(), mode.as_str(), rounding.as_str()) {
                (Some(scales), "nearest", "asymmetric", "floor") if scales[i].fract() == 0.0 && scales[i] >= 1.0 => {
                    x = view::repeat_each(&mut c.emit(), x, axis, scales[i] as i64)?;
                    continue;
                }
                _ => return Err(format!("resizing an axis of symbolic size {} so is not supported", shape[axis]).into()),
            }
        };
        let (scale, outputs) = match (&scales, &sizes) {
            (Some(scales), _) => (scales[i], (size as f64 * scales[i]).floor() as i64),
            (None, Some(sizes)) => {
                let outputs = sizes[i].as_const().ok_or("a resize to a symbolic size is not supported")?;
                (outputs as f64 / size as f64, outputs)
            }
            _ => return Err("its scales and sizes are missing".into()),
        };
        if size < 1 || !(1..1 << 24).contains(&outputs) || scale <= 0.0 {
            return Err(format!("an axis of {size} cannot be resized to {outputs}").into());
        }
        let place = Axis { mode: &mode, size: size as f64, scale, outputs };
        let weights = Weights { kind: &kind, rounding: &rounding, antialias, exclude, cubic, scale };
        let taps = (0..outputs).map(|i| weights.taps(place.position(i)?, size)).collect::<Result<Vec<_>>>()?;
        x = interpolate(&mut c.emit(), x, axis, size, &taps)?;
    }
    one(x)
}

/// How an element is made of those around its position.
struct Weights<'a> {
    kind: &'a str,
    rounding: &'a str,
    antialias: bool,
    exclude: bool,
    cubic: f64,
    scale: f64,
}

impl Weights<'_> {
    /// As the standard's reference has them: an even number around the position, of which the middle two enclose it.
    fn taps(&self, at: f64, size: i64) -> Result<Taps> {
        let below = at.ceil() - 1.0;
        let ratio = at - below; // in (0, 1]
        if self.kind == "nearest" {
            let up = match self.rounding {
                _ if ratio == 1.0 => true,
                "round_prefer_floor" => ratio > 0.5,
                "round_prefer_ceil" => ratio >= 0.5,
                "floor" => false,
                "ceil" => true,
                other => return Err(format!("nearest_mode `{other}` is not supported").into()),
            };
            return Ok(vec![(below as i64 + i64::from(up), 1.0)]);
        }
        let shrink = if self.antialias { self.scale.min(1.0) } else { 1.0 };
        let a = self.cubic;
        let (reach, weight): (f64, Box<dyn Fn(f64) -> f64>) = match self.kind {
            "linear" => (1.0, Box::new(|d: f64| (1.0 - d.abs()).max(0.0))),
            "cubic" => (
                2.0,
                Box::new(move |d: f64| match d.abs() {
                    d if d <= 1.0 => ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0,
                    d if d < 2.0 => ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a,
                    _ => 0.0,
                }),
            ),
            other => return Err(format!("mode `{other}` is not supported").into()),
        };
        let first = (-reach / shrink).floor() as i64 + 1;
        let mut taps: Taps = (first..2 - first).map(|i| (below as i64 + i, weight(shrink * (i as f64 - ratio)))).collect();
        if self.exclude {
            for (place, weight) in &mut taps {
                *weight = if (0..size).contains(place) { *weight } else { 0.0 };
            }
        }
        if self.exclude || self.antialias {
            let sum: f64 = taps.iter().map(|(_, weight)| weight).sum();
            taps.iter_mut().for_each(|(_, weight)| *weight /= sum);
        }
        Ok(taps)
    }
}
