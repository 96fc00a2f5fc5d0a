//! What every implementation must do: one suite for databases, one for stores of blobs. Another
//! implementation adds a file like `sqlite.rs` or `files.rs`: its [`Database`] or [`Blobs`], and
//! one line that runs the suite on it.

use std::sync::Arc;
use std::time::Duration;

use aotfarm_protocol::{Digest, *};
use aotfarm_store::{BlobStore, Store};
use uuid::Uuid;

pub(crate) mod blobs;
pub(crate) mod catalog;
pub(crate) mod items;
pub(crate) mod jobs;
pub(crate) mod records;
pub(crate) mod units;
pub(crate) mod workers;

/// A database that is gone with the value. Each test has its own.
pub(crate) trait Database: Sync {
    /// An empty one.
    fn new() -> Self;

    /// Opens it as another process does.
    fn open(&self) -> impl Future<Output = Arc<dyn Store>> + Send;
}

/// A place for blobs that is gone with the value. Each test has its own.
pub(crate) trait Blobs: Sync {
    /// An empty one.
    fn new() -> Self;

    /// Opens it as another process does. `limit`: most bytes of a blob, uncompressed.
    fn open_limited(&self, limit: u64) -> Arc<dyn BlobStore>;

    /// [`Self::open_limited`] with the limit that stores have by default.
    fn open(&self) -> Arc<dyn BlobStore>;

    /// How many things lie there, blobs or not.
    fn things(&self) -> usize;

    /// The stored bytes of a blob.
    fn stored(&self, digest: Digest) -> Vec<u8>;

    /// Puts bytes where those of a blob are stored.
    fn store(&self, digest: Digest, bytes: &[u8]);

    /// Takes a blob away.
    fn lose(&self, digest: Digest);

    /// Makes a blob as old as if it had last been used so long ago.
    fn age(&self, digest: Digest, by: Duration);

    /// Leaves something behind as an upload does that is killed.
    fn leave_over(&self);
}

/// A module of tests: each function of a module of the suite, run on one implementation.
macro_rules! suite_module {
    ($subject:ty, $module:ident: $($test:ident)*) => {
        mod $module {
            use super::*;

            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    let subject = <$subject>::new();
                    $crate::suite::$module::$test(&subject).await;
                }
            )*
        }
    };
}

/// Runs the suite for databases on one.
macro_rules! database_suite {
    ($subject:ty) => {
        suite_module!($subject, units:
            what_is_not_committed_did_not_happen a_snapshot_is_of_one_moment transactions_wait_for_each_other
            several_processes_open_it_at_once);
        suite_module!($subject, jobs:
            a_job_is_read_as_it_was_written jobs_are_listed_in_order a_state_is_left_only_by_one
            equal_jobs_are_found_by_their_key a_log_is_numbered_without_gaps);
        suite_module!($subject, items:
            an_item_is_read_as_it_was_written a_stale_generation_never_wins a_requeued_item_waits_anew
            each_job_shows_the_front_of_its_queue leases_are_listed_and_only_grow results_and_failures_are_kept
            jobs_share_items counts_tell_how_far_a_job_is);
        suite_module!($subject, workers:
            a_worker_is_read_as_it_registered who_fails_repeatedly_is_drained who_left_or_fell_silent_is_gone);
        suite_module!($subject, records:
            the_newest_record_of_each_candidate_counts a_record_is_added_once similar_tasks_are_those_with_records);
        suite_module!($subject, catalog:
            a_version_is_read_as_it_was_added a_version_is_never_changed tags_move_and_go profiles_are_added_once);
    };
}

/// Runs the suite for stores of blobs on one.
macro_rules! blob_suite {
    ($subject:ty) => {
        suite_module!($subject, blobs:
            blobs_are_kept_by_digest_and_put_is_idempotent files_go_in_and_out what_is_said_to_be_a_blob_must_be_it
            a_damaged_blob_is_noticed_by_every_reader_and_can_be_stored_anew
            blobs_past_the_limit_are_refused_in_every_direction a_stream_that_breaks_off_or_lies_leaves_nothing
            stored_frames_are_read_in_pieces the_same_blob_put_by_many_at_once_is_one_blob
            a_sweep_removes_what_is_neither_kept_nor_new asking_for_an_old_blob_keeps_it_from_the_next_sweep);
    };
}

pub(crate) const V3: Target = Target::Cpu(CpuIsa::X86_64V3);
pub(crate) const V4: Target = Target::Cpu(CpuIsa::X86_64V4);

pub(crate) fn job_id(n: u128) -> JobId {
    JobId(Uuid::from_u128(n))
}

pub(crate) fn worker_id(n: u128) -> WorkerId {
    WorkerId(Uuid::from_u128(n))
}

pub(crate) fn request(name: &str) -> JobRequest {
    JobRequest {
        name: name.to_owned(),
        graph: Digest::of(name),
        targets: vec![V3],
        dims: vec![DimRange { name: "batch".to_owned(), min: 1, max: 32 }],
        tune: TuneMode::Quick,
        trials: Some(7),
        budget_s: None,
        tune_at: vec![1, 32],
        accuracy: Accuracy::Default,
        precision: Precision::Fp32,
        threads: Some(2),
        allow_vendor: false,
        samples: None,
    }
}

pub(crate) fn device(name: &str) -> Device {
    Device { kind: DeviceKind::Cpu, name: name.to_owned(), cores: 2, detail: "1/2/3".to_owned(), targets: vec![V3] }
}

pub(crate) fn profile(seconds: f64, at: i64) -> Profile {
    let samples = vec![seconds; 20];
    Profile {
        target: V3,
        device: device("cpu"),
        point: [("batch".to_owned(), 1)].into(),
        threads: 2,
        latency: Quantiles::of(&samples).unwrap(),
        samples,
        steps: vec![],
        tools: [].into(),
        at,
    }
}

pub(crate) fn build(n: usize) -> WorkSpec {
    let source = Digest::of(format!("source {n}"));
    WorkSpec::Build(BuildSpec { source, target: V3, flags: Vec::new(), toolchain: "gcc-1".to_owned() })
}

pub(crate) fn profiling(n: usize) -> WorkSpec {
    let spec = ProfileSpec {
        artifact: Digest::of(format!("artifact {n}")),
        target: V3,
        check: Digest::of("check"),
        tolerance_e9: 10_000,
        points: vec![[("batch".to_owned(), 1)].into()],
        threads: 2,
        budget_ms: 600,
    };
    WorkSpec::Profile { spec, device: device("cpu").fingerprint() }
}

/// Bytes that zstd cannot shrink.
pub(crate) fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 1_u64;
    (0..bytes)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect()
}
