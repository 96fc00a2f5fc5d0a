use aotfarm_protocol::Dim;
use proptest::prelude::*;

use super::*;

fn e(text: &str) -> Expr {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn sums_and_products_have_one_form() {
    assert_eq!(e("batch + batch + 1"), e("1 + 2*batch"));
    assert_eq!(e("(a + b)*(a - b)"), e("a*a - b*b"));
    assert_eq!(e("2*batch + 1").to_string(), "2*batch + 1");
    assert_eq!(e("3 - batch").to_string(), "-batch + 3");
    assert_eq!(e("a - a").as_const(), Some(0));
}

#[test]
fn floor_divisions_are_reduced() {
    let cases = [
        ("(2*batch + 3)//2", "batch + 1"),
        ("(batch + 1)//2", "(batch + 1)//2"),
        ("(6*n + 4)//4", "n + n//2 + 1"),
        ("(2*n + 1)//4", "n//2"),
        ("n//2//3", "n//6"),
        ("(a*b)//b", "a"),
        ("7//-2", "-4"),
        ("-7 % 3", "2"),
        ("(2*n + 5) % 4", "2*(n % 2) + 1 - 0"),
        ("(4*n) % 2", "0"),
        ("2*((n + 1)//2)", "2*((n + 1)//2)"),
        ("max(n, n + 2)", "n + 2"),
        ("min(4, 7)", "4"),
    ];
    for (text, canonical) in cases {
        assert_eq!(e(text), e(canonical), "{text} gave {}", e(text));
    }
    assert_eq!(e("(batch + 1)//2").to_string(), "(batch + 1)//2");
    assert_eq!(e("3*((batch + 1)//2)").to_string(), "3*((batch + 1)//2)");
    assert_eq!(e("max(seq, 4) % b").to_string(), "(max(4, seq)) % b");
}

#[test]
fn exact_division() {
    assert_eq!(e("32*batch*128").div_exact(&e("128")), Some(e("32*batch")));
    assert_eq!(e("a*b + a").div_exact(&e("b + 1")), Some(e("a")));
    assert_eq!(e("64*batch").div_exact(&e("batch")), Some(e("64")));
    assert_eq!(e("batch + 1").div_exact(&e("batch")), None);
    assert_eq!(e("3*batch").div_exact(&e("2")), None);
    assert_eq!(e("batch").div_exact(&Expr::zero()), None);
}

#[test]
fn bounds_follow_the_ranges() {
    let dims = [GraphDim { sym: "n".into(), min: 1, max: 32, hint: None }];
    assert_eq!(e("2*n + 1").bounds(&dims), (3, 65));
    assert_eq!(e("(n + 1)//2").bounds(&dims), (1, 16));
    assert_eq!(e("5 - n").bounds(&dims), (-27, 4));
    assert_eq!(e("n % 7").bounds(&dims), (0, 6));
    assert_eq!(e("max(n, 8)").bounds(&dims), (8, 32));
    assert_eq!(e("m").bounds(&dims), (i64::MIN, i64::MAX));
    assert_eq!(e("4//(n - 1)").bounds(&dims), (i64::MIN, i64::MAX));
    assert_eq!(e("n - min(n, 5)").bounds(&dims), (0, 27));
    assert_eq!(e("n - n//2").bounds(&dims), (1, 16));
    assert_eq!(e("max(n, 4) - n").bounds(&dims), (0, 3));
}

#[test]
fn what_does_not_fit_is_poison() {
    let big = e("4611686018427387904");
    assert!((&big + &big).is_overflow());
    assert!((&big * &big).floor_div(&big).is_overflow());
    assert_eq!((&big * &big).as_const(), None);
    assert!(matches!((&big * &big).eval(&Bindings::new()), Err(EvalError::Overflow(_))));
    let mut nested = e("n");
    for i in 0..1000 {
        nested = nested.maximum(&e("m")).minimum(&(&nested + i));
    }
    assert!(nested.is_overflow());
    let wide: Expr = (0..50).map(|i| Expr::sym(&format!("s{i}"))).sum();
    assert!((&wide * &wide * &wide).is_overflow());
}

#[test]
fn evaluation_is_checked() {
    let at = |n: i64| [("n", n)].into_iter().collect::<Bindings>();
    assert_eq!(e("(n + 1)//2").eval(&at(8)), Ok(4));
    assert_eq!(e("(n + 1)//2").eval(&Bindings::new()), Err(EvalError::Unbound("n".into())));
    assert!(matches!(e("n*n").eval(&at(i64::MAX / 2)), Err(EvalError::Overflow(_))));
    assert!(matches!(e("1//(n - 8)").eval(&at(8)), Err(EvalError::DivisionByZero(_))));
}

#[test]
fn substitution() {
    let to_8 = |s: &Sym| (s.as_str() == "n").then(|| Expr::from(8));
    assert_eq!(e("(n*m + 1)//2").substitute(&to_8), e("4*m"));
    assert_eq!(e("n*m").symbols().len(), 2);
}

#[test]
fn hostile_text_is_an_error_with_a_place() {
    for text in ["", "(", "1 +", "a b", "99999999999999999999", "1/2", "max(1)", "é", "a**b"] {
        assert!(text.parse::<Expr>().is_err(), "{text}");
    }
    assert!("(".repeat(1 << 20).parse::<Expr>().is_err());
    assert!(format!("{}1", "-".repeat(1 << 20)).parse::<Expr>().is_ok());
    let error = "batch + )".parse::<Expr>().unwrap_err();
    assert_eq!(error.to_string(), "expected a number, a name or `(` at character 8 of the expression `batch + )`");
}

/// The same arithmetic without canonical form.
#[derive(Debug, Clone)]
enum Tree {
    Const(i64),
    Sym(&'static str),
    Op(char, Box<Tree>, Box<Tree>),
}

impl Tree {
    fn expr(&self) -> Expr {
        match self {
            Self::Const(n) => Expr::from(*n),
            Self::Sym(s) => Expr::sym(s),
            Self::Op(op, a, b) => {
                let (a, b) = (a.expr(), b.expr());
                match op {
                    '+' => a + b,
                    '-' => a - b,
                    '*' => a * b,
                    '/' => a.floor_div(&b),
                    '%' => a.modulo(&b),
                    '>' => a.maximum(&b),
                    _ => a.minimum(&b),
                }
            }
        }
    }

    fn eval(&self, n: i64, m: i64) -> Option<i64> {
        Some(match self {
            Self::Const(c) => *c,
            Self::Sym("n") => n,
            Self::Sym(_) => m,
            Self::Op(op, a, b) => {
                let (a, b) = (a.eval(n, m)?, b.eval(n, m)?);
                match op {
                    '+' => a.checked_add(b)?,
                    '-' => a.checked_sub(b)?,
                    '*' => a.checked_mul(b)?,
                    '/' => floor_div_mod(a, b)?.0,
                    '%' => floor_div_mod(a, b)?.1,
                    '>' => a.max(b),
                    _ => a.min(b),
                }
            }
        })
    }
}

fn trees() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![(-9i64..40).prop_map(Tree::Const), Just(Tree::Sym("n")), Just(Tree::Sym("m"))];
    leaf.prop_recursive(4, 24, 2, |inner| {
        (prop::sample::select(vec!['+', '-', '*', '/', '%', '>', '<']), inner.clone(), inner)
            .prop_map(|(op, a, b)| Tree::Op(op, Box::new(a), Box::new(b)))
    })
}

proptest! {
    #[test]
    fn canonical_form_keeps_the_value(tree in trees(), n in 1i64..40, m in 1i64..40) {
        if let (Some(want), Ok(got)) = (tree.eval(n, m), tree.expr().eval(&[("n", n), ("m", m)].into_iter().collect())) {
            prop_assert_eq!(want, got, "{}", tree.expr());
        }
    }

    #[test]
    fn text_round_trips(tree in trees()) {
        let expr = tree.expr();
        prop_assert_eq!(&expr.to_string().parse::<Expr>().unwrap(), &expr);
    }

    /// What metadata say of a dimension is the printed expression, which programs without the
    /// compiler evaluate.
    #[test]
    fn a_printed_size_is_evaluated_alike_everywhere(tree in trees(), n in 1i64..40, m in 1i64..40) {
        let values = [("n", n), ("m", m)];
        let point = values.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        let size = tree.expr().eval(&values.into_iter().collect()).ok().filter(|size| *size >= 0);
        prop_assert_eq!(Dim::Expr(tree.expr().to_string()).at(&point).ok(), size, "{}", tree.expr());
    }

    #[test]
    fn bounds_hold(tree in trees(), n in 1i64..40, m in 1i64..40) {
        let dims = [GraphDim { sym: "n".into(), min: 1, max: 40, hint: None }, GraphDim { sym: "m".into(), min: 1, max: 40, hint: None }];
        let (low, high) = tree.expr().bounds(&dims);
        if let Ok(value) = tree.expr().eval(&[("n", n), ("m", m)].into_iter().collect()) {
            prop_assert!(low <= value && value <= high, "{} = {value} not in {low}..={high}", tree.expr());
        }
    }

    #[test]
    fn any_text_parses_or_fails(text in "[0-9nm()*/%+, -]{0,40}") {
        let _ = text.parse::<Expr>();
    }
}
