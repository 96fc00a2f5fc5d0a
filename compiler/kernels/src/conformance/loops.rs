//! Loop nests: every function and type, index arithmetic, guards, gathers and reductions.
#![cfg(test)]

use aotfarm_protocol::{DType, Target};

use super::{conforms, conforms_on, image, plain, task};
use crate::task::TuningTask;
use crate::testing::random;
use aotfarm_ir::{BinaryOp, Domain, ReduceOp, UnaryOp};
use aotfarm_plan::oracle::Tensor;
use aotfarm_plan::spec::{Index, KernelKind, Layout, LoopNest, Reduction, Scalar, Size, TensorSpec};

const V3: Target = Target::CPUS[0];

fn add(a: Index, b: Index) -> Index {
    Index::Add(Box::new(a), Box::new(b))
}

fn mul(a: Index, n: i64) -> Index {
    Index::Mul(Box::new(a), Box::new(Index::Const(n)))
}

fn unary(op: UnaryOp, x: Scalar) -> Scalar {
    Scalar::Unary(op, Box::new(x))
}

fn binary(op: BinaryOp, a: Scalar, b: Scalar) -> Scalar {
    Scalar::Binary(op, Box::new(a), Box::new(b))
}

fn nest(extents: &[i64], value: Scalar, store: Index) -> LoopNest {
    LoopNest { extents: extents.iter().map(|n| Size::Const(*n)).collect(), reduction: None, value, store }
}

/// `out[i] = value` over n elements.
fn flat(inputs: &[DType], output: DType, n: i64, value: Scalar) -> TuningTask {
    let inputs = inputs.iter().map(|d| plain(*d, &[n])).collect();
    task(V3, KernelKind::Loops(nest(&[n], value, Index::Loop(0))), inputs, vec![], plain(output, &[n]), &[])
}

fn x(k: usize) -> Scalar {
    Scalar::Input(k, Index::Loop(0))
}

/// A task on numbers that are written down, repeated as often as they fit.
fn on(task: TuningTask, numbers: &[&[f64]]) -> (TuningTask, Vec<Vec<u8>>) {
    let mut raw = random(&task, 0);
    for (k, numbers) in numbers.iter().enumerate() {
        let spec = &task.spec.inputs[k];
        let values = (0..spec.len_at(&task.point) as usize).map(|i| numbers[i % numbers.len()]).collect();
        raw[k] = Tensor { dtype: spec.dtype, values }.to_bytes();
    }
    (task, raw)
}

/// A row of a [`table`]: the function of `in[0]` and `in[1]`, and the numbers that it is tried on.
type Row<'a> = (Scalar, [&'a [f64]; 2]);

/// One nest for many functions of one or two numbers of a type: row k of the output is function k of row k of the inputs.
fn table(dtype: DType, output: DType, rows: &[Row<'_>]) -> (TuningTask, Vec<Vec<u8>>) {
    const WIDTH: i64 = 37;
    let count = rows.len() as i64;
    let functions = rows.iter().enumerate().rev();
    let value = functions.fold(Scalar::Const(0.0.into(), output), |rest, (k, (function, _))| {
        let here = binary(BinaryOp::Eq, Scalar::Index(Index::Loop(0), DType::I64), Scalar::Const((k as f64).into(), DType::I64));
        let function = Scalar::Cast(output, Box::new(function.clone()));
        Scalar::Select(Box::new(here), Box::new(function), Box::new(rest))
    });
    let kind = KernelKind::Loops(nest(&[count, WIDTH], value, place(WIDTH)));
    let tensor = || plain(dtype, &[count, WIDTH]);
    let task = task(V3, kind, vec![tensor(), tensor()], vec![], plain(output, &[count, WIDTH]), &[]);
    let mut raw = random(&task, 0);
    for (operand, raw) in raw.iter_mut().take(2).enumerate() {
        let numbers = |(_, numbers): &Row<'_>| {
            (0..WIDTH as usize).map(|i| numbers[operand][i % numbers[operand].len()]).collect::<Vec<_>>()
        };
        *raw = Tensor { dtype, values: rows.iter().flat_map(numbers).collect() }.to_bytes();
    }
    (task, raw)
}

