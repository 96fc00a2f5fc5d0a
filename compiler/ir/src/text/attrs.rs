//! Operators and their attributes as text: one place that prints them and one that reads them back.

use super::TextError;
use super::cursor::Cursor;
use crate::{BinaryOp, Expr, Op, PoolOp, ReduceOp, TensorType, UnaryOp, Window};

/// `key=value` of every attribute that is not at its default.
pub(super) fn print(op: &Op) -> Vec<String> {
    let flag = |name: &str, set: bool| if set { vec![name.to_owned()] } else { vec![] };
    match op {
        Op::Unary(UnaryOp::Clamp { low, high }) => vec![format!("low={low:?}"), format!("high={high:?}")],
        Op::Unary(UnaryOp::LeakyRelu { slope }) => vec![format!("slope={slope:?}")],
        Op::Unary(UnaryOp::Elu { alpha }) => vec![format!("alpha={alpha:?}")],
        Op::Conv { window, groups } => {
            let mut attributes = window_attributes(window);
            if *groups != 1 {
                attributes.push(format!("groups={groups}"));
            }
            attributes
        }
        Op::BatchNorm { eps } => vec![format!("eps={eps:?}")],
        Op::Pool { op, window } => {
            let mut attributes = vec![format!("kernel={:?}", window.kernel)];
            attributes.extend(window_attributes(window));
            attributes.extend(flag("count_include_pad", *op == PoolOp::Avg { count_include_pad: true }));
            attributes
        }
        Op::AdaptiveAvgPool { output } => vec![format!("output={output:?}")],
        Op::Attention { scale, causal } => [vec![format!("scale={scale:?}")], flag("causal", *causal)].concat(),
        Op::Softmax { axis } | Op::Concat { axis } | Op::Take { axis } | Op::GatherElements { axis } => {
            vec![format!("axis={axis}")]
        }
        Op::LayerNorm { axes, eps } => vec![format!("axes={axes}"), format!("eps={eps:?}")],
        Op::Reduce { axes, keepdim, .. } => [vec![format!("axes={axes:?}")], flag("keepdim", *keepdim)].concat(),
        Op::Permute { axes } => vec![format!("axes={axes:?}")],
        Op::Slice { axis, start, end, step } => {
            let mut attributes = vec![format!("axis={axis}"), format!("start={start}"), format!("end={end}")];
            if *step != 1 {
                attributes.push(format!("step={step}"));
            }
            attributes
        }
        Op::Pad { pads, value } => {
            let mut attributes = vec![format!("pads={pads:?}")];
            if value.to_bits() != 0 {
                attributes.push(format!("value={value:?}"));
            }
            attributes
        }
        Op::Iota { start, step, .. } => {
            let mut attributes = Vec::new();
            if *start != 0 {
                attributes.push(format!("start={start}"));
            }
            if *step != 1 {
                attributes.push(format!("step={step}"));
            }
            attributes
        }
        Op::Full { value, .. } => vec![format!("value={value:?}")],
        Op::Unary(_)
        | Op::Binary(_)
        | Op::Where
        | Op::Cast(_)
        | Op::Linear
        | Op::MatMul
        | Op::Reshape { .. }
        | Op::Expand { .. } => vec![],
    }
}

fn window_attributes(window: &Window) -> Vec<String> {
    let mut attributes = Vec::new();
    if window.stride != [1, 1] {
        attributes.push(format!("stride={:?}", window.stride));
    }
    if window.pad != [[0, 0], [0, 0]] {
        attributes.push(format!("pad={:?}", window.pad));
    }
    if window.dilation != [1, 1] {
        attributes.push(format!("dilation={:?}", window.dilation));
    }
    attributes
}

/// The attributes of one node, as text with places.
pub(super) struct Attributes<'a> {
    items: Vec<(&'a str, &'a str, usize)>,
}

impl<'a> Attributes<'a> {
    /// Reads `{key=value, flag, …}`, or nothing.
    pub(super) fn read(cursor: &mut Cursor<'a>) -> Result<Self, TextError> {
        let mut items: Vec<(&str, &str, usize)> = Vec::new();
        if cursor.eat("{") && !cursor.eat("}") {
            loop {
                let key_at = cursor.mark();
                let key = cursor.word()?;
                if items.iter().any(|(k, ..)| *k == key) {
                    return Err(cursor.error_at(key_at, format!("`{key}` is given twice")));
                }
                let at = if cursor.eat("=") { cursor.mark() } else { key_at };
                let value = if at == key_at { "" } else { cursor.until_text(&[',', '}']).trim() };
                items.push((key, value, at));
                if cursor.eat("}") {
                    break;
                }
                cursor.expect(",")?;
            }
        }
        Ok(Self { items })
    }

