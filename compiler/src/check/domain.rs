//! What the uses of the inputs allow them to be: intervals, from the places where an operator is not defined everywhere back to
//! the inputs that its operand is made of.
//!
//! This is a help for random values and proves nothing: the interpreter decides. An operator that mixes its operands (a product, a
//! convolution) ends the way back.

use std::ops::Range;
use std::sync::LazyLock;

use aotfarm_ir::{BinaryOp, Bindings, Domain, Graph, Node, Op, ReduceOp, UnaryOp, constant_ends};
use aotfarm_protocol::DType;

/// What floats are drawn from where nothing is known: of variance 1.
const USUAL: Range<f32> = -1.732..1.732;
/// How many integers are drawn from where only one end is known.
const FEW: i64 = 8;

/// Numbers between two ends, which belong to it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Interval {
    low: f64,
    high: f64,
}

impl Interval {
    pub(super) const ALL: Self = Self { low: f64::NEG_INFINITY, high: f64::INFINITY };

    const fn new(low: f64, high: f64) -> Self {
        Self { low, high }
    }

    /// What is in both; one that nothing satisfies adds nothing.
    fn and(self, other: Self) -> Self {
        let both = Self { low: self.low.max(other.low), high: self.high.min(other.high) };
        if both.low <= both.high { both } else { self }
    }

    /// The floats to draw from: the usual ones, as far as they are in it.
    pub(super) fn floats(self) -> Range<f32> {
        let width = USUAL.end - USUAL.start;
        let (low, high) = (self.low as f32, self.high as f32);
        let (start, end) = (USUAL.start.max(low), USUAL.end.min(high));
        match (start < end, low.is_finite(), high.is_finite()) {
            (true, ..) => start..end,
            (false, true, _) => low..high.min(low + width).max(low.next_up()),
            (false, false, true) => high - width..high,
            (false, false, false) => USUAL,
        }
    }

    /// The integers to draw from; `None` where nothing is known.
    pub(super) fn integers(self, dtype: DType) -> Option<Range<i64>> {
        if self == Self::ALL || dtype == DType::Bool {
            return None;
        }
        let bits = dtype.size() as u32 * 8;
        let (least, most) = if dtype == DType::U8 { (0, 255) } else { (i64::MIN >> (64 - bits), i64::MAX >> (64 - bits)) };
        // An `as` cast takes what is beyond i64 to its ends.
        let (low, high) = ((self.low.ceil() as i64).max(least), (self.high.floor() as i64).min(most));
        let (low, high) = match (self.low.is_finite(), self.high.is_finite()) {
            (true, false) => (low, high.min(low.saturating_add(FEW - 1))),
            (false, true) => (low.max(high.saturating_sub(FEW - 1)), high),
            _ => (low, high),
        };
        (low <= high).then(|| low..high.saturating_add(1))
    }
}

/// The interval of each input of the graph, whose dimensions have the sizes of `bindings`.
pub(super) fn of_inputs(graph: &Graph, bindings: &Bindings) -> Vec<Interval> {
    let mut allowed = vec![Interval::ALL; graph.values.len()];
    for node in graph.nodes.iter().rev() {
        let result = allowed[node.output.index()];
        for (slot, id) in node.inputs.iter().enumerate() {
            let wanted = operand(graph, bindings, node, slot, result);
            allowed[id.index()] = allowed[id.index()].and(wanted);
        }
    }
    graph.inputs.iter().map(|id| allowed[id.index()]).collect()
}

/// What a node allows one of its operands to be, when its result must be in `result`.
fn operand(graph: &Graph, bindings: &Bindings, node: &Node, slot: usize, result: Interval) -> Interval {
    if let Some(axis) = node.op.picks_from(slot) {
        let size = graph.ty(node.inputs[0]).shape[axis].eval(bindings).unwrap_or(1);
        return Interval::new(0.0, (size - 1).max(0) as f64);
    }
    match (&node.op, slot) {
        (Op::Unary(function), _) => preimage(*function, result),
        (Op::Binary(function), _) => binary(graph, node, *function, slot, result),
        (Op::Where, 1 | 2)
        | (Op::Take { .. } | Op::GatherElements { .. } | Op::Pad { .. } | Op::Pool { .. }, 0)
        | (Op::Slice { .. } | Op::Reduce { op: ReduceOp::Max | ReduceOp::Min | ReduceOp::Mean, .. }, _) => result,
        (op, _) if op.keeps_all() => result,
        // A sum of what is not negative is not.
        (Op::Reduce { op: ReduceOp::Sum, .. }, _) if result.low >= 0.0 && result.high.is_infinite() => result,
        (Op::Cast(dtype), _) if *dtype != DType::Bool => result,
        _ => Interval::ALL,
    }
}

