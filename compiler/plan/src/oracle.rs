//! What kernel specs mean, written as plainly as possible in f64 over raw buffers: the kernel tests compare with it.

use aotfarm_protocol::{DType, Target};

use crate::spec::{
    AttentionSpec, EpilogueStep, Index, KernelKind, KernelSpec, LoopNest, Mask, RowSpec, Scalar, Size, TensorSpec, View,
};
use aotfarm_ir::{BinaryOp, PoolOp, ReduceOp, UnaryOp, Window};

/// The elements of a buffer, whatever their type, as f64.
#[derive(Debug, Clone)]
pub struct Tensor {
    /// Element type.
    pub dtype: DType,
    /// Elements.
    pub values: Vec<f64>,
}

impl Tensor {
    /// Decodes.
    pub fn from_bytes(dtype: DType, bytes: &[u8]) -> Self {
        let read = |b: &[u8]| -> f64 {
            match dtype {
                DType::F32 => f32::from_le_bytes(b.try_into().expect("4 bytes")).into(),
                DType::F64 => f64::from_le_bytes(b.try_into().expect("8 bytes")),
                DType::F16 => half::f16::from_le_bytes(b.try_into().expect("2 bytes")).to_f64(),
                DType::Bf16 => half::bf16::from_le_bytes(b.try_into().expect("2 bytes")).to_f64(),
                DType::I8 => i8::from_le_bytes(b.try_into().expect("1 byte")).into(),
                DType::I16 => i16::from_le_bytes(b.try_into().expect("2 bytes")).into(),
                DType::I32 => i32::from_le_bytes(b.try_into().expect("4 bytes")).into(),
                DType::I64 => i64::from_le_bytes(b.try_into().expect("8 bytes")) as f64,
                DType::U8 | DType::Bool => b[0].into(),
            }
        };
        Self { dtype, values: bytes.chunks_exact(dtype.size()).map(read).collect() }
    }

    /// Encodes, rounding to the nearest.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.values.len() * self.dtype.size());
        for v in &self.values {
            match self.dtype {
                DType::F32 => bytes.extend((*v as f32).to_le_bytes()),
                DType::F64 => bytes.extend(v.to_le_bytes()),
                DType::F16 => bytes.extend(half::f16::from_f64(*v).to_le_bytes()),
                DType::Bf16 => bytes.extend(half::bf16::from_f64(*v).to_le_bytes()),
                DType::I8 => bytes.extend((*v as i8).to_le_bytes()),
                DType::I16 => bytes.extend((*v as i16).to_le_bytes()),
                DType::I32 => bytes.extend((*v as i32).to_le_bytes()),
                DType::I64 => bytes.extend((*v as i64).to_le_bytes()),
                DType::U8 | DType::Bool => bytes.push(*v as u8),
            }
        }
        bytes
    }
}

/// The operands of a kernel.
struct Operands<'a> {
    spec: &'a KernelSpec,
    point: &'a [i64],
    inputs: Vec<Tensor>,
    weights: Vec<Tensor>,
}

