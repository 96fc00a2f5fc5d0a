//! The real [`Planner`]: the compiler, with what it rendered kept by id while a job needs it.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::error::Error as StdError;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aotfarm_compiler::candidate::{self, Candidate, FAMILIES, TuningTask, measure, title};
use aotfarm_compiler::interp::Case;
use aotfarm_compiler::ir::{Bindings, Graph};
use aotfarm_compiler::link::{self, ArtifactInfo, SpecChoice};
use aotfarm_compiler::plan::{self, Plan, Step};
use aotfarm_compiler::select::Admission;
use aotfarm_compiler::{check_case, flops, import, passes, select, with_ranges};
use aotfarm_protocol::{
    Accuracy, CandidateId, Digest, JobRequest, MeasureProtocol, MeasureSpec, Outcome, Params, Target, TaskKey, TuneMode,
};
use aotfarm_search::{
    CandidateOutline, Configuration, SearchSpace, SelectionOutline, SpecOutline, TaskOutline, TaskRef, VariantOutline,
};
use bytes::Bytes;

use crate::error::chain;
use crate::planner::{Blueprint, LinkOutline, Planner, Refusal};

/// Plans with the compiler of this build.
#[derive(Debug, Clone, Copy, Default)]
pub struct CompilerPlanner;

impl Planner for CompilerPlanner {
    fn version(&self) -> String {
        aotfarm_compiler::VERSION.to_owned()
    }

    fn plan(&self, bytes: Bytes, request: &JobRequest) -> Result<Arc<dyn Blueprint>, Refusal> {
        let digest = Digest::of(&bytes);
        let graph = import::load(Arc::new(bytes), &request.name).map_err(fault)?;
        let graph = with_ranges(graph, &request.dims).map_err(|e| Refusal { hint: e.hint(), ..fault(e) })?;
        let lowered = passes::run(graph.clone(), None).map_err(fault)?;
        let variant =
            |target: &Target| Variant::new(plan::lower(lowered.clone(), *target, request.precision).map_err(fault)?, request);
        let variants = all(request.targets.iter().map(variant))?;
        let outlines = variants.iter().map(Variant::outline).collect();
        let info = ArtifactInfo { graph: digest, compiler: self.version(), untested: None };
        Ok(Arc::new(CompiledModel { graph, info, variants, outlines, memo: Mutex::default() }))
    }
}

/// All results, or all reasons, each of which is told once.
fn all<T>(results: impl Iterator<Item = Result<T, Refusal>>) -> Result<Vec<T>, Refusal> {
    let (mut found, mut refusals) = (Vec::new(), Vec::<Refusal>::new());
    for result in results {
        match result {
            Ok(value) => found.push(value),
            Err(refusal) if refusals.contains(&refusal) => {}
            Err(refusal) => refusals.push(refusal),
        }
    }
    let Some(first) = refusals.first() else { return Ok(found) };
    let message = refusals.iter().map(|refusal| refusal.message.as_str()).collect::<Vec<_>>().join("\n");
    Err(Refusal { message, hint: first.hint.clone() })
}

fn fault(error: impl StdError) -> Refusal {
    Refusal::new(chain(&error))
}

/// The plan for one target.
struct Variant {
    plan: Plan,
    specs: Vec<Spec>,
    accuracy: Accuracy,
    allow_vendor: bool,
}

/// A spec at its distinct tasks, from the smallest point to the largest.
struct Spec {
    /// Index into the plan's specs.
    index: usize,
    tasks: Vec<(Bindings, TuningTask, u32)>,
}

impl Variant {
    fn new(plan: Plan, request: &JobRequest) -> Result<Self, Refusal> {
        let mut specs: BTreeMap<usize, Spec> = BTreeMap::new();
        let mut missing: Vec<Result<(), Refusal>> = Vec::new();
        for point in plan.tune_points(&request.tune_at) {
            for found in candidate::tasks(&plan, &point).map_err(fault)? {
                if !FAMILIES.iter().any(|f| f.supports(&found.task).is_ok()) {
                    missing.push(Err(Refusal::new(format!("no kernel family implements {}", title(&found.task)))));
                }
                let spec = specs.entry(found.spec).or_insert_with(|| Spec { index: found.spec, tasks: Vec::new() });
                if !spec.tasks.iter().any(|(_, known, _)| known.point == found.task.point) {
                    spec.tasks.push((point.clone(), found.task, found.calls));
                }
            }
        }
        all(missing.into_iter())?;
        Ok(Self { plan, specs: specs.into_values().collect(), accuracy: request.accuracy, allow_vendor: request.allow_vendor })
    }

