//! Names of symbolic dimensions. Files call them as their exporter pleased (`s77`, `batch_size`, `unk__0`); the graph's names are
//! identifiers, and the first dimension of the first input that has one is `batch`, because torch does not keep the user's names.

use std::collections::{HashMap, HashSet};

use aotfarm_ir::{BuildError, Builder, Expr, Graph, Sym, verify};

/// The name of the dimension that most models are called with many of.
const BATCH: &str = "batch";
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

/// The smallest size of a range that torch gives for "any size": it never exports the sizes 0 and 1 as part of a range.
const SPECIALISED: i64 = 2;

/// The dimensions declared so far, by their names in the file.
#[derive(Debug, Default)]
pub(crate) struct Symbols {
    known: HashMap<String, Expr>,
    /// Our names of them.
    taken: HashSet<String>,
    has_batch: bool,
    unwidened: bool,
    equal: HashMap<Sym, Expr>,
}

impl Symbols {
    /// No dimensions yet, of a file that names these: one that it calls `batch` itself keeps the name.
    pub(crate) fn of_file<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let has_batch = names.into_iter().any(|name| identifier(name) == BATCH);
        Self { has_batch, ..Self::default() }
    }

    /// With ranges as the file gives them: from 2 where it says so.
    pub(crate) fn unwidened(self) -> Self {
        Self { unwidened: true, ..self }
    }

    /// With dimensions that are no new ones, but dimensions declared before them or constants.
    pub(crate) fn with_equal(self, equal: HashMap<Sym, Expr>) -> Self {
        Self { equal, ..self }
    }

    /// The dimension of that name in the file.
    pub(crate) fn get(&self, name: &str) -> Option<&Expr> {
        self.known.get(name)
    }

    /// The dimension of that name in the file, declared now if it is new; `axis` is where it is met.
    ///
    /// # Errors
    /// When the range is not one.
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
        let expr = self.unnamed(builder, name, axis, declared)?;
        self.known.insert(name.to_owned(), expr.clone());
        Ok(expr)
    }

    /// A dimension that the file does not name, so that nothing else is it; `name` is the one that it gets.
    ///
    /// # Errors
    /// When the range is not one.
    pub(crate) fn unnamed(
        &mut self,
        builder: &mut Builder,
        name: &str,
        axis: usize,
        declared: Declared,
    ) -> Result<Expr, BuildError> {
        let Declared { min, max, hint } = declared;
        let min = min.map_or(1, |min| if min == SPECIALISED && !self.unwidened { 1 } else { min.max(1) });
        let max = max.filter(|max| *max < NO_BOUND).unwrap_or(UNBOUNDED).max(min);
        let hint = hint.filter(|hint| (min..=max).contains(hint));
        let ours = if axis == 0 && !self.has_batch { BATCH.to_owned() } else { identifier(name) };
        let ours = self.unique(&ours);
        self.has_batch |= ours == BATCH;
        match self.equal.get(ours.as_str()) {
            Some(same) => Ok(same.clone()),
            None => builder.dim(ours.as_str(), min, max, hint),
        }
    }

    /// The name, with a number behind it where another dimension has it already.
    fn unique(&mut self, name: &str) -> String {
        let mut free = name.to_owned();
        for n in 1.. {
            if self.taken.insert(free.clone()) {
                break;
            }
            free = format!("{name}_{n}");
        }
        free
    }
}

/// The graph with ranges that start at 1 where they started at 2 and the model holds at 1.
pub(crate) fn widened(mut graph: Graph) -> Graph {
    for at in (0..graph.dims.len()).filter(|at| graph.dims[*at].min == SPECIALISED).collect::<Vec<_>>() {
        graph.dims[at].min = 1;
        if verify(&graph).is_err() {
            graph.dims[at].min = SPECIALISED;
        }
    }
    graph
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
        assert_eq!(name("seq_len", 1), "seq_len_1", "another name of the file is another dimension");
    }

    #[test]
    fn a_dimension_that_the_file_calls_batch_keeps_the_name() {
        let (mut builder, mut symbols) = (Builder::new("m"), Symbols::of_file(["n", "batch"]));
        let mut name = |file: &str, axis| {
            let expr = symbols.declare(&mut builder, file, axis, Declared::default()).unwrap();
            expr.as_sym().unwrap().as_str().to_owned()
        };
        assert_eq!([name("n", 0), name("batch", 1)], ["n", "batch"]);
    }

    #[test]
    fn unnamed_dimensions_are_none_that_the_file_names() {
        let (mut builder, mut symbols) = (Builder::new("m"), Symbols::default());
        let named = symbols.declare(&mut builder, "x_1", 1, Declared::default()).unwrap();
        let unnamed = symbols.unnamed(&mut builder, "x_1", 1, Declared::default()).unwrap();
        assert_ne!(named, unnamed);
        let equal = [(Sym::new("x_1_1"), Expr::sym("x_1"))].into();
        let (mut builder, mut symbols) = (Builder::new("m"), Symbols::default().with_equal(equal));
        let named = symbols.declare(&mut builder, "x_1", 1, Declared::default()).unwrap();
        let unnamed = symbols.unnamed(&mut builder, "x_1", 1, Declared::default()).unwrap();
        assert_eq!((named, builder.graph().dims.len()), (unnamed, 1));
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
