//! The main loop: claim → execute → report, with heartbeats beside it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aotfarm_protocol::{
    Capabilities, ClaimRequest, ErrorCode, Heartbeat, Lease, Registered, Report, WorkItemId, WorkResult, WorkSpec, WorkerId,
};
use backon::{BackoffBuilder, ExponentialBuilder};
use futures_util::future::BoxFuture;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::exec::ExecError;
use crate::farm::{FIRST_PAUSE, Farm, FarmError, PAUSES};
use crate::sandbox::chain;
use crate::turns::Turns;

/// Does work items; the edge at which tests of the loop put a fake.
pub(crate) trait Execute: Send + Sync + 'static {
    /// The result, and how long the work took.
    fn execute<'a>(
        &'a self,
        spec: &'a WorkSpec,
        cancel: &'a CancellationToken,
    ) -> BoxFuture<'a, (Result<WorkResult, ExecError>, Duration)>;
}

/// Why a worker left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It was told to.
    Shutdown,
    /// There was no work for as long as it was told to wait.
    Idle,
    /// The coordinator asked it to leave.
    Drained,
}

/// The coordinator stayed away for longer than the worker waits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("gave up after {} s: {reason}", .after.as_secs())]
pub struct GaveUp {
    /// How long the worker waited.
    pub after: Duration,
    /// What the last try came to.
    pub reason: String,
}

/// When workers had something to do: shared by those of a group.
#[derive(Debug, Clone)]
pub struct Activity(Arc<Mutex<(usize, Instant)>>);

impl Default for Activity {
    fn default() -> Self {
        Self(Arc::new(Mutex::new((0, Instant::now()))))
    }
}

impl Activity {
    fn state(&self) -> MutexGuard<'_, (usize, Instant)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Work has just been seen.
    fn touch(&self) {
        self.state().1 = Instant::now();
    }

    /// Work begins; it ends when the value is dropped.
    fn begin(&self) -> Busy {
        self.state().0 += 1;
        Busy(self.clone())
    }

    /// How long nobody has had work.
    fn idle(&self) -> Duration {
        let (running, since) = *self.state();
        if running > 0 { Duration::ZERO } else { since.elapsed() }
    }
}

/// See [`Activity::begin`].
struct Busy(Activity);

impl Drop for Busy {
    fn drop(&mut self) {
        let mut state = self.0.state();
        *state = (state.0 - 1, Instant::now());
    }
}

/// What the loop needs to know.
pub(crate) struct Runner<E> {
    pub(crate) farm: Arc<dyn Farm>,
    pub(crate) executor: Arc<E>,
    pub(crate) capabilities: Capabilities,
    pub(crate) turns: Turns,
    pub(crate) idle_exit: Option<Duration>,
    pub(crate) activity: Activity,
    pub(crate) give_up: Duration,
}

/// What the loop and its tasks share.
#[derive(Default)]
struct Shared {
    leases: Mutex<HashMap<WorkItemId, Held>>,
    drain: AtomicBool,
    /// The coordinator does not know this worker any more.
    unknown: AtomicBool,
    /// One of the two above has changed.
    news: Notify,
}

struct Held {
    generation: i64,
    exclusive: bool,
    cancel: CancellationToken,
}

impl Shared {
    fn leases(&self) -> MutexGuard<'_, HashMap<WorkItemId, Held>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many shared items run, and whether an exclusive one does.
    fn running(&self) -> (u32, bool) {
        let leases = self.leases();
        let shared = leases.values().filter(|held| !held.exclusive).count();
        (u32::try_from(shared).unwrap_or(u32::MAX), leases.len() > shared)
    }

    fn cancel_all(&self) {
        self.leases().values().for_each(|held| held.cancel.cancel());
    }

    fn forget_worker(&self) {
        self.unknown.store(true, Ordering::Release);
        // Who does not know the worker has given its items to others.
        self.cancel_all();
        self.news.notify_one();
    }
}

/// Takes the lease off the list however its task ends.
struct Holding {
    shared: Arc<Shared>,
    item: WorkItemId,
    generation: i64,
}

