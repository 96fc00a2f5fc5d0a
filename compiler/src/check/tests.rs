use aotfarm_ir::{BinaryOp, Builder, Expr, Op, TensorData, TensorType, UnaryOp};

use super::*;

/// The case of a graph without states.
fn case_of(graph: &Graph, given: Option<Case>) -> Result<Case, CheckError> {
    let mut calls = check_case(graph, given.map(|case| vec![case]))?;
    assert_eq!(calls.len(), 1);
    Ok(calls.swap_remove(0))
}

fn integers(tensor: &Tensor) -> Vec<i64> {
    tensor.to_f64().iter().map(|x| *x as i64).collect()
}

/// A graph of one input of six elements, which `build` makes an output of.
fn graph_of(dtype: DType, build: impl FnOnce(&mut Builder, ValueId) -> ValueId) -> Graph {
    let mut b = Builder::new("g");
    let x = b.input("x", TensorType::new(dtype, [2, 3])).unwrap();
    let y = build(&mut b, x);
    b.output(y);
    b.finish().unwrap()
}

fn full(b: &mut Builder, value: f64, dtype: DType) -> ValueId {
    b.push(Op::Full { value: value.into(), shape: vec![], dtype }, &[], "constant").unwrap()
}

fn take(b: &mut Builder, rows: i64, indices: ValueId) -> ValueId {
    let data = TensorData::from_f32(&(0..rows).map(|i| i as f32).collect::<Vec<_>>());
    let table = b.weight("table", TensorType::new(DType::F32, [rows]), data).unwrap();
    b.push(Op::Take { axis: 0 }, &[table, indices], "lookup: take").unwrap()
}

fn binary(b: &mut Builder, function: BinaryOp, x: ValueId, y: ValueId) -> ValueId {
    b.push(Op::Binary(function), &[x, y], function.name()).unwrap()
}

fn unary(b: &mut Builder, function: UnaryOp, x: ValueId) -> ValueId {
    b.push(Op::Unary(function), &[x], function.name()).unwrap()
}

#[test]
fn integer_inputs_are_valid_indices_and_masks() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let values = integers(&random_tensor(DType::I64, vec![3, 4], Interval::ALL, &mut rng));
    assert_eq!(values.len(), 12);
    assert!(values.iter().all(|v| (0..2).contains(v)));
    assert!(values.chunks(4).all(|row| row[0] == 1));
}

#[test]
fn indices_are_drawn_within_the_table_that_they_reach() {
    // Ids of which the first is 100000, in another order and type, as tokenizers with reserved ranges have them.
    let graph = graph_of(DType::I32, |b, ids| {
        let first = full(b, 100_000.0, DType::I32);
        let ids = b.push(Op::Permute { axes: vec![1, 0] }, &[ids], "t").unwrap();
        let shifted = binary(b, BinaryOp::Sub, ids, first);
        let wide = b.push(Op::Cast(DType::I64), &[shifted], "wide").unwrap();
        take(b, 4, wide)
    });
    let case = case_of(&graph, None).unwrap();
    let ids = integers(&case.inputs[0]);
    assert!(ids.iter().all(|id| (100_000..100_004).contains(id)), "{ids:?}");
    assert!(ids.iter().any(|id| *id > 100_001), "not only the first rows: {ids:?}");
}

#[test]
fn integer_divisors_are_not_zero() {
    for function in [BinaryOp::Div, BinaryOp::FloorDiv, BinaryOp::Mod, BinaryOp::Fmod] {
        let graph = graph_of(DType::I64, |b, x| {
            let hundred = full(b, 100.0, DType::I64);
            binary(b, function, hundred, x)
        });
        let case = case_of(&graph, None).unwrap();
        assert!(integers(&case.inputs[0]).iter().all(|n| (1..=8).contains(n)));
    }
}

