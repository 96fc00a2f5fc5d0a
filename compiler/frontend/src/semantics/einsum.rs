//! Einstein sums.

use std::collections::HashMap;

use aotfarm_ir::{Expr, ReduceOp, ValueId};

use super::{Emit, Result, product, reduction, view};

/// An operand with a letter for each axis.
struct Labelled {
    x: ValueId,
    labels: Vec<char>,
}

/// `equation` names the axes of each operand and of the result: `bij,bjk->bik`. Without a result these are the letters that occur once.
/// From left to right, two operands at a time.
pub(crate) fn einsum(e: &mut Emit<'_>, equation: &str, operands: &[ValueId]) -> Result<ValueId> {
    let equation: String = equation.chars().filter(|c| !c.is_whitespace()).collect();
    if equation.contains('.') {
        return Err(format!("the ellipsis in `{equation}` is not supported; name the axes").into());
    }
    let (inputs, result) = equation.split_once("->").map_or((equation.as_str(), None), |(inputs, result)| (inputs, Some(result)));
    let inputs: Vec<Vec<char>> = inputs.split(',').map(|labels| labels.chars().collect()).collect();
    let result: Vec<char> = result.map_or_else(
        || {
            let mut once: Vec<char> = inputs.iter().flatten().copied().collect();
            let all = once.clone();
            once.retain(|label| all.iter().filter(|other| *other == label).count() == 1);
            once.sort_unstable();
            once
        },
        |result| result.chars().collect(),
    );
    let is_distinct = |labels: &[char]| labels.iter().enumerate().all(|(i, label)| !labels[..i].contains(label));
    if inputs.len() != operands.len() || inputs.iter().zip(operands).any(|(labels, x)| labels.len() != e.rank(*x)) {
        return Err(format!("`{equation}` does not fit its operands").into());
    }
    if !inputs.iter().chain([&result]).all(|labels| is_distinct(labels)) {
        return Err(
            format!("a letter that occurs twice in one operand of `{equation}` is not supported; take the diagonal").into()
        );
    }
    let mut sizes: HashMap<char, Expr> = HashMap::new();
    for (labels, x) in inputs.iter().zip(operands) {
        for (label, size) in labels.iter().zip(e.shape(*x)) {
            let known = sizes.entry(*label).or_insert_with(|| size.clone());
            if *known != size {
                return Err(
                    format!("`{label}` of `{equation}` is {known} and {size}; sizes that broadcast are not supported").into()
                );
            }
        }
    }
    if let Some(label) = result.iter().find(|label| !sizes.contains_key(label)) {
        return Err(format!("`{label}` of the result of `{equation}` is in no operand").into());
    }
    let mut rest = operands.iter().zip(inputs.iter()).map(|(x, labels)| Labelled { x: *x, labels: labels.clone() });
    let mut left = rest.next().ok_or("it has no operands")?;
    for (at, right) in rest.enumerate() {
        let later: Vec<char> = inputs[at + 2..].iter().flatten().chain(&result).copied().collect();
        left = two(e, left, right, &later, &sizes)?;
    }
    let left = summed(e, left, |label| result.contains(&label))?;
    ordered(e, &left, &result)
}

/// Without the axes that are not kept.
fn summed(e: &mut Emit<'_>, operand: Labelled, keep: impl Fn(char) -> bool) -> Result<Labelled> {
    let axes: Vec<usize> = (0..operand.labels.len()).filter(|i| !keep(operand.labels[*i])).collect();
    if axes.is_empty() {
        return Ok(operand);
    }
    let x = reduction::reduce(e, ReduceOp::Sum, operand.x, axes, false)?;
    Ok(Labelled { x, labels: operand.labels.into_iter().filter(|label| keep(*label)).collect() })
}

fn ordered(e: &mut Emit<'_>, operand: &Labelled, order: &[char]) -> Result<ValueId> {
    let axes: Vec<usize> = order.iter().filter_map(|label| operand.labels.iter().position(|other| other == label)).collect();
    if axes.is_sorted() { Ok(operand.x) } else { view::permute(e, operand.x, axes) }
}

/// The sum of products over the letters of two operands that nothing later names: a batch of matrix products.
fn two(e: &mut Emit<'_>, a: Labelled, b: Labelled, later: &[char], sizes: &HashMap<char, Expr>) -> Result<Labelled> {
    let (in_a, in_b) = (a.labels.clone(), b.labels.clone());
    let a = summed(e, a, |label| later.contains(&label) || in_b.contains(&label))?;
    let b = summed(e, b, |label| later.contains(&label) || in_a.contains(&label))?;
    let (in_a, in_b) = (a.labels.clone(), b.labels.clone());
    let of =
        |from: &[char], keep: &dyn Fn(&char) -> bool| from.iter().copied().filter(|label| keep(label)).collect::<Vec<char>>();
    let batch = of(&in_a, &|label| in_b.contains(label) && later.contains(label));
    let inner = of(&in_a, &|label| in_b.contains(label) && !later.contains(label));
    let rows = of(&in_a, &|label| !in_b.contains(label));
    let columns = of(&in_b, &|label| !in_a.contains(label));
    let shape = |labels: &[char]| labels.iter().map(|label| sizes[label].clone()).collect::<Vec<Expr>>();
    let merged = |labels: &[char]| super::product(&shape(labels));
    let a = ordered(e, &a, &[batch.as_slice(), &rows, &inner].concat())?;
    let a = e.reshape(a, [shape(&batch), vec![merged(&rows), merged(&inner)]].concat())?;
    let b = ordered(e, &b, &[batch.as_slice(), &inner, &columns].concat())?;
    let b = e.reshape(b, [shape(&batch), vec![merged(&inner), merged(&columns)]].concat())?;
    let x = product::matmul(e, a, b)?;
    let labels = [batch, rows, columns].concat();
    let x = e.reshape(x, shape(&labels))?;
    Ok(Labelled { x, labels })
}
