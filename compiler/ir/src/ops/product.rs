//! Matrix products, and the convolutions and attention made of them.

use aotfarm_protocol::DType;
use rayon::prelude::*;

use super::normalisation::softmax_row;
use super::rules::{broadcast, ensure, float, like, rank4, same_dtype};
use super::{Group, Op, Window, foreign};
use crate::array::{Array, Data};
use crate::syntax::{NodeText, TextError};
use crate::types::{TensorType, shape_text};
use crate::{Bindings, Expr, MAX_SIZE};

pub(super) struct Product;

impl Group for Product {
    fn name(&self, op: &Op) -> &'static str {
        match op {
            Op::Conv { .. } => "conv",
            Op::Linear => "linear",
            Op::MatMul => "matmul",
            Op::Attention { .. } => "attention",
            _ => foreign(op),
        }
    }

    fn arity(&self, op: &Op) -> (usize, usize) {
        match op {
            Op::Conv { .. } | Op::Linear => (2, 3),
            Op::MatMul => (2, 2),
            Op::Attention { .. } => (3, 4),
            _ => foreign(op),
        }
    }

    fn infer(&self, op: &Op, operands: &[&TensorType]) -> Result<TensorType, String> {
        match op {
            Op::Conv { window, groups } => conv_type(operands, window, *groups),
            Op::Linear => linear_type(operands),
            Op::MatMul => matmul_type(operands),
            Op::Attention { .. } => attention_type(operands),
            _ => foreign(op),
        }
    }

    fn multiply_adds(&self, op: &Op, operands: &[&TensorType], result: &TensorType) -> Expr {
        let shape = |operand: usize| operands[operand].shape.as_slice();
        let results = result.elements();
        match op {
            Op::Conv { .. } => results * shape(1)[1..].iter().product::<Expr>(),
            Op::Linear => results * &shape(1)[1],
            Op::MatMul => results * shape(0).last().cloned().unwrap_or_else(Expr::zero),
            Op::Attention { .. } => {
                // query keyᵀ takes E, and the product with value S multiply-adds for each of their results.
                let [.., s, v] = shape(2) else { return Expr::zero() };
                let [.., e] = shape(0) else { return Expr::zero() };
                let rows = results.div_exact(v).unwrap_or_else(Expr::zero);
                rows * s * (e + v)
            }
            _ => foreign(op),
        }
    }

    fn attributes(&self, op: &Op) -> Vec<String> {
        match op {
            Op::Conv { window, groups } => {
                let mut attributes = window.attributes();
                if *groups != 1 {
                    attributes.push(format!("groups={groups}"));
                }
                attributes
            }
            Op::Attention { scale, causal } => {
                let mut attributes = vec![format!("scale={scale:?}")];
                if *causal {
                    attributes.push("causal".to_owned());
                }
                attributes
            }
            _ => Vec::new(),
        }
    }

    fn read(&self, name: &str, node: &mut NodeText<'_>) -> Result<Option<Op>, TextError> {
        Ok(Some(match name {
            "conv" => {
                let kernel = node.operands.get(1).and_then(|w| match w.shape.as_slice() {
                    [_, _, h, w] => Some([h.as_const()?, w.as_const()?]),
                    _ => None,
                });
                let kernel = kernel
                    .ok_or_else(|| node.error("the second operand of `conv` must be a weight of type [O, C/groups, KH, KW]"))?;
                Op::Conv { window: Window::read(kernel, node)?, groups: node.int("groups", Some(1))? }
            }
            "linear" => Op::Linear,
            "matmul" => Op::MatMul,
            "attention" => Op::Attention { scale: node.float("scale")?, causal: node.flag("causal")? },
            _ => return Ok(None),
        }))
    }

    fn evaluate(&self, op: &Op, x: &[&Array], shape: &[usize], _: &Bindings) -> Result<Array, String> {
        Ok(match op {
            Op::Conv { window, groups } => conv(x[0], x[1], x.get(2).copied(), window, *groups as usize, shape),
            Op::Linear => linear(x[0], x[1], x.get(2).copied(), shape),
            Op::MatMul => matmul(x[0], x[1], shape),
            Op::Attention { scale, causal } => attention(x, *scale, *causal, shape),
            _ => foreign(op),
        })
    }
}

