//! Units of work: what is read together, and what is written together.

use std::fmt::Debug;

use async_trait::async_trait;

use crate::catalog::{ReadProfiles, ReadTags, ReadVersions, WriteProfiles, WriteTags, WriteVersions};
use crate::error::Result;
use crate::events::{ReadEvents, WriteEvents};
use crate::items::{ReadItems, WriteItems};
use crate::job_items::{ReadJobItems, WriteJobItems};
use crate::jobs::{ReadJobs, WriteJobs};
use crate::records::{ReadRecords, ReadTasks, WriteRecords, WriteTasks};
use crate::workers::{ReadWorkers, WriteWorkers};

/// A database. Several processes may use one at a time.
#[async_trait]
pub trait Store: Debug + Send + Sync {
    /// Begins to read. Everything that the snapshot answers is true of one moment, at the earliest
    /// that of its first answer; it waits for no writer and no writer waits for it. Drop it soon:
    /// the database keeps old pages for it.
    ///
    /// # Errors
    /// [`StoreError`](crate::StoreError).
    async fn read(&self) -> Result<Box<dyn Snapshot>>;

    /// Begins to write, alone: what a transaction reads stays true until it commits, so that rows
    /// can be read, judged by pure code and written back. Transactions wait for each other, also
    /// those of other processes. One that is dropped without [`Transaction::commit`] has changed
    /// nothing.
    ///
    /// # Errors
    /// [`StoreError`](crate::StoreError).
    async fn write(&self) -> Result<Box<dyn Transaction>>;

    /// Waits for the units of work that are open, and closes all connections.
    async fn close(&self);
}

/// What can be read. Every method fails with [`StoreError`](crate::StoreError) when the database
/// does, or when it holds a value that does not parse.
pub trait Snapshot:
    ReadJobs
    + ReadEvents
    + ReadItems
    + ReadJobItems
    + ReadWorkers
    + ReadRecords
    + ReadTasks
    + ReadVersions
    + ReadTags
    + ReadProfiles
    + Send
{
}

/// What can be written, and everything that can be read. Every method fails with
/// [`StoreError`](crate::StoreError) when the database does.
#[async_trait]
pub trait Transaction:
    Snapshot
    + WriteJobs
    + WriteEvents
    + WriteItems
    + WriteJobItems
    + WriteWorkers
    + WriteRecords
    + WriteTasks
    + WriteVersions
    + WriteTags
    + WriteProfiles
{
    /// Makes everything that was written durable and visible to others, at once.
    ///
    /// # Errors
    /// [`StoreError`](crate::StoreError), after which nothing was written.
    async fn commit(self: Box<Self>) -> Result<()>;
}
