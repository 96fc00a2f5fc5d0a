//! The sizes of a kernel that are known only at run time.

use aotfarm_ir::Expr;

use crate::spec::{Index, Size};

/// The symbolic sizes of one kernel, in the order of its `dim`s.
#[derive(Debug, Default)]
pub(super) struct Dims(pub(super) Vec<Expr>);

impl Dims {
    /// The kernel's name for a size.
    pub(super) fn size(&mut self, size: &Expr) -> Size {
        if let Some(n) = size.as_const() {
            return Size::Const(n);
        }
        let at = self.0.iter().position(|known| known == size).unwrap_or_else(|| {
            self.0.push(size.clone());
            self.0.len() - 1
        });
        Size::Dim(at)
    }

    pub(super) fn index(&mut self, size: &Expr) -> Index {
        match self.size(size) {
            Size::Const(n) => Index::Const(n),
            Size::Dim(k) => Index::Dim(k),
        }
    }
}
