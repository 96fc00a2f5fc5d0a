//! What searches do differently by mode and kind of device: one strategy a file, as plain data and
//! functions.

mod definition;
mod field;
mod full;
mod known;
mod member;
mod quick_on_cpu;
mod quick_on_gpu;

use aotfarm_protocol::TuneMode;

pub use self::definition::PROTOCOL_VERSION;
pub(crate) use self::definition::Strategy;
pub(crate) use self::field::MIN_FIELD;

/// The strategy for a mode, on a GPU or on a CPU.
pub(crate) fn strategy(mode: TuneMode, gpu: bool) -> &'static Strategy {
    match (mode, gpu) {
        (TuneMode::Quick, false) => &quick_on_cpu::STRATEGY,
        (TuneMode::Quick, true) => &quick_on_gpu::STRATEGY,
        (TuneMode::Full, false) => &full::ON_CPU,
        (TuneMode::Full, true) => &full::ON_GPU,
        (TuneMode::None, false) => &known::ON_CPU,
        (TuneMode::None, true) => &known::ON_GPU,
    }
}

/// Milliseconds of measuring for all variants of a job, unless the user said otherwise.
pub fn default_budget_ms(mode: TuneMode, gpu: bool) -> u64 {
    strategy(mode, gpu).budget_ms
}
