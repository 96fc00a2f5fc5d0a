//! The builder and the verifier.

use aotfarm_protocol::DType;

use super::*;

fn exprs(sizes: &[&str]) -> Vec<Expr> {
    sizes.iter().map(|s| s.parse().unwrap()).collect()
}

fn builder() -> (Builder, ValueId) {
    let mut b = Builder::new("g");
    let n = b.dim("n", 2, 8, Some(4)).unwrap();
    let x = b.input("x", TensorType::new(DType::F32, [n, 6.into()])).unwrap();
    (b, x)
}

#[test]
fn ranges_decide_what_shapes_cannot() {
    let (mut b, x) = builder();
    let n = Expr::sym("n");
    let mut slice = |start: Expr, end: Expr| {
        b.push(Op::Slice { axis: 0, start, end, step: 1 }, &[x], "cut: slice")
            .map(|id| b.ty(id).to_string())
            .map_err(|e| e.to_string())
    };
    assert_eq!(slice(1.into(), n.clone()), Ok("f32[n - 1, 6]".into()));
    assert_eq!(slice(n.floor_div(&2.into()), n.clone()), Ok("f32[n - (n//2), 6]".into()));
    assert_eq!(slice(0.into(), n.minimum(&5.into())), Ok("f32[min(5, n), 6]".into()));
    let error = slice(0.into(), 3.into()).unwrap_err();
    assert_eq!(error, "node `cut: slice`: slice(f32[n, 6]): the slice 0..3 may leave the axis of size n; clamp it to 0..n");
    let error = b.push(Op::Pad { pads: vec![[-3, 0], [0, 0]], value: 0.0.into() }, &[x], "crop").unwrap_err().to_string();
    assert!(error.contains("the size `n - 3` may be negative (as low as -1)"), "{error}");
    let huge = Op::Full { value: 0.0.into(), shape: exprs(&["n", "4", "1000000000000"]), dtype: DType::F32 };
    assert!(b.push(huge, &[], "huge").unwrap_err().to_string().contains("elements"));
    let foreign = Op::Full { value: 0.0.into(), shape: exprs(&["m"]), dtype: DType::F32 };
    assert!(b.push(foreign, &[], "f").unwrap_err().to_string().contains("`m`, which is not a dimension of the graph"));
}

#[test]
fn builder_makes_names_unique_and_checks_declarations() {
    let (mut b, x) = builder();
    let relu = Op::Unary(UnaryOp::Relu);
    let names: Vec<String> = ["relu: aten.relu", "relu: aten.relu", "", "x"]
        .map(|source| {
            let id = b.push(relu.clone(), &[x], source).unwrap();
            b.graph().value(id).name.clone()
        })
        .to_vec();
    assert_eq!(names, ["relu", "relu_1", "relu_2", "x_1"]);
    assert!(b.dim("n", 1, 2, None).unwrap_err().to_string().contains("declared twice"));
    for (min, max, hint) in [(-1, 4, None), (0, 0, None), (5, 4, None), (1, i64::MAX, None), (1, 4, Some(5))] {
        assert!(b.dim("m", min, max, hint).is_err(), "{min}..{max} {hint:?}");
    }
    let short = b.weight("w", TensorType::new(DType::F32, [2]), TensorData::new(vec![0; 7])).unwrap_err();
    assert_eq!(short.to_string(), "tensor `w`: f32[2] takes 8 bytes, but the data has 7");
    assert!(b.weight("w", TensorType::new(DType::F32, [Expr::sym("n")]), TensorData::new(vec![])).is_err());
    assert!(matches!(b.finish(), Err(BuildError::Verify(VerifyError::NoOutputs(_)))));
}