#[test]
fn floats_are_drawn_where_functions_are_defined() {
    let constant = |value: f64| move |b: &mut Builder| full(b, value, DType::F32);
    let log_of = |function: BinaryOp, value: f64, left: bool| {
        graph_of(DType::F32, |b, x| {
            let c = constant(value)(b);
            let inner = if left { binary(b, function, c, x) } else { binary(b, function, x, c) };
            unary(b, UnaryOp::Log, inner)
        })
    };
    let cases = [
        graph_of(DType::F32, |b, x| unary(b, UnaryOp::Log, x)),
        graph_of(DType::F16, |b, x| unary(b, UnaryOp::Rsqrt, x)),
        graph_of(DType::F64, |b, x| unary(b, UnaryOp::Log1p, x)),
        // x > 5; x < 1; x < 0; x > 30.
        log_of(BinaryOp::Sub, 5.0, false),
        log_of(BinaryOp::Sub, 1.0, true),
        log_of(BinaryOp::Mul, -2.0, false),
        log_of(BinaryOp::Add, -30.0, true),
        // √(tanh(x)) of a view.
        graph_of(DType::F32, |b, x| {
            let x = b.push(Op::Reshape { shape: vec![Expr::from(6)] }, &[x], "flat").unwrap();
            let x = unary(b, UnaryOp::Tanh, x);
            unary(b, UnaryOp::Sqrt, x)
        }),
    ];
    for graph in cases {
        let case = case_of(&graph, None).unwrap();
        assert_eq!(not_finite(&case.outputs[0]), 0, "{}: {:?}", aotfarm_ir::text::print(&graph), case.inputs[0].to_f64());
        let drawn = case.inputs[0].to_f64();
        assert!(drawn.iter().any(|x| (x - drawn[0]).abs() > 1e-3), "they differ: {drawn:?}");
    }
}

#[test]
fn what_will_do_at_first_is_drawn_without_a_look_at_the_graph() {
    let plain = case_of(&graph_of(DType::F32, |b, x| unary(b, UnaryOp::Exp, x)), None).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    assert_eq!(plain.inputs, [random_tensor(DType::F32, vec![2, 3], Interval::ALL, &mut rng)]);
    // One row of a mask that hides all: what is not finite is not much, and right.
    let some = graph_of(DType::F32, |b, x| {
        let low = full(b, 0.0, DType::F32);
        let x = binary(b, BinaryOp::Sub, x, x);
        let x = binary(b, BinaryOp::Div, low, x);
        let kept =
            b.push(Op::Full { value: 1.0.into(), shape: vec![Expr::from(2), 3.into()], dtype: DType::F32 }, &[], "ones").unwrap();
        b.push(Op::Concat { axis: 0 }, &[x, kept], "both").unwrap()
    });
    let case = case_of(&some, None).unwrap();
    assert_eq!((not_finite(&case.outputs[0]), case.outputs[0].len()), (6, 12));
}

#[test]
fn where_no_random_values_will_do_the_input_is_named() {
    let refused = |graph: &Graph| {
        let error = case_of(graph, None).unwrap_err();
        assert!(error.hint().unwrap().contains("--samples FILE.safetensors"), "{error}");
        error.to_string()
    };
    // 7 + x² is no row of a table of four.
    let squared = graph_of(DType::I64, |b, x| {
        let seven = full(b, 7.0, DType::I64);
        let square = binary(b, BinaryOp::Mul, x, x);
        let at = binary(b, BinaryOp::Add, square, seven);
        take(b, 4, at)
    });
    let said = refused(&squared);
    assert!(
        said.starts_with("no random values of `x` that the model takes were found: node `lookup: take`: the index "),
        "{said}"
    );
    let nowhere = graph_of(DType::F32, |b, x| {
        let square = binary(b, BinaryOp::Mul, x, x);
        let negative = unary(b, UnaryOp::Neg, square);
        unary(b, UnaryOp::Log, negative)
    });
    assert!(refused(&nowhere).ends_with("none of its 1 outputs holds a finite number"));
}

