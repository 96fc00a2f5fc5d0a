//! Why a plan cannot be linked.

/// The largest weight section: code must reach its end with 32-bit displacements.
pub(super) const MAX_SECTION: u64 = (2 << 30) - (64 << 20);

/// Why a plan cannot be linked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// A spec that a step uses has no selection.
    #[error("no kernel is selected for step `{step}`")]
    NoChoice {
        /// The step's label.
        step: String,
    },
    /// A candidate of a family that this compiler does not have.
    #[error("the family `{0}` of a selected kernel is unknown to this compiler")]
    UnknownFamily(String),
    /// Two different units define one symbol.
    #[error("two different kernels have the symbol `{0}`")]
    SymbolClash(String),
    /// A size may be beyond 64 bits.
    #[error("{what} is `{expr}`, which has no bound within 64 bits: bound the symbolic dimensions, e.g. with --dim batch=1..64")]
    Unbounded {
        /// Whose size.
        what: String,
        /// The size.
        expr: String,
    },
    /// A symbolic dimension that no input tells.
    #[error("the size of `{0}` does not follow from any input: it must be a dimension of one, or a multiple plus a constant")]
    Undetermined(String),
    /// More weights than an artifact can hold.
    #[error("the weights take {bytes} bytes as the selected kernels lay them out, but an artifact holds at most {MAX_SECTION}")]
    TooManyWeights {
        /// What they take.
        bytes: u64,
    },
    /// The plan contradicts itself: a defect of the compiler.
    #[error("defect in the plan: {0}")]
    Plan(String),
}