    fn outline(&self) -> VariantOutline {
        let task = |(point, task, calls): &(Bindings, TuningTask, u32)| TaskOutline {
            key: task.key(),
            core: task.core(),
            likeness: task.likeness(),
            title: title(task),
            point: named(point),
            calls: *calls,
            flops: flops::estimate(task),
            allowed: measure::allowed(task, self.accuracy),
            footprint: self.plan.footprint(point),
        };
        let specs = self.specs.iter().map(|s| SpecOutline { tasks: s.tasks.iter().map(task).collect() }).collect();
        VariantOutline { target: self.plan.target, specs }
    }
}

fn named(point: &Bindings) -> BTreeMap<String, i64> {
    point.iter().map(|(sym, size)| (sym.as_str().to_owned(), size)).collect()
}

/// What was rendered so far.
#[derive(Default)]
struct Memo {
    candidates: HashMap<CandidateId, Candidate>,
    units: HashMap<Digest, Arc<str>>,
    /// By task, whether the mode is full, and trials.
    lists: HashMap<(TaskRef, bool, Option<u32>), Vec<CandidateOutline>>,
}

impl Memo {
    fn add(&mut self, candidate: Candidate) -> CandidateOutline {
        let outline = CandidateOutline {
            id: candidate.id,
            family: candidate.family.to_owned(),
            params: candidate.params.clone(),
            unit: candidate.unit,
        };
        self.units.entry(candidate.unit).or_insert_with(|| candidate.source.text.as_str().into());
        self.candidates.entry(candidate.id).or_insert(candidate);
        outline
    }

    fn candidate(&self, id: CandidateId) -> &Candidate {
        self.candidates.get(&id).expect("candidates come from this blueprint")
    }
}

struct CompiledModel {
    /// As imported: the reference interpreter runs what the user gave, not what the passes made of
    /// it.
    graph: Graph,
    info: ArtifactInfo,
    variants: Vec<Variant>,
    outlines: Vec<VariantOutline>,
    memo: Mutex<Memo>,
}

impl CompiledModel {
    /// The parts of the artifact of a configuration.
    fn linked(&self, variant: usize, configuration: &Configuration, info: &ArtifactInfo) -> Result<LinkOutline, Refusal> {
        let variant = &self.variants[variant];
        let mut by_spec: BTreeMap<usize, SpecChoice> = BTreeMap::new();
        {
            let memo = self.memo();
            for (task, candidate) in &configuration.candidates {
                let spec = &variant.specs[task.spec];
                let choice = by_spec.entry(spec.index).or_insert_with(|| SpecChoice { spec: spec.index, by_point: Vec::new() });
                choice.by_point.push((spec.tasks[task.point].0.clone(), memo.candidate(candidate.id).clone()));
            }
        }
        let choices: Vec<SpecChoice> = by_spec.into_values().collect();
        let plan = match configuration.segments.as_slice() {
            [] => Cow::Borrowed(&variant.plan),
            segments => Cow::Owned(variant.plan.clone().in_segments(segments.to_vec()).map_err(fault)?),
        };
        let linkage = link::link(&plan, &choices, info).map_err(fault)?;
        // Every step is of a spec that was tuned.
        let outlined = |step: &Step| variant.specs.iter().position(|spec| spec.index == step.spec);
        let steps = plan.steps.iter().filter_map(outlined).collect();
        Ok(LinkOutline {
            image_wise: plan.image_wise(),
            glue: linkage.glue,
            weights: linkage.weights,
            units: linkage.units,
            section_bytes: linkage.section_bytes,
            packs: linkage.packs,
            copies: linkage.copies,
            recipe: link::recipe(),
            metadata: linkage.metadata,
            steps,
        })
    }

    fn task(&self, task: TaskRef) -> &TuningTask {
        &self.variants[task.variant].specs[task.spec].tasks[task.point].1
    }

