//! The harness: a coordinator over a temporary folder, and fakes at its two edges.
//!
//! The fake compiler reads a "graph" that is a line of text: `specs=2 points=2 candidates=3 weights=a`. Every spec has that many
//! candidates, of the families `naive`, `fast` and `slow`; `weights` changes the artifact but no task. The fake worker does any
//! item at once; a candidate's time follows from its family and parameters. `units=6` spreads the candidates over so many units, `work=uneven` makes each spec
//! and each smaller point four times cheaper than the one before, with `legal=shrinking` each further point has one legal candidate less, with `tools=gpu` there are
//! tools for measuring. With `segments=faster` or `segments=slower` the model has batches of 1 and 8, of which
//! the large one takes longer for each image, and is so much faster or slower in segments.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use aotfarm_coordinator::planner::{
    Blueprint, CandidateOutline, Cast, Decision, LinkOutline, PlanError, SpecOutline, TaskOutline, TaskRef, VariantOutline,
};
use aotfarm_coordinator::{Clock, Config, Coordinator, Planner};
use aotfarm_protocol::*;
use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tower::ServiceExt as _;

pub(crate) const TARGET: Target = Target::Cpu(CpuIsa::X86_64V3);

#[derive(Default)]
pub(crate) struct FakeClock(AtomicI64);

