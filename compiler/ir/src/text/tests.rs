use aotfarm_protocol::DType;
use proptest::prelude::*;

use super::*;
use crate::*;

const SMALL: &str = "graph g\ndim n = 1..32 hint 8\ninput %x : f32[n, 4]\n";

#[test]
fn every_operator_has_a_golden_line() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/ir/all_ops.txt");
    let golden = std::fs::read_to_string(path).expect("the golden file exists");
    let graph = parse(&golden).unwrap_or_else(|error| panic!("{path}: {error}"));
    let header: String = golden.lines().take_while(|l| l.starts_with(';')).map(|l| format!("{l}\n")).collect();
    let printed = format!("{header}{}", print(&graph));
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, &printed).expect("the golden file can be written");
    } else {
        assert_eq!(printed, golden, "run with BLESS=1 to accept");
    }
    let mut seen: Vec<&str> = graph.nodes.iter().map(|n| n.op.name()).collect();
    seen.sort_unstable();
    seen.dedup();
    // Also 3 parametric unary functions, and the 22 others (max and average pooling count apart).
    let functions = UnaryOp::PLAIN.len() + BinaryOp::ALL.len() + ReduceOp::ALL.len();
    assert_eq!(seen.len(), functions + 3 + 22, "an operator is missing from the golden file: {seen:?}");
}

#[test]
fn quoted_names_and_sources_survive() {
    let mut b = Builder::new("a model \"v1\"\n");
    let x = b.input("x y\t%", TensorType::new(DType::F32, [2])).unwrap();
    let y = b.push_named("é=1", Op::Unary(UnaryOp::Relu), &[x], " odd; \u{7} source \\").unwrap();
    b.output(y);
    let graph = b.finish().unwrap();
    let back = parse(&print(&graph)).unwrap();
    assert_eq!(
        (&back.name, &back.values[0].name, &back.values[1].name),
        (&graph.name, &graph.values[0].name, &graph.values[1].name)
    );
    assert_eq!(back.nodes[0].source, graph.nodes[0].source);
}

#[test]
fn outputs_have_names_of_their_own() {
    let text = format!("{SMALL}%y = relu %x : f32[n, 4]\noutput %y\noutput %y as %logits\n");
    let graph = parse(&text).unwrap();
    assert_eq!((graph.outputs[0], graph.output_names.as_slice()), (graph.outputs[1], &["y".to_owned(), "logits".to_owned()][..]));
    assert_eq!(print(&graph), text);
    let error = parse(&text.replace(" as %logits", "")).unwrap_err().to_string();
    assert!(error.contains("another output has the name `y`"), "{error}");

    let mut b = Builder::new("g");
    let x = b.input("x", TensorType::new(DType::F32, [2])).unwrap();
    b.output(x);
    b.output_named("x", x);
    assert_eq!(b.finish().unwrap().output_names, ["x", "x_1"], "a number tells equal names apart");
}

/// A counter, an exponential average of an input, and an input that the model raises.
pub(super) const STATES: &str = "graph g
dim n = 1..8
input %x : f32[n, 2]
state %calls : i64[]
state %mean : f32[2]
state %idle : bool[3]
weight %one : i64[]
%more = add %calls, %one : i64[]
%sum = reduce_sum %x {axes=[0]} : f32[2]
%grown = add %mean, %sum : f32[2]
%up = relu %x : f32[n, 2]
output %calls
next %calls = %more
next %mean = %grown
write %x = %up
";

#[test]
fn states_and_writes_survive_the_text() {
    let graph = parse(STATES).unwrap();
    assert_eq!(print(&graph), STATES);
    assert_eq!((graph.states.len(), graph.writes.len()), (3, 1));
    assert_eq!(graph.states[2].next, graph.states[2].value, "no line `next`: it stays as it is");
    let results: Vec<&str> = graph.results().map(|id| graph.value(id).name.as_str()).collect();
    assert_eq!(results, ["calls", "more", "grown", "idle", "up"]);
    for (line, wanted) in [
        ("next %x = %up", "line 16, column 1: `%x` is not a state"),
        ("write %mean = %grown", "line 16, column 1: `%mean` is not an input"),
        ("next %mean = %up", "tensor `mean`: it is f32[2], but what it holds after a run, `up`, is f32[n, 2]"),
        ("write %x = %grown", "value `x` is not what defines it says: written back twice"),
        ("state %cache : f32[n]", "line 16, column 1: state `cache`: the size `n` uses `n`"),
        ("state %one : i64[]", "line 16, column 1: `%one` is defined twice"),
        ("next %calls %one", "line 16, column 13: expected `=`"),
    ] {
        let message = parse(&format!("{STATES}{line}")).expect_err(line).to_string();
        assert!(message.contains(wanted), "expected `{wanted}` in `{message}`");
    }
}

