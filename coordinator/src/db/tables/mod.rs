//! One file per table.

pub(crate) mod job_events;
pub(crate) mod job_items;
pub(crate) mod jobs;
pub(crate) mod tasks;
pub(crate) mod tuning_records;
pub(crate) mod work_items;
pub(crate) mod workers;
