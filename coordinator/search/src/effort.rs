//! How much is tried.

/// How many candidates a task begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Effort {
    /// At most; all without a number.
    pub candidates: Option<u32>,
    /// From how many translation units at most.
    pub units: usize,
}

impl Effort {
    /// Everything that the compiler lists.
    pub(crate) const ALL: Self = Self { candidates: None, units: usize::MAX };

    /// So many candidates of so many units.
    pub(crate) const fn of(candidates: u32, units: usize) -> Self {
        Self { candidates: Some(candidates), units }
    }
}
