use aotfarm_protocol::DType;
use proptest::prelude::*;

use super::*;
use crate::example::example;
use crate::{BinaryOp, Builder, Op, PoolOp, TensorData, TensorType, UnaryOp, Window, text};

/// Runs one operator on constants of these shapes and values.
fn apply(op: Op, operands: &[(&[i64], &[f64], DType)]) -> Result<Tensor, InterpError> {
    let mut b = Builder::new("one");
    let ids: Vec<ValueId> = operands
        .iter()
        .map(|(shape, values, dtype)| {
            let bytes = if dtype.is_float() {
                crate::tensor::float_bytes(*dtype, values)
            } else {
                crate::tensor::integer_bytes(*dtype, &values.iter().map(|&v| v as i64).collect::<Vec<_>>())
            };
            b.weight("w", TensorType::new(*dtype, shape.iter().copied()), TensorData::new(bytes)).unwrap()
        })
        .collect();
    let y = b.push(op, &ids, "node").unwrap();
    b.output(y);
    run(&b.finish().unwrap(), &[]).map(|mut outputs| outputs.remove(0))
}

#[track_caller]
fn gives(op: Op, operands: &[(&[i64], &[f64])], wanted: &[f64]) {
    let operands: Vec<_> = operands.iter().map(|(s, v)| (*s, *v, DType::F64)).collect();
    let title = format!("{op:?}");
    let got = apply(op, &operands).unwrap().to_f64();
    let close = |(a, b): (&f64, &f64)| a == b || (a - b).abs() < 1e-14 || (a.is_nan() && b.is_nan());
    assert!(got.len() == wanted.len() && got.iter().zip(wanted).all(close), "{title}: {got:?}, expected {wanted:?}");
}

#[track_caller]
fn gives_ints(op: Op, dtype: DType, operands: &[(&[i64], &[f64])], wanted: &[f64]) {
    let operands: Vec<_> = operands.iter().map(|(s, v)| (*s, *v, dtype)).collect();
    let title = format!("{op:?}");
    assert_eq!(apply(op, &operands).unwrap().to_f64(), wanted, "{title}");
}

#[test]
fn every_operator_has_a_value() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/ir/all_ops.txt");
    let graph = text::parse(&std::fs::read_to_string(path).expect("the golden file exists")).unwrap();
    let sizes: Bindings = [("batch", 2), ("seq", 3)].into_iter().collect();
    let zeros = |id: &ValueId| {
        let ty = graph.ty(*id);
        let shape: Vec<usize> = ty.shape.iter().map(|size| size.eval(&sizes).unwrap() as usize).collect();
        Tensor { dtype: ty.dtype, data: vec![0; shape.iter().product::<usize>() * ty.dtype.size()], shape }
    };
    // The interpreter evaluates all nodes, whether or not outputs depend on them.
    let outputs = run(&graph, &graph.inputs.iter().map(zeros).collect::<Vec<_>>()).unwrap();
    let shapes: Vec<&[usize]> = outputs.iter().map(|output| output.shape.as_slice()).collect();
    assert_eq!(shapes, [[2, 4, 8], [2, 3, 8]]);
}

