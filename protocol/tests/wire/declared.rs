//! The types that are serialised, as the sources declare them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use syn::{Attribute, Fields, Ident, Item};

/// A type that has a text.
pub(crate) struct Declared {
    pub(crate) shape: Shape,
}

/// What it is made of.
pub(crate) enum Shape {
    /// Its variants, by their names in Rust.
    Enum(Vec<String>),
    /// The fields that a text may lack, by their names in JSON.
    Struct { defaulted: Vec<String> },
    /// One value, or a text that its own code makes.
    Other,
}

/// The types in a folder of sources that derive or implement `Serialize`, by name.
pub(crate) fn serialised(folder: &Path) -> BTreeMap<String, Declared> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let file = syn::parse_file(&fs::read_to_string(&path).unwrap());
                items(file.unwrap_or_else(|e| panic!("{}: {e}", path.display())).items, &mut found);
            }
        }
    }
    found
}

fn items(list: Vec<Item>, found: &mut BTreeMap<String, Declared>) {
    // Macros of the file that declare types which are serialised.
    let mut makers: Vec<Ident> = Vec::new();
    for item in list {
        match item {
            Item::Struct(item) if derives(&item.attrs) => {
                found.insert(item.ident.to_string(), Declared { shape: fields(&item.fields) });
            }
            Item::Enum(item) if derives(&item.attrs) => {
                let variants = item.variants.iter().map(|v| v.ident.to_string()).collect();
                found.insert(item.ident.to_string(), Declared { shape: Shape::Enum(variants) });
            }
            Item::Impl(item) => {
                let Some((path, _)) = item.trait_ else { continue };
                let of = path.segments.last().is_some_and(|segment| segment.ident == "Serialize");
                let syn::Type::Path(ty) = *item.self_ty else { continue };
                if let (true, Some(name)) = (of, ty.path.get_ident()) {
                    found.insert(name.to_string(), Declared { shape: Shape::Other });
                }
            }
            Item::Macro(item) => match item.ident {
                Some(name) if item.mac.tokens.to_string().contains("Serialize") => makers.push(name),
                Some(_) => {}
                None if makers.iter().any(|maker| item.mac.path.is_ident(maker)) => {
                    let name = made(item.mac.tokens);
                    found.insert(name, Declared { shape: Shape::Other });
                }
                None => {}
            },
            Item::Mod(item) => items(item.content.map(|(_, items)| items).unwrap_or_default(), found),
            _ => {}
        }
    }
}

/// The first name in the arguments of a macro.
fn made(tokens: proc_macro2::TokenStream) -> String {
    let name = tokens.into_iter().find_map(|token| match token {
        proc_macro2::TokenTree::Ident(name) => Some(name.to_string()),
        _ => None,
    });
    name.expect("a macro that declares a type is given its name")
}

fn derives(attributes: &[Attribute]) -> bool {
    words(attributes, "derive").iter().any(|word| word == "Serialize")
}

/// The words in an attribute, in their order; literals with their quotes.
fn words(attributes: &[Attribute], name: &str) -> Vec<String> {
    let tokens = attributes.iter().filter(|a| a.path().is_ident(name)).filter_map(|a| a.meta.require_list().ok());
    tokens.flat_map(|list| list.tokens.clone()).map(|token| token.to_string()).collect()
}

fn fields(fields: &Fields) -> Shape {
    let Fields::Named(fields) = fields else { return Shape::Other };
    let mut defaulted = Vec::new();
    for field in &fields.named {
        let serde = words(&field.attrs, "serde");
        if serde.iter().any(|word| word == "default") {
            let renamed = serde.iter().position(|word| word == "rename").map(|at| serde[at + 2].trim_matches('"').to_owned());
            defaulted.extend(renamed.or_else(|| field.ident.as_ref().map(ToString::to_string)));
        }
    }
    Shape::Struct { defaulted }
}
