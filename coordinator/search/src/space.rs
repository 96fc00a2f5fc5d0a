//! The compiler as the search sees it.

use aotfarm_protocol::{CandidateId, Digest, MeasureProtocol, MeasureSpec, Outcome, Params, TuneMode};

use crate::outline::{CandidateOutline, SelectionOutline, TaskRef, VariantOutline};

/// The tasks of a model and the candidates that may be searched for each. All functions are pure: a
/// restarted search asks again and gets the same answers.
pub trait SearchSpace: Send + Sync + 'static {
    /// One plan per target, in the order of the request.
    fn variants(&self) -> &[VariantOutline];

    /// The candidates of a task, those believed best first, at most `trials` of them; never empty.
    fn candidates(&self, task: TaskRef, mode: TuneMode, trials: Option<u32>) -> Vec<CandidateOutline>;

    /// One point of a family for a task; `None` when the family does not implement the task, or the
    /// point is not legal for it.
    fn candidate(&self, task: TaskRef, family: &str, params: &Params) -> Option<CandidateOutline>;

    /// Carries a point that is fast in a similar task over to this one: the point itself if it is
    /// legal here, else the best guess that is compiled in the same way.
    fn transfer(&self, task: TaskRef, family: &str, params: &Params) -> Option<CandidateOutline>;

    /// The candidates of the same unit: all legal points that differ from this one in nothing that
    /// is compiled, itself among them, those believed best first.
    fn of_same_unit(&self, task: TaskRef, candidate: &CandidateOutline) -> Vec<CandidateOutline>;

    /// The naive candidate of a task: the fallback and the reference.
    fn reference(&self, task: TaskRef) -> CandidateOutline;

    /// The unit of the kernels that fill and compare operands on the variant's GPU; `None` for a
    /// CPU.
    fn tools(&self, variant: usize) -> Option<Digest>;

    /// A Measure item over candidates with their objects; the first pair is the reference. `tools`
    /// is the object of [`Self::tools`].
    fn measure(
        &self,
        task: TaskRef,
        reference: (CandidateId, Digest),
        candidates: &[(CandidateId, Digest)],
        tools: Option<Digest>,
        protocol: MeasureProtocol,
        seed: u64,
    ) -> MeasureSpec;

    /// Selects among candidates. Without any outcome it is the compiler's own guess.
    /// `at_other_points` are the winners at other points of the same computation, with which
    /// sharing packed weights is preferred.
    fn select(
        &self,
        task: TaskRef,
        considered: &[CandidateId],
        outcomes: &[(CandidateId, Outcome)],
        at_other_points: &[CandidateId],
    ) -> SelectionOutline;
}