#[test]
fn unary_functions() {
    use UnaryOp::*;
    // Values of torch 2.14 in float64.
    let x = [-4.0, -1.5, -0.5, 0.0, 0.5, 2.5, 4.0];
    let cases: [(UnaryOp, [f64; 7]); 13] = [
        (Relu, [0.0, 0.0, 0.0, 0.0, 0.5, 2.5, 4.0]),
        (Hardswish, [0.0, -0.375, -0.20833333333333334, 0.0, 0.2916666666666667, 2.2916666666666665, 4.0]),
        (Hardsigmoid, [0.0, 0.25, 0.4166666666666667, 0.5, 0.5833333333333334, 0.9166666666666666, 1.0]),
        (Round, [-4.0, -2.0, 0.0, 0.0, 0.0, 2.0, 4.0]),
        (Floor, [-4.0, -2.0, -1.0, 0.0, 0.0, 2.0, 4.0]),
        (Clamp { low: -1.0, high: f64::INFINITY }, [-1.0, -1.0, -0.5, 0.0, 0.5, 2.5, 4.0]),
        (LeakyRelu { slope: 0.1 }, [-0.4, -0.15, -0.05, 0.0, 0.5, 2.5, 4.0]),
        (Elu { alpha: 1.0 }, [-0.9816843611112658, -0.7768698398515702, -0.3934693402873666, 0.0, 0.5, 2.5, 4.0]),
        (
            Gelu,
            [
                -0.00012668496733247991,
                -0.10021080190328704,
                -0.15426876936299344,
                0.0,
                0.34573123063700656,
                2.4844758366855597,
                3.9998733150326675,
            ],
        ),
        (
            GeluTanh,
            [
                -7.024594819227126e-05,
                -0.10042842301976707,
                -0.15428599017485606,
                0.0,
                0.34571400982514394,
                2.484915733910001,
                3.9999297540518075,
            ],
        ),
        (
            Silu,
            [
                -0.07194483984836623,
                -0.2736382857095345,
                -0.1887703343990727,
                0.0,
                0.3112296656009273,
                2.3103545499468914,
                3.928055160151634,
            ],
        ),
        (
            Erf,
            [
                -0.9999999845827421,
                -0.9661051464753108,
                -0.5204998778130465,
                0.0,
                0.5204998778130465,
                0.999593047982555,
                0.9999999845827421,
            ],
        ),
        (
            Sigmoid,
            [
                0.01798620996209156,
                0.18242552380635635,
                0.3775406687981454,
                0.5,
                0.6224593312018546,
                0.9241418199787566,
                0.9820137900379085,
            ],
        ),
    ];
    for (op, wanted) in cases {
        gives(Op::Unary(op), &[(&[7], &x)], &wanted);
    }
    gives(Op::Unary(Rsqrt), &[(&[2], &[4.0, 0.25])], &[0.5, 2.0]);
    gives(Op::Unary(Relu), &[(&[1], &[f64::NAN])], &[f64::NAN]);
    gives_ints(Op::Unary(Not), DType::Bool, &[(&[2], &[1.0, 0.0])], &[0.0, 1.0]);
    gives_ints(Op::Unary(Clamp { low: 0.5, high: 6.5 }), DType::I32, &[(&[3], &[-9.0, 3.0, 9.0])], &[1.0, 3.0, 6.0]);
    gives_ints(Op::Unary(Neg), DType::I8, &[(&[2], &[-128.0, 3.0])], &[-128.0, -3.0]);
}

