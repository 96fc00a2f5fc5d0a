//! Names of symbolic dimensions. Files call them as their exporter pleased (`s77`, `batch_size`, `unk__0`); the graph's names are
//! identifiers, and the first dimension of the first input that has one is `batch`, because torch does not keep the user's names.

use std::collections::HashMap;

use aotfarm_ir::{BuildError, Builder, Expr};

/// Largest size of a dimension for which the file gives none.
const UNBOUNDED: i64 = 1024;
/// Upper ends from here on are no bound.
const NO_BOUND: i64 = 1 << 40;

/// What of a dimension a file tells.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Declared {
    pub(crate) min: Option<i64>,
    pub(crate) max: Option<i64>,
    pub(crate) hint: Option<i64>,
}

/// The dimensions declared so far, by their names in the file.
#[derive(Debug, Default)]
pub(crate) struct Symbols {
    known: HashMap<String, Expr>,
    has_batch: bool,
}

impl Symbols {
    /// The dimension of that name in the file.
    pub(crate) fn get(&self, name: &str) -> Option<&Expr> {
        self.known.get(name)
    }

    /// The dimension of that name in the file, declared now if it is new; `axis` is where it is met.
    ///
    /// # Errors
    /// When the range is not one, or the name is taken.
    pub(crate) fn declare(
        &mut self,
        builder: &mut Builder,
        name: &str,
        axis: usize,
        declared: Declared,
    ) -> Result<Expr, BuildError> {
        if let Some(known) = self.known.get(name) {
            return Ok(known.clone());
        }
        let Declared { min, max, hint } = declared;
        // torch never exports the sizes 0 and 1 as part of a range, so a range from 2 is taken to start at 1.
        let min = min.map_or(1, |min| if min == 2 { 1 } else { min.max(1) });
        let max = max.filter(|max| *max < NO_BOUND).unwrap_or(UNBOUNDED).max(min);
        let hint = hint.filter(|hint| (min..=max).contains(hint));
        let ours = if axis == 0 && !self.has_batch { "batch".to_owned() } else { identifier(name) };
        let expr = builder.dim(ours.as_str(), min, max, hint)?;
        // A dimension that the file itself calls `batch` takes the name, too.
        self.has_batch |= expr.as_sym().is_some_and(|sym| sym.as_str() == "batch");
        self.known.insert(name.to_owned(), expr.clone());
        Ok(expr)
    }
}

/// A name made an identifier: `2*n` becomes `dim_2_n`.
fn identifier(name: &str) -> String {
    let clean: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if clean.starts_with(|c: char| c.is_ascii_alphabetic()) { clean } else { format!("dim_{clean}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_leading_dimension_is_the_batch() {
        let (mut builder, mut symbols) = (Builder::new("m"), Symbols::default());
        let mut name = |file: &str, axis| {
            let expr = symbols.declare(&mut builder, file, axis, Declared::default()).unwrap();
            expr.as_sym().unwrap().as_str().to_owned()
        };
        assert_eq!(name("s77", 1), "s77");
        assert_eq!(name("s0", 0), "batch");
        assert_eq!(name("s0", 1), "batch", "one name of the file is one dimension");
        assert_eq!(name("seq len", 0), "seq_len");
        assert_eq!(name("2*n", 1), "dim_2_n");
    }

    #[test]
    fn ranges_are_open_where_the_file_gives_none() {
        let (mut builder, mut symbols) = (Builder::new("m"), Symbols::default());
        let ranges = [
            (Declared::default(), (1, 1024, None)),
            (Declared { min: Some(2), max: Some(32), hint: Some(2) }, (1, 32, Some(2))),
            (Declared { min: Some(3), max: Some(i64::MAX), hint: Some(2000) }, (3, 1024, None)),
        ];
        for (n, (declared, _)) in ranges.iter().enumerate() {
            symbols.declare(&mut builder, &format!("d{n}"), 1, *declared).unwrap();
        }
        for (dim, (_, (min, max, hint))) in builder.graph().dims.iter().zip(ranges) {
            assert_eq!((dim.min, dim.max, dim.hint), (min, max, hint));
        }
    }
}
