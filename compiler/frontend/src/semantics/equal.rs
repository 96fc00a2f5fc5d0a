//! Dimensions that an operator needs to be equal. A file that gives each its own name, or none, does not say that they differ.

use aotfarm_ir::{Expr, GraphDim, Op, Sym, TensorType, infer};

/// Dimensions that are other dimensions, declared before them, or constants.
pub(crate) type Equal = Vec<(Sym, Expr)>;

/// Most dimensions of one operator that are made equal to others.
const MOST: usize = 3;

/// The fewest dimensions that have to be others, or constants, for `op` to take operands of these types; `None` when it takes them
/// as they are, when nothing helps, or when there is a choice.
pub(super) fn needed(op: &Op, types: &[TensorType], dims: &[GraphDim]) -> Option<Equal> {
    let fits = |types: &[TensorType]| infer(op, &types.iter().collect::<Vec<_>>()).is_ok();
    if types.len() < 2 || fits(types) {
        return None;
    }
    let mut tried = vec![(Equal::new(), types.to_vec())];
    for _ in 0..MOST {
        let next: Vec<_> = tried.iter().flat_map(|(equal, types)| steps(equal, types, dims)).collect();
        let mut found = next.iter().filter(|(_, types)| fits(types));
        match found.next() {
            Some((equal, types)) => return found.all(|(_, other)| other == types).then(|| equal.clone()),
            None => tried = next,
        }
    }
    None
}

/// Each way to make one more dimension equal to one declared before it or to a constant: later ones first, so that no set of them
/// is met twice.
fn steps(equal: &Equal, types: &[TensorType], dims: &[GraphDim]) -> Vec<(Equal, Vec<TensorType>)> {
    let place = |sym: &Sym| dims.iter().position(|d| d.sym == *sym);
    let last = equal.last().and_then(|(sym, _)| place(sym)).unwrap_or(dims.len());
    let mut sizes: Vec<&Expr> = types.iter().flat_map(|ty| &ty.shape).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let mut steps = Vec::new();
    for sym in sizes.iter().filter_map(|size| size.as_sym()) {
        let Some(at) = place(sym).filter(|at| *at < last) else { continue };
        for size in &sizes {
            let before = size.as_sym().is_some_and(|other| place(other).is_some_and(|other| other < at));
            if before || size.as_const().is_some_and(|n| (dims[at].min..=dims[at].max).contains(&n) && n > 1) {
                let with = |of: &Expr| of.substitute(&|s| (s == sym).then(|| (*size).clone()));
                let typed = |ty: &TensorType| TensorType::new(ty.dtype, ty.shape.iter().map(with));
                let more = (sym.clone(), (*size).clone());
                steps.push((equal.iter().cloned().chain([more]).collect(), types.iter().map(typed).collect()));
            }
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use aotfarm_ir::BinaryOp;
    use aotfarm_protocol::DType;

    use super::*;

    #[test]
    fn the_fewest_that_are_needed() {
        let dims: Vec<_> = ["a", "b", "c", "d"].map(|d| GraphDim { sym: d.into(), min: 1, max: 64, hint: None }).into();
        let check = |op: &Op, shapes: &[&str], wanted: Option<&str>| {
            let size = |text: &str| text.parse::<Expr>().unwrap();
            let mut types = shapes.iter().map(|s| TensorType::new(DType::F32, s.split(' ').map(size))).collect::<Vec<_>>();
            if *op == Op::Where {
                types[0].dtype = DType::Bool;
            }
            let text = |equal: Equal| equal.iter().map(|(s, e)| format!("{s}={e}")).collect::<Vec<_>>().join(" ");
            assert_eq!(needed(op, &types, &dims).map(text).as_deref(), wanted, "{shapes:?}");
        };
        let add = Op::Binary(BinaryOp::Add);
        check(&add, &["a 4", "b 4"], Some("b=a"));
        check(&add, &["a b", "c d"], Some("d=b c=a"));
        check(&add, &["a b", "4"], Some("b=4"));
        check(&add, &["a b", "a 1"], None);
        check(&add, &["a 3", "a 4"], None);
        check(&add, &["a+1 4", "b 4"], None);
        check(&Op::Concat { axis: 1 }, &["a b", "c d"], Some("c=a"));
        check(&Op::MatMul, &["a b", "c d"], Some("c=b"));
        check(&Op::Where, &["a", "b", "c"], Some("c=a b=a"));
    }
}