#[test]
fn binary_functions_broadcast() {
    use BinaryOp::*;
    let a: (&[i64], &[f64]) = (&[2, 1], &[7.0, -7.0]);
    let b: (&[i64], &[f64]) = (&[2], &[2.0, -3.0]);
    for (op, wanted) in [
        (Add, [9.0, 4.0, -5.0, -10.0]),
        (FloorDiv, [3.0, -3.0, -4.0, 2.0]),
        (Mod, [1.0, -2.0, 1.0, -1.0]),
        (Fmod, [1.0, 1.0, -1.0, -1.0]),
        (Max, [7.0, 7.0, 2.0, -3.0]),
        (Min, [2.0, -3.0, -7.0, -7.0]),
        (Lt, [0.0, 0.0, 1.0, 1.0]),
        (Ge, [1.0, 1.0, 0.0, 0.0]),
    ] {
        gives(Op::Binary(op), &[a, b], &wanted);
        gives_ints(Op::Binary(op), DType::I64, &[a, b], &wanted);
    }
    // 0.1 is held as a little more than a tenth: 1 holds it nine times, though the quotient is rounded up to 10.
    gives(Op::Binary(FloorDiv), &[(&[3], &[1.0, -1.0, 5.0]), (&[3], &[0.1, 0.1, 0.0])], &[9.0, -10.0, f64::INFINITY]);
    gives(Op::Binary(Div), &[a, b], &[3.5, -7.0 / 3.0, -3.5, 7.0 / 3.0]);
    gives_ints(Op::Binary(Div), DType::I32, &[a, b], &[3.0, -2.0, -3.0, 2.0]);
    gives(Op::Binary(Pow), &[(&[2], &[2.0, 9.0]), (&[2], &[10.0, 0.5])], &[1024.0, 3.0]);
    gives_ints(Op::Binary(Pow), DType::I64, &[(&[3], &[2.0, 2.0, -1.0]), (&[3], &[10.0, -1.0, -3.0])], &[1024.0, 0.0, -1.0]);
    gives_ints(Op::Binary(Add), DType::U8, &[(&[1], &[250.0]), (&[1], &[10.0])], &[4.0]);
    gives_ints(Op::Binary(And), DType::Bool, &[(&[2], &[1.0, 1.0]), (&[2], &[1.0, 0.0])], &[1.0, 0.0]);
    let error = apply(Op::Binary(Mod), &[(&[1], &[1.0], DType::I64), (&[1], &[0.0], DType::I64)]).unwrap_err();
    assert_eq!(error.to_string(), "node `node`: an integer division by zero");
    let half = apply(Op::Cast(DType::F16), &[(&[2], &[0.1, 70000.0], DType::F32)]).unwrap().to_f64();
    assert_eq!(half, [0.0999755859375, f64::INFINITY]);
    assert_eq!(apply(Op::Cast(DType::I8), &[(&[2], &[-1.9, 130.0], DType::F32)]).unwrap().to_f64(), [-1.0, -126.0]);
}

