//! A scripted search space, for tests: tasks and candidates follow from a line of text.

use std::collections::{BTreeMap, HashMap};

use aotfarm_protocol::{
    AutotuneRow, CandidateId, Digest, KernelCall, Likeness, MeasureProtocol, MeasureSpec, Measurement, Outcome, Params, Target,
    TaskKey, TuneMode,
};

use crate::outline::{CandidateOutline, SelectionOutline, SpecOutline, TaskOutline, TaskRef, VariantOutline};
use crate::space::SearchSpace;

const VENDOR: &str = "vendor@1";
const TOOLS: &str = "source of the tools";

/// A search space as its text says: `specs=2 points=2 candidates=3`.
///
/// Every task has that many candidates of the families `naive`, `fast` and `slow`, each family with
/// one unit for each spec. The last two of more than three specs are of one core. Words that may
/// follow:
///
/// | word | meaning |
/// |---|---|
/// | `units=6` | the candidates of a spec are spread over so many units of each family |
/// | `flops=1e9` | operations of each task |
/// | `work=uneven` | each spec and each smaller point takes fewer operations than the one before |
/// | `legal=shrinking` | each point has one legal candidate less than the one before |
/// | `tools=gpu` | there are tools for measuring |
/// | `vendor=1` | the last candidate is a vendor's library |
pub struct Script {
    variants: Vec<VariantOutline>,
    candidates: usize,
    units: Option<usize>,
    shrinking: bool,
    tools: bool,
    vendor: bool,
    allow_vendor: bool,
}

impl Script {
    /// Reads a script. With `allow_vendor` the vendor's library may win, by an algorithm.
    ///
    /// # Errors
    /// When one of the three numbers is not there.
    pub fn parse(text: &str, targets: &[Target], allow_vendor: bool) -> Result<Self, String> {
        let words: HashMap<&str, &str> = text.split(' ').filter_map(|w| w.split_once('=')).collect();
        let number = |key: &str| words.get(key).and_then(|n| n.parse::<usize>().ok());
        let needed = |key: &str| number(key).ok_or(format!("no {key}"));
        let (specs, points, candidates) = (needed("specs")?, needed("points")?, needed("candidates")?);
        let flops: f64 = words.get("flops").and_then(|n| n.parse().ok()).unwrap_or(1e6);
        let uneven = words.get("work") == Some(&"uneven");
        let share = |spec: usize, point: usize| 0.25f64.powi(spec as i32) * f64::from(1 << point);
        let task = |target: Target, spec: usize, point: usize| TaskOutline {
            key: TaskKey(Digest::of(format!("task {spec} {point} {target}"))),
            core: (specs > 3 && spec >= specs - 2).then(|| Digest::of(format!("kin {point} {target}"))),
            likeness: Some(Likeness { class: Digest::of(format!("class {target}")), sizes: vec![1 + spec as i64, 1 << point] }),
            title: format!("op{spec}(n={})", 1 << point),
            point: BTreeMap::from([("n".to_owned(), 1 << point)]),
            calls: 1,
            flops: if uneven { flops * share(spec, point) } else { flops },
            footprint: 0,
            allowed: 1e-5,
        };
        let spec = |target: Target, spec: usize| SpecOutline { tasks: (0..points).map(|p| task(target, spec, p)).collect() };
        let variant = |target: &Target| VariantOutline { target: *target, specs: (0..specs).map(|s| spec(*target, s)).collect() };
        Ok(Self {
            variants: targets.iter().map(variant).collect(),
            candidates,
            units: number("units"),
            shrinking: words.get("legal") == Some(&"shrinking"),
            tools: words.get("tools") == Some(&"gpu"),
            vendor: words.contains_key("vendor"),
            allow_vendor,
        })
    }

    /// The text of a unit.
    ///
    /// # Panics
    /// When it is none of this script.
    pub fn source(&self, unit: Digest) -> String {
        let specs = self.variants[0].specs.len();
        let numbers = || std::iter::once(None).chain((0..self.units.unwrap_or(0)).map(Some));
        let of_spec = |s| ["naive@1", "fast@1", "slow@1", VENDOR].map(|f| numbers().map(move |n| unit_text(s, f, n)));
        let texts = (0..specs).flat_map(|s| of_spec(s).into_iter().flatten());
        texts.chain([TOOLS.to_owned()]).find(|t| Digest::of(t) == unit).expect("a unit of this script")
    }

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
        let unit = unit_text(task.spec, family, self.units.filter(|_| n > 0).map(|units| n % units));
        CandidateOutline {
            id: CandidateId(Digest::of(format!("{} {n}", self.outline(task).key))),
            family: family.to_owned(),
            params: Params::from([("n".to_owned(), n as i64)]),
            unit: Digest::of(unit),
        }
    }

    fn all(&self, task: TaskRef) -> impl Iterator<Item = CandidateOutline> + Clone {
        (0..self.candidates).map(move |n| self.numbered(task, n))
    }
}