    fn take(&mut self, key: &str) -> Option<(&'a str, usize)> {
        let at = self.items.iter().position(|(k, ..)| *k == key)?;
        let (_, value, place) = self.items.remove(at);
        Some((value, place))
    }

    fn parsed<T>(
        &mut self,
        cursor: &Cursor<'_>,
        key: &str,
        default: Option<T>,
        parse: impl FnOnce(&str) -> Option<T>,
        what: &str,
    ) -> Result<T, TextError> {
        match (self.take(key), default) {
            (Some((text, at)), _) => parse(text).ok_or_else(|| cursor.error_at(at, format!("`{key}` must be {what}"))),
            (None, Some(default)) => Ok(default),
            (None, None) => Err(cursor.error(format!("the attribute `{key}` ({what}) is missing"))),
        }
    }

    fn int(&mut self, cursor: &Cursor<'_>, key: &str, default: Option<i64>) -> Result<i64, TextError> {
        self.parsed(cursor, key, default, |t| t.parse().ok(), "an integer")
    }

    fn index(&mut self, cursor: &Cursor<'_>, key: &str) -> Result<usize, TextError> {
        self.parsed(cursor, key, None, |t| t.parse().ok(), "a non-negative integer")
    }

    fn float(&mut self, cursor: &Cursor<'_>, key: &str, default: Option<f64>) -> Result<f64, TextError> {
        self.parsed(cursor, key, default, |t| t.parse().ok(), "a number")
    }

    fn expr(&mut self, cursor: &Cursor<'_>, key: &str) -> Result<Expr, TextError> {
        self.parsed(cursor, key, None, |t| t.parse().ok(), "an expression")
    }

    fn flag(&mut self, cursor: &Cursor<'_>, key: &str) -> Result<bool, TextError> {
        self.parsed(cursor, key, Some(false), |t| t.is_empty().then_some(true), "a flag without value")
    }

    fn axes(&mut self, cursor: &Cursor<'_>, key: &str) -> Result<Vec<usize>, TextError> {
        let parse = |t: &str| ints(t)?.into_iter().map(|n| usize::try_from(n).ok()).collect();
        self.parsed(cursor, key, None, parse, "a list of axes")
    }

    fn pair(&mut self, cursor: &Cursor<'_>, key: &str, default: Option<[i64; 2]>) -> Result<[i64; 2], TextError> {
        self.parsed(cursor, key, default, |t| ints(t)?.try_into().ok(), "a pair of integers")
    }

    fn pairs(&mut self, cursor: &Cursor<'_>, key: &str, default: Option<Vec<[i64; 2]>>) -> Result<Vec<[i64; 2]>, TextError> {
        let parse = |t: &str| {
            let mut list = Cursor::new(t, 0);
            let pairs = list.list(|c| c.list(|c| c.until::<i64>(&[',', ']'], "an integer"))).ok()?;
            list.end().ok()?;
            pairs.into_iter().map(|p| p.try_into().ok()).collect()
        };
        self.parsed(cursor, key, default, parse, "a list of pairs of integers")
    }

    fn window(&mut self, cursor: &Cursor<'_>, kernel: [i64; 2]) -> Result<Window, TextError> {
        let pad = self.pairs(cursor, "pad", Some(vec![[0, 0]; 2]))?;
        Ok(Window {
            kernel,
            stride: self.pair(cursor, "stride", Some([1, 1]))?,
            pad: pad.try_into().map_err(|_| cursor.error("`pad` must be [[top, bottom], [left, right]]"))?,
            dilation: self.pair(cursor, "dilation", Some([1, 1]))?,
        })
    }