#[test]
fn errors_have_line_and_column() {
    let cases = [
        ("", "line 0, column 0: the text is empty"),
        ("graphs g", "line 1, column 1: expected `graph `"),
        (
            "graph g\nnonsense",
            "line 2, column 1: expected dim, input, state, weight, output, next, write or `%name = …`, found `nonsense`",
        ),
        ("graph g\ndim n = 1..x", "line 2, column 5: expected a range such as 1..32, found `1..x`"),
        ("graph g\ndim n = 4..1", "line 2, column 5: the range 4..1 is not within 0..1099511627776"),
        ("graph g\ninput %x : f99[2]", "line 2, column 12: `f99` is not an element type"),
        ("graph g\ninput %x : f32[2", "line 2, column 17: expected `,`"),
        (
            "graph g\ninput %x : f32[2+]",
            "line 2, column 16: expected a size, found `2+`: unexpected end at character 2 of the expression `2+`",
        ),
        ("graph g\ninput %x : f32[99999999999999999999]", "line 2, column 16: expected a size"),
        ("graph g\ninput %x : f32[m]", "line 2, column 1: the size `m` uses `m`, which is not a dimension of the graph"),
        ("graph g\ninput %x : f32[2]\ninput %x : f32[2]", "line 3, column 1: `%x` is defined twice"),
        ("graph g\ninput %\"x : f32[2]", "line 2, column 19: the string has no closing `\"`"),
        ("graph g\noutput %y", "line 2, column 8: `%y` is not defined above"),
        (
            "graph g\ninput %x : f32[2]\n%y = relu %x : f32[3]",
            "line 3, column 6: the result is declared f32[3], but the operands give f32[2]",
        ),
        ("graph g\ninput %x : f32[2]\n%y = frob %x : f32[2]", "unknown operator `frob`"),
        ("graph g\ninput %x : f32[2]\n%y = softmax %x : f32[2]", "the attribute `axis` (a non-negative integer) is missing"),
        (
            "graph g\ninput %x : f32[2]\n%y = softmax %x {axis=-1} : f32[2]",
            "line 3, column 23: `axis` must be a non-negative integer",
        ),
        ("graph g\ninput %x : f32[2]\n%y = relu %x {axis=1} : f32[2]", "line 3, column 20: `relu` has no attribute `axis`"),
        ("graph g\ninput %x : f32[2]\n%y = softmax %x {axis=0, axis=0} : f32[2]", "line 3, column 26: `axis` is given twice"),
        ("graph g\ninput %x : f32[2]", "the graph `g` has no outputs"),
        ("graph g\nweight %w : f32[1000000000]\noutput %w", "weights of more than 1073741824 bytes without data"),
    ];
    for (text, wanted) in cases {
        let message = parse(text).expect_err(text).to_string();
        assert!(message.contains(wanted), "expected `{wanted}` in `{message}`");
    }
}

#[test]
fn deep_nesting_does_not_overflow_the_stack() {
    for hostile in ["(", "[", "{", "-", "max(1,", "%\""] {
        let deep = hostile.repeat(200_000);
        for text in [
            format!("graph g\ninput %x : f32[{deep}1]\n"),
            format!("{SMALL}%y = pad %x {{pads={deep}}} : f32[n, 4]"),
            format!("{SMALL}%y = slice %x {{axis=0, start={deep}, end=n}} : f32[n, 4]"),
        ] {
            assert!(parse(&text).is_err());
        }
    }
}

