//! Canonical text: what the keys of stored records are made of.
//!
//! The text of a value is fixed for good, whatever the compiler or the standard library does: it is written here and next to
//! each type, field by field. Changing it means that no stored record is found any more; the golden `task_keys.txt` of the
//! kernels shows such a change, which is the moment to raise `KEY_VERSION`.
//!
//! The grammar is that of Rust's literals: `Name { field: value, … }`, `Name(value, …)`, `[value, …]`, `Some(value)`, `None`.

use aotfarm_protocol::DType;

use super::{BinaryOp, Number, PoolOp, ReduceOp, UnaryOp, Window};

/// A value that has a canonical text.
pub trait Canonical {
    /// Appends the text to `out`.
    fn write(&self, out: &mut String);

    /// The text.
    fn canonical(&self) -> String {
        let mut text = String::new();
        self.write(&mut text);
        text
    }
}

/// Appends `Name { field: value, … }`.
pub fn record(out: &mut String, name: &str, fields: &[(&str, &dyn Canonical)]) {
    out.push_str(name);
    out.push_str(" { ");
    separated(out, fields, |out, (field, value)| {
        out.push_str(field);
        out.push_str(": ");
        value.write(out);
    });
    out.push_str(" }");
}

/// Appends `Name(value, …)`.
pub fn tuple(out: &mut String, name: &str, values: &[&dyn Canonical]) {
    out.push_str(name);
    out.push('(');
    separated(out, values, |out, value| value.write(out));
    out.push(')');
}

fn separated<T>(out: &mut String, items: &[T], write: impl Fn(&mut String, &T)) {
    for (n, item) in items.iter().enumerate() {
        if n > 0 {
            out.push_str(", ");
        }
        write(out, item);
    }
}

macro_rules! integers {
    ($($type:ty),*) => {$(
        impl Canonical for $type {
            fn write(&self, out: &mut String) {
                out.push_str(&self.to_string());
            }
        }
    )*};
}
integers!(i64, u32, usize);

impl Canonical for bool {
    fn write(&self, out: &mut String) {
        out.push_str(if *self { "true" } else { "false" });
    }
}

impl Canonical for f64 {
    /// The fewest digits that read back as the same number: with a point from 1e-4 up to 1e16, else with an exponent.
    fn write(&self, out: &mut String) {
        if self.is_nan() {
            return out.push_str("NaN");
        }
        if self.is_sign_negative() {
            out.push('-');
        }
        if self.is_infinite() {
            return out.push_str("inf");
        }
        // `1.25e-7`: the digits are the shortest ones, the exponent is that of the first.
        let text = format!("{:e}", self.abs());
        let (mantissa, exponent) = text.split_once('e').expect("the exponential form has an exponent");
        let exponent: i32 = exponent.parse().expect("an exponent is an integer");
        let magnitude = self.abs();
        if magnitude != 0.0 && !(1e-4..1e16).contains(&magnitude) {
            return out.push_str(&text);
        }
        let digits: String = mantissa.chars().filter(|c| *c != '.').collect();
        if exponent < 0 {
            out.push_str("0.");
            out.extend(std::iter::repeat_n('0', exponent.unsigned_abs() as usize - 1));
            out.push_str(&digits);
        } else {
            let whole = exponent as usize + 1;
            let (before, after) = digits.split_at(whole.min(digits.len()));
            out.push_str(before);
            out.extend(std::iter::repeat_n('0', whole.saturating_sub(digits.len())));
            out.push('.');
            out.push_str(if after.is_empty() { "0" } else { after });
        }
    }
}

impl Canonical for Number {
    fn write(&self, out: &mut String) {
        match self.as_f64() {
            Some(value) => value.write(out),
            None => self.to_i64().write(out),
        }
    }
}

impl<T: Canonical> Canonical for Option<T> {
    fn write(&self, out: &mut String) {
        match self {
            Some(value) => tuple(out, "Some", &[value]),
            None => out.push_str("None"),
        }
    }
}

impl<T: Canonical> Canonical for [T] {
    fn write(&self, out: &mut String) {
        out.push('[');
        separated(out, self, |out, item| item.write(out));
        out.push(']');
    }
}

impl<T: Canonical> Canonical for Vec<T> {
    fn write(&self, out: &mut String) {
        self.as_slice().write(out);
    }
}

impl<T: Canonical, const N: usize> Canonical for [T; N] {
    fn write(&self, out: &mut String) {
        self.as_slice().write(out);
    }
}

impl<T: Canonical> Canonical for Box<T> {
    fn write(&self, out: &mut String) {
        (**self).write(out);
    }
}

