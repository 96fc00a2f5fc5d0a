//! One point of a family's space for one task, rendered.

use aotfarm_protocol::{CandidateId, Digest, KeyHasher, Launch, Params, TaskKey, VendorCall, params_text};

use crate::family::{CandidateFamily, FamilyId, KernelSource, Needs};
use crate::task::TuningTask;

/// One point of a family's space for one task.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Digest of task, family, params and source.
    pub id: CandidateId,
    /// `name@version`.
    pub family: FamilyId,
    /// Parameters.
    pub params: Params,
    /// Source; shared text is deduplicated by `unit`.
    pub source: KernelSource,
    /// Digest of the source text.
    pub unit: Digest,
    /// Run-time integers.
    pub tune: Vec<i64>,
    /// Sizes at the task's point.
    pub needs: Needs,
    /// [`CandidateFamily::launch`].
    pub launch: Option<Launch>,
    /// [`CandidateFamily::packing`].
    pub packing: Params,
    /// What a vendor's library is to do in its stead: such a candidate is measured for comparison,
    /// and wins only where the job allows it, as one [with an algorithm](Self::with_algorithm).
    pub vendor: Option<VendorCall>,
}

/// The parameter that names an algorithm of a vendor's library.
const ALGORITHM: &str = "algorithm";

/// A source with its digest.
#[derive(Debug, Clone)]
pub(crate) struct RenderedUnit {
    pub source: KernelSource,
    pub digest: Digest,
}

impl RenderedUnit {
    pub(crate) fn new(family: &dyn CandidateFamily, task: &TuningTask, params: &Params) -> Self {
        let source = family.render(task, params);
        let digest = Digest::of(&source.text);
        Self { source, digest }
    }
}

impl Candidate {
    /// Renders one point of a family.
    pub fn new(family: &dyn CandidateFamily, task: &TuningTask, params: Params) -> Self {
        let unit = RenderedUnit::new(family, task, &params);
        Self::of_unit(family, task, task.key(), params, unit)
    }

    /// The same for a unit that is rendered already; `key` is the task's.
    pub(crate) fn of_unit(
        family: &dyn CandidateFamily,
        task: &TuningTask,
        key: TaskKey,
        params: Params,
        unit: RenderedUnit,
    ) -> Self {
        let RenderedUnit { source, digest: unit } = unit;
        Self {
            id: Self::name(key, family.id(), unit, &params),
            family: family.id(),
            tune: family.tune(task, &params),
            needs: family.needs(task, &params, &task.point),
            launch: family.launch(task, &params),
            packing: family.packing(&params),
            vendor: None,
            params,
            source,
            unit,
        }
    }

    /// A candidate of no family.
    pub(crate) fn foreign(family: FamilyId, task: &TuningTask, params: Params, source: KernelSource, needs: Needs) -> Self {
        let unit = Digest::of(&source.text);
        let id = Self::name(task.key(), family, unit, &params);
        let packing = params.clone();
        Self { id, family, params, source, unit, tune: Vec::new(), needs, launch: None, packing, vendor: None }
    }

    /// A vendor's library by one of its algorithms: what an artifact can call, while the candidate
    /// that is measured finds out which is the fastest.
    #[must_use]
    pub fn with_algorithm(&self, task: &TuningTask, algorithm: i64) -> Self {
        let params = Params::from([(ALGORITHM.to_owned(), algorithm)]);
        let chosen = Self::foreign(self.family, task, params, self.source.clone(), self.needs.clone());
        Self { vendor: self.vendor.clone(), ..chosen }
    }

    /// Which algorithm, of a candidate [with one](Self::with_algorithm).
    pub fn algorithm(&self) -> Option<i64> {
        self.vendor.as_ref().and_then(|_| self.params.get(ALGORITHM).copied())
    }

    fn name(key: TaskKey, family: FamilyId, unit: Digest, params: &Params) -> CandidateId {
        let mut id = KeyHasher::new("candidate").field(key.0.as_bytes()).field(family).field(unit.as_bytes());
        for (name, value) in params {
            id = id.field(name).field(value.to_le_bytes());
        }
        CandidateId(id.finish())
    }

    /// Whether both read the same packed weights (or both the raw ones), when they are for the same
    /// computation.
    pub fn shares_weights_with(&self, other: &Self) -> bool {
        match (self.needs.packed, other.needs.packed) {
            (0, 0) => true,
            (a, b) => a == b && self.family == other.family && self.packing == other.packing,
        }
    }

    /// `family@version` and the parameters, for tables and logs.
    pub fn label(&self) -> String {
        format!("{} {}", self.family, params_text(&self.params))
    }
}