/// One attempt to add a node; attempts that break a shape rule are skipped.
fn attempt(b: &mut Builder, values: &[ValueId], (kind, p, q, r): (u8, usize, usize, i64)) -> Option<ValueId> {
    let (x, y) = (values[p % values.len()], values[q % values.len()]);
    let shape = b.shape(x).to_vec();
    let axis = q % shape.len().max(1);
    let size = shape.get(axis).cloned().unwrap_or_else(Expr::one);
    let (op, inputs) = match kind {
        0 => (Op::Unary(UnaryOp::PLAIN[q % UnaryOp::PLAIN.len()]), vec![x]),
        1 => (Op::Unary(UnaryOp::Clamp { low: -(r as f64), high: f64::INFINITY }), vec![x]),
        2 => (Op::Binary(BinaryOp::ALL[r as usize % BinaryOp::ALL.len()]), vec![x, y]),
        3 => (Op::Softmax { axis }, vec![x]),
        4 => (Op::Reduce { op: ReduceOp::ALL[r as usize % 7], axes: vec![axis], keepdim: r % 2 == 0 }, vec![x]),
        5 => (Op::Permute { axes: (0..shape.len()).rev().collect() }, vec![x]),
        6 => (Op::Concat { axis }, vec![x, y]),
        7 => (Op::Pad { pads: vec![[r, 1]; shape.len()], value: (0.1 * r as f64).into() }, vec![x]),
        8 => (Op::Slice { axis, start: 0.into(), end: size, step: r.max(1) }, vec![x]),
        9 => (Op::Reshape { shape: vec![shape.iter().product()] }, vec![x]),
        10 => (Op::Expand { shape: [vec![Expr::from(r)], shape].concat() }, vec![x]),
        11 => (Op::Where, vec![x, y, y]),
        12 => (Op::MatMul, vec![x, y]),
        13 => (Op::Cast(DType::ALL[q % 10]), vec![x]),
        14 => (Op::Iota { length: size, start: r, step: -r, dtype: DType::I64 }, vec![]),
        15 => (Op::Take { axis }, vec![x, y]),
        _ => (Op::Full { value: (f64::from(r as u8) / 3.0).into(), shape, dtype: DType::F16 }, vec![]),
    };
    b.push(op, &inputs, &format!("node {r}; {kind}")).ok()
}

fn graphs() -> impl Strategy<Value = Graph> {
    prop::collection::vec((0u8..17, 0usize..64, 0usize..64, 0i64..9), 0..24).prop_map(|steps| {
        let mut b = Builder::new("random");
        let n = b.dim("n", 1, 8, None).unwrap();
        let m = b.dim("m", 2, 9, Some(3)).unwrap();
        let mut values = vec![
            b.input("x", TensorType::new(DType::F32, [n, m.clone(), 4.into()])).unwrap(),
            b.input("i", TensorType::new(DType::I64, [m])).unwrap(),
            b.weight("w", TensorType::new(DType::F32, [4]), TensorData::from_f32(&[1.0; 4])).unwrap(),
        ];
        for step in steps {
            values.extend(attempt(&mut b, &values, step));
        }
        b.output(values[values.len() - 1]);
        b.finish().unwrap()
    })
}

proptest! {
    #[test]
    fn text_round_trips(graph in graphs()) {
        let text = print(&graph);
        let back = parse(&text).map_err(|e| TestCaseError::fail(format!("{e}\n{text}")))?;
        prop_assert_eq!(print(&back), text);
        let names = |g: &Graph| g.nodes.iter().map(|n| (n.op.clone(), n.source.clone(), g.value(n.output).name.clone())).collect::<Vec<_>>();
        prop_assert_eq!(names(&back), names(&graph));
        prop_assert_eq!(back.dims, graph.dims);
    }

    #[test]
    fn damaged_text_never_panics(graph in graphs(), at in 0usize..4000, length in 0usize..9, insert in "[ -~é\n]{0,6}") {
        let mut text: Vec<char> = print(&graph).chars().collect();
        let at = at.min(text.len());
        let end = (at + length).min(text.len());
        text.splice(at..end, insert.chars());
        let _ = parse(&text.into_iter().collect::<String>());
    }
}
