//! The words of the project: each has one meaning and one type.
//!
//! The table under `## Words` in ARCHITECTURE.md has three columns: words, meanings, types. A row may hold several
//! words; it then names as many types in the same order. A type is a path that begins with a crate's name without
//! `aotfarm-`, such as `protocol::Target`. A public type anywhere in the workspace that is called like a word must be
//! the word's type.

use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};

use super::modules::Crate;
use super::paths::Named;

/// A newcomer keeps this many words.
const MOST_WORDS: usize = 25;

/// A word and its type, as the table has them.
#[derive(Debug, PartialEq, Eq)]
struct Word {
    word: String,
    path: String,
}

/// Checks the table in the file `page` against the types of `crates`.
///
/// # Errors
/// Too many words, a word without a type, a type that does not exist, and every type that takes a word from another.
pub fn check(page: &Path, crates: &[Crate]) -> anyhow::Result<()> {
    let words = words(&fs::read_to_string(page).with_context(|| page.display().to_string())?)?;
    ensure!(words.len() <= MOST_WORDS, "the glossary has {} words; at most {MOST_WORDS} are kept in mind", words.len());
    let mut wrong = Vec::new();
    for Word { word, path } in &words {
        let Some(place) = find(crates, path) else {
            wrong.push(format!("{word}: there is no type {path}"));
            continue;
        };
        for source in crates {
            for (id, other) in source.definitions.iter().enumerate() {
                if other.is_type && other.public && other.name == *word && (&source.room, id) != (&place.0.room, place.1) {
                    let at = format!("{}:{}", source.files[other.file].display(), other.line);
                    wrong.push(format!("{at}: a type called {word}, which is the word for {path}"));
                }
            }
        }
    }
    ensure!(wrong.is_empty(), "words with two meanings (see ARCHITECTURE.md):\n{}", wrong.join("\n"));
    Ok(())
}

/// The crate and the index of the type that `path` names.
fn find<'c>(crates: &'c [Crate], path: &str) -> Option<(&'c Crate, usize)> {
    let (room, rest) = path.split_once("::")?;
    let source = crates.iter().find(|c| c.library && c.room == room)?;
    let names: Vec<_> = std::iter::once("crate").chain(rest.split("::")).map(ToOwned::to_owned).collect();
    source.resolve(0, &names).into_iter().find_map(|named| match named {
        Named::Item(id) if source.definitions[id].is_type => Some((source, id)),
        _ => None,
    })
}

/// The words of the table under `## Words`.
fn words(page: &str) -> anyhow::Result<Vec<Word>> {
    let section = page.split("\n## ").find_map(|section| section.strip_prefix("Words\n"));
    let section = section.context("ARCHITECTURE.md has no section `## Words`")?;
    let rows = section.lines().filter(|line| line.starts_with('|')).skip(2);
    let mut found: Vec<Word> = Vec::new();
    for row in rows {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [words, _, types] = cells[..] else { anyhow::bail!("the glossary's row `{row}` has not three cells") };
        let words: Vec<_> = words.split(", ").collect();
        let types: Vec<_> = types.split(", ").map(|path| path.trim_matches('`')).collect();
        ensure!(words.len() == types.len(), "the glossary's row `{row}` has not one type for each word");
        for (word, path) in words.into_iter().zip(types) {
            ensure!(found.iter().all(|w| w.word != word), "the glossary has the word {word} twice");
            found.push(Word { word: word.to_owned(), path: path.to_owned() });
        }
    }
    ensure!(!found.is_empty(), "the glossary in ARCHITECTURE.md has no row");
    Ok(found)
}
