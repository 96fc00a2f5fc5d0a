//! Storages and the views of them: what an exported graph that still holds writes means.
//!
//! A tensor of such a graph is a chain of views over a storage. A read sees the storage's newest
//! contents through the chain; a write goes through the inverse of the chain to the storage, and so
//! reaches every other view of it. The graph that is made holds no write: each one makes new
//! contents, and what is read later is derived from those.

use aotfarm_ir::{Class, Def, Expr, Node, Op, ValueId};

use crate::semantics::{Emit, Result, view};

/// A tensor of the file: a view of a storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ViewId(usize);

/// Memory that views share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct StorageId(usize);

#[derive(Clone, Copy)]
struct Storage {
    contents: ValueId,
    /// How often it was written to.
    version: usize,
}

struct View {
    storage: StorageId,
    /// From the contents of the storage to the view; each takes one operand.
    chain: Vec<Op>,
    /// The view of the contents of a version.
    seen: (usize, ValueId),
}

/// All storages and views of a program.
#[derive(Default)]
pub(crate) struct Storages {
    storages: Vec<Storage>,
    views: Vec<View>,
}

impl Storages {
    /// A storage of its own with these contents, seen as a whole.
    pub(crate) fn own(&mut self, contents: ValueId) -> ViewId {
        let storage = StorageId(self.storages.len());
        self.storages.push(Storage { contents, version: 0 });
        self.view(View { storage, chain: Vec::new(), seen: (0, contents) })
    }

    /// A view of what `base` is a view of. `value` was derived from the present value of `base` by
    /// operators that only look at other places of it, which are read off the graph.
    ///
    /// # Errors
    /// When there is another operator in between.
    pub(crate) fn derive(&mut self, e: &Emit<'_>, base: ViewId, value: ValueId) -> Result<ViewId> {
        let View { storage, chain: before, seen: (version, from) } = &self.views[base.0];
        debug_assert_eq!(*version, self.storages[storage.0].version, "a view is derived from what was just read");
        let after = chain(e, *from, value)?;
        let view = View { storage: *storage, chain: [before.as_slice(), &after].concat(), seen: (*version, value) };
        Ok(self.view(view))
    }

    fn view(&mut self, view: View) -> ViewId {
        self.views.push(view);
        ViewId(self.views.len() - 1)
    }

    /// What a view is a view of.
    pub(crate) fn storage(&self, of: ViewId) -> StorageId {
        self.views[of.0].storage
    }

    /// How often what a view is of was written to.
    pub(crate) fn version(&self, of: ViewId) -> usize {
        self.storages[self.storage(of).0].version
    }

    /// What the view shows at present, derived anew if its storage was written to since.
    pub(crate) fn read(&mut self, e: &mut Emit<'_>, of: ViewId) -> Result<ValueId> {
        let View { storage, chain, seen } = &mut self.views[of.0];
        let Storage { contents, version } = self.storages[storage.0];
        if seen.0 != version {
            let value = chain.iter().try_fold(contents, |value, op| e.push(op.clone(), &[value]))?;
            *seen = (version, value);
        }
        Ok(seen.1)
    }

    /// What the view showed when it was last read.
    pub(crate) fn last_read(&self, of: ViewId) -> ValueId {
        self.views[of.0].seen.1
    }

    /// Writes `value`, which has the type of the view, through it.
    ///
    /// # Errors
    /// When one place of the storage is seen more than once.
    pub(crate) fn write(&mut self, e: &mut Emit<'_>, through: ViewId, value: ValueId) -> Result<()> {
        let View { storage, chain, .. } = &self.views[through.0];
        let Storage { contents, version } = self.storages[storage.0];
        let contents = replace(e, contents, chain, value)?;
        self.storages[storage.0] = Storage { contents, version: version + 1 };
        self.views[through.0].seen = (version + 1, value);
        Ok(())
    }
}

/// The operators that make `to` of `from`, each of which only looks at other places of its operand.
///
/// # Errors
/// When there is another operator in between.
pub(crate) fn chain(e: &Emit<'_>, from: ValueId, to: ValueId) -> Result<Vec<Op>> {
    let graph = e.builder.graph();
    let mut chain = Vec::new();
    let mut at = to;
    while at != from {
        let node = if let Def::Node(node) = graph.value(at).def { Some(&graph.nodes[node]) } else { None };
        let look = node.filter(|node| node.op.class() == Class::View && !matches!(node.op, Op::Pad { .. }));
        let (Some(Node { op, .. }), Some([operand])) = (look, look.map(|node| node.inputs.as_slice())) else {
            return Err("its result shares memory with its operand in a way that is not followed".into());
        };
        chain.push(op.clone());
        at = *operand;
    }
    chain.reverse();
    Ok(chain)
}