#[test]
fn states_and_writes_are_verified() {
    let built = |change: fn(&mut Builder, ValueId, ValueId)| {
        let (mut b, x) = builder();
        let mean = b.state("mean", TensorType::new(DType::F32, [6]), TensorData::from_f32(&[1.0; 6])).unwrap();
        let y = b.push(Op::Binary(BinaryOp::Add), &[x, mean], "y: add").unwrap();
        b.output(y);
        b.write_back(x, y);
        change(&mut b, x, mean);
        b.finish().map_err(|error| error.to_string())
    };
    let graph = built(|_, _, _| ()).unwrap();
    assert_eq!((graph.states[0].next, graph.writes), (ValueId(1), vec![WriteBack { input: 0, value: ValueId(2) }]));
    // The last word counts.
    let graph = built(|b, x, _| b.write_back(x, x)).unwrap();
    assert_eq!(graph.writes, [WriteBack { input: 0, value: ValueId(0) }]);
    let error = built(|b, x, mean| b.next(mean, x)).unwrap_err();
    assert_eq!(error, "tensor `mean`: it is f32[6], but what it holds after a run, `x`, is f32[n, 6]");
    let error = built(Builder::write_back).unwrap_err();
    assert_eq!(error, "tensor `x`: it is f32[n, 6], but what it holds after a run, `mean`, is f32[6]");
    let (mut b, _) = builder();
    let sized = b.state("cache", TensorType::new(DType::F32, exprs(&["n"])), TensorData::from_f32(&[0.0])).unwrap_err();
    assert!(sized.to_string().contains("must have a constant shape"), "{sized}");
    let short = b.state("cache", TensorType::new(DType::F32, [2]), TensorData::from_f32(&[0.0])).unwrap_err();
    assert!(short.to_string().contains("takes 8 bytes, but the data has 4"), "{short}");

    let broken = |change: fn(&mut Graph)| {
        let mut g = built(|_, _, _| ()).unwrap();
        change(&mut g);
        verify(&g).expect_err("the verifier accepted it")
    };
    assert!(matches!(broken(|g| g.states[0].next = ValueId(99)), VerifyError::NoSuchValue { .. }));
    assert!(matches!(broken(|g| g.states[0].value = ValueId(0)), VerifyError::Definition { .. }));
    assert!(matches!(broken(|g| g.states.clear()), VerifyError::Definition { .. }));
    assert!(matches!(broken(|g| g.states.push(g.states[0].clone())), VerifyError::Definition { .. }));
    assert!(matches!(broken(|g| g.states[0].initial = TensorData::new(vec![])), VerifyError::Tensor { .. }));
    assert!(matches!(broken(|g| g.writes[0].input = 1), VerifyError::NoSuchInput { .. }));
    assert!(matches!(broken(|g| g.writes[0].value = ValueId(99)), VerifyError::NoSuchValue { .. }));
    assert!(matches!(broken(|g| g.writes.push(g.writes[0])), VerifyError::Definition { .. }));
}

#[test]
fn the_verifier_names_each_broken_invariant() {
    let graph = || {
        let (mut b, x) = builder();
        let w = b.weight("w", TensorType::new(DType::F32, [6]), TensorData::from_f32(&[0.; 6])).unwrap();
        let y = b.push(Op::Binary(BinaryOp::Add), &[x, w], "y: add").unwrap();
        let z = b.push(Op::Unary(UnaryOp::Relu), &[y], "z: relu").unwrap();
        b.output(z);
        b.finish().unwrap()
    };
    let broken = |change: fn(&mut Graph)| {
        let mut g = graph();
        change(&mut g);
        verify(&g).expect_err("the verifier accepted it")
    };
    assert_eq!(verify(&graph()), Ok(()));
    assert!(matches!(broken(|g| g.nodes[0].inputs[0] = g.nodes[1].output), VerifyError::Order { .. }));
    assert!(matches!(broken(|g| g.nodes[0].inputs[0] = g.nodes[0].output), VerifyError::Order { when: "by itself", .. }));
    assert!(matches!(broken(|g| g.nodes.swap(0, 1)), VerifyError::Definition { .. }));
    assert!(matches!(broken(|g| g.values[1].name = "x".into()), VerifyError::DuplicateName(_)));
    assert!(matches!(broken(|g| g.values[1].name.clear()), VerifyError::Unnamed(1)));
    assert!(matches!(broken(|g| g.outputs[0] = ValueId(99)), VerifyError::NoSuchValue { .. }));
    assert!(matches!(broken(|g| g.nodes[0].inputs[0] = ValueId(99)), VerifyError::NoSuchValue { .. }));
    assert!(matches!(broken(|g| g.outputs.clear()), VerifyError::NoOutputs(_)));
    assert!(matches!(broken(|g| g.dims[0].max = 1), VerifyError::Dim { .. }));
    assert!(matches!(broken(|g| g.dims.push(g.dims[0].clone())), VerifyError::Dim { .. }));
    assert!(matches!(broken(|g| g.dims.clear()), VerifyError::Tensor { .. }));
    assert!(matches!(broken(|g| g.values[1].def = Def::Weight(TensorData::new(vec![]))), VerifyError::Tensor { .. }));
    assert!(matches!(broken(|g| g.values[0].def = Def::Input(1)), VerifyError::Definition { .. }));
    assert!(matches!(broken(|g| g.values[2].ty.dtype = DType::F64), VerifyError::Type { .. }));
    assert!(matches!(broken(|g| _ = g.nodes[0].inputs.pop()), VerifyError::Rule { .. }));
    assert!(matches!(broken(|g| g.nodes[1].output = g.nodes[0].output), VerifyError::Definition { .. }));
    assert!(matches!(broken(|g| g.inputs.push(g.inputs[0])), VerifyError::Definition { .. }));
}