/// The output buffers of a kernel at a point, for raw operands (inputs, then weights; what follows is ignored). Outside of what is stored they are zero.
pub fn evaluate(spec: &KernelSpec, target: Target, point: &[i64], raw: &[Vec<u8>]) -> Vec<Tensor> {
    let (inputs, weights) = raw.split_at(spec.inputs.len());
    let decode =
        |specs: &[TensorSpec], raw: &[Vec<u8>]| specs.iter().zip(raw).map(|(s, b)| Tensor::from_bytes(s.dtype, b)).collect();
    let operands = Operands { spec, point, inputs: decode(&spec.inputs, inputs), weights: decode(&spec.weights, weights) };
    let output = &spec.outputs[0];
    let mut result = Tensor { dtype: output.dtype, values: vec![0.0; output.len_at(point) as usize] };
    match &spec.kind {
        KernelKind::Conv(conv) => {
            let ([_, o, oh, ow], [n, _, h, w]) = (image(output, point), image(&spec.inputs[0], point));
            let window = conv.window;
            // What a fused pooling reads.
            let size = |axis: usize, from: i64| {
                let reach = window.dilation[axis] * (window.kernel[axis] - 1) + 1;
                (from + window.pad[axis].iter().sum::<i64>() - reach) / window.stride[axis] + 1
            };
            let [ch, cw] = [size(0, h), size(1, w)];
            let whole = TensorSpec { shape: [n, o, ch, cw].map(Size::Const).to_vec(), ..output.clone() };
            let (whole_at, y_at) = (whole.places_at(point), output.places_at(point));
            let main = operands.convolution(target, [0, 0], window, conv.groups, o, conv.gate);
            let branch = conv.branch.map(|b| operands.convolution(target, [b.input, b.weight], b.window, 1, o, None));
            let element = |b: i64, k: i64, y: i64, x: i64| {
                let sum = main(b, k, y, x) + branch.as_ref().map_or(0.0, |branch| branch(b, k, y, x));
                let at = whole_at[(((b * o + k) * ch + y) * cw + x) as usize];
                operands.epilogue(&conv.epilogue, sum, k as usize, at)
            };
            for (p, at) in y_at.iter().enumerate() {
                let p = p as i64;
                let [b, k, y, x] = [p / (o * oh * ow), p / (oh * ow) % o, p / ow % oh, p % ow];
                result.values[*at] = match conv.pool {
                    None => element(b, k, y, x),
                    Some(pool) => {
                        let taps = (0..pool.window.kernel[0]).flat_map(|i| (0..pool.window.kernel[1]).map(move |j| (i, j)));
                        let place = |axis: usize, at: i64, tap: i64| {
                            at * pool.window.stride[axis] + tap * pool.window.dilation[axis] - pool.window.pad[axis][0]
                        };
                        taps.map(|(i, j)| (place(0, y, i), place(1, x, j)))
                            .filter(|(cy, cx)| (0..ch).contains(cy) && (0..cw).contains(cx))
                            .map(|(cy, cx)| element(b, k, cy, cx))
                            .fold(f64::NEG_INFINITY, |a, b| if b > a || b.is_nan() { b } else { a })
                    }
                };
            }
        }
        KernelKind::MatMul(matmul) => {
            let shape: Vec<i64> = output.shape.iter().map(|s| s.at(point)).collect();
            let [.., m, n] = shape[..] else { panic!("a matrix") };
            let k = spec.inputs[0].shape.last().expect("a matrix").at(point);
            let b = if matmul.b_is_weight { &operands.weights[0] } else { &operands.inputs[1] };
            for at in 0..result.values.len() as i64 {
                let (batch, row, column) = (at / (m * n), at / n % m, at % n);
                let term = |i: i64| {
                    let in_b = if matmul.b_transposed { column * k + i } else { i * n + column };
                    operands.inputs[0].values[((batch * m + row) * k + i) as usize] * b.values[(batch * k * n + in_b) as usize]
                };
                let sum = (0..k).map(term).sum();
                result.values[at as usize] = operands.epilogue(&matmul.epilogue, sum, column as usize, at as usize);
            }
        }
        KernelKind::Attention(attention) => operands.attention(attention, &mut result.values),
        KernelKind::Pool(pool) => {
            let ([_, _, oh, ow], [_, _, h, w]) = (image(output, point), image(&spec.inputs[0], point));
            let (x_at, y_at) = (spec.inputs[0].places_at(point), output.places_at(point));
            let window = pool.window;
            for (p, at) in y_at.iter().enumerate() {
                let p = p as i64;
                let (plane, y, x) = (p / (oh * ow), p / ow % oh, p % ow);
                let (mut sum, mut largest, mut inside) = (0.0, f64::NEG_INFINITY, 0);
                for (i, j) in (0..window.kernel[0]).flat_map(|i| (0..window.kernel[1]).map(move |j| (i, j))) {
                    let iy = y * window.stride[0] + i * window.dilation[0] - window.pad[0][0];
                    let ix = x * window.stride[1] + j * window.dilation[1] - window.pad[1][0];
                    if (0..h).contains(&iy) && (0..w).contains(&ix) {
                        let v = operands.inputs[0].values[x_at[((plane * h + iy) * w + ix) as usize]];
                        sum += v;
                        largest = if v > largest || v.is_nan() { v } else { largest };
                        inside += 1;
                    }
                }
                result.values[*at] = match pool.op {
                    PoolOp::Max => largest,
                    PoolOp::Avg { count_include_pad: true } => sum / (window.kernel[0] * window.kernel[1]) as f64,
                    PoolOp::Avg { count_include_pad: false } => sum / f64::from(inside),
                };
            }
        }
        KernelKind::Rows(rows) => {
            let k = output.shape.last().expect("a row").at(point) as usize;
            for (r, (x, y)) in operands.inputs[0].values.chunks(k).zip(result.values.chunks_mut(k)).enumerate() {
                match rows {
                    RowSpec::Softmax => {
                        let mask = |i: usize| operands.inputs.get(1).map_or(0.0, |m| m.values[r * k + i]);
                        let largest = (0..k).map(|i| x[i] + mask(i)).fold(f64::NEG_INFINITY, f64::max);
                        y.iter_mut().enumerate().for_each(|(i, y)| *y = (x[i] + mask(i) - largest).exp());
                        let sum: f64 = y.iter().sum();
                        y.iter_mut().for_each(|y| *y /= sum);
                    }
                    RowSpec::LayerNorm { eps, affine } => {
                        let mean = x.iter().sum::<f64>() / k as f64;
                        let variance = x.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / k as f64;
                        for (i, y) in y.iter_mut().enumerate() {
                            *y = (x[i] - mean) / (variance + eps).sqrt();
                            if *affine {
                                *y = *y * operands.weights[0].values[i] + operands.weights[1].values[i];
                            }
                        }
                    }
                }
            }
        }
        KernelKind::Loops(nest) => operands.nest(nest, &mut result.values),
    }
    let means = spec.outputs.get(1).map(|second| Tensor { dtype: second.dtype, values: means(output, point, &result.values) });
    [result].into_iter().chain(means).collect()
}