/// `base`, and in it `part` where `chain` looks.
pub(crate) fn replace(e: &mut Emit<'_>, base: ValueId, chain: &[Op], part: ValueId) -> Result<ValueId> {
    let Some((first, rest)) = chain.split_first() else { return Ok(part) };
    let part = if rest.is_empty() {
        part
    } else {
        let seen = e.push(first.clone(), &[base])?;
        replace(e, seen, rest, part)?
    };
    view::replace(e, base, first, part)
}

/// Whether elements of these sizes that lie at `strides` can be seen as a tensor of the sizes `new` without a copy
/// (`computeStride` of `aten/src/ATen/TensorUtils.cpp`). Symbolic sizes are taken not to be 1.
pub(crate) fn is_viewable(sizes: &[Expr], strides: &[Expr], new: &[Expr]) -> bool {
    let one = |size: &Expr| size.as_const() == Some(1);
    if sizes.iter().any(|size| size.as_const() == Some(0)) {
        return true;
    }
    let mut left = new.iter().rev().peekable();
    let mut innermost = strides.last().cloned().unwrap_or_else(Expr::one);
    let mut together = Expr::one();
    // Axes that lie one behind the other in memory make a block, which new axes must fill exactly.
    for (axis, size) in sizes.iter().enumerate().rev() {
        together = &together * size;
        let outer = axis.checked_sub(1);
        if outer.is_some_and(|outer| one(&sizes[outer]) || strides[outer] == &together * &innermost) {
            continue;
        }
        let mut filled = Expr::one();
        while left.peek().is_some_and(|size| filled != together || one(size)) {
            filled = filled * left.next().expect("it was peeked at");
        }
        if filled != together {
            return false;
        }
        if let Some(outer) = outer {
            innermost = strides[outer].clone();
            together = Expr::one();
        }
    }
    left.all(one)
}

/// Whether a tensor of these sizes lies in memory in the order `order` of its axes, outermost first, without gaps.
pub(crate) fn is_dense(sizes: &[Expr], strides: &[Expr], order: &[usize]) -> bool {
    if sizes.iter().any(|size| size.as_const() == Some(0)) {
        return true;
    }
    let mut expected = Expr::one();
    order.iter().rev().all(|&axis| {
        let fits = sizes[axis].as_const() == Some(1) || strides[axis] == expected;
        expected = &expected * &sizes[axis];
        fits
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exprs(text: &str) -> Vec<Expr> {
        text.split_whitespace().map(|size| size.parse().unwrap()).collect()
    }

    #[test]
    fn a_view_needs_axes_that_lie_together() {
        let viewable = |sizes, strides, new| is_viewable(&exprs(sizes), &exprs(strides), &exprs(new));
        assert!(viewable("2 3 4", "12 4 1", "6 4"));
        assert!(viewable("2 3 4", "12 4 1", "24"));
        assert!(viewable("n 3 4", "12 4 1", "n 12"));
        assert!(viewable("n 3 4", "12 4 1", "12*n"));
        assert!(viewable("n 4 3", "12 1 4", "n 2 2 3"), "an axis may be cut");
        assert!(!viewable("n 4 3", "12 1 4", "n 12"), "transposed axes cannot be merged");
        assert!(viewable("2 1 4", "4 99 1", "8"), "the stride of an axis of size 1 is of no account");
        assert!(viewable("n 4", "1 n", "n 4 1"));
        assert!(!viewable("4 n", "1 4", "4*n"));
        assert!(viewable("", "", "1 1"));
        assert!(!viewable("2 3", "6 1", "6"), "a slice has gaps");
        assert!(viewable("0 3", "1 7", "0"));
    }

    #[test]
    fn dense_is_a_matter_of_the_order() {
        let dense = |sizes, strides, order: &[usize]| is_dense(&exprs(sizes), &exprs(strides), order);
        assert!(dense("n 3 4", "12 4 1", &[0, 1, 2]));
        assert!(!dense("n 3 4", "12 1 3", &[0, 1, 2]));
        assert!(dense("n 8 5 5", "200 1 40 8", &[0, 2, 3, 1]));
        assert!(dense("1 8", "77 1", &[0, 1]));
    }
}