fn conv_type(inputs: &[&TensorType], window: &Window, groups: i64) -> Result<TensorType, String> {
    float(inputs)?;
    rank4(&inputs[0].shape)?;
    let [o, per_group, kh, kw] = inputs[1].shape.as_slice() else {
        return Err("the weight must have the shape [O, C/groups, KH, KW]".into());
    };
    window.check()?;
    let kernel = [kh.as_const(), kw.as_const()];
    ensure(kernel == window.kernel.map(Some), || format!("a window of {:?} for a weight of [{kh}, {kw}]", window.kernel))?;
    ensure((1..=MAX_SIZE).contains(&groups), || format!("{groups} groups"))?;
    let x = &inputs[0].shape;
    ensure(x[1] == per_group * groups, || {
        format!("x has {} channels, but the weight expects {per_group} in each of {groups} groups", x[1])
    })?;
    ensure(o.as_const().is_some_and(|o| o % groups == 0), || format!("{o} output channels do not divide into {groups} groups"))?;
    bias(inputs.get(2), o)?;
    let [h, w] = window.slide(x);
    Ok(TensorType { dtype: inputs[0].dtype, shape: vec![x[0].clone(), o.clone(), h, w] })
}

/// The bias of `n` outputs.
fn bias(operand: Option<&&TensorType>, n: &Expr) -> Result<(), String> {
    ensure(operand.is_none_or(|b| b.shape == [n.clone()]), || format!("the bias must have the shape [{n}]"))
}

fn linear_type(operands: &[&TensorType]) -> Result<TensorType, String> {
    float(operands)?;
    let x = operands[0].shape.as_slice();
    ensure(!x.is_empty(), || "x must have at least 1 dimension".into())?;
    let [n, k] = operands[1].shape.as_slice() else { return Err("the weight must have the shape [N, K]".into()) };
    let last = x.len() - 1;
    ensure(x[last] == *k, || format!("x has {} features, but the weight expects {k}", x[last]))?;
    bias(operands.get(2), n)?;
    Ok(like(operands, &[&x[..last], std::slice::from_ref(n)].concat()))
}

fn matmul_type(operands: &[&TensorType]) -> Result<TensorType, String> {
    same_dtype(operands)?;
    ensure(operands[0].dtype != DType::Bool, || "operands must be numeric".into())?;
    let (a_lead, [m, k]) = matrix(operands[0], "a")?;
    let (b_lead, [k2, n]) = matrix(operands[1], "b")?;
    ensure(k == k2, || format!("a has {k} columns, but b has {k2} rows"))?;
    let mut shape = broadcast(a_lead, b_lead)?;
    shape.extend([m.clone(), n.clone()]);
    Ok(like(operands, &shape))
}

fn matrix<'a>(ty: &'a TensorType, name: &str) -> Result<(&'a [Expr], &'a [Expr; 2]), String> {
    ty.shape.split_last_chunk().ok_or_else(|| format!("{name} must have at least 2 dimensions"))
}