impl Drop for Holding {
    fn drop(&mut self) {
        let mut leases = self.shared.leases();
        // The same item may have been given to this worker again meanwhile.
        if leases.get(&self.item).is_some_and(|held| held.generation == self.generation) {
            leases.remove(&self.item);
        }
    }
}

/// Waits that grow while the coordinator is away, and end after a while.
struct Patience {
    since: Option<Instant>,
    pauses: <ExponentialBuilder as BackoffBuilder>::Backoff,
    limit: Duration,
}

impl Patience {
    fn new(limit: Duration) -> Self {
        Self { since: None, pauses: PAUSES.build(), limit }
    }

    fn reset(&mut self) {
        *self = Self::new(self.limit);
    }

    /// The next pause, or the end of patience.
    fn pause(&mut self, reason: &str) -> Result<Duration, GaveUp> {
        let waited = self.since.get_or_insert_with(Instant::now).elapsed();
        let pause = self.pauses.next().filter(|_| waited < self.limit);
        let pause = pause.ok_or_else(|| GaveUp { after: waited, reason: reason.to_owned() })?;
        tracing::warn!(retry_in_ms = pause.as_millis() as u64, reason, "the coordinator does not answer; trying again");
        Ok(pause)
    }
}

impl<E: Execute> Runner<E> {
    /// Works until told to stop, then returns the leases and leaves.
    pub(crate) async fn run(mut self, shutdown: &CancellationToken) -> Result<Exit, GaveUp> {
        let shared = Arc::new(Shared::default());
        let mut jobs = JoinSet::new();
        let mut worker = None;
        let exit = self.work(shutdown, &shared, &mut jobs, &mut worker).await;
        if !matches!(exit, Ok(Exit::Drained | Exit::Idle)) {
            shared.cancel_all();
        }
        while let Some(done) = jobs.join_next().await {
            note_panic(done);
        }
        if let (Ok(_), Some(worker)) = (&exit, worker)
            && let Err(error) = self.farm.leave(worker).await
        {
            tracing::info!(%error, "could not say good-bye; the leases run out by themselves");
        }
        exit
    }

    async fn work(
        &mut self,
        shutdown: &CancellationToken,
        shared: &Arc<Shared>,
        jobs: &mut JoinSet<()>,
        known_as: &mut Option<WorkerId>,
    ) -> Result<Exit, GaveUp> {
        let (start, mut patience) = (Instant::now(), Patience::new(self.give_up));
        let (mut worker, mut _heart) = match self.register(shutdown, shared, &mut patience).await? {
            Some(registered) => registered,
            None => return Ok(Exit::Shutdown),
        };
        *known_as = Some(worker);
        loop {
            while let Some(done) = jobs.try_join_next() {
                note_panic(done);
                self.activity.touch();
            }
            if shutdown.is_cancelled() {
                return Ok(Exit::Shutdown);
            }
            if shared.drain.load(Ordering::Acquire) {
                return Ok(Exit::Drained);
            }
            if shared.unknown.swap(false, Ordering::AcqRel) {
                tracing::warn!(worker.id = %worker, "the coordinator has forgotten this worker; registering anew");
                while let Some(done) = jobs.join_next().await {
                    note_panic(done);
                }
                let Some(again) = self.register(shutdown, shared, &mut patience).await? else { return Ok(Exit::Shutdown) };
                (worker, _heart) = again;
                *known_as = Some(worker);
            }
            let (running, exclusive_runs) = shared.running();
            let ask = self.turns.ask(running, exclusive_runs, start.elapsed());
            let Some(mut ask) = ask else {
                tokio::select! {
                    () = shutdown.cancelled() => {}
                    () = shared.news.notified() => {}
                    done = jobs.join_next() => done.into_iter().for_each(note_panic),
                }
                self.activity.touch();
                continue;
            };
            if let Some(limit) = self.idle_exit {
                let left = limit.saturating_sub(self.activity.idle());
                if left.is_zero() {
                    return Ok(Exit::Idle);
                }
                ask.wait = ask.wait.min(left);
            }
            let request = ClaimRequest { kinds: ask.kinds, max: ask.max, wait_ms: ask.wait.as_millis() as u64 };
            let asked = Instant::now();
            let claimed = tokio::select! {
                () = shutdown.cancelled() => continue,
                () = shared.news.notified() => continue,
                claimed = self.farm.claim(worker, &request) => claimed,
            };
            match claimed {
                Ok(response) => {
                    patience.reset();
                    self.turns.answered();
                    let none = response.leases.is_empty();
                    for lease in response.leases {
                        self.begin(worker, lease, shared, jobs);
                    }
                    // A coordinator that does not wait must not be asked in a busy loop.
                    if none && asked.elapsed() < FIRST_PAUSE.min(ask.wait) {
                        rest(FIRST_PAUSE, shutdown).await;
                    }
                }
                Err(FarmError::Refused(e)) if e.code == ErrorCode::NotFound => shared.forget_worker(),
                Err(error) => rest(patience.pause(&error.to_string())?, shutdown).await,
            }
        }
    }

