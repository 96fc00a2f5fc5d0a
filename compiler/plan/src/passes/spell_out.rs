//! Spells out what kernels compute in f32 only (products, pools, normalisations) for the other types, f64 and integers, in views,
//! element-wise functions and reductions: loop nests compute those exactly in every type.

use aotfarm_ir::{BinaryOp, BuildError, Expr, Graph, Node, Number, Op, PoolOp, ReduceOp, TensorType, UnaryOp, ValueId, Window};
use aotfarm_protocol::DType;

use super::attention::attention;
use super::rewrite::{Rewriter, rewrite};

pub(super) fn run(graph: &Graph) -> Result<Graph, BuildError> {
    spelled(graph, |graph, node| graph.ty(node.output).dtype != DType::F32)
}

/// Spells out those nodes that `others` names.
pub(super) fn spelled(graph: &Graph, others: impl Fn(&Graph, &Node) -> bool) -> Result<Graph, BuildError> {
    // Attention is products and a softmax, which are spelled out in turn.
    let graph = &rewrite(graph, |r, node, inputs| match node.op {
        Op::Attention { scale, causal } if others(graph, node) => attention(r, node, inputs, scale, causal).map(Some),
        _ => Ok(None),
    })?;
    rewrite(graph, |r, node, inputs| {
        if !others(graph, node) {
            return Ok(None);
        }
        let mut spell = Spell { name: r.name_of(node), r, node, result: &graph.ty(node.output).shape };
        match &node.op {
            Op::MatMul => spell.matmul(inputs[0], inputs[1]).map(Some),
            Op::Linear => spell.linear(inputs).map(Some),
            Op::Conv { window, groups } => spell.conv(inputs, window, *groups).map(Some),
            Op::Pool { op: PoolOp::Max, window } => spell.max_pool(inputs[0], window).map(Some),
            Op::Pool { op: PoolOp::Avg { count_include_pad }, window } => {
                spell.avg_pool(inputs[0], window, *count_include_pad).map(Some)
            }
            Op::Softmax { axis } => spell.softmax(inputs[0], *axis).map(Some),
            Op::LayerNorm { axes, eps } => spell.layer_norm(inputs, *axes, *eps).map(Some),
            _ => Ok(None),
        }
    })
}

/// The node that is spelled out, and the graph that it is written into.
struct Spell<'r, 'a> {
    name: String,
    r: &'r mut Rewriter<'a>,
    node: &'r Node,
    /// The sizes of its result.
    result: &'r [Expr],
}

type Value = Result<ValueId, BuildError>;

impl Spell<'_, '_> {
    /// A step on the way; `what` tells it from the others.
    fn push(&mut self, what: &str, op: Op, inputs: &[ValueId]) -> Value {
        self.r.push(&format!("{}.{what}", self.name), op, inputs, &self.node.source)
    }

    /// The result.
    fn end(&mut self, op: Op, inputs: &[ValueId]) -> Value {
        self.r.push(&self.name, op, inputs, &self.node.source)
    }

    fn shape(&self, id: ValueId) -> Vec<Expr> {
        self.r.ty(id).shape.clone()
    }

    /// The sizes of the result, an image.
    fn image(&self) -> [Expr; 4] {
        self.result.to_vec().try_into().expect("the rules of windows give images")
    }

    fn number(&mut self, what: &str, value: f64, dtype: DType) -> Value {
        let like = TensorType { dtype, shape: vec![] };
        self.r.full(&format!("{}.{what}", self.name), value, &like, &self.node.source)
    }

    /// With a new axis of size 1.
    fn unsqueezed(&mut self, what: &str, x: ValueId, axis: usize) -> Value {
        let mut shape = self.shape(x);
        shape.insert(axis, Expr::one());
        self.push(what, Op::Reshape { shape }, &[x])
    }

