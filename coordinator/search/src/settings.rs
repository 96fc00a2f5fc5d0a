//! How much is to be searched.

use aotfarm_protocol::TuneMode;

/// How much to tune.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The mode.
    pub mode: TuneMode,
    /// Most candidates per task, when the user said so.
    pub trials: Option<u32>,
    /// Milliseconds of measuring for the variant, in all.
    pub budget_ms: u64,
    /// Threads of a kernel's team.
    pub threads: u32,
    /// The variant is for a GPU.
    pub gpu: bool,
}
