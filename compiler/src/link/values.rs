//! The sizes that an artifact computes at run time.

use indexmap::IndexSet;

use super::error::LinkError;
use aotfarm_ir::{Expr, GraphDim, Sym};

/// Distinct sizes in the order of first use.
pub(super) struct Values {
    dims: Vec<GraphDim>,
    exprs: IndexSet<Expr>,
}

impl Values {
    pub(super) fn new(dims: Vec<GraphDim>) -> Self {
        Self { dims, exprs: IndexSet::new() }
    }

    /// The symbolic dimensions in the plan's order.
    pub(super) fn dims(&self) -> &[GraphDim] {
        &self.dims
    }

    /// The index of a size. It must be bounded for all allowed values of the symbols, so that the artifact computes it without overflow.
    pub(super) fn index(&mut self, expr: &Expr, what: impl Fn() -> String) -> Result<u32, LinkError> {
        if let Some(known) = self.exprs.get_index_of(expr) {
            return Ok(known as u32);
        }
        self.largest(expr, what)?;
        Ok(self.exprs.insert_full(expr.clone()).0 as u32)
    }

    /// An upper bound of a size over all allowed values of the symbols.
    pub(super) fn largest(&self, expr: &Expr, what: impl Fn() -> String) -> Result<i64, LinkError> {
        if let Some(sym) = expr.symbols().into_iter().find(|sym| !self.dims.iter().any(|d| d.sym == *sym)) {
            return Err(LinkError::Plan(format!("{} uses the unknown symbol `{sym}`", what())));
        }
        match expr.bounds(&self.dims) {
            (_, i64::MAX) | (i64::MIN, _) => Err(LinkError::Unbounded { what: what(), expr: expr.to_string() }),
            (_, largest) => Ok(largest),
        }
    }

    /// Whether any size depends on a symbol.
    pub(super) fn uses(&self, sym: &Sym) -> bool {
        self.exprs.iter().any(|expr| expr.symbols().contains(sym))
    }

    pub(super) fn len(&self) -> usize {
        self.exprs.len()
    }

    /// The C function that computes all of them.
    pub(super) fn print(&self) -> String {
        let spell = |sym: &Sym| match self.dims.iter().position(|d| d.sym == *sym) {
            Some(i) => format!("s[{i}]"),
            None => unreachable!("`index` refuses unknown symbols"),
        };
        let lines: String = self.exprs.iter().enumerate().map(|(i, e)| format!("    v[{i}] = {};\n", e.to_c(&spell))).collect();
        format!("static void glue_values(const int64_t *s, int64_t *v) {{\n    (void)s, (void)v;\n{lines}}}\n")
    }
}
