//! The harness: a coordinator over a temporary folder, and fakes at its two edges.
//!
//! The fake compiler reads a "graph" that is a [`Script`]: `specs=2 points=2 candidates=3
//! weights=a`. `weights` changes the artifact but no task. With `segments=faster` or
//! `segments=slower` the model has batches of 1 and 8, of which the large one takes longer for each
//! image, and is so much faster or slower in segments. The fake worker does any item at once.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use aotfarm_coordinator::planner::{Blueprint, LinkOutline, Refusal};
use aotfarm_coordinator::{Clock, Config, Coordinator, Planner};
use aotfarm_protocol::*;
use aotfarm_search::testing::{Script, measured};
use aotfarm_search::{CandidateOutline, Configuration, SearchSpace, SelectionOutline, TaskRef, VariantOutline};
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

/// Its version.
pub(crate) struct FakePlanner(pub(crate) &'static str);

struct FakeBlueprint {
    script: Script,
    weights: String,
    /// What the graph says of segments.
    segments: Option<String>,
    graph: Digest,
}

impl Planner for FakePlanner {
    fn version(&self) -> String {
        self.0.to_owned()
    }

    fn plan(&self, graph: Bytes, request: &JobRequest) -> Result<Arc<dyn Blueprint>, Refusal> {
        let digest = Digest::of(&graph);
        let text = String::from_utf8(graph.to_vec()).map_err(|_| Refusal::new("the graph is not text"))?;
        let words: HashMap<&str, &str> = text.split(' ').filter_map(|w| w.split_once('=')).collect();
        Ok(Arc::new(FakeBlueprint {
            script: Script::parse(&text, &request.targets, request.allow_vendor).map_err(Refusal::new)?,
            weights: words.get("weights").copied().unwrap_or_default().to_owned(),
            segments: words.get("segments").map(|word| (*word).to_owned()),
            graph: digest,
        }))
    }
}

/// As the script says.
impl SearchSpace for FakeBlueprint {
    fn variants(&self) -> &[VariantOutline] {
        self.script.variants()
    }

    fn candidates(&self, task: TaskRef, mode: TuneMode, trials: Option<u32>) -> Vec<CandidateOutline> {
        self.script.candidates(task, mode, trials)
    }

    fn candidate(&self, task: TaskRef, family: &str, params: &Params) -> Option<CandidateOutline> {
        self.script.candidate(task, family, params)
    }

    fn transfer(&self, task: TaskRef, family: &str, params: &Params) -> Option<CandidateOutline> {
        self.script.transfer(task, family, params)
    }

    fn of_same_unit(&self, task: TaskRef, candidate: &CandidateOutline) -> Vec<CandidateOutline> {
        self.script.of_same_unit(task, candidate)
    }

    fn reference(&self, task: TaskRef) -> CandidateOutline {
        self.script.reference(task)
    }

    fn tools(&self, variant: usize) -> Option<Digest> {
        self.script.tools(variant)
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
        self.script.measure(task, reference, candidates, tools, protocol, seed)
    }

    fn select(
        &self,
        task: TaskRef,
        considered: &[CandidateId],
        outcomes: &[(CandidateId, Outcome)],
        at_other_points: &[CandidateId],
    ) -> SelectionOutline {
        self.script.select(task, considered, outcomes, at_other_points)
    }
}

impl Blueprint for FakeBlueprint {
    fn key_for(&self, task: TaskRef, _: Target) -> TaskKey {
        self.variants()[task.variant].specs[task.spec].tasks[task.point].key
    }

    fn source(&self, unit: Digest) -> String {
        self.script.source(unit)
    }

    fn link(&self, variant: usize, configuration: &Configuration, untested: Option<String>) -> Result<LinkOutline, Refusal> {
        let candidates = || configuration.candidates.iter().map(|(_, candidate)| candidate);
        let word = self.segments.as_deref().unwrap_or_default();
        let segments = configuration.segments.iter().map(|s| format!("{:?} by {} is {word}\n", s.steps, s.images));
        let mut units: Vec<Digest> = candidates().map(|c| c.unit).collect();
        units.sort();
        units.dedup();
        Ok(LinkOutline {
            glue: candidates().map(|c| format!("{} {}\n", c.family, c.params["n"])).chain(segments).collect(),
            weights: self.weights.clone().into_bytes(),
            units,
            section_bytes: 0,
            packs: vec![],
            copies: vec![],
            recipe: Digest::of("recipe"),
            metadata: ArtifactMetadata {
                precision: Default::default(),
                untested,
                libraries: vec![],
                target: self.variants()[variant].target,
                graph: self.graph,
                compiler: "fake-1".to_owned(),
                dims: vec![DimRange { name: "n".to_owned(), min: 1, max: 8 }],
                inputs: vec![],
                outputs: vec![],
                states: vec![],
                signature: None,
                steps: vec![],
                segments: configuration.segments.clone(),
            },
            steps: (0..self.variants()[variant].specs.len()).collect(),
            image_wise: vec![true; self.variants()[variant].specs.len()],
        })
    }

    fn link_for_race(&self, variant: usize, configuration: &Configuration) -> Result<LinkOutline, Refusal> {
        Ok(LinkOutline { weights: vec![0; self.weights.len()], ..self.link(variant, configuration, None)? })
    }

    fn check_case(&self, samples: Option<Bytes>) -> Result<Vec<u8>, Refusal> {
        let samples = samples.map(|text| String::from_utf8(text.to_vec()).unwrap());
        match samples.as_deref() {
            Some("do not fit") => Err(Refusal::new("the samples do not fit")),
            Some(samples) => Ok(format!("{samples} of {}", self.graph).into_bytes()),
            None => Ok(format!("check {}", self.graph).into_bytes()),
        }
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
        Self::open_with_compiler(dir, clock, "fake-1").await
    }

    pub(crate) async fn open_with_compiler(dir: &Path, clock: Arc<FakeClock>, version: &'static str) -> Self {
        let config = Config { data_dir: dir.to_owned(), ..Config::default() };
        let clock_ = Arc::clone(&clock) as Arc<dyn Clock>;
        let coordinator = Coordinator::open_with(config, Arc::new(FakePlanner(version)), clock_).await.unwrap();
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
        let graph = self.coordinator.blobs().put(graph.to_owned().into()).await.unwrap();
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
            samples: None,
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

pub(crate) const ALL: [WorkKind; 5] =
    [WorkKind::Build, WorkKind::Measure, WorkKind::Link, WorkKind::ModelRace, WorkKind::Profile];

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

pub(crate) async fn execute(farm: &Farm, spec: &WorkSpec) -> WorkResult {
    let blobs = farm.coordinator.blobs();
    match spec {
        WorkSpec::Build(build) => {
            let source = blobs.get(build.source).await.expect("the source is in the store");
            let object = blobs.put([b"object of ".as_slice(), &source].concat().into()).await.unwrap();
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
            let artifact = blobs.put(format!("artifact {glue} {} {:?}", link.weights, link.objects).into()).await.unwrap();
            WorkResult::Linked { artifact, bytes: 100 }
        }
        WorkSpec::ModelRace { spec, .. } => {
            let mut texts = Vec::new();
            for artifact in &spec.artifacts {
                texts.push(String::from_utf8(blobs.get(*artifact).await.unwrap().to_vec()).unwrap());
            }
            let segments = |text: &String| match (text.contains("is faster"), text.contains("is slower")) {
                (true, _) => 0.7,
                (_, true) => 1.2,
                _ => 1.0,
            };
            // In the model the last rival is the fastest, by a tenth for each configuration.
            let of_all = |point: &BTreeMap<String, i64>| -> Vec<Vec<f64>> {
                let images = point["n"] as f64 * if point["n"] > 1 { 1.2 } else { 1.0 };
                let steps = |(k, text)| vec![1e-3 * images * segments(text) * (1.0 - 0.1 * k as f64); 8];
                texts.iter().enumerate().map(steps).collect()
            };
            WorkResult::ModelRaced { seconds: spec.points.iter().map(of_all).collect() }
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