fn attention_type(inputs: &[&TensorType]) -> Result<TensorType, String> {
    float(&inputs[..3])?;
    let (q_lead, [l, e]) = matrix(inputs[0], "query")?;
    let (k_lead, [s, e2]) = matrix(inputs[1], "key")?;
    let (v_lead, [s2, v]) = matrix(inputs[2], "value")?;
    ensure(e == e2, || format!("query has {e} features, but key has {e2}"))?;
    ensure(s == s2, || format!("key has {s} positions, but value has {s2}"))?;
    let mut scores = broadcast(&broadcast(q_lead, k_lead)?, v_lead)?;
    let mut shape = scores.clone();
    scores.extend([l.clone(), s.clone()]);
    shape.extend([l.clone(), v.clone()]);
    if let Some(mask) = inputs.get(3) {
        ensure(mask.dtype == DType::Bool || mask.dtype == inputs[0].dtype, || {
            format!("the mask must be bool or {}, not {}", inputs[0].dtype, mask.dtype)
        })?;
        ensure(broadcast(&mask.shape, &scores).is_ok_and(|b| b == scores), || {
            format!("the mask {} does not broadcast to {}", shape_text(&mask.shape), shape_text(&scores))
        })?;
    }
    Ok(TensorType { dtype: inputs[0].dtype, shape })
}

/// A matrix inside a slice: row and column strides in elements.
#[derive(Clone, Copy)]
struct Matrix<'a> {
    values: &'a [f64],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    fn new(values: &'a [f64], rows: usize, columns: usize) -> Self {
        Self { values, rows, columns, row_stride: columns, column_stride: 1 }
    }

    /// The transpose of a `columns x rows` row-major matrix.
    fn transposed(values: &'a [f64], rows: usize, columns: usize) -> Self {
        Self { values, rows, columns, row_stride: 1, column_stride: rows }
    }

    fn covers_its_slice(&self) -> bool {
        self.rows == 0
            || self.columns == 0
            || (self.rows - 1) * self.row_stride + (self.columns - 1) * self.column_stride < self.values.len()
    }
}

/// `c = alpha * a b`, row-major.
fn gemm(alpha: f64, a: Matrix<'_>, b: Matrix<'_>, c: &mut [f64]) {
    let (m, k, n) = (a.rows, a.columns, b.columns);
    assert!(b.rows == k && c.len() == m * n && a.covers_its_slice() && b.covers_its_slice(), "sizes of a matrix product");
    // SAFETY: the assertion above keeps every element that the strides reach inside its slice; `c` is exclusively borrowed.
    unsafe {
        matrixmultiply::dgemm(
            m,
            k,
            n,
            alpha,
            a.values.as_ptr(),
            a.row_stride as isize,
            a.column_stride as isize,
            b.values.as_ptr(),
            b.row_stride as isize,
            b.column_stride as isize,
            0.0,
            c.as_mut_ptr(),
            n as isize,
            1,
        );
    }
}

/// Most elements of an im2col block: 2 MiB, a share of the cache.
const BLOCK: usize = 1 << 18;

/// Cross-correlation, image by image: blocks of output pixels in parallel, each as im2col and one product per group.
fn conv(x: &Array, weight: &Array, bias: Option<&Array>, window: &Window, groups: usize, shape: &[usize]) -> Array {
    let [n, o, oh, ow] = [shape[0], shape[1], shape[2], shape[3]];
    let (c, k) = (x.shape[1] / groups, weight.shape[1..].iter().product::<usize>());
    let (pixels, rows) = (oh * ow, o / groups);
    let mut out = vec![0.0; n * o * pixels];
    if out.is_empty() {
        return Array::float(x.dtype, shape, out);
    }
    let plane = x.shape[2] * x.shape[3];
    let block = (BLOCK / k.max(1)).clamp(32, 1024).min(pixels);
    let jobs: Vec<(usize, usize)> = (0..groups).flat_map(|g| (0..pixels).step_by(block).map(move |start| (g, start))).collect();
    for (image, out) in out.chunks_exact_mut(o * pixels).enumerate() {
        let compute = |&(g, start): &(usize, usize)| {
            let count = block.min(pixels - start);
            let from = (image * groups + g) * c * plane;
            let columns = im2col(&x.f()[from..from + c * plane], [c, x.shape[2], x.shape[3]], window, ow, start, count);
            let mut part = vec![0.0; rows * count];
            let weights = Matrix::new(&weight.f()[g * rows * k..(g + 1) * rows * k], rows, k);
            gemm(1.0, weights, Matrix::new(&columns, k, count), &mut part);
            part
        };
        let parts: Vec<Vec<f64>> = jobs.par_iter().map(compute).collect();
        for (&(g, start), part) in jobs.iter().zip(&parts) {
            let count = block.min(pixels - start);
            for (row, values) in part.chunks_exact(count).enumerate() {
                let channel = g * rows + row;
                let to = &mut out[channel * pixels + start..][..count];
                to.copy_from_slice(values);
                if let Some(bias) = bias {
                    let b = bias.f()[channel];
                    to.iter_mut().for_each(|v| *v += b);
                }
            }
        }
    }
    Array::float(x.dtype, shape, out)
}

