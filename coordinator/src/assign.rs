//! Who gets which work: a pure function from a snapshot of the queue and of one claiming worker to assignments.
//!
//! **Measuring on a CPU is exclusive on a host.** Two workers on one machine share its caches, its memory bus and its
//! clock, whether or not they share a core. So an exclusive item ([`WorkKind::is_exclusive`]) for a
//! CPU is given out only while *no* worker of that host has a lease of any kind, and while one
//! runs, no worker of that host gets anything. One for a GPU needs only that its own worker
//! measures nothing else: builds go on beside it. Hosts are told apart by [`Capabilities::host`].
//!
//! **Builds do not starve measuring.** A host with a free slot would take one more Build for ever. So an exclusive item that
//! has waited for [`PATIENCE_MS`] closes the hosts that could run it for shared work: they drain, run it, and open again.
//!
//! **Jobs are served fairly.** The next item goes to the job with the fewest leases, the oldest first among equals; inside a
//! job in order of arrival.
//!
//! [`Capabilities::host`]: aotfarm_protocol::Capabilities::host

use std::collections::{BTreeMap, BTreeSet};

use aotfarm_protocol::{Digest, JobId, Target, Toolchain, WorkItemId, WorkKind};
use aotfarm_store::QueuedItem;

/// How long an exclusive item waits before hosts stop taking shared work for its sake.
pub const PATIENCE_MS: i64 = 6_000;

/// Whether something with these compilers and this device can do an item.
pub fn suits(item: &QueuedItem, toolchains: &[Toolchain], device: Option<Digest>) -> bool {
    // The artifact of a GPU is linked by a C compiler, whatever GPU it is for.
    let links_gpu = |target: &Target| item.kind == WorkKind::Link && matches!(target, Target::Cuda { .. });
    let has = |(id, target): &(String, Target)| {
        toolchains.iter().any(|t| t.id == *id && (t.targets.contains(target) || links_gpu(target)))
    };
    let built = item.toolchain.as_ref().is_none_or(has);
    built && item.device.is_none_or(|needed| device == Some(needed))
}

/// What runs on the claiming worker's host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostLease {
    /// The kind.
    pub kind: WorkKind,
    /// Its worker measures on a GPU.
    pub gpu: bool,
    /// It is the claiming worker's own.
    pub own: bool,
}

impl HostLease {
    /// It needs the host's cores for itself.
    const fn is_alone(self) -> bool {
        self.kind.is_exclusive() && !self.gpu
    }
}

/// A snapshot: one claim and what it competes with.
#[derive(Debug, Clone, Default)]
pub struct AssignmentProblem {
    /// Compilers of the claiming worker.
    pub toolchains: Vec<Toolchain>,
    /// Device of the claiming worker.
    pub device: Option<Digest>,
    /// That device is a GPU: measuring on it needs the device alone, not the host.
    pub gpu: bool,
    /// The worker is being drained.
    pub draining: bool,
    /// Kinds that it has room for.
    pub kinds: Vec<WorkKind>,
    /// How many items it takes at most.
    pub max: u32,
    /// Leases on the worker's host, those of the worker included.
    pub host_leases: Vec<HostLease>,
    /// CPU devices of the live workers on that host.
    pub host_devices: BTreeSet<Digest>,
    /// What is queued and not cancelled.
    pub queued: Vec<QueuedItem>,
    /// Leases per job, on the whole farm.
    pub running: BTreeMap<JobId, u32>,
    /// How long a lease lives, in milliseconds.
    pub lease_ms: i64,
}

/// One item for the claiming worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The item.
    pub item: WorkItemId,
    /// When the lease ends, Unix milliseconds.
    pub expires_at: i64,
}

/// Decides which items the claiming worker gets at time `now` (Unix milliseconds): one exclusive item, or up to `max` shared ones.
/// What is exclusive on a CPU has the host for itself; on a GPU it has the device for itself, and builds go on beside it.
pub fn assign(problem: &AssignmentProblem, now: i64) -> Vec<Assignment> {
    if problem.draining || problem.max == 0 || problem.host_leases.iter().any(|lease| lease.is_alone()) {
        return Vec::new();
    }
    let idle = problem.host_leases.is_empty();
    let device_is_free = !problem.host_leases.iter().any(|lease| lease.own && lease.kind.is_exclusive());
    let closed = problem.queued.iter().any(|item| {
        item.kind.is_exclusive()
            && item.device.is_some_and(|device| problem.host_devices.contains(&device))
            && now - item.queued_at >= PATIENCE_MS
    });
    let eligible = |exclusive: bool| -> Vec<&QueuedItem> {
        let is_eligible = |item: &&QueuedItem| {
            item.kind.is_exclusive() == exclusive
                && problem.kinds.contains(&item.kind)
                && suits(item, &problem.toolchains, problem.device)
        };
        problem.queued.iter().filter(is_eligible).collect()
    };
    let shared = if closed { Vec::new() } else { eligible(false) };
    let chosen = if problem.gpu {
        // Nothing else can use the GPU, so what is for it goes first.
        let exclusive = if closed || !device_is_free { Vec::new() } else { eligible(true) };
        let (items, most) = if exclusive.is_empty() { (shared, problem.max as usize) } else { (exclusive, 1) };
        fairest(items, &problem.running, most)
    } else {
        match (shared.is_empty(), idle) {
            (false, _) => fairest(shared, &problem.running, problem.max as usize),
            (true, true) => fairest(eligible(true), &problem.running, 1),
            (true, false) => Vec::new(),
        }
    };
    chosen.into_iter().map(|item| Assignment { item: item.id, expires_at: now + problem.lease_ms }).collect()
}