#[test]
fn moving_elements() {
    let x: (&[i64], &[f64]) = (&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    gives(Op::Permute { axes: vec![1, 0] }, &[x], &[1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    gives(Op::Slice { axis: 1, start: 0.into(), end: 3.into(), step: 2 }, &[x], &[1.0, 3.0, 4.0, 6.0]);
    gives(Op::Slice { axis: 0, start: 1.into(), end: 2.into(), step: 1 }, &[x], &[4.0, 5.0, 6.0]);
    gives(Op::Concat { axis: 1 }, &[x, (&[2, 1], &[8.0, 9.0])], &[1.0, 2.0, 3.0, 8.0, 4.0, 5.0, 6.0, 9.0]);
    let pads = vec![[1, 0], [-1, 1]];
    gives(Op::Pad { pads, value: 9.0.into() }, &[x], &[9.0, 9.0, 9.0, 2.0, 3.0, 9.0, 5.0, 6.0, 9.0]);
    gives(Op::Expand { shape: vec![2.into(), 2.into(), 1.into()] }, &[(&[2, 1], &[1.0, 2.0])], &[1.0, 2.0, 1.0, 2.0]);
    gives(Op::Full { value: 0.5.into(), shape: vec![2.into()], dtype: DType::F32 }, &[], &[0.5, 0.5]);
    let exact = (1i64 << 53) + 1;
    let full = apply(Op::Full { value: exact.into(), shape: vec![1.into()], dtype: DType::I64 }, &[]).unwrap();
    assert_eq!(full.data, exact.to_le_bytes());
    gives(Op::Iota { length: 3.into(), start: 5, step: -2, dtype: DType::I32 }, &[], &[5.0, 3.0, 1.0]);
    let f = DType::F64;
    let take = apply(Op::Take { axis: 1 }, &[(x.0, x.1, f), (&[2, 1], &[-1.0, 0.0], DType::I64)]).unwrap();
    assert_eq!((take.shape, take.data), (vec![2, 2, 1], crate::tensor::float_bytes(f, &[3.0, 1.0, 6.0, 4.0])));
    let gather = apply(Op::GatherElements { axis: 1 }, &[(x.0, x.1, f), (&[2, 2], &[2.0, 0.0, -3.0, 1.0], DType::I32)]).unwrap();
    assert_eq!(gather.to_f64(), [3.0, 1.0, 4.0, 5.0]);
    let error = apply(Op::Take { axis: 1 }, &[(x.0, x.1, f), (&[1], &[3.0], DType::I64)]).unwrap_err();
    assert_eq!(error.to_string(), "node `node`: the index 3 is outside an axis of size 3");
    let chosen = apply(Op::Where, &[(&[2, 1], &[1.0, 0.0], DType::Bool), (x.0, x.1, f), (&[1], &[0.0], f)]).unwrap();
    assert_eq!(chosen.to_f64(), [1.0, 2.0, 3.0, 0.0, 0.0, 0.0]);
}

#[test]
fn reductions_and_normalisations() {
    let x: (&[i64], &[f64]) = (&[2, 3], &[1.0, 2.0, 6.0, -1.0, 5.0, 2.0]);
    use crate::ReduceOp::*;
    for (op, axes, wanted) in [
        (Sum, vec![0], vec![0.0, 7.0, 8.0]),
        (Mean, vec![1], vec![3.0, 2.0]),
        (Max, vec![0, 1], vec![6.0]),
        (Min, vec![1], vec![1.0, -1.0]),
        (Prod, vec![1], vec![12.0, -10.0]),
        (Sum, vec![], vec![1.0, 2.0, 6.0, -1.0, 5.0, 2.0]),
    ] {
        gives(Op::Reduce { op, axes: axes.clone(), keepdim: false }, &[x], &wanted);
    }
    gives_ints(
        Op::Reduce { op: All, axes: vec![1], keepdim: true },
        DType::Bool,
        &[(&[2, 2], &[1.0, 0.0, 1.0, 1.0])],
        &[0.0, 1.0],
    );
    gives_ints(
        Op::Reduce { op: Any, axes: vec![0], keepdim: true },
        DType::Bool,
        &[(&[2, 2], &[1.0, 0.0, 1.0, 0.0])],
        &[1.0, 0.0],
    );
    gives(Op::Softmax { axis: 0 }, &[(&[2, 1], &[0.0, 3.0f64.ln()])], &[0.25, 0.75]);
    gives(Op::Softmax { axis: 1 }, &[(&[1, 2], &[1000.0, 1000.0])], &[0.5, 0.5]);
    let w: (&[i64], &[f64]) = (&[2], &[2.0, 1.0]);
    gives(Op::LayerNorm { axes: 1, eps: 0.0 }, &[(&[1, 2], &[1.0, 3.0]), w, (&[2], &[0.5, 0.0])], &[-1.5, 1.0]);
    let bn = [(&[1i64, 2, 1][..], &[3.0, 8.0][..]), w, (&[2], &[0.5, 0.0]), (&[2], &[1.0, 4.0]), (&[2], &[3.0, 15.0])];
    gives(Op::BatchNorm { eps: 1.0 }, &bn, &[2.5, 1.0]);
}

#[test]
fn pooling() {
    let x: Vec<f64> = (0..16).map(f64::from).collect();
    let x: (&[i64], &[f64]) = (&[1, 1, 4, 4], &x);
    let window = Window { kernel: [3, 3], stride: [2, 2], pad: [[1, 1], [1, 1]], dilation: [1, 1] };
    gives(Op::Pool { op: PoolOp::Max, window }, &[x], &[5.0, 7.0, 13.0, 15.0]);
    let mean = |count_include_pad| Op::Pool { op: PoolOp::Avg { count_include_pad }, window };
    gives(mean(false), &[x], &[2.5, 4.0, 8.5, 10.0]);
    gives(mean(true), &[x], &[10.0 / 9.0, 24.0 / 9.0, 51.0 / 9.0, 10.0]);
    gives(Op::Pool { op: PoolOp::Max, window }, &[(&[1, 1, 2, 2], &[-1.0, -2.0, -3.0, -4.0])], &[-1.0]);
    // Windows of 2, 2 and 2 elements that overlap: 0..2, 1..3, 2..4.
    gives(Op::AdaptiveAvgPool { output: [1, 3] }, &[(&[1, 1, 1, 4], &[0.0, 2.0, 4.0, 6.0])], &[1.0, 3.0, 5.0]);
}

#[test]
fn products() {
    gives(Op::MatMul, &[(&[1, 2], &[1.0, 2.0]), (&[2, 2], &[3.0, 4.0, 5.0, 6.0])], &[13.0, 16.0]);
    let batched: (&[i64], &[f64]) = (&[2, 1, 1], &[2.0, 3.0]);
    gives(Op::MatMul, &[batched, (&[1, 2], &[1.0, 10.0])], &[2.0, 20.0, 3.0, 30.0]);
    gives_ints(Op::MatMul, DType::I64, &[(&[1, 2], &[1.0, 2.0]), (&[2, 2], &[3.0, 4.0, 5.0, 6.0])], &[13.0, 16.0]);
    gives(Op::Linear, &[(&[1, 2], &[1.0, 2.0]), (&[2, 2], &[3.0, 4.0, 5.0, 6.0]), (&[2], &[0.5, 0.0])], &[11.5, 17.0]);
}

#[test]
fn empty_tensors_are_no_special_case() {
    let window = Window { kernel: [1, 1], stride: [1, 1], pad: [[1, 0], [0, 1]], dilation: [1, 1] };
    gives(Op::Conv { window, groups: 1 }, &[(&[1, 2, 0, 0], &[]), (&[1, 2, 1, 1], &[1.0, 1.0]), (&[1], &[5.0])], &[5.0]);
    gives(Op::Conv { window, groups: 1 }, &[(&[0, 2, 3, 3], &[]), (&[1, 2, 1, 1], &[1.0, 1.0])], &[]);
    gives(Op::MatMul, &[(&[2, 0], &[]), (&[0, 1], &[])], &[0.0, 0.0]);
    gives(Op::Linear, &[(&[0, 2], &[]), (&[1, 2], &[1.0, 1.0])], &[]);
    gives(Op::Softmax { axis: 1 }, &[(&[2, 0], &[])], &[]);
    gives(Op::Concat { axis: 0 }, &[(&[0, 2], &[]), (&[1, 2], &[1.0, 2.0])], &[1.0, 2.0]);
    gives(Op::Slice { axis: 0, start: 2.into(), end: 2.into(), step: 1 }, &[(&[2, 1], &[1.0, 2.0])], &[]);
    gives(Op::Pad { pads: vec![[-3, 4]], value: 7.0.into() }, &[(&[2], &[1.0, 2.0])], &[7.0, 7.0, 7.0]);
    let attention = Op::Attention { scale: 1.0, causal: false };
    gives(attention, &[(&[1, 2], &[1.0, 1.0]), (&[0, 2], &[]), (&[0, 2], &[])], &[0.0, 0.0]);
    let largest = Op::Reduce { op: crate::ReduceOp::Max, axes: vec![0], keepdim: false };
    let error = apply(largest, &[(&[0], &[], DType::F32)]).unwrap_err();
    assert_eq!(error.to_string(), "node `node`: the largest or smallest of no elements");
}

#[test]
fn attention_is_its_definition() {
    let value = |seed: usize, n: usize| (0..n).map(|i| ((i * 7 + seed * 13) % 11) as f64 / 5.0 - 1.0).collect::<Vec<_>>();
    let (q, k, v, mask) = (value(1, 2 * 3 * 4), value(2, 5 * 4), value(3, 5 * 2), value(4, 3 * 5));
    for causal in [false, true] {
        let attention = Op::Attention { scale: 0.7, causal };
        let operands = [
            (&[2i64, 3, 4][..], &q[..], DType::F64),
            (&[1, 5, 4], &k, DType::F64),
            (&[1, 5, 2], &v, DType::F64),
            (&[3, 5], &mask, DType::F64),
        ];
        let got = apply(attention, &operands).unwrap();
        let mut wanted = Vec::new();
        for head in 0..2 {
            for i in 0..3 {
                let scores: Vec<f64> = (0..5)
                    .map(|j| {
                        let dot: f64 = (0..4).map(|e| q[(head * 3 + i) * 4 + e] * k[j * 4 + e]).sum();
                        if causal && j > i { 0.0 } else { (0.7 * dot + mask[i * 5 + j]).exp() }
                    })
                    .collect();
                wanted.extend((0..2).map(|e| (0..5).map(|j| scores[j] * v[j * 2 + e]).sum::<f64>() / scores.iter().sum::<f64>()));
            }
        }
        assert!(got.to_f64().iter().zip(&wanted).all(|(a, b)| (a - b).abs() < 1e-12), "causal {causal}");
    }
    let bool_mask = [
        (&[1i64, 1][..], &[2.0][..], DType::F64),
        (&[2, 1], &[1.0, 2.0], DType::F64),
        (&[2, 1], &[3.0, 4.0], DType::F64),
        (&[2], &[0.0, 1.0], DType::Bool),
    ];
    assert_eq!(apply(Op::Attention { scale: 1.0, causal: false }, &bool_mask).unwrap().to_f64(), [4.0]);
}

proptest! {
    #[test]
    fn convolution_is_its_definition(
        (n, groups, c, rows) in (1usize..3, 1usize..3, 1usize..4, 1usize..4),
        (h, w) in (4usize..9, 4usize..9),
        kernel in prop::array::uniform2(1i64..4),
        stride in prop::array::uniform2(1i64..3),
        pad in prop::array::uniform4(0i64..3),
        dilation in prop::array::uniform2(1i64..3),
        with_bias in any::<bool>(),
    ) {
        let window = Window { kernel, stride, pad: [[pad[0], pad[1]], [pad[2], pad[3]]], dilation };
        let value = |seed: usize, count: usize| (0..count).map(|i| ((i * 31 + seed) % 17) as f64 - 8.0).collect::<Vec<_>>();
        let (channels, o) = (groups * c, groups * rows);
        let taps = (kernel[0] * kernel[1]) as usize;
        let (x, weight, bias) = (value(1, n * channels * h * w), value(2, o * c * taps), value(3, o));
        let shapes = [[n, channels, h, w].map(|v| v as i64).to_vec(), vec![o as i64, c as i64, kernel[0], kernel[1]], vec![o as i64]];
        let mut operands = vec![(&shapes[0][..], &x[..], DType::F64), (&shapes[1][..], &weight[..], DType::F64)];
        if with_bias {
            operands.push((&shapes[2][..], &bias[..], DType::F64));
        }
        let fits = (0..2).all(|a| [h, w][a] as i64 + pad[2 * a] + pad[2 * a + 1] > dilation[a] * (kernel[a] - 1));
        prop_assume!(fits);
        let got = apply(Op::Conv { window, groups: groups as i64 }, &operands).unwrap();
        let (oh, ow) = (got.shape[2], got.shape[3]);
        let mut wanted = Vec::new();
        for (image, channel, y0, x0) in (0..n * o * oh * ow).map(|i| (i / (o * oh * ow), i / (oh * ow) % o, i / ow % oh, i % ow)) {
            let mut sum = if with_bias { bias[channel] } else { 0.0 };
            for (input, ky, kx) in (0..c * taps).map(|i| (i / taps, i as i64 % taps as i64 / kernel[1], i as i64 % kernel[1])) {
                let y = y0 as i64 * stride[0] - pad[0] + ky * dilation[0];
                let xx = x0 as i64 * stride[1] - pad[2] + kx * dilation[1];
                if (0..h as i64).contains(&y) && (0..w as i64).contains(&xx) {
                    let from = channel / rows * c + input;
                    sum += x[((image * channels + from) * h + y as usize) * w + xx as usize]
                        * weight[((channel * c + input) as i64 * taps as i64 + ky * kernel[1] + kx) as usize];
                }
            }
            wanted.push(sum);
        }
        prop_assert_eq!(got.to_f64(), wanted);
    }
}

const TWO_INPUTS: &str = "graph two\ndim batch = 1..32 hint 8\ndim seq = 2..16\ninput %x : f32[batch, 2]\ninput %y : f32[2*seq + 1]\n\
    %s = reduce_sum %y {axes=[0], keepdim} : f32[1]\n%z = add %x, %s : f32[batch, 2]\noutput %z\noutput %x\n";

#[test]
fn inputs_are_checked_against_their_declaration() {
    let graph = text::parse(TWO_INPUTS).unwrap();
    let x = |shape: &[usize]| Tensor::from_f32(shape, &vec![1.0; shape.iter().product()]);
    let y = x(&[5]);
    let outputs = run(&graph, &[x(&[3, 2]), y.clone()]).unwrap();
    assert_eq!((outputs[0].to_f32(), outputs[1].clone()), (vec![6.0; 6], x(&[3, 2])));
    let mut short = x(&[3, 2]);
    short.data.pop();
    for (inputs, wanted) in [
        (vec![x(&[3, 2])], "the model `two` takes 2 inputs, got 1"),
        (
            vec![x(&[33, 2]), y.clone()],
            "input `x`: axis 0 has the size 33, so batch is 33, but the model accepts batch from 1 to 32",
        ),
        (vec![x(&[0, 2]), y.clone()], "accepts batch from 1 to 32"),
        (vec![x(&[3, 3]), y.clone()], "input `x`: axis 1 has the size 3, expected 2 = 2"),
        (vec![x(&[3, 2]), x(&[6])], "input `y`: axis 0: the dimension `seq` has no value"),
        (vec![x(&[3, 2]), x(&[35])], "input `y`: axis 0 has the size 35, so seq is 17, but the model accepts seq from 2 to 16"),
        (vec![x(&[6]), y.clone()], "input `x`: expected f32[batch, 2], got f32[6]"),
        (vec![Tensor::from_i64(&[1, 2], &[1, 2]), y.clone()], "expected f32[batch, 2], got i64[1, 2]"),
        (vec![short, y], "f32[3, 2] does not have 23 bytes"),
    ] {
        let message = run(&graph, &inputs).unwrap_err().to_string();
        assert!(message.contains(wanted), "expected `{wanted}` in `{message}`");
    }
}

#[test]
fn runs_go_on_from_what_the_run_before_left() {
    // torch 2.14: `calls += 1; mean.mul_(0.75).add_(x, alpha=0.25); y = mean * calls; x.neg_()`, called with 4, 8, -4.
    let mut b = Builder::new("ema");
    let x = b.input("x", TensorType::new(DType::F32, [1])).unwrap();
    let calls =
        b.state("calls", TensorType::new(DType::I64, Vec::<Expr>::new()), TensorData::new(2i64.to_le_bytes().to_vec())).unwrap();
    let mean = b.state("mean", TensorType::new(DType::F32, [1]), TensorData::from_f32(&[1.0])).unwrap();
    let mut node = |op: Op, inputs: &[ValueId]| b.push(op, inputs, "node").unwrap();
    let full = |value: f64, dtype| Op::Full { value: value.into(), shape: vec![], dtype };
    let [one, keep, take] = [full(1.0, DType::I64), full(0.75, DType::F32), full(0.25, DType::F32)].map(|op| node(op, &[]));
    let more = node(Op::Binary(BinaryOp::Add), &[calls, one]);
    let (old, new) = (node(Op::Binary(BinaryOp::Mul), &[mean, keep]), node(Op::Binary(BinaryOp::Mul), &[x, take]));
    let ema = node(Op::Binary(BinaryOp::Add), &[old, new]);
    let count = node(Op::Cast(DType::F32), &[more]);
    let y = node(Op::Binary(BinaryOp::Mul), &[ema, count]);
    let negated = node(Op::Unary(UnaryOp::Neg), &[x]);
    b.output(y);
    b.next(calls, more);
    b.next(mean, ema);
    b.write_back(x, negated);
    let graph = b.finish().unwrap();

    let mut states = initial(&graph);
    assert_eq!(states, [Tensor::from_i64(&[], &[2]), Tensor::from_f32(&[1], &[1.0])]);
    for (x, y, mean) in [(4.0, 5.25, 1.75), (8.0, 13.25, 3.3125), (-4.0, 7.421875, 1.484375)] {
        let results = run_from(&graph, &[Tensor::from_f32(&[1], &[x])], &states).unwrap();
        assert_eq!(results.outputs, [Tensor::from_f32(&[1], &[y])]);
        assert_eq!(results.states[1], Tensor::from_f32(&[1], &[mean]));
        assert_eq!(results.writes, [Tensor::from_f32(&[1], &[-x])]);
        states = results.states;
    }
    assert_eq!(states[0], Tensor::from_i64(&[], &[5]));
    let x = Tensor::from_f32(&[1], &[4.0]);
    assert_eq!(run(&graph, std::slice::from_ref(&x)).unwrap(), [Tensor::from_f32(&[1], &[5.25])], "the first run of a session");
    states.swap(0, 1);
    let error = run_from(&graph, &[x], &states).unwrap_err().to_string();
    assert_eq!(error, "state `calls`: expected i64[], got f32[1] of 4 bytes");
}

#[test]
fn case_files_round_trip_and_refuse_others() {
    let case = Case {
        inputs: vec![Tensor::from_i64(&[2], &[1, -2])],
        outputs: vec![Tensor::from_f32(&[1, 2], &[0.5, 1.5]); 11],
        ..Case::default()
    };
    assert_eq!(Case::read(&case.write()), Ok(case.clone()));
    assert!(matches!(Case::read(&case.write()[..50]), Err(CaseError::Damaged(_))));
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![1], &[0; 4]).unwrap();
    let gap = safetensors::serialize([("in.1", view)], None).unwrap();
    assert_eq!(Case::read(&gap), Err(CaseError::Name("in.1".into())));
}

#[test]
fn relative_error_is_of_the_norms() {
    let t = |v: &[f32]| Tensor::from_f32(&[v.len()], v);
    assert_eq!(t(&[3.0, 4.0]).relative_error(&t(&[3.0, 4.0])), 0.0);
    assert_eq!(t(&[3.0, 9.0]).relative_error(&t(&[3.0, 4.0])), 1.0);
    assert_eq!(t(&[f32::NAN]).relative_error(&t(&[1.0])), f64::INFINITY);
    assert_eq!(t(&[1.0]).relative_error(&t(&[0.0])), f64::INFINITY);
    assert_eq!(t(&[1.0]).relative_error(&t(&[1.0, 1.0])), f64::INFINITY);
}

#[test]
fn the_example_runs_and_keeps_activations_near_one() {
    let graph = example("resnet18").unwrap();
    let image: Vec<f32> = (0..3 * 224 * 224).map(|i| ((i * 2654435761u64 as usize) % 1000) as f32 / 250.0 - 2.0).collect();
    let output = run(&graph, &[Tensor::from_f32(&[1, 3, 224, 224], &image)]).unwrap().remove(0);
    assert_eq!(output.shape, [1, 1000]);
    let norm = (output.to_f64().iter().map(|v| v * v).sum::<f64>() / 1000.0).sqrt();
    assert!((0.2..5.0).contains(&norm), "the outputs have the magnitude {norm}");
}
