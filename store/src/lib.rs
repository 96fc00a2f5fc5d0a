//! All that knows a database's dialect or a disk. Everybody else names the traits, and gets an
//! implementation handed in.
//!
//! | part | traits, rows | implementation |
//! |---|---|---|
//! | jobs and their logs | [`ReadJobs`], [`WriteJobs`], [`ReadEvents`], [`WriteEvents`] | SQLite |
//! | work items: queue, leases, cache of results | [`ReadItems`], [`WriteItems`], [`ReadJobItems`], [`WriteJobItems`] | SQLite |
//! | workers | [`ReadWorkers`], [`WriteWorkers`] | SQLite |
//! | TuningRecords, similar tasks | [`ReadRecords`], [`WriteRecords`], [`ReadTasks`], [`WriteTasks`] | SQLite |
//! | catalog: versions, tags, history | [`ReadVersions`], [`ReadTags`], [`ReadProfiles`] and their `Write` | SQLite |
//! | blobs | [`BlobStore`] | a folder |
//!
//! A [`Store`] hands out units of work: a [`Snapshot`] has all `Read` traits, a [`Transaction`]
//! those and all `Write` traits. Both are trait objects, so that another database is one more
//! folder here, which runs the suite in `tests/it/suite.rs`, and no change elsewhere. Rules (which
//! state follows which, who gets what, what a reference means) are not here: callers read rows,
//! decide, and write.
//!
//! Invariants: no type of a database library, no SQL and no path inside a folder of blobs gets out
//! of this crate; bytes leave a store of blobs verified, or are said not to be.
#![forbid(unsafe_code)]

mod blobs;
mod catalog;
mod error;
mod events;
mod files;
mod items;
mod job_items;
mod jobs;
mod records;
mod sqlite;
mod unit;
mod workers;

pub use blobs::{BlobError, BlobStore, Frames, Source, Stored};
pub use catalog::{NewVersion, ReadProfiles, ReadTags, ReadVersions, WriteProfiles, WriteTags, WriteVersions};
pub use error::{Cause, StoreError, Trouble};
pub use events::{ReadEvents, WriteEvents};
pub use files::FileBlobStore;
pub use items::{Item, ItemRow, LeasedItem, MeasureContext, QueuedItem, ReadItems, WriteItems};
pub use job_items::{Ended, ReadJobItems, WriteJobItems};
pub use jobs::{Ending, JobRow, Pin, Pins, ReadJobs, WriteJobs};
pub use records::{ReadRecords, ReadTasks, WriteRecords, WriteTasks};
pub use sqlite::SqliteStore;
pub use unit::{Snapshot, Store, Transaction};
pub use workers::{ReadWorkers, WorkerRow, WriteWorkers};