    /// Introduces the worker until the coordinator answers, and starts its heart; `None` if told to stop meanwhile.
    async fn register(
        &self,
        shutdown: &CancellationToken,
        shared: &Arc<Shared>,
        patience: &mut Patience,
    ) -> Result<Option<(WorkerId, DropGuard)>, GaveUp> {
        loop {
            let registered = tokio::select! {
                () = shutdown.cancelled() => return Ok(None),
                registered = self.farm.register(&self.capabilities) => registered,
            };
            match registered {
                Ok(Registered { worker, heartbeat_ms }) => {
                    patience.reset();
                    tracing::info!(worker.id = %worker, "registered");
                    let stop = CancellationToken::new();
                    let every = Duration::from_millis(heartbeat_ms.clamp(10, 60_000));
                    let beat = beat(self.farm.clone(), shared.clone(), worker, every);
                    let stopped = stop.clone();
                    tokio::spawn(async move { stopped.run_until_cancelled(beat).await });
                    return Ok(Some((worker, stop.drop_guard())));
                }
                Err(error) => rest(patience.pause(&error.to_string())?, shutdown).await,
            }
        }
    }

    fn begin(&self, worker: WorkerId, lease: Lease, shared: &Arc<Shared>, jobs: &mut JoinSet<()>) {
        let cancel = CancellationToken::new();
        let kind = lease.spec.kind();
        let held = Held { generation: lease.generation, exclusive: kind.is_exclusive(), cancel: cancel.clone() };
        shared.leases().insert(lease.item, held);
        let holding = Holding { shared: shared.clone(), item: lease.item, generation: lease.generation };
        let (farm, executor, give_up) = (self.farm.clone(), self.executor.clone(), self.give_up);
        let busy = self.activity.begin();
        jobs.spawn(async move {
            let (_holding, _busy) = (holding, busy);
            tracing::debug!(item.id = %lease.item, item.kind = ?kind, lease.generation, "begun");
            let (result, run) = executor.execute(&lease.spec, &cancel).await;
            if cancel.is_cancelled() || matches!(result, Err(ExecError::Cancelled)) {
                return tracing::info!(item.id = %lease.item, item.kind = ?kind, "the lease was lost; dropped");
            }
            let result = result.map_err(|e| chain(&e));
            if let Err(reason) = &result {
                tracing::warn!(item.id = %lease.item, item.kind = ?kind, reason, "could not be done here");
            }
            let report = Report { worker, generation: lease.generation, run_ms: run.as_millis() as u64, result };
            deliver(&*farm, lease.item, &report, &cancel, give_up).await;
        });
    }
}

/// Reports until the coordinator has taken it, refuses it, or the lease is lost: it may be restarting.
async fn deliver(farm: &dyn Farm, item: WorkItemId, report: &Report, cancel: &CancellationToken, give_up: Duration) {
    let mut patience = Patience::new(give_up);
    loop {
        let told = tokio::select! {
            () = cancel.cancelled() => return,
            told = farm.report(item, report) => told,
        };
        match told {
            Ok(()) => return,
            Err(FarmError::Refused(error)) => return tracing::warn!(item.id = %item, %error, "the report was not taken"),
            Err(error @ FarmError::Away(_)) => match patience.pause(&error.to_string()) {
                Ok(pause) => rest(pause, cancel).await,
                Err(error) => return tracing::error!(item.id = %item, %error, "the result is lost"),
            },
        }
    }
}