fn place(width: i64) -> Index {
    add(mul(Index::Loop(0), width), Index::Loop(1))
}

/// Element of input k of a [`table`].
fn cell(k: usize) -> Scalar {
    Scalar::Input(k, place(37))
}

/// Every function of one number that gives a number.
fn functions() -> impl Iterator<Item = UnaryOp> {
    let parametric =
        [UnaryOp::Clamp { low: -1.0, high: f64::INFINITY }, UnaryOp::LeakyRelu { slope: 0.1 }, UnaryOp::Elu { alpha: 1.5 }];
    UnaryOp::PLAIN.into_iter().filter(|op| op.domain() != Domain::Bool).chain(parametric)
}

const BINARY: [BinaryOp; 16] = [
    BinaryOp::Add,
    BinaryOp::Sub,
    BinaryOp::Mul,
    BinaryOp::Div,
    BinaryOp::FloorDiv,
    BinaryOp::Mod,
    BinaryOp::Fmod,
    BinaryOp::Pow,
    BinaryOp::Max,
    BinaryOp::Min,
    BinaryOp::Eq,
    BinaryOp::Ne,
    BinaryOp::Lt,
    BinaryOp::Le,
    BinaryOp::Gt,
    BinaryOp::Ge,
];

/// A matrix reduced along its rows, or along its columns if `over_rows`. Its sizes are dims, so that all sizes are one unit.
fn reduction(target: Target, op: ReduceOp, dtype: DType, rows: i64, columns: i64, over_rows: bool) -> TuningTask {
    let row = |index: Index| Index::Mul(Box::new(index), Box::new(Index::Dim(1)));
    let (output, size, at) = if over_rows {
        (1, 0, add(row(Index::ReduceLoop(0)), Index::Loop(0)))
    } else {
        (0, 1, add(row(Index::Loop(0)), Index::ReduceLoop(0)))
    };
    let nest = LoopNest {
        extents: vec![Size::Dim(output)],
        reduction: Some(Reduction { op, extents: vec![Size::Dim(size)], element: Scalar::Input(0, at) }),
        value: Scalar::Reduced,
        store: Index::Loop(0),
    };
    let tensor =
        |sizes: &[usize]| TensorSpec { dtype, shape: sizes.iter().map(|d| Size::Dim(*d)).collect(), layout: Layout::Plain };
    task(target, KernelKind::Loops(nest), vec![tensor(&[0, 1])], vec![], tensor(&[output]), &[rows, columns])
}

/// An element-wise chain, and a reduction.
pub(super) fn examples(target: Target) -> Vec<TuningTask> {
    let value = unary(UnaryOp::Gelu, binary(BinaryOp::Add, x(0), Scalar::Const(0.5.into(), DType::F32)));
    let mut chain = flat(&[DType::F32], DType::F32, 1000, value);
    chain.target = target;
    let mut tasks = vec![chain, reduction(target, ReduceOp::Mean, DType::F32, 49, 24, true)];
    if let Target::Cuda { .. } = target {
        tasks.extend([DType::Bf16, DType::F16].into_iter().flat_map(|dtype| narrow(target, dtype)));
    }
    tasks
}