/// The patches of `count` output pixels from `start`, one row per channel and tap.
fn im2col(x: &[f64], [c, height, width]: [usize; 3], window: &Window, ow: usize, start: usize, count: usize) -> Vec<f64> {
    let [h, w] = [height as i64, width as i64];
    let [kh, kw] = window.kernel;
    let mut columns = Vec::with_capacity(c * (kh * kw) as usize * count);
    for channel in 0..c {
        let plane = &x[channel * height * width..][..height * width];
        for ky in 0..kh {
            for kx in 0..kw {
                // Row by row of output pixels, so that bounds are checked once per row and not per element.
                let mut pixel = start;
                while pixel < start + count {
                    let (oy, first) = (pixel / ow, pixel % ow);
                    let run = (ow - first).min(start + count - pixel);
                    let y = oy as i64 * window.stride[0] - window.pad[0][0] + ky * window.dilation[0];
                    if y < 0 || y >= h {
                        columns.extend(std::iter::repeat_n(0.0, run));
                    } else {
                        let line = &plane[(y * w) as usize..][..w as usize];
                        let mut at = first as i64 * window.stride[1] - window.pad[1][0] + kx * window.dilation[1];
                        for _ in 0..run {
                            columns.push(if at < 0 { 0.0 } else { line.get(at as usize).copied().unwrap_or(0.0) });
                            at += window.stride[1];
                        }
                    }
                    pixel += run;
                }
            }
        }
    }
    columns
}

/// `x weightᵀ + bias` over the last dimension.
fn linear(x: &Array, weight: &Array, bias: Option<&Array>, shape: &[usize]) -> Array {
    let [n, k] = [weight.shape[0], weight.shape[1]];
    let m = shape[..shape.len() - 1].iter().product::<usize>();
    let mut out = vec![0.0; m * n];
    let rows = rows_per_job(m);
    out.par_chunks_mut((rows * n).max(1)).enumerate().for_each(|(job, out)| {
        let first = job * rows;
        let count = rows.min(m - first);
        gemm(1.0, Matrix::new(&x.f()[first * k..][..count * k], count, k), Matrix::transposed(weight.f(), k, n), out);
        if let Some(bias) = bias {
            for row in out.chunks_exact_mut(n) {
                row.iter_mut().zip(bias.f()).for_each(|(v, b)| *v += b);
            }
        }
    });
    Array::float(x.dtype, shape, out)
}

fn rows_per_job(rows: usize) -> usize {
    rows.div_ceil(rayon::current_num_threads() * 2).max(8)
}

