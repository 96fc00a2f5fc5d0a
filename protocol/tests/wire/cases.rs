//! Values with the texts that they have.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The values of every type.
#[derive(Default)]
pub(crate) struct Cases {
    pub(crate) by_type: BTreeMap<String, Texts>,
}

/// The values of one type.
pub(crate) struct Texts {
    name: String,
    /// The JSON of each value, in lines.
    json: Vec<String>,
    /// The words with which the values begin in `Debug`: of an enum its variants.
    pub(crate) heads: BTreeSet<String>,
    /// Parses a list of values; compares them with these, or only says whether each has the type.
    parse: Box<dyn Fn(Vec<Value>, bool)>,
}

impl Cases {
    /// Adds values of a type, all that there are of it.
    pub(crate) fn add<T: Serialize + DeserializeOwned + PartialEq + Debug + 'static>(&mut self, values: impl Into<Vec<T>>) {
        let values: Vec<T> = values.into();
        let path = std::any::type_name::<T>();
        let name = path.rsplit("::").next().unwrap_or(path).to_owned();
        let json = values.iter().map(|v| serde_json::to_string_pretty(v).expect("a value that has a text")).collect();
        let heads = values.iter().map(|v| head(&format!("{v:?}"))).collect();
        let parse = {
            let name = name.clone();
            Box::new(move |texts: Vec<Value>, same: bool| {
                assert_eq!(texts.len(), values.len(), "values of {name}");
                for (text, value) in texts.into_iter().zip(&values) {
                    let read: T = serde_json::from_value(text.clone()).unwrap_or_else(|e| panic!("{name}: {e} in {text:#}"));
                    assert!(!same || read == *value, "{name}: {text:#} is read as {read:#?}");
                }
            })
        };
        let texts = Texts { name: name.clone(), json, heads, parse };
        assert!(self.by_type.insert(name.clone(), texts).is_none(), "{name} is added twice");
    }
}

/// The first word.
fn head(debug: &str) -> String {
    debug.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default().to_owned()
}

impl Texts {
    /// The golden file: a list, each value as it is printed in lines.
    pub(crate) fn file(&self) -> String {
        let values: Vec<_> = self.json.iter().map(|json| format!("  {}", json.replace('\n', "\n  "))).collect();
        format!("[\n{}\n]\n", values.join(",\n"))
    }

    /// Checks that the texts of a golden file are read as the values.
    pub(crate) fn read_back(&self, file: &str) {
        let texts = serde_json::from_str(file).unwrap_or_else(|e| panic!("the golden file of {}: {e}", self.name));
        (self.parse)(texts, true);
    }

    /// Checks that the texts are read without one of their fields, which one of them must have.
    pub(crate) fn read_without(&self, field: &str) {
        let mut texts: Vec<Value> = serde_json::from_str(&self.file()).expect("a list of JSON values");
        let mut found = false;
        for text in &mut texts {
            found |= text.as_object_mut().is_some_and(|object| object.shift_remove(field).is_some());
        }
        assert!(found, "no value of {} has the field `{field}`", self.name);
        (self.parse)(texts, false);
    }
}