/// Up to `max` of `items`, each for the job with the fewest leases at that moment.
fn fairest<'a>(mut items: Vec<&'a QueuedItem>, running: &BTreeMap<JobId, u32>, max: usize) -> Vec<&'a QueuedItem> {
    let mut running = running.clone();
    let mut chosen = Vec::new();
    while chosen.len() < max {
        let rank = |item: &QueuedItem| {
            let owner = item.jobs.iter().map(|job| (running.get(job).copied().unwrap_or(0), *job)).min();
            (owner, item.seq)
        };
        let Some(best) = (0..items.len()).min_by_key(|i| rank(items[*i])) else { break };
        let item = items.swap_remove(best);
        for job in &item.jobs {
            *running.entry(*job).or_default() += 1;
        }
        chosen.push(item);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use aotfarm_protocol::CpuIsa;
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    const V3: Target = Target::Cpu(CpuIsa::X86_64V3);
    const V4: Target = Target::Cpu(CpuIsa::X86_64V4);
    const ALL: [WorkKind; 5] = [WorkKind::Build, WorkKind::Measure, WorkKind::Link, WorkKind::ModelRace, WorkKind::Profile];

    fn job(n: u128) -> JobId {
        JobId(Uuid::from_u128(n))
    }

    fn cpu(kind: WorkKind) -> HostLease {
        HostLease { kind, gpu: false, own: false }
    }

    fn device() -> Digest {
        Digest::of("device")
    }

    fn item(seq: i64, kind: WorkKind, job_no: u128) -> QueuedItem {
        let exclusive = kind.is_exclusive();
        QueuedItem {
            id: WorkItemId(Digest::of(seq.to_le_bytes())),
            kind,
            toolchain: (!exclusive).then(|| ("gcc-1".to_owned(), V3)),
            device: exclusive.then(device),
            seq,
            queued_at: 0,
            jobs: vec![job(job_no)],
        }
    }

    fn problem(queued: Vec<QueuedItem>) -> AssignmentProblem {
        AssignmentProblem {
            toolchains: vec![Toolchain { id: "gcc-1".to_owned(), targets: vec![V3] }],
            device: Some(device()),
            kinds: ALL.to_vec(),
            max: 4,
            host_devices: [device()].into(),
            queued,
            lease_ms: 10_000,
            ..AssignmentProblem::default()
        }
    }

    /// The sequence numbers that are given out at time `now`.
    fn check(problem: &AssignmentProblem, now: i64, expected: &[i64]) {
        let got: Vec<i64> = assign(problem, now)
            .iter()
            .map(|a| {
                assert_eq!(a.expires_at, now + problem.lease_ms);
                problem.queued.iter().find(|i| i.id == a.item).unwrap().seq
            })
            .collect();
        assert_eq!(got, expected);
    }

    #[test]
    fn builds_come_in_batches_in_order() {
        let mut p = problem((1..=6).map(|n| item(n, WorkKind::Build, 1)).collect());
        check(&p, 0, &[1, 2, 3, 4]);
        p.max = 0;
        check(&p, 0, &[]);
    }

    #[test]
    fn capability_is_required() {
        let mut other_target = item(1, WorkKind::Build, 1);
        other_target.toolchain = Some(("gcc-1".to_owned(), V4));
        let mut other_compiler = item(2, WorkKind::Build, 1);
        other_compiler.toolchain = Some(("clang-1".to_owned(), V3));
        let mut other_device = item(3, WorkKind::Measure, 1);
        other_device.device = Some(Digest::of("other"));
        check(&problem(vec![other_target, other_compiler, other_device, item(4, WorkKind::Link, 1)]), 0, &[4]);
        let mut p = problem(vec![item(1, WorkKind::Build, 1), item(2, WorkKind::Link, 1)]);
        p.kinds = vec![WorkKind::Link];
        check(&p, 0, &[2]);
        p.draining = true;
        check(&p, 0, &[]);
    }

    #[test]
    fn the_job_with_fewest_leases_is_served_first() {
        let mut p = problem(vec![
            item(1, WorkKind::Build, 1),
            item(2, WorkKind::Build, 1),
            item(3, WorkKind::Build, 1),
            item(4, WorkKind::Build, 2),
            item(5, WorkKind::Build, 2),
        ]);
        check(&p, 0, &[1, 4, 2, 5]);
        p.running = [(job(1), 3)].into();
        check(&p, 0, &[4, 5, 1, 2]);
    }

    #[test]
    fn measuring_is_alone_on_its_host() {
        let mut p = problem(vec![item(1, WorkKind::Measure, 1), item(2, WorkKind::Measure, 1)]);
        check(&p, 0, &[1]);
        p.host_leases = vec![cpu(WorkKind::Build)];
        check(&p, 0, &[]);
        p.queued.push(item(3, WorkKind::Build, 1));
        p.host_leases = vec![cpu(WorkKind::Measure)];
        check(&p, 0, &[]);
        // Nor does a GPU of that host begin to measure.
        p.gpu = true;
        check(&p, 0, &[]);
    }

    #[test]
    fn a_gpu_measures_beside_builds_but_one_thing_at_a_time() {
        let queue = vec![item(1, WorkKind::Build, 1), item(2, WorkKind::Measure, 1), item(3, WorkKind::Measure, 1)];
        let mut p = AssignmentProblem { gpu: true, host_devices: BTreeSet::new(), ..problem(queue) };
        p.host_leases = vec![cpu(WorkKind::Build)];
        check(&p, 0, &[2]);
        check(&p, PATIENCE_MS, &[2]);
        // Another GPU of the host measures.
        p.host_leases.push(HostLease { kind: WorkKind::Measure, gpu: true, own: false });
        check(&p, 0, &[2]);
        // This one does.
        p.host_leases.push(HostLease { kind: WorkKind::Measure, gpu: true, own: true });
        check(&p, 0, &[1]);
        // Builds go on beside it; a CPU does not begin to measure.
        p.gpu = false;
        check(&p, 0, &[1]);
        p.kinds = vec![WorkKind::Measure];
        check(&p, 0, &[]);
    }

    #[test]
    fn waiting_measures_close_the_host_for_builds() {
        let mut p = problem(vec![item(1, WorkKind::Measure, 1), item(2, WorkKind::Build, 1)]);
        check(&p, PATIENCE_MS - 1, &[2]);
        check(&p, PATIENCE_MS, &[1]);
        // Another worker of the host still builds: drain first. It asks for builds only, and gets none.
        p.host_leases = vec![cpu(WorkKind::Build)];
        p.kinds = vec![WorkKind::Build];
        check(&p, PATIENCE_MS, &[]);
        // A host that has not the device goes on building.
        p.host_devices.clear();
        p.device = None;
        check(&p, PATIENCE_MS, &[2]);
    }

    fn queued_item() -> impl Strategy<Value = QueuedItem> {
        (0i64..1000, 0usize..4, 0u128..4, 0i64..5000)
            .prop_map(|(seq, kind, job_no, queued_at)| QueuedItem { queued_at, ..item(seq, ALL[kind], job_no) })
    }

    proptest! {
        /// Whatever the queue: no item twice, at most `max`, never an exclusive item beside anything else, nothing on a host
        /// that measures, and an idle worker never goes without while something suits it.
        #[test]
        fn assignments_are_legal(
            mut queued in prop::collection::vec(queued_item(), 0..20),
            leases in prop::collection::vec(0usize..4, 0..3),
            max in 1u32..6,
            now in 0i64..8000,
        ) {
            queued.sort_by_key(|i| i.seq);
            queued.dedup_by_key(|i| i.seq);
            let mut p = problem(queued);
            p.max = max;
            p.host_leases = leases.iter().map(|k| cpu(ALL[*k])).collect();
            let given = assign(&p, now);
            let kinds: Vec<_> = given.iter().map(|a| p.queued.iter().find(|i| i.id == a.item).unwrap().kind).collect();
            prop_assert!(given.len() <= max as usize);
            prop_assert_eq!(given.iter().map(|a| a.item).collect::<BTreeSet<_>>().len(), given.len());
            if kinds.iter().any(|k| k.is_exclusive()) {
                prop_assert_eq!(given.len(), 1);
                prop_assert!(p.host_leases.is_empty());
            }
            if p.host_leases.iter().any(|lease| lease.is_alone()) {
                prop_assert!(given.is_empty());
            }
            if p.host_leases.is_empty() {
                prop_assert_eq!(given.is_empty(), p.queued.is_empty());
            }
        }
    }
}
