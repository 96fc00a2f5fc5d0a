//! The mapping of torch operators, in both the exported and the decomposed form: a table for each group. A row is an operator; defaults of
//! arguments that are left out are those of the operator's schema.

mod binary;
mod copy;
mod gather;
mod index;
mod network;
mod order;
mod reduction;
mod resize;
mod row;
mod sizes;
mod unary;
mod view;

pub(super) use self::row::{Row, Shares, Writes};

/// All tables.
static TABLES: [&[Row]; 11] = [
    sizes::ROWS,
    network::ROWS,
    unary::ROWS,
    binary::ROWS,
    reduction::ROWS,
    view::ROWS,
    copy::ROWS,
    gather::ROWS,
    index::ROWS,
    order::ROWS,
    resize::ROWS,
];

/// All rows.
fn rows() -> impl Iterator<Item = &'static Row> {
    TABLES.into_iter().flatten()
}

/// The row of an operator, and what it writes to: `aten.add_.Tensor` writes what `aten.add.Tensor` computes.
pub(super) fn find(name: &str) -> Option<(&'static Row, Writes)> {
    let exact = |name: &str| rows().find(|row| row.name == name);
    if let Some(row) = exact(name) {
        return Some((row, Writes::Nothing));
    }
    let (operator, overload) = name.rsplit_once('.')?;
    // `__iand__` is `__and__` in place.
    let functional = match operator.strip_prefix("aten.__i") {
        Some(logic) => format!("aten.__{logic}.{overload}"),
        None => format!("{}.{overload}", operator.strip_suffix('_')?),
    };
    exact(&functional).map(|row| (row, Writes::First))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_distinct() {
        let mut names: Vec<_> = rows().map(|r| r.name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|w| w[0] != w[1]), "an operator is listed twice");
    }
}