#[test]
fn given_inputs_are_taken_and_given_outputs_must_fit() {
    let graph = graph_of(DType::F32, |b, x| unary(b, UnaryOp::Relu, x));
    let input = Tensor::from_f32(&[2, 3], &[-1.0, 2.0, -3.0, 4.0, -5.0, 6.0]);
    let given = |outputs: Vec<Tensor>| Some(Case { inputs: vec![input.clone()], outputs, writes: vec![] });
    let case = case_of(&graph, given(vec![])).unwrap();
    assert_eq!(case.outputs[0].to_f32(), [0.0, 2.0, 0.0, 4.0, 0.0, 6.0]);
    let own = Tensor::from_f32(&[2, 3], &[9.0; 6]);
    assert_eq!(case_of(&graph, given(vec![own.clone()])).unwrap().outputs, std::slice::from_ref(&own));
    let error = |case| case_of(&graph, case).unwrap_err().to_string();
    assert_eq!(error(given(vec![own.clone(), own])), "the model has 1 outputs, and 2 are expected");
    let flat = Tensor::from_f32(&[6], &[0.0; 6]);
    assert_eq!(error(given(vec![flat.clone()])), "output 0 (`relu`) is f32[2, 3], and f32[6] is expected");
    assert!(error(Some(Case { inputs: vec![flat], ..Case::default() })).starts_with("input `x`: expected f32[2, 3]"));
}

/// `total + x`, which is the output, the next `total` and what is written to `x`.
fn running_total(build: impl FnOnce(&mut Builder, ValueId) -> ValueId) -> Graph {
    let mut b = Builder::new("total");
    let x = b.input("x", TensorType::new(DType::F32, [2])).unwrap();
    let total = b.state("total", TensorType::new(DType::F32, [2]), TensorData::from_f32(&[0.0, 1.0])).unwrap();
    let summand = build(&mut b, x);
    let sum = binary(&mut b, BinaryOp::Add, total, summand);
    b.output(sum);
    b.next(total, sum);
    b.write_back(x, sum);
    b.finish().unwrap()
}

#[test]
fn a_model_with_states_is_called_more_than_once() {
    // Of √x every call draws what is not negative.
    for graph in [running_total(|_, x| x), running_total(|b, x| unary(b, UnaryOp::Sqrt, x))] {
        let calls = check_case(&graph, None).unwrap();
        assert_eq!(calls.len(), 3);
        assert_ne!(calls[0].inputs, calls[1].inputs);
        let is_root = graph.nodes.len() > 1;
        let mut total = vec![0.0, 1.0];
        for Case { inputs, outputs, writes } in &calls {
            let summand = |x: f32| if is_root { x.sqrt() } else { x };
            total = total.iter().zip(inputs[0].to_f32()).map(|(t, x)| t + summand(x)).collect();
            assert_eq!(outputs[0].to_f32(), total);
            assert_eq!(writes[0].to_f32(), total);
        }
        assert_eq!(Case::read_calls(&Case::write_calls(&calls)).unwrap(), calls);
    }
}

#[test]
fn calls_of_a_submitter_are_of_one_session() {
    let graph = running_total(|_, x| x);
    let call = |x: [f32; 2]| Case { inputs: vec![Tensor::from_f32(&[2], &x)], ..Case::default() };
    let calls = check_case(&graph, Some(vec![call([1.0, 2.0]), call([3.0, 4.0])])).unwrap();
    assert_eq!(calls[1].outputs[0].to_f32(), [4.0, 7.0]);
    assert_eq!(calls[1].writes, calls[1].outputs);
    let own = Tensor::from_f32(&[2], &[9.0; 2]);
    let expected = Case { outputs: vec![own.clone()], ..call([1.0, 2.0]) };
    let told = check_case(&graph, Some(vec![expected.clone()])).unwrap().swap_remove(0);
    assert_eq!((told.outputs, told.writes[0].to_f32()), (vec![own.clone()], vec![1.0, 3.0]));
    let twice = Case { writes: vec![own.clone(), own], ..expected };
    assert_eq!(check_samples(&graph, &[twice]).unwrap_err().to_string(), "the model has 1 written inputs, and 2 are expected");
}
