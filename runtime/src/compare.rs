//! Whether a result is right: the one comparison of the farm's check, `run --check`, `pull --check` and `diff`.

use std::fmt;

use aotfarm_protocol::{DType, Precision};

use crate::tensor::TensorRef;

/// How a tensor differs from what it should be.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// `‖got - expected‖ / ‖expected‖` in f64 over the elements that are finite, or `‖got‖` where those expected are all 0;
    /// infinite when one of two is not finite and the other is something else.
    pub error: f64,
    /// The largest error that is right: 0 for integers and Bool, which must be equal.
    pub tolerance: f64,
    /// The element that is off by most; `None` when all are equal.
    pub worst: Option<Worst>,
}

/// An element that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worst {
    /// Its position.
    pub index: Vec<i64>,
    /// As it is.
    pub got: String,
    /// As it should be.
    pub expected: String,
}

/// Tensors of different types or shapes have no difference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("is {got}, expected {expected}")]
pub struct Mismatch {
    /// `f32[1, 3]`.
    pub got: String,
    /// `f32[1, 4]`.
    pub expected: String,
}

impl Difference {
    /// Whether rounding explains it.
    pub fn is_right(&self) -> bool {
        self.worst.is_none() || (self.tolerance > 0.0 && self.error <= self.tolerance)
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(Worst { index, got, expected }) = &self.worst else { return f.write_str("equal") };
        let verdict = if self.is_right() { "within" } else { "exceeds" };
        write!(
            f,
            "relative L2 error {:.2e} {verdict} {:.1e}; at {index:?} it is {got}, expected {expected}",
            self.error, self.tolerance
        )
    }
}

/// The largest relative L2 error of a tensor of `dtype` that rounding explains, where `computed` is that of the computation.
fn allowed(dtype: DType, computed: f64) -> f64 {
    match dtype {
        DType::F16 => computed.max(Precision::Fp16.tolerance()),
        DType::Bf16 => computed.max(Precision::Bf16.tolerance()),
        DType::F32 | DType::F64 => computed,
        DType::I8 | DType::I16 | DType::I32 | DType::I64 | DType::U8 | DType::Bool => 0.0,
    }
}

/// Compares a result with what it should be. `tolerance` is the relative L2 error that the model's
/// [precision](Precision::tolerance) explains; results in a narrower type may differ by its rounding. NaN equals NaN, and an
/// infinity the one of its sign.
///
/// # Errors
/// When the types or shapes differ.
pub fn compare(got: TensorRef<'_>, expected: TensorRef<'_>, tolerance: f64) -> Result<Difference, Mismatch> {
    let dtype = got.dtype();
    if (dtype, got.shape()) != (expected.dtype(), expected.shape()) {
        let describe = |t: TensorRef<'_>| format!("{}{:?}", t.dtype(), t.shape());
        return Err(Mismatch { got: describe(got), expected: describe(expected) });
    }
    let pairs = got.bytes().chunks_exact(dtype.size()).zip(expected.bytes().chunks_exact(dtype.size()));
    let (mut square, mut norm, mut most) = (0.0, 0.0, None::<(usize, f64)>);
    for (at, (a, b)) in pairs.enumerate() {
        let (a, b) = (Element::read(dtype, a), Element::read(dtype, b));
        let off = a.distance(b);
        square += off * off;
        norm += b.square_if_finite();
        if off > most.map_or(0.0, |(_, off)| off) {
            most = Some((at, off));
        }
    }
    let worst = most.map(|(at, _)| {
        let element = |t: TensorRef<'_>| Element::read(dtype, &t.bytes()[at * dtype.size()..(at + 1) * dtype.size()]).text(dtype);
        Worst { index: position(at, got.shape()), got: element(got), expected: element(expected) }
    });
    let error: f64 = if norm > 0.0 { (square / norm).sqrt() } else { square.sqrt() };
    Ok(Difference { error, tolerance: allowed(dtype, tolerance), worst })
}

/// The position of an element by its place in row-major order.
fn position(mut at: usize, shape: &[i64]) -> Vec<i64> {
    let mut index = vec![0; shape.len()];
    for (i, n) in index.iter_mut().zip(shape).rev() {
        // A tensor with an element has no dimension of size 0.
        let n = n.unsigned_abs() as usize;
        *i = (at % n) as i64;
        at /= n;
    }
    index
}

#[derive(Clone, Copy)]
enum Element {
    Float(f64),
    Int(i64),
}

impl Element {
    fn read(dtype: DType, b: &[u8]) -> Self {
        match (dtype, b) {
            (DType::F16, &[a, b]) => Self::Float(half::f16::from_le_bytes([a, b]).to_f64()),
            (DType::Bf16, &[a, b]) => Self::Float(half::bf16::from_le_bytes([a, b]).to_f64()),
            (DType::F32, &[a, b, c, d]) => Self::Float(f32::from_le_bytes([a, b, c, d]).into()),
            (DType::F64, &[a, b, c, d, e, f, g, h]) => Self::Float(f64::from_le_bytes([a, b, c, d, e, f, g, h])),
            (DType::I8, &[a]) => Self::Int((a as i8).into()),
            (DType::I16, &[a, b]) => Self::Int(i16::from_le_bytes([a, b]).into()),
            (DType::I32, &[a, b, c, d]) => Self::Int(i32::from_le_bytes([a, b, c, d]).into()),
            (DType::I64, &[a, b, c, d, e, f, g, h]) => Self::Int(i64::from_le_bytes([a, b, c, d, e, f, g, h])),
            (DType::U8 | DType::Bool, &[a]) => Self::Int(a.into()),
            _ => unreachable!("an element of {dtype} has {} bytes", dtype.size()),
        }
    }