fn unit_text(spec: usize, family: &str, number: Option<usize>) -> String {
    let number = number.map(|n| format!(", unit {n}")).unwrap_or_default();
    format!("source of {family} for spec {spec}{number}")
}

impl SearchSpace for Script {
    fn variants(&self) -> &[VariantOutline] {
        &self.variants
    }

    fn candidates(&self, task: TaskRef, _: TuneMode, trials: Option<u32>) -> Vec<CandidateOutline> {
        let n = self.legal(task).min(trials.map_or(usize::MAX, |t| t as usize));
        self.all(task).take(n).collect()
    }

    fn candidate(&self, task: TaskRef, family: &str, params: &Params) -> Option<CandidateOutline> {
        let n = params["n"] as usize;
        let legal = !self.shrinking || n < self.legal(task);
        Some(self.numbered(task, n)).filter(|c| legal && c.family == family && family != VENDOR)
    }

    fn transfer(&self, task: TaskRef, family: &str, params: &Params) -> Option<CandidateOutline> {
        self.candidate(task, family, params)
    }

    fn of_same_unit(&self, task: TaskRef, candidate: &CandidateOutline) -> Vec<CandidateOutline> {
        self.all(task).take(self.legal(task)).filter(|c| c.unit == candidate.unit).collect()
    }

    fn reference(&self, task: TaskRef) -> CandidateOutline {
        self.numbered(task, 0)
    }

    fn tools(&self, _: usize) -> Option<Digest> {
        self.tools.then(|| Digest::of(TOOLS))
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
        let call = |(id, object): &(CandidateId, Digest)| {
            let candidate = self.all(task).find(|c| c.id == *id).expect("a candidate of this task");
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
        at_other_points: &[CandidateId],
    ) -> SelectionOutline {
        let row = |id: &CandidateId| {
            let candidate = self.all(task).find(|c| c.id == *id).expect("a candidate of this task");
            let outcome = outcomes.iter().find(|(of, _)| of == id).map(|(_, outcome)| outcome.clone());
            AutotuneRow {
                family: candidate.family,
                params: candidate.params["n"].to_string(),
                outcome: outcome.unwrap_or(Outcome::Unsupported { reason: "nothing is known".to_owned() }),
                seconds: None,
                verdict: format!("{} winners at other points", at_other_points.len()),
                baseline: false,
            }
        };
        let of_vendor = self.vendor.then(|| self.numbered(task, self.candidates - 1));
        let is_vendor = |id: &CandidateId| of_vendor.as_ref().is_some_and(|v| v.id == *id);
        let timed = || outcomes.iter().filter_map(|(id, outcome)| Some((median(outcome)?, *id)));
        let winner = match &of_vendor {
            Some(vendor) if self.allow_vendor && timed().any(|(_, id)| is_vendor(&id)) => CandidateOutline {
                id: CandidateId(Digest::of("by algorithm 3")),
                params: Params::from([("algorithm".to_owned(), 3)]),
                ..vendor.clone()
            },
            _ => {
                let best = timed().filter(|(_, id)| !is_vendor(id)).min_by(|a, b| a.0.total_cmp(&b.0));
                let best = best.and_then(|(_, id)| self.all(task).find(|c| c.id == id));
                best.unwrap_or_else(|| self.reference(task))
            }
        };
        let rows = considered.iter().map(row).collect();
        SelectionOutline { winner, measured: timed().count() as u32, dropped: 0, rows }
    }
}

fn median(outcome: &Outcome) -> Option<f64> {
    match outcome {
        Outcome::Measured(m) => Some(m.median()),
        _ => None,
    }
}

/// Seconds of a candidate: `fast` beats `slow`, and small parameters beat large ones.
fn seconds(label: &str) -> f64 {
    let (family, n) = label.split_once(' ').expect("a family and a number");
    let base = match family {
        VENDOR => 5e-5,
        "fast@1" => 1e-4,
        "slow@1" => 1e-3,
        _ => 1e-2,
    };
    base * (1.0 + n.parse::<f64>().expect("a number") / 100.0)
}

/// The outcomes of a Measure item of a script: every candidate is right and takes as long as its
/// label says.
pub fn measured(spec: &MeasureSpec) -> Vec<(CandidateId, Outcome)> {
    let outcome = |call: &KernelCall| {
        let samples = vec![seconds(&call.label); 3];
        let measurement = Measurement { samples, raced: 3, error: 0.0, conditions: None, algorithm: None };
        (call.candidate, Outcome::Measured(measurement))
    };
    spec.candidates.iter().map(outcome).collect()
}
