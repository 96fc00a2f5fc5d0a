//! The life of a Job as a pure table: which state follows which step. The driver asks here before it writes a state.

use aotfarm_protocol::JobState;

/// What happens to a Job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JobStep {
    /// The driver picked it up.
    Start,
    /// The same work is already published.
    Answer,
    /// The Plan exists and is announced.
    Planned,
    /// Every task has its winner.
    Tuned,
    /// The artifacts are linked.
    Linked,
    /// The artifacts are checked, timed and in the registry.
    Publish,
    /// It cannot go on.
    Fail,
    /// The user gave it up.
    Cancel,
    /// A coordinator died while driving it: its plan is made again, and every finished item is found in the database.
    Resume,
}

impl JobStep {
    /// All steps.
    pub const ALL: [Self; 9] = [
        Self::Start,
        Self::Answer,
        Self::Planned,
        Self::Tuned,
        Self::Linked,
        Self::Publish,
        Self::Fail,
        Self::Cancel,
        Self::Resume,
    ];
}

/// The state that follows `state` after `step`, or `None` when the step is not allowed there.
pub fn next(state: JobState, step: JobStep) -> Option<JobState> {
    use JobState as S;
    match (state, step) {
        (S::Queued, JobStep::Start) => Some(S::Planning),
        (S::Queued | S::Planning, JobStep::Answer) => Some(S::Published),
        (S::Planning, JobStep::Planned) => Some(S::Tuning),
        (S::Tuning, JobStep::Tuned) => Some(S::Linking),
        (S::Linking, JobStep::Linked) => Some(S::Profiling),
        (S::Profiling, JobStep::Publish) => Some(S::Published),
        (s, JobStep::Fail) if !s.is_final() => Some(S::Failed),
        (s, JobStep::Cancel) if !s.is_final() => Some(S::Cancelled),
        (s, JobStep::Resume) if !s.is_final() => Some(S::Queued),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [JobState; 8] = [
        JobState::Queued,
        JobState::Planning,
        JobState::Tuning,
        JobState::Linking,
        JobState::Profiling,
        JobState::Published,
        JobState::Failed,
        JobState::Cancelled,
    ];

    /// The whole table, one row per state, in the order of [`JobStep::ALL`]; `-` is a refused step.
    #[test]
    fn every_state_and_step() {
        let table = [
            ("queued", "planning published - - - - failed cancelled queued"),
            ("planning", "- published tuning - - - failed cancelled queued"),
            ("tuning", "- - - linking - - failed cancelled queued"),
            ("linking", "- - - - profiling - failed cancelled queued"),
            ("profiling", "- - - - - published failed cancelled queued"),
            ("published", "- - - - - - - - -"),
            ("failed", "- - - - - - - - -"),
            ("cancelled", "- - - - - - - - -"),
        ];
        for (state, (name, row)) in STATES.into_iter().zip(table) {
            assert_eq!(state.to_string(), name);
            let got: Vec<_> =
                JobStep::ALL.iter().map(|s| next(state, *s).map_or_else(|| "-".to_owned(), |s| s.to_string())).collect();
            assert_eq!(got.join(" "), row, "from {name}");
        }
    }
}