    /// The operator of this name with these attributes; `operands` and `result` are the types around it.
    pub(super) fn op(
        mut self,
        cursor: &Cursor<'_>,
        name: &str,
        operands: &[&TensorType],
        result: &TensorType,
    ) -> Result<Op, TextError> {
        let c = cursor;
        let op = match name {
            "where" => Op::Where,
            "cast" => Op::Cast(result.dtype),
            "conv" => {
                let kernel = operands.get(1).and_then(|w| match w.shape.as_slice() {
                    [_, _, h, w] => Some([h.as_const()?, w.as_const()?]),
                    _ => None,
                });
                let kernel = kernel
                    .ok_or_else(|| c.error("the second operand of `conv` must be a weight of type [O, C/groups, KH, KW]"))?;
                Op::Conv { window: self.window(c, kernel)?, groups: self.int(c, "groups", Some(1))? }
            }
            "batch_norm" => Op::BatchNorm { eps: self.float(c, "eps", None)? },
            "max_pool" | "avg_pool" => {
                let kernel = self.pair(c, "kernel", None)?;
                let window = self.window(c, kernel)?;
                let op = if name == "max_pool" {
                    PoolOp::Max
                } else {
                    PoolOp::Avg { count_include_pad: self.flag(c, "count_include_pad")? }
                };
                Op::Pool { op, window }
            }
            "adaptive_avg_pool" => Op::AdaptiveAvgPool { output: self.pair(c, "output", None)? },
            "linear" => Op::Linear,
            "matmul" => Op::MatMul,
            "attention" => Op::Attention { scale: self.float(c, "scale", None)?, causal: self.flag(c, "causal")? },
            "softmax" => Op::Softmax { axis: self.index(c, "axis")? },
            "layer_norm" => Op::LayerNorm { axes: self.index(c, "axes")?, eps: self.float(c, "eps", None)? },
            "reshape" => Op::Reshape { shape: result.shape.clone() },
            "permute" => Op::Permute { axes: self.axes(c, "axes")? },
            "expand" => Op::Expand { shape: result.shape.clone() },
            "slice" => Op::Slice {
                axis: self.index(c, "axis")?,
                start: self.expr(c, "start")?,
                end: self.expr(c, "end")?,
                step: self.int(c, "step", Some(1))?,
            },
            "concat" => Op::Concat { axis: self.index(c, "axis")? },
            "pad" => Op::Pad { pads: self.pairs(c, "pads", None)?, value: self.float(c, "value", Some(0.0))? },
            "take" => Op::Take { axis: self.index(c, "axis")? },
            "gather_elements" => Op::GatherElements { axis: self.index(c, "axis")? },
            "iota" => {
                let [length] = result.shape.as_slice() else { return Err(c.error("the result of `iota` has one dimension")) };
                Op::Iota {
                    length: length.clone(),
                    start: self.int(c, "start", Some(0))?,
                    step: self.int(c, "step", Some(1))?,
                    dtype: result.dtype,
                }
            }
            "full" => Op::Full { value: self.float(c, "value", None)?, shape: result.shape.clone(), dtype: result.dtype },
            "clamp" => Op::Unary(UnaryOp::Clamp { low: self.float(c, "low", None)?, high: self.float(c, "high", None)? }),
            "leaky_relu" => Op::Unary(UnaryOp::LeakyRelu { slope: self.float(c, "slope", None)? }),
            "elu" => Op::Unary(UnaryOp::Elu { alpha: self.float(c, "alpha", None)? }),
            _ => {
                if let Some(op) = UnaryOp::PLAIN.iter().find(|op| op.name() == name) {
                    Op::Unary(*op)
                } else if let Some(op) = BinaryOp::ALL.iter().find(|op| op.name() == name) {
                    Op::Binary(*op)
                } else if let Some(op) = ReduceOp::ALL.iter().find(|op| name.strip_prefix("reduce_") == Some(op.name())) {
                    Op::Reduce { op: *op, axes: self.axes(c, "axes")?, keepdim: self.flag(c, "keepdim")? }
                } else {
                    return Err(c.error(format!("unknown operator `{name}`")));
                }
            }
        };
        match self.items.first() {
            Some((key, _, at)) => Err(c.error_at(*at, format!("`{name}` has no attribute `{key}`"))),
            None => Ok(op),
        }
    }
}

fn ints(text: &str) -> Option<Vec<i64>> {
    let mut cursor = Cursor::new(text, 0);
    let list = cursor.list(|c| c.until::<i64>(&[',', ']'], "an integer")).ok()?;
    cursor.end().ok().map(|()| list)
}
