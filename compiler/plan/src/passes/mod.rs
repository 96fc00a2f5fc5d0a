//! Graph passes: Graph → Graph, in the order of [`PASSES`], the verifier after each.
//!
//! After them a graph holds no `AdaptiveAvgPool` (of known size) or `BatchNorm`, normalises last axes only, has products, pools and
//! normalisations in f32 only (attention excepted), and no view that does nothing, no node whose value is known, and no node that nobody uses.

mod attention;
mod canonicalise;
mod constant;
mod dead_code;
mod decompose;
mod fold_batch_norm;
mod fold_constants;
mod recognise;
mod rewrite;
mod separate;
mod spell_out;
#[cfg(test)]
mod tests;
mod widen;

use aotfarm_ir::{BuildError, Graph, VerifyError, verify};

pub use decompose::{decompose_attention, spell_out};

/// A rewriting of the graph that keeps what it computes.
pub struct Pass {
    /// Its name, for `--stop-after`.
    pub name: &'static str,
    run: fn(&Graph) -> Result<Graph, BuildError>,
}

/// All passes, in order.
pub const PASSES: &[Pass] = &[
    Pass { name: "widen", run: widen::run },
    Pass { name: "canonicalise", run: canonicalise::run },
    Pass { name: "fold_constants", run: fold_constants::run },
    Pass { name: "recognise", run: recognise::run },
    Pass { name: "fold_batch_norm", run: fold_batch_norm::run },
    Pass { name: "separate", run: separate::run },
    Pass { name: "spell_out", run: spell_out::run },
    Pass { name: "dead_code", run: dead_code::run },
];

/// Why the passes failed.
#[derive(Debug, thiserror::Error)]
pub enum PassError {
    /// No pass has this name.
    #[error("there is no pass `{name}`; the passes are {}", names())]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// A node could not be rewritten.
    #[error("pass `{pass}` failed")]
    Rewrite {
        /// The pass.
        pass: &'static str,
        /// Names the node.
        #[source]
        source: BuildError,
    },
    /// A pass broke the graph.
    #[error("pass `{pass}` left an inconsistent graph, which is a defect of the compiler")]
    Inconsistent {
        /// The pass.
        pass: &'static str,
        /// What is wrong, and where.
        #[source]
        source: VerifyError,
    },
}

fn names() -> String {
    PASSES.iter().map(|pass| pass.name).collect::<Vec<_>>().join(", ")
}

/// Runs all passes, or those up to and including `stop_after`.
pub fn run(graph: Graph, stop_after: Option<&str>) -> Result<Graph, PassError> {
    let count = match stop_after {
        None => PASSES.len(),
        Some(name) => match PASSES.iter().position(|pass| pass.name == name) {
            Some(at) => at + 1,
            None => return Err(PassError::Unknown { name: name.to_owned() }),
        },
    };
    PASSES[..count].iter().try_fold(graph, |graph, pass| {
        let graph = (pass.run)(&graph).map_err(|source| PassError::Rewrite { pass: pass.name, source })?;
        verify(&graph).map_err(|source| PassError::Inconsistent { pass: pass.name, source })?;
        Ok(graph)
    })
}