    /// The memo only grows by whole entries, so one that a panicking thread left is as good as any.
    fn memo(&self) -> MutexGuard<'_, Memo> {
        self.memo.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SearchSpace for CompiledModel {
    fn variants(&self) -> &[VariantOutline] {
        &self.outlines
    }

    fn candidates(&self, task: TaskRef, mode: TuneMode, trials: Option<u32>) -> Vec<CandidateOutline> {
        let key = (task, mode == TuneMode::Full, trials);
        if let Some(list) = self.memo().lists.get(&key) {
            return list.clone();
        }
        let mut rendered = candidate::candidates(self.task(task), mode, trials);
        if mode == TuneMode::None && self.variants[task.variant].allow_vendor {
            // Where nothing is measured it is not for comparison, but it may be known.
            rendered.extend(candidate::baseline(self.task(task)));
        }
        let mut memo = self.memo();
        let list: Vec<_> = rendered.into_iter().map(|c| memo.add(c)).collect();
        memo.lists.insert(key, list.clone());
        list
    }

    fn candidate(&self, task: TaskRef, family: &str, params: &Params) -> Option<CandidateOutline> {
        let tuning = self.task(task);
        let family = FAMILIES.iter().find(|f| f.id() == family && f.supports(tuning).is_ok())?;
        let legal = family.enumerate(tuning).contains(params);
        legal.then(|| self.memo().add(Candidate::new(*family, tuning, params.clone())))
    }

    fn transfer(&self, task: TaskRef, family: &str, params: &Params) -> Option<CandidateOutline> {
        let transferred = candidate::transfer(self.task(task), family, params)?;
        Some(self.memo().add(transferred))
    }

    fn of_same_unit(&self, task: TaskRef, candidate: &CandidateOutline) -> Vec<CandidateOutline> {
        let candidate = self.memo().candidate(candidate.id).clone();
        let of_same_unit = candidate.same_unit(self.task(task));
        let mut memo = self.memo();
        of_same_unit.into_iter().map(|c| memo.add(c)).collect()
    }

    fn reference(&self, task: TaskRef) -> CandidateOutline {
        let naive = candidate::reference(self.task(task));
        self.memo().add(naive)
    }

    fn tools(&self, variant: usize) -> Option<Digest> {
        let tools = candidate::tools(self.outlines[variant].target)?;
        let unit = Digest::of(&tools);
        self.memo().units.entry(unit).or_insert_with(|| tools.into());
        Some(unit)
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
        let memo = self.memo();
        let rendered: Vec<_> = candidates.iter().map(|(id, object)| (memo.candidate(*id).clone(), *object)).collect();
        let reference = (memo.candidate(reference.0), reference.1);
        measure::measure_spec(self.task(task), &rendered, reference, tools, protocol, seed)
    }

    fn select(
        &self,
        task: TaskRef,
        considered: &[CandidateId],
        outcomes: &[(CandidateId, Outcome)],
        at_other_points: &[CandidateId],
    ) -> SelectionOutline {
        let allowed = self.outlines[task.variant].specs[task.spec].tasks[task.point].allowed;
        let [considered, at_other_points] = {
            let memo = self.memo();
            [considered, at_other_points].map(|ids| ids.iter().map(|id| memo.candidate(*id).clone()).collect::<Vec<_>>())
        };
        let admission = Admission { error: allowed, vendor: self.variants[task.variant].allow_vendor };
        let selection = select::select(self.task(task), &considered, outcomes, &at_other_points, admission);
        let winner = self.memo().add(selection.winner);
        SelectionOutline { winner, measured: selection.measured, dropped: selection.dropped, rows: selection.rows }
    }
}

impl Blueprint for CompiledModel {
    fn key_for(&self, task: TaskRef, target: Target) -> TaskKey {
        TuningTask { target, ..self.task(task).clone() }.key()
    }

    fn source(&self, unit: Digest) -> String {
        self.memo().units.get(&unit).expect("units come from this blueprint").to_string()
    }

    fn link(&self, variant: usize, configuration: &Configuration, untested: Option<String>) -> Result<LinkOutline, Refusal> {
        self.linked(variant, configuration, &ArtifactInfo { untested, ..self.info.clone() })
    }

    fn link_for_race(&self, variant: usize, configuration: &Configuration) -> Result<LinkOutline, Refusal> {
        // The text is part of the keys of stored Link and race items.
        let info = ArtifactInfo { graph: Digest::of("a rehearsal"), ..self.info.clone() };
        let outline = self.linked(variant, configuration, &info)?;
        // A weight section that nothing is packed into holds zeros.
        Ok(LinkOutline { weights: Vec::new(), packs: Vec::new(), copies: Vec::new(), ..outline })
    }

    fn check_case(&self, samples: Option<Bytes>) -> Result<Vec<u8>, Refusal> {
        let given = samples.map(|file| Case::read_calls(&file)).transpose().map_err(fault)?;
        let calls = check_case(&self.graph, given).map_err(|e| Refusal { hint: e.hint(), ..fault(e) })?;
        Ok(Case::write_calls(&calls))
    }