    /// The products of elements, summed along the last axis.
    fn dot(&mut self, a: ValueId, b: ValueId) -> Result<(Op, ValueId), BuildError> {
        let terms = self.push("terms", Op::Binary(BinaryOp::Mul), &[a, b])?;
        let last = self.shape(terms).len() - 1;
        Ok((Op::Reduce { op: ReduceOp::Sum, axes: vec![last], keepdim: false }, terms))
    }

    fn matmul(&mut self, a: ValueId, b: ValueId) -> Value {
        let (rows, rank) = (self.shape(a).len() - 1, self.shape(b).len());
        let a = self.unsqueezed("rows", a, rows)?;
        let mut axes: Vec<usize> = (0..rank).collect();
        axes.swap(rank - 2, rank - 1);
        let b = self.push("turned", Op::Permute { axes }, &[b])?;
        let b = self.unsqueezed("columns", b, rank - 2)?;
        let (sum, terms) = self.dot(a, b)?;
        self.end(sum, &[terms])
    }

    fn linear(&mut self, inputs: &[ValueId]) -> Value {
        let last = self.shape(inputs[0]).len() - 1;
        let x = self.unsqueezed("rows", inputs[0], last)?;
        let (sum, terms) = self.dot(x, inputs[1])?;
        let Some(bias) = inputs.get(2) else { return self.end(sum, &[terms]) };
        let sums = self.push("sums", sum, &[terms])?;
        self.end(Op::Binary(BinaryOp::Add), &[sums, *bias])
    }

    /// What the taps of a window see: `[N, C, OH, KH, OW, KW]` of an image whose padding is `value`.
    fn taps(&mut self, x: ValueId, window: &Window, value: f64) -> Value {
        let [_, _, height, width] = self.image();
        let [top, left] = window.pad;
        let padded = self.push("padded", Op::Pad { pads: vec![[0; 2], [0; 2], top, left], value: value.into() }, &[x])?;
        let mut taps = padded;
        // The height first; then the width is axis 4.
        for (axis, (size, place)) in [(height, 2), (width, 4)].into_iter().enumerate() {
            let mut counted = |length: Expr, step: i64, shape: Vec<Expr>| {
                let iota = Op::Iota { length, start: 0, step, dtype: DType::I64 };
                let iota = self.push("positions", iota, &[])?;
                self.push("places", Op::Reshape { shape }, &[iota])
            };
            let kernel = Expr::from(window.kernel[axis]);
            let first = counted(size.clone(), window.stride[axis], vec![size, Expr::one()])?;
            let tap = counted(kernel.clone(), window.dilation[axis], vec![Expr::one(), kernel])?;
            let places = self.push("taps_at", Op::Binary(BinaryOp::Add), &[first, tap])?;
            taps = self.push("taps", Op::Take { axis: place }, &[taps, places])?;
        }
        Ok(taps)
    }

    fn conv(&mut self, inputs: &[ValueId], window: &Window, groups: i64) -> Value {
        let [n, o, h, w] = self.image();
        let result = vec![n.clone(), o.clone(), h.clone(), w.clone()];
        let taps = self.taps(inputs[0], window, 0.0)?;
        let weight = self.shape(inputs[1]);
        let [group_in, group_out] = [weight[1].clone(), o.floor_div(&Expr::from(groups))];
        let [kh, kw] = window.kernel.map(Expr::from);
        let (g, one) = (Expr::from(groups), Expr::one());
        let shape = vec![n, g.clone(), one.clone(), group_in.clone(), h, kh.clone(), w, kw.clone()];
        let taps = self.push("groups", Op::Reshape { shape }, &[taps])?;
        let shape = vec![g, group_out, group_in, one.clone(), kh, one.clone(), kw];
        let weight = self.push("filters", Op::Reshape { shape }, &[inputs[1]])?;
        let terms = self.push("terms", Op::Binary(BinaryOp::Mul), &[taps, weight])?;
        let sums = Op::Reduce { op: ReduceOp::Sum, axes: vec![3, 5, 7], keepdim: false };
        let sums = self.push("sums", sums, &[terms])?;
        let Some(bias) = inputs.get(2) else { return self.end(Op::Reshape { shape: result }, &[sums]) };
        let shape = vec![o, one.clone(), one];
        let sums = self.push("images", Op::Reshape { shape: result }, &[sums])?;
        let bias = self.push("bias", Op::Reshape { shape }, &[*bias])?;
        self.end(Op::Binary(BinaryOp::Add), &[sums, bias])
    }

