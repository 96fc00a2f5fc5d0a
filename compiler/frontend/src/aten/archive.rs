//! The zip container of a `.pt2` file: named byte ranges of the file, all under one top folder.

use std::collections::HashMap;
use std::io::{Cursor, Read as _};

use zip::read::{ArchiveOffset, Config};
use zip::{CompressionMethod, ZipArchive};

use super::super::{ImportError, SharedBytes};
use aotfarm_ir::TensorData;

/// Most bytes that all compressed entries may inflate to. torch stores entries uncompressed; only files that were packed
/// again by hand are compressed, and those are small.
const INFLATE_LIMIT: u64 = 1 << 30;

/// The entries of the archive by their name below the top folder.
pub(super) struct Archive {
    file: SharedBytes,
    entries: HashMap<String, Entry>,
}

enum Entry {
    /// Stored: a range of the file.
    Stored { start: usize, len: usize },
    /// Compressed: inflated when the archive was opened.
    Inflated(TensorData),
}

impl Archive {
    /// Reads the central directory and checks every entry's range.
    pub(super) fn open(file: SharedBytes) -> Result<Self, ImportError> {
        let bytes = (*file).as_ref();
        // Offsets count from the start of the file. Looking for an archive that is appended to something else would only
        // mistake bytes of a weight for a directory.
        let config = Config { archive_offset: ArchiveOffset::Known(0) };
        let mut zip =
            ZipArchive::with_config(config, Cursor::new(bytes)).map_err(|e| damaged("the zip directory", e.to_string()))?;
        let mut inflatable = INFLATE_LIMIT;
        let mut names: Vec<(String, Entry)> = Vec::with_capacity(zip.len().min(1 << 20));
        for index in 0..zip.len() {
            let mut entry = zip.by_index(index).map_err(|e| damaged(format!("zip entry {index}"), e.to_string()))?;
            let name = entry.name().map_err(|e| damaged(format!("zip entry {index}"), e.to_string()))?.into_owned();
            if entry.is_dir() {
                continue;
            }
            if name.starts_with('/') || name.split(['/', '\\']).any(|part| part == "..") {
                return Err(damaged(format!("zip entry `{name}`"), "its name leaves the archive"));
            }
            let content = match entry.compression() {
                CompressionMethod::Stored => {
                    let (start, len) = (entry.data_start().unwrap_or(u64::MAX), entry.size());
                    let end = start.checked_add(len).filter(|&end| end <= bytes.len() as u64 && entry.compressed_size() == len);
                    if end.is_none() {
                        let what = format!("its {len} bytes at offset {start} are not in the file of {} bytes", bytes.len());
                        return Err(damaged(format!("zip entry `{name}`"), what));
                    }
                    Entry::Stored { start: start as usize, len: len as usize }
                }
                _ => {
                    let Some(left) = inflatable.checked_sub(entry.size()) else {
                        let what = format!(
                            "it inflates to {} bytes; compressed entries may take {INFLATE_LIMIT} in all (torch stores them uncompressed)",
                            entry.size()
                        );
                        return Err(damaged(format!("zip entry `{name}`"), what));
                    };
                    inflatable = left;
                    let limit = entry.size();
                    let mut data = Vec::new();
                    let read = entry.by_ref().take(limit + 1).read_to_end(&mut data);
                    read.map_err(|e| damaged(format!("zip entry `{name}`"), e.to_string()))?;
                    if data.len() as u64 != entry.size() {
                        let what = format!("it inflates to other than the {} bytes that it declares", entry.size());
                        return Err(damaged(format!("zip entry `{name}`"), what));
                    }
                    Entry::Inflated(TensorData::new(data))
                }
            };
            names.push((name, content));
        }
        // Everything lies under one folder, named after the file it was first saved to.
        let root =
            names.first().and_then(|(name, _)| name.split_once('/')).map(|(root, _)| format!("{root}/")).unwrap_or_default();
        let entries =
            names.into_iter().map(|(name, e)| (name.strip_prefix(&root).map(ToOwned::to_owned).unwrap_or(name), e)).collect();
        Ok(Self { file, entries })
    }

    /// Whether there is such an entry.
    pub(super) fn contains(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// The content of an entry, shared with the file.
    pub(super) fn data(&self, name: &str) -> Result<TensorData, ImportError> {
        match self.entries.get(name) {
            Some(Entry::Stored { start, len }) => Ok(TensorData::slice_of(self.file.clone(), *start, *len)),
            Some(Entry::Inflated(data)) => Ok(data.clone()),
            None => Err(damaged(format!("zip entry `{name}`"), "it is missing")),
        }
    }

    /// An entry that holds JSON.
    pub(super) fn json<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<T, ImportError> {
        serde_json::from_slice(self.data(name)?.bytes()).map_err(|e| damaged(format!("`{name}`"), e.to_string()))
    }
}

/// Another version of the format than those that are read.
pub(super) fn version(found: impl Into<String>, remedy: impl Into<String>) -> ImportError {
    ImportError::Version { format: "the .pt2 file", found: found.into(), remedy: remedy.into() }
}

/// The error of a place of the archive, or of what it holds.
pub(super) fn damaged(place: impl Into<String>, what: impl Into<String>) -> ImportError {
    ImportError::damaged(what, place)
}