/// What f32 graphs become when the arena stores a narrower type: a chain with a broadcast operand over an image, one over an unknown number of
/// elements that do not fill vectors, a reduction, and a picture on its way into an image.
fn narrow(target: Target, dtype: DType) -> Vec<TuningTask> {
    let load = |k: usize, at: Index| Scalar::Cast(DType::F32, Box::new(Scalar::Input(k, at)));
    let stored = |value: Scalar| Scalar::Cast(dtype, Box::new(value));
    let tensor = |shape: Vec<Size>| TensorSpec { dtype, shape, layout: Layout::Plain };
    let (n, places, channels) = (Size::Dim(0), 35, 24);

    let at = add(mul(Index::Loop(0), places * channels), add(mul(Index::Loop(1), channels), Index::Loop(2)));
    let factor = load(1, add(mul(Index::Loop(0), channels), Index::Loop(2)));
    let scaled = LoopNest {
        extents: vec![n, Size::Const(places), Size::Const(channels)],
        reduction: None,
        value: stored(binary(BinaryOp::Mul, load(0, at.clone()), factor)),
        store: at.clone(),
    };
    let image = || TensorSpec { dtype, ..image(target, [channels, 5, 7], [0; 4]) };
    let inputs = vec![image(), tensor(vec![n, Size::Const(channels)])];
    let scaled = task(target, KernelKind::Loops(scaled), inputs, vec![], image(), &[3]);

    let chain = LoopNest {
        extents: vec![n],
        reduction: None,
        value: stored(unary(UnaryOp::Silu, binary(BinaryOp::Add, load(0, Index::Loop(0)), Scalar::Weight(0, Index::Const(0))))),
        store: Index::Loop(0),
    };
    let chain =
        task(target, KernelKind::Loops(chain), vec![tensor(vec![n])], vec![plain(DType::F32, &[1])], tensor(vec![n]), &[4099]);

    let mut mean = reduction(target, ReduceOp::Mean, DType::F32, 49, 24, true);
    mean.spec.inputs[0].dtype = dtype;
    mean.spec.outputs[0].dtype = dtype;
    if let KernelKind::Loops(LoopNest { value, reduction: Some(reduction), .. }) = &mut mean.spec.kind {
        reduction.element = Scalar::Cast(DType::F32, Box::new(reduction.element.clone()));
        *value = stored(Scalar::Reduced);
    }

    // Five channels of f32 in planes, rounded up to eight that lie together.
    let pixel = add(add(mul(Index::Loop(0), 5 * 12), mul(Index::Loop(2), 12)), Index::Loop(1));
    let inside = Scalar::InRange(Index::Loop(2), 0, Size::Const(5));
    let zero = Scalar::Const(0.0.into(), DType::F32);
    let nest = LoopNest {
        extents: vec![n, Size::Const(12), Size::Const(8)],
        reduction: None,
        value: stored(Scalar::Select(Box::new(inside), Box::new(Scalar::Input(0, pixel)), Box::new(zero))),
        store: add(mul(Index::Loop(0), 12 * 8), add(mul(Index::Loop(1), 8), Index::Loop(2))),
    };
    let picture =
        TensorSpec { dtype: DType::F32, shape: vec![n, Size::Const(5), Size::Const(3), Size::Const(4)], layout: Layout::Plain };
    let output = TensorSpec { dtype, ..self::image(target, [5, 3, 4], [0; 4]) };
    let packed = task(target, KernelKind::Loops(nest), vec![picture], vec![], output, &[3]);
    vec![scaled, chain, mean, packed]
}

#[test]
fn every_function_of_one_number() {
    let all: &[f64] = &[0.3, -0.7, 1.0, 2.5, -2.5, 0.0, 3.5, -3.0, 0.01, -20.0, 7.25, 1.5];
    let positive: &[f64] = &[0.3, 1.0, 2.5, 100.0, 0.01, 7.25, 1e-3];
    let floats = [DType::F32, DType::F64, DType::F16, DType::Bf16].map(|dtype| {
        let rows: Vec<Row<'_>> = functions()
            .map(|op| {
                let numbers = if op.domain() == Domain::PartOfFloat { positive } else { all };
                (unary(op, cell(0)), [numbers, all])
            })
            .collect();
        table(dtype, dtype, &rows)
    });
    let integers = [DType::I8, DType::I16, DType::I32, DType::I64].map(|dtype| {
        let functions = [UnaryOp::Abs, UnaryOp::Neg, UnaryOp::Relu, UnaryOp::Clamp { low: -2.0, high: 3.0 }, UnaryOp::Floor];
        let numbers: [&[f64]; 2] = [&[-5.0, 4.0, -2.0, 0.0, 3.0], &[0.0]];
        table(dtype, dtype, &functions.map(|op| (unary(op, cell(0)), numbers)))
    });
    conforms_on(&[&floats[..], &integers[..]].concat());
    conforms_on(&[table(DType::Bool, DType::Bool, &[(unary(UnaryOp::Not, cell(0)), [&[0.0, 1.0, 1.0], &[0.0]])])]);
}