    fn max_pool(&mut self, x: ValueId, window: &Window) -> Value {
        let taps = self.taps(x, window, least(self.r.ty(x).dtype))?;
        self.end(Op::Reduce { op: ReduceOp::Max, axes: vec![3, 5], keepdim: false }, &[taps])
    }

    fn avg_pool(&mut self, x: ValueId, window: &Window, count_include_pad: bool) -> Value {
        let dtype = self.r.ty(x).dtype;
        let sum = || Op::Reduce { op: ReduceOp::Sum, axes: vec![3, 5], keepdim: false };
        let taps = self.taps(x, window, 0.0)?;
        let sums = self.push("sums", sum(), &[taps])?;
        let counts = if count_include_pad {
            self.number("count", window.kernel.iter().product::<i64>() as f64, dtype)?
        } else {
            let mut shape = self.shape(x);
            shape[..2].fill(Expr::one());
            let ones = self.push("ones", Op::Full { value: Number::ONE, shape, dtype }, &[])?;
            let taps = self.taps(ones, window, 0.0)?;
            self.push("counts", sum(), &[taps])?
        };
        self.end(Op::Binary(BinaryOp::Div), &[sums, counts])
    }

    fn softmax(&mut self, x: ValueId, axis: usize) -> Value {
        let reduce = |op| Op::Reduce { op, axes: vec![axis], keepdim: true };
        let largest = self.push("largest", reduce(ReduceOp::Max), &[x])?;
        let shifted = self.push("shifted", Op::Binary(BinaryOp::Sub), &[x, largest])?;
        let weights = self.push("weights", Op::Unary(UnaryOp::Exp), &[shifted])?;
        let total = self.push("total", reduce(ReduceOp::Sum), &[weights])?;
        self.end(Op::Binary(BinaryOp::Div), &[weights, total])
    }

    fn layer_norm(&mut self, inputs: &[ValueId], axes: usize, eps: f64) -> Value {
        let (x, rank, dtype) = (inputs[0], self.shape(inputs[0]).len(), self.r.ty(inputs[0]).dtype);
        let mean = || Op::Reduce { op: ReduceOp::Mean, axes: (rank - axes..rank).collect(), keepdim: true };
        let centre = self.push("mean", mean(), &[x])?;
        let centred = self.push("centred", Op::Binary(BinaryOp::Sub), &[x, centre])?;
        let squares = self.push("squares", Op::Binary(BinaryOp::Mul), &[centred, centred])?;
        let variance = self.push("variance", mean(), &[squares])?;
        let eps = self.number("eps", eps, dtype)?;
        let variance = self.push("shifted", Op::Binary(BinaryOp::Add), &[variance, eps])?;
        let deviation = self.push("deviation", Op::Unary(UnaryOp::Sqrt), &[variance])?;
        let div = Op::Binary(BinaryOp::Div);
        let [_, scale, shift] = inputs else { return self.end(div, &[centred, deviation]) };
        let plain = self.push("plain", div, &[centred, deviation])?;
        let scaled = self.push("scaled", Op::Binary(BinaryOp::Mul), &[plain, *scale])?;
        self.end(Op::Binary(BinaryOp::Add), &[scaled, *shift])
    }
}

/// The smallest number of a type.
const fn least(dtype: DType) -> f64 {
    match dtype {
        DType::I8 => i8::MIN as f64,
        DType::I16 => i16::MIN as f64,
        DType::I32 => i32::MIN as f64,
        DType::I64 => i64::MIN as f64,
        DType::U8 | DType::Bool => 0.0,
        DType::F16 | DType::Bf16 | DType::F32 | DType::F64 => f64::NEG_INFINITY,
    }
}
