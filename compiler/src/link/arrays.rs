//! Constant arrays in C.

use std::fmt::Display;
use std::hash::Hash;

use indexmap::IndexMap;

/// Lists that are stored once in one C array, and are referred to by where they start.
pub(super) struct Pool<T> {
    name: &'static str,
    lists: IndexMap<Vec<T>, usize>,
    len: usize,
}

impl<T: Copy + Eq + Hash + Display> Pool<T> {
    pub(super) fn new(name: &'static str) -> Self {
        Self { name, lists: IndexMap::new(), len: 0 }
    }

    /// A C expression that points to the list; NULL for none.
    pub(super) fn add(&mut self, list: &[T]) -> String {
        if list.is_empty() {
            return "NULL".into();
        }
        let start = *self.lists.entry(list.to_vec()).or_insert_with(|| {
            self.len += list.len();
            self.len - list.len()
        });
        format!("{} + {start}", self.name)
    }

    pub(super) fn print(&self, ty: &str, suffix: &str) -> String {
        let lists = self.lists.keys().map(|list| list.iter().map(|n| format!("{n}{suffix}, ")).collect());
        array(ty, self.name, lists)
    }
}

/// A constant array with one line for each of `rows`. C has no empty arrays: one element that nothing refers to stands for none.
pub(super) fn array(ty: &str, name: &str, rows: impl Iterator<Item = String>) -> String {
    let rows: String = rows.map(|row| format!("    {},\n", row.trim_end_matches([' ', ',']))).collect();
    if rows.is_empty() {
        format!("static const {ty} {name}[1] __attribute__((unused));\n")
    } else {
        format!("static const {ty} {name}[] = {{\n{rows}}};\n")
    }
}