    fn profile_points(&self) -> Vec<BTreeMap<String, i64>> {
        // All variants come from one graph, so they share their dimensions.
        self.variants.first().map(|v| v.plan.tune_points(&[]).iter().map(named).collect()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use aotfarm_protocol::{DimRange, Precision, Segment};

    use super::*;

    /// A small convolution network, planned for real: what the driver relies on.
    #[test]
    fn an_example_is_planned_the_same_way_twice() {
        let graph = Bytes::from(import::graph::write(&aotfarm_compiler::ir::example("mobilenet_v2").unwrap()));
        let request = JobRequest {
            name: "m".to_owned(),
            graph: Digest::of(&graph),
            targets: vec!["cpu-x86_64-v3".parse().unwrap()],
            dims: vec![DimRange { name: "batch".to_owned(), min: 1, max: 4 }],
            tune: TuneMode::Quick,
            trials: Some(4),
            budget_s: None,
            tune_at: vec![1, 4],
            accuracy: Accuracy::Default,
            precision: Precision::default(),
            threads: None,
            allow_vendor: false,
            samples: None,
        };
        let (one, two) =
            (CompilerPlanner.plan(graph.clone(), &request).unwrap(), CompilerPlanner.plan(graph.clone(), &request).unwrap());
        assert_eq!(one.variants(), two.variants());
        let variant = &one.variants()[0];
        let keys: std::collections::HashSet<_> = variant.specs.iter().flat_map(|s| s.tasks.iter().map(|t| t.key)).collect();
        assert_eq!(keys.len(), variant.specs.iter().map(|s| s.tasks.len()).sum::<usize>(), "tasks are distinct");
        let mut configuration = Configuration::default();
        for (spec, outline) in variant.specs.iter().enumerate() {
            for point in 0..outline.tasks.len() {
                let task = TaskRef { variant: 0, spec, point };
                let naive = one.reference(task);
                assert_eq!(one.candidates(task, TuneMode::Quick, Some(4))[0], naive);
                assert_eq!(one.candidate(task, &naive.family, &naive.params).as_ref(), Some(&naive));
                configuration.candidates.push((task, naive));
                two.reference(task);
            }
        }
        let (a, b) = (one.link(0, &configuration, None).unwrap(), two.link(0, &configuration, None).unwrap());
        assert_eq!(a, b);
        assert!(a.units.iter().all(|u| Digest::of(one.source(*u)) == *u));

        assert!(a.metadata.segments.is_empty() && a.image_wise.iter().all(|image_wise| *image_wise));
        configuration.segments = vec![Segment { steps: 1..4, images: 1 }];
        let parted = one.link(0, &configuration, None).unwrap();
        assert_eq!(parted.metadata.segments, configuration.segments);
        assert_ne!(parted.glue, a.glue);

        let wrong = JobRequest { dims: vec![DimRange { name: "seq".to_owned(), min: 1, max: 4 }], ..request };
        let error = CompilerPlanner.plan(graph, &wrong).err().unwrap();
        assert!(
            error.message.contains("no symbolic dimension `seq`") && error.hint.unwrap().contains("batch"),
            "{}",
            error.message
        );
    }

    /// From the request to what is linked, for the classifier of a network in bf16.
    #[test]
    fn a_vendors_library_is_linked_only_if_the_request_allows_it() {
        use aotfarm_protocol::{Measurement, VendorLibrary};
        let graph = Bytes::from(import::graph::write(&aotfarm_compiler::ir::example("resnet18").unwrap()));
        let plan = |allow_vendor| {
            let request = JobRequest {
                name: "m".to_owned(),
                graph: Digest::of(&graph),
                targets: vec!["cuda-sm_90".parse().unwrap()],
                dims: vec![DimRange { name: "batch".to_owned(), min: 1, max: 1 }],
                tune: TuneMode::Quick,
                trials: Some(1),
                budget_s: None,
                tune_at: vec![],
                accuracy: Accuracy::Default,
                precision: Precision::Bf16,
                threads: None,
                allow_vendor,
                samples: None,
            };
            CompilerPlanner.plan(graph.clone(), &request).unwrap()
        };
        let measured = |seconds, algorithm| {
            Outcome::Measured(Measurement { samples: vec![seconds; 20], raced: 20, error: 1e-7, conditions: None, algorithm })
        };
        for allowed in [false, true] {
            let plan = plan(allowed);
            let mut configuration = Configuration::default();
            for spec in 0..plan.variants()[0].specs.len() {
                let task = TaskRef { variant: 0, spec, point: 0 };
                let candidates = plan.candidates(task, TuneMode::Quick, Some(1));
                let of_library = |c: &CandidateOutline| c.family.starts_with("cu") && !c.family.starts_with("cuda");
                let outcomes: Vec<_> = candidates
                    .iter()
                    .map(|c| (c.id, if of_library(c) { measured(1e-6, Some(1)) } else { measured(2e-6, None) }))
                    .collect();
                let ids: Vec<_> = candidates.iter().map(|c| c.id).collect();
                let winner = plan.select(task, &ids, &outcomes, &[]).winner;
                assert_eq!(of_library(&winner), allowed && candidates.iter().any(of_library), "{}", winner.family);
                configuration.candidates.push((task, winner));
            }
            let linked = plan.link(0, &configuration, None).unwrap();
            assert_eq!(linked.metadata.libraries, if allowed { VendorLibrary::ALL.to_vec() } else { vec![] });
            assert_eq!(linked.glue.contains("cudnnConvolutionBiasActivationForward"), allowed);
            assert!(linked.units.iter().all(|unit| !plan.source(*unit).contains("called by the worker")));
        }
    }
}