/// The mean of each channel of each image, which the kinds with a second output have there.
fn means(spec: &TensorSpec, point: &[i64], values: &[f64]) -> Vec<f64> {
    let ([_, _, h, w], places) = (image(spec, point), spec.places_at(point));
    let mean = |plane: &[usize]| plane.iter().map(|at| values[*at]).sum::<f64>() / plane.len() as f64;
    places.chunks((h * w) as usize).map(mean).collect()
}

fn image(spec: &TensorSpec, point: &[i64]) -> [i64; 4] {
    let sizes: Vec<i64> = spec.shape.iter().map(|s| s.at(point)).collect();
    sizes.try_into().expect("rank 4")
}

impl Operands<'_> {
    /// The sums of a convolution of an input and a weight to `o` channels, by image, channel, row and column.
    fn convolution(
        &self,
        target: Target,
        [input, weight]: [usize; 2],
        window: Window,
        groups: i64,
        o: i64,
        gate: Option<usize>,
    ) -> impl Fn(i64, i64, i64, i64) -> f64 {
        let (x, filter) = (&self.spec.inputs[input], &self.spec.weights[weight]);
        let ([_, c, h, w], [kh, kw], x_at) = (image(x, self.point), window.kernel, x.places_at(self.point));
        let per_group = c / groups;
        let weight_at = move |k: i64, ci: i64, i: i64, j: i64| match target {
            Target::Cpu(_) => ((k * per_group + ci) * kh + i) * kw + j,
            Target::Cuda { .. } => ((k * kh + i) * kw + j) * filter.shape[3].at(self.point) + ci,
        };
        move |b, k, y, x| {
            let mut sum = 0.0;
            for (i, j) in (0..kh).flat_map(|i| (0..kw).map(move |j| (i, j))) {
                let iy = y * window.stride[0] + i * window.dilation[0] - window.pad[0][0];
                let ix = x * window.stride[1] + j * window.dilation[1] - window.pad[1][0];
                if (0..h).contains(&iy) && (0..w).contains(&ix) {
                    for ci in 0..per_group {
                        let channel = k / (o / groups) * per_group + ci;
                        let factor = gate.map_or(1.0, |gate| self.inputs[gate].values[(b * c + channel) as usize]);
                        sum += self.weights[weight].values[weight_at(k, ci, i, j) as usize]
                            * factor
                            * self.inputs[input].values[x_at[(((b * c + channel) * h + iy) * w + ix) as usize]];
                    }
                }
            }
            sum
        }
    }

    fn attention(&self, spec: &AttentionSpec, output: &mut [f64]) {
        let [batches, heads] = spec.lead.map(|size| size.at(self.point));
        let [rows, keys] = spec.rows.map(|size| size.at(self.point));
        let [width, values] = spec.widths;
        let place = |view: &View, at: [i64; 4]| {
            let (offset, strides) = view.at(self.point);
            (offset + at.iter().zip(strides).map(|(index, stride)| index * stride).sum::<i64>()) as usize
        };
        let read = |k: usize, at| self.inputs[k].values[place(&spec.views[k], at)];
        for (b, h) in (0..batches).flat_map(|b| (0..heads).map(move |h| (b, h))) {
            for row in 0..rows {
                let score = |key: i64| -> f64 {
                    let dot: f64 = (0..width).map(|e| read(0, [b, h, row, e]) * read(1, [b, h, key, e])).sum();
                    let score = match spec.mask {
                        None => spec.scale * dot,
                        Some(Mask { is_weight, view }) => {
                            let tensor = if is_weight { &self.weights[0] } else { &self.inputs[3] };
                            let mask = tensor.values[place(&view, [b, h, row, key])];
                            match tensor.dtype {
                                DType::Bool if mask == 0.0 => f64::NEG_INFINITY,
                                DType::Bool => spec.scale * dot,
                                _ => spec.scale * dot + mask,
                            }
                        }
                    };
                    if spec.causal && key > row { f64::NEG_INFINITY } else { score }
                };
                let scores: Vec<f64> = (0..keys).map(score).collect();
                let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let blind = scores.iter().all(|score| *score == f64::NEG_INFINITY);
                let weights: Vec<f64> = scores.iter().map(|score| if blind { 0.0 } else { (score - largest).exp() }).collect();
                let sum = if blind { 1.0 } else { weights.iter().sum() };
                for v in 0..values {
                    let mix: f64 = weights.iter().zip(0..).map(|(weight, key)| weight * read(2, [b, h, key, v])).sum();
                    output[place(&spec.views[3], [b, h, row, v])] = mix / sum;
                }
            }
        }
    }

    fn epilogue(&self, steps: &[EpilogueStep], value: f64, channel: usize, at: usize) -> f64 {
        steps.iter().fold(value, |v, step| match *step {
            EpilogueStep::Bias(k) => v + self.weights[k].values[channel],
            EpilogueStep::Residual(op, k) => binary(op, v, self.inputs[k].values[at], DType::F32),
            EpilogueStep::Unary(op) => unary(op, v),
        })
    }

    fn nest(&self, nest: &LoopNest, output: &mut [f64]) {
        let each = |extents: &[Size], f: &mut dyn FnMut(&[i64])| {
            let sizes: Vec<i64> = extents.iter().map(|s| s.at(self.point)).collect();
            for mut n in 0..sizes.iter().product() {
                let mut place = vec![0; sizes.len()];
                for (p, size) in place.iter_mut().zip(&sizes).rev() {
                    *p = n % size;
                    n /= size;
                }
                f(&place);
            }
        };
        each(&nest.extents, &mut |outer| {
            let reduced = nest.reduction.as_ref().map(|r| {
                let (mut acc, mut n) = (None::<f64>, 0.0);
                each(&r.extents, &mut |inner| {
                    let v = self.scalar(&r.element, outer, inner, 0.0).0;
                    n += 1.0;
                    acc = Some(match (acc, r.op) {
                        (None, ReduceOp::Any | ReduceOp::All) => f64::from(v != 0.0),
                        (None, _) => v,
                        (Some(a), ReduceOp::Sum | ReduceOp::Mean) => a + v,
                        (Some(a), ReduceOp::Prod) => a * v,
                        (Some(a), ReduceOp::Max) => binary(BinaryOp::Max, a, v, DType::F64),
                        (Some(a), ReduceOp::Min) => binary(BinaryOp::Min, a, v, DType::F64),
                        (Some(a), ReduceOp::Any) => f64::from(a != 0.0 || v != 0.0),
                        (Some(a), ReduceOp::All) => f64::from(a != 0.0 && v != 0.0),
                    });
                });
                let acc = acc.expect("a reduction over something");
                if r.op == ReduceOp::Mean { acc / n } else { acc }
            });
            let (value, dtype) = self.scalar(&nest.value, outer, &[], reduced.unwrap_or(0.0));
            let dtype = if matches!(nest.value, Scalar::Reduced) { self.spec.outputs[0].dtype } else { dtype };
            output[self.index(&nest.store, outer, &[], 0.0) as usize] = cast(value, dtype, self.spec.outputs[0].dtype);
        });
    }

    fn index(&self, index: &Index, outer: &[i64], inner: &[i64], reduced: f64) -> i64 {
        let go = |i: &Index| self.index(i, outer, inner, reduced);
        match index {
            Index::Const(n) => *n,
            Index::Loop(k) => outer[*k],
            Index::ReduceLoop(k) => inner[*k],
            Index::Dim(k) => self.point[*k],
            Index::Add(a, b) => go(a) + go(b),
            Index::Mul(a, b) => go(a) * go(b),
            Index::Div(a, b) => go(a).div_euclid(go(b)),
            Index::Mod(a, b) => go(a).rem_euclid(go(b)),
            Index::Value(s) => self.scalar(s, outer, inner, reduced).0 as i64,
        }
    }

    fn scalar(&self, scalar: &Scalar, outer: &[i64], inner: &[i64], reduced: f64) -> (f64, DType) {
        let go = |s: &Scalar| self.scalar(s, outer, inner, reduced);
        let at = |i: &Index| self.index(i, outer, inner, reduced);
        match scalar {
            Scalar::Input(k, i) => (self.inputs[*k].values[at(i) as usize], self.inputs[*k].dtype),
            Scalar::Weight(k, i) => (self.weights[*k].values[at(i) as usize], self.weights[*k].dtype),
            Scalar::Const(v, d) => (cast(v.to_f64(), DType::F64, *d), *d),
            Scalar::Index(i, d) => (cast(at(i) as f64, DType::I64, *d), *d),
            Scalar::Reduced => (reduced, self.spec.outputs[0].dtype),
            Scalar::Unary(op, x) => {
                let (v, d) = go(x);
                (unary(*op, v), if *op == UnaryOp::Not { DType::Bool } else { d })
            }
            Scalar::Binary(op, a, b) => {
                let ((a, d), (b, _)) = (go(a), go(b));
                (binary(*op, a, b, d), if op.is_comparison() { DType::Bool } else { d })
            }
            Scalar::Select(c, a, b) => go(if go(c).0 != 0.0 { a } else { b }),
            Scalar::Cast(d, x) => {
                let (v, from) = go(x);
                (cast(v, from, *d), *d)
            }
            Scalar::InRange(i, low, high) => (f64::from((*low..high.at(self.point)).contains(&at(i))), DType::Bool),
        }
    }
}

