//! The parameters of candidates.

use std::collections::BTreeMap;

/// A candidate's parameters: ordered names to integers. Families have their own typed form; the database, the wire and
/// the digests know only this one.
pub type Params = BTreeMap<String, i64>;

/// Parameters in text, in the order of their names: `mr6_nv2`; `-` when there are none.
pub fn params_text(params: &Params) -> String {
    let words: Vec<_> = params.iter().map(|(name, value)| format!("{name}{value}")).collect();
    if words.is_empty() { "-".to_owned() } else { words.join("_") }
}
