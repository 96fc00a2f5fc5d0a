//! The plan's steps with the selected kernels.

use std::collections::{BTreeMap, BTreeSet};

use aotfarm_protocol::{Digest, Launch, StepInfo, VendorLibrary};
use indexmap::{IndexMap, IndexSet};

use super::choice::{NeedsOf, SpecChoice};
use super::error::LinkError;
use super::section::Section;
use super::values::Values;
use super::vendor::VendorStep;
use aotfarm_ir::{Bindings, Expr};
use aotfarm_kernels::Candidate;
use aotfarm_kernels::TuningTask;
use aotfarm_plan::{Buffer, BufferId, Place, Plan, Step};

/// The kernel of a step at one tuned point.
pub(super) struct Kernel {
    pub(super) symbol: String,
    pub(super) unit: Digest,
    pub(super) tune: Vec<i64>,
    pub(super) launch: Option<Launch>,
    pub(super) weights: Weights,
    /// What a library does in its stead: there is no unit then.
    pub(super) vendor: Option<VendorStep>,
}

/// Offsets in the weight section.
pub(super) enum Weights {
    Raw(Vec<u64>),
    Packed(u64),
}

/// A step.
pub(super) struct StepTable {
    /// One for each point.
    pub(super) kernels: Vec<Kernel>,
    /// Index into [`Steps::points`].
    pub(super) points: usize,
    pub(super) inputs: Vec<u32>,
    pub(super) outputs: Vec<u32>,
    /// Indices of sizes.
    pub(super) dims: Vec<u32>,
    pub(super) weights: usize,
}

pub(super) struct Steps {
    pub(super) steps: Vec<StepTable>,
    /// Distinct lists of tuned points, each point with a size for every symbolic dimension.
    pub(super) points: IndexSet<Vec<Vec<i64>>>,
    /// Sizes of the buffers in each slot, in bytes.
    pub(super) slots: Vec<Vec<u32>>,
    /// Of each buffer, its size.
    pub(super) buffer_bytes: Vec<u32>,
    /// Of each buffer of which a segment uses a part at a time: the bytes from one image to the next.
    pub(super) image_bytes: Vec<Option<u32>>,
    /// Workspace in bytes: of the team (on a GPU: all), of each thread.
    pub(super) shared: u64,
    pub(super) thread: u64,
    pub(super) units: Vec<Digest>,
    pub(super) info: Vec<StepInfo>,
}

impl Steps {
    pub(super) fn new(
        plan: &Plan,
        choices: &[SpecChoice],
        needs: &NeedsOf<'_>,
        values: &mut Values,
        section: &mut Section<'_>,
    ) -> Result<Self, LinkError> {
        let mut all = Self {
            steps: Vec::new(),
            points: IndexSet::new(),
            slots: slots(plan, values)?,
            buffer_bytes: Vec::new(),
            image_bytes: Vec::new(),
            shared: 0,
            thread: 0,
            units: Vec::new(),
            info: Vec::new(),
        };
        let mut units: IndexMap<String, Digest> = IndexMap::new();
        for step in &plan.steps {
            let choice = choices.iter().find(|c| c.spec == step.spec && !c.by_point.is_empty());
            let choice = choice.ok_or_else(|| LinkError::NoChoice { step: step.label.clone() })?;
            check(plan, step)?;
            for (_, candidate) in choice.by_point.iter().filter(|(_, c)| c.vendor.is_none()) {
                let symbol = candidate.source.symbol.clone();
                if units.get(&symbol).is_some_and(|unit| *unit != candidate.unit) {
                    return Err(LinkError::SymbolClash(symbol));
                }
                units.insert(symbol, candidate.unit);
            }
            all.workspace(plan, step, choice, needs, values)?;
            let point = |(bindings, _): &(Bindings, Candidate)| {
                values.dims().iter().map(|d| bindings.get(d.sym.as_str()).unwrap_or(d.min)).collect()
            };
            let points = all.points.insert_full(choice.by_point.iter().map(point).collect()).0;
            let kernels =
                choice.by_point.iter().map(|(_, candidate)| kernel(step, candidate, section)).collect::<Result<_, _>>()?;
            let dim = |(k, e): (usize, &Expr)| values.index(e, || format!("dim {k} of step `{}`", step.label));
            all.steps.push(StepTable {
                kernels,
                points,
                inputs: step.inputs.iter().map(|b| b.0).collect(),
                outputs: step.outputs.iter().map(|b| b.0).collect(),
                dims: step.dims.iter().enumerate().map(dim).collect::<Result<_, _>>()?,
                weights: step.weights.len(),
            });
            all.info.push(info(step, choice));
        }
        written(plan)?;
        all.image_bytes = image_bytes(plan, values)?;
        all.buffer_bytes = buffer_bytes(plan, values)?;
        // Several symbols can be of one unit.
        all.units = units.into_values().collect::<IndexSet<_>>().into_iter().collect();
        Ok(all)
    }