/// To the nearest value of a type; towards zero for integers.
fn cast(v: f64, from: DType, to: DType) -> f64 {
    match to {
        DType::F64 => v,
        _ if from == to => v,
        DType::Bool => f64::from(v != 0.0),
        DType::F32 => f64::from(v as f32),
        DType::F16 => half::f16::from_f64(v).to_f64(),
        DType::Bf16 => half::bf16::from_f64(v).to_f64(),
        DType::I64 => v as i64 as f64,
        DType::I32 => v as i32 as f64,
        DType::I16 => v as i16 as f64,
        DType::I8 => v as i8 as f64,
        DType::U8 => v as u8 as f64,
    }
}

fn unary(op: UnaryOp, x: f64) -> f64 {
    if op == UnaryOp::Not { f64::from(x == 0.0) } else { op.of_float(x) }
}

fn binary(op: BinaryOp, a: f64, b: f64, dtype: DType) -> f64 {
    match op {
        BinaryOp::Add => a + b,
        BinaryOp::Sub => a - b,
        BinaryOp::Mul => a * b,
        // An integer divided by zero is zero: the runtime must not stop.
        op if op.divides() && !dtype.is_float() && b == 0.0 => 0.0,
        BinaryOp::Div if dtype.is_float() => a / b,
        BinaryOp::Div => (a / b).trunc(),
        BinaryOp::FloorDiv => (a / b).floor(),
        BinaryOp::Mod => a - b * (a / b).floor(),
        BinaryOp::Fmod => a % b,
        BinaryOp::Pow => a.powf(b),
        BinaryOp::Max => {
            if a > b || a.is_nan() {
                a
            } else {
                b
            }
        }
        BinaryOp::Min => {
            if a < b || a.is_nan() {
                a
            } else {
                b
            }
        }
        BinaryOp::And if dtype == DType::Bool => f64::from(a != 0.0 && b != 0.0),
        BinaryOp::Or if dtype == DType::Bool => f64::from(a != 0.0 || b != 0.0),
        BinaryOp::And => (a as i64 & b as i64) as f64,
        BinaryOp::Or => (a as i64 | b as i64) as f64,
        BinaryOp::Eq => f64::from(a == b),
        BinaryOp::Ne => f64::from(a != b),
        BinaryOp::Lt => f64::from(a < b),
        BinaryOp::Le => f64::from(a <= b),
        BinaryOp::Gt => f64::from(a > b),
        BinaryOp::Ge => f64::from(a >= b),
    }
}
