//! What fuzzers try: functions that take any bytes and must come back without a panic, soon, and in little memory.
//!
//! The fuzzers of `fuzz/` call them with what libFuzzer makes up, the tests of this crate with the seeds in `tests/fixtures/corpus`, so that what a
//! fuzzer once found is tried by everybody. Each function also checks what must hold of an input that is accepted.
#![forbid(unsafe_code)]

mod blob;
mod expr;
mod models;

/// A function that is fuzzed.
#[derive(Debug, Clone, Copy)]
pub struct FuzzTarget {
    /// Its name: of the fuzzer, and of the folder of seeds.
    pub name: &'static str,
    /// Tries an input; whether it was accepted.
    ///
    /// # Panics
    /// That is what is looked for.
    pub run: fn(&[u8]) -> bool,
}

/// All of them.
pub const TARGETS: [FuzzTarget; 5] = [
    FuzzTarget { name: "blob", run: blob::run },
    FuzzTarget { name: "expr", run: expr::run },
    FuzzTarget { name: "graph", run: models::graph },
    FuzzTarget { name: "onnx", run: models::onnx },
    FuzzTarget { name: "pt2", run: models::pt2 },
];

/// Tries an input with the target of this name.
///
/// # Panics
/// If there is no such target, or it panics.
pub fn run(name: &str, input: &[u8]) -> bool {
    let target = TARGETS.iter().find(|target| target.name == name);
    (target.unwrap_or_else(|| panic!("there is no fuzz target `{name}`")).run)(input)
}