    /// The libraries that do steps.
    pub(super) fn libraries(&self) -> Vec<VendorLibrary> {
        let calls = self.steps.iter().flat_map(|step| &step.kernels).filter_map(|kernel| kernel.vendor.as_ref());
        calls.map(|vendor| vendor.call.library()).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Grows the workspace to what the step's kernels need at the largest dims.
    fn workspace(
        &mut self,
        plan: &Plan,
        step: &Step,
        choice: &SpecChoice,
        needs: &NeedsOf<'_>,
        values: &Values,
    ) -> Result<(), LinkError> {
        let dim = |(k, e): (usize, &Expr)| values.largest(e, || format!("dim {k} of step `{}`", step.label));
        let dims: Vec<i64> = step.dims.iter().enumerate().map(dim).collect::<Result<_, _>>()?;
        let task = TuningTask { spec: plan.specs[step.spec].clone(), target: plan.target, point: dims.clone() };
        // What a library needs, it says itself at run time.
        for (_, candidate) in choice.by_point.iter().filter(|(_, c)| c.vendor.is_none()) {
            let needs = needs(&task, candidate, &dims).ok_or_else(|| LinkError::UnknownFamily(candidate.family.to_owned()))?;
            if needs.packed != candidate.needs.packed {
                let (family, at_point) = (candidate.family, candidate.needs.packed);
                return Err(LinkError::Plan(format!(
                    "{family} packs {at_point} bytes at one size and {} at another",
                    needs.packed
                )));
            }
            self.shared = self.shared.max(needs.shared);
            self.thread = self.thread.max(needs.thread);
        }
        Ok(())
    }
}

/// The sizes of what lies in each slot.
fn slots(plan: &Plan, values: &mut Values) -> Result<Vec<Vec<u32>>, LinkError> {
    let mut slots: Vec<IndexSet<u32>> = vec![IndexSet::new(); plan.slots.len()];
    for (i, slot) in plan.slots.iter().enumerate() {
        for bytes in &slot.bytes {
            slots[i].insert(values.index(bytes, || format!("the size of arena slot {i}"))?);
        }
    }
    for (i, buffer) in plan.buffers.iter().enumerate() {
        let Place::Slot(slot) = buffer.place else { continue };
        let bytes = buffer.len.clone() * Expr::from(buffer.dtype.size() as i64);
        let bytes = values.index(&bytes, || format!("the size of buffer {i}"))?;
        let slot = slots
            .get_mut(slot)
            .ok_or_else(|| LinkError::Plan(format!("buffer {i} lies in slot {slot}, which does not exist")))?;
        slot.insert(bytes);
    }
    Ok(slots.into_iter().map(|slot| slot.into_iter().collect()).collect())
}

/// The size of each buffer.
fn buffer_bytes(plan: &Plan, values: &mut Values) -> Result<Vec<u32>, LinkError> {
    let bytes = |(i, buffer): (usize, &Buffer)| {
        values.index(&(&buffer.len * buffer.dtype.size() as i64), || format!("the size of buffer {i}"))
    };
    plan.buffers.iter().enumerate().map(bytes).collect()
}

/// Where the next image is in the buffers that segments use in parts.
fn image_bytes(plan: &Plan, values: &mut Values) -> Result<Vec<Option<u32>>, LinkError> {
    let index = |(i, bytes): (usize, Option<Expr>)| {
        bytes.map(|bytes| values.index(&bytes, || format!("the size of an image in buffer {i}"))).transpose()
    };
    plan.parted().into_iter().enumerate().map(index).collect()
}

/// That the step is one of its spec.
fn check(plan: &Plan, step: &Step) -> Result<(), LinkError> {
    let defect = |what: String| Err(LinkError::Plan(format!("step `{}` {what}", step.label)));
    let Some(spec) = plan.specs.get(step.spec) else {
        return defect(format!("has spec {}, which does not exist", step.spec));
    };
    for (kind, has, wants) in [
        ("inputs", step.inputs.len(), spec.inputs.len()),
        ("weights", step.weights.len(), spec.weights.len()),
        ("outputs", step.outputs.len(), spec.outputs.len()),
        ("dims", step.dims.len(), spec.dims),
    ] {
        if has != wants {
            return defect(format!("has {has} {kind}, but its spec {wants}"));
        }
    }
    match step.inputs.iter().chain(&step.outputs).find(|b| b.0 as usize >= plan.buffers.len()) {
        Some(BufferId(id)) => defect(format!("uses buffer {id}, which does not exist")),
        None => Ok(()),
    }
}

/// That all a run must leave is written, and nothing that it only reads.
fn written(plan: &Plan) -> Result<(), LinkError> {
    let places: Vec<Place> = plan.steps.iter().flat_map(|s| &s.outputs).map(|b| plan.buffers[b.0 as usize].place).collect();
    if let Some(place) = plan.results().find(|place| !places.contains(place)) {
        return Err(LinkError::Plan(format!("no step writes {place}")));
    }
    match places.iter().find(|place| place.is_read_only()) {
        Some(place) => Err(LinkError::Plan(format!("a step writes {place}"))),
        None => Ok(()),
    }
}

fn kernel(step: &Step, candidate: &Candidate, section: &mut Section<'_>) -> Result<Kernel, LinkError> {
    let weights = if candidate.source.packs {
        Weights::Packed(section.packed(&step.weights, candidate)?)
    } else {
        Weights::Raw(step.weights.iter().map(|id| section.raw(*id)).collect::<Result<_, _>>()?)
    };
    let vendor = candidate.vendor.as_ref().map(|call| {
        let undecided = || LinkError::Plan(format!("{} was chosen without one of its algorithms", candidate.family));
        Ok(VendorStep { call: call.clone(), algorithm: candidate.algorithm().ok_or_else(undecided)? })
    });
    Ok(Kernel {
        vendor: vendor.transpose()?,
        symbol: candidate.source.symbol.clone(),
        unit: candidate.unit,
        tune: candidate.tune.clone(),
        launch: candidate.launch.clone(),
        weights,
    })
}

fn info(step: &Step, choice: &SpecChoice) -> StepInfo {
    let point = |bindings: &Bindings| bindings.iter().map(|(sym, n)| format!("{sym}={n}")).collect::<Vec<_>>().join(",");
    let kernels: BTreeMap<_, _> =
        choice.by_point.iter().map(|(bindings, candidate)| (point(bindings), candidate.label())).collect();
    StepInfo { label: step.label.clone(), kernels }
}
