//! Symbolic dimensions: their names, their values in a run, and the sizes that a model accepts.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Largest size of one dimension.
pub const MAX_SIZE: i64 = 1 << 40;

/// The name of a symbolic dimension. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sym(Arc<str>);

impl Sym {
    /// A symbol. Characters other than ASCII letters, digits, `_` and `.` become `_` (names of foreign files may hold anything),
    /// and a name that does not start with a letter or `_` gets a leading `_`.
    pub fn new(name: &str) -> Self {
        let mut text: String =
            name.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '_' | '.') { c } else { '_' }).collect();
        if !text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
            text.insert(0, '_');
        }
        Self(text.into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Sym {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

impl Borrow<str> for Sym {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Sym {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Sym {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Values of symbols.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bindings(BTreeMap<Sym, i64>);

impl Bindings {
    /// No symbols.
    pub fn new() -> Self {
        Self::default()
    }

    /// Binds a symbol, and gives its former value.
    pub fn insert(&mut self, sym: Sym, value: i64) -> Option<i64> {
        self.0.insert(sym, value)
    }

    /// The value of a symbol.
    pub fn get(&self, sym: &str) -> Option<i64> {
        self.0.get(sym).copied()
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&Sym, i64)> {
        self.0.iter().map(|(sym, value)| (sym, *value))
    }
}

impl<S: Into<Sym>> FromIterator<(S, i64)> for Bindings {
    fn from_iter<I: IntoIterator<Item = (S, i64)>>(pairs: I) -> Self {
        Self(pairs.into_iter().map(|(sym, value)| (sym.into(), value)).collect())
    }
}

/// A symbolic dimension of the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GraphDim {
    /// Its symbol.
    pub sym: Sym,
    /// Smallest size; 0 where the dimension may be empty.
    pub min: i64,
    /// Largest size.
    pub max: i64,
    /// A typical size (the exporter's example input), when known.
    pub hint: Option<i64>,
}

impl fmt::Display for GraphDim {
    /// `batch = 1..32 hint 8`, as in the text form.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}..{}", self.sym, self.min, self.max)?;
        self.hint.map_or(Ok(()), |hint| write!(f, " hint {hint}"))
    }
}

impl GraphDim {
    /// Checks that the range is usable and holds the typical size. The error says what is wrong.
    pub(crate) fn check(&self) -> Result<(), String> {
        let Self { min, max, hint, .. } = *self;
        if min < 0 || min > max || max > MAX_SIZE {
            return Err(format!("the range {min}..{max} is not within 0..{MAX_SIZE}"));
        }
        if max == 0 {
            return Err("the range 0..0 holds no size but 0; raise its upper end".to_owned());
        }
        match hint {
            Some(hint) if hint < min || hint > max => Err(format!("the typical size {hint} is outside the range {min}..{max}")),
            _ => Ok(()),
        }
    }
}
