//! Where states begin and where they lie.

use aotfarm_plan::Plan;

use super::error::LinkError;
use super::section::Section;

/// One state, as `rt_state` says it.
pub(super) struct StateRow {
    /// Offset of the first contents in the weight section.
    pub(super) initial: u64,
    /// Where it lies in the memory of all states.
    pub(super) offset: u64,
    pub(super) bytes: u64,
}

/// The states of a plan.
pub(super) struct States {
    pub(super) rows: Vec<StateRow>,
    /// What all of them take.
    pub(super) bytes: u64,
}

impl States {
    /// Lays them out; each starts as aligned as weights do, and as many bytes may be read past its end.
    pub(super) fn new(plan: &Plan, section: &mut Section<'_>) -> Result<Self, LinkError> {
        let mut states = Self { rows: Vec::new(), bytes: 0 };
        for state in &plan.states {
            let initial = section.raw(state.initial)?;
            let (bytes, offset) = (section.bytes_of(state.initial)?, states.bytes);
            // The section holds all of them, so that the sum stays below its limit.
            states.bytes = (offset + bytes).next_multiple_of(section.align()) + section.align();
            states.rows.push(StateRow { initial, offset, bytes });
        }
        Ok(states)
    }
}
