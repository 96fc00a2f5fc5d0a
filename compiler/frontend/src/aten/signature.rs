//! The signature of an exported program: how its caller nests tensors. torch writes it as a tree
//! specification (`torch/utils/_pytree.py`, `treespec_dumps`, protocol 1) beside flat lists.

use aotfarm_protocol::{NamedArgument, Nested, Signature};
use serde::Deserialize;
use serde_json::Value as Json;

use super::program::ModuleCall;

/// Version of the tree specifications that are understood.
const PROTOCOL: u64 = 1;

/// A node of a tree specification; leaves have no type.
#[derive(Deserialize)]
struct TreeSpec {
    r#type: Option<String>,
    context: Option<String>,
    #[serde(default)]
    children_spec: Vec<TreeSpec>,
}

/// The signature whose leaves are these, in the order of the flat lists; or why the file's cannot be read.
pub(super) fn signature(call: &ModuleCall, inputs: Vec<Nested>, outputs: Vec<Nested>) -> Result<Signature, String> {
    let both: [Nested; 2] = match nest(&call.in_spec, inputs)? {
        Nested::Tuple(both) => both.try_into().map_err(|_| "the arguments are not a pair"),
        _ => Err("the arguments are not a tuple"),
    }?;
    let [Nested::Tuple(positional), Nested::Dict(keyword)] = both else {
        return Err("the arguments are not a tuple and a dictionary".to_owned());
    };
    let names = call.forward_arg_names.as_deref().unwrap_or_default();
    let name = |at: usize| names.get(at).cloned().unwrap_or_default();
    let positional = positional.into_iter().enumerate().map(|(at, value)| NamedArgument { name: name(at), value });
    let keyword = keyword.into_iter().map(|(name, value)| NamedArgument { name, value });
    Ok(Signature { arguments: positional.chain(keyword).collect(), result: nest(&call.out_spec, outputs)? })
}

fn nest(spec: &str, leaves: Vec<Nested>) -> Result<Nested, String> {
    let damaged = |e: serde_json::Error| format!("the tree specification does not parse: {e}");
    let (protocol, spec): (u64, TreeSpec) = serde_json::from_str(spec).map_err(damaged)?;
    if protocol != PROTOCOL {
        return Err(format!("the tree specification has protocol {protocol}; {PROTOCOL} is understood"));
    }
    let mut leaves = leaves.into_iter();
    let nested = fill(spec, &mut leaves)?;
    match leaves.next() {
        None => Ok(nested),
        Some(_) => Err("the tree specification has fewer leaves than the signature has values".to_owned()),
    }
}

fn fill(spec: TreeSpec, leaves: &mut impl Iterator<Item = Nested>) -> Result<Nested, String> {
    let Some(kind) = spec.r#type else {
        return leaves.next().ok_or("the tree specification has more leaves than the signature has values".to_owned());
    };
    let context = spec.context.unwrap_or_default();
    let items = spec.children_spec.into_iter().map(|child| fill(child, leaves)).collect::<Result<Vec<_>, _>>()?;
    Ok(match kind.as_str() {
        "builtins.tuple" => Nested::Tuple(items),
        "builtins.list" => Nested::List(items),
        "builtins.dict" => {
            let keys: Vec<Json> = serde_json::from_str(&context).map_err(|e| format!("the keys of a dictionary: {e}"))?;
            if keys.len() != items.len() {
                return Err(format!("a dictionary has {} keys and {} values", keys.len(), items.len()));
            }
            let text = |key: Json| if let Json::String(text) = key { text } else { key.to_string() };
            Nested::Dict(keys.into_iter().map(text).zip(items).collect())
        }
        _ => Nested::Other { kind, context, items },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAF: &str = r#"{"type": null, "context": null, "children_spec": []}"#;

    fn node(kind: &str, context: &str, children: &[&str]) -> String {
        let context = serde_json::to_string(context).unwrap();
        format!(r#"{{"type": "{kind}", "context": {context}, "children_spec": [{}]}}"#, children.join(", "))
    }

    fn call(arguments: &str, result: &str) -> ModuleCall {
        let spec = |root: &str| format!("[1, {root}]");
        ModuleCall { in_spec: spec(arguments), out_spec: spec(result), forward_arg_names: Some(vec!["x".to_owned()]) }
    }

    #[test]
    fn arguments_have_names_and_results_their_nesting() {
        let keyword = node("builtins.dict", r#"["flag"]"#, &[LEAF]);
        let arguments = node("builtins.tuple", "null", &[&node("builtins.tuple", "null", &[LEAF]), &keyword]);
        let hidden = node("builtins.list", "null", &[LEAF, LEAF]);
        let result = node("builtins.dict", r#"["logits", "hidden"]"#, &[LEAF, &hidden]);
        let outputs = vec![Nested::Tensor(0), Nested::None, Nested::Tensor(0)];
        let read = signature(&call(&arguments, &result), vec![Nested::Tensor(0), Nested::Bool(true)], outputs).unwrap();
        let named = |name: &str, value| NamedArgument { name: name.to_owned(), value };
        assert_eq!(read.arguments, [named("x", Nested::Tensor(0)), named("flag", Nested::Bool(true))]);
        let hidden = Nested::List(vec![Nested::None, Nested::Tensor(0)]);
        assert_eq!(read.result, Nested::Dict(vec![("logits".to_owned(), Nested::Tensor(0)), ("hidden".to_owned(), hidden)]));
    }

    #[test]
    fn a_tree_of_another_size_is_refused() {
        let arguments =
            node("builtins.tuple", "null", &[&node("builtins.tuple", "null", &[LEAF]), &node("builtins.dict", "[]", &[])]);
        let read = |result: &str, outputs| signature(&call(&arguments, result), vec![Nested::Tensor(0)], outputs);
        assert!(read(LEAF, vec![Nested::None]).is_ok());
        assert!(read(LEAF, vec![]).unwrap_err().contains("more leaves"));
        assert!(read(LEAF, vec![Nested::None; 2]).unwrap_err().contains("fewer leaves"));
    }
}