impl FakeClock {
    pub(crate) fn forward(&self, ms: i64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for FakeClock {
    fn now_ms(&self) -> i64 {
        1_700_000_000_000 + self.0.load(Ordering::SeqCst)
    }
}

pub(crate) struct FakePlanner;

struct FakeBlueprint {
    variants: Vec<VariantOutline>,
    candidates: usize,
    /// How many units the candidates of a spec are spread over; without a number one for each family.
    units: Option<usize>,
    /// Each point has one legal candidate less than the one before.
    shrinking: bool,
    /// There are tools for measuring.
    tools: bool,
    /// The last candidate is a vendor's library: fast, and of no family.
    vendor: bool,
    /// The job allows the library to win, by an algorithm.
    allowed: bool,
    weights: String,
    /// What the graph says of segments.
    segments: Option<String>,
    graph: Digest,
}

impl Planner for FakePlanner {
    fn version(&self) -> String {
        "fake-1".to_owned()
    }

    fn plan(&self, graph: Bytes, request: &JobRequest) -> Result<Arc<dyn Blueprint>, PlanError> {
        let digest = Digest::of(&graph);
        let text = String::from_utf8(graph.to_vec()).map_err(|_| PlanError::new("the graph is not text"))?;
        let words: HashMap<&str, &str> = text.split(' ').filter_map(|w| w.split_once('=')).collect();
        let number = |key: &str| words.get(key).and_then(|n| n.parse::<usize>().ok()).ok_or(PlanError::new(format!("no {key}")));
        let (specs, points) = (number("specs")?, number("points")?);
        let flops = words.get("flops").and_then(|n| n.parse().ok()).unwrap_or(1e6);
        let uneven = words.get("work") == Some(&"uneven");
        let work =
            |spec: usize, point: usize| if uneven { flops * 0.25f64.powi(spec as i32) * f64::from(1 << point) } else { flops };
        let task = |target: Target, spec: usize, point: usize| TaskOutline {
            key: TaskKey(Digest::of(format!("task {spec} {point} {target}"))),
            // The last two specs, if there are so many, are kin.
            kin: (specs > 3 && spec >= specs - 2).then(|| Digest::of(format!("kin {point} {target}"))),
            likeness: Some(Likeness { class: Digest::of(format!("class {target}")), sizes: vec![1 + spec as i64, 1 << point] }),
            title: format!("op{spec}(n={})", 1 << point),
            point: BTreeMap::from([("n".to_owned(), 1 << point)]),
            calls: 1,
            flops: work(spec, point),
            footprint: 0,
            allowed: 1e-5,
        };
        let variant = |target: Target| VariantOutline {
            target,
            specs: (0..specs).map(|s| SpecOutline { tasks: (0..points).map(|p| task(target, s, p)).collect() }).collect(),
        };
        Ok(Arc::new(FakeBlueprint {
            variants: request.targets.iter().map(|t| variant(*t)).collect(),
            candidates: number("candidates")?,
            units: words.get("units").and_then(|n| n.parse().ok()),
            shrinking: words.get("legal") == Some(&"shrinking"),
            tools: words.get("tools") == Some(&"gpu"),
            vendor: words.contains_key("vendor"),
            allowed: request.allow_vendor,
            weights: words.get("weights").copied().unwrap_or_default().to_owned(),
            segments: words.get("segments").map(|word| (*word).to_owned()),
            graph: digest,
        }))
    }
}

impl FakeBlueprint {
    fn outline(&self, task: TaskRef) -> &TaskOutline {
        &self.variants[task.variant].specs[task.spec].tasks[task.point]
    }

    /// How many candidates a task has.
    fn legal(&self, task: TaskRef) -> usize {
        if self.shrinking { (self.candidates - task.point).max(1) } else { self.candidates }
    }

    fn numbered(&self, task: TaskRef, n: usize) -> CandidateOutline {
        let of_vendor = self.vendor && n + 1 == self.candidates;
        let family = if of_vendor { VENDOR } else { ["naive@1", "fast@1", "slow@1"][n.min(1 + n % 2)] };
        let unit = Digest::of(unit_text(task.spec, family, self.units.filter(|_| n > 0).map(|units| n % units)));
        CandidateOutline {
            id: CandidateId(Digest::of(format!("{} {n}", self.outline(task).key))),
            family: family.to_owned(),
            params: Params::from([("n".to_owned(), n as i64)]),
            unit,
        }
    }
}

const VENDOR: &str = "vendor@1";

const TOOLS: &str = "source of the tools";

fn unit_text(spec: usize, family: &str, number: Option<usize>) -> String {
    let number = number.map(|n| format!(", unit {n}")).unwrap_or_default();
    format!("source of {family} for spec {spec}{number}")
}

impl Blueprint for FakeBlueprint {
    fn variants(&self) -> &[VariantOutline] {
        &self.variants
    }

    fn candidates(&self, task: TaskRef, _: TuneMode, trials: Option<u32>) -> Vec<CandidateOutline> {
        let n = self.legal(task).min(trials.map_or(usize::MAX, |t| t as usize));
        (0..n).map(|n| self.numbered(task, n)).collect()
    }

    fn candidate(&self, task: TaskRef, family: &str, params: &Params) -> Option<CandidateOutline> {
        let n = params["n"] as usize;
        let legal = !self.shrinking || n < self.legal(task);
        Some(self.numbered(task, n)).filter(|c| legal && c.family == family && family != VENDOR)
    }

    fn alike(&self, task: TaskRef, family: &str, params: &Params) -> Option<CandidateOutline> {
        self.candidate(task, family, params)
    }

    fn siblings(&self, task: TaskRef, candidate: &CandidateOutline) -> Vec<CandidateOutline> {
        (0..self.legal(task)).map(|n| self.numbered(task, n)).filter(|c| c.unit == candidate.unit).collect()
    }

    fn reference(&self, task: TaskRef) -> CandidateOutline {
        self.numbered(task, 0)
    }

    fn tools(&self, _: usize) -> Option<Digest> {
        self.tools.then(|| Digest::of(TOOLS))
    }

    fn key_for(&self, task: TaskRef, _: Target) -> TaskKey {
        self.outline(task).key
    }

    fn source(&self, unit: Digest) -> String {
        let specs = self.variants[0].specs.len();
        let numbers = || std::iter::once(None).chain((0..self.units.unwrap_or(0)).map(Some));
        let families = ["naive@1", "fast@1", "slow@1", VENDOR];
        let texts = (0..specs).flat_map(|s| families.iter().flat_map(move |f| numbers().map(move |n| unit_text(s, f, n))));
        texts.chain([TOOLS.to_owned()]).find(|t| Digest::of(t) == unit).expect("a unit of this blueprint")
    }

    fn measure(
        &self,
        task: TaskRef,
        reference: (CandidateId, Digest),
        candidates: &[(CandidateId, Digest)],
        tools: Option<Digest>,
        protocol: MeasureProtocol,
        seed: u64,
    ) -> MeasureSpec {
        let all: Vec<CandidateOutline> = (0..self.candidates).map(|n| self.numbered(task, n)).collect();
        let call = |(id, object): &(CandidateId, Digest)| {
            let candidate = all.iter().find(|c| c.id == *id).expect("a candidate of this task");
            KernelCall {
                candidate: *id,
                label: format!("{} {}", candidate.family, candidate.params["n"]),
                object: *object,
                symbol: "k".to_owned(),
                dims: vec![],
                tune: vec![candidate.params["n"]],
                packed_bytes: 0,
                shared_bytes: 0,
                thread_bytes: 0,
                launch: None,
                vendor: None,
            }
        };
        MeasureSpec {
            task: self.outline(task).key,
            title: self.outline(task).title.clone(),
            operands: vec![],
            reference: call(&reference),
            candidates: candidates.iter().map(call).collect(),
            tools,
            tolerance: 1e-5,
            seed,
            protocol,
        }
    }

    fn select(
        &self,
        task: TaskRef,
        considered: &[CandidateId],
        outcomes: &[(CandidateId, Outcome)],
        beside: &[CandidateId],
    ) -> Decision {
        let time = |o: &Outcome| match o {
            Outcome::Measured(m) => Some(m.median()),
            _ => None,
        };
        let of_vendor = self.vendor.then(|| self.numbered(task, self.candidates - 1).id);
        let ours = outcomes.iter().filter(|(id, _)| Some(*id) != of_vendor);
        let best = ours.filter_map(|(id, o)| Some((time(o)?, *id))).min_by(|a, b| a.0.total_cmp(&b.0));
        let timed = outcomes.iter().filter(|(_, o)| time(o).is_some()).count() as u32;
        let all = (0..self.candidates).map(|n| self.numbered(task, n));
        let rows = considered
            .iter()
            .map(|id| {
                let row = all.clone().find(|c| c.id == *id).expect("a candidate of this task");
                let outcome = outcomes.iter().find(|(of, _)| of == id).map(|(_, outcome)| outcome.clone());
                AutotuneRow {
                    family: row.family,
                    params: row.params["n"].to_string(),
                    outcome: outcome.unwrap_or(Outcome::Unsupported { reason: "nothing is known".to_owned() }),
                    seconds: None,
                    verdict: format!("{} winners at other points", beside.len()),
                    baseline: false,
                }
            })
            .collect();
        let of_vendor = outcomes.iter().find(|(id, o)| self.allowed && Some(*id) == of_vendor && time(o).is_some());
        if of_vendor.is_some() {
            let params = Params::from([("algorithm".to_owned(), 3)]);
            let id = CandidateId(Digest::of("by algorithm 3"));
            let winner = CandidateOutline { id, params, ..self.numbered(task, self.candidates - 1) };
            return Decision { winner, measured: timed, dropped: 0, rows };
        }
        let winner = best.and_then(|(_, id)| all.clone().find(|c| c.id == id)).unwrap_or_else(|| self.reference(task));
        Decision { winner, measured: timed, dropped: 0, rows }
    }

    fn link(&self, variant: usize, cast: &Cast, untested: Option<String>) -> Result<LinkOutline, PlanError> {
        let winners = || cast.winners.iter().map(|(_, winner)| winner);
        let word = self.segments.as_deref().unwrap_or_default();
        let segments = cast.segments.iter().map(|s| format!("{:?} by {} is {word}\n", s.steps, s.images));
        let mut units: Vec<Digest> = winners().map(|w| w.unit).collect();
        units.sort();
        units.dedup();
        Ok(LinkOutline {
            glue: winners().map(|w| format!("{} {}\n", w.family, w.params["n"])).chain(segments).collect(),
            weights: self.weights.clone().into_bytes(),
            units,
            section_bytes: 0,
            packs: vec![],
            copies: vec![],
            metadata: ArtifactMetadata {
                precision: Default::default(),
                untested,
                libraries: vec![],
                target: self.variants[variant].target,
                graph: self.graph,
                compiler: "fake-1".to_owned(),
                dims: vec![DimRange { name: "n".to_owned(), min: 1, max: 8 }],
                inputs: vec![],
                outputs: vec![],
                steps: vec![],
                segments: cast.segments.clone(),
            },
            steps: (0..self.variants[variant].specs.len()).collect(),
            image_wise: vec![true; self.variants[variant].specs.len()],
        })
    }

    fn link_for_rehearsal(&self, variant: usize, cast: &Cast) -> Result<LinkOutline, PlanError> {
        Ok(LinkOutline { weights: vec![0; self.weights.len()], ..self.link(variant, cast, None)? })
    }

    fn check_case(&self) -> Result<Vec<u8>, PlanError> {
        Ok(format!("check {}", self.graph).into_bytes())
    }

    fn profile_points(&self) -> Vec<BTreeMap<String, i64>> {
        let sizes = if self.segments.is_some() { vec![1, 8] } else { vec![1] };
        sizes.into_iter().map(|n| BTreeMap::from([("n".to_owned(), n)])).collect()
    }
}

pub(crate) fn device() -> Device {
    Device { kind: DeviceKind::Cpu, name: "test cpu".to_owned(), cores: 2, detail: "1".to_owned(), targets: vec![TARGET] }
}

pub(crate) fn capabilities(host: &str) -> Capabilities {
    Capabilities {
        host: host.to_owned(),
        version: "0".to_owned(),
        slots: 2,
        toolchains: vec![Toolchain { id: "gcc-1".to_owned(), targets: vec![TARGET] }],
        device: Some(device()),
        labels: vec![],
    }
}

/// A coordinator over a folder.
pub(crate) struct Farm {
    pub(crate) coordinator: Coordinator,
    pub(crate) clock: Arc<FakeClock>,
    router: Router,
}

impl Farm {
    pub(crate) async fn open(dir: &Path, clock: Arc<FakeClock>) -> Self {
        let config = Config { data_dir: dir.to_owned(), ..Config::default() };
        let clock_ = Arc::clone(&clock) as Arc<dyn Clock>;
        let coordinator = Coordinator::open_with(config, Arc::new(FakePlanner), clock_).await.unwrap();
        let router = coordinator.router();
        Self { coordinator, clock, router }
    }

    pub(crate) async fn new(dir: &tempfile::TempDir) -> Self {
        Self::open(dir.path(), Arc::default()).await
    }

    pub(crate) async fn raw(&self, method: &str, path: &str, body: impl Into<Body>) -> (StatusCode, Bytes) {
        let request =
            Request::builder().method(method).uri(path).header("content-type", "application/json").body(body.into()).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        (status, axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap())
    }

    pub(crate) async fn call<T: DeserializeOwned>(&self, method: &str, path: &str, body: &impl Serialize) -> Result<T, ApiError> {
        let (status, bytes) = self.raw(method, path, serde_json::to_vec(body).unwrap()).await;
        if status.is_success() {
            Ok(serde_json::from_slice(&bytes).unwrap())
        } else {
            Err(serde_json::from_slice(&bytes).unwrap_or_else(|_| panic!("{status} {bytes:?}")))
        }
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> T {
        self.call("GET", path, &()).await.unwrap()
    }

    pub(crate) async fn request(&self, name: &str, graph: &str) -> JobRequest {
        let graph = self.coordinator.blobs().put(graph.to_owned()).await.unwrap();
        JobRequest {
            name: name.to_owned(),
            graph,
            targets: vec![TARGET],
            dims: vec![],
            tune: TuneMode::Quick,
            trials: None,
            budget_s: None,
            tune_at: vec![],
            accuracy: Accuracy::Default,
            precision: Default::default(),
            threads: None,
            allow_vendor: false,
        }
    }

    pub(crate) async fn submit(&self, name: &str, graph: &str) -> JobStatus {
        self.call("POST", "/v1/jobs", &self.request(name, graph).await).await.unwrap()
    }

    pub(crate) async fn status(&self, job: JobId) -> JobStatus {
        self.get(&format!("/v1/jobs/{job}")).await
    }

    pub(crate) async fn items(&self, job: JobId) -> Vec<ItemInfo> {
        self.get(&format!("/v1/jobs/{job}/items")).await
    }

    pub(crate) async fn log(&self, job: JobId) -> Vec<JobEvent> {
        let entries: Vec<JobLogEntry> = self.get(&format!("/v1/jobs/{job}/events")).await;
        let numbers: Vec<i64> = entries.iter().map(|e| e.seq).collect();
        assert_eq!(numbers, (1..=entries.len() as i64).collect::<Vec<_>>(), "events are numbered without gaps");
        entries.into_iter().map(|e| e.event).collect()
    }

    pub(crate) async fn worker(&self, host: &str) -> FakeWorker {
        let registered: Registered = self.call("POST", "/v1/workers", &capabilities(host)).await.unwrap();
        FakeWorker { id: registered.worker, ran: Mutex::default() }
    }

    /// Waits, by looking again and again, for something to become true.
    pub(crate) async fn wait_for<T>(&self, what: &str, mut look: impl AsyncFnMut(&Self) -> Option<T>) -> T {
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
        loop {
            if let Some(found) = look(self).await {
                return found;
            }
            assert!(tokio::time::Instant::now() < deadline, "waited in vain for {what}");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }

    pub(crate) async fn wait_for_state(&self, job: JobId, state: JobState) -> JobStatus {
        self.wait_for(&format!("{state}"), async |farm: &Self| Some(farm.status(job).await).filter(|s| s.state == state)).await
    }
}

/// A worker that does what it claims at once.
pub(crate) struct FakeWorker {
    pub(crate) id: WorkerId,
    /// What it did, in order.
    pub(crate) ran: Mutex<Vec<WorkKind>>,
}

pub(crate) const ALL: [WorkKind; 5] = [WorkKind::Build, WorkKind::Measure, WorkKind::Link, WorkKind::Rehearse, WorkKind::Profile];

impl FakeWorker {
    pub(crate) async fn claim(&self, farm: &Farm, kinds: &[WorkKind], max: u32) -> Vec<Lease> {
        let request = ClaimRequest { kinds: kinds.to_vec(), max, wait_ms: 50 };
        let response: ClaimResponse = farm.call("POST", &format!("/v1/workers/{}/claim", self.id), &request).await.unwrap();
        response.leases
    }

    /// Claims until there is something.
    pub(crate) async fn take(&self, farm: &Farm, kinds: &[WorkKind], max: u32) -> Vec<Lease> {
        farm.wait_for("a lease", async |farm: &Farm| Some(self.claim(farm, kinds, max).await).filter(|l| !l.is_empty())).await
    }

    pub(crate) async fn heartbeat(&self, farm: &Farm, leases: &[&Lease]) -> HeartbeatResponse {
        let heartbeat = Heartbeat { leases: leases.iter().map(|l| (l.item, l.generation)).collect() };
        farm.call("POST", &format!("/v1/workers/{}/heartbeat", self.id), &heartbeat).await.unwrap()
    }

    pub(crate) async fn report(&self, farm: &Farm, lease: &Lease, result: Result<WorkResult, String>) -> Result<(), ApiError> {
        let report = Report { worker: self.id, generation: lease.generation, run_ms: 7, result };
        farm.call("POST", &format!("/v1/items/{}/report", lease.item), &report).await
    }

    pub(crate) async fn finish(&self, farm: &Farm, lease: &Lease) -> Result<(), ApiError> {
        let result = execute(farm, &lease.spec).await;
        self.report(farm, lease, Ok(result)).await?;
        self.ran.lock().unwrap().push(lease.spec.kind());
        Ok(())
    }

    /// Works until the job has ended.
    pub(crate) async fn work(&self, farm: &Farm, job: JobId) -> JobStatus {
        farm.wait_for("the end of the job", async |farm: &Farm| {
            for lease in self.claim(farm, &ALL, 4).await {
                self.finish(farm, &lease).await.unwrap();
            }
            Some(farm.status(job).await).filter(|s| s.state.is_final())
        })
        .await
    }

    pub(crate) fn counts(&self) -> BTreeMap<WorkKind, usize> {
        let mut counts = BTreeMap::new();
        for kind in self.ran.lock().unwrap().iter() {
            *counts.entry(*kind).or_default() += 1;
        }
        counts
    }
}

/// Seconds of a candidate: `fast` beats `slow`, and small parameters beat large ones.
fn seconds(label: &str) -> f64 {
    let (family, n) = label.split_once(' ').unwrap();
    let base = match family {
        VENDOR => 5e-5,
        "fast@1" => 1e-4,
        "slow@1" => 1e-3,
        _ => 1e-2,
    };
    base * (1.0 + n.parse::<f64>().unwrap() / 100.0)
}

/// The outcomes of a Measure item: every candidate is right and takes as long as its label says.
pub(crate) fn measured(spec: &MeasureSpec) -> Vec<(CandidateId, Outcome)> {
    let outcome = |call: &KernelCall| {
        let samples = vec![seconds(&call.label); 3];
        (call.candidate, Outcome::Measured(Measurement { samples, raced: 3, error: 0.0, conditions: None, algorithm: None }))
    };
    spec.candidates.iter().map(outcome).collect()
}

pub(crate) async fn execute(farm: &Farm, spec: &WorkSpec) -> WorkResult {
    let blobs = farm.coordinator.blobs();
    match spec {
        WorkSpec::Build(build) => {
            let source = blobs.get(build.source).await.expect("the source is in the store");
            let object = blobs.put([b"object of ".as_slice(), &source].concat()).await.unwrap();
            WorkResult::Built { object }
        }
        WorkSpec::Measure { spec, device: fingerprint } => {
            assert_eq!(*fingerprint, device().fingerprint());
            WorkResult::Measured { outcomes: measured(spec) }
        }
        WorkSpec::Link(link) => {
            for object in &link.objects {
                blobs.get(*object).await.expect("the object is in the store");
            }
            let glue = String::from_utf8(blobs.get(link.glue).await.expect("the glue is in the store").to_vec()).unwrap();
            let artifact = blobs.put(format!("artifact {glue} {} {:?}", link.weights, link.objects)).await.unwrap();
            WorkResult::Linked { artifact, bytes: 100 }
        }
        WorkSpec::Rehearse { spec, .. } => {
            let mut texts = Vec::new();
            for artifact in &spec.artifacts {
                texts.push(String::from_utf8(blobs.get(*artifact).await.unwrap().to_vec()).unwrap());
            }
            let segments = |text: &String| match (text.contains("is faster"), text.contains("is slower")) {
                (true, _) => 0.7,
                (_, true) => 1.2,
                _ => 1.0,
            };
            // In the model the last rival is the fastest, by a tenth for each cast.
            let casts = |point: &BTreeMap<String, i64>| -> Vec<Vec<f64>> {
                let images = point["n"] as f64 * if point["n"] > 1 { 1.2 } else { 1.0 };
                let steps = |(k, text)| vec![1e-3 * images * segments(text) * (1.0 - 0.1 * k as f64); 8];
                texts.iter().enumerate().map(steps).collect()
            };
            WorkResult::Rehearsed { seconds: spec.points.iter().map(casts).collect() }
        }
        WorkSpec::Profile { spec, .. } => {
            blobs.get(spec.check).await.expect("the check case is in the store");
            let profile = |point: &BTreeMap<String, i64>| Profile {
                target: spec.target,
                device: device(),
                point: point.clone(),
                threads: spec.threads,
                latency: Quantiles::of(&[1e-3]).unwrap(),
                samples: vec![1e-3],
                steps: vec![],
                tools: BTreeMap::new(),
                at: 1,
            };
            WorkResult::Profiled { profiles: spec.points.iter().map(profile).collect(), error: 0.0 }
        }
    }
}