#[test]
fn special_values_go_through() {
    let numbers = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, 1e-41, 1e30];
    let other: &[f64] = &[1.0, f64::NAN, -2.0, 3.0, 0.5];
    let functions = [UnaryOp::Abs, UnaryOp::Exp, UnaryOp::Relu, UnaryOp::Sigmoid, UnaryOp::Tanh, UnaryOp::Erf, UnaryOp::Floor];
    let pairs = [BinaryOp::Max, BinaryOp::Min, BinaryOp::Add, BinaryOp::Lt, BinaryOp::Ne];
    let one = functions.map(|op| unary(op, cell(0)));
    let two = pairs.map(|op| binary(op, cell(0), cell(1)));
    let rows: Vec<Row<'_>> = one.into_iter().chain(two).map(|f| (f, [&numbers[..], other])).collect();
    let mut cases = vec![table(DType::F32, DType::F32, &rows)];
    for op in [ReduceOp::Max, ReduceOp::Min] {
        cases.push(on(reduction(V3, op, DType::F32, 3, 70, false), &[&[1.0, -5.0, 2.0, 7.0, -1.0, 0.0, 4.0]]));
        cases.push(on(reduction(V3, op, DType::F32, 3, 70, false), &[&[1.0, -5.0, f64::NAN, 7.0, f64::INFINITY]]));
    }
    conforms_on(&cases);
}

#[test]
fn every_function_of_two_numbers_in_every_type() {
    let mut cases = Vec::new();
    for dtype in DType::ALL.into_iter().filter(|d| *d != DType::Bool) {
        let unsigned = dtype == DType::U8;
        let rows: Vec<Row<'_>> = BINARY
            .iter()
            .map(|op| {
                let left: &[f64] = match op {
                    BinaryOp::Pow => &[1.0, 2.0, 3.0, 0.0],
                    _ if op.divides() && !unsigned => &[7.0, -6.0, 5.0, -4.0, 3.0, -1.0],
                    _ => &[7.0, 6.0, 5.0, 4.0, 3.0],
                };
                let right: &[f64] = match op {
                    BinaryOp::Pow => &[0.0, 1.0, 2.0],
                    // The difference of unsigned numbers would wrap around, which the oracle does not.
                    BinaryOp::Sub if unsigned => &[1.0, 2.0, 0.0],
                    _ if dtype.is_float() => &[2.0, -3.0, 5.0, 0.5],
                    _ if unsigned => &[2.0, 3.0, 0.0, 5.0],
                    _ => &[2.0, -3.0, 0.0, 5.0, -1.0],
                };
                (binary(*op, cell(0), cell(1)), [left, right])
            })
            .collect();
        cases.push(table(dtype, dtype, &rows));
    }
    // Quotients that are rounded up to an integer, and large ones.
    let close: [&[f64]; 2] = [&[1.0, -1.0, 1e6, 7.5], &[f64::from(0.1f32), 3.0, f64::from(-0.3f32)]];
    let divisions = [BinaryOp::FloorDiv, BinaryOp::Mod, BinaryOp::Fmod];
    cases.push(table(DType::F32, DType::F32, &divisions.map(|op| (binary(op, cell(0), cell(1)), close))));
    let logic = [BinaryOp::And, BinaryOp::Or, BinaryOp::Eq, BinaryOp::Ne];
    let truths: [&[f64]; 2] = [&[0.0, 1.0], &[0.0, 0.0, 1.0, 1.0]];
    cases.push(table(DType::Bool, DType::Bool, &logic.map(|op| (binary(op, cell(0), cell(1)), truths))));
    conforms_on(&cases);
}

#[test]
fn every_conversion() {
    let mut cases = Vec::new();
    for from in DType::ALL {
        // One output type, exact for all others, holds what each conversion gave.
        let rows: Vec<Row<'_>> = DType::ALL
            .iter()
            .map(|to| {
                let numbers: &[f64] = match from {
                    DType::Bool => &[0.0, 1.0, 1.0],
                    DType::U8 => &[0.0, 1.0, 127.0, 100.0],
                    _ if from.is_float() && *to == DType::U8 => &[0.0, 1.5, 255.0, 300.0, -4.0],
                    _ if from.is_float() => &[0.0, -1.5, 2.9, 127.0, -128.0, 1e4, -1e4, 3e-6, 6.1e-5, 65519.0, f64::INFINITY],
                    // Integers within the range of all integer types; what does not fit wraps, which the oracle does not.
                    _ if *to == DType::U8 => &[0.0, 1.0, 126.0],
                    _ => &[0.0, -1.0, 126.0, -128.0],
                };
                (Scalar::Cast(*to, Box::new(cell(0))), [numbers, &[0.0]])
            })
            .collect();
        cases.push(table(from, DType::F64, &rows));
        cases.push(table(DType::F64, from, &[(cell(0), [&[0.0, 1.0, 2.5, 100.0, 0.1], &[0.0]])]));
    }
    conforms_on(&cases);
}