/// Numbers of every size, in order: where a function is defined is found by trying.
static PROBES: LazyLock<Vec<f64>> = LazyLock::new(|| {
    let sizes = (-6..=40).flat_map(|power| (0..8).map(move |eighth| f64::powi(2.0, power) * (1.0 + f64::from(eighth) / 8.0)));
    let positive: Vec<f64> = sizes.collect();
    positive.iter().rev().map(|x| -x).chain([0.0]).chain(positive.iter().copied()).collect()
});

/// The longest run of numbers that a function takes to finite ones in `result`; of equally long ones the last, which is positive.
fn preimage(function: UnaryOp, result: Interval) -> Interval {
    if function.domain() == Domain::Bool {
        return Interval::ALL;
    }
    // A function that grows beyond all bounds is defined everywhere; only what is small tells where it is not.
    let fits = |x: f64| {
        let y = function.of_float(x);
        !y.is_nan() && (result.low..=result.high).contains(&y) && (y.is_finite() || x.abs() > 8.0)
    };
    let (mut best, mut start) = (0..0, None);
    for at in 0..=PROBES.len() {
        match (PROBES.get(at).is_some_and(|x| fits(*x)), start) {
            (true, None) => start = Some(at),
            (false, Some(from)) => {
                if at - from >= best.len() {
                    best = from..at;
                }
                start = None;
            }
            _ => {}
        }
    }
    if best.is_empty() {
        return Interval::ALL;
    }
    let low = if best.start == 0 { f64::NEG_INFINITY } else { PROBES[best.start] };
    let high = if best.end == PROBES.len() { f64::INFINITY } else { PROBES[best.end - 1] };
    Interval::new(low, high)
}

fn binary(graph: &Graph, node: &Node, function: BinaryOp, slot: usize, Interval { low, high }: Interval) -> Interval {
    use BinaryOp as B;
    let (x, other) = (node.inputs[slot], node.inputs[1 - slot]);
    let constant = constant_ends(graph, other).map(|(low, high)| Interval::new(low, high));
    let float = graph.ty(x).dtype.is_float();
    let same_sign = |c: &Interval| c.low > 0.0 || c.high < 0.0;
    match (function, slot, constant) {
        (_, 1, _) if function.divides() => Interval::new(if float { PROBES_LEAST } else { 1.0 }, f64::INFINITY),
        (B::Pow, 0, Some(c)) if c.low == c.high && c.low.fract() == 0.0 && c.low >= 0.0 => Interval::ALL,
        (B::Pow, 0, _) if float => Interval::new(PROBES_LEAST, f64::INFINITY),
        (B::Add, _, Some(c)) => Interval::new(low - c.low, high - c.high),
        (B::Sub, 0, Some(c)) => Interval::new(low + c.high, high + c.low),
        (B::Sub, 1, Some(c)) => Interval::new(c.high - high, c.low - low),
        (B::Mul, _, Some(c)) if same_sign(&c) => scaled(low, high, c, |end, c| end / c),
        (B::Div | B::FloorDiv, 0, Some(c)) if same_sign(&c) => scaled(low, high, c, |end, c| end * c),
        (B::Max, _, c) => Interval::new(if c.is_some_and(|c| c.low >= low) { f64::NEG_INFINITY } else { low }, high),
        (B::Min, _, c) => Interval::new(low, if c.is_some_and(|c| c.high <= high) { f64::INFINITY } else { high }),
        // Each of two has its half of a sum, and the same sign in a product.
        (B::Add, _, None) => Interval::new(low / 2.0, high / 2.0),
        (B::Mul, _, None) if low >= 0.0 && x != other => Interval::new(low.sqrt(), high.sqrt()),
        _ => Interval::ALL,
    }
}

/// The least positive number that [`PROBES`] holds.
const PROBES_LEAST: f64 = 1.0 / 64.0;

/// The ends, undone by `undo` for every factor of one sign.
fn scaled(low: f64, high: f64, c: Interval, undo: impl Fn(f64, f64) -> f64) -> Interval {
    let (lows, highs) = ([undo(low, c.low), undo(low, c.high)], [undo(high, c.low), undo(high, c.high)]);
    let (lows, highs) = if c.low > 0.0 { (lows, highs) } else { (highs, lows) };
    Interval::new(lows[0].max(lows[1]), highs[0].min(highs[1]))
}