/// `gelu_tanh` as `GeluTanh`.
fn camel_case(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for word in name.split('_') {
        let mut letters = word.chars();
        text.extend(letters.next().map(|c| c.to_ascii_uppercase()));
        text.push_str(letters.as_str());
    }
    text
}

impl Canonical for DType {
    fn write(&self, out: &mut String) {
        out.push_str(&camel_case(self.name()));
    }
}

impl Canonical for UnaryOp {
    fn write(&self, out: &mut String) {
        let name = camel_case(self.name());
        let parameters = self.parameters();
        if parameters.is_empty() {
            return out.push_str(&name);
        }
        let fields: Vec<(&str, &dyn Canonical)> =
            parameters.iter().map(|(name, value)| (*name, value as &dyn Canonical)).collect();
        record(out, &name, &fields);
    }
}

impl Canonical for BinaryOp {
    fn write(&self, out: &mut String) {
        match self {
            Self::Max => out.push_str("Max"),
            Self::Min => out.push_str("Min"),
            _ => out.push_str(&camel_case(self.name())),
        }
    }
}

impl Canonical for ReduceOp {
    fn write(&self, out: &mut String) {
        out.push_str(&camel_case(self.name()));
    }
}

impl Canonical for PoolOp {
    fn write(&self, out: &mut String) {
        match self {
            Self::Max => out.push_str("Max"),
            Self::Avg { count_include_pad } => record(out, "Avg", &[("count_include_pad", count_include_pad)]),
        }
    }
}

impl Canonical for Window {
    fn write(&self, out: &mut String) {
        let Self { kernel, stride, pad, dilation } = self;
        let fields: &[(&str, &dyn Canonical)] = &[("kernel", kernel), ("stride", stride), ("pad", pad), ("dilation", dilation)];
        record(out, "Window", fields);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_have_these_texts() {
        let texts = [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (-2.5, "-2.5"),
            (0.1, "0.1"),
            (0.02, "0.02"),
            (1e-4, "0.0001"),
            (9.5e-5, "9.5e-5"),
            (1e-5, "1e-5"),
            (1e-12, "1e-12"),
            (123_456.75, "123456.75"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e16"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "NaN"),
        ];
        for (value, text) in texts {
            assert_eq!(value.canonical(), text);
        }
    }

    #[test]
    fn operators_have_these_texts() {
        assert_eq!(UnaryOp::GeluTanh.canonical(), "GeluTanh");
        assert_eq!(UnaryOp::Clamp { low: 0.0, high: 6.0 }.canonical(), "Clamp { low: 0.0, high: 6.0 }");
        assert_eq!(BinaryOp::FloorDiv.canonical(), "FloorDiv");
        assert_eq!(Some(PoolOp::Avg { count_include_pad: true }).canonical(), "Some(Avg { count_include_pad: true })");
        let window = Window { kernel: [3, 3], stride: [1, 2], pad: [[1, 1]; 2], dilation: [1, 1] };
        assert_eq!(window.canonical(), "Window { kernel: [3, 3], stride: [1, 2], pad: [[1, 1], [1, 1]], dilation: [1, 1] }");
        assert_eq!([DType::F32, DType::Bf16, DType::Bool].canonical(), "[F32, Bf16, Bool]");
    }

    /// Keys were made of the `Debug` text before this module was, so the records of those days have these texts.
    #[test]
    fn every_operator_keeps_the_text_that_its_records_have() {
        for op in UnaryOp::PLAIN {
            assert_eq!(op.canonical(), format!("{op:?}"));
        }
        for op in BinaryOp::ALL {
            assert_eq!(op.canonical(), format!("{op:?}"));
        }
        for op in ReduceOp::ALL {
            assert_eq!(op.canonical(), format!("{op:?}"));
        }
        for dtype in DType::ALL {
            assert_eq!(dtype.canonical(), format!("{dtype:?}"));
        }
        for op in
            [UnaryOp::Clamp { low: -1.5, high: f64::INFINITY }, UnaryOp::LeakyRelu { slope: 0.01 }, UnaryOp::Elu { alpha: 1.0 }]
        {
            assert_eq!(op.canonical(), format!("{op:?}"));
        }
    }

    proptest! {
        #[test]
        fn numbers_keep_the_text_that_their_records_have(bits in any::<u64>(), digits in 1..10_000i32, exponent in -30..30i32) {
            let short = f64::from(digits) * 10f64.powi(exponent);
            for value in [f64::from_bits(bits), short, -short, f64::from(short as f32)] {
                prop_assert_eq!(value.canonical(), format!("{value:?}"));
                prop_assert_eq!(Number::from(value).canonical(), format!("{value:?}"));
            }
            let integer = Number::from(bits as i64);
            prop_assert_eq!(integer.canonical(), format!("{integer:?}"));
        }
    }
}