#[test]
fn images_with_rest_channels_guards_and_halo() {
    let mut tasks = Vec::new();
    for target in Target::CPUS {
        let block = target.f32_lanes() as i64;
        for (channels, batch) in [(block, 2), (block + 3, 1), (3, 2)] {
            // A row-major picture, padded by one on each side, into a blocked image with a halo.
            let (h, w) = (5, 7);
            let out = image(target, [channels, h + 2, w + 2], [1, 0, 2, 1]);
            let Layout::Image { halo, .. } = out.layout else { continue };
            let (rows, columns) = (h + 2 + i64::from(halo[0] + halo[1]), w + 2 + i64::from(halo[2] + halo[3]));
            let blocks = (channels + block - 1) / block;
            // Loops: picture, block, row, column, lane.
            let channel = add(mul(Index::Loop(1), block), Index::Loop(4));
            let y = add(Index::Loop(2), Index::Const(-1));
            let xx = add(Index::Loop(3), Index::Const(-1));
            let at =
                add(mul(Index::Loop(0), channels * h * w), add(mul(channel.clone(), h * w), add(mul(y.clone(), w), xx.clone())));
            let zero = || Box::new(Scalar::Const(0.0.into(), DType::F32));
            let inside = |index: Index, n: i64, then: Scalar| {
                Scalar::Select(Box::new(Scalar::InRange(index, 0, Size::Const(n))), Box::new(then), zero())
            };
            let value = inside(channel, channels, inside(y, h, inside(xx, w, Scalar::Input(0, at))));
            let row = add(add(mul(Index::Loop(0), blocks), Index::Loop(1)), Index::Const(0));
            let row = add(mul(row, rows), add(Index::Loop(2), Index::Const(i64::from(halo[0]))));
            let place = add(mul(row, columns), add(Index::Loop(3), Index::Const(i64::from(halo[2]))));
            let nest = LoopNest {
                extents: vec![Size::Dim(0), Size::Const(blocks), Size::Const(h + 2), Size::Const(w + 2), Size::Const(block)],
                reduction: None,
                value,
                store: add(mul(place, block), Index::Loop(4)),
            };
            let input = TensorSpec {
                dtype: DType::F32,
                shape: vec![Size::Dim(0), Size::Const(channels), Size::Const(h), Size::Const(w)],
                layout: Layout::Plain,
            };
            tasks.push(task(target, KernelKind::Loops(nest), vec![input], vec![], out, &[batch]));
        }
    }
    conforms(&tasks);
}

#[test]
fn gathers_wrap_negative_indices_and_stay_inside() {
    let (places, width, picked) = (11, 6, 9);
    let index = Index::Value(Box::new(Scalar::Input(0, Index::Loop(0))));
    let wrapped = Index::Mod(Box::new(index), Box::new(Index::Const(places)));
    let value = Scalar::Weight(0, add(mul(wrapped, width), Index::Loop(1)));
    let kind = KernelKind::Loops(nest(&[picked, width], value, add(mul(Index::Loop(0), width), Index::Loop(1))));
    let take = |dtype| {
        task(
            V3,
            kind.clone(),
            vec![plain(dtype, &[picked])],
            vec![plain(DType::F32, &[places, width])],
            plain(DType::F32, &[picked, width]),
            &[],
        )
    };
    // Random indices are inside by themselves.
    let operand = crate::measure::operands(&take(DType::I64)).swap_remove(0);
    assert_eq!(operand.values, aotfarm_protocol::Values::Uniform { low: 0.0, high: 11.0 });
    let far = [0.0, 10.0, -1.0, -11.0, 11.0, 12345.0, -12345.0];
    conforms_on(&[
        on(take(DType::I64), &[&far]),
        on(take(DType::I32), &[&far]),
        (take(DType::I32), random(&take(DType::I32), 1)),
    ]);
}