/// Says again and again that the worker lives and what it runs.
async fn beat(farm: Arc<dyn Farm>, shared: Arc<Shared>, worker: WorkerId, every: Duration) {
    let mut tick = tokio::time::interval(every);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let leases = shared.leases().iter().map(|(item, held)| (*item, held.generation)).collect();
        let sent = Heartbeat { leases };
        match farm.heartbeat(worker, &sent).await {
            Ok(answer) => {
                for item in answer.lost {
                    // Only the generation that was asked about is lost; a later one may have come meanwhile.
                    let asked = sent.leases.iter().find(|(i, _)| *i == item).map(|(_, generation)| *generation);
                    if let Some(held) = shared.leases().get(&item).filter(|held| Some(held.generation) == asked) {
                        held.cancel.cancel();
                    }
                }
                if answer.drain && !shared.drain.swap(true, Ordering::AcqRel) {
                    tracing::info!("the coordinator asks this worker to leave; finishing");
                    shared.news.notify_one();
                }
            }
            Err(FarmError::Refused(e)) if e.code == ErrorCode::NotFound => return shared.forget_worker(),
            // The claims and reports wait for it to come back; the leases live as long as the coordinator says.
            Err(error) => tracing::debug!(%error, "a heartbeat was not heard"),
        }
    }
}

async fn rest(pause: Duration, stop: &CancellationToken) {
    stop.run_until_cancelled(tokio::time::sleep(pause)).await;
}

