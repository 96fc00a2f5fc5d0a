//! The JSON of every type that crosses HTTP or is stored in a row: old workers, old clients and old databases hold such
//! texts, so a new name in Rust must not change them.
//!
//! `tests/golden/wire/<Type>.json` lists texts of one type: of an enum one for each variant, of a struct with optional
//! fields one with all of them and one with none. `keys.txt` holds the keys that are digests of such texts.

mod cases;
mod declared;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use declared::{Declared, Shape};

fn folder() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", "tests", "golden", "wire"].iter().collect()
}

/// Whether the golden files are to be written and not compared.
fn blessing() -> bool {
    std::env::var_os("BLESS").is_some()
}

/// The types of this crate that have a text, by their names in Rust.
fn declared() -> BTreeMap<String, Declared> {
    declared::serialised(&[env!("CARGO_MANIFEST_DIR"), "src"].iter().collect::<PathBuf>())
}

#[test]
fn values_are_written_and_read_as_ever() {
    let cases = values::all();
    let mut stale: BTreeSet<String> = match fs::read_dir(folder()) {
        Ok(files) => files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect(),
        Err(_) => BTreeSet::new(),
    };
    stale.remove("keys.txt");
    for (name, texts) in &cases.by_type {
        let file = format!("{name}.json");
        stale.remove(&file);
        let text = texts.file();
        let path = folder().join(file);
        if blessing() {
            fs::create_dir_all(folder()).unwrap();
            fs::write(&path, &text).unwrap();
        }
        let golden = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}; BLESS=1 writes it", path.display()));
        assert_eq!(text, golden, "the JSON of {name} differs from {}; old texts must be read as before", path.display());
        texts.read_back(&golden);
    }
    assert!(stale.is_empty(), "golden files of types that are no more, or have a new name: {stale:?}");
}

#[test]
fn keys_are_as_ever() {
    let text = values::keys();
    let path = folder().join("keys.txt");
    if blessing() {
        fs::create_dir_all(folder()).unwrap();
        fs::write(&path, &text).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}; BLESS=1 writes it", path.display()));
    assert_eq!(text, golden, "stored rows are found by these keys no more");
}

#[test]
fn no_type_and_no_variant_is_forgotten() {
    let cases = values::all();
    for (name, declared) in declared() {
        let texts = cases.by_type.get(&name);
        let texts =
            texts.unwrap_or_else(|| panic!("`{name}` is serialised: give a value of it in protocol/tests/wire/values.rs"));
        if let Shape::Enum(variants) = &declared.shape {
            let missing: Vec<_> = variants.iter().filter(|v| !texts.heads.contains(*v)).collect();
            assert!(missing.is_empty(), "no value of {missing:?} of the enum {name} in protocol/tests/wire/values.rs");
        }
    }
}

/// What an older program wrote lacks the fields that came later.
#[test]
fn texts_without_the_fields_that_have_a_default_are_read() {
    let cases = values::all();
    let mut seen = 0;
    for (name, declared) in declared() {
        let Shape::Struct { defaulted } = &declared.shape else { continue };
        for field in defaulted {
            cases.by_type[&name].read_without(field);
            seen += 1;
        }
    }
    assert!(seen > 10, "only {seen} fields with a default were found");
}