#[test]
fn reductions_in_every_type_and_direction() {
    let mut tasks = Vec::new();
    for (rows, columns) in [(1, 1), (9, 33), (3, 200), (200, 3)] {
        for over_rows in [false, true] {
            let op = if rows == 9 { ReduceOp::Mean } else { ReduceOp::Sum };
            tasks.push(reduction(V3, op, DType::F32, rows, columns, over_rows));
        }
    }
    for dtype in [DType::F64, DType::F16, DType::Bf16, DType::I8, DType::I32, DType::I64] {
        for op in [ReduceOp::Max, ReduceOp::Min] {
            tasks.push(reduction(V3, op, dtype, 5, 21, false));
        }
    }
    tasks.push(reduction(V3, ReduceOp::Sum, DType::I64, 5, 21, false));
    tasks.push(reduction(V3, ReduceOp::Sum, DType::F64, 5, 21, true));
    for op in [ReduceOp::Any, ReduceOp::All] {
        tasks.push(reduction(V3, op, DType::Bool, 64, 3, false));
    }
    conforms(&tasks);
    // A product of random numbers says little about all but the first few.
    conforms_on(&[on(reduction(V3, ReduceOp::Prod, DType::F32, 4, 37, false), &[&[1.1, 0.9, -1.0, 1.05, 0.97]])]);
}

#[test]
fn means_of_the_planes_of_an_image() {
    let mean = |channels: i64, batch: i64| {
        let (h, w) = (3, 5);
        let input = image(V3, [channels, h, w], [1, 1, 2, 0]);
        let (row, blocks) = ((w + 2) * 8, (channels + 7) / 8);
        let plane = (h + 2) * row;
        let outer = add(mul(Index::Loop(0), blocks * plane), mul(Index::Loop(1), plane));
        let inner = add(mul(Index::ReduceLoop(0), row), mul(Index::ReduceLoop(1), 8));
        let at = add(add(outer, Index::Loop(2)), add(inner, Index::Const(row + 2 * 8)));
        let nest = LoopNest {
            extents: vec![Size::Dim(0), Size::Const(blocks), Size::Const(8)],
            reduction: Some(Reduction {
                op: ReduceOp::Mean,
                extents: vec![Size::Const(h), Size::Const(w)],
                element: Scalar::Input(0, at),
            }),
            value: Scalar::Reduced,
            store: add(mul(Index::Loop(0), blocks * 8), add(mul(Index::Loop(1), 8), Index::Loop(2))),
        };
        let output = TensorSpec { dtype: DType::F32, shape: vec![Size::Dim(0), Size::Const(blocks * 8)], layout: Layout::Plain };
        task(V3, KernelKind::Loops(nest), vec![input], vec![], output, &[batch])
    };
    conforms(&[mean(16, 1), mean(24, 3)]);
}

#[test]
fn sizes_that_are_known_only_at_run_time() {
    // out[i, j] = x[j, i] for dim 0 = rows of x, dim 1 = columns.
    let dims = |a, b| vec![Size::Dim(a), Size::Dim(b)];
    let at = |row: usize, column: usize, width: usize| {
        add(Index::Mul(Box::new(Index::Loop(row)), Box::new(Index::Dim(width))), Index::Loop(column))
    };
    let transpose = LoopNest { extents: dims(1, 0), reduction: None, value: Scalar::Input(0, at(1, 0, 1)), store: at(0, 1, 0) };
    let tensor = |a, b| TensorSpec { dtype: DType::F32, shape: dims(a, b), layout: Layout::Plain };
    let tasks: Vec<_> = [[1, 1], [3, 50], [50, 3], [64, 65]]
        .iter()
        .map(|point| task(V3, KernelKind::Loops(transpose.clone()), vec![tensor(0, 1)], vec![], tensor(1, 0), point))
        .collect();
    conforms(&tasks);
}