fn note_panic(done: Result<(), tokio::task::JoinError>) {
    if let Err(error) = done {
        tracing::error!(%error, "an item ended in a defect of the worker; its lease will run out");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::path::Path;
    use std::sync::atomic::{AtomicU32, AtomicUsize};

    use aotfarm_protocol::{ApiError, BuildSpec, ClaimResponse, Digest, HeartbeatResponse, ProfileSpec, Target, WorkKind};
    use futures_util::FutureExt;

    use super::*;

    /// A coordinator in memory.
    #[derive(Default)]
    struct FakeFarm {
        queue: Mutex<VecDeque<WorkSpec>>,
        lost: Mutex<Vec<WorkItemId>>,
        reports: Mutex<Vec<(WorkItemId, Report)>>,
        /// So many reports are not answered.
        away: AtomicU32,
        /// So many claims are refused because the worker is not known.
        forgetful: AtomicU32,
        drain: AtomicBool,
        registered: AtomicU32,
        left: AtomicU32,
    }

    fn take_one(n: &AtomicU32) -> bool {
        n.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| n.checked_sub(1)).is_ok()
    }

    impl Farm for FakeFarm {
        fn register<'a>(&'a self, _: &'a Capabilities) -> BoxFuture<'a, Result<Registered, FarmError>> {
            self.registered.fetch_add(1, Ordering::AcqRel);
            async { Ok(Registered { worker: WorkerId(uuid::Uuid::now_v7()), heartbeat_ms: 10 }) }.boxed()
        }

        fn claim<'a>(&'a self, _: WorkerId, request: &'a ClaimRequest) -> BoxFuture<'a, Result<ClaimResponse, FarmError>> {
            async {
                if take_one(&self.forgetful) {
                    return Err(FarmError::Refused(ApiError::new(ErrorCode::NotFound, "no such worker")));
                }
                let mut leases = Vec::new();
                {
                    let mut queue = self.queue.lock().unwrap();
                    while leases.len() < request.max as usize {
                        let Some(at) = queue.iter().position(|s| request.kinds.contains(&s.kind())) else { break };
                        let spec = queue.remove(at).unwrap();
                        leases.push(Lease { item: spec.id(), generation: 1, expires_in_ms: 1000, spec });
                    }
                }
                if leases.is_empty() {
                    tokio::time::sleep(Duration::from_millis(request.wait_ms.min(20))).await;
                }
                Ok(ClaimResponse { leases })
            }
            .boxed()
        }

        fn heartbeat<'a>(&'a self, _: WorkerId, beat: &'a Heartbeat) -> BoxFuture<'a, Result<HeartbeatResponse, FarmError>> {
            let lost =
                self.lost.lock().unwrap().iter().filter(|i| beat.leases.iter().any(|(item, _)| item == *i)).copied().collect();
            let drain = self.drain.load(Ordering::Acquire);
            async move { Ok(HeartbeatResponse { lost, drain }) }.boxed()
        }

        fn report<'a>(&'a self, item: WorkItemId, report: &'a Report) -> BoxFuture<'a, Result<(), FarmError>> {
            let answer = if take_one(&self.away) {
                Err(FarmError::Away("connection refused".to_owned()))
            } else {
                self.reports.lock().unwrap().push((item, report.clone()));
                Ok(())
            };
            async { answer }.boxed()
        }

        fn leave(&self, _: WorkerId) -> BoxFuture<'_, Result<(), FarmError>> {
            self.left.fetch_add(1, Ordering::AcqRel);
            async { Ok(()) }.boxed()
        }

        fn download<'a>(&'a self, _: Digest, _: &'a Path) -> BoxFuture<'a, Result<(), FarmError>> {
            async { Err(FarmError::Away("no blobs here".to_owned())) }.boxed()
        }

        fn upload<'a>(&'a self, _: Digest, _: &'a Path) -> BoxFuture<'a, Result<(), FarmError>> {
            async { Err(FarmError::Away("no blobs here".to_owned())) }.boxed()
        }
    }

    /// Takes a moment for everything, except for the source [`ENDLESS`], and notes what runs at the same time.
    #[derive(Default)]
    struct FakeExecutor {
        shared: AtomicUsize,
        exclusive: AtomicUsize,
        overlap: AtomicBool,
        begun: Notify,
    }

    const ENDLESS: &[u8] = b"endless";

    impl Execute for FakeExecutor {
        fn execute<'a>(
            &'a self,
            spec: &'a WorkSpec,
            cancel: &'a CancellationToken,
        ) -> BoxFuture<'a, (Result<WorkResult, ExecError>, Duration)> {
            async move {
                let count = if spec.kind().is_exclusive() { &self.exclusive } else { &self.shared };
                count.fetch_add(1, Ordering::AcqRel);
                let (shared, exclusive) = (self.shared.load(Ordering::Acquire), self.exclusive.load(Ordering::Acquire));
                if exclusive > 1 || exclusive == 1 && shared > 0 {
                    self.overlap.store(true, Ordering::Release);
                }
                self.begun.notify_one();
                let result = match spec {
                    WorkSpec::Build(b) if b.source == Digest::of(ENDLESS) => {
                        cancel.cancelled().await;
                        Err(ExecError::Cancelled)
                    }
                    WorkSpec::Build(b) => Ok(WorkResult::Built { object: b.source }),
                    _ => Ok(WorkResult::Profiled { profiles: vec![], error: 0.0 }),
                };
                tokio::time::sleep(Duration::from_millis(2)).await;
                count.fetch_sub(1, Ordering::AcqRel);
                (result, Duration::from_millis(2))
            }
            .boxed()
        }
    }

    fn build(source: &[u8]) -> WorkSpec {
        WorkSpec::Build(BuildSpec {
            source: Digest::of(source),
            target: Target::CPUS[0],
            flags: vec![],
            toolchain: "gcc".to_owned(),
        })
    }

    fn profile(n: u64) -> WorkSpec {
        let spec = ProfileSpec {
            artifact: Digest::of(b"a"),
            target: Target::CPUS[0],
            check: Digest::of(b"c"),
            tolerance_e9: n,
            points: vec![],
            threads: 1,
            budget_ms: 1,
        };
        WorkSpec::Profile { spec, device: Digest::of(b"d") }
    }

    fn runner(farm: &Arc<FakeFarm>, executor: &Arc<FakeExecutor>, idle_exit: Option<Duration>) -> Runner<FakeExecutor> {
        let capabilities = Capabilities {
            host: "test".to_owned(),
            version: "0".to_owned(),
            slots: 3,
            toolchains: vec![],
            device: None,
            labels: vec![],
        };
        Runner {
            farm: farm.clone(),
            executor: executor.clone(),
            capabilities,
            turns: Turns::new(vec![WorkKind::Build, WorkKind::Link], vec![WorkKind::Measure, WorkKind::Profile], 3),
            idle_exit,
            activity: Activity::default(),
            give_up: Duration::from_secs(30),
        }
    }

    const SOON: Option<Duration> = Some(Duration::from_millis(100));

    #[tokio::test]
    async fn work_is_done_once_and_exclusive_work_runs_alone() {
        let (farm, executor) = (Arc::new(FakeFarm::default()), Arc::new(FakeExecutor::default()));
        let specs: Vec<WorkSpec> = (0..30).map(|n| if n % 5 == 4 { profile(n) } else { build(&[n as u8]) }).collect();
        farm.queue.lock().unwrap().extend(specs.iter().cloned());
        farm.away.store(2, Ordering::Release);
        let exit = runner(&farm, &executor, SOON).run(&CancellationToken::new()).await;
        assert_eq!(exit, Ok(Exit::Idle));
        let mut reported: Vec<_> = farm.reports.lock().unwrap().iter().map(|(item, _)| *item).collect();
        let mut all: Vec<_> = specs.iter().map(WorkSpec::id).collect();
        reported.sort();
        all.sort();
        assert_eq!(reported, all, "each exactly once, also those whose first report was not heard");
        assert!(!executor.overlap.load(Ordering::Acquire));
        assert_eq!(farm.left.load(Ordering::Acquire), 1);
    }

    #[tokio::test]
    async fn a_lost_lease_is_dropped_without_a_report() {
        let (farm, executor) = (Arc::new(FakeFarm::default()), Arc::new(FakeExecutor::default()));
        farm.lost.lock().unwrap().push(build(ENDLESS).id());
        farm.queue.lock().unwrap().extend([build(ENDLESS), build(b"other")]);
        // It ends at all only because the endless item was cancelled.
        assert_eq!(runner(&farm, &executor, SOON).run(&CancellationToken::new()).await, Ok(Exit::Idle));
        let reports = farm.reports.lock().unwrap();
        assert_eq!(reports.iter().map(|(item, _)| *item).collect::<Vec<_>>(), [build(b"other").id()]);
    }

    #[tokio::test]
    async fn a_forgotten_worker_registers_anew() {
        let (farm, executor) = (Arc::new(FakeFarm::default()), Arc::new(FakeExecutor::default()));
        farm.forgetful.store(2, Ordering::Release);
        farm.queue.lock().unwrap().push_back(build(b"x"));
        assert_eq!(runner(&farm, &executor, SOON).run(&CancellationToken::new()).await, Ok(Exit::Idle));
        assert_eq!(farm.registered.load(Ordering::Acquire), 3);
        assert_eq!(farm.reports.lock().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_drained_worker_finishes_and_leaves() {
        let (farm, executor) = (Arc::new(FakeFarm::default()), Arc::new(FakeExecutor::default()));
        farm.drain.store(true, Ordering::Release);
        assert_eq!(runner(&farm, &executor, None).run(&CancellationToken::new()).await, Ok(Exit::Drained));
        assert_eq!(farm.left.load(Ordering::Acquire), 1);
    }

    #[tokio::test]
    async fn shutdown_cancels_what_runs_and_gives_it_back() {
        let (farm, executor) = (Arc::new(FakeFarm::default()), Arc::new(FakeExecutor::default()));
        farm.queue.lock().unwrap().push_back(build(ENDLESS));
        let shutdown = CancellationToken::new();
        let (stop, begun) = (shutdown.clone(), executor.clone());
        let (exit, ()) = tokio::join!(runner(&farm, &executor, None).run(&shutdown), async move {
            begun.begun.notified().await;
            stop.cancel();
        });
        assert_eq!(exit, Ok(Exit::Shutdown));
        assert!(farm.reports.lock().unwrap().is_empty());
        assert_eq!(farm.left.load(Ordering::Acquire), 1);
    }

    #[tokio::test]
    async fn patience_ends_with_the_last_reason() {
        let mut patience = Patience::new(Duration::ZERO);
        let error = patience.pause("connection refused").unwrap_err().to_string();
        assert!(error.contains("connection refused"), "{error}");
        let mut patience = Patience::new(Duration::from_secs(60));
        let pauses: Vec<_> = (0..8).map(|_| patience.pause("x").unwrap().as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
    }
}
