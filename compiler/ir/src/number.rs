//! Numbers that constants hold.

use std::fmt;
use std::str::FromStr;

use aotfarm_protocol::DType;
use half::{bf16, f16};

use crate::array::wrap;

/// A number of a constant, exact for every element type.
///
/// Integers that f64 does not hold stay integers; all other numbers are held as f64, so that equal numbers are equal values and
/// have one text, whatever they were made of.
#[derive(Clone, Copy, PartialEq)]
pub struct Number(Held);

#[derive(Clone, Copy, PartialEq)]
enum Held {
    Float(f64),
    /// One that no f64 is.
    Int(i64),
}

impl Number {
    /// 0, which is also false.
    pub const ZERO: Self = Self::float(0.0);
    /// 1, which is also true.
    pub const ONE: Self = Self::float(1.0);

    /// A floating-point number.
    pub const fn float(value: f64) -> Self {
        Self(Held::Float(value))
    }

    /// The first element of a tensor's bytes, little-endian; `None` when there are too few.
    pub fn read(dtype: DType, bytes: &[u8]) -> Option<Self> {
        let element = bytes.get(..dtype.size())?;
        Some(match dtype {
            DType::F32 => f64::from(f32::from_le_bytes(element.try_into().ok()?)).into(),
            DType::F64 => f64::from_le_bytes(element.try_into().ok()?).into(),
            DType::F16 => f16::from_le_bytes(element.try_into().ok()?).to_f64().into(),
            DType::Bf16 => bf16::from_le_bytes(element.try_into().ok()?).to_f64().into(),
            DType::I8 => i64::from(i8::from_le_bytes(element.try_into().ok()?)).into(),
            DType::U8 => i64::from(element[0]).into(),
            DType::Bool => (element[0] != 0).into(),
            DType::I16 => i64::from(i16::from_le_bytes(element.try_into().ok()?)).into(),
            DType::I32 => i64::from(i32::from_le_bytes(element.try_into().ok()?)).into(),
            DType::I64 => i64::from_le_bytes(element.try_into().ok()?).into(),
        })
    }

    /// The nearest f64.
    pub const fn to_f64(self) -> f64 {
        match self.0 {
            Held::Float(value) => value,
            Held::Int(value) => value as f64,
        }
    }

    /// The number itself, if f64 holds it.
    pub const fn as_f64(self) -> Option<f64> {
        match self.0 {
            Held::Float(value) => Some(value),
            Held::Int(_) => None,
        }
    }

    /// Rounded toward zero, to the nearest end of i64, and NaN to zero.
    pub const fn to_i64(self) -> i64 {
        match self.0 {
            Held::Float(value) => value as i64,
            Held::Int(value) => value,
        }
    }

    /// The number that an element of that type is made of it: for integers it is cut, and wraps around.
    pub fn of_type(self, dtype: DType) -> Self {
        if dtype.is_float() { self } else { Self::from(wrap(dtype, self.to_i64())) }
    }

    /// Whether it is not a number.
    pub const fn is_nan(self) -> bool {
        matches!(self.0, Held::Float(value) if value.is_nan())
    }
}

impl From<f64> for Number {
    fn from(value: f64) -> Self {
        Self::float(value)
    }
}

impl From<i64> for Number {
    fn from(value: i64) -> Self {
        let near = value as f64;
        // Wider than i64, because 2⁶³ is the f64 nearest to its largest number.
        if near as i128 == i128::from(value) { Self::float(near) } else { Self(Held::Int(value)) }
    }
}

impl From<bool> for Number {
    fn from(value: bool) -> Self {
        Self::float(f64::from(u8::from(value)))
    }
}

impl PartialEq<f64> for Number {
    fn eq(&self, other: &f64) -> bool {
        *self == Self::float(*other)
    }
}

/// As f64 is printed, with a point or an exponent; an integer that no f64 is has neither.
impl fmt::Debug for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Held::Float(value) => write!(f, "{value:?}"),
            Held::Int(value) => write!(f, "{value}"),
        }
    }
}

impl FromStr for Number {
    type Err = std::num::ParseFloatError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<i64>().map(Self::from).or_else(|_| text.parse::<f64>().map(Self::from))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_have_one_text_whatever_they_are_made_of() {
        for (number, text) in [
            (Number::from(3), "3.0"),
            (Number::from(3.0), "3.0"),
            (Number::from(true), "1.0"),
            (Number::from((1 << 53) + 1), "9007199254740993"),
            (Number::from(i64::MAX), "9223372036854775807"),
            (Number::from(i64::MIN), "-9.223372036854776e18"),
            (Number::from(f64::NEG_INFINITY), "-inf"),
        ] {
            assert_eq!(format!("{number:?}"), text);
            assert_eq!(text.parse::<Number>().unwrap(), number);
        }
        assert_eq!("5".parse::<Number>().unwrap(), 5.0);
        assert_ne!(Number::from(i64::MAX), Number::from(i64::MAX as f64));
        assert!("five".parse::<Number>().is_err());
    }

    #[test]
    fn integers_are_cut_and_kept_in_range() {
        for (value, wanted) in [(2.9, 2), (-2.9, -2), (f64::INFINITY, i64::MAX), (-1e300, i64::MIN), (f64::NAN, 0)] {
            assert_eq!(Number::from(value).to_i64(), wanted);
        }
    }

    proptest! {
        #[test]
        fn every_integer_is_exact(value: i64) {
            let number = Number::from(value);
            prop_assert_eq!(number.to_i64(), value);
            prop_assert_eq!(format!("{:?}", number).parse::<Number>().unwrap(), number);
        }
    }
}