/// The product of the last two dimensions; leading ones broadcast to those of `shape`.
fn matmul(a: &Array, b: &Array, shape: &[usize]) -> Array {
    let lead = &shape[..shape.len() - 2];
    let [m, k] = [a.shape[a.shape.len() - 2], a.shape[a.shape.len() - 1]];
    let n = b.shape[b.shape.len() - 1];
    let (a, b) = (a.broadcast_to(&[lead, &[m, k]].concat()), b.broadcast_to(&[lead, &[k, n]].concat()));
    let batches: usize = lead.iter().product();
    match (&a.data, &b.data) {
        (Data::Float(av), Data::Float(bv)) => {
            let mut out = vec![0.0; batches * m * n];
            // Few large products are split by rows, many small ones by batch.
            let rows = if batches > 1 { m } else { rows_per_job(m) }.max(1);
            let jobs_per_batch = m.div_ceil(rows).max(1);
            let chunks: Vec<&mut [f64]> =
                out.chunks_mut((m * n).max(1)).flat_map(|batch| batch.chunks_mut((rows * n).max(1))).collect();
            chunks.into_par_iter().enumerate().for_each(|(job, out)| {
                let (batch, first) = (job / jobs_per_batch, job % jobs_per_batch * rows);
                let count = rows.min(m - first);
                let left = Matrix::new(&av[(batch * m + first) * k..][..count * k], count, k);
                gemm(1.0, left, Matrix::new(&bv[batch * k * n..][..k * n], k, n), out);
            });
            Array::float(a.dtype, shape, out)
        }
        (Data::Int(av), Data::Int(bv)) => {
            let mut out = vec![0i64; batches * m * n];
            for (row, out) in out.chunks_mut(n.max(1)).enumerate() {
                let right = &bv[row / m * k * n..][..k * n];
                for (&left, right) in av[row * k..][..k].iter().zip(right.chunks_exact(n.max(1))) {
                    out.iter_mut().zip(right).for_each(|(o, &r)| *o = o.wrapping_add(left.wrapping_mul(r)));
                }
            }
            Array::int(a.dtype, shape, out)
        }
        _ => unreachable!("the shape rules ask for operands of one element type"),
    }
}

/// Scaled dot-product attention; `inputs` are query, key, value and perhaps a mask.
fn attention(inputs: &[&Array], scale: f64, causal: bool, shape: &[usize]) -> Array {
    let lead = &shape[..shape.len() - 2];
    let last = |x: &Array, back: usize| x.shape[x.shape.len() - back];
    let [l, e, s, v] = [last(inputs[0], 2), last(inputs[0], 1), last(inputs[1], 2), last(inputs[2], 1)];
    let query = inputs[0].broadcast_to(&[lead, &[l, e]].concat());
    let key = inputs[1].broadcast_to(&[lead, &[s, e]].concat());
    let value = inputs[2].broadcast_to(&[lead, &[s, v]].concat());
    let mask = inputs.get(3).map(|mask| mask.broadcast_to(&[lead, &[l, s]].concat()));
    let mut out = vec![0.0; shape.iter().product()];
    out.par_chunks_mut((l * v).max(1)).enumerate().for_each(|(head, out)| {
        let mut scores = vec![0.0; l * s];
        let left = Matrix::new(&query.f()[head * l * e..][..l * e], l, e);
        gemm(scale, left, Matrix::transposed(&key.f()[head * s * e..][..s * e], e, s), &mut scores);
        match mask.as_ref().map(|mask| &mask.data) {
            Some(Data::Float(mask)) => scores.iter_mut().zip(&mask[head * l * s..]).for_each(|(v, m)| *v += m),
            Some(Data::Int(mask)) => scores.iter_mut().zip(&mask[head * l * s..]).for_each(|(v, &m)| {
                if m == 0 {
                    *v = f64::NEG_INFINITY;
                }
            }),
            None => {}
        }
        for (i, row) in scores.chunks_exact_mut(s.max(1)).enumerate() {
            if causal {
                row.iter_mut().skip(i + 1).for_each(|v| *v = f64::NEG_INFINITY);
            }
            if row.iter().all(|&v| v == f64::NEG_INFINITY) {
                // A position that may see nothing attends to nothing, as in torch.
                row.fill(0.0);
            } else {
                softmax_row(row);
            }
        }
        gemm(1.0, Matrix::new(&scores, l, s), Matrix::new(&value.f()[head * s * v..][..s * v], s, v), out);
    });
    Array::float(inputs[0].dtype, shape, out)
}