    /// How far apart two elements of one type are: infinitely, when they are not of one kind.
    fn distance(self, other: Self) -> f64 {
        match (self, other) {
            (Self::Float(a), Self::Float(b)) if a == b || (a.is_nan() && b.is_nan()) => 0.0,
            (Self::Float(a), Self::Float(b)) if a.is_finite() && b.is_finite() => (a - b).abs(),
            (Self::Int(a), Self::Int(b)) => (i128::from(a) - i128::from(b)).unsigned_abs() as f64,
            _ => f64::INFINITY,
        }
    }

    /// With as many digits as tell it from its neighbours.
    fn text(self, dtype: DType) -> String {
        match self {
            Self::Float(x) if dtype == DType::F64 => format!("{x:?}"),
            Self::Float(x) => format!("{:?}", x as f32),
            Self::Int(n) => n.to_string(),
        }
    }

    fn square_if_finite(self) -> f64 {
        match self {
            Self::Float(x) if x.is_finite() => x * x,
            Self::Float(_) => 0.0,
            Self::Int(n) => (n as f64) * (n as f64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tensor;

    fn floats(values: &[f32]) -> Tensor {
        Tensor::from_f32(vec![values.len() as i64], values).unwrap()
    }

    fn of(got: &Tensor, expected: &Tensor) -> Difference {
        compare(got.view(), expected.view(), Precision::Fp32.tolerance()).unwrap()
    }

    #[test]
    fn the_error_is_that_of_the_norms_and_the_worst_element_is_named() {
        let difference = of(&floats(&[3.0, 9.0, 0.0]), &floats(&[3.0, 4.0, 0.0]));
        assert_eq!((difference.error, difference.is_right()), (1.0, false));
        let said = "relative L2 error 1.00e0 exceeds 1.0e-5; at [1] it is 9.0, expected 4.0";
        assert_eq!(difference.to_string(), said);
        let close = of(&floats(&[1.0, 1.000001]), &floats(&[1.0, 1.0]));
        assert!(close.is_right() && close.worst.is_some(), "{close}");
        assert_eq!(of(&floats(&[]), &floats(&[])).to_string(), "equal");
    }

    #[test]
    fn nan_is_nan_and_an_infinity_is_the_one_of_its_sign() {
        let all = floats(&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1.0]);
        assert_eq!(of(&all, &all), Difference { error: 0.0, tolerance: 1e-5, worst: None });
        for (got, expected) in [
            (f32::NAN, 1.0),
            (1.0, f32::NAN),
            (f32::INFINITY, f32::NEG_INFINITY),
            (f32::MAX, f32::INFINITY),
            (f32::NAN, f32::INFINITY),
        ] {
            let difference = of(&floats(&[got, 2.0]), &floats(&[expected, 2.0]));
            assert!(difference.error.is_infinite() && !difference.is_right(), "{got} for {expected}: {difference}");
            assert_eq!(difference.worst.unwrap().index, [0]);
        }
        // What is not finite on both sides hides nothing beside it.
        assert!(!of(&floats(&[f32::INFINITY, 1.0]), &floats(&[f32::INFINITY, 2.0])).is_right());
    }

    #[test]
    fn zeros_are_compared_by_what_is_there_instead() {
        assert!(of(&floats(&[1e-7]), &floats(&[0.0])).is_right());
        assert!(!of(&floats(&[1e-3]), &floats(&[0.0])).is_right());
        assert!(of(&floats(&[-0.0]), &floats(&[0.0])).worst.is_none());
    }

    #[test]
    fn integers_are_equal_or_wrong_however_large_they_are() {
        let ints = |v: i64| Tensor::new(DType::I64, vec![1, 1], v.to_le_bytes()).unwrap();
        let off_by_one = of(&ints((1 << 53) + 1), &ints(1 << 53));
        assert!(!off_by_one.is_right());
        assert_eq!(off_by_one.worst.unwrap().got, "9007199254740993");
        assert!(of(&ints(i64::MIN), &ints(i64::MIN)).is_right() && !of(&ints(i64::MIN), &ints(i64::MAX)).is_right());
    }

    #[test]
    fn halves_may_differ_by_their_rounding() {
        let halves = |v: f32| Tensor::new(DType::F16, vec![1], half::f16::from_f32(v).to_le_bytes()).unwrap();
        assert!(of(&halves(1.001), &halves(1.0)).is_right());
        assert!(!of(&halves(1.1), &halves(1.0)).is_right());
    }

    #[test]
    fn other_shapes_and_types_are_no_difference() {
        let error = compare(floats(&[1.0]).view(), floats(&[1.0, 2.0]).view(), 1e-5).unwrap_err();
        assert_eq!(error.to_string(), "is f32[1], expected f32[2]");
    }
}
